//! Real software in containers of a Debian image: a database, a package manager, a compiler.

#[path = "software/compiler.rs"]
mod compiler;
#[path = "software/packages.rs"]
mod packages;
#[path = "software/postgres.rs"]
mod postgres;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::common::{Place, Who, sh_timeout};

/// What the tests run, in a tree without what none of them reads. The compiler of queries, which is as large as everything
/// else, is turned off.
const TREE: &str = "timeout -k 5 580 mmdebstrap --quiet --variant=minbase --mode=root \
    --include=postgresql-15,gcc,libc6-dev --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/lib/*/libLLVM*' bookworm new.tar";

/// The tree's tar, made once and kept in the build directory.
fn tree() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("software");
    fs::create_dir_all(&dir).unwrap();
    let lock = File::create(dir.join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let (tar, made_by) = (dir.join("software.tar"), dir.join("made-by"));
    if !(tar.exists() && fs::read_to_string(&made_by).is_ok_and(|made_by| made_by == TREE)) {
        let out = sh_timeout(&dir, &format!("{TREE}; mv new.tar software.tar"), Duration::from_secs(600));
        assert!(out.success(), "the Debian tree: {}\n{}\n{}", out.status, out.stdout, out.stderr);
        fs::write(made_by, TREE).unwrap();
    }
    tar
}

/// A user's store with the image `debian:1`.
fn debian(who: Who) -> Place {
    let place = Place::new().give(who);
    let (tar, here) = (tree(), place.join("debian.tar"));
    if fs::hard_link(&tar, &here).is_err() {
        fs::copy(&tar, &here).unwrap();
    }
    place.run("lamel import debian.tar debian:1 > /dev/null");
    place
}

fn everything(who: Who) {
    let place = debian(who);
    postgres::keeps_its_rows_in_a_volume(&place, who);
    packages::are_installed_and_committed(&place, who);
    compiler::makes_a_program(&place);
}

#[test]
fn as_root() {
    everything(Who::Root);
}

#[test]
fn as_a_user() {
    everything(Who::User);
}

#[test]
fn as_a_user_with_one_id() {
    everything(Who::Alone);
}
