//! The writable layer and its staging directory.
//!
//! Everything that becomes visible in the upper is first built in the staging
//! directory (or as a nameless file) and then published by one rename or link.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::{Error, LayerRole, OpenError, Result};
use crate::layer::{Layer, LayerEntry, Lookup, OwnDevice, Probe};
use crate::options::{MarkNamespace, Options, UpperFormat};
use crate::ownership::{OVERRIDE_LEGACY, parse_override};
use crate::sys::xattr::{self, Target};
use crate::sys::{at, copy, durable};
use crate::whiteout::{Markers, Namespace};

/// The root of an upper with override xattrs, if no layer below says another.
const DEFAULT_ROOT: &str = "0:0:0555:dir";

/// The writable layer.
pub(crate) struct Upper {
    pub(crate) path: PathBuf,
    pub(crate) work_path: PathBuf,
    pub(crate) root: Arc<OwnedFd>,
    work: OwnedFd,
    /// `WORK/work`: private, emptied at every mount.
    staging: OwnedFd,
    /// `WORK/index`: one link of every copied-up file that has several names below.
    index: Option<Arc<OwnedFd>>,
    /// Whether the index ever held anything: spares look-ups in it.
    index_used: AtomicBool,
    pub(crate) markers: Markers,
    /// The override xattr that this layer is read and written with.
    pub(crate) override_key: Option<&'static str>,
    /// Copied-up data is on disk before it is published.
    pub(crate) durable: bool,
    /// To write data out is enough for that.
    ordered: bool,
    /// There is nothing that an fsync would wait for.
    in_memory: bool,
    /// The device whose files it shares blocks with, as far as is known.
    device: u64,
    shares_blocks: AtomicBool,
    next_name: AtomicU64,
    own: Arc<OwnDevice>,
    /// Descriptors that carry the locks on upper and workdir.
    _locks: [OwnedFd; 2],
}

impl Upper {
    /// Opens, locks and prepares upper and workdir.
    pub(crate) fn open(
        path: &Path,
        work_path: &Path,
        options: &Options,
        override_key: Option<&'static str>,
        own: &Arc<OwnDevice>,
    ) -> Result<Self, OpenError> {
        let root = open_root(LayerRole::Upper, path)?;
        let work = open_root(LayerRole::Work, work_path)?;
        let prepare = |source: Error| match source.errno() {
            Errno::ROFS => OpenError::ReadOnlyUpper { upper: path.to_owned() },
            _ => OpenError::Prepare { role: LayerRole::Work, path: work_path.to_owned(), source },
        };
        let overlap = || OpenError::Overlap { upper: path.to_owned(), work: work_path.to_owned() };
        let above = |dir| ancestry(dir).collect::<Result<Vec<_>>>().map_err(&prepare);
        let (of_root, of_work) = (above(&root)?, above(&work)?);
        let lies_in = |inner: &[_], outer: &[_]| outer.first().is_some_and(|outer| inner.contains(outer));
        if lies_in(&of_root, &of_work) || lies_in(&of_work, &of_root) {
            return Err(overlap());
        }
        let elsewhere = || OpenError::WorkElsewhere { upper: path.to_owned(), work: work_path.to_owned() };
        // Nothing is made in a directory that cannot serve.
        if !at::same_mount(root.as_fd(), work.as_fd()).map_err(&prepare)? {
            return Err(elsewhere());
        }
        let locks = [lock(LayerRole::Upper, path, &root)?, lock(LayerRole::Work, work_path, &work)?];
        let staging = subdirectory(&work, "work").map_err(&prepare)?;
        empty(&staging, 0).map_err(&prepare)?;
        let namespace = choose_namespace(&staging, options.namespace).map_err(&prepare)?;
        let devices = options.device_whiteouts && can_make_devices(&staging).map_err(&prepare)?;
        let markers = Markers { namespace, devices, opaque_file: options.format == UpperFormat::FuseOverlayfs };
        if !markers.can_delete(staging.as_fd()) {
            return Err(OpenError::NoWhiteouts { work: work_path.to_owned() });
        }
        let index = if options.index && namespace.is_some() {
            Some(Arc::new(subdirectory(&work, "index").map_err(&prepare)?))
        } else {
            None
        };
        let mut index_used = false;
        if let Some(index) = &index {
            at::list(index.as_fd(), |_, _, _| {
                index_used = true;
                Ok(())
            })
            .map_err(&prepare)?;
        }
        let in_memory = durable::is_in_memory(root.as_fd());
        Ok(Self {
            path: path.to_owned(),
            work_path: work_path.to_owned(),
            ordered: durable::is_ordered(root.as_fd()),
            in_memory,
            device: at::fstat(root.as_fd()).map_err(&prepare)?.st_dev,
            shares_blocks: AtomicBool::new(copy::may_share_blocks(root.as_fd())),
            root: Arc::new(root),
            work,
            staging,
            index,
            index_used: AtomicBool::new(index_used),
            markers,
            override_key,
            durable: !options.volatile && options.fsync && !in_memory,
            next_name: AtomicU64::new(0),
            own: Arc::clone(own),
            _locks: locks,
        })
    }

