//! Operations on the mount.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
        XattrFlags, chmod, chownat, copy_file_range, fallocate, fchmod, fsync, ftruncate, linkat, lremovexattr,
        lsetxattr, mkdir, mknodat, open, renameat_with, rmdir, symlink, unlink, utimensat,
    },
    io::{Errno, pread, pwrite},
};

use super::{
    case::{FallocateHow, Op, OpenHow, RenameHow, SLOTS, XattrHow},
    world::Reply,
};

/// The mount and the files open on it.
pub struct Exec {
    pub root: PathBuf,
    pub slots: [Option<OwnedFd>; SLOTS],
}

impl Exec {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), slots: [const { None }; SLOTS] }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Plays everything but remounts.
    pub fn apply(&mut self, op: &Op) -> Result<Reply, Errno> {
        let p = |path: &str| self.root.join(path);
        match op {
            Op::Create { path, mode, excl, trunc, data } => {
                let mut flags = OFlags::CREATE | OFlags::WRONLY;
                flags.set(OFlags::EXCL, *excl);
                flags.set(OFlags::TRUNC, *trunc);
                write_all(&self.open(path, flags, *mode)?, 0, &data.bytes())?;
            }
            Op::Mkdir { path, mode } => mkdir(p(path), Mode::from_raw_mode(*mode))?,
            Op::Mkfifo { path, mode } => mknodat(CWD, p(path), FileType::Fifo, Mode::from_raw_mode(*mode), 0)?,
            Op::Symlink { path, target } => symlink(target, p(path))?,
            Op::Link { old, new } => linkat(CWD, p(old), CWD, p(new), AtFlags::empty())?,
            Op::Unlink { path } => unlink(p(path))?,
            Op::Rmdir { path } => rmdir(p(path))?,
            Op::Rename { old, new, how } => {
                let flags = match how {
                    RenameHow::Plain => RenameFlags::empty(),
                    RenameHow::NoReplace => RenameFlags::NOREPLACE,
                    RenameHow::Exchange => RenameFlags::EXCHANGE,
                };
                renameat_with(CWD, p(old), CWD, p(new), flags)?;
            }
            Op::Write { path, at, data } => write_all(&self.open(path, OFlags::WRONLY, 0)?, *at, &data.bytes())?,
            Op::Append { path, data } => {
                write_all(&self.open(path, OFlags::WRONLY | OFlags::APPEND, 0)?, 0, &data.bytes())?;
            }
            Op::Truncate { path, len } => {
                nix::unistd::truncate(&p(path), len.cast_signed()).map_err(|e| Errno::from_raw_os_error(e as i32))?
            }
            Op::Chmod { path, mode } => chmod(p(path), Mode::from_raw_mode(*mode))?,
            Op::Chown { path, uid, gid } => {
                let (uid, gid) = (Uid::from_raw(*uid), gid.map(Gid::from_raw));
                chownat(CWD, p(path), Some(uid), gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Op::Utimens { path, secs, nanos } => {
                let times = Timestamps {
                    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                    last_modification: Timespec { tv_sec: *secs, tv_nsec: (*nanos).into() },
                };
                utimensat(CWD, p(path), &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Op::SetXattr { path, name, value, how } => {
                let flags = match how {
                    XattrHow::Any => XattrFlags::empty(),
                    XattrHow::Create => XattrFlags::CREATE,
                    XattrHow::Replace => XattrFlags::REPLACE,
                };
                lsetxattr(p(path), name, &value.bytes(), flags)?;
            }
            Op::RemoveXattr { path, name } => lremovexattr(p(path), name)?,
            Op::Readdir { path } => {
                let mut names = Vec::new();
                for entry in fs::read_dir(p(path)).map_err(errno)? {
                    names.push(entry.map_err(errno)?.file_name().to_string_lossy().into_owned());
                }
                names.sort();
                return Ok(Reply::Names(names));
            }
            Op::Open { slot, path, how } => {
                self.slots[*slot] = None;
                let flags = match how {
                    OpenHow::Read => OFlags::RDONLY,
                    OpenHow::Write => OFlags::WRONLY,
                    OpenHow::ReadWrite => OFlags::RDWR,
                    OpenHow::Append => OFlags::WRONLY | OFlags::APPEND,
                    OpenHow::Truncate => OFlags::RDWR | OFlags::TRUNC,
                    OpenHow::Create => OFlags::RDWR | OFlags::CREATE,
                };
                self.slots[*slot] = Some(self.open(path, flags, 0o644)?);
            }
            Op::HWrite { slot, at, data } => write_all(self.slot(*slot)?, *at, &data.bytes())?,
            Op::HRead { slot } => return Ok(Reply::Data(vec![read_all(self.slot(*slot)?)?])),
            Op::HTruncate { slot, len } => ftruncate(self.slot(*slot)?, *len)?,
            Op::HChmod { slot, mode } => fchmod(self.slot(*slot)?, Mode::from_raw_mode(*mode))?,
            Op::HFsync { slot } => fsync(self.slot(*slot)?)?,
            Op::HFallocate { slot, how, at, len } => {
                let flags = match how {
                    FallocateHow::Extend => FallocateFlags::empty(),
                    FallocateHow::KeepSize => FallocateFlags::KEEP_SIZE,
                    FallocateHow::PunchHole => FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE,
                };
                fallocate(self.slot(*slot)?, flags, *at, *len)?;
            }
            Op::HCopy { from, to, from_at, to_at, len } => {
                let (from, to) = (self.slot(*from)?, self.slot(*to)?);
                let (mut from_at, mut to_at, mut left) = (*from_at, *to_at, *len as usize);
                loop {
                    let n = copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), left)?;
                    left -= n;
                    if n == 0 || left == 0 {
                        break;
                    }
                }
            }
            Op::DropCaches => fs::write("/proc/sys/vm/drop_caches", "2").map_err(errno)?,
            Op::HClose { slot } => self.slots[*slot] = None,
            Op::Kill | Op::Kernel | Op::Remount | Op::PushDown => {}
        }
        Ok(Reply::Done)
    }

    /// O_NONBLOCK: should there be a fifo where the model has none, this fails instead of waiting.
    fn open(&self, path: &str, flags: OFlags, mode: u32) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
        open(self.root.join(path), flags, Mode::from_raw_mode(mode))
    }

    fn slot(&self, slot: usize) -> Result<&OwnedFd, Errno> {
        self.slots[slot].as_ref().ok_or(Errno::BADF)
    }
}

pub fn errno(e: std::io::Error) -> Errno {
    Errno::from_io_error(&e).unwrap_or(Errno::IO)
}

fn write_all(fd: &OwnedFd, mut at: u64, mut data: &[u8]) -> Result<(), Errno> {
    // Also when there is nothing to write: a handle for reading refuses it.
    loop {
        let n = pwrite(fd, data, at)?;
        data = &data[n..];
        at += n as u64;
        if data.is_empty() {
            return Ok(());
        }
    }
}

pub fn read_all(fd: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    let mut buf = vec![0; 1 << 16];
    loop {
        match pread(fd, &mut buf[..], out.len() as u64)? {
            0 => return Ok(out),
            n => out.extend_from_slice(&buf[..n]),
        }
    }
}
