//! The Debian tree: made once, kept in the build directory, split into layers for each test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::common::Scratch;
use crate::{beside, long};

/// Layers that `split.sh` makes, top first.
pub(crate) const LAYERS: usize = 6;

/// Packages that are installed later, or again over those of the tree, from files.
const PACKAGES: &str = "bc coreutils cron cron-daemon-common dash file less libmagic-mgc libmagic1 libreadline8 patch perl-base \
                        readline-common sensible-utils tar";

/// Where the tree and the packages are kept between runs: `debian.tar` and `debs/`. A lock makes one test fetch them.
pub(crate) fn cache() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
    fs::create_dir_all(&dir).unwrap();
    let lock = File::create(dir.join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    // Both appear by a rename: an interrupted run leaves none behind.
    long(
        &dir,
        400,
        &format!(
            "if ! [ -e debian.tar ]; then
                 mmdebstrap --quiet --variant=minbase --mode=root bookworm new.tar
                 mv new.tar debian.tar
             fi
             if ! [ -d debs ]; then
                 rm -rf new-debs
                 mkdir new-debs
                 cd new-debs
                 # The versions of the tree's own release, whatever the host has added to its sources.
                 apt-get download -q {PACKAGES}
                 cd ..
                 mv new-debs debs
             fi"
        ),
    );
    dir
}

/// A copy of the tree in `native`, and the same tree in the scratch directory's lowers.
pub(crate) fn lay_out(scratch: &Scratch) -> PathBuf {
    let cache = cache();
    let native = scratch.dir("native");
    for lower in scratch.lowers(LAYERS) {
        assert!(lower.is_dir());
    }
    long(
        scratch.path(),
        120,
        &format!(
            "tar xpf '{tar}/debian.tar' --numeric-owner --xattrs --xattrs-include='*' -C native
             cp -r '{tar}/debs' native/debs
             bash '{split}' native lower",
            tar = cache.display(),
            split = beside("split.sh").display()
        ),
    );
    native
}
