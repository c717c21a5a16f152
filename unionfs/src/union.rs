//! The union: its state, its constructor, and the counters that it keeps.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{LayerRole, OpenError, Refusal, Result};
use crate::fd_cache::FdCache;
use crate::handle::{Handles, Opened};
use crate::hardlink::Links;
use crate::inode::{Body, DirBody, InoMap, Inode, InodeTable, LowerDir, ROOT_INO, State, UpperDir};
use crate::layer::{DirLayer, Layer, MAX_LOWERS, OwnDevice};
use crate::options::{Io, Options, RedirectDir, XattrPermissions};
use crate::ownership::{OVERRIDE_CONTAINERS, OVERRIDE_LEGACY, OVERRIDE_PRIVILEGED, Owners};
use crate::readdir::Listings;
use crate::reclaim::Reclaim;
use crate::sys::at;
use crate::upper::Upper;
use crate::whiteout::{Markers, Namespace};

/// How long the kernel keeps what it was told, when nothing limits it.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// What of the options matters while serving.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) redirect_dir: RedirectDir,
    pub(crate) metacopy: bool,
    pub(crate) read_only: bool,
    /// The longest name, in bytes.
    pub(crate) name_max: usize,
    pub(crate) static_nlink: bool,
    pub(crate) fsync: bool,
    pub(crate) acl: bool,
    pub(crate) xattr: bool,
    pub(crate) noatime: bool,
    pub(crate) io: Io,
    pub(crate) writeback: Option<bool>,
    pub(crate) ttl: Duration,
}

/// Requests served since the mount, printed on SIGUSR1.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests of any kind.
    pub requests: AtomicU64,
    /// Copy-ups that moved data.
    pub data_copy_ups: AtomicU64,
    /// Copy-ups of attributes alone, directories included.
    pub attribute_copy_ups: AtomicU64,
    /// Opens that the kernel serves by itself.
    pub passthrough_opens: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A snapshot of what a mount did and holds.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    requests: u64,
    data_copy_ups: u64,
    attribute_copy_ups: u64,
    passthrough_opens: u64,
    inodes: usize,
    handles: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "requests={} inodes={} handles={} data_copy_ups={} attribute_copy_ups={} passthrough_opens={}",
            self.requests,
            self.inodes,
            self.handles,
            self.data_copy_ups,
            self.attribute_copy_ups,
            self.passthrough_opens
        )
    }
}

/// A stack of layers as one filesystem.
pub struct UnionFs {
    pub(crate) settings: Settings,
    pub(crate) owners: Owners,
    /// Top first.
    pub(crate) lowers: Vec<Arc<dyn Layer>>,
    pub(crate) upper: Option<Upper>,
    pub(crate) inodes: InodeTable,
    pub(crate) inos: InoMap,
    /// Directories of the upper, by inode number.
    pub(crate) dirs: FdCache,
    /// Directories of lower layers, by their own keys.
    pub(crate) lower_dirs: Arc<FdCache>,
    pub(crate) links: Links,
    pub(crate) handles: Handles,
    /// Files that the kernel opened by itself, by inode number.
    pub(crate) opened: FdCache<Opened>,
    pub(crate) listings: Listings,
    pub(crate) counters: Counters,
    pub(crate) reclaim: Reclaim,
    own: Arc<OwnDevice>,
}

