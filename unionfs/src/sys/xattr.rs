//! Extended attributes of an object named by a directory descriptor and one
//! name, or by a descriptor of its own.
//!
//! There is no `getxattrat` before Linux 6.13, so the object is addressed
//! through the magic link of the directory descriptor:
//! `/proc/self/fd/N/name`. The last component is never followed.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;

use crate::error::{Error, Refusal, Result};

/// The largest value that Linux carries (`XATTR_SIZE_MAX`).
pub(crate) const MAX_VALUE: usize = 65_536;

/// The largest name list that Linux carries (`XATTR_LIST_MAX`).
const MAX_LIST: usize = 65_536;

/// The object whose attributes are meant.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// `name` in a directory.
    At(BorrowedFd<'a>, &'a OsStr),
    /// What a descriptor (also `O_PATH`) refers to.
    Fd(BorrowedFd<'a>),
}

impl Target<'_> {
    fn path(self) -> Result<CString> {
        let mut path = Vec::with_capacity(48);
        match self {
            Self::At(dir, name) => {
                path.extend_from_slice(format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes());
                path.extend_from_slice(name.as_bytes());
            }
            Self::Fd(fd) => path.extend_from_slice(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_bytes()),
        }
        CString::new(path).map_err(|_| Refusal::Invalid.into())
    }

    fn error(self, call: &'static str, errno: Errno) -> Error {
        let name = match self {
            Self::At(_, name) => name,
            Self::Fd(_) => OsStr::new("<fd>"),
        };
        Error::call(call, name, errno)
    }
}

/// A value; `None` when there is none or the filesystem has no attributes.
pub(crate) fn get(target: Target<'_>, name: &OsStr) -> Result<Option<Vec<u8>>> {
    let path = target.path()?;
    let mut small = [0u8; 512];
    match read(target, &path, name, &mut small) {
        Ok(len) => return Ok(Some(small[..len].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(target.error("getxattr", errno)),
    }
    let mut large = vec![0u8; MAX_VALUE];
    match read(target, &path, name, &mut large) {
        Ok(len) => {
            large.truncate(len);
            Ok(Some(large))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(target.error("getxattr", errno)),
    }
}

fn read(target: Target<'_>, path: &CString, name: &OsStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    match target {
        Target::At(..) => fs::lgetxattr(path.as_c_str(), name, buffer),
        Target::Fd(_) => fs::getxattr(path.as_c_str(), name, buffer),
    }
}

/// All names, NUL-terminated; empty where the filesystem has no attributes.
pub(crate) fn list(target: Target<'_>) -> Result<Vec<u8>> {
    let path = target.path()?;
    let mut buffer = [0u8; 1024];
    let call = |buffer: &mut [u8]| match target {
        Target::At(..) => fs::llistxattr(path.as_c_str(), buffer),
        Target::Fd(_) => fs::listxattr(path.as_c_str(), buffer),
    };
    match call(&mut buffer[..]) {
        Ok(len) => return Ok(buffer[..len].to_vec()),
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(target.error("listxattr", errno)),
    }
    let mut large = vec![0u8; MAX_LIST];
    match call(&mut large[..]) {
        Ok(len) => {
            large.truncate(len);
            Ok(large)
        }
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(errno) => Err(target.error("listxattr", errno)),
    }
}

/// Sets a value; `flags` are those of setxattr(2).
pub(crate) fn set(target: Target<'_>, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
    let path = target.path()?;
    let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
    match target {
        Target::At(..) => fs::lsetxattr(path.as_c_str(), name, value, flags),
        Target::Fd(_) => fs::setxattr(path.as_c_str(), name, value, flags),
    }
    .map_err(|errno| target.error("setxattr", errno))
}

/// Removes a value.
pub(crate) fn remove(target: Target<'_>, name: &OsStr) -> Result<()> {
    let path = target.path()?;
    match target {
        Target::At(..) => fs::lremovexattr(path.as_c_str(), name),
        Target::Fd(_) => fs::removexattr(path.as_c_str(), name),
    }
    .map_err(|errno| target.error("removexattr", errno))
}
