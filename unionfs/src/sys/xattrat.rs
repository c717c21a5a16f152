//! `getxattrat` and its kin, Linux 6.13: no library wraps them yet.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::LazyLock;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// The same on every architecture that Rust is for.
const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;
const SYS_REMOVEXATTRAT: libc::c_long = 466;

/// `struct xattr_args`.
#[repr(C, align(8))]
struct Args {
    value: u64,
    size: u32,
    flags: u32,
}

fn answer(result: libc::c_long) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

fn size(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Whether the kernel has them, and lets this process call them.
pub(super) static IS_THERE: LazyLock<bool> =
    LazyLock::new(|| !matches!(list(rustix::fs::CWD, c"/", &mut []), Err(Errno::NOSYS | Errno::PERM)));

/// `getxattr` of `name` in `dir` itself.
pub(super) fn get(dir: BorrowedFd<'_>, name: &CStr, key: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
    let mut args = Args { value: value.as_mut_ptr() as u64, size: size(value.len()), flags: 0 };
    // SAFETY: both strings end with NUL, and `args` describes a buffer that is writable for the length of the call.
    answer(unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            key.as_ptr(),
            &raw mut args,
            size_of::<Args>(),
        )
    })
}

/// `listxattr` of `name` in `dir` itself.
pub(super) fn list(dir: BorrowedFd<'_>, name: &CStr, names: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the string ends with NUL, and the buffer is writable for its length.
    answer(unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            names.as_mut_ptr(),
            names.len(),
        )
    })
}

/// `setxattr` of `name` in `dir` itself.
pub(super) fn set(dir: BorrowedFd<'_>, name: &CStr, key: &CStr, value: &[u8], flags: XattrFlags) -> Result<(), Errno> {
    let args = Args { value: value.as_ptr() as u64, size: size(value.len()), flags: flags.bits() };
    // SAFETY: both strings end with NUL, and `args` describes bytes that are readable for the length of the call.
    answer(unsafe {
        libc::syscall(
            SYS_SETXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            key.as_ptr(),
            &raw const args,
            size_of::<Args>(),
        )
    })
    .map(drop)
}

/// `removexattr` of `name` in `dir` itself.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &CStr, key: &CStr) -> Result<(), Errno> {
    // SAFETY: both strings end with NUL.
    answer(unsafe {
        libc::syscall(SYS_REMOVEXATTRAT, dir.as_raw_fd(), name.as_ptr(), libc::AT_SYMLINK_NOFOLLOW, key.as_ptr())
    })
    .map(drop)
}
