//! podman and buildah with lamel as their `mount_program`, rootful and rootless.
//!
//! The same session runs three times: over plain copies of each layer (storage driver `vfs`), which is the truth, over
//! fuse-overlayfs, and over lamel under its name. What containers see, `podman diff` and every layer of the saved
//! images must be the same; fuse-overlayfs's own faults are printed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

mod common;

#[path = "clients/layers.rs"]
mod layers;
#[path = "clients/store.rs"]
mod store;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use common::{Scratch, run_in};
use layers::listing;
use store::{Driver, Store, User};

/// What a session leaves behind.
struct Outcome {
    /// What it printed.
    seen: String,
    built: Vec<String>,
    committed: Vec<String>,
}

#[test]
fn podman_and_buildah_as_root() {
    compare(User::Root);
}

#[test]
fn podman_and_buildah_rootless() {
    compare(User::Rootless);
}

fn compare(user: User) {
    let scratch = Scratch::new();
    run_in(scratch.path(), "chmod 755 .");
    let context = scratch.dir("context");
    fs::copy(beside("Containerfile"), context.join("Containerfile")).unwrap();
    run_in(&context, &format!("bash '{}'", beside("base.sh").display()));

    let truth = session(&scratch, user, Driver::Vfs);
    let theirs = session(&scratch, user, Driver::FuseOverlayfs);
    let ours = session(&scratch, user, Driver::Lamel);

    // The peer's own faults vary from run to run: they are shown, and only lamel is judged.
    let mut faults = differences("built", &truth.built, &theirs.built);
    faults.extend(differences("committed", &truth.committed, &theirs.committed));
    println!("fuse-overlayfs's images against plain copies:\n{}", faults.join("\n"));

    let mut wrong = differences("seen", &lines(&truth.seen), &lines(&ours.seen));
    wrong.extend(differences("built", &truth.built, &ours.built));
    wrong.extend(differences("committed", &truth.committed, &ours.committed));
    assert!(wrong.is_empty(), "lamel's images against plain copies:\n{}", wrong.join("\n"));
}

/// Builds, runs, changes, commits and saves as `session.sh` says.
fn session(scratch: &Scratch, user: User, driver: Driver) -> Outcome {
    let store = Store::new(scratch, user, driver);
    let out = store.dir("out");
    // Of the peer only the images are looked at.
    let what = if driver == Driver::FuseOverlayfs { "images" } else { "all" };
    let start = Instant::now();
    let seen = store.run(&format!(
        "CONTEXT='{}' OUT='{}' WHAT={what} bash '{}'",
        scratch.join("context").display(),
        out.display(),
        beside("session.sh").display()
    ));
    let pid = fs::read_to_string(out.join("lamel.pid")).unwrap();
    assert_eq!(
        pid.trim().parse::<u32>().is_ok(),
        driver == Driver::Lamel,
        "{driver:?}: a container on another filesystem than meant: pid {pid:?}"
    );
    let result =
        Outcome { seen, built: listing(&out.join("built.tar")), committed: listing(&out.join("committed.tar")) };
    let took = start.elapsed();
    store.close();
    println!("{user:?}, {driver:?}: {took:.1?}, closed after {:.1?}", start.elapsed());
    result
}

/// `- line` for what `got` lacks, `+ line` for what it has more.
fn differences(what: &str, want: &[String], got: &[String]) -> Vec<String> {
    let only = |a: &[String], b: &[String], sign: char| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("{what}: {sign} {line}")).collect()
    };
    let mut out = only(want, got, '-');
    out.append(&mut only(got, want, '+'));
    out
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// A file beside this one.
fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients").join(name).canonicalize().unwrap()
}
