//! Read-only layers: the trait that both kinds share, and the kind that is a
//! directory.
//!
//! A layer's objects are addressed in the layer's own coordinates, a
//! [`LayerDir`] and one name in it. They never change while the layer is
//! mounted, whatever the union on top renames.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::attr::Attr;
use crate::error::{LayerRole, OpenError, Refusal, Result};
use crate::fd_cache::FdCache;
use crate::name::Name;
use crate::names::{Listing, NameHash, Names};
use crate::ownership;
use crate::sparse::SparseFile;
use crate::sys::xattr::{self, Target};
use crate::sys::{at, handle, ioctl};
use crate::whiteout::{self, Markers, Marks};

/// The most lower layers of one stack.
pub const MAX_LOWERS: usize = 500;

/// A directory of a layer, in the layer's coordinates.
#[derive(Debug)]
pub struct LayerDir {
    parent: Option<Arc<LayerDir>>,
    name: Name,
    /// Unique in the process: the key of cached descriptors.
    key: u64,
    /// For the layer's own use: an index of its table, or the device.
    pub node: u64,
    /// Empty files with a whiteout xattr hide their name here.
    xwhiteouts: bool,
    names: Names,
}

static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

impl LayerDir {
    /// The root of a layer.
    pub fn root(node: u64, xwhiteouts: bool) -> Arc<Self> {
        Arc::new(Self {
            parent: None,
            name: Name::from(OsStr::new("")),
            key: Self::next_key(),
            node,
            xwhiteouts,
            names: Names::default(),
        })
    }

    /// A directory in `parent`.
    pub fn child(parent: &Arc<Self>, name: &OsStr, node: u64, xwhiteouts: bool) -> Arc<Self> {
        Arc::new(Self {
            parent: Some(Arc::clone(parent)),
            name: Name::from(name),
            key: Self::next_key(),
            node,
            xwhiteouts,
            names: Names::default(),
        })
    }

    /// Whether the directory need be asked for a name.
    pub(crate) fn may_have(&self, name: NameHash) -> bool {
        self.names.may_have(name)
    }

    fn next_key() -> u64 {
        NEXT_KEY.fetch_add(1, Ordering::Relaxed)
    }

    /// The path from the layer's root, beginning with `/`.
    pub fn path(&self) -> OsString {
        let mut names = Vec::new();
        let mut dir = self;
        while let Some(parent) = &dir.parent {
            names.push(&*dir.name);
            dir = parent;
        }
        let mut path = OsString::new();
        for name in names.into_iter().rev() {
            path.push("/");
            path.push(name);
        }
        if path.is_empty() { "/".into() } else { path }
    }

    /// The path of `name` in this directory.
    pub fn path_of(&self, name: &OsStr) -> OsString {
        let mut path = self.path();
        if self.parent.is_some() {
            path.push("/");
        }
        path.push(name);
        path
    }
}

/// Trees are as deep as a hostile layer makes them: never recurse.
impl Drop for LayerDir {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut dir) = next.and_then(Arc::into_inner) {
            next = dir.parent.take();
        }
    }
}

/// An object found in a layer.
#[derive(Clone, Debug)]
pub struct LayerEntry {
    /// Its attributes, the layer's override applied.
    pub attr: Attr,
    /// Its marks.
    pub marks: Marks,
}

/// The answer of one layer to one name.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "lives on the stack for the length of one look-up")]
pub enum Lookup {
    /// The layer says nothing about the name.
    Absent,
    /// The layer deletes the name.
    Whiteout,
    /// The layer has the name. `hides` says that lower layers are out of sight
    /// under it, by a whiteout beside it.
    Found {
        /// The object.
        entry: LayerEntry,
        /// Lower layers do not shine through.
        hides: bool,
    },
}

