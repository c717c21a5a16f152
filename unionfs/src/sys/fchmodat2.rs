//! `fchmodat2`, Linux 6.6: no library wraps it yet.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::LazyLock;

use rustix::io::Errno;

/// Whether the kernel has it, and lets this process call it.
pub(super) static IS_THERE: LazyLock<bool> = LazyLock::new(|| {
    // SAFETY: the name ends with NUL and is only read; there is no such object.
    let done = unsafe { libc::syscall(SYS_FCHMODAT2, libc::AT_FDCWD, c"".as_ptr(), 0, 0) };
    let errno = Errno::from_io_error(&std::io::Error::last_os_error());
    done == 0 || !matches!(errno, Some(Errno::NOSYS | Errno::PERM))
});

/// The same on every architecture that Rust is for.
const SYS_FCHMODAT2: libc::c_long = 452;

/// Permission bits of `name` in `dir` itself; that of a symlink cannot be changed.
pub(super) fn fchmodat2(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<(), Errno> {
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the name ends with NUL and is only read.
    let done = unsafe { libc::syscall(SYS_FCHMODAT2, dir.as_raw_fd(), name.as_ptr(), mode, libc::AT_SYMLINK_NOFOLLOW) };
    match done {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
