//! A command that tells whether a container is well: bounded in its time and in what is kept of its output.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Process as SpecProcess, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::{Options, Target};
use crate::error::Error;
use crate::process::{Exit, Process};

/// Bytes that are read at once.
const CHUNK: usize = 4096;

/// How many of them a pipe holds: more has been written since by somebody who goes on.
const PIECES: usize = 16;

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// None if it had to be killed, for its time was over.
    pub exit: Option<Exit>,
    /// The beginning of what it wrote to standard output and error.
    pub output: String,
}

/// Runs a command in a container, without input, for `limit` at most; `most` bytes of its output are kept. What it
/// started itself and left behind is not waited for. If the container is paused meanwhile, this returns when it is not
/// any more: what is stopped does not end.
///
/// # Errors
/// It cannot be started.
pub fn check(
    target: &Target,
    spec: &Spec,
    process: &SpecProcess,
    options: Options,
    limit: Duration,
    most: usize,
) -> Result<Checked, Error> {
    let deadline = Instant::now() + limit;
    let null = rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::call("open", "/dev/null"))?;
    let failed = |call| Error::call(call, "a pipe");
    let (out, into) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe2"))?;
    // The pipe is shared with the command, but not its end here.
    rustix::io::ioctl_fionbio(&out, true).map_err(failed("ioctl"))?;
    let twin = into.try_clone().map_err(|_| failed("dup")(Errno::MFILE))?;
    let options = Options { streams: [Some(null), Some(into), Some(twin)], ..options };
    let mut started = target.start(spec, process, options)?;
    let mut output = Vec::new();
    let in_time = follow(&started, &out, deadline, most, &mut output).map_err(Error::call("poll", "the command"))?;
    if !in_time {
        started.signal(libc::SIGKILL).ok();
    }
    let exit = started.wait()?;
    // What it wrote last.
    for _ in 0..PIECES {
        if !matches!(read(&out, most, &mut output), Ok(len) if len > 0) {
            break;
        }
    }
    Ok(Checked { exit: in_time.then_some(exit), output: String::from_utf8_lossy(&output).into_owned() })
}

/// Takes what a command writes until it ends; false if its time is over before.
fn follow(
    started: &Process,
    out: &OwnedFd,
    deadline: Instant,
    most: usize,
    output: &mut Vec<u8>,
) -> Result<bool, Errno> {
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        let mut fds = [
            PollFd::from_borrowed_fd(started.pidfd(), PollFlags::IN),
            PollFd::from_borrowed_fd(out.as_fd(), PollFlags::IN),
        ];
        let count = if open { fds.len() } else { 1 };
        match poll(&mut fds[..count], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let [ended, wrote] = [0, 1].map(|at| at < count && !fds[at].revents().is_empty());
        if wrote {
            open = read(out, most, output) != Ok(0);
        }
        if ended {
            return Ok(true);
        }
    }
}

/// Reads a piece, of which no more is kept than there is room for.
fn read(out: &OwnedFd, most: usize, output: &mut Vec<u8>) -> Result<usize, Errno> {
    let mut chunk = [0; CHUNK];
    let len = rustix::io::read(out, &mut chunk)?;
    output.extend(&chunk[..len.min(most.saturating_sub(output.len()))]);
    Ok(len)
}
