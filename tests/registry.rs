//! Images from and to registries: Debian's docker-registry with every kind of authentication, and servers that do
//! what a registry must not. All of it on 127.0.0.1.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

mod common;

#[path = "registry/auth.rs"]
mod auth;
#[path = "registry/chaos.rs"]
mod chaos;
#[path = "registry/daemon.rs"]
mod daemon;
#[path = "registry/faults.rs"]
mod faults;
#[path = "registry/fixture.rs"]
mod fixture;
#[path = "registry/hostile.rs"]
mod hostile;
#[path = "registry/interrupted.rs"]
mod interrupted;
#[path = "registry/server.rs"]
mod server;
#[path = "registry/transfer.rs"]
mod transfer;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Outcome, Scratch, Subject, TIMEOUT, spawn_captured};

/// A user of lamel with a store, a home and a configuration of its own.
struct User {
    scratch: Scratch,
}

impl User {
    fn new() -> Self {
        let scratch = Scratch::new();
        scratch.dir("home");
        scratch.dir("run");
        Self { scratch }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.scratch.join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// A command of lamel's in this user's environment.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(Subject::lamel_bin().canonicalize().unwrap());
        command.args(args).current_dir(self.scratch.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("LAMEL_ROOT", self.store()).env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
        command
    }

    fn outcome(&self, args: &[&str]) -> Outcome {
        spawn_captured(self.command(args), TIMEOUT)
    }

    /// Runs lamel; panics unless it succeeds. Returns the last line that it printed.
    #[track_caller]
    fn lamel(&self, args: &[&str]) -> String {
        let done = self.outcome(args);
        assert!(done.success(), "lamel {args:?}: {}\n{}", done.status, done.stderr);
        done.stdout.lines().last().unwrap_or_default().to_owned()
    }

    /// Runs lamel; panics if it succeeds. Returns what it said.
    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        let done = self.outcome(args);
        assert_eq!(done.status.code(), Some(1), "lamel {args:?} printed {}\n{}", done.stdout, done.stderr);
        done.stderr
    }

    /// Blobs that did not come whole.
    fn partials(&self) -> Vec<PathBuf> {
        let Ok(dir) = std::fs::read_dir(self.store().join("partial")) else { return Vec::new() };
        dir.map(|entry| entry.unwrap().path()).collect()
    }

    fn has_blob(&self, digest: &str) -> bool {
        self.store().join("blobs").join(digest.replace(':', "/")).exists()
    }
}
