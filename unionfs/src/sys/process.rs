//! What concerns the whole process: forking into the background, limits,
//! signals, standard streams.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::ForkResult;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// First byte of the daemon's message to its caller.
const READY: u8 = b'+';
const FAILED: u8 = b'-';

/// The two processes after [`daemonize`].
#[derive(Debug)]
pub enum Side {
    /// The one that was there before: it waits and ends.
    Caller(Waiting),
    /// The new one: it works, and says how the beginning went.
    Daemon(Starting),
}

/// The caller's end of the pipe.
#[derive(Debug)]
pub struct Waiting(File);

/// The daemon's end of the pipe, and the descriptors that the program was started with.
#[derive(Debug)]
pub struct Starting {
    caller: File,
    inherited: Vec<RawFd>,
}

/// Forks; the daemon leads a session of its own and works in `/`.
///
/// To be called while the process has one thread: a second one would be
/// missing in the daemon, with whatever lock it held. That is checked.
pub fn daemonize() -> io::Result<Side> {
    let no_proc =
        |error: io::Error| io::Error::new(error.kind(), format!("/proc/self/task: {error}; mount /proc first"));
    if std::fs::read_dir("/proc/self/task").map_err(no_proc)?.count() != 1 {
        return Err(io::Error::other("a process with several threads cannot go to the background"));
    }
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the process has one thread, so that the child may do what the
    // parent could have done, allocation included.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { .. } => Ok(Side::Caller(Waiting(read.into()))),
        ForkResult::Child => {
            rustix::process::setsid()?;
            rustix::process::chdir("/")?;
            // Later it would be the list of all that is open, which takes time by its length.
            Ok(Side::Daemon(Starting { caller: write.into(), inherited: inherited()? }))
        }
    }
}

impl Waiting {
    /// Waits until the daemon works; otherwise returns its error message,
    /// which is empty if it ended without one.
    pub fn wait(mut self) -> Result<(), String> {
        let mut message = Vec::new();
        let read = self.0.read_to_end(&mut message);
        match (read, message.split_first()) {
            (Ok(_), Some((&READY, _))) => Ok(()),
            (Ok(_), Some((&FAILED, text))) => Err(String::from_utf8_lossy(text).into_owned()),
            (Ok(_), _) => Err(String::new()),
            (Err(error), _) => Err(error.to_string()),
        }
    }
}

impl Starting {
    /// Lets the caller end in success. An error says that it is gone.
    ///
    /// The standard streams are let go of first, and all else that was open when
    /// the program began: whoever reads the caller's output to its end, or waits
    /// for its lock on a file, must not wait for the daemon.
    pub fn ready(mut self) -> io::Result<()> {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        for number in self.inherited.into_iter().filter(|number| !is_own(*number)) {
            // SAFETY: everything that this process opens is closed on exec. A
            // descriptor that is not came through the exec and has no owner here.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
        self.caller.write_all(&[READY])
    }

    /// Lets the caller end in failure, with this message.
    pub fn failed(mut self, message: &str) {
        let mut text = vec![FAILED];
        text.extend_from_slice(message.as_bytes());
        // Without a caller there is nobody to tell.
        self.caller.write_all(&text).ok();
    }
}

/// The descriptors that the program was started with, but for the standard streams.
fn inherited() -> io::Result<Vec<RawFd>> {
    let mut inherited = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
        if number > libc::STDERR_FILENO && !is_own(number) {
            inherited.push(number);
        }
    }
    Ok(inherited)
}

/// Whether a descriptor is closed on exec, as all that this process opens are, or not open at all.
fn is_own(number: RawFd) -> bool {
    // SAFETY: the borrow ends with this call, which fails if the number means nothing.
    let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) });
    flags.map_or(true, |flags| flags.contains(FdFlags::CLOEXEC))
}

/// Whether a process sees the same mounts as this one. Of one that cannot be looked at it is not said.
pub(crate) fn shares_mounts(pid: u32) -> bool {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let own = namespace("self");
    own.is_some() && own == namespace(&pid.to_string())
}

/// Lets the process open as many files as its hard limit allows.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(errno) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("cannot raise the limit of open files: {errno}");
    }
}

/// Modes of new files are those that the kernel's requests carry.
pub(crate) fn clear_umask() {
    rustix::process::umask(Mode::empty());
}

/// What a signal asks of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// SIGTERM, SIGINT, SIGHUP.
    End,
    /// SIGUSR1.
    Report,
}

/// The signals that [`Request`]s come by, held back for [`Signals::next`].
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Holds the signals back in this thread and in those that it will start.
    pub(crate) fn hold() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
            set.add(signal);
        }
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Waits for the next signal; `None` once the other end of `stop` is closed.
    pub(crate) fn next(&self, stop: BorrowedFd<'_>) -> io::Result<Option<Request>> {
        loop {
            if let Some(info) = self.0.read_signal()? {
                let usr1 = u32::try_from(Signal::SIGUSR1 as i32).ok();
                return Ok(Some(if Some(info.ssi_signo) == usr1 { Request::Report } else { Request::End }));
            }
            let mut fds = [
                PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(stop, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if !fds[1].revents().is_empty() {
                return Ok(None);
            }
        }
    }
}

/// A pipe whose ends say no more than whether they are open.
pub(crate) fn stop_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}
