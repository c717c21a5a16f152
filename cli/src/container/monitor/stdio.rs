//! The container's standard streams: pipes, or a terminal.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context as _, Result};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::super::wire::Stream;

/// The monitor's ends. None of them waits.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) input: Option<OwnedFd>,
    pub(super) out: Option<OwnedFd>,
    pub(super) err: Option<OwnedFd>,
    /// In place of the three.
    pub(super) terminal: Option<OwnedFd>,
}

/// The container's ends, which are this process's own standard streams until it is dropped.
#[derive(Debug)]
pub(super) struct Lent(OwnedFd);

impl Lent {
    /// Makes pipes whose far ends belong to `owner`, so that he can open `/dev/stdout`.
    pub(super) fn pipes(input: bool, owner: (u32, u32)) -> Result<(Streams, Self)> {
        let lent = Self::nothing()?;
        let mut streams = Streams::default();
        let pipe = || -> Result<(OwnedFd, OwnedFd), Errno> {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            // Who may not give it away is its owner inside too.
            rustix::fs::fchown(&write, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))).ok();
            Ok((read, write))
        };
        let make = |streams: &mut Streams| -> Result<(), Errno> {
            if input {
                let (read, write) = pipe()?;
                rustix::stdio::dup2_stdin(&read)?;
                streams.input = Some(no_wait(write)?);
            }
            let (read, write) = pipe()?;
            rustix::stdio::dup2_stdout(&write)?;
            streams.out = Some(no_wait(read)?);
            let (read, write) = pipe()?;
            rustix::stdio::dup2_stderr(&write)?;
            streams.err = Some(no_wait(read)?);
            Ok(())
        };
        make(&mut streams).context("the container's standard streams")?;
        Ok((streams, lent))
    }

    /// For a container that has a terminal.
    pub(super) fn nothing() -> Result<Self> {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("/dev/null")?;
        let lent = Self(null);
        lent.put_null().context("standard streams")?;
        Ok(lent)
    }

    fn put_null(&self) -> Result<(), Errno> {
        rustix::stdio::dup2_stdin(&self.0)?;
        rustix::stdio::dup2_stdout(&self.0)?;
        rustix::stdio::dup2_stderr(&self.0)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Err(errno) = self.put_null() {
            tracing::error!("standard streams: {errno}");
        }
    }
}

fn no_wait(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}

/// What came of a read.
pub(super) enum Read {
    Some(usize),
    /// Later, perhaps.
    Nothing,
    End,
}

/// Reads what there is.
pub(super) fn read(from: impl AsFd, buffer: &mut [u8]) -> Read {
    loop {
        match rustix::io::read(&from, &mut *buffer) {
            Ok(0) => return Read::End,
            Ok(len) => return Read::Some(len),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Read::Nothing,
            // EIO: nobody has the terminal open any more.
            Err(_) => return Read::End,
        }
    }
}

impl Streams {
    /// With a terminal's master.
    pub(super) fn terminal(master: OwnedFd) -> Result<Self> {
        Ok(Self { terminal: Some(no_wait(master).context("the container's terminal")?), ..Self::default() })
    }

    /// Where output comes out, of what is still open.
    pub(super) fn outputs(&self) -> impl Iterator<Item = (Stream, &OwnedFd)> {
        let out = self.terminal.as_ref().or(self.out.as_ref()).map(|fd| (Stream::Out, fd));
        out.into_iter().chain(self.err.as_ref().map(|fd| (Stream::Err, fd)))
    }

    /// Lets go of an output that has ended.
    pub(super) fn close(&mut self, stream: Stream) {
        match stream {
            Stream::Out => (self.out, self.terminal) = (None, None),
            Stream::Err => self.err = None,
        }
    }

    /// Where input goes.
    pub(super) fn input(&self) -> Option<&OwnedFd> {
        self.terminal.as_ref().or(self.input.as_ref())
    }
}
