//! How an index lies on disk: a header, then tables of records of one size
//! each, then the bytes of names, link targets and xattrs. Numbers are
//! little-endian; objects are numbered from the root downwards, so that a
//! directory always has a greater number than the one that it is in.
//!
//! | table | record |
//! |---|---|
//! | tars | diffID, bytes that the tar has at least |
//! | inodes | `Inode` |
//! | extents | offset in the file, offset in the tar, length |
//! | xattrs | name and value, each an offset and a length in the bytes |
//! | entries | `EntryRecord`, by name within a directory |

/// The first bytes of the file.
pub(super) const MAGIC: [u8; 8] = *b"lamelidx";
/// Of the format: an index of another version is made anew.
pub(super) const VERSION: u32 = 1;

/// Bytes of the header.
pub(super) const HEADER: usize = 64;
/// Bytes of a record of the tars.
pub(super) const TAR: usize = 40;
/// Bytes of a record of the inodes.
pub(super) const INODE: usize = 64;
/// Bytes of a record of the extents.
pub(super) const EXTENT: usize = 24;
/// Bytes of a record of the xattrs.
pub(super) const XATTR: usize = 16;
/// Bytes of a record of the entries.
pub(super) const ENTRY: usize = 12;

/// Where the checksum stands in the header. It covers the whole file, itself taken as zero.
pub(super) const CHECKSUM_AT: usize = 24;

/// The inode of an entry that is a whiteout alone.
pub(super) const NO_INODE: u32 = u32::MAX;

/// Flag of an inode: hides what lower layers have in it.
pub(super) const OPAQUE: u16 = 1;
/// Flag of an inode: a directory that no archive lists.
pub(super) const IMPLIED: u16 = 2;
/// Flag of an inode: its data is in extents.
pub(super) const SPARSE: u16 = 4;
/// Flag of an entry: hides what lower layers have under its name.
pub(super) const WHITEOUT: u8 = 1;

/// Sizes of everything, as the header has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) tars: u32,
    pub(super) inodes: u32,
    pub(super) extents: u32,
    pub(super) xattrs: u32,
    pub(super) entries: u32,
    pub(super) bytes: u32,
}

/// Where each table begins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    pub(super) counts: Counts,
    pub(super) inodes: usize,
    pub(super) extents: usize,
    pub(super) xattrs: usize,
    pub(super) entries: usize,
    pub(super) bytes: usize,
    pub(super) end: usize,
}

impl Layout {
    /// `None` if the sizes exceed what this machine can address.
    pub(super) fn of(counts: Counts) -> Option<Self> {
        let after = |at: usize, count: u32, size: usize| {
            usize::try_from(count).ok()?.checked_mul(size).and_then(|len| at.checked_add(len))
        };
        let inodes = after(HEADER, counts.tars, TAR)?;
        let extents = after(inodes, counts.inodes, INODE)?;
        let xattrs = after(extents, counts.extents, EXTENT)?;
        let entries = after(xattrs, counts.xattrs, XATTR)?;
        let bytes = after(entries, counts.entries, ENTRY)?;
        let end = after(bytes, counts.bytes, 1)?;
        Some(Self { counts, inodes, extents, xattrs, entries, bytes, end })
    }
}

/// Everything about an object but its names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(super) flags: u16,
    /// Which tar has the data.
    pub(crate) tar: u16,
    /// Bytes of a file, of a link's target.
    pub(crate) size: u64,
    /// Bytes of data that a file has.
    pub(crate) stored: u64,
    /// Of a file: offset in the tar, or first extent and their number. Of a directory: first entry and their number.
    /// Of a symlink: offset in the bytes. Of a device: its number.
    pub(super) data: u64,
    pub(super) first_xattr: u32,
    pub(super) xattrs: u32,
}

/// Two numbers in one field.
pub(super) fn pair(first: u32, count: u32) -> u64 {
    u64::from(first) | u64::from(count) << 32
}

/// What [`pair`] put together.
#[allow(clippy::cast_possible_truncation, reason = "the halves of a field")]
pub(super) fn unpair(field: u64) -> (u32, u32) {
    (field as u32, (field >> 32) as u32)
}

/// Reads numbers off a record; past its end they are zero.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.next())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.next())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.next())
    }
}

impl Counts {
    pub(super) fn encode(self) -> [u8; 24] {
        let mut out = [0; 24];
        let fields = [self.tars, self.inodes, self.extents, self.xattrs, self.entries, self.bytes];
        for (place, field) in out.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Self {
        let mut fields = Fields(bytes);
        let mut next = || fields.u32();
        Self { tars: next(), inodes: next(), extents: next(), xattrs: next(), entries: next(), bytes: next() }
    }
}

impl Inode {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for field in [self.mode, self.nlink, self.uid, self.gid] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.mtime.0.to_le_bytes());
        out.extend_from_slice(&self.mtime.1.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&self.tar.to_le_bytes());
        for field in [self.size, self.stored, self.data] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.first_xattr.to_le_bytes());
        out.extend_from_slice(&self.xattrs.to_le_bytes());
    }

    pub(super) fn decode(record: &[u8; INODE]) -> Self {
        let mut fields = Fields(record);
        Self {
            mode: fields.u32(),
            nlink: fields.u32(),
            uid: fields.u32(),
            gid: fields.u32(),
            mtime: (fields.u64().cast_signed(), fields.u32()),
            flags: fields.u16(),
            tar: fields.u16(),
            size: fields.u64(),
            stored: fields.u64(),
            data: fields.u64(),
            first_xattr: fields.u32(),
            xattrs: fields.u32(),
        }
    }

    /// Type bits (`S_IFMT`).
    pub(crate) fn format(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.format() == libc::S_IFDIR
    }

    /// Hides what lower layers have in it.
    pub(crate) fn is_opaque(&self) -> bool {
        self.flags & OPAQUE != 0
    }

    /// A directory that no archive lists.
    pub(crate) fn is_implied(&self) -> bool {
        self.flags & IMPLIED != 0
    }

    pub(crate) fn is_sparse(&self) -> bool {
        self.flags & SPARSE != 0
    }

    /// Number of a device.
    pub(crate) fn rdev(&self) -> u64 {
        if matches!(self.format(), libc::S_IFCHR | libc::S_IFBLK) { self.data } else { 0 }
    }
}

/// A record of the entries: where its name is, and what it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryRecord {
    pub(super) name: u32,
    pub(super) name_len: u8,
    pub(super) flags: u8,
    pub(super) inode: u32,
}

impl EntryRecord {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.name.to_le_bytes());
        out.extend_from_slice(&[self.name_len, self.flags, 0, 0]);
        out.extend_from_slice(&self.inode.to_le_bytes());
    }

    pub(super) fn decode(record: &[u8; ENTRY]) -> Self {
        let mut fields = Fields(record);
        let name = fields.u32();
        let [name_len, flags, ..] = fields.next::<4>();
        Self { name, name_len, flags, inode: fields.u32() }
    }
}

/// Any record of 32-bit or 64-bit numbers.
pub(super) fn numbers<const N: usize>(record: &[u8]) -> [u32; N] {
    let mut fields = Fields(record);
    std::array::from_fn(|_| fields.u32())
}

/// The same, of 64 bits each.
pub(super) fn wide_numbers<const N: usize>(record: &[u8]) -> [u64; N] {
    let mut fields = Fields(record);
    std::array::from_fn(|_| fields.u64())
}
