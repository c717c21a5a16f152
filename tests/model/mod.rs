//! The reference model: what a plain POSIX filesystem does, to judge a union filesystem by.
//!
//! A *case* ([`case::Case`]) is a stack of layers and a list of operations. [`layers`] writes the layers to disk and
//! says what their union is, by applying them bottom to top as an image tool would. [`world`] then plays the
//! operations on an in-memory tree of inodes and links ([`tree`]) that has never heard of layers, [`exec`] plays them
//! on the mount, and [`check`] compares both after every step. [`strategy`] makes random cases, [`runner`] runs many,
//! and a failing one is printed as the text that [`regressions`] are written in.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and has no public items"
)]

pub mod case;
pub mod check;
pub mod exec;
pub mod layers;
pub mod parse;
pub mod regressions;
pub mod runner;
pub mod strategy;
pub mod tree;
pub mod world;