impl UnionFs {
    /// Opens and checks the layers, locks the upper and empties the staging directory.
    ///
    /// # Errors
    /// [`OpenError`] says which directory of the stack is at fault and what to do.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        Self::open_over(options, &[])
    }

    /// The same with more layers, of any kind, below the directories of the options.
    ///
    /// # Errors
    /// As [`UnionFs::open`].
    pub fn open_over(options: &Options, below: &[Arc<dyn Layer>]) -> Result<Self, OpenError> {
        Self::open_as(options, below, true)
    }

    /// The same where the directories of the options may be changing.
    pub(crate) fn open_changing(options: &Options, below: &[Arc<dyn Layer>]) -> Result<Self, OpenError> {
        Self::open_as(options, below, false)
    }

    fn open_as(options: &Options, below: &[Arc<dyn Layer>], fixed: bool) -> Result<Self, OpenError> {
        let count = options.lowers.len() + below.len();
        if count == 0 {
            return Err(OpenError::NoLower);
        }
        if count > MAX_LOWERS {
            return Err(OpenError::TooManyLowers(count));
        }
        crate::sys::find_out();
        let owners = Owners::new(&options.ownership);
        let own = Arc::new(OwnDevice::default());
        let upper = match (&options.upper, &options.work) {
            (Some(upper), Some(work)) => Some(Upper::open(upper, work, options, owners.override_key(), &own)?),
            (Some(_), None) => return Err(OpenError::NoWork),
            (None, _) => None,
        };
        let markers = match &upper {
            Some(upper) => upper.markers.clone(),
            None => Markers { namespace: Some(reading_namespace(options)), devices: true, opaque_file: false },
        };
        let (upper_fds, lower_fds) = cache_sizes();
        let lower_dirs = Arc::new(FdCache::new(lower_fds));
        let mut lowers: Vec<Arc<dyn Layer>> = Vec::with_capacity(count);
        for (position, path) in options.lowers.iter().enumerate() {
            if let Some(upper) = &upper {
                upper.refuse_inside(path)?;
            }
            lowers.push(Arc::new(DirLayer::open(
                path,
                position + 1,
                &markers,
                believed_overrides(&markers, options),
                fixed,
                &lower_dirs,
                &own,
            )?));
        }
        lowers.extend_from_slice(below);
        if let Some(upper) = &upper {
            upper.override_root(&lowers)?;
        }
        Self::assemble(options, owners, upper, lowers, upper_fds, lower_dirs, own)
    }

    fn assemble(
        options: &Options,
        owners: Owners,
        upper: Option<Upper>,
        lowers: Vec<Arc<dyn Layer>>,
        fds: usize,
        lower_dirs: Arc<FdCache>,
        own: Arc<OwnDevice>,
    ) -> Result<Self, OpenError> {
        let mut devices = Vec::new();
        let mut upper_marks = crate::whiteout::Marks::default();
        if let Some(upper) = &upper {
            use std::os::fd::AsFd;
            let itself = crate::sys::xattr::Target::At(upper.root.as_fd(), std::ffi::OsStr::new("."));
            let failed = |source| OpenError::Prepare { role: LayerRole::Upper, path: upper.path.clone(), source };
            devices.push(at::fstat(upper.root.as_fd()).map_err(failed)?.st_dev);
            upper_marks = upper.markers.read(itself, None).map_err(failed)?;
        }
        let mut parts = Vec::new();
        for (position, layer) in lowers.iter().enumerate() {
            let failed = |source| {
                let path = layer.source().to_owned();
                OpenError::Prepare { role: LayerRole::Lower, path, source }
            };
            devices.push(layer.device(layer.root()).map_err(failed)?);
            // The root merges whatever a layer says of it, as in kernel overlayfs.
            let layer_position = u16::try_from(position).unwrap_or(u16::MAX);
            parts.push(LowerDir { layer: layer_position, dir: Arc::clone(layer.root()) });
        }
        let root = Body::Dir(Box::new(DirBody {
            upper: if upper.is_some() { UpperDir::Named } else { UpperDir::Absent },
            impure: upper_marks.impure,
            lowers: parts.into(),
        }));
        let bare = upper_marks.bare && owners.override_key().is_none();
        let root = Arc::new(Inode::new(ROOT_INO, bare, State { link: None, body: root }));
        let name_max = if upper.as_ref().is_none_or(|upper| upper.markers.devices) { 255 } else { 251 };
        let settings = Settings {
            redirect_dir: options.redirect_dir,
            metacopy: options.metacopy && upper.as_ref().is_none_or(|upper| upper.markers.can_mark()),
            read_only: options.flags.read_only || upper.is_none(),
            name_max,
            static_nlink: options.static_nlink,
            fsync: options.fsync && !options.volatile,
            // An ACL and the mode on disk go together; the mode shown is elsewhere then.
            acl: options.acl && owners.override_key().is_none(),
            xattr: options.xattr,
            noatime: options.flags.atime == crate::options::Atime::NoAtime,
            io: match options.io {
                // No file to pass through to.
                Io::Passthrough if upper.is_none() && !lowers.iter().any(|layer| layer.is_sealed()) => Io::Cached,
                io => io,
            },
            writeback: options.writeback,
            ttl: options.timeout.unwrap_or(FOR_EVER),
        };
        Ok(Self {
            settings,
            owners,
            lowers,
            upper,
            inodes: InodeTable::new(root, options.ino32),
            inos: InoMap::new(&devices, options.ino32),
            dirs: FdCache::new(fds),
            lower_dirs,
            links: Links::default(),
            handles: Handles::default(),
            opened: FdCache::new(fds / 4),
            listings: Listings::default(),
            counters: Counters::default(),
            reclaim: Reclaim::default(),
            own,
        })
    }

    /// The union is mounted as this device: where a layer leads back into it, nobody goes.
    pub(crate) fn mounted_as(&self, device: u64) {
        self.own.set(device);
    }

    /// The lower layer at a position, 0 being the top one.
    pub(crate) fn layer(&self, position: u16) -> &dyn Layer {
        &*self.lowers[usize::from(position)]
    }

    /// The upper; `ReadOnly` without one.
    pub(crate) fn upper(&self) -> Result<&Upper> {
        self.upper.as_ref().ok_or_else(|| Refusal::ReadOnly.into())
    }

    /// The kernel drops look-ups of an inode.
    pub(crate) fn forget(&self, ino: u64, count: u64) {
        self.inodes.forget(ino, count, |gone| self.gone(gone));
    }

    /// An inode that was used without the kernel's knowing may leave the table.
    pub(crate) fn release_inode(&self, inode: Arc<Inode>) {
        let ino = inode.ino;
        drop(inode);
        self.inodes.reap(ino, |gone| self.gone(gone));
    }

    fn gone(&self, ino: u64) {
        self.handles.forget(ino);
        self.opened.remove(ino);
        self.dirs.remove(ino);
        self.reclaim.note();
        for link in self.links.forget(ino) {
            self.release_inode(link.parent);
        }
    }

    /// The upper's root, if its filesystem is to be synced when the mount ends.
    pub(crate) fn upper_to_sync(&self) -> Option<Arc<OwnedFd>> {
        self.upper.as_ref().filter(|upper| upper.durable).map(|upper| Arc::clone(&upper.root))
    }

    /// Whether an fsync may take long.
    pub(crate) fn has_disk(&self) -> bool {
        self.upper.as_ref().is_some_and(Upper::has_disk)
    }

    /// What the mount did and holds.
    pub fn report(&self) -> Report {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            requests: get(&self.counters.requests),
            data_copy_ups: get(&self.counters.data_copy_ups),
            attribute_copy_ups: get(&self.counters.attribute_copy_ups),
            passthrough_opens: get(&self.counters.passthrough_opens),
            inodes: self.inodes.len(),
            handles: self.handles.len(),
        }
    }

    /// The stack, one path a line, for [`crate::xattr`]. A line `fd` holds the number of the descriptor of the
    /// directory before it, whose path the mount itself may cover.
    pub(crate) fn stack_listing(&self) -> OsString {
        use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
        let mut text = OsString::new();
        let mut line = |role: &str, path: &std::path::Path, fd: Option<BorrowedFd<'_>>| {
            text.push(role);
            text.push("\t");
            text.push(path);
            text.push("\n");
            if let Some(fd) = fd {
                text.push(format!("fd\t{}\n", fd.as_raw_fd()));
            }
        };
        if let Some(upper) = &self.upper {
            line("upper", &upper.path, Some(upper.root.as_fd()));
            line("work", &upper.work_path, None);
        }
        for lower in &self.lowers {
            line("lower", lower.source(), lower.directory());
        }
        text
    }
}

