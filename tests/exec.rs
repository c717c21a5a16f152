//! `exec`, `top` and `stats`: one process more in a container that runs, whatever the container thinks of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

mod common;

#[path = "exec/check.rs"]
mod check;
#[path = "exec/hostile.rs"]
mod hostile;
#[allow(dead_code, reason = "the tests of the isolator use all of it")]
#[path = "isolate/kit.rs"]
mod kit;
#[path = "exec/lifecycle.rs"]
mod lifecycle;
#[path = "exec/options.rs"]
mod options;
#[path = "exec/running.rs"]
mod running;
#[path = "exec/terminal.rs"]
mod terminal;
#[path = "exec/top.rs"]
mod top;
#[path = "isolate/traps.rs"]
mod traps;
