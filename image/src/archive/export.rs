//! The files of an image, or of a directory, as one tar.
//!
//! The order is that of the names, so that the same tree gives the same bytes: a directory, then what is in it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Dir, FileType, Mode, OFlags, SeekFrom, Stat, fstat, openat};
use rustix::io::Errno;

use crate::tar::write::{Attributes, Kind, Writer};
use crate::view::{Object, Step, View, ViewError};

/// Bytes that are copied at once.
const PIECE: usize = 128 * 1024;

/// Why a tree is not written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The image's own tree cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Something in a directory cannot be read.
    #[error("{call} {path}: {source}")]
    Read {
        /// What was tried.
        call: &'static str,
        /// On what, from the directory on.
        path: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error("writing the archive: {0}")]
    Write(#[from] io::Error),
}

type Result<T, E = ExportError> = std::result::Result<T, E>;

/// Writes all files of an image.
///
/// # Errors
/// A layer is damaged, or `out` fails.
pub fn export(view: &View, out: impl Write) -> Result<()> {
    export_from(view, view.root()?, out)
}

/// Writes a directory of an image as the root, with everything in it.
///
/// # Errors
/// As [`export`].
pub fn export_from(view: &View, top: Object, out: impl Write) -> Result<()> {
    let mut writer = Writer::new(out);
    let mut names: HashMap<u32, Vec<u8>> = HashMap::new();
    let above = top.path.clone();
    view.walk::<ExportError>(top, &mut |object, _| {
        let path = relative(object.path.strip_prefix(above.as_slice()).unwrap_or(&object.path));
        let known = object.is_shared().then(|| names.get(&object.number)).flatten();
        match known {
            Some(first) => writer.add(path, Kind::HardLink(first), &attributes(view, object)?)?,
            None => {
                add_object(&mut writer, view, object, path)?;
                if object.is_shared() {
                    names.insert(object.number, path.to_vec());
                }
            }
        }
        Ok(Step::Into)
    })?;
    writer.finish()?;
    Ok(())
}

fn attributes<'a>(view: &'a View, object: &Object) -> Result<Attributes<'a>> {
    let attr = &object.attr;
    Ok(Attributes { mode: attr.mode, uid: attr.uid, gid: attr.gid, mtime: attr.mtime, xattrs: view.xattrs(object)? })
}

fn add_object(writer: &mut Writer<impl Write>, view: &View, object: &Object, path: &[u8]) -> Result<()> {
    let attributes = attributes(view, object)?;
    if object.is(libc::S_IFREG) {
        let data = view.data(object)?;
        return writer.add_file(path, object.attr.size, &data, &attributes, |mut out| {
            Ok::<(), ExportError>(view.write_data(object, &mut out)?)
        });
    }
    let target = if object.is(libc::S_IFLNK) { view.target(object)? } else { b"" };
    match kind(object.attr.mode, object.attr.rdev, target) {
        Some(kind) => Ok(writer.add(path, kind, &attributes)?),
        None => Ok(()),
    }
}

/// What a tar calls an object that is no regular file; it has no word for sockets.
fn kind(mode: u32, rdev: u64, target: &[u8]) -> Option<Kind<'_>> {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    Some(match FileType::from_raw_mode(mode) {
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink(target),
        FileType::CharacterDevice => Kind::Char(major, minor),
        FileType::BlockDevice => Kind::Block(major, minor),
        FileType::Fifo => Kind::Fifo,
        _ => return None,
    })
}

/// A path as the archive has it.
fn relative(path: &[u8]) -> &[u8] {
    match path.strip_prefix(b"/").unwrap_or(path) {
        b"" => b".",
        path => path,
    }
}

/// What becomes of filesystems that are mounted in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounts {
    /// They are left out but for their place.
    Skip,
    /// They are a part of it, unless they hold no files of anybody's, as procfs does.
    Enter,
}

