//! An image's layers as directories, for the backends that take nothing else: as kernel overlayfs would have written them.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use lamel_image::IndexedLayer;
use lamel_unionfs::Attr;
use lamel_unionfs::layer::{Content, Layer as _, LayerDir, Listed, Lookup};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

/// What makes a directory hide the layers below: of root's mounts, and of those in a user namespace.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Writes a layer into the directory `to`, which is there and empty. Without privileges owners are the caller's, what
/// only root may set is left out, and empty files stand for devices: a walk sees as many entries.
pub(crate) fn extract(layer: &IndexedLayer, to: &Path) -> Result<()> {
    let root = rustix::fs::open(to, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut extraction = Extraction { layer, root, links: HashMap::new() };
    let mut todo = vec![(Arc::clone(layer.root()), PathBuf::new())];
    let mut directories = Vec::new();
    while let Some((from, path)) = todo.pop() {
        let at = || format!("extracting {}", to.join(&path).display());
        todo.extend(extraction.directory(&from, &path).with_context(at)?);
        directories.push((from, path));
    }
    // From the inside out: a mode may forbid to enter.
    for (from, path) in directories.iter().rev() {
        let at = || format!("extracting {}", to.join(path).display());
        let attr = layer.attr(from, OsStr::new(".")).with_context(at)?;
        let opened = extraction.open(path).with_context(at)?;
        extraction.finish(&opened, from, OsStr::new("."), &attr).with_context(at)?;
    }
    Ok(())
}

struct Extraction<'a> {
    layer: &'a IndexedLayer,
    root: OwnedFd,
    /// Where objects of several names were written first.
    links: HashMap<u64, PathBuf>,
}

impl Extraction<'_> {
    /// A directory of our making: not one symbolic link is on the way to it.
    fn open(&self, path: &Path) -> Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.root, path, flags, Mode::empty())?)
    }

    /// Writes what is in a directory; returns the directories among it.
    fn directory(&mut self, from: &Arc<LayerDir>, path: &Path) -> Result<Vec<(Arc<LayerDir>, PathBuf)>> {
        let into = self.open(path)?;
        let mut below = Vec::new();
        for name in self.names(from)? {
            let (entry, hides) = match self.layer.lookup(from, &name, false)? {
                Lookup::Found { entry, hides } => (entry, hides),
                Lookup::Whiteout => {
                    rustix::fs::mknodat(&into, &name, FileType::CharacterDevice, Mode::empty(), 0)?;
                    continue;
                }
                Lookup::Absent => continue,
            };
            if entry.attr.is_dir() {
                rustix::fs::mkdirat(&into, &name, Mode::RWXU)?;
                if hides || entry.marks.opaque {
                    let made = rustix::fs::openat(&into, &name, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())?;
                    for key in OPAQUE {
                        permitted(rustix::fs::fsetxattr(&made, key, b"y", XattrFlags::empty()))?;
                    }
                }
                below.push((self.layer.child(from, &name, &entry), path.join(&name)));
                continue;
            }
            if entry.attr.nlink > 1
                && let Some(first) = self.links.get(&entry.attr.ino)
            {
                rustix::fs::linkat(&self.root, first, &into, &name, AtFlags::empty())?;
                continue;
            }
            self.object(&into, from, &name, &entry.attr).with_context(|| name.display().to_string())?;
            if entry.attr.nlink > 1 {
                self.links.insert(entry.attr.ino, path.join(&name));
            }
        }
        Ok(below)
    }

    fn names(&self, from: &LayerDir) -> Result<Vec<OsString>> {
        let mut names = Vec::new();
        self.layer.list(from, &mut |listed| {
            let (Listed::Entry(name, ..) | Listed::Whiteout(name)) = listed;
            names.push(name.to_owned());
            Ok(())
        })?;
        Ok(names)
    }

    /// Writes anything but a directory.
    fn object(&self, into: &OwnedFd, from: &LayerDir, name: &OsStr, attr: &Attr) -> Result<()> {
        let kind = FileType::from_raw_mode(attr.mode);
        if kind == FileType::Symlink {
            let target = OsString::from_vec(self.layer.readlink(from, name)?);
            rustix::fs::symlinkat(target, into, name)?;
            return permitted(rustix::fs::chownat(into, name, uid(attr), gid(attr), AtFlags::SYMLINK_NOFOLLOW));
        }
        if kind != FileType::RegularFile {
            let mode = Mode::from_raw_mode(attr.mode);
            match rustix::fs::mknodat(into, name, kind, mode, attr.rdev) {
                Ok(()) => {
                    let owned = rustix::fs::chownat(into, name, uid(attr), gid(attr), AtFlags::SYMLINK_NOFOLLOW);
                    return permitted(owned);
                }
                Err(Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(into, name, flags, Mode::RUSR | Mode::WUSR)?);
        if kind == FileType::RegularFile {
            match self.layer.open(from, name)? {
                Content::Bytes(bytes) => file.write_all((*bytes).as_ref())?,
                Content::File(source) => drop(std::io::copy(&mut File::from(source), &mut file)?),
                Content::Sparse(sparse) => sparse.copy(file.as_fd(), sparse.size())?,
            }
        }
        self.finish(&file.into(), from, name, attr)
    }

    /// Owner, extended attributes and mode, in this order: the first takes some of the others away.
    fn finish(&self, opened: &OwnedFd, from: &LayerDir, name: &OsStr, attr: &Attr) -> Result<()> {
        permitted(rustix::fs::fchown(opened, uid(attr), gid(attr)))?;
        let keys = self.layer.xattr_names(from, name)?;
        for key in keys.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
            let key = OsStr::from_bytes(key);
            if let Some(value) = self.layer.xattr(from, name, key)? {
                permitted(rustix::fs::fsetxattr(opened, key, &value, XattrFlags::empty()))?;
            }
        }
        let owner = if rustix::process::geteuid().is_root() { 0 } else { 0o700 };
        let file = File::from(opened.as_fd().try_clone_to_owned()?);
        Ok(file.set_permissions(Permissions::from_mode(attr.mode & 0o7777 | owner))?)
    }
}

fn uid(attr: &Attr) -> Option<Uid> {
    Some(Uid::from_raw(attr.uid))
}

fn gid(attr: &Attr) -> Option<Gid> {
    Some(Gid::from_raw(attr.gid))
}

/// Passes over what needs more privileges, ids that a user namespace has not, or another filesystem.
fn permitted(done: Result<(), Errno>) -> Result<()> {
    match done {
        Err(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}
