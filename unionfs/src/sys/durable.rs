//! What it takes to have a file's data on disk before its name.
//!
//! fsync(2) forces the journal to disk, and flushes the disk's cache: several
//! milliseconds a file. A filesystem with an ordered journal needs less: once the
//! data is written and the extents that hold it are in the journal, every later
//! entry of the journal, the one of the name among them, becomes durable after
//! them, and the journal flushes the disk's cache itself before it commits. That is
//! what waiting for the write-out of the data comes to on ext4 and XFS: both
//! record the extents before they end the write-out of a page. btrfs does so
//! afterwards; it and all others get an fsync.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs;
use rustix::io::Errno;

use crate::error::{Error, Result};

/// `EXT4_SUPER_MAGIC`, also that of ext2 and ext3.
const EXT4: u64 = 0xef53;
/// `XFS_SUPER_MAGIC`
pub(super) const XFS: u64 = 0x5846_5342;
/// `TMPFS_MAGIC`
const TMPFS: u64 = 0x0102_1994;

/// Whether the filesystem of `fd` has no disk that anything could be written to.
pub(crate) fn is_in_memory(fd: BorrowedFd<'_>) -> bool {
    kind(fd) == Some(TMPFS)
}

/// The magic number of the filesystem of `fd`.
pub(super) fn kind(fd: BorrowedFd<'_>) -> Option<u64> {
    fs::fstatfs(fd).ok().and_then(|stat| u64::try_from(stat.f_type).ok())
}

/// Whether [`write_out`] is enough on the filesystem of `fd`.
pub(crate) fn is_ordered(fd: BorrowedFd<'_>) -> bool {
    match kind(fd) {
        Some(XFS) => true,
        Some(EXT4) => fs::fstat(fd).is_ok_and(|stat| has_journal(stat.st_dev)),
        _ => false,
    }
}

/// Whether an ext4 has a journal, which only sysfs tells.
fn has_journal(device: u64) -> bool {
    let block = format!("/sys/dev/block/{}:{}", fs::major(device), fs::minor(device));
    let name = std::fs::read_link(block).ok().and_then(|path| path.file_name().map(OsStr::to_owned));
    name.is_some_and(|name| Path::new("/sys/fs/ext4").join(name).join("journal_task").exists())
}

/// Writes out all of a file's data and waits until it is written.
pub(crate) fn write_out(fd: BorrowedFd<'_>) -> Result<()> {
    let how = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: a call on a descriptor that lives; it touches no memory.
    match unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 0, how) } {
        0 => Ok(()),
        _ => {
            let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
            Err(Error::call("sync_file_range", OsStr::new("<fd>"), errno))
        }
    }
}