/// What was written.
#[derive(Debug, Default)]
pub struct Exported {
    /// Paths of sockets, which were left out: no tar holds one.
    pub sockets: Vec<Vec<u8>>,
    /// Bytes of files.
    pub bytes: u64,
}

/// Writes all files below a directory, as the calling process sees them. What is mounted in it is left out but for its
/// place, and so are sockets, whose paths are returned: no tar holds one.
///
/// # Errors
/// As [`export_tree`].
pub fn export_dir(dir: OwnedFd, out: impl Write) -> Result<Vec<Vec<u8>>> {
    Ok(export_tree(dir, b".", Mounts::Skip, out)?.sockets)
}

/// Writes an object, which was opened as a path, under a name (`.` is the archive's root), and of a directory everything in
/// it, as the calling process sees it.
///
/// The tree may be hostile: no name in it is followed.
///
/// # Errors
/// Something in it cannot be read, or `out` fails.
pub fn export_tree(top: OwnedFd, name: &[u8], mounts: Mounts, out: impl Write) -> Result<Exported> {
    let mut tree = Tree { writer: Writer::new(out), mounts, names: HashMap::new(), exported: Exported::default() };
    let mut todo: Vec<Level> = tree.add(top, name.to_vec(), None)?.into_iter().collect();
    while let Some(mut level) = todo.pop() {
        let Some(name) = level.names.pop() else { continue };
        let path = if level.path == b"." { name.clone() } else { [&level.path, b"/".as_slice(), &name].concat() };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let below = match openat(&level.dir, name.as_slice(), flags, Mode::empty()) {
            // Removed after it was listed.
            Err(Errno::NOENT) => None,
            other => tree.add(other.map_err(at("open", &path))?, path, Some(level.dev))?,
        };
        todo.push(level);
        todo.extend(below);
    }
    tree.writer.finish()?;
    Ok(tree.exported)
}

/// Filesystems of the system's own (`linux/magic.h`): proc, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs, tracefs,
/// securityfs, bpf.
const SYSTEM: [u32; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
];

fn is_system(dir: &OwnedFd) -> rustix::io::Result<bool> {
    let kind = u32::try_from(rustix::fs::fstatfs(dir)?.f_type).unwrap_or_default();
    Ok(SYSTEM.contains(&kind))
}

/// A directory of which a part is written.
struct Level {
    dir: OwnedFd,
    /// The filesystem that it is on.
    dev: u64,
    path: Vec<u8>,
    /// What is left, the first name last.
    names: Vec<Vec<u8>>,
}

/// What failed, and where.
fn at<'a, E: Into<io::Error>>(call: &'static str, path: &'a [u8]) -> impl FnOnce(E) -> ExportError + 'a {
    move |source| ExportError::Read { call, path: String::from_utf8_lossy(path).into_owned(), source: source.into() }
}

impl Level {
    fn open(dir: OwnedFd, dev: u64, path: Vec<u8>) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listed = openat(&dir, ".", flags, Mode::empty()).and_then(Dir::new).map_err(at("open", &path))?;
        let mut names = Vec::new();
        for entry in listed {
            let entry = entry.map_err(at("list", &path))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(Self { dir, dev, path, names })
    }
}

/// [`Attributes`] that own their attributes.
struct Owned {
    stat: Stat,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Owned {
    fn borrow(&self) -> Attributes<'_> {
        let stat = &self.stat;
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
        Attributes {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, nanos),
            xattrs: self.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect(),
        }
    }
}

/// Of an object that was opened as a path alone.
fn read_attributes(object: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<Owned> {
    // The link leads to the object itself, also where that is a symlink.
    let place = format!("/proc/self/fd/{}", object.as_raw_fd());
    let mut names = vec![0; 64 * 1024];
    let len = match rustix::fs::listxattr(&place, &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other.map_err(at("listxattr", path))?,
    };
    let mut xattrs = Vec::new();
    for name in names.get(..len).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 * 1024];
        let len = match rustix::fs::getxattr(&place, name, &mut value) {
            // Gone meanwhile, or not for this user.
            Err(Errno::NODATA) => continue,
            other => other.map_err(at("getxattr", path))?,
        };
        value.truncate(len);
        xattrs.push((name.to_vec(), value));
    }
    Ok(Owned { stat: *stat, xattrs })
}