/// One name of a directory listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed<'a> {
    /// An object: its name, inode number in the layer, and type (`S_IFMT` bits, 0 if not known).
    Entry(&'a OsStr, u64, u32),
    /// The name is deleted from the layers below.
    Whiteout(&'a OsStr),
}

/// Where a lower file's bytes are.
pub enum Content {
    /// In a file, which was opened read-only.
    File(OwnedFd),
    /// In memory, which is a mapped file.
    Bytes(Arc<dyn AsRef<[u8]> + Send + Sync>),
    /// In stretches of a file.
    Sparse(SparseFile),
}

/// A read-only layer. `name` is one component, or `.` for the directory itself.
pub trait Layer: Send + Sync {
    /// The root directory.
    fn root(&self) -> &Arc<LayerDir>;

    /// Where the layer lies, for people.
    fn source(&self) -> &Path;

    /// The directory that the layer is, if it is one.
    fn directory(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether its files are opened on a mount of its own where nothing can be written, access times included, by
    /// whatever flags they are opened again.
    fn is_sealed(&self) -> bool {
        false
    }

    /// Whether redirects and metacopies of this layer are followed. A layer that
    /// came from an archive has no say in where the union looks.
    fn is_trusted(&self) -> bool {
        false
    }

    /// Looks `name` up; `last` says that nothing lies below this layer, so that
    /// whiteouts need not be told from absence.
    fn lookup(&self, dir: &LayerDir, name: &OsStr, last: bool) -> Result<Lookup>;

    /// The directory `name`, found before as `entry`.
    fn child(&self, dir: &Arc<LayerDir>, name: &OsStr, entry: &LayerEntry) -> Arc<LayerDir>;

    /// Attributes, the layer's override applied.
    fn attr(&self, dir: &LayerDir, name: &OsStr) -> Result<Attr>;

    /// The device that the inode numbers of a directory's entries are numbers of.
    fn device(&self, dir: &LayerDir) -> Result<u64> {
        Ok(self.attr(dir, OsStr::new("."))?.dev)
    }

    /// Calls `each` for every name but `.` and `..`.
    fn list(&self, dir: &LayerDir, each: &mut dyn FnMut(Listed<'_>) -> Result<()>) -> Result<()>;

    /// Target of a symlink.
    fn readlink(&self, dir: &LayerDir, name: &OsStr) -> Result<Vec<u8>>;

    /// Value of an extended attribute as it is on disk.
    fn xattr(&self, dir: &LayerDir, name: &OsStr, key: &OsStr) -> Result<Option<Vec<u8>>>;

    /// NUL-terminated names of extended attributes as they are on disk.
    fn xattr_names(&self, dir: &LayerDir, name: &OsStr) -> Result<Vec<u8>>;

    /// The data of a regular file.
    fn open(&self, dir: &LayerDir, name: &OsStr) -> Result<Content>;

    /// Identity of the object that survives a remount, for the index of hard links.
    fn origin(&self, dir: &LayerDir, name: &OsStr) -> Option<Vec<u8>>;

    /// Calls `each` with the path, from the layer's root and beginning with `/`, of every name that an object of one of
    /// these origins has. A layer that keeps no table of its names tells of none.
    fn names_of(&self, _origins: &[Vec<u8>], _each: &mut dyn FnMut(OsString)) -> Result<()> {
        Ok(())
    }

    /// Size and use of the filesystem behind the layer.
    fn statfs(&self) -> Result<rustix::fs::StatVfs>;
}

/// The device that the union is mounted as, once it is mounted.
///
/// Where no private clone of a layer can be had, mounts below it are entered, and this union's own may be one of them:
/// asking it would wait for the very threads that ask.
#[derive(Debug, Default)]
pub(crate) struct OwnDevice(OnceLock<u64>);

impl OwnDevice {
    pub(crate) fn set(&self, device: u64) {
        // A union is mounted once.
        self.0.get_or_init(|| device);
    }

    fn check(&self, stat: &at::Stat) -> Result<()> {
        if self.0.get() == Some(&stat.st_dev) { Err(Refusal::OwnMount.into()) } else { Ok(()) }
    }
}

/// A layer that is a directory.
pub(crate) struct DirLayer {
    source: PathBuf,
    root: Arc<LayerDir>,
    fd: Arc<OwnedFd>,
    /// `fd` is of a private clone.
    sealed: bool,
    markers: Markers,
    /// The override xattr that the layer's root carries, if any is believed.
    override_key: Option<&'static OsStr>,
    uuid: Option<[u8; 16]>,
    position: usize,
    /// Nobody changes it: what a directory was seen to have is all that it ever has.
    fixed: bool,
    cache: Arc<FdCache>,
    own: Arc<OwnDevice>,
}

impl DirLayer {
    /// Opens `path` as the layer at `position` (the upper being 0).
    pub(crate) fn open(
        path: &Path,
        position: usize,
        markers: &Markers,
        override_keys: &[&'static str],
        fixed: bool,
        cache: &Arc<FdCache>,
        own: &Arc<OwnDevice>,
    ) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Open { role: LayerRole::Lower, path: path.to_owned(), source };
        let real =
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
                .map_err(failed)?;
        let (fd, sealed) = at::private_clone(real.as_fd()).map_or((real, false), |clone| (clone, true));
        let itself = Target::At(fd.as_fd(), OsStr::new("."));
        let mut override_key = None;
        for key in override_keys {
            if xattr::get(itself, OsStr::new(key)).map_err(|error| failed(error.errno()))?.is_some() {
                override_key = Some(OsStr::new(*key));
                break;
            }
        }
        let marks = markers.read(itself, None).map_err(|error| failed(error.errno()))?;
        let device = at::fstat(fd.as_fd()).map_err(|error| failed(error.errno()))?.st_dev;
        Ok(Self {
            source: path.to_owned(),
            root: LayerDir::root(device, marks.xwhiteouts),
            uuid: at::open(fd.as_fd(), OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY)
                .ok()
                .and_then(|dir| ioctl::fs_uuid(dir.as_fd())),
            fd: Arc::new(fd),
            sealed,
            markers: markers.clone(),
            override_key,
            position,
            fixed,
            cache: Arc::clone(cache),
            own: Arc::clone(own),
        })
    }

    /// A descriptor of `dir`, through the nearest ancestor that has one.
    fn fd(&self, dir: &LayerDir) -> Result<Arc<OwnedFd>> {
        let mut missing = Vec::new();
        let mut at_dir = dir;
        let mut fd = loop {
            let Some(parent) = &at_dir.parent else {
                break Arc::clone(&self.fd);
            };
            if let Some(fd) = self.cache.get(at_dir.key) {
                break fd;
            }
            missing.push(at_dir);
            at_dir = parent;
        };
        for dir in missing.into_iter().rev() {
            fd = Arc::new(at::open_dir(fd.as_fd(), &dir.name)?);
            self.cache.put(dir.key, Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// Learns the names of a directory that is often asked in vain, unless there are many.
    fn learn(&self, dir: &LayerDir, fd: &OwnedFd) {
        let mut listing = Listing::default();
        let listed = at::list(fd.as_fd(), |name, _, _| {
            listing.add(name);
            if listing.is_large() { Err(Refusal::Range.into()) } else { Ok(()) }
        });
        match listed {
            Ok(()) => listing.complete(&dir.names, |name| has(fd, name)),
            Err(error) => tracing::debug!(%error, dir = ?dir.path(), "its names stay unknown"),
        }
    }
}

/// Whether a directory has a name, as far as it tells.
fn has(dir: &OwnedFd, name: &OsStr) -> bool {
    !matches!(at::stat_opt(dir.as_fd(), name), Ok(None))
}

impl Layer for DirLayer {
    fn root(&self) -> &Arc<LayerDir> {
        &self.root
    }

    fn source(&self) -> &Path {
        &self.source
    }

    fn directory(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn is_sealed(&self) -> bool {
        self.sealed
    }

    fn is_trusted(&self) -> bool {
        true
    }

    fn lookup(&self, dir: &LayerDir, name: &OsStr, last: bool) -> Result<Lookup> {
        if !dir.may_have(NameHash::of(name)) {
            return Ok(Lookup::Absent);
        }
        let fd = self.fd(dir)?;
        let probe = Probe {
            markers: &self.markers,
            override_key: self.override_key,
            position: self.position,
            xwhiteouts: dir.xwhiteouts,
            own: &self.own,
        };
        let found = probe.lookup(&fd, name, last)?;
        if self.fixed && matches!(found, Lookup::Absent) && dir.names.missed() {
            self.learn(dir, &fd);
        }
        Ok(found)
    }

    fn child(&self, dir: &Arc<LayerDir>, name: &OsStr, entry: &LayerEntry) -> Arc<LayerDir> {
        LayerDir::child(dir, name, entry.attr.dev, entry.marks.xwhiteouts)
    }

    fn device(&self, dir: &LayerDir) -> Result<u64> {
        Ok(dir.node)
    }

    fn attr(&self, dir: &LayerDir, name: &OsStr) -> Result<Attr> {
        let fd = self.fd(dir)?;
        let stat = at::stat(fd.as_fd(), name)?;
        let mut attr = Attr::from(&stat);
        if let Some(key) = self.override_key
            && let Some(value) = xattr::get(Target::At(fd.as_fd(), name), key)?
        {
            ownership::apply_override(&mut attr, &value, self.position, name)?;
        }
        Ok(attr)
    }

    fn list(&self, dir: &LayerDir, each: &mut dyn FnMut(Listed<'_>) -> Result<()>) -> Result<()> {
        let fd = self.fd(dir)?;
        if !self.fixed || dir.names.are_known() {
            return list_dir(&fd, dir.xwhiteouts, each);
        }
        let mut listing = Listing::default();
        list_dir_noting(&fd, dir.xwhiteouts, &mut |name| listing.add(name), each)?;
        listing.complete(&dir.names, |name| has(&fd, name));
        Ok(())
    }

    fn readlink(&self, dir: &LayerDir, name: &OsStr) -> Result<Vec<u8>> {
        at::readlink(self.fd(dir)?.as_fd(), name)
    }

    fn xattr(&self, dir: &LayerDir, name: &OsStr, key: &OsStr) -> Result<Option<Vec<u8>>> {
        xattr::get(Target::At(self.fd(dir)?.as_fd(), name), key)
    }

    fn xattr_names(&self, dir: &LayerDir, name: &OsStr) -> Result<Vec<u8>> {
        xattr::list(Target::At(self.fd(dir)?.as_fd(), name))
    }

    fn open(&self, dir: &LayerDir, name: &OsStr) -> Result<Content> {
        let fd = self.fd(dir)?;
        // NONBLOCK: a layer that changed under us must not make the daemon wait at a FIFO.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::LARGEFILE;
        let file = match at::open(fd.as_fd(), name, flags | OFlags::NOATIME) {
            Err(error) if error.errno() == Errno::PERM => at::open(fd.as_fd(), name, flags)?,
            other => other?,
        };
        Ok(Content::File(file))
    }

    fn origin(&self, dir: &LayerDir, name: &OsStr) -> Option<Vec<u8>> {
        let fd = self.fd(dir).ok()?;
        Some(origin_record(self.uuid.unwrap_or_default(), &handle::of(fd.as_fd(), name)?))
    }

    fn statfs(&self) -> Result<rustix::fs::StatVfs> {
        rustix::fs::fstatvfs(&self.fd).map_err(|errno| crate::Error::call("fstatvfs", self.source.as_os_str(), errno))
    }
}

/// How to read one directory on disk, of a lower layer or of the upper.
pub(crate) struct Probe<'a> {
    pub(crate) markers: &'a Markers,
    pub(crate) override_key: Option<&'a OsStr>,
    pub(crate) position: usize,
    pub(crate) xwhiteouts: bool,
    pub(crate) own: &'a OwnDevice,
}

impl Probe<'_> {
    /// Looks `name` up in the directory `fd`; see [`Layer::lookup`].
    pub(crate) fn lookup(&self, fd: &OwnedFd, name: &OsStr, last: bool) -> Result<Lookup> {
        if whiteout::is_reserved(name) {
            return Ok(Lookup::Absent);
        }
        let Some(stat) = at::stat_opt(fd.as_fd(), name)? else {
            let deleted = !last && whiteout::has_whiteout_file(fd.as_fd(), name)?;
            return Ok(if deleted { Lookup::Whiteout } else { Lookup::Absent });
        };
        self.own.check(&stat)?;
        let target = Target::At(fd.as_fd(), name);
        if whiteout::is_device_whiteout(&stat) || (self.xwhiteouts && whiteout::is_xattr_whiteout(target, &stat)?) {
            return Ok(Lookup::Whiteout);
        }
        let mut entry = self.entry(target, &stat, name)?;
        let mut hides = false;
        let ends_here = last && entry.marks.redirect.is_none();
        if !ends_here && entry.attr.is_dir() && !entry.marks.opaque {
            hides = whiteout::has_whiteout_file(fd.as_fd(), name)?;
            if !hides {
                let inner = at::open_dir(fd.as_fd(), name)?;
                entry.marks.opaque = whiteout::has_opaque_file(inner.as_fd())?;
            }
        }
        Ok(Lookup::Found { entry, hides })
    }

    /// Marks, and attributes with the layer's override applied.
    pub(crate) fn entry(&self, target: Target<'_>, stat: &at::Stat, name: &OsStr) -> Result<LayerEntry> {
        let format = stat.st_mode & libc::S_IFMT;
        let marks = if format == libc::S_IFREG || format == libc::S_IFDIR {
            self.markers.read(target, self.override_key)?
        } else {
            self.markers.read_special(target)?
        };
        let mut attr = Attr::from(stat);
        if let Some(value) = &marks.stat_override {
            ownership::apply_override(&mut attr, value, self.position, name)?;
        }
        Ok(LayerEntry { attr, marks })
    }
}

/// Lists a directory that may hold whiteouts of every encoding.
pub(crate) fn list_dir(fd: &OwnedFd, xwhiteouts: bool, each: &mut dyn FnMut(Listed<'_>) -> Result<()>) -> Result<()> {
    list_dir_noting(fd, xwhiteouts, &mut |_| {}, each)
}

/// The same; `note` is told of every entry as it is on disk.
fn list_dir_noting(
    fd: &OwnedFd,
    xwhiteouts: bool,
    note: &mut dyn FnMut(&OsStr),
    each: &mut dyn FnMut(Listed<'_>) -> Result<()>,
) -> Result<()> {
    use rustix::fs::FileType;
    at::list(fd.as_fd(), |name, ino, kind| {
        note(name);
        if let Some(hidden) = whiteout::hidden_by(name) {
            return each(Listed::Whiteout(hidden));
        }
        if whiteout::is_reserved(name) {
            return Ok(());
        }
        let suspicious = match kind {
            FileType::CharacterDevice | FileType::Unknown => true,
            FileType::RegularFile => xwhiteouts,
            _ => false,
        };
        let mut format = kind.as_raw_mode() & libc::S_IFMT;
        if suspicious {
            let Some(stat) = at::stat_opt(fd.as_fd(), name)? else {
                return Ok(());
            };
            if whiteout::is_device_whiteout(&stat)
                || (xwhiteouts && whiteout::is_xattr_whiteout(Target::At(fd.as_fd(), name), &stat)?)
            {
                return each(Listed::Whiteout(name));
            }
            format = stat.st_mode & libc::S_IFMT;
        }
        each(Listed::Entry(name, ino, format))
    })
}

/// The kernel's record of a copied-up object's origin (`struct ovl_fb`):
/// version, magic, length, flags, handle type, filesystem UUID, handle.
fn origin_record(uuid: [u8; 16], handle: &handle::FileHandle) -> Vec<u8> {
    const HEADER: usize = 21;
    const MAGIC: u8 = 0xfb;
    let big_endian = u8::from(cfg!(target_endian = "big"));
    let len = u8::try_from(HEADER + handle.bytes.len()).unwrap_or(u8::MAX);
    let mut record = Vec::with_capacity(HEADER + handle.bytes.len());
    record.extend_from_slice(&[0, MAGIC, len, big_endian, handle.kind]);
    record.extend_from_slice(&uuid);
    record.extend_from_slice(&handle.bytes);
    record
}

/// The origin that a name of the index stands for.
pub(crate) fn origin_of(name: &OsStr) -> Option<Vec<u8>> {
    let digits = name.as_bytes();
    let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    if digits.len().is_multiple_of(2) { pairs.collect() } else { None }
}

/// The name under which the index keeps a hard link with this origin.
pub(crate) fn index_name(origin: &[u8]) -> OsString {
    let mut name = String::with_capacity(origin.len() * 2);
    for byte in origin {
        name.push_str(&format!("{byte:02x}"));
    }
    OsStr::from_bytes(name.as_bytes()).to_owned()
}
