//! Image layers as layers of a union: looked up in their index, read from
//! their tar.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lamel_unionfs::Attr;
use lamel_unionfs::error::{Error, Refusal, Result};
use lamel_unionfs::layer::{Content, Layer, LayerDir, LayerEntry, Listed, Lookup, MAX_LOWERS};
use lamel_unionfs::sparse::SparseFile;
use lamel_unionfs::whiteout::{Marks, is_bookkeeping_xattr};
use rustix::io::Errno;

use crate::Digest;
use crate::index::{Damaged, Index, IndexError, Inode, ROOT};
use crate::sys::map::Map;
use crate::tar::Extent;

/// Added to an object's number in the index: 0 and 1 are numbers that a union keeps for itself.
const FIRST_INO: u64 = 2;

/// The uncompressed tar of a layer.
struct Tar {
    file: Arc<OwnedFd>,
    map: Arc<Map>,
}

/// A layer, or a stack of layers merged into one, that lies in its tars as they were pulled.
pub struct IndexedLayer {
    source: PathBuf,
    index: Index,
    tars: Vec<Tar>,
    root: Arc<LayerDir>,
    /// Stands for the device that the objects' numbers belong to.
    dev: u64,
    /// The diffIDs, as far as an identity needs them.
    id: [u8; 16],
}

impl IndexedLayer {
    /// Opens the layer `diff_id`; `source` says where it lies, for people.
    ///
    /// # Errors
    /// [`IndexError`] says what is wrong with which file.
    pub fn open(source: &Path, tar: OwnedFd, index: &OwnedFd, diff_id: &Digest) -> Result<Self, IndexError> {
        Self::open_stack(source, vec![tar], index, &[*diff_id])
    }

    /// Opens an index over several layers, with their tars in the same order.
    ///
    /// # Errors
    /// As [`IndexedLayer::open`].
    pub fn open_stack(
        source: &Path,
        tars: Vec<OwnedFd>,
        index: &OwnedFd,
        diff_ids: &[Digest],
    ) -> Result<Self, IndexError> {
        if diff_ids.len() > MAX_LOWERS {
            return Err(IndexError::TooManyLayers(diff_ids.len()));
        }
        let failed = |source_error| IndexError::Open { path: source.to_owned(), source: source_error };
        let index = Index::check(Map::of(index).map_err(failed)?, diff_ids)?;
        if tars.len() != diff_ids.len() {
            return Err(IndexError::Damaged("layers"));
        }
        let mut opened = Vec::with_capacity(tars.len());
        for (number, tar) in (0..).zip(tars) {
            let (layer, wanted) = index.tar(number)?;
            let map = Map::of(&tar).map_err(failed)?;
            let len = map.as_ref().len() as u64;
            if len < wanted {
                return Err(IndexError::Short { layer, len, wanted });
            }
            opened.push(Tar { file: Arc::new(tar), map: Arc::new(map) });
        }
        let ids: Vec<u8> = diff_ids.iter().flat_map(|diff_id| *diff_id.as_bytes()).collect();
        let [dev, id @ ..] = halves(&Digest::of(&ids));
        Ok(Self {
            source: source.to_owned(),
            index,
            tars: opened,
            root: LayerDir::root(ROOT.into(), false),
            // No device of the kernel has so great a number.
            dev: dev | 1 << 63,
            id: id.map(u64::to_le_bytes).concat().try_into().unwrap_or_default(),
        })
    }

    /// The table that the layer is looked up in.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The object `name` in `dir`; `.` is `dir` itself.
    fn number(&self, dir: &LayerDir, name: &OsStr) -> Result<u32> {
        let here = number_of(dir);
        if name == "." {
            return Ok(here);
        }
        let found = self.index.find(here, name.as_bytes()).map_err(|damaged| broken(damaged, name))?;
        found.and_then(|entry| entry.inode).ok_or_else(|| Refusal::NotFound.into())
    }

    fn inode(&self, dir: &LayerDir, name: &OsStr) -> Result<(u32, Inode)> {
        let number = self.number(dir, name)?;
        let inode = self.index.inode(number).map_err(|damaged| broken(damaged, name))?;
        Ok((number, inode))
    }

    pub(crate) fn attr_of(&self, number: u32, inode: &Inode) -> Attr {
        Attr {
            dev: self.dev,
            ino: u64::from(number) + FIRST_INO,
            mode: inode.mode,
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev(),
            size: inode.size,
            blocks: inode.stored.div_ceil(512),
            blksize: 4096,
            atime: inode.mtime,
            mtime: inode.mtime,
            ctime: inode.mtime,
        }
    }

