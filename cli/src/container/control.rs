//! The socket of a monitor: where it listens, and how a command reaches it.
//!
//! It has a path, in a directory that is its user's alone; the kernel's nameless namespace of sockets is everybody's.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::record::Record;
use super::wire::{Buffer, Line, Reply, Request};

/// Commands that may wait to be heard.
const BACKLOG: i32 = 64;

/// Makes the socket that a monitor listens on.
pub(super) fn listen(record: &Record) -> Result<OwnedFd> {
    let path = record.socket();
    let shown = || path.display().to_string();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(shown),
        _ => {}
    }
    let make = || -> Result<OwnedFd, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let (_dir, address) = address(&path)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    make().with_context(shown)
}

/// Reaches the monitor; `None` if there is none, or it has stopped listening.
pub(crate) fn connect(record: &Record) -> Result<Option<Line>> {
    let path = record.socket();
    let reach = || -> Result<OwnedFd, Errno> {
        let (_dir, address) = address(&path)?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        loop {
            match rustix::net::connect(&socket, &address) {
                Err(Errno::INTR) => {}
                other => return other.map(|()| socket),
            }
        }
    };
    match reach() {
        Ok(socket) => Ok(Some(Line(socket))),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(errno) => Err(errno).with_context(|| path.display().to_string()),
    }
}

/// Asks the monitor for something and waits until it is done; `None` if the container does not run.
pub(crate) fn ask(record: &Record, request: &Request) -> Result<Option<Reply>> {
    let Some(line) = connect(record)? else { return Ok(None) };
    let heard = line.ask(request).and_then(|()| line.answer(&mut Buffer::new()));
    match heard {
        Ok(Some(Reply::Failed(text))) => bail!(text),
        Ok(other) => Ok(other),
        // It ended meanwhile.
        Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Ok(None),
        Err(errno) => Err(errno).context("the container's monitor"),
    }
}

/// An address of few bytes, whatever the length of the path: the kernel takes 108. It holds while the directory is open.
fn address(path: &Path) -> Result<(OwnedFd, SocketAddrUnix), Errno> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let near = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    let address = SocketAddrUnix::new(&near)?;
    Ok((dir, address))
}
