//! A program of the host's that carries a container's packets.

use std::io;
use std::os::fd::BorrowedFd;
use std::process::{Child, Command, ExitStatus};

use crate::sys::process;

/// A running program that ends with this process, and is ended when this is dropped.
#[derive(Debug)]
pub struct Helper(Child);

impl Helper {
    /// Starts a program with its standard streams and `kept` alone, no signal held back, which is killed when the
    /// calling thread ends, however it ends.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn spawn(command: &mut Command, kept: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        process::bind_to_parent(command, kept);
        Ok(Self(command.spawn()?))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Somebody else has waited for it.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its standard output, if that is a pipe.
    pub fn take_output(&mut self) -> Option<std::process::ChildStdout> {
        self.0.stdout.take()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
