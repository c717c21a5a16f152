//! What the kernel's FUSE offers here, found out by a mount that serves nothing.

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::io::Errno;

use super::{MountError, attach};
use crate::options::MountFlags;
use crate::sys::credentials;
use crate::sys::mount as sys;

/// The kernel refuses to write a request into less.
const REQUEST: usize = 8192;
/// Of a request's header; then come the numbers of the protocol, and two words of flags after one more number.
const HEADER: usize = 40;
/// `FUSE_INIT`
const INIT: u32 = 26;
/// `FUSE_PASSTHROUGH`, as bit of the second word of flags.
const PASSTHROUGH: u32 = 1 << (37 - 32);

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The kernel's version of the protocol: major and minor number.
    pub version: (u32, u32),
    /// Whether files can be read and written without a request, by this process and in this kernel.
    pub passthrough: Passthrough,
}

/// Whether files can be read and written past this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passthrough {
    /// Yes.
    Available,
    /// The kernel cannot do it.
    NotInKernel,
    /// The kernel lets only root outside of all user namespaces do it.
    NotPrivileged,
}

/// Mounts on an empty directory, reads what the kernel says first, and unmounts.
///
/// # Errors
/// What keeps this process from mounting.
pub fn probe(mountpoint: &Path) -> Result<Offered, MountError> {
    let failed = |source| MountError::Mountpoint { path: mountpoint.to_owned(), source };
    let directory = sys::open_mountpoint(mountpoint).map_err(failed)?;
    let path = sys::real_path(directory.as_fd()).map_err(failed)?;
    let flags = MountFlags { read_only: true, suid: false, dev: false, ..MountFlags::default() };
    let (connection, place) = attach(directory, path, &flags)?;
    let mut request = vec![0; REQUEST];
    let read = loop {
        match rustix::io::read(&connection, &mut request) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    drop(place);
    let len = read.map_err(|errno| MountError::Handshake(errno.into()))?;
    let found = parse(request.get(..len).unwrap_or_default());
    let (version, passthrough) = found.ok_or_else(|| MountError::Handshake(std::io::ErrorKind::InvalidData.into()))?;
    let passthrough = match passthrough {
        false => Passthrough::NotInKernel,
        true if credentials::is_initial_root() => Passthrough::Available,
        true => Passthrough::NotPrivileged,
    };
    Ok(Offered { version, passthrough })
}

/// The version, and whether passthrough is offered, of an INIT request.
fn parse(request: &[u8]) -> Option<((u32, u32), bool)> {
    let word = |at: usize| request.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    if word(4)? != INIT {
        return None;
    }
    // Kernels before 5.17 send one word of flags.
    let more = word(HEADER + 16).unwrap_or(0);
    Some(((word(HEADER)?, word(HEADER + 4)?), more & PASSTHROUGH != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_is_understood() {
        let mut request = vec![0; HEADER];
        request[4..8].copy_from_slice(&INIT.to_ne_bytes());
        for word in [7_u32, 41, 0, 0, PASSTHROUGH] {
            request.extend_from_slice(&word.to_ne_bytes());
        }
        assert_eq!(parse(&request), Some(((7, 41), true)));
        assert_eq!(parse(&request[..HEADER + 16]), Some(((7, 41), false)));
        assert_eq!(parse(&request[..HEADER]), None);
        request[4] = 1;
        assert_eq!(parse(&request), None);
    }
}
