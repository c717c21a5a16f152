//! How much a layer may hold.

/// Bounds on what one layer makes lamel keep. Real layers stay far below them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Members, and the directories that they imply.
    pub entries: usize,
    /// Directories above one member.
    pub depth: usize,
    /// Bytes in a member's name.
    pub path: usize,
    /// Bytes in one extended header.
    pub extended: usize,
    /// Extended attributes of one member.
    pub xattrs: usize,
    /// Bytes in the name of an extended attribute (the kernel's own bound).
    pub xattr_name: usize,
    /// Bytes in the value of an extended attribute (the kernel's own bound).
    pub xattr_value: usize,
    /// Stretches of data in one sparse file.
    pub extents: usize,
    /// Steps through symlinks that members are placed by, in all.
    pub symlinks: usize,
    /// Bytes of the whole index.
    pub index: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 4_000_000,
            depth: 1024,
            path: 16 * 1024,
            extended: 1 << 20,
            xattrs: 256,
            xattr_name: 255,
            xattr_value: 64 * 1024,
            extents: 1 << 18,
            symlinks: 1 << 20,
            index: 1 << 30,
        }
    }
}
