//! Places for what is mounted into a container where its image has none: a layer below the image's, so that the
//! container's own layer holds what its programs wrote and nothing else.
//!
//! It is made of the configuration alone and kept nowhere. The image covers it wherever it has something itself.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use jiff::Timestamp;
use lamel_image::store::Opened;
use lamel_image::view::{View, ViewError};
use lamel_isolate::oci::{Mount, Spec};
use lamel_unionfs::error::{Refusal, Result as LayerResult};
use lamel_unionfs::layer::{Content, Layer, LayerDir, LayerEntry, Listed, Lookup};
use lamel_unionfs::whiteout::{AufsName, Marks, aufs_name};
use lamel_unionfs::{Attr, Error};

use super::record::Record;
use crate::run::volume::is_bind;

/// Stands for the device that the places' numbers belong to: none of the kernel's is so great.
const DEVICE: u64 = u64::MAX;
/// The number of the root.
const FIRST_INO: u64 = 2;
/// Longest path of a mount, and longest name in it, in bytes.
const MAX_PATH: usize = 4095;
const MAX_NAME: usize = 255;
/// As the isolator makes what is missing.
const DIRECTORY_MODE: u32 = libc::S_IFDIR | 0o755;
const FILE_MODE: u32 = libc::S_IFREG | 0o644;

/// The layers under a container's own, top first.
pub(super) fn below(record: &Record, spec: &Spec, image: &Opened) -> Result<Vec<Arc<dyn Layer>>> {
    let view = View::new(image.layer.clone());
    let mut places = Places::new(record.dir().join("config.json"), record.settings.created);
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let destinations: HashSet<&Path> = mounts.iter().map(|mount| mount.destination().as_path()).collect();
    for mount in mounts {
        let place = mount.destination();
        // An image names volumes, too: what no program could make is left to be refused. And in another mount nothing is
        // to be made.
        if place.as_os_str().len() > MAX_PATH || place.ancestors().skip(1).any(|above| destinations.contains(above)) {
            continue;
        }
        if let Some(path) = missing(&view, place)? {
            places.add(&path, is_directory(record, mount));
        }
    }
    let mut layers: Vec<Arc<dyn Layer>> = vec![image.layer.clone()];
    if places.nodes.len() > 1 {
        layers.push(Arc::new(places));
    }
    Ok(layers)
}

/// What a mount needs to lie on. Those of the container's own files that are still to be written are no directories.
fn is_directory(record: &Record, mount: &Mount) -> bool {
    match mount.source() {
        Some(source) if is_bind(mount) => record.dir().join(source).is_dir(),
        _ => true,
    }
}