/// Without an upper nothing tells what may be written: root believes `trusted.*`.
fn reading_namespace(options: &Options) -> Namespace {
    use crate::options::MarkNamespace;
    match options.namespace {
        MarkNamespace::Trusted => Namespace::Trusted,
        MarkNamespace::User => Namespace::User,
        MarkNamespace::Auto if crate::sys::credentials::is_initial_root() => Namespace::Trusted,
        MarkNamespace::Auto => Namespace::User,
    }
}

/// The override xattrs that lower layers are believed in.
fn believed_overrides(markers: &Markers, options: &Options) -> &'static [&'static str] {
    match (options.ownership.xattr_permissions, markers.namespace) {
        (XattrPermissions::Privileged, _) => &[OVERRIDE_PRIVILEGED],
        (XattrPermissions::User, _) => &[OVERRIDE_CONTAINERS, OVERRIDE_LEGACY],
        (XattrPermissions::Off, Some(Namespace::Trusted)) => &[],
        (XattrPermissions::Off, _) => &[OVERRIDE_CONTAINERS, OVERRIDE_LEGACY],
    }
}

/// How many directories of upper and lowers may be kept open.
fn cache_sizes() -> (usize, usize) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(20_000);
    let quarter = usize::try_from(limit / 4).unwrap_or(usize::MAX).clamp(16, 4096);
    (quarter, quarter)
}
