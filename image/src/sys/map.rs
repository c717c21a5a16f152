//! Files of the store in memory.
//!
//! They are written once, under another name, and never changed after that; a
//! layer that goes away is unlinked, which its maps survive. A map of a file
//! that somebody truncates all the same ends earlier than its length says.
//! File data is therefore never touched by this process: it is passed to
//! system calls, which answer EFAULT there.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use memmap2::{Mmap, MmapOptions};

/// A read-only map of a whole file.
#[derive(Debug)]
pub struct Map(Option<Mmap>);

impl Map {
    /// Maps what the file holds now.
    pub(crate) fn of(file: &OwnedFd) -> io::Result<Self> {
        let file = File::from(file.try_clone()?);
        let len = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if len == 0 {
            return Ok(Self(None));
        }
        // SAFETY: files of the store are never written in place (see above), so the bytes do not change under a
        // reference to them; the map is private to reading.
        let map = unsafe { MmapOptions::new().len(len).map(&file)? };
        Ok(Self(Some(map)))
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