    /// Refuses a lower layer that changes when the upper does.
    pub(crate) fn refuse_inside(&self, lower: &Path) -> Result<(), OpenError> {
        let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Who opens the layer says what is wrong with it.
        let Ok(dir) = rustix::fs::open(lower, open, Mode::empty()) else { return Ok(()) };
        // A parent that may not be entered is none of the upper's, which was.
        let above: Vec<_> = ancestry(&dir).map_while(Result::ok).collect();
        let places = [(LayerRole::Upper, &*self.root, &self.path), (LayerRole::Work, &self.work, &self.work_path)];
        for (role, place, path) in places {
            if identity(place).is_ok_and(|place| above.contains(&place)) {
                return Err(OpenError::LowerInside { lower: lower.to_owned(), role, path: path.clone() });
            }
        }
        Ok(())
    }

    /// A fresh upper whose owners are in override xattrs shows the root that the topmost of its layers with such an
    /// xattr has: its own has the modes of the disk, which nobody but its maker may enter.
    pub(crate) fn override_root(&self, lowers: &[Arc<dyn Layer>]) -> Result<(), OpenError> {
        let Some(key) = self.override_key else { return Ok(()) };
        let (itself, key) = (OsStr::new("."), OsStr::new(key));
        let set = || {
            let root = Target::At(self.root.as_fd(), itself);
            if xattr::get(root, key)?.is_some() {
                return Ok(());
            }
            let mut value = DEFAULT_ROOT.as_bytes().to_vec();
            for (layer, name) in
                lowers.iter().flat_map(|layer| [key, OsStr::new(OVERRIDE_LEGACY)].map(|name| (layer, name)))
            {
                if let Some(theirs) =
                    layer.xattr(layer.root(), itself, name)?.filter(|theirs| parse_override(theirs).is_some())
                {
                    value = theirs;
                    break;
                }
            }
            xattr::set(root, key, &value, 0)
        };
        set().map_err(|source| OpenError::Prepare { role: LayerRole::Upper, path: self.path.clone(), source })
    }

    /// Looks a name up in a directory of the upper.
    pub(crate) fn lookup(&self, dir: &OwnedFd, name: &OsStr, last: bool) -> Result<Lookup> {
        self.probe().lookup(dir, name, last)
    }

    /// Marks and attributes of an object of the upper.
    pub(crate) fn entry(&self, target: Target<'_>, name: &OsStr) -> Result<LayerEntry> {
        let stat = match target {
            Target::At(dir, name) => at::stat(dir, name)?,
            Target::Fd(fd) => at::fstat(fd)?,
        };
        self.probe().entry(target, &stat, name)
    }

    /// Has data on disk before the name that it is about to get.
    pub(crate) fn make_durable(&self, copy: BorrowedFd<'_>) -> Result<()> {
        match (self.durable, self.ordered) {
            (false, _) => Ok(()),
            (true, true) => durable::write_out(copy),
            (true, false) => at::fsync(copy, false),
        }
    }