/// The path of a place that the image lacks, as its links have it; `None` where something is, or nothing can be.
fn missing(view: &View, destination: &Path) -> Result<Option<PathBuf>> {
    let mut names: Vec<&OsStr> = Vec::new();
    for component in destination.components() {
        match component {
            Component::Normal(name) => names.push(name),
            // As the isolator, and runc, take it off the text.
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    let refused = |name: &&OsStr| name.len() > MAX_NAME || !matches!(aufs_name(name), AufsName::Plain);
    if names.iter().any(refused) {
        return Ok(None);
    }
    let mut at = view.root()?;
    for (number, name) in names.iter().enumerate() {
        if !at.attr.is_dir() {
            return Ok(None);
        }
        let here = PathBuf::from(OsString::from_vec(at.path));
        let path = here.join(name);
        at = match view.resolve(path.as_os_str().as_bytes(), true) {
            Ok(found) => found,
            Err(ViewError::NotFound(_)) => {
                return Ok(Some(names.iter().skip(number).fold(here, |path, name| path.join(name))));
            }
            Err(ViewError::NotDirectory(_) | ViewError::Loop(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
    }
    Ok(None)
}

/// An empty file, or what is in a directory: the nodes of its names.
#[derive(Debug)]
enum Node {
    File,
    Directory(BTreeMap<OsString, usize>),
}

/// The layer.
struct Places {
    source: PathBuf,
    root: Arc<LayerDir>,
    /// The first one is the root.
    nodes: Vec<Node>,
    /// When the container was made, seconds and nanoseconds.
    made: (i64, u32),
}

impl Places {
    fn new(source: PathBuf, created: Timestamp) -> Self {
        Self {
            source,
            root: LayerDir::root(0, false),
            nodes: vec![Node::Directory(BTreeMap::new())],
            made: (created.as_second(), u32::try_from(created.subsec_nanosecond()).unwrap_or_default()),
        }
    }

    fn add(&mut self, path: &Path, is_directory: bool) {
        let mut names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        let (mut at, mut next) = (0, names.next());
        while let Some(name) = next {
            next = names.next();
            let new = self.nodes.len();
            // What a file is mounted on holds no more.
            let Some(Node::Directory(entries)) = self.nodes.get_mut(at) else { return };
            at = *entries.entry(name.to_owned()).or_insert(new);
            if at == new {
                let is_file = next.is_none() && !is_directory;
                self.nodes.push(if is_file { Node::File } else { Node::Directory(BTreeMap::new()) });
            }
        }
    }

    fn node(&self, number: usize) -> LayerResult<&Node> {
        self.nodes.get(number).ok_or_else(|| Refusal::NotFound.into())
    }

    fn entries(&self, dir: &LayerDir) -> LayerResult<&BTreeMap<OsString, usize>> {
        match self.node(here(dir))? {
            Node::Directory(entries) => Ok(entries),
            Node::File => Err(Refusal::NotDirectory.into()),
        }
    }

    /// The number of `name` in a directory; `.` is itself.
    fn find(&self, dir: &LayerDir, name: &OsStr) -> LayerResult<Option<usize>> {
        if name == "." { Ok(Some(here(dir))) } else { Ok(self.entries(dir)?.get(name).copied()) }
    }

    fn attr_of(&self, number: usize) -> LayerResult<Attr> {
        let (mode, nlink) = match self.node(number)? {
            Node::File => (FILE_MODE, 1),
            Node::Directory(_) => (DIRECTORY_MODE, 2),
        };
        Ok(Attr {
            dev: DEVICE,
            ino: number as u64 + FIRST_INO,
            mode,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: self.made,
            mtime: self.made,
            ctime: self.made,
        })
    }
}

fn here(dir: &LayerDir) -> usize {
    // Only numbers of nodes are ever put there.
    usize::try_from(dir.node).unwrap_or(usize::MAX)
}

impl Layer for Places {
    fn root(&self) -> &Arc<LayerDir> {
        &self.root
    }

    fn source(&self) -> &Path {
        &self.source
    }

    fn lookup(&self, dir: &LayerDir, name: &OsStr, _: bool) -> LayerResult<Lookup> {
        let Some(number) = self.find(dir, name)? else { return Ok(Lookup::Absent) };
        let marks = Marks { bare: true, ..Marks::default() };
        Ok(Lookup::Found { entry: LayerEntry { attr: self.attr_of(number)?, marks }, hides: false })
    }

    fn child(&self, dir: &Arc<LayerDir>, name: &OsStr, entry: &LayerEntry) -> Arc<LayerDir> {
        LayerDir::child(dir, name, entry.attr.ino.saturating_sub(FIRST_INO), false)
    }

    fn attr(&self, dir: &LayerDir, name: &OsStr) -> LayerResult<Attr> {
        self.attr_of(self.find(dir, name)?.ok_or(Refusal::NotFound)?)
    }

    fn list(&self, dir: &LayerDir, each: &mut dyn FnMut(Listed<'_>) -> LayerResult<()>) -> LayerResult<()> {
        self.entries(dir)?.iter().try_for_each(|(name, number)| {
            let attr = self.attr_of(*number)?;
            each(Listed::Entry(name, attr.ino, attr.format()))
        })
    }

    fn readlink(&self, _: &LayerDir, _: &OsStr) -> LayerResult<Vec<u8>> {
        Err(Refusal::Invalid.into())
    }

    fn xattr(&self, _: &LayerDir, _: &OsStr, _: &OsStr) -> LayerResult<Option<Vec<u8>>> {
        Ok(None)
    }

    fn xattr_names(&self, _: &LayerDir, _: &OsStr) -> LayerResult<Vec<u8>> {
        Ok(Vec::new())
    }

    fn open(&self, dir: &LayerDir, name: &OsStr) -> LayerResult<Content> {
        match self.node(self.find(dir, name)?.ok_or(Refusal::NotFound)?)? {
            Node::File => Ok(Content::Bytes(Arc::new([]))),
            Node::Directory(_) => Err(Refusal::IsDirectory.into()),
        }
    }

    fn origin(&self, _: &LayerDir, _: &OsStr) -> Option<Vec<u8>> {
        // Hard links have one, and there are none.
        None
    }

    fn statfs(&self) -> LayerResult<rustix::fs::StatVfs> {
        rustix::fs::statvfs(&self.source).map_err(|source| Error::Call {
            call: "statvfs",
            object: self.source.to_string_lossy().into(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_empty_and_one_in_another() {
        let mut places = Places::new("config.json".into(), Timestamp::UNIX_EPOCH);
        for (path, is_directory) in
            [("/etc/hosts", false), ("/etc/hosts/below", true), ("/etc", true), ("/a/b", true), ("/a/b/c", false)]
        {
            places.add(Path::new(path), is_directory);
        }
        let mut seen = Vec::new();
        let mut todo = vec![places.root().clone()];
        while let Some(dir) = todo.pop() {
            places
                .list(&dir, &mut |listed| {
                    let Listed::Entry(name, ino, format) = listed else { panic!("a whiteout") };
                    seen.push((dir.path_of(name).into_string().unwrap(), format == libc::S_IFDIR));
                    let Lookup::Found { entry, .. } = places.lookup(&dir, name, true)? else { panic!("not found") };
                    assert_eq!((entry.attr.ino, entry.attr.size, entry.attr.format()), (ino, 0, format));
                    if entry.attr.is_dir() {
                        todo.push(places.child(&dir, name, &entry));
                    } else {
                        assert!(
                            matches!(places.open(&dir, name)?, Content::Bytes(bytes) if (*bytes).as_ref().is_empty())
                        );
                    }
                    Ok(())
                })
                .unwrap();
        }
        seen.sort();
        let seen: Vec<_> = seen.iter().map(|(path, is_directory)| (path.as_str(), *is_directory)).collect();
        assert_eq!(seen, [("/a", true), ("/a/b", true), ("/a/b/c", false), ("/etc", true), ("/etc/hosts", false)]);
        assert!(matches!(places.lookup(places.root(), OsStr::new("usr"), true).unwrap(), Lookup::Absent));
    }
}
