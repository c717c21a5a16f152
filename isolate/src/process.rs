//! A process of a container, its first one or one that came later, as a child of this process.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};

use crate::error::Error;
use crate::sys::process;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// As a shell tells it: the status, or 128 and the signal's number.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    id: Pid,
    fd: OwnedFd,
    running: bool,
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) notes: Vec<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.running {
            // It may have ended, and it is not reaped: the number is still its own.
            rustix::process::kill_process(self.id, Signal::KILL).ok();
            rustix::process::waitpid(Some(self.id), WaitOptions::empty()).ok();
        }
    }
}

impl Process {
    /// Takes care of a child. Not reaped, its number is its own.
    pub(crate) fn of_child(id: Pid) -> Result<Self, Errno> {
        match process::pidfd(id) {
            Ok(fd) => Ok(Self { id, fd, running: true, terminal: None, notes: Vec::new() }),
            Err(errno) => {
                rustix::process::kill_process(id, Signal::KILL).ok();
                rustix::process::waitpid(Some(id), WaitOptions::empty()).ok();
                Err(errno)
            }
        }
    }

    pub(crate) fn id(&self) -> Pid {
        self.id
    }

    /// Its process id, as this process sees it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.id.as_raw_nonzero().get()
    }

    /// Becomes readable when it ends.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether it has ended, which [`Self::wait`] has yet to tell how.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !self.running || matches!(rustix::process::waitid(WaitId::Pid(self.id), options), Ok(Some(_)))
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// Somebody else has waited for it.
    pub fn wait(&mut self) -> Result<Exit, Error> {
        let status = loop {
            match rustix::process::waitpid(Some(self.id), WaitOptions::empty()) {
                Ok(Some((_, status))) => break status,
                Ok(None) | Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(Error::Call { call: "waitpid", object: "the container's process".to_owned(), errno });
                }
            }
        };
        self.running = false;
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => Exit::Status(status),
            (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
        })
    }

    /// Sends it a signal, by its number.
    ///
    /// # Errors
    /// The kernel knows no such signal.
    pub fn signal(&self, number: i32) -> Result<(), Errno> {
        if self.running { process::kill(self.pid(), number) } else { Ok(()) }
    }

    /// The master of its terminal, if its configuration asks for one.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// What was done otherwise than asked for, in a way that the documentation states; to be said aloud.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Lets it go on without anybody who waits for it.
    pub fn leave(mut self) {
        self.running = false;
    }
}