    /// Whether an fsync may wait for a disk.
    pub(crate) fn has_disk(&self) -> bool {
        !self.in_memory
    }

    /// Whether a file of this device is copied up at once, however large it is.
    pub(crate) fn shares_blocks_with(&self, device: u64) -> bool {
        device == self.device && self.shares_blocks.load(Ordering::Relaxed)
    }

    /// A file was copied byte by byte.
    pub(crate) fn shares_no_blocks(&self) {
        self.shares_blocks.store(false, Ordering::Relaxed);
    }

    fn probe(&self) -> Probe<'_> {
        Probe {
            markers: &self.markers,
            override_key: self.override_key.map(OsStr::new),
            position: 0,
            xwhiteouts: false,
            own: &self.own,
        }
    }

    pub(crate) fn staging(&self) -> &OwnedFd {
        &self.staging
    }

    /// The index, if one is kept.
    pub(crate) fn index(&self) -> Option<&Arc<OwnedFd>> {
        self.index.as_ref()
    }

    /// The index, if it may hold anything.
    pub(crate) fn used_index(&self) -> Option<&Arc<OwnedFd>> {
        if self.index_used.load(Ordering::Acquire) { self.index.as_ref() } else { None }
    }

    pub(crate) fn mark_index_used(&self) {
        self.index_used.store(true, Ordering::Release);
    }

    /// A free name in the staging directory, removed again with what it names
    /// unless it was published.
    pub(crate) fn stage(&self) -> Staged<'_> {
        let number = self.next_name.fetch_add(1, Ordering::Relaxed);
        Staged { upper: self, name: format!("#{number:x}").into(), armed: true }
    }

    /// Writes a whiteout over `name` in one step, or where nothing is.
    pub(crate) fn whiteout(&self, dir: &OwnedFd, name: &OsStr, replaces: Replaces) -> Result<()> {
        let (from, to) = (self.staging.as_fd(), dir.as_fd());
        match replaces {
            Replaces::Nothing => self.markers.make_whiteout(to, name),
            Replaces::File if self.markers.devices => {
                let staged = self.stage();
                self.markers.make_whiteout(from, &staged.name)?;
                at::rename(from, &staged.name, to, name, RenameFlags::empty())?;
                staged.publish();
                Ok(())
            }
            Replaces::Dir if self.markers.devices => {
                let staged = self.stage();
                self.markers.make_whiteout(from, &staged.name)?;
                at::rename(from, &staged.name, to, name, RenameFlags::EXCHANGE)
                // The directory is now what was staged, and goes with it.
            }
            // A whiteout file beside the object hides only what is below, so it may come first.
            Replaces::File => {
                self.markers.make_whiteout(to, name)?;
                at::unlink(to, name)
            }
            Replaces::Dir => {
                self.markers.make_whiteout(to, name)?;
                self.discard_dir(dir, name)
            }
        }
    }

    /// Removes a directory that shows nothing but may hold whiteouts.
    pub(crate) fn discard_dir(&self, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        match at::rmdir(dir.as_fd(), name) {
            Err(error) if matches!(error.errno(), Errno::NOTEMPTY | Errno::EXIST) => {
                let staged = self.stage();
                at::rename(dir.as_fd(), name, self.staging.as_fd(), &staged.name, RenameFlags::empty())
            }
            other => other,
        }
    }
}

/// What a whiteout takes the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replaces {
    Nothing,
    File,
    Dir,
}

/// A name in the staging directory.
pub(crate) struct Staged<'a> {
    upper: &'a Upper,
    pub(crate) name: OsString,
    armed: bool,
}

impl Staged<'_> {
    /// What was staged has moved to its place.
    pub(crate) fn publish(mut self) {
        self.armed = false;
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.armed
            && let Err(error) = remove_tree(&self.upper.staging, &self.name, 0)
        {
            // Emptied at the next mount.
            tracing::debug!(%error, "left in the staging directory");
        }
    }
}

