//! Files of the store in memory.
//!
//! They are written once, under another name, and never changed after that; a
//! layer that goes away is unlinked, which its maps survive. A map of a file
//! that somebody truncates all the same ends earlier than its length says.
//! File data is therefore never touched by this process: it is passed to
//! system calls, which answer EFAULT there.
//!
//! What a system call has read through a map counts as this process's memory
//! although it is the page cache's: it is let go of from time to time.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{Mmap, MmapOptions, UncheckedAdvice};

/// The most that one call reads.
const MOST_READ: usize = 1 << 20;
/// What the kernel maps around a page that is touched.
const LEAST_READ: usize = 64 << 10;

/// A read-only map of a whole file.
#[derive(Debug)]
pub struct Map {
    map: Option<Mmap>,
    /// Bytes that were read since the pages were last let go of, roughly.
    read: AtomicUsize,
}

impl Map {
    /// Maps what the file holds now.
    pub(crate) fn of(file: &OwnedFd) -> io::Result<Self> {
        let file = File::from(file.try_clone()?);
        let len = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if len == 0 {
            return Ok(Self { map: None, read: AtomicUsize::new(0) });
        }
        // SAFETY: files of the store are never written in place (see above), so the bytes do not change under a
        // reference to them; the map is private to reading.
        let map = unsafe { MmapOptions::new().len(len).map(&file)? };
        Ok(Self { map: Some(map), read: AtomicUsize::new(0) })
    }

    /// Says that a system call is about to read of `len` bytes; lets go of all pages once that comes to `most` bytes.
    pub(crate) fn note_read(&self, len: usize, most: usize) {
        let len = len.clamp(LEAST_READ, MOST_READ);
        if self.read.fetch_add(len, Ordering::Relaxed) + len < most {
            return;
        }
        self.read.store(0, Ordering::Relaxed);
        if let Some(map) = &self.map {
            // SAFETY: the map is shared and of a file that does not change: whoever touches a page again, also now in another
            // thread, is given the same bytes. A failure costs nothing but memory.
            unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) }.ok();
        }
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}
