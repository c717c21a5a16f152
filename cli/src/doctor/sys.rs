//! The one system call that no library wraps for what is asked here.
#![allow(unsafe_code, reason = "the one place for it")]

use syscalls::{Errno, Sysno, syscall};

/// `LANDLOCK_CREATE_RULESET_VERSION`
const VERSION: usize = 1;

/// The version of Landlock's interface.
pub(super) fn landlock_version() -> Result<usize, Errno> {
    // SAFETY: with this flag the call reads no memory and makes nothing; it answers a number.
    unsafe { syscall!(Sysno::landlock_create_ruleset, 0, 0, VERSION) }
}
