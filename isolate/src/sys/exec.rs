//! Argument vectors that are ready for execve(2).

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

use rustix::io::Errno;

/// C strings and the null-terminated array of pointers to them.
#[derive(Debug)]
pub(crate) struct Vector {
    /// What the pointers are into.
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

// SAFETY: the pointers are into the strings that are moved along, which nobody changes.
unsafe impl Send for Vector {}
// SAFETY: as above.
unsafe impl Sync for Vector {}

impl Vector {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// Replaces the program; returns only if that fails.
pub(crate) fn execve(path: &CStr, arguments: &Vector, environment: &Vector) -> Errno {
    // SAFETY: the path and both arrays are null-terminated and live through the call.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The same with an open file as the program.
pub(crate) fn fexecve(program: BorrowedFd<'_>, arguments: &Vector, environment: &Vector) -> Errno {
    // SAFETY: the empty path and both arrays are null-terminated and live through the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