    /// The stretches of a file's data, and the tar that they lie in.
    pub(crate) fn stretches(&self, inode: &Inode) -> Result<(Vec<Extent>, &OwnedFd), Damaged> {
        let tar = self.tars.get(usize::from(inode.tar)).ok_or(Damaged("data"))?;
        let extents = if inode.is_sparse() {
            self.index.extents(inode)?
        } else {
            let (from, len) = self.index.data(inode)?;
            vec![Extent { at: 0, from, len }]
        };
        Ok((extents, &tar.file))
    }

    /// How the origins of its objects begin: as the kernel's record of a file handle of no type, which is to be compared and
    /// never to be opened.
    fn origin_head(&self) -> Vec<u8> {
        let mut head = vec![0, 0xfb, 25, u8::from(cfg!(target_endian = "big")), 0xff];
        head.extend_from_slice(&self.id);
        head
    }

    /// The tar that holds an object's data.
    fn tar(&self, inode: &Inode, name: &OsStr) -> Result<&Tar> {
        self.tars.get(usize::from(inode.tar)).ok_or_else(|| broken(Damaged("data"), name))
    }
}

/// A digest as numbers of which the first three are used.
fn halves(digest: &Digest) -> [u64; 3] {
    let mut words = digest.as_bytes().chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
    std::array::from_fn(|_| words.next().unwrap_or_default())
}

fn number_of(dir: &LayerDir) -> u32 {
    // Only numbers of an index are ever put there.
    u32::try_from(dir.node).unwrap_or(u32::MAX)
}

/// The damage of an index, as an error of the object that it was met at.
#[cold]
fn broken(Damaged(part): Damaged, name: &OsStr) -> Error {
    let object = format!("{} ({part} of the layer index is damaged)", name.display());
    Error::Call { call: "index", object: object.into(), source: Errno::IO }
}

/// Bytes of all tars of a layer that may count as this process's memory, and the least for one of them.
const MOST_RESIDENT: usize = 32 << 20;
const LEAST_RESIDENT: usize = 1 << 20;

/// A part of a map.
struct Part {
    map: Arc<Map>,
    /// After so many bytes the map's pages are let go of.
    most: usize,
    from: usize,
    len: usize,
}

impl AsRef<[u8]> for Part {
    /// Called for each read.
    fn as_ref(&self) -> &[u8] {
        self.map.note_read(self.len, self.most);
        (*self.map).as_ref().get(self.from..self.from + self.len).unwrap_or_default()
    }
}

impl Layer for IndexedLayer {
    fn root(&self) -> &Arc<LayerDir> {
        &self.root
    }

    fn source(&self) -> &Path {
        &self.source
    }

    fn lookup(&self, dir: &LayerDir, name: &OsStr, _: bool) -> Result<Lookup> {
        let here = number_of(dir);
        let found = self.index.find(here, name.as_bytes()).map_err(|damaged| broken(damaged, name))?;
        let Some(entry) = found else {
            return Ok(Lookup::Absent);
        };
        let Some(number) = entry.inode else {
            return Ok(if entry.whiteout { Lookup::Whiteout } else { Lookup::Absent });
        };
        let inode = self.index.child(here, number).map_err(|damaged| broken(damaged, name))?;
        let bare = self.index.xattrs(&inode).next().is_none();
        let marks = Marks { opaque: inode.is_opaque(), bare, ..Marks::default() };
        let entry_found = LayerEntry { attr: self.attr_of(number, &inode), marks };
        Ok(Lookup::Found { entry: entry_found, hides: entry.whiteout })
    }

    fn child(&self, dir: &Arc<LayerDir>, name: &OsStr, entry: &LayerEntry) -> Arc<LayerDir> {
        LayerDir::child(dir, name, entry.attr.ino.saturating_sub(FIRST_INO), false)
    }

    fn attr(&self, dir: &LayerDir, name: &OsStr) -> Result<Attr> {
        let (number, inode) = self.inode(dir, name)?;
        Ok(self.attr_of(number, &inode))
    }

