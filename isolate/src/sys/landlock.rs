//! The calls of Landlock (landlock(7)). The library of that name allocates, which a child must not.

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::io::Errno;

use super::process::check;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

/// The first member of `struct landlock_ruleset_attr`, which every version takes.
#[repr(C)]
struct Ruleset {
    handled_access_fs: u64,
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// The kernel's version of it; 0 for none.
pub(crate) fn version() -> u32 {
    let none = std::ptr::null::<Ruleset>();
    // SAFETY: asked for its version the call takes no structure.
    let version = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, CREATE_RULESET_VERSION) });
    version.ok().and_then(|version| u32::try_from(version).ok()).unwrap_or(0)
}

/// A ruleset that forbids these rights.
pub(crate) fn create(handled: u64) -> Result<OwnedFd, Errno> {
    let attributes = Ruleset { handled_access_fs: handled };
    // SAFETY: the structure is of the size given and lives through the call.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size_of::<Ruleset>(), 0)
    })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made it for this caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Allows them below a directory, or of a file.
pub(crate) fn allow(ruleset: BorrowedFd<'_>, place: BorrowedFd<'_>, access: u64) -> Result<(), Errno> {
    let rule = PathBeneath { allowed_access: access, parent_fd: place.as_raw_fd() };
    // SAFETY: the structure is what this kind of rule takes, and lives through the call.
    check(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0)
    })
    .map(drop)
}

/// Puts the calling thread, and whom it makes, under a ruleset.
pub(crate) fn restrict(ruleset: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: two numbers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
}
