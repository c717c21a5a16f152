//! A Debian 12 tree, made once and kept in the build directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::sh_timeout;

/// Packages that are installed later, or again over those of the tree, from files.
const PACKAGES: &str = "bc coreutils cron cron-daemon-common dash file less libmagic-mgc libmagic1 libreadline8 patch perl-base \
                        readline-common sensible-utils tar";

/// Where the tree and the packages are kept between runs: `debian.tar` and `debs/`. A lock makes one test fetch them.
pub fn debian_cache() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
    fs::create_dir_all(&dir).unwrap();
    let lock = File::create(dir.join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    // Both appear by a rename: an interrupted run leaves none behind.
    let script = format!(
        "if ! [ -e debian.tar ]; then
             timeout -k 5 380 mmdebstrap --quiet --variant=minbase --mode=root bookworm new.tar
             mv new.tar debian.tar
         fi
         if ! [ -d debs ]; then
             rm -rf new-debs
             mkdir new-debs
             cd new-debs
             # The versions of the tree's own release, whatever the host has added to its sources.
             timeout -k 5 180 apt-get download -q {PACKAGES}
             cd ..
             mv new-debs debs
         fi"
    );
    let out = sh_timeout(&dir, &script, Duration::from_secs(600));
    assert!(out.success(), "the Debian tree: {}\n{}\n{}", out.status, out.stdout, out.stderr);
    dir
}
