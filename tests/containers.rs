//! Containers of images: every command of their lives, what they leave, and what happens when something is killed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

mod common;

#[path = "containers/create.rs"]
mod create;
#[path = "isolate/kit.rs"]
#[allow(dead_code, reason = "made for the tests of the isolator, of which these use a part")]
mod ground;
#[path = "containers/host.rs"]
mod host;
#[path = "containers/house.rs"]
mod house;
#[path = "containers/interactive.rs"]
mod interactive;
#[path = "containers/killed.rs"]
mod killed;
#[path = "containers/lifecycle.rs"]
mod lifecycle;
#[path = "containers/listing.rs"]
mod listing;
#[path = "containers/storm.rs"]
mod storm;
#[path = "containers/streams.rs"]
mod streams;
