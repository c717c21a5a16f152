//! A copy-on-write union filesystem on FUSE, in overlayfs's on-disk format.
//!
//! Read-only layers lie under an optional writable one; what the kernel asks is
//! answered from the topmost layer that decides. Reading order: [`options`]
//! (what a mount is asked to do), `union` (its state), `lookup` (how a name is
//! found), `copy_up` (how an object gets into the upper), then the verbs.
//! `SEMANTICS.md` beside this file says what is promised, with its tests.
//!
//! # Invariants
//! * A lower layer is never written, nor opened for writing.
//! * No request, layer or option makes this crate panic.
//! * Unsafe code and raw system calls are in `sys` alone, `Reply` in `fuse`
//!   alone, the encodings of marks in `whiteout` and `xattr` alone.
//! * A path is never joined and opened: a directory descriptor and one name.
//! * What becomes visible was built out of sight and published in one step.
#![cfg_attr(test, allow(clippy::let_underscore_must_use, reason = "tests"))]

#[doc(hidden)]
pub mod bench;
pub mod changeset;
pub mod diff;
pub mod error;
pub mod fuse;
#[doc(hidden)]
pub mod fuzz;
pub mod layer;
pub mod mount;
pub mod options;
pub mod ownership;
pub mod sparse;
pub mod whiteout;

mod attr;
mod backing;
mod copy_up;
mod cpus;
mod crew;
mod dir;
mod explain;
mod fd_cache;
mod file;
mod handle;
mod hardlink;
mod inode;
mod lookup;
#[cfg(test)]
mod memory_layer;
mod name;
mod names;
mod nodeid;
mod readdir;
mod reclaim;
mod rename;
#[allow(unsafe_code, reason = "the one place for it")]
mod sys;
mod union;
mod upper;
mod workers;
mod xattr;

pub use attr::Attr;
pub use error::Error;
pub use fuse::Adapter;
pub use options::Options;
pub use union::{Counters, Report, UnionFs};