struct Tree<W: Write> {
    writer: Writer<W>,
    mounts: Mounts,
    /// Names of objects that have several, by device and number.
    names: HashMap<(u64, u64), Vec<u8>>,
    exported: Exported,
}

impl<W: Write> Tree<W> {
    /// Adds an object; of a directory, what is in it is still to be added. `around` is the filesystem of the directory
    /// that it is in.
    fn add(&mut self, object: OwnedFd, path: Vec<u8>, around: Option<u64>) -> Result<Option<Level>> {
        let stat = fstat(&object).map_err(at("stat", &path))?;
        let format = FileType::from_raw_mode(stat.st_mode);
        if format == FileType::Socket {
            self.exported.sockets.push(path);
            return Ok(None);
        }
        let foreign = around.is_some_and(|around| around != stat.st_dev);
        let skipped = foreign && (self.mounts == Mounts::Skip || is_system(&object).map_err(at("statfs", &path))?);
        let attributes = read_attributes(&object, &stat, &path)?;
        let several = format != FileType::Directory && stat.st_nlink > 1 && !skipped;
        if several {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.names.get(&id) {
                self.writer.add(&path, Kind::HardLink(first), &attributes.borrow())?;
                return Ok(None);
            }
            self.names.insert(id, path.clone());
        }
        if format == FileType::RegularFile {
            self.add_file(&object, &path, &attributes)?;
            return Ok(None);
        }
        let target = match format {
            FileType::Symlink => rustix::fs::readlinkat(&object, "", Vec::new()).map_err(at("readlink", &path))?,
            _ => std::ffi::CString::default(),
        };
        if let Some(kind) = kind(stat.st_mode, stat.st_rdev, target.as_bytes()) {
            self.writer.add(&path, kind, &attributes.borrow())?;
        }
        let into = format == FileType::Directory && !skipped;
        if into { Level::open(object, stat.st_dev, path).map(Some) } else { Ok(None) }
    }

    fn add_file(&mut self, object: &OwnedFd, path: &[u8], attributes: &Owned) -> Result<()> {
        // No name is looked up again: it may be another file's by now.
        let place = format!("/proc/self/fd/{}", object.as_raw_fd());
        let file = File::open(place).map_err(at("open", path))?;
        let size = u64::try_from(attributes.stat.st_size).unwrap_or_default();
        let data = stretches(&file, size).map_err(at("seek", path))?;
        self.exported.bytes += data.iter().map(|(_, len)| len).sum::<u64>();
        self.writer.add_file(path, size, &data, &attributes.borrow(), |out| {
            let mut buffer = vec![0; PIECE];
            for (from, len) in &data {
                let mut done = 0;
                while done < *len {
                    let most = usize::try_from(len - done).map_or(PIECE, |left| left.min(PIECE));
                    let piece = buffer.get_mut(..most).unwrap_or_default();
                    let count = file.read_at(piece, from + done).map_err(at("read", path))?;
                    if count == 0 {
                        // Shorter by now: the writer says so.
                        return Ok(());
                    }
                    out.write_all(piece.get(..count).unwrap_or_default())?;
                    done += count as u64;
                }
            }
            Ok(())
        })
    }
}

/// Where a file has data; all of it, if its filesystem does not know of holes.
fn stretches(file: &File, size: u64) -> rustix::io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(vec![(0, size)]),
            other => other?,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
        if start >= end {
            break;
        }
        found.push((start, end - start));
        at = end;
    }
    Ok(found)
}
