//! The Debian tree, split into layers for each test.

use std::path::PathBuf;

use crate::common::{Scratch, debian_cache};
use crate::{beside, long};

/// Layers that `split.sh` makes, top first.
pub(crate) const LAYERS: usize = 6;

/// A copy of the tree in `native`, and the same tree in the scratch directory's lowers.
pub(crate) fn lay_out(scratch: &Scratch) -> PathBuf {
    let cache = debian_cache();
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
