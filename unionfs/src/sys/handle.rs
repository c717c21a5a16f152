//! `name_to_handle_at`: the identity of an object that survives a remount.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// The largest handle that Linux makes (`MAX_HANDLE_SZ`).
const MAX_HANDLE: usize = 128;

/// An object's file handle: its type and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHandle {
    /// The type that the filesystem gave it.
    pub(crate) kind: u8,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
}

/// The handle of `name` in `dir`; `None` where the filesystem makes none.
pub(crate) fn of(dir: BorrowedFd<'_>, name: &OsStr) -> Option<FileHandle> {
    #[repr(C)]
    struct Raw {
        len: libc::c_uint,
        kind: libc::c_int,
        bytes: [u8; MAX_HANDLE],
    }
    let name = CString::new(name.as_bytes()).ok()?;
    let mut raw = Raw { len: MAX_HANDLE as libc::c_uint, kind: 0, bytes: [0; MAX_HANDLE] };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: `raw` has the layout of struct file_handle followed by the number of
    // bytes that `len` announces; name and mount_id live through the call.
    let done = unsafe {
        libc::syscall(libc::SYS_name_to_handle_at, dir.as_raw_fd(), name.as_ptr(), &raw mut raw, &raw mut mount_id, 0)
    };
    if done != 0 {
        return None;
    }
    let len = usize::try_from(raw.len).ok()?.min(MAX_HANDLE);
    Some(FileHandle { kind: u8::try_from(raw.kind).ok()?, bytes: raw.bytes[..len].to_vec() })
}
