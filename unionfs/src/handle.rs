//! Open files.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dashmap::DashMap;
use fuser::BackingId;
use parking_lot::RwLock;
use rustix::fs::OFlags;

use crate::error::{Refusal, Result};
use crate::inode::Inode;
use crate::layer::Content;

/// An open file.
pub(crate) struct FileHandle {
    pub(crate) inode: Arc<Inode>,
    /// Flags for opening the data again after it moved.
    pub(crate) flags: OFlags,
    /// The data, and the version of the inode's data that it is.
    pub(crate) content: RwLock<(u32, Arc<Content>)>,
    /// Registered with the kernel, which reads and writes by itself.
    pub(crate) passthrough: Option<Arc<BackingId>>,
}

impl FileHandle {
    pub(crate) fn is_writable(&self) -> bool {
        self.flags & OFlags::ACCMODE != OFlags::RDONLY
    }
}

/// The data of a file that the kernel opened by itself, kept open for the next request.
pub(crate) struct Opened {
    /// Of the inode's data.
    pub(crate) version: u32,
    pub(crate) writable: bool,
    pub(crate) content: Arc<Content>,
}

/// How the open handles of one inode reach its data. The kernel refuses to mix.
#[derive(Default)]
struct Mode {
    cached: u32,
    passthrough: u32,
    backing: Option<Arc<BackingId>>,
    /// Writes went past the page cache: it must be dropped on a cached open.
    stale_cache: bool,
}

/// Everything that is open.
#[derive(Default)]
pub(crate) struct Handles {
    next: AtomicU64,
    files: DashMap<u64, Arc<FileHandle>>,
    modes: DashMap<u64, Mode>,
    /// The handles that hold running programs, and their inodes.
    executed: DashMap<u64, u64>,
    /// The kernel refused to register a file of this filesystem: no use asking again.
    refused: AtomicBool,
}

/// How a file is to be opened towards the kernel.
pub(crate) enum Access {
    /// Through the kernel's page cache; `keep` says that what it holds is current.
    Cached { keep: bool },
    /// By the kernel itself.
    Passthrough(Arc<BackingId>),
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
        let ino = handle.inode.ino;
        if let Some(mut mode) = self.modes.get_mut(&ino) {
            if handle.passthrough.is_some() {
                mode.passthrough = mode.passthrough.saturating_sub(1);
                if mode.passthrough == 0 {
                    mode.backing = None;
                }
            } else {
                mode.cached = mode.cached.saturating_sub(1);
            }
        }
        self.modes.remove_if(&ino, |_, mode| mode.cached == 0 && mode.passthrough == 0 && !mode.stale_cache);
        Some(handle)
    }

    /// The inode left the table: nothing of its pages is in the kernel any more.
    pub(crate) fn forget(&self, ino: u64) {
        self.modes.remove(&ino);
    }

    /// Chooses how a new handle of an inode reaches its data, and counts it.
    /// `register` makes a file known to the kernel, or fails.
    pub(crate) fn choose(
        &self,
        ino: u64,
        file: Option<&OwnedFd>,
        register: &dyn Fn(std::os::fd::BorrowedFd<'_>) -> std::io::Result<BackingId>,
    ) -> Access {
        let mut mode = self.modes.entry(ino).or_default();
        if let (Some(file), 0) = (file, mode.cached) {
            if mode.backing.is_none() && !self.refused.load(Ordering::Relaxed) {
                match register(file.as_fd()) {
                    Ok(id) => mode.backing = Some(Arc::new(id)),
                    Err(error) => {
                        // Anything but a shortage is about the filesystem: stacked too deep, or not permitted.
                        let shortage = matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EMFILE | libc::ENOSPC));
                        self.refused.store(!shortage, Ordering::Relaxed);
                        tracing::info!(%error, ino, "no passthrough");
                    }
                }
            }
            if let Some(id) = mode.backing.clone() {
                mode.passthrough += 1;
                mode.stale_cache = true;
                return Access::Passthrough(id);
            }
        }
        mode.cached += 1;
        Access::Cached { keep: !std::mem::take(&mut mode.stale_cache) }
    }
}
