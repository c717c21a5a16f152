//! Containers: what is seen and what may be done inside, hostile root directories, and that nothing is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

mod common;

#[path = "isolate/document.rs"]
mod document;
#[path = "isolate/hooks.rs"]
mod hooks;
#[path = "isolate/hostile.rs"]
mod hostile;
#[path = "isolate/kit.rs"]
mod kit;
#[path = "isolate/landlock.rs"]
mod landlock;
#[path = "isolate/library.rs"]
mod library;
#[path = "isolate/lifecycle.rs"]
mod lifecycle;
#[path = "isolate/mounts.rs"]
mod mounts;
#[path = "isolate/peer.rs"]
mod peer;
#[path = "isolate/run.rs"]
mod run;
#[path = "isolate/terminal.rs"]
mod terminal;
#[path = "isolate/traps.rs"]
mod traps;
#[path = "isolate/trial.rs"]
mod trial;
