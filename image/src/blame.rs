//! Which layers of an image have a say in a path.

use crate::index::{Inode, ROOT};
use crate::view::{View, ViewError};

/// What a layer says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saying {
    /// It has an object there: its mode and size.
    Has {
        /// Type and permission bits.
        mode: u32,
        /// Bytes.
        size: u64,
    },
    /// It deletes what is there.
    Deletes,
    /// It hides the lower layers by a mark at a directory above, or by something else in that directory's place: bytes
    /// of the path that lead to it.
    Hides(usize),
}

/// One layer's say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Say {
    /// The layer's number, from 0 at the bottom.
    pub layer: usize,
    /// What it says.
    pub saying: Saying,
    /// Whether it is seen in the image: no layer above hides it.
    pub visible: bool,
    /// Whether nothing below it is seen.
    pub closes: bool,
}

/// Asks layers, the bottom one first, about a path without symlinks; the top one's answer comes first.
///
/// # Errors
/// A layer is damaged.
pub fn blame(layers: &[View], path: &[u8]) -> Result<Vec<Say>, ViewError> {
    let mut said = Vec::new();
    let mut visible = true;
    let mut object_seen = false;
    for (layer, view) in layers.iter().enumerate().rev() {
        for (saying, closes) in ask(view, path)? {
            let is_dir = matches!(saying, Saying::Has { mode, .. } if mode & libc::S_IFMT == libc::S_IFDIR);
            // What is no directory hides all below, and is itself hidden by a directory.
            let seen = visible && (is_dir || !object_seen);
            said.push(Say { layer, saying, visible: seen, closes: seen && closes });
            object_seen |= matches!(saying, Saying::Has { .. });
            visible &= !closes;
        }
    }
    Ok(said)
}

/// What one layer says, its own object first, and whether nothing below it counts.
fn ask(view: &View, path: &[u8]) -> Result<Vec<(Saying, bool)>, ViewError> {
    let index = view.index();
    let mut here = ROOT;
    let mut inode: Inode = index.inode(ROOT)?;
    let mut said = Vec::new();
    let mut walked = 0;
    let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
    while let Some(name) = names.next() {
        if inode.is_opaque() {
            said.push((Saying::Hides(walked.max(1)), true));
        }
        walked += 1 + name.len();
        let last = names.peek().is_none();
        let Some(entry) = index.find(here, name)? else { return Ok(said) };
        if entry.whiteout {
            said.push((if last { Saying::Deletes } else { Saying::Hides(walked) }, true));
        }
        let Some(number) = entry.inode else { return Ok(said) };
        inode = index.child(here, number)?;
        here = number;
        if !last && !inode.is_dir() {
            said.push((Saying::Hides(walked), true));
            return Ok(said);
        }
    }
    // A directory that the layer does not list is only the way to something.
    if !inode.is_implied() {
        let closes = !inode.is_dir() || inode.is_opaque();
        said.insert(0, (Saying::Has { mode: inode.mode, size: inode.size }, closes));
    }
    Ok(said)
}
