//! System calls. The only modules of the crate with unsafe code, and the only
//! ones that name a system call; all of them take a directory descriptor and
//! one name, never a joined path.

pub(crate) mod at;
pub(crate) mod copy;
pub(crate) mod credentials;
pub(crate) mod durable;
mod fchmodat2;
pub(crate) mod handle;
pub(crate) mod ioctl;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod xattr;
mod xattrat;

/// Finds out which of the newer calls there are, before the first request needs one.
pub(crate) fn find_out() {
    std::sync::LazyLock::force(&fchmodat2::IS_THERE);
    std::sync::LazyLock::force(&xattrat::IS_THERE);
}
