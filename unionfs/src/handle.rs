//! Open files.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use fuser::BackingId;
use parking_lot::{Mutex, RwLock};
use rustix::fs::OFlags;

use crate::cpus;
use crate::error::{Refusal, Result};
use crate::inode::Inode;
use crate::layer::Content;
use crate::sys::at;

/// Lower files below this size go through the page cache, which serves them no slower: handles of them follow a copy-up,
/// and share locks with those from after it.
const LARGE: i64 = 64 * 1024;

/// An open file.
pub(crate) struct FileHandle {
    pub(crate) inode: Arc<Inode>,
    /// What the kernel called the inode when it opened the file.
    pub(crate) nodeid: u64,
    /// Flags for opening the data again after it moved.
    pub(crate) flags: OFlags,
    /// The data, and the version of the inode's data that it is.
    pub(crate) content: RwLock<(u32, Arc<Content>)>,
    /// Registered with the kernel, which reads and writes by itself.
    pub(crate) passthrough: Option<Arc<BackingId>>,
}

pub(crate) fn is_writable(flags: OFlags) -> bool {
    flags & OFlags::ACCMODE != OFlags::RDONLY
}

/// The data of a file that the kernel opened by itself, kept open for the next request.
pub(crate) struct Opened {
    /// Of the inode's data.
    pub(crate) version: u32,
    pub(crate) writable: bool,
    pub(crate) content: Arc<Content>,
}

/// How the open handles of one nodeid reach its data. The kernel refuses to mix.
#[derive(Default)]
struct Mode {
    cached: u32,
    passthrough: u32,
    backing: Option<Arc<BackingId>>,
    /// Of the data that `backing` is.
    version: u32,
    /// Writes went past the page cache: it must be dropped on a cached open.
    stale_cache: bool,
    /// The data moved while `backing` was in use: the inode goes on under another nodeid.
    left: bool,
}

impl Mode {
    /// Whether it says what no mode says.
    fn is_default(&self) -> bool {
        self.cached == 0 && self.passthrough == 0 && !self.stale_cache && !self.left
    }
}

/// A file's data, opened.
pub(crate) struct Data {
    /// Of the inode's data.
    pub(crate) version: u32,
    /// Position of the lower layer that it is in, `None` for the upper.
    pub(crate) layer: Option<u16>,
    /// Nothing can be written through what is open, by whatever flags it is opened again.
    pub(crate) sealed: bool,
    pub(crate) content: Content,
}

impl Data {
    /// The file, if the kernel is to read and write it by itself. It opens it again for that, with the user's flags.
    fn passable(&self) -> Option<&OwnedFd> {
        let Content::File(file) = &self.content else {
            return None;
        };
        let is_large = || at::fstat(file.as_fd()).is_ok_and(|stat| stat.st_size >= LARGE);
        (self.layer.is_none() || (self.sealed && is_large())).then_some(file)
    }
}

/// Everything that is open.
pub(crate) struct Handles {
    next: AtomicU64,
    files: DashMap<u64, Arc<FileHandle>>,
    modes: DashMap<u64, Mode>,
    /// The handles that hold running programs, and their inodes.
    executed: DashMap<u64, u64>,
    /// The layers (`None`: the upper) whose files the kernel refused to register: no use asking again.
    refused: Mutex<HashSet<Option<u16>>>,
}

impl Default for Handles {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(0),
            files: cpus::shared_map(),
            modes: cpus::shared_map(),
            executed: cpus::shared_map(),
            refused: Mutex::default(),
        }
    }
}

/// How a file is to be opened towards the kernel.
pub(crate) enum Access {
    /// Through the kernel's page cache; `keep` says that what it holds is current.
    Cached { keep: bool },
    /// By the kernel itself.
    Passthrough(Arc<BackingId>),
}

/// What becomes of an open.
pub(crate) enum Choice {
    Open(Access),
    /// Others have newer data open: it is to be opened again.
    Outdated,
    /// Others have older data open: not under this nodeid.
    Elsewhere,
}

impl Handles {
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn add_file(&self, handle: FileHandle) -> u64 {
        let number = self.next();
        self.files.insert(number, Arc::new(handle));
        number
    }

    pub(crate) fn file(&self, number: u64) -> Result<Arc<FileHandle>> {
        self.files.get(&number).map(|handle| Arc::clone(&handle)).ok_or_else(|| Refusal::UnknownHandle.into())
    }

    /// A handle was opened by execve; it is released when the last process that runs it ends.
    pub(crate) fn mark_executed(&self, number: u64, ino: u64) {
        self.executed.insert(number, ino);
    }

    /// Whether a file is the program of a running process.
    pub(crate) fn is_executed(&self, ino: u64) -> bool {
        self.executed.iter().any(|entry| *entry == ino)
    }

    pub(crate) fn remove_file(&self, number: u64) -> Option<Arc<FileHandle>> {
        let (_, handle) = self.files.remove(&number)?;
        self.executed.remove(&number);
        if let Some(mut mode) = self.modes.get_mut(&handle.nodeid) {
            if handle.passthrough.is_some() {
                mode.passthrough = mode.passthrough.saturating_sub(1);
                if mode.passthrough == 0 {
                    mode.backing = None;
                }
            } else {
                mode.cached = mode.cached.saturating_sub(1);
            }
        }
        self.modes.remove_if(&handle.nodeid, |_, mode| mode.is_default());
        Some(handle)
    }

    /// The inode left the table: nothing of its pages is in the kernel any more.
    pub(crate) fn forget(&self, nodeid: u64) {
        self.modes.remove_if(&nodeid, |_, mode| mode.cached == 0 && mode.passthrough == 0);
    }

    /// Chooses how a new handle of a nodeid reaches the data, and counts it.
    /// `pass`: by the kernel itself, if possible; `register` makes a file known to it, or fails.
    pub(crate) fn choose(
        &self,
        nodeid: u64,
        data: &Data,
        writable: bool,
        pass: bool,
        register: &dyn Fn(BorrowedFd<'_>) -> std::io::Result<BackingId>,
    ) -> Choice {
        let mut mode = self.modes.entry(nodeid).or_default();
        if mode.left || (mode.passthrough > 0 && mode.version < data.version) {
            mode.left = true;
            return Choice::Elsewhere;
        }
        if mode.passthrough > 0 && mode.version > data.version {
            return Choice::Outdated;
        }
        if pass && mode.cached == 0 {
            if mode.backing.is_none()
                && let Some(file) = data.passable()
                && !self.refused.lock().contains(&data.layer)
            {
                match register(file.as_fd()) {
                    Ok(id) => (mode.backing, mode.version) = (Some(Arc::new(id)), data.version),
                    Err(error) => {
                        // Anything but a shortage is about the filesystem: stacked too deep, or not permitted.
                        if !matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EMFILE | libc::ENOSPC)) {
                            self.refused.lock().insert(data.layer);
                        }
                        tracing::info!(%error, nodeid, "no passthrough");
                    }
                }
            }
            if let Some(id) = mode.backing.clone() {
                mode.passthrough += 1;
                mode.stale_cache |= writable;
                return Choice::Open(Access::Passthrough(id));
            }
        }
        mode.cached += 1;
        Choice::Open(Access::Cached { keep: !std::mem::take(&mut mode.stale_cache) })
    }
}
