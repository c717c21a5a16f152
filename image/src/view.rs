//! An image's files without a mount: looked up in its merged index, symlinks resolved inside the image alone.

mod pattern;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use lamel_unionfs::Attr;

pub use pattern::matches;

use crate::index::{Damaged, Index, Inode, ROOT};
use crate::tar::Extent;
use crate::{Digest, IndexedLayer};

/// Symlinks that are followed on the way to an object, as the kernel does it.
const MOST_LINKS: u32 = 40;
/// Bytes that are copied at once.
const PIECE: usize = 128 * 1024;
/// A hole in a stream, piece by piece.
static ZEROS: [u8; PIECE] = [0; PIECE];

/// Why an object cannot be shown. Paths are as they were asked for, those of the image alone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// Nothing has that name.
    #[error("{0}: no such file or directory in the image")]
    NotFound(String),
    /// A component of the path is no directory.
    #[error("{0}: not a directory")]
    NotDirectory(String),
    /// Symlinks lead round in a circle.
    #[error("{0}: too many levels of symbolic links")]
    Loop(String),
    /// There is nothing to read in it.
    #[error("{0}: not a regular file")]
    NotFile(String),
    /// The index or the tar of a layer is not what was written.
    #[error("the layer index is damaged ({0}): `lamel verify` makes it again")]
    Damaged(&'static str),
    /// Reading a layer's tar.
    #[error("reading {path} from its layer")]
    Read {
        /// In the image.
        path: String,
        /// What the call said.
        source: io::Error,
    },
    /// Writing what was read.
    #[error("writing")]
    Write(#[source] io::Error),
}

impl From<Damaged> for ViewError {
    fn from(Damaged(part): Damaged) -> Self {
        Self::Damaged(part)
    }
}

type Result<T, E = ViewError> = std::result::Result<T, E>;

/// A path for people.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// An object of an image.
#[derive(Clone, Debug)]
pub struct Object {
    /// From the image's root, beginning with `/`.
    pub path: Vec<u8>,
    /// As a mount shows it, with the index's number instead of the mount's.
    pub attr: Attr,
    pub(crate) number: u32,
    pub(crate) inode: Inode,
}

impl Object {
    /// The last component; the root's is empty.
    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// Whether it is of the type `format` (`S_IFMT` bits).
    pub fn is(&self, format: u32) -> bool {
        self.attr.format() == format
    }

    /// Whether other names may lead to it too.
    pub fn is_shared(&self) -> bool {
        !self.attr.is_dir() && self.attr.nlink > 1
    }
}

/// What [`View::walk`] does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Goes into the object, if it is a directory.
    Into,
    /// Leaves out what is in it.
    Over,
}

/// The files of an image.
pub struct View {
    layer: Arc<IndexedLayer>,
}

impl View {
    /// Of an image's layers as one, or of one of them.
    pub fn new(layer: Arc<IndexedLayer>) -> Self {
        Self { layer }
    }

    pub(crate) fn index(&self) -> &Index {
        self.layer.index()
    }

    /// Where a file's data lies: files of one place have one content.
    pub(crate) fn place(&self, file: &Object) -> Result<(Digest, Vec<Extent>)> {
        let (extents, _) = self.layer.stretches(&file.inode)?;
        let (tar, _) = self.layer.index().tar(file.inode.tar.into())?;
        Ok((tar, extents))
    }

    fn object(&self, path: Vec<u8>, number: u32, inode: Inode) -> Object {
        let attr = self.layer.attr_of(number, &inode);
        Object { path, attr, number, inode }
    }

