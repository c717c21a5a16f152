//! Copies of trees of our own making: directories, files and symbolic links, with their modes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Copies `from`, whatever it is, to `to`, which does not exist.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let at = || format!("copying {} to {}", from.display(), to.display());
    let kind = fs::symlink_metadata(from).with_context(at)?;
    if kind.is_symlink() {
        return symlink(fs::read_link(from).with_context(at)?, to).with_context(at);
    }
    if !kind.is_dir() {
        // Sockets, pipes and devices have no content to measure; an empty file is in their place.
        let copied = if kind.is_file() { fs::copy(from, to).map(drop) } else { fs::File::create_new(to).map(drop) };
        return copied.with_context(at);
    }
    fs::create_dir(to).with_context(at)?;
    for entry in fs::read_dir(from).with_context(at)? {
        let name = entry.with_context(at)?.file_name();
        copy_tree(&from.join(&name), &to.join(&name))?;
    }
    fs::set_permissions(to, kind.permissions()).with_context(at)
}
