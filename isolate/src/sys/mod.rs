//! System calls. The only modules of the crate with unsafe code.
//!
//! What a freshly cloned child calls takes C strings and descriptors that are
//! ready, and neither allocates nor takes a lock.

pub(crate) mod bpf;
pub(crate) mod code;
pub(crate) mod exec;
pub(crate) mod landlock;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod socket;
pub(crate) mod tty;