    /// The root directory.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn root(&self) -> Result<Object> {
        Ok(self.object(b"/".to_vec(), ROOT, self.layer.index().inode(ROOT)?))
    }

    /// The object `name` in `dir`.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn child(&self, dir: &Object, name: &[u8]) -> Result<Option<Object>> {
        let index = self.layer.index();
        let Some(number) = index.find(dir.number, name)?.and_then(|entry| entry.inode) else { return Ok(None) };
        Ok(Some(self.object(joined(&dir.path, name), number, index.child(dir.number, number)?)))
    }

    /// The objects in a directory, by name.
    ///
    /// # Errors
    /// It is no directory, or the index is damaged.
    pub fn children(&self, dir: &Object) -> Result<Vec<Object>> {
        if !dir.attr.is_dir() {
            return Err(ViewError::NotDirectory(shown(&dir.path)));
        }
        let index = self.layer.index();
        let mut children = Vec::new();
        for entry in index.entries(dir.number)? {
            let entry = entry?;
            if let Some(number) = entry.inode {
                let inode = index.child(dir.number, number)?;
                children.push(self.object(joined(&dir.path, entry.name), number, inode));
            }
        }
        Ok(children)
    }

    /// Finds the object of a path from the root. Symlinks on the way are followed, and a last one where `follow` says so
    /// or a slash comes after it; none leads out of the image.
    ///
    /// # Errors
    /// There is none, as the kernel would say it.
    pub fn resolve(&self, path: &[u8], follow: bool) -> Result<Object> {
        let follow = follow || path.ends_with(b"/");
        // The way from the root, for `..`; what remains to be walked lies in reverse.
        let mut way = vec![self.root()?];
        let mut rest: Vec<Vec<u8>> = components(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let Some(here) = way.last() else { break };
            if !here.attr.is_dir() {
                return Err(ViewError::NotDirectory(shown(path)));
            }
            if name == b".." {
                way.truncate(way.len().saturating_sub(1).max(1));
                continue;
            }
            let found = self.child(here, &name)?.ok_or_else(|| ViewError::NotFound(shown(path)))?;
            if !found.is(libc::S_IFLNK) || (rest.is_empty() && !follow) {
                way.push(found);
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(ViewError::Loop(shown(path)));
            }
            let target = self.target(&found)?;
            if target.starts_with(b"/") {
                way.truncate(1);
            }
            rest.extend(components(target));
        }
        let found = way.pop().ok_or_else(|| ViewError::NotFound(shown(path)))?;
        if path.ends_with(b"/") && !found.attr.is_dir() {
            return Err(ViewError::NotDirectory(shown(path)));
        }
        Ok(found)
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// It is none, or the index is damaged.
    pub fn target(&self, object: &Object) -> Result<&[u8]> {
        Ok(self.layer.index().target(&object.inode)?)
    }

    /// Names and values of the extended attributes.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn xattrs(&self, object: &Object) -> Result<Vec<(&[u8], &[u8])>> {
        let all = self.layer.index().xattrs(&object.inode).collect::<Result<Vec<_>, _>>()?;
        let shown = |name: &[u8]| !lamel_unionfs::whiteout::is_bookkeeping_xattr(name);
        Ok(all.into_iter().filter(|(name, _)| shown(name)).collect())
    }

    /// The stretches of data that a file has: where each begins in the file, and its length.
    ///
    /// # Errors
    /// It is no regular file, or the index is damaged.
    pub fn data(&self, object: &Object) -> Result<Vec<(u64, u64)>> {
        self.check_file(object)?;
        let (extents, _) = self.layer.stretches(&object.inode)?;
        Ok(extents.iter().filter(|extent| extent.len > 0).map(|extent| (extent.at, extent.len)).collect())
    }

    /// Writes a file's data without its holes.
    ///
    /// # Errors
    /// It is no regular file, or one of both sides fails.
    pub fn write_data(&self, object: &Object, to: &mut dyn Write) -> Result<()> {
        self.check_file(object)?;
        self.write_stretches(object, to, false)
    }

    /// Writes a file's content, with zeros for its holes.
    ///
    /// # Errors
    /// As [`View::write_data`].
    pub fn write_content(&self, object: &Object, to: &mut dyn Write) -> Result<()> {
        self.check_file(object)?;
        self.write_stretches(object, to, true)
    }

    fn check_file(&self, object: &Object) -> Result<()> {
        if object.is(libc::S_IFREG) { Ok(()) } else { Err(ViewError::NotFile(shown(&object.path))) }
    }

    fn write_stretches(&self, object: &Object, to: &mut dyn Write, holes: bool) -> Result<()> {
        let (extents, tar) = self.layer.stretches(&object.inode)?;
        let failed = |source| ViewError::Read { path: shown(&object.path), source };
        // Read, not mapped: a tar that is cut off meanwhile is an error, not a signal.
        let tar = File::from(tar.try_clone().map_err(failed)?);
        let mut buffer = vec![0; PIECE];
        let mut written = 0;
        for extent in extents {
            if holes {
                write_zeros(extent.at.saturating_sub(written), to)?;
            }
            let mut done = 0;
            while done < extent.len {
                let piece = usize::try_from(extent.len - done).map_or(PIECE, |left| left.min(PIECE));
                let piece = buffer.get_mut(..piece).unwrap_or_default();
                tar.read_exact_at(piece, extent.from.saturating_add(done)).map_err(failed)?;
                to.write_all(piece).map_err(ViewError::Write)?;
                done += piece.len() as u64;
            }
            written = extent.at.saturating_add(extent.len);
        }
        if holes { write_zeros(object.attr.size.saturating_sub(written), to) } else { Ok(()) }
    }

    /// Calls `each` for `from` and for everything below it, directories before what is in them, with the depth below
    /// `from`.
    ///
    /// # Errors
    /// Those of `each`, or the index is damaged.
    pub fn walk<E: From<ViewError>>(
        &self,
        from: Object,
        each: &mut dyn FnMut(&Object, usize) -> Result<Step, E>,
    ) -> Result<(), E> {
        let mut todo = vec![(from, 0)];
        while let Some((object, depth)) = todo.pop() {
            if each(&object, depth)? == Step::Into && object.attr.is_dir() {
                todo.extend(self.children(&object)?.into_iter().rev().map(|child| (child, depth + 1)));
            }
        }
        Ok(())
    }
}

fn write_zeros(mut count: u64, to: &mut dyn Write) -> Result<()> {
    while count > 0 {
        let piece = usize::try_from(count).map_or(PIECE, |left| left.min(PIECE));
        to.write_all(ZEROS.get(..piece).unwrap_or_default()).map_err(ViewError::Write)?;
        count -= piece as u64;
    }
    Ok(())
}

/// The path of `name` in the directory `dir`.
pub(crate) fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.strip_suffix(b"/").unwrap_or(dir).to_vec();
    path.push(b'/');
    path.extend_from_slice(name);
    path
}

/// The components of a path, the last one first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.rev().map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_and_put_together() {
        assert_eq!(components(b"/a/./b//c/"), [b"c".to_vec(), b"b".to_vec(), b"a".to_vec()]);
        assert_eq!(components(b"../x"), [b"x".to_vec(), b"..".to_vec()]);
        assert_eq!(joined(b"/", b"a"), b"/a");
        assert_eq!(joined(b"/a", b"b"), b"/a/b");
    }
}
