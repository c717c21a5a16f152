//! From a tree to the tables of an index.

use std::collections::VecDeque;
use std::io::{self, Write};

use super::error::IndexError;
use super::format::{self, Counts, EntryRecord, Inode, Layout, NO_INODE, pair};
use super::node::{Data, Dir, Node, ROOT};
use crate::Digest;
use crate::tar::Xattr;

/// An index, ready to be written.
#[derive(Debug, Default)]
pub struct Built {
    counts: Counts,
    /// Bytes that each tar must have.
    tar_lens: Vec<u64>,
    inodes: Vec<u8>,
    extents: Vec<u8>,
    xattrs: Vec<u8>,
    entries: Vec<u8>,
    bytes: Vec<u8>,
    data_bytes: u64,
}

impl Built {
    /// Lays out a tree over tars of these lengths.
    pub(super) fn new(nodes: Vec<Node>, tar_lens: Vec<u64>) -> Result<Self, IndexError> {
        Tables {
            built: Self { tar_lens, ..Self::default() },
            numbers: vec![NO_INODE; nodes.len()],
            nodes,
            last_xattrs: None,
        }
        .build()
    }

    /// Names in all directories, whiteouts included.
    pub fn entries(&self) -> u64 {
        u64::from(self.counts.entries)
    }

    /// Objects, the root included.
    pub fn objects(&self) -> u64 {
        u64::from(self.counts.inodes)
    }

    /// Bytes of data in regular files.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Bytes of the tar up to the end of its last member, at least.
    pub fn tar_bytes(&self) -> u64 {
        self.tar_lens.first().copied().unwrap_or_default()
    }

    /// Writes the index of the one layer `diff_id`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, diff_id: &Digest, out: &mut dyn Write) -> io::Result<()> {
        self.write_stack(&[*diff_id], out)
    }

    /// Writes the index of a stack of these layers.
    ///
    /// # Errors
    /// Those of `out`; `InvalidInput` if the tree was made of another number of layers.
    pub fn write_stack(&self, diff_ids: &[Digest], out: &mut dyn Write) -> io::Result<()> {
        if diff_ids.len() != self.tar_lens.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an index of another number of layers"));
        }
        let mut head = Vec::with_capacity(format::HEADER + diff_ids.len() * format::TAR);
        head.extend_from_slice(&format::MAGIC);
        head.extend_from_slice(&format::VERSION.to_le_bytes());
        head.extend_from_slice(&[0; format::CHECKSUM_AT - 12]);
        head.extend_from_slice(&[0; 4]);
        head.extend_from_slice(&self.counts.encode());
        head.resize(format::HEADER, 0);
        for (diff_id, len) in diff_ids.iter().zip(&self.tar_lens) {
            head.extend_from_slice(diff_id.as_bytes());
            head.extend_from_slice(&len.to_le_bytes());
        }
        let tables = [&self.inodes, &self.extents, &self.xattrs, &self.entries, &self.bytes];
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&head);
        tables.iter().for_each(|table| checksum.update(table));
        head[format::CHECKSUM_AT..format::CHECKSUM_AT + 4].copy_from_slice(&checksum.finalize().to_le_bytes());
        out.write_all(&head)?;
        tables.iter().try_for_each(|table| out.write_all(table))
    }
}

/// The tables while they grow.
struct Tables {
    built: Built,
    nodes: Vec<Node>,
    /// The number in the index of each node that has one already.
    numbers: Vec<u32>,
    /// Where the attributes of the last node with any are: trees with labels have the same on every file.
    last_xattrs: Option<(Box<[Xattr]>, u32)>,
}

impl Tables {
    /// Level by level: what is in one directory lies side by side.
    fn build(mut self) -> Result<Built, IndexError> {
        let mut todo = VecDeque::from([ROOT]);
        let mut order = vec![ROOT];
        self.number(ROOT, 0);
        let mut dirs: Vec<(u32, u32)> = vec![(0, 0)];
        while let Some(node) = todo.pop_front() {
            let Data::Dir(dir) = &mut self.nodes[node as usize].data else { continue };
            let children = std::mem::take(&mut dir.children);
            let first = self.count(format::ENTRY, self.built.entries.len())?;
            let mut subdirs = 0;
            for (name, slot) in children {
                let inode = match slot.node {
                    None if !slot.whiteout => continue,
                    None => NO_INODE,
                    Some(child) => {
                        let is_dir = matches!(self.nodes[child as usize].data, Data::Dir(_));
                        if is_dir {
                            todo.push_back(child);
                            subdirs += 1;
                        }
                        if self.numbers[child as usize] == NO_INODE {
                            self.number(child, order.len());
                            order.push(child);
                            dirs.push((0, 0));
                        }
                        self.numbers[child as usize]
                    }
                };
                let at = self.bytes(&name)?;
                let name_len = u8::try_from(name.len()).map_err(|_| too_large())?;
                let flags = if slot.whiteout { format::WHITEOUT } else { 0 };
                EntryRecord { name: at, name_len, flags, inode }.encode(&mut self.built.entries);
            }
            let count = self.count(format::ENTRY, self.built.entries.len())? - first;
            let number = self.numbers[node as usize] as usize;
            dirs[number] = (first, count);
            self.nodes[node as usize].links = 2 + subdirs;
        }
        for (node, dir) in order.iter().zip(dirs) {
            let data = std::mem::replace(&mut self.nodes[*node as usize].data, Data::Special { format: 0, rdev: 0 });
            self.inode(*node, data, dir)?;
        }
        self.finish(order.len())
    }

