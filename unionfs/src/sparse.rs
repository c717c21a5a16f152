//! A file that lies in stretches of another one, with holes between them.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::sys::{at, copy};

/// A stretch of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    /// Offset in the file.
    at: u64,
    /// Offset in the file that holds the data.
    from: u64,
    len: u64,
}

impl Stretch {
    fn end(&self) -> u64 {
        self.at.saturating_add(self.len)
    }
}

/// A file with holes.
pub struct SparseFile {
    data: Arc<OwnedFd>,
    /// In ascending order, none overlapping another or reaching beyond `size`.
    stretches: Box<[Stretch]>,
    size: u64,
}

impl SparseFile {
    /// A file of `size` bytes that has data where `stretches` say: offset in the file, offset in `data`, length.
    /// They come in ascending order; what overlaps or lies beyond the end is cut off.
    pub fn new(data: Arc<OwnedFd>, stretches: Vec<(u64, u64, u64)>, size: u64) -> Self {
        let mut kept: Vec<Stretch> = Vec::with_capacity(stretches.len());
        for (at, from, len) in stretches {
            let past = kept.last().map_or(0, Stretch::end);
            let len = len.min(size.saturating_sub(at));
            if at >= past && len > 0 {
                kept.push(Stretch { at, from, len });
            }
        }
        Self { data, stretches: kept.into(), size }
    }

    /// The first stretch that ends beyond an offset.
    fn first_after(&self, offset: u64) -> usize {
        self.stretches.partition_point(|stretch| stretch.end() <= offset)
    }

    /// Where the next data is, at or after an offset.
    pub(crate) fn data_from(&self, offset: u64) -> Option<u64> {
        self.stretches.get(self.first_after(offset)).map(|stretch| stretch.at.max(offset))
    }

    /// Where the next hole is, at or after an offset; the end of the file is one.
    pub(crate) fn hole_from(&self, mut offset: u64) -> Option<u64> {
        if offset >= self.size {
            return None;
        }
        for stretch in &self.stretches[self.first_after(offset)..] {
            if stretch.at > offset {
                break;
            }
            offset = stretch.end();
        }
        Some(offset)
    }

    /// Fills `buffer` from an offset; returns how much of it the file has.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let len = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..len];
        buffer.fill(0);
        let end = offset.saturating_add(len as u64);
        for stretch in &self.stretches[self.first_after(offset)..] {
            if stretch.at >= end {
                break;
            }
            let start = stretch.at.max(offset);
            let place = |position: u64| usize::try_from(position - offset).unwrap_or(usize::MAX).min(len);
            let part = &mut buffer[place(start)..place(stretch.end().min(end))];
            self.read_data(part, stretch.from.saturating_add(start - stretch.at))?;
        }
        Ok(len)
    }

    fn read_data(&self, mut part: &mut [u8], mut from: u64) -> Result<()> {
        let failed = |errno| Error::call("pread", OsStr::new("<layer>"), errno);
        while !part.is_empty() {
            match rustix::io::pread(&self.data, &mut *part, from) {
                // The layer was cut off under the mount.
                Ok(0) => return Err(failed(Errno::IO)),
                Ok(got) => {
                    part = &mut part[got..];
                    from += got as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    }

    /// Bytes that it has, holes included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Copies the first `len` bytes to a file that is empty, and sets its length; holes stay holes.
    ///
    /// # Errors
    /// One of both files cannot be read or written.
    pub fn copy(&self, to: BorrowedFd<'_>, len: u64) -> Result<()> {
        at::truncate(to, len)?;
        for stretch in self.stretches.iter().take_while(|stretch| stretch.at < len) {
            let part = stretch.end().min(len) - stretch.at;
            copy::range(self.data.as_fd(), stretch.from, to, stretch.at, part)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(stretches: &[(u64, u64, u64)], size: u64) -> SparseFile {
        let mut data = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut data, b"0123456789abcdef").unwrap();
        SparseFile::new(Arc::new(data.into()), stretches.to_vec(), size)
    }

    fn read(file: &SparseFile, offset: u64, len: usize) -> Vec<u8> {
        let mut buffer = vec![0xee; len];
        let got = file.read(&mut buffer, offset).unwrap();
        buffer.truncate(got);
        buffer
    }

    #[test]
    fn data_lies_where_the_stretches_say() {
        let file = file(&[(2, 4, 3), (5, 12, 1), (8, 0, 2)], 12);
        assert_eq!(read(&file, 0, 100), b"\0\x00456c\0\x0001\0\0");
        assert_eq!(read(&file, 3, 4), b"56c\0");
        assert_eq!(read(&file, 9, 2), b"1\0");
        assert_eq!(read(&file, 12, 2), b"");
        assert_eq!(read(&file, u64::MAX, 2), b"");
    }

    #[test]
    fn seeking_finds_data_and_holes() {
        let file = file(&[(2, 4, 3), (5, 12, 1), (8, 0, 2)], 12);
        assert_eq!((file.data_from(0), file.data_from(3), file.data_from(6)), (Some(2), Some(3), Some(8)));
        assert_eq!((file.data_from(10), file.data_from(12)), (None, None));
        assert_eq!((file.hole_from(0), file.hole_from(2), file.hole_from(9)), (Some(0), Some(6), Some(10)));
        assert_eq!((file.hole_from(11), file.hole_from(12)), (Some(11), None));
    }

    #[test]
    fn what_cannot_be_is_cut_off() {
        let file = file(&[(4, 0, 4), (6, 8, 2), (10, 0, u64::MAX)], 12);
        assert_eq!(read(&file, 0, 20), b"\0\0\0\x000123\0\x0001");
    }

    #[test]
    fn a_copy_has_the_same_holes() {
        use std::os::unix::fs::{FileExt, MetadataExt};
        let file = file(&[(1 << 20, 4, 3)], 2 << 20);
        let copy = tempfile::tempfile_in("/var/tmp").unwrap();
        file.copy(copy.as_fd(), 2 << 20).unwrap();
        let mut part = [0; 5];
        copy.read_exact_at(&mut part, (1 << 20) - 1).unwrap();
        assert_eq!((&part, copy.metadata().unwrap().len()), (b"\x00456\0", 2 << 20));
        assert!(copy.metadata().unwrap().blocks() < 64);
        file.copy(copy.as_fd(), (1 << 20) + 1).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), (1 << 20) + 1);
    }

    #[test]
    fn a_layer_that_was_cut_off_is_an_error() {
        let file = file(&[(0, 14, 8)], 8);
        assert!(file.read(&mut [0; 8], 0).is_err());
    }
}
