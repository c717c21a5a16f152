//! The outside suites: pjdfstest and fsx, on real mounts.
//!
//! Both are programs of the crates registry, installed by `tests/run.sh` in the versions named here: the list of
//! expected failures is exact for one version alone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

mod common;

#[path = "suites/fsx.rs"]
mod fsx;
#[path = "suites/pjdfstest.rs"]
mod pjdfstest;

use std::path::{Path, PathBuf};

/// A file beside this one.
fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/suites").join(name)
}

/// Panics unless `program --version` prints just this.
fn require_version(program: &str, version: &str) {
    let found = common::sh(&format!("{program} --version"));
    assert_eq!(found, format!("{program} {version}"), "`tests/run.sh` installs the right one");
}