    fn number(&mut self, node: u32, number: usize) {
        self.numbers[node as usize] = u32::try_from(number).unwrap_or(NO_INODE);
    }

    fn inode(&mut self, node: u32, data: Data, dir: (u32, u32)) -> Result<(), IndexError> {
        let format = data.format();
        let mut record = Inode::default();
        match data {
            Data::File { tar, from, size } => {
                (record.tar, record.data, record.size, record.stored) = (tar, from, size, size);
                self.built.data_bytes = self.built.data_bytes.saturating_add(size);
            }
            Data::Sparse { tar, map, size } => {
                let first = self.count(format::EXTENT, self.built.extents.len())?;
                for extent in &map {
                    for field in [extent.at, extent.from, extent.len] {
                        self.built.extents.extend_from_slice(&field.to_le_bytes());
                    }
                    record.stored = record.stored.saturating_add(extent.len);
                }
                let count = self.count(format::EXTENT, self.built.extents.len())? - first;
                (record.tar, record.data, record.size) = (tar, pair(first, count), size);
                record.flags |= format::SPARSE;
                self.built.data_bytes = self.built.data_bytes.saturating_add(record.stored);
            }
            Data::Dir(Dir { opaque, implied, .. }) => {
                record.data = pair(dir.0, dir.1);
                record.flags |= if opaque { format::OPAQUE } else { 0 } | if implied { format::IMPLIED } else { 0 };
            }
            Data::Symlink(target) => {
                record.data = u64::from(self.bytes(&target)?);
                record.size = target.len() as u64;
            }
            Data::Special { rdev, .. } => record.data = rdev,
        }
        let node = &mut self.nodes[node as usize];
        let attr = &mut node.attr;
        record.mode = format | attr.mode;
        record.nlink = node.links;
        (record.uid, record.gid, record.mtime) = (attr.uid, attr.gid, attr.mtime);
        let xattrs = std::mem::take(&mut attr.xattrs);
        (record.first_xattr, record.xattrs) = self.xattrs(xattrs)?;
        record.encode(&mut self.built.inodes);
        Ok(())
    }

    fn xattrs(&mut self, xattrs: Box<[Xattr]>) -> Result<(u32, u32), IndexError> {
        if xattrs.is_empty() {
            return Ok((0, 0));
        }
        let count = u32::try_from(xattrs.len()).map_err(|_| too_large())?;
        if let Some((known, first)) = &self.last_xattrs
            && *known == xattrs
        {
            return Ok((*first, count));
        }
        let first = self.count(format::XATTR, self.built.xattrs.len())?;
        for xattr in &xattrs {
            for part in [&xattr.name, &xattr.value] {
                let at = self.bytes(part)?;
                let len = u32::try_from(part.len()).map_err(|_| too_large())?;
                self.built.xattrs.extend_from_slice(&at.to_le_bytes());
                self.built.xattrs.extend_from_slice(&len.to_le_bytes());
            }
        }
        self.last_xattrs = Some((xattrs, first));
        Ok((first, count))
    }

    /// Adds bytes and says where they are.
    fn bytes(&mut self, bytes: &[u8]) -> Result<u32, IndexError> {
        let at = self.count(1, self.built.bytes.len())?;
        self.built.bytes.extend_from_slice(bytes);
        Ok(at)
    }

    fn count(&self, size: usize, len: usize) -> Result<u32, IndexError> {
        u32::try_from(len / size).map_err(|_| too_large())
    }

    fn finish(mut self, inodes: usize) -> Result<Built, IndexError> {
        let counts = Counts {
            tars: u32::try_from(self.built.tar_lens.len()).map_err(|_| too_large())?,
            inodes: u32::try_from(inodes).map_err(|_| too_large())?,
            extents: self.count(format::EXTENT, self.built.extents.len())?,
            xattrs: self.count(format::XATTR, self.built.xattrs.len())?,
            entries: self.count(format::ENTRY, self.built.entries.len())?,
            bytes: self.count(1, self.built.bytes.len())?,
        };
        Layout::of(counts).ok_or_else(too_large)?;
        self.built.counts = counts;
        Ok(self.built)
    }
}

fn too_large() -> IndexError {
    IndexError::Limit { path: ".".into(), limit: "bytes in the index", most: u64::from(u32::MAX) }
}
