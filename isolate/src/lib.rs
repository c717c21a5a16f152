//! The process isolator of lamel: takes an OCI runtime-spec configuration and
//! runs it in three steps, *parse, plan, act*.
//!
//! Reading order: `spec` (what of a configuration is accepted), `plan` (the
//! ordered steps and why they stand in that order), `parent` and `child` (the
//! two processes that perform it) with `sync` between them, then `exec` (one
//! process more in a container that runs) and one file for each mechanism. `SEMANTICS.md` beside this file says what is promised, with
//! its tests.
//!
//! # Threat model
//! The container's program, its root directory, and everything in volumes that
//! it can write are hostile, also while the container is being made. The
//! configuration is the user's own, but its numbers and strings may come from
//! an image. The host's `/proc` and `/dev` are trusted as far as they are
//! verified to be that.
//!
//! # Invariants
//! * What a configuration asks for is done or refused, never left out.
//! * A path in the root is resolved inside the root, by descriptor; nothing in
//!   it is executed, or written, by the host's side.
//! * A mount gets its attributes before it is attached.
//! * The child neither allocates nor locks between clone and exec.
//! * When the parent's thread ends, however, the container's first process ends, and with it, in a pid namespace of its
//!   own, all others.
//! * Unsafe code and raw system calls are in `sys` alone.

pub mod attach;
pub mod caps;
pub mod error;
pub mod exe;
pub mod exec;
pub mod idmap;
pub mod label;
pub mod landlock;
pub mod net;
pub mod parent;
pub mod seccomp;
pub mod user;

mod cgroup;
mod child;
mod dev;
mod hook;
mod init;
mod mapped;
mod mount;
mod namespace;
mod plan;
mod process;
mod rlimit;
mod rootfs;
mod spec;
mod sync;
#[allow(unsafe_code, reason = "the one place for it")]
mod sys;
mod sysctl;
mod tty;

pub use cgroup::{CgroupError, Usage};
pub use error::Error;
pub use oci_spec::runtime as oci;
pub use parent::{Container, Created};
pub use plan::Options;
pub use process::{Exit, Process};
