//! An index in use. Nothing in it is believed: every number is checked where
//! it is used, so that a damaged file gives errors and nothing else.

use super::error::IndexError;
use super::format::{
    CHECKSUM_AT, Counts, ENTRY, EXTENT, EntryRecord, HEADER, INODE, Inode, Layout, MAGIC, NO_INODE, TAR, VERSION,
    WHITEOUT, XATTR, numbers, unpair, wide_numbers,
};
use crate::Digest;
use crate::sys::map::Map;
use crate::tar::Extent;

/// The index is not what was written; says which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged(pub(crate) &'static str);

impl From<Damaged> for IndexError {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged.0)
    }
}

type Result<T, E = Damaged> = std::result::Result<T, E>;

/// The number of the root directory.
pub(crate) const ROOT: u32 = 0;

/// An index over bytes that were checked once.
#[derive(Debug)]
pub struct Index<B = Map> {
    bytes: B,
    layout: Layout,
}

/// What a directory says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a [u8],
    /// Hides what lower layers have under the name.
    pub(crate) whiteout: bool,
    /// The object, unless it is a whiteout alone.
    pub(crate) inode: Option<u32>,
}

impl<B: AsRef<[u8]>> Index<B> {
    /// Checks header, sizes and checksum, and that the index is that of the layers `diff_ids`.
    pub(crate) fn check(bytes: B, diff_ids: &[Digest]) -> Result<Self, IndexError> {
        let all = bytes.as_ref();
        let header: &[u8; HEADER] = all.first_chunk().ok_or(Damaged("header"))?;
        if !header.starts_with(&MAGIC) {
            return Err(Damaged("header").into());
        }
        let [version] = numbers(&header[8..]);
        if version != VERSION {
            return Err(IndexError::Version(version));
        }
        let layout = Layout::of(Counts::decode(&header[CHECKSUM_AT + 4..])).ok_or(Damaged("sizes"))?;
        if layout.end != all.len() {
            return Err(Damaged("sizes").into());
        }
        let [written] = numbers(&header[CHECKSUM_AT..]);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&all[..CHECKSUM_AT]);
        checksum.update(&[0; 4]);
        checksum.update(&all[CHECKSUM_AT + 4..]);
        if checksum.finalize() != written {
            return Err(Damaged("checksum").into());
        }
        let index = Self { bytes, layout };
        if usize::try_from(layout.counts.tars) != Ok(diff_ids.len()) {
            return Err(Damaged("layers").into());
        }
        for (tar, diff_id) in (0..).zip(diff_ids) {
            if index.tar(tar)?.0 != *diff_id {
                return Err(IndexError::Foreign(*diff_id));
            }
        }
        if !index.inode(ROOT)?.is_dir() {
            return Err(Damaged("root").into());
        }
        Ok(index)
    }

    fn record<const N: usize>(&self, table: usize, count: u32, number: u32) -> Option<&[u8; N]> {
        if number >= count {
            return None;
        }
        let at = table.checked_add(usize::try_from(number).ok()?.checked_mul(N)?)?;
        self.bytes.as_ref().get(at..)?.first_chunk()
    }

    /// Objects, the root included.
    pub fn objects(&self) -> u32 {
        self.layout.counts.inodes
    }

    /// A layer's diffID, and the bytes that its tar must have.
    pub(crate) fn tar(&self, number: u32) -> Result<(Digest, u64)> {
        let record: &[u8; TAR] = self.record(HEADER, self.layout.counts.tars, number).ok_or(Damaged("layers"))?;
        let (diff_id, len) = record.split_first_chunk().ok_or(Damaged("layers"))?;
        let [len] = wide_numbers(len);
        Ok((Digest::from_bytes(*diff_id), len))
    }

    /// An object.
    pub(crate) fn inode(&self, number: u32) -> Result<Inode> {
        self.record::<INODE>(self.layout.inodes, self.layout.counts.inodes, number)
            .map(Inode::decode)
            .ok_or(Damaged("inode"))
    }

    /// An object in the directory `dir`. Directories lead downwards alone, or a walk would never end.
    pub(crate) fn child(&self, dir: u32, number: u32) -> Result<Inode> {
        let inode = self.inode(number)?;
        if inode.is_dir() && number <= dir { Err(Damaged("directory")) } else { Ok(inode) }
    }

    /// The entries of a directory.
    pub(crate) fn entries(&self, dir: u32) -> Result<Entries<'_, B>> {
        let inode = self.inode(dir)?;
        if !inode.is_dir() {
            return Err(Damaged("directory"));
        }
        let (first, count) = unpair(inode.data);
        match first.checked_add(count) {
            Some(end) if end <= self.layout.counts.entries => Ok(Entries { index: self, next: first, end }),
            _ => Err(Damaged("entries")),
        }
    }

    fn entry(&self, number: u32) -> Result<Entry<'_>> {
        let record: &[u8; ENTRY] =
            self.record(self.layout.entries, self.layout.counts.entries, number).ok_or(Damaged("entry"))?;
        let record = EntryRecord::decode(record);
        Ok(Entry {
            name: self.bytes_at(record.name.into(), record.name_len.into())?,
            whiteout: record.flags & WHITEOUT != 0,
            inode: Some(record.inode).filter(|inode| *inode != NO_INODE),
        })
    }

    /// Finds a name in a directory.
    pub(crate) fn find(&self, dir: u32, name: &[u8]) -> Result<Option<Entry<'_>>> {
        let Entries { next: mut low, end: mut high, .. } = self.entries(dir)?;
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(middle)?;
            match entry.name.cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(Some(entry)),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    fn bytes_at(&self, at: u64, len: u64) -> Result<&[u8]> {
        let within = || {
            let at = self.layout.bytes.checked_add(usize::try_from(at).ok()?)?;
            self.bytes.as_ref().get(at..at.checked_add(usize::try_from(len).ok()?)?)
        };
        within().ok_or(Damaged("bytes"))
    }

    /// The target of a symlink.
    pub(crate) fn target(&self, inode: &Inode) -> Result<&[u8]> {
        if inode.format() == libc::S_IFLNK { self.bytes_at(inode.data, inode.size) } else { Err(Damaged("symlink")) }
    }

    /// Where in its tar a file's data lies, if it is in one piece.
    pub(crate) fn data(&self, inode: &Inode) -> Result<(u64, u64)> {
        if inode.format() == libc::S_IFREG && !inode.is_sparse() {
            Ok((inode.data, inode.size))
        } else {
            Err(Damaged("data"))
        }
    }

    /// The stretches of data of a sparse file: one behind the other, none beyond its end.
    pub(crate) fn extents(&self, inode: &Inode) -> Result<Vec<Extent>> {
        if inode.format() != libc::S_IFREG || !inode.is_sparse() {
            return Err(Damaged("extents"));
        }
        let (first, count) = unpair(inode.data);
        let end =
            first.checked_add(count).filter(|end| *end <= self.layout.counts.extents).ok_or(Damaged("extents"))?;
        let mut extents = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
        let mut past = 0;
        for number in first..end {
            let record: &[u8; EXTENT] =
                self.record(self.layout.extents, self.layout.counts.extents, number).ok_or(Damaged("extents"))?;
            let [at, from, len] = wide_numbers(record);
            past = match at.checked_add(len) {
                Some(end) if at >= past && end <= inode.size => end,
                _ => return Err(Damaged("extents")),
            };
            extents.push(Extent { at, from, len });
        }
        Ok(extents)
    }

    /// Names and values of an object's extended attributes.
    pub(crate) fn xattrs(&self, inode: &Inode) -> impl Iterator<Item = Result<(&[u8], &[u8])>> {
        let end = inode.first_xattr.saturating_add(inode.xattrs);
        let in_bounds = end <= self.layout.counts.xattrs;
        let range =
            if in_bounds { inode.first_xattr..end } else { inode.first_xattr..inode.first_xattr.saturating_add(1) };
        range.map(move |number| {
            let record: &[u8; XATTR] = Some(number)
                .filter(|_| in_bounds)
                .and_then(|number| self.record(self.layout.xattrs, self.layout.counts.xattrs, number))
                .ok_or(Damaged("xattrs"))?;
            let [name, name_len, value, value_len] = numbers(record);
            Ok((self.bytes_at(name.into(), name_len.into())?, self.bytes_at(value.into(), value_len.into())?))
        })
    }
}

/// The entries of one directory, by name.
pub(crate) struct Entries<'a, B> {
    index: &'a Index<B>,
    next: u32,
    end: u32,
}

impl<'a, B: AsRef<[u8]>> Iterator for Entries<'a, B> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let number = self.next;
        self.next += 1;
        Some(self.index.entry(number))
    }
}
