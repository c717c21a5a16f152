//! Moving file data: reflink, then `copy_file_range`, then `sendfile`, then read
//! and write; holes stay holes.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{self, SeekFrom};
use rustix::io::Errno;

use super::durable;
use crate::error::{Error, Result};

/// Copies the first `len` bytes of `from` to `to`, which is empty, and sets the
/// length of `to`. A file of `size` bytes without holes need not be searched for them. False if they could have shared
/// their blocks and do not.
pub(crate) fn file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    size: u64,
    len: u64,
    may_have_holes: bool,
) -> Result<bool> {
    if len == 0 {
        return Ok(true);
    }
    if len >= size && fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(true);
    }
    if !may_have_holes {
        return range(from, 0, to, 0, len).map(|()| len < size);
    }
    super::at::truncate(to, len)?;
    let mut position = 0;
    while position < len {
        let Some((start, end)) = next_data(from, position, len)? else {
            break;
        };
        range(from, start, to, start, end - start)?;
        position = end;
    }
    Ok(len < size)
}

/// Whether files of the filesystem of `fd` can, as a rule, share blocks, and need no fsync then.
pub(crate) fn may_share_blocks(fd: BorrowedFd<'_>) -> bool {
    // btrfs wants the fsync.
    durable::kind(fd) == Some(durable::XFS)
}

/// The next stretch of data in `[from, len)`; filesystems without `SEEK_DATA`
/// are all data.
fn next_data(fd: BorrowedFd<'_>, position: u64, len: u64) -> Result<Option<(u64, u64)>> {
    let start = match fs::seek(fd, SeekFrom::Data(position)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((position, len))),
        Err(errno) => return Err(Error::call("lseek", OsStr::new("<fd>"), errno)),
    };
    if start >= len {
        return Ok(None);
    }
    let end = match fs::seek(fd, SeekFrom::Hole(start)) {
        Ok(end) => end,
        Err(errno) => return Err(Error::call("lseek", OsStr::new("<fd>"), errno)),
    };
    Ok(Some((start, end.min(len))))
}

/// Copies a stretch of one file into another.
pub(crate) fn range(
    from: BorrowedFd<'_>,
    mut from_at: u64,
    to: BorrowedFd<'_>,
    mut to_at: u64,
    mut len: u64,
) -> Result<()> {
    const STEP: u64 = 64 << 20;
    while len > 0 {
        let step = usize::try_from(len.min(STEP)).unwrap_or(usize::MAX);
        match fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), step) {
            Ok(0) => break,
            Ok(done) => len -= (done as u64).min(len),
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::BADF) => {
                return between(from, from_at, to, to_at, len);
            }
            Err(errno) => return Err(Error::call("copy_file_range", OsStr::new("<fd>"), errno)),
        }
    }
    if len > 0 { by_hand(from, from_at, to, to_at, len) } else { Ok(()) }
}

/// Bytes that are copied at a time by hand.
const BUFFER: usize = 256 * 1024;

/// Copies between filesystems, inside the kernel where that does it and it pays.
fn between(from: BorrowedFd<'_>, mut from_at: u64, to: BorrowedFd<'_>, mut to_at: u64, mut len: u64) -> Result<()> {
    const STEP: u64 = 64 << 20;
    // sendfile writes to where the descriptor is.
    if len <= BUFFER as u64 || fs::seek(to, SeekFrom::Start(to_at)).is_err() {
        return by_hand(from, from_at, to, to_at, len);
    }
    while len > 0 {
        let step = usize::try_from(len.min(STEP)).unwrap_or(usize::MAX);
        match fs::sendfile(to, from, Some(&mut from_at), step) {
            Ok(0) => break,
            Ok(done) => {
                to_at += done as u64;
                len -= (done as u64).min(len);
            }
            Err(Errno::INTR) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => break,
            Err(errno) => return Err(Error::call("sendfile", OsStr::new("<fd>"), errno)),
        }
    }
    by_hand(from, from_at, to, to_at, len)
}

fn by_hand(from: BorrowedFd<'_>, mut from_at: u64, to: BorrowedFd<'_>, mut to_at: u64, mut len: u64) -> Result<()> {
    let mut buffer = vec![0u8; usize::try_from(len).unwrap_or(BUFFER).min(BUFFER)];
    while len > 0 {
        let want = buffer.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        let got = match rustix::io::pread(from, &mut buffer[..want], from_at) {
            Ok(0) => break,
            Ok(got) => got,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(Error::call("pread", OsStr::new("<fd>"), errno)),
        };
        write_all(to, &buffer[..got], to_at)?;
        from_at += got as u64;
        to_at += got as u64;
        len -= got as u64;
    }
    Ok(())
}

/// `pwrite` until everything is written.
pub(crate) fn write_all(fd: BorrowedFd<'_>, mut data: &[u8], mut at: u64) -> Result<()> {
    while !data.is_empty() {
        match rustix::io::pwrite(fd, data, at) {
            Ok(0) => return Err(Error::call("pwrite", OsStr::new("<fd>"), Errno::IO)),
            Ok(done) => {
                data = &data[done..];
                at += done as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::call("pwrite", OsStr::new("<fd>"), errno)),
        }
    }
    Ok(())
}
