//! Real programs on a real tree: a Debian 12 in six layers. What dpkg, apt, make, git, SQLite and Python's own tests do on
//! the mount must be what they do on a plain copy of the same tree.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

mod common;

#[path = "real_software/debian.rs"]
mod debian;
#[path = "real_software/git.rs"]
mod git;
#[path = "real_software/packages.rs"]
mod packages;
#[path = "real_software/python.rs"]
mod python;
#[path = "real_software/sqlite.rs"]
mod sqlite;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file beside this one.
fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/real_software").join(name).canonicalize().unwrap()
}

/// Runs a long command in `dir`, killed as a whole after `seconds`; panics unless it succeeds. Returns its stdout.
fn long(dir: &Path, seconds: u64, cmd: &str) -> String {
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(script.path(), cmd).unwrap();
    let timed = format!("exec timeout -k 5 {seconds} bash -eu -o pipefail {}", script.path().display());
    let out = common::sh_timeout(dir, &timed, Duration::from_secs(seconds + 20));
    assert!(
        out.success(),
        "{}: `{cmd}`: {}\n--- stdout\n{}\n--- stderr\n{}",
        dir.display(),
        out.status,
        out.stdout,
        out.stderr
    );
    out.stdout
}
