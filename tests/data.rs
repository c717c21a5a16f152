//! The data of containers, by the binary: what becomes of their changes, copying in and out, volumes, kept trials.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

mod common;

#[path = "data/base.rs"]
mod base;
#[path = "data/changes.rs"]
mod changes;
#[path = "data/containers.rs"]
mod containers;
#[path = "data/copies.rs"]
mod copies;
#[path = "data/software.rs"]
mod software;
#[path = "data/volumes.rs"]
mod volumes;