    fn list(&self, dir: &LayerDir, each: &mut dyn FnMut(Listed<'_>) -> Result<()>) -> Result<()> {
        let here = number_of(dir);
        let failed = |damaged| broken(damaged, OsStr::new("."));
        for entry in self.index.entries(here).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.name);
            match entry.inode {
                Some(number) => {
                    let inode = self.index.child(here, number).map_err(failed)?;
                    each(Listed::Entry(name, u64::from(number) + FIRST_INO, inode.format()))?;
                }
                None => each(Listed::Whiteout(name))?,
            }
        }
        Ok(())
    }

    fn readlink(&self, dir: &LayerDir, name: &OsStr) -> Result<Vec<u8>> {
        let (_, inode) = self.inode(dir, name)?;
        if inode.format() != libc::S_IFLNK {
            return Err(Refusal::Invalid.into());
        }
        self.index.target(&inode).map(<[u8]>::to_vec).map_err(|damaged| broken(damaged, name))
    }

    fn xattr(&self, dir: &LayerDir, name: &OsStr, key: &OsStr) -> Result<Option<Vec<u8>>> {
        if is_bookkeeping_xattr(key.as_bytes()) {
            return Ok(None);
        }
        let (_, inode) = self.inode(dir, name)?;
        for xattr in self.index.xattrs(&inode) {
            let (known, value) = xattr.map_err(|damaged| broken(damaged, name))?;
            if known == key.as_bytes() {
                return Ok(Some(value.to_vec()));
            }
        }
        Ok(None)
    }

    fn xattr_names(&self, dir: &LayerDir, name: &OsStr) -> Result<Vec<u8>> {
        let (_, inode) = self.inode(dir, name)?;
        let mut names = Vec::new();
        for xattr in self.index.xattrs(&inode) {
            let (known, _) = xattr.map_err(|damaged| broken(damaged, name))?;
            // An archive has no say in the bookkeeping of a union.
            if !is_bookkeeping_xattr(known) {
                names.extend_from_slice(known);
                names.push(0);
            }
        }
        Ok(names)
    }

    fn open(&self, dir: &LayerDir, name: &OsStr) -> Result<Content> {
        let (_, inode) = self.inode(dir, name)?;
        if inode.format() != libc::S_IFREG {
            return Err(Refusal::Invalid.into());
        }
        let tar = self.tar(&inode, name)?;
        let failed = |damaged| broken(damaged, name);
        let len = (*tar.map).as_ref().len() as u64;
        let within = |from: u64, size: u64| from.checked_add(size).is_some_and(|end| end <= len);
        if inode.is_sparse() {
            let extents = self.index.extents(&inode).map_err(failed)?;
            if !extents.iter().all(|extent| within(extent.from, extent.len)) {
                return Err(failed(Damaged("extents")));
            }
            let extents = extents.iter().map(|extent| (extent.at, extent.from, extent.len));
            return Ok(Content::Sparse(SparseFile::new(Arc::clone(&tar.file), extents.collect(), inode.size)));
        }
        let (from, size) = self.index.data(&inode).map_err(failed)?;
        match (usize::try_from(from), usize::try_from(size)) {
            (Ok(from), Ok(len)) if within(from as u64, size) => {
                let most = (MOST_RESIDENT / self.tars.len().max(1)).max(LEAST_RESIDENT);
                Ok(Content::Bytes(Arc::new(Part { map: Arc::clone(&tar.map), most, from, len })))
            }
            _ => Err(failed(Damaged("data"))),
        }
    }

    fn origin(&self, dir: &LayerDir, name: &OsStr) -> Option<Vec<u8>> {
        let mut record = self.origin_head();
        record.extend_from_slice(&self.number(dir, name).ok()?.to_le_bytes());
        Some(record)
    }

    fn names_of(&self, origins: &[Vec<u8>], each: &mut dyn FnMut(OsString)) -> Result<()> {
        let head = self.origin_head();
        let number = |origin: &Vec<u8>| Some(u32::from_le_bytes(origin.strip_prefix(&*head)?.try_into().ok()?));
        let wanted: HashSet<u32> = origins.iter().filter_map(number).collect();
        let mut todo = vec![(OsString::new(), ROOT)];
        while let Some((path, dir)) = todo.pop().filter(|_| !wanted.is_empty()) {
            let failed = |damaged| broken(damaged, OsStr::new("."));
            for entry in self.index.entries(dir).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let Some(number) = entry.inode else { continue };
                let is_dir = self.index.child(dir, number).map_err(failed)?.format() == libc::S_IFDIR;
                if is_dir || wanted.contains(&number) {
                    let mut path = path.clone();
                    path.push("/");
                    path.push(OsStr::from_bytes(entry.name));
                    if is_dir { todo.push((path, number)) } else { each(path) }
                }
            }
        }
        Ok(())
    }

    fn statfs(&self) -> Result<rustix::fs::StatVfs> {
        let failed = |source| Error::Call { call: "fstatvfs", object: self.source.to_string_lossy().into(), source };
        match self.tars.first() {
            Some(tar) => rustix::fs::fstatvfs(&tar.file).map_err(failed),
            // An image of no layers lies in its store all the same.
            None => rustix::fs::statvfs(&self.source).map_err(failed),
        }
    }
}
