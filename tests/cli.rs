//! The command line: exit codes, messages, and that nothing is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

mod common;

#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/diff.rs"]
mod diff;
#[path = "cli/explain.rs"]
mod explain;
#[path = "cli/face.rs"]
mod face;
#[path = "cli/helper.rs"]
mod helper;
#[path = "cli/mount.rs"]
mod mount;
#[path = "cli/signals.rs"]
mod signals;
#[path = "cli/umount.rs"]
mod umount;
#[path = "cli/users.rs"]
mod users;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Outcome, Scratch, Subject, TIMEOUT, spawn_captured};

/// A command of the binary under test, run in the scratch directory.
fn lamel(scratch: &Scratch) -> Command {
    program(scratch, &Subject::lamel_bin())
}

/// The binary under another name, as a link in the scratch directory.
fn named(scratch: &Scratch, name: &str) -> Command {
    let link = scratch.dir("bin").join(name);
    if !link.exists() {
        std::os::unix::fs::symlink(Subject::lamel_bin().canonicalize().unwrap(), &link).unwrap();
    }
    program(scratch, &link)
}

fn program(scratch: &Scratch, path: &Path) -> Command {
    let mut command = Command::new(path);
    command.current_dir(scratch.path());
    for variable in ["LAMEL_LOG", "LAMEL_LOG_FILE", "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT"] {
        command.env_remove(variable);
    }
    command
}

/// Runs a command until it and its output end.
fn run(command: Command) -> Outcome {
    spawn_captured(command, TIMEOUT)
}

/// Runs `lamel` with words of text.
fn run_words(scratch: &Scratch, words: &str) -> Outcome {
    let mut command = lamel(scratch);
    command.args(words.split_whitespace());
    run(command)
}

/// Runs `lamel` and panics unless it succeeds in silence.
#[track_caller]
fn succeeds(scratch: &Scratch, words: &str) -> String {
    let out = run_words(scratch, words);
    assert!(out.success(), "lamel {words}: {}\n{}", out.status, out.stderr);
    assert_eq!(out.stderr, "", "lamel {words}");
    out.stdout
}

/// Runs `lamel`, which fails, says all of `messages`, and leaves no mount.
#[track_caller]
fn fails(scratch: &Scratch, words: &str, messages: &[&str]) {
    let out = run_words(scratch, words);
    assert!(!out.success(), "lamel {words} succeeded: {}", out.stdout);
    for message in messages {
        assert!(out.stderr.contains(message), "lamel {words}: no {message:?} in:\n{}", out.stderr);
    }
    assert_eq!(mounts(scratch), Vec::<String>::new(), "lamel {words}");
}

/// The lines of mountinfo below the scratch directory, from the mountpoint on.
fn mounts(scratch: &Scratch) -> Vec<String> {
    let table = fs::read("/proc/self/mountinfo").unwrap();
    let base = scratch.path().canonicalize().unwrap();
    let text = String::from_utf8_lossy(&table);
    text.lines()
        .filter_map(|line| line.splitn(5, ' ').nth(4))
        .filter(|rest| rest.starts_with(base.to_str().unwrap()))
        .map(str::to_owned)
        .collect()
}

/// The pid of the daemon that serves `path`.
#[track_caller]
fn daemon(path: &Path) -> i32 {
    let mut text = [0; 32];
    let len = rustix::fs::getxattr(path, "system.lamel.pid", &mut text).unwrap();
    std::str::from_utf8(&text[..len]).unwrap().parse().unwrap()
}

fn is_alive(pid: i32) -> bool {
    // A zombie is gone, as far as its work is concerned.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits until `done`, and panics if that takes too long.
#[track_caller]
fn eventually(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "still not so: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A scratch directory with `lower0/file`, `upper`, `work` and `mnt`.
fn scratch() -> Scratch {
    let scratch = Scratch::new();
    fs::write(scratch.lower(0).join("file"), "lower\n").unwrap();
    for name in ["upper", "work", "mnt"] {
        scratch.dir(name);
    }
    scratch
}

/// The options of [`scratch`]'s stack, relative to it.
const STACK: &str = "lowerdir=lower0,upperdir=upper,workdir=work";

/// A path with every byte that the option syntax gives a meaning, and some that are no text.
fn odd_name(prefix: &str) -> PathBuf {
    let mut name = prefix.as_bytes().to_vec();
    name.extend_from_slice(b" a:b,c\\d\"e\n=\xff");
    PathBuf::from(OsStr::from_bytes(&name))
}
