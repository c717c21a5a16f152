//! System calls. The only modules of the crate with unsafe code, and the only
//! ones that name a system call; all of them take a directory descriptor and
//! one name, never a joined path.

pub(crate) mod at;
pub(crate) mod copy;
pub(crate) mod credentials;
pub(crate) mod durable;
pub(crate) mod handle;
pub(crate) mod ioctl;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod xattr;
mod xattrat;
