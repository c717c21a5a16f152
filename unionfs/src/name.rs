//! A shared file name behind one thin pointer: there is one for each inode.

use std::ffi::OsStr;
use std::fmt;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;

use triomphe::ThinArc;

/// A name, or `.` for the object itself. A clone shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Name(ThinArc<(), u8>);

impl From<&OsStr> for Name {
    fn from(name: &OsStr) -> Self {
        Self(ThinArc::from_header_and_slice((), name.as_bytes()))
    }
}

impl Deref for Name {
    type Target = OsStr;

    fn deref(&self) -> &OsStr {
        OsStr::from_bytes(&self.0.slice)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
