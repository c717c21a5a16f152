//! The objects of a tree that becomes an index.

use std::collections::BTreeMap;

use crate::tar::{Extent, Xattr};

/// The number of the root.
pub(crate) const ROOT: u32 = 0;

/// An object.
pub(crate) struct Node {
    pub(crate) attr: Attr,
    /// Names that it has.
    pub(crate) links: u32,
    pub(crate) data: Data,
}

/// What objects of every type have.
pub(crate) struct Attr {
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Box<[Xattr]>,
}

impl Attr {
    /// Those of a directory that no member gave any.
    pub(crate) fn implied() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), xattrs: Box::default() }
    }
}

/// What an object is; `tar` numbers the archive of a stack that its data is in.
pub(crate) enum Data {
    File { tar: u16, from: u64, size: u64 },
    Sparse { tar: u16, map: Box<[Extent]>, size: u64 },
    Dir(Dir),
    Symlink(Box<[u8]>),
    Special { format: u32, rdev: u64 },
}

impl Data {
    pub(crate) fn special(format: u32, major: u32, minor: u32) -> Self {
        Self::Special { format, rdev: rustix::fs::makedev(major, minor) }
    }

    /// Type bits (`S_IFMT`).
    pub(crate) fn format(&self) -> u32 {
        match self {
            Self::File { .. } | Self::Sparse { .. } => libc::S_IFREG,
            Self::Dir(_) => libc::S_IFDIR,
            Self::Symlink(_) => libc::S_IFLNK,
            Self::Special { format, .. } => *format,
        }
    }
}

/// A directory.
#[derive(Default)]
pub(crate) struct Dir {
    pub(crate) children: BTreeMap<Box<[u8]>, Slot>,
    /// Hides what lower layers have in it.
    pub(crate) opaque: bool,
    /// Not listed by the archive, but above something that is.
    pub(crate) implied: bool,
}

/// What a layer says of a name.
#[derive(Clone, Copy, Default)]
pub(crate) struct Slot {
    pub(crate) node: Option<u32>,
    /// Hides what lower layers have under the name.
    pub(crate) whiteout: bool,
}
