//! What benchmarks (`benches/` in the repository) need of the private look-up.

use std::path::{Component, Path};

use crate::error::Result;
use crate::inode::ROOT_INO;
use crate::union::UnionFs;

/// Looks a path up, a name at a time, as the kernel asks for it; says whether it leads anywhere. Nothing stays known.
///
/// # Errors
/// A layer cannot be read.
pub fn look_up(union: &UnionFs, path: &Path) -> Result<bool> {
    let mut at = union.inodes.get(ROOT_INO)?;
    let mut known = Vec::new();
    let mut found = true;
    for name in path.components() {
        let Component::Normal(name) = name else { continue };
        let Some((inode, _)) = union.lookup(&at, name)? else {
            found = false;
            break;
        };
        known.push(inode.ino);
        at = inode;
    }
    known.into_iter().rev().for_each(|ino| union.forget(ino, 1));
    Ok(found)
}
