//! The fixture of all integration tests: scratch directories, mounts of lamel and of its peers, shell helpers and
//! full tree dumps.
//!
//! ```ignore
//! mod common;
//! use common::{Scratch, Subject, dump, assert_same, sh};
//!
//! let s = Scratch::new();                       // /var/tmp/lamel-test-…, gone on Drop
//! std::fs::write(s.lower(0).join("f"), "x")?;   // lower 0 is the top one
//! let mut m = Subject::lamel().mount(&s, 2, true, &[]);
//! m.run("echo y >> f && test $(cat f | wc -l) = 1");
//! m.remount();
//! let tree = dump(m.root());
//! m.unmount();                                  // checked; Drop also unmounts, but without a verdict
//! ```
//!
//! Nothing here skips: a host without root or `/dev/fuse` makes every privileged test fail.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::let_underscore_must_use,
    reason = "a fixture is compiled into every test crate, each of which uses a part of it, and it may panic"
)]

mod browser;
mod debian;
mod dump;
mod place;
mod run;
mod scratch;
mod subject;
mod tmux;
mod who;

#[allow(unused_imports, reason = "each test crate uses a part of the fixture")]
pub use self::{
    browser::rendered,
    debian::debian_cache,
    dump::{Compare, Kind, Node, Tree, assert_same, diff, dump, dump_all, dump_all_but, read_xattrs},
    place::Place,
    run::{Outcome, TIMEOUT, run_in, sh, sh_fails, sh_outcome, sh_timeout, spawn_captured},
    scratch::{Scratch, require_privileges},
    subject::{Mounted, Stack, Subject},
    tmux::{Tmux, line},
    who::{EVERYBODY, Who},
};
