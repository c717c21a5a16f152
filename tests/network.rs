//! The networks of containers. Each test is a host of its own: a network namespace with an uplink to another one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

mod common;

#[path = "network/bridge.rs"]
mod bridge;
#[path = "network/files.rs"]
mod files;
#[path = "network/host.rs"]
mod host;
#[path = "isolate/kit.rs"]
#[allow(dead_code, reason = "the tests of the isolator use the rest of it")]
mod kit;
#[path = "network/modes.rs"]
mod modes;
#[path = "network/nginx.rs"]
mod nginx;
#[path = "network/publish.rs"]
mod publish;
#[path = "network/rootless.rs"]
mod rootless;
