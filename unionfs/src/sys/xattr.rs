//! Extended attributes of an object named by a directory descriptor and one
//! name, or by a descriptor of its own.
//!
//! `getxattrat` and its kin came with Linux 6.13. Without them, and for `O_PATH`
//! descriptors, the object is addressed through a magic link of procfs,
//! `/proc/self/fd/N/name`, at several times the cost. The last component is never
//! followed.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;

use super::xattrat;
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

/// How an object is named to the kernel.
enum Address<'a> {
    /// To the calls that take a directory and a name.
    At(BorrowedFd<'a>, CString),
    Fd(BorrowedFd<'a>),
    /// A path through procfs, of a name or of a descriptor.
    Name(CString),
    Path(CString),
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Refusal::Invalid.into())
}

impl<'a> Target<'a> {
    fn address(self) -> Result<Address<'a>> {
        match self {
            Self::At(dir, name) if *xattrat::IS_THERE => Ok(Address::At(dir, c_string(name.as_bytes())?)),
            Self::At(dir, name) => {
                let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
                path.extend_from_slice(name.as_bytes());
                Ok(Address::Name(c_string(&path)?))
            }
            Self::Fd(fd) => Ok(Address::Fd(fd)),
        }
    }

    /// Calls `act` with the object's address; one that a descriptor is of no use for is addressed by its path.
    fn call<T>(
        self,
        call: &'static str,
        act: impl Fn(&Address<'a>) -> Result<T, Errno>,
    ) -> Result<Result<T, Errno>, Error> {
        let done = act(&self.address()?);
        match (self, &done) {
            (Self::Fd(fd), Err(Errno::BADF)) => {
                let path = c_string(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_bytes())?;
                Ok(act(&Address::Path(path)))
            }
            (_, Err(Errno::BADF)) => Err(self.error(call, Errno::BADF)),
            _ => Ok(done),
        }
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
    let key = c_string(name.as_bytes())?;
    match grown(target, "getxattr", MAX_VALUE, |address, buffer| match address {
        Address::At(dir, name) => xattrat::get(*dir, name, &key, buffer),
        Address::Fd(fd) => fs::fgetxattr(*fd, &key, buffer),
        Address::Name(path) => fs::lgetxattr(path.as_c_str(), &key, buffer),
        Address::Path(path) => fs::getxattr(path.as_c_str(), &key, buffer),
    })? {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(target.error("getxattr", errno)),
    }
}

/// All names, NUL-terminated; empty where the filesystem has no attributes.
pub(crate) fn list(target: Target<'_>) -> Result<Vec<u8>> {
    match grown(target, "listxattr", MAX_LIST, |address, buffer| match address {
        Address::At(dir, name) => xattrat::list(*dir, name, buffer),
        Address::Fd(fd) => fs::flistxattr(*fd, buffer),
        Address::Name(path) => fs::llistxattr(path.as_c_str(), buffer),
        Address::Path(path) => fs::listxattr(path.as_c_str(), buffer),
    })? {
        Ok(names) => Ok(names),
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(errno) => Err(target.error("listxattr", errno)),
    }
}

/// What `read` gives: most of it is small, and nothing is longer than `limit`.
fn grown<'a>(
    target: Target<'a>,
    call: &'static str,
    limit: usize,
    read: impl Fn(&Address<'a>, &mut [u8]) -> Result<usize, Errno>,
) -> Result<Result<Vec<u8>, Errno>> {
    target.call(call, |address| {
        let mut small = [0u8; 1024];
        match read(address, &mut small) {
            Ok(len) => Ok(small[..len].to_vec()),
            Err(Errno::RANGE) => {
                let mut large = vec![0u8; limit];
                let len = read(address, &mut large)?;
                large.truncate(len);
                Ok(large)
            }
            Err(errno) => Err(errno),
        }
    })
}

/// Sets a value; `flags` are those of setxattr(2).
pub(crate) fn set(target: Target<'_>, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
    let key = c_string(name.as_bytes())?;
    let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
    let done = target.call("setxattr", |address| match address {
        Address::At(dir, name) => xattrat::set(*dir, name, &key, value, flags),
        Address::Fd(fd) => fs::fsetxattr(*fd, &key, value, flags),
        Address::Name(path) => fs::lsetxattr(path.as_c_str(), &key, value, flags),
        Address::Path(path) => fs::setxattr(path.as_c_str(), &key, value, flags),
    })?;
    done.map_err(|errno| target.error("setxattr", errno))
}

/// Removes a value.
pub(crate) fn remove(target: Target<'_>, name: &OsStr) -> Result<()> {
    let key = c_string(name.as_bytes())?;
    let done = target.call("removexattr", |address| match address {
        Address::At(dir, name) => xattrat::remove(*dir, name, &key),
        Address::Fd(fd) => fs::fremovexattr(*fd, &key),
        Address::Name(path) => fs::lremovexattr(path.as_c_str(), &key),
        Address::Path(path) => fs::removexattr(path.as_c_str(), &key),
    })?;
    done.map_err(|errno| target.error("removexattr", errno))
}
