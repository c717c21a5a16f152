//! Faults at every step: a daemon killed at each system call, calls that fail, disks that are full, broken or cut
//! off. A transaction leaves the old state or the new one, nothing else, and no lower is ever touched.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::let_underscore_must_use,
    reason = "a test may panic, and is a crate that nobody uses"
)]

#[path = "interop/apart.rs"]
mod apart;
mod common;
#[path = "fault/disk.rs"]
mod disk;
#[path = "fault/points.rs"]
mod points;
#[path = "fault/rig.rs"]
mod rig;
#[path = "fault/strace.rs"]
mod strace;
#[path = "fault/transaction.rs"]
mod transaction;