fn open_root(role: LayerRole, path: &Path) -> Result<OwnedFd, OpenError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| OpenError::Open { role, path: path.to_owned(), source })
}

fn lock(role: LayerRole, path: &Path, dir: &OwnedFd) -> Result<OwnedFd, OpenError> {
    let failed = |source| OpenError::Prepare { role, path: path.to_owned(), source };
    let fd = at::open(dir.as_fd(), OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
    match at::try_lock(fd.as_fd()) {
        Ok(true) => Ok(fd),
        Ok(false) => Err(OpenError::InUse { role, path: path.to_owned() }),
        Err(error) => Err(failed(error)),
    }
}

/// Device and number: what tells a directory from all others.
fn identity(dir: &OwnedFd) -> Result<(u64, u64)> {
    at::fstat(dir.as_fd()).map(|stat| (stat.st_dev, stat.st_ino))
}

/// A directory and those that it lies in, up to the root, by their identities. Ends after an error.
fn ancestry(dir: &OwnedFd) -> impl Iterator<Item = Result<(u64, u64)>> {
    let identified = |dir: OwnedFd| identity(&dir).map(|identity| (dir, identity));
    let mut next = Some(at::open_dir(dir.as_fd(), OsStr::new(".")).and_then(identified));
    std::iter::from_fn(move || {
        let (here, known) = match next.take()? {
            Ok(here) => here,
            Err(error) => return Some(Err(error)),
        };
        let above = at::open_dir(here.as_fd(), OsStr::new("..")).and_then(identified);
        // The root lies in itself.
        next = Some(above).filter(|above| !above.as_ref().is_ok_and(|(_, above)| *above == known));
        Some(Ok(known))
    })
}

fn subdirectory(dir: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let name = OsStr::new(name);
    match at::mkdir(dir.as_fd(), name, 0o700) {
        Err(error) if error.errno() != Errno::EXIST => return Err(error),
        _ => {}
    }
    at::open(dir.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Deeper leftovers than this are nobody's but a vandal's.
const MAX_DEPTH: usize = 64;

/// Empties a directory.
fn empty(dir: &OwnedFd, depth: usize) -> Result<()> {
    let mut names = Vec::new();
    at::list(dir.as_fd(), |name, _, _| {
        names.push(name.to_owned());
        Ok(())
    })?;
    names.iter().try_for_each(|name| remove_tree(dir, name, depth))
}

/// Removes a name with everything below it; nothing there is fine.
fn remove_tree(dir: &OwnedFd, name: &OsStr, depth: usize) -> Result<()> {
    match at::unlink(dir.as_fd(), name) {
        Ok(()) => return Ok(()),
        Err(error) if error.errno() == Errno::NOENT => return Ok(()),
        Err(error) if !matches!(error.errno(), Errno::ISDIR | Errno::PERM) => return Err(error),
        Err(_) => {}
    }
    if depth >= MAX_DEPTH {
        return Err(Error::call("unlinkat", name, Errno::NOTEMPTY));
    }
    match at::rmdir(dir.as_fd(), name) {
        Err(error) if matches!(error.errno(), Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    let inner = at::open(dir.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY)?;
    empty(&inner, depth + 1)?;
    at::rmdir(dir.as_fd(), name)
}

fn choose_namespace(staging: &OwnedFd, wanted: MarkNamespace) -> Result<Option<Namespace>> {
    if wanted != MarkNamespace::User && Namespace::Trusted.is_writable(staging.as_fd())? {
        return Ok(Some(Namespace::Trusted));
    }
    if wanted != MarkNamespace::Trusted && Namespace::User.is_writable(staging.as_fd())? {
        return Ok(Some(Namespace::User));
    }
    Ok(None)
}

fn can_make_devices(staging: &OwnedFd) -> Result<bool> {
    let name = OsStr::new("#device");
    match at::mknod(staging.as_fd(), name, libc::S_IFCHR, 0) {
        Ok(()) => at::unlink(staging.as_fd(), name).map(|()| true),
        Err(error) if matches!(error.errno(), Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL | Errno::ACCESS) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
