//! Attributes: getattr, setattr, statfs.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FileType, StatVfs, Timespec, Timestamps};
use rustix::io::Errno;

use crate::backing::Backing;
use crate::error::{Refusal, Result};
use crate::inode::{Body, Inode, UpperDir, UpperFile};
use crate::ownership;
use crate::sys::at::{self, Stat};
use crate::sys::xattr::{self, Target};
use crate::union::UnionFs;

/// The attributes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Device of the backing object.
    pub dev: u64,
    /// Inode number: of the backing object in a layer, of the union when shown.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Link count.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// 512-byte blocks.
    pub blocks: u64,
    /// Preferred size of I/O, bytes.
    pub blksize: u32,
    /// Access time, seconds and nanoseconds since the epoch.
    pub atime: (i64, u32),
    /// Modification time.
    pub mtime: (i64, u32),
    /// Change time.
    pub ctime: (i64, u32),
}

impl Attr {
    /// Type bits (`S_IFMT`).
    pub fn format(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.format() == libc::S_IFDIR
    }
}

impl From<&Stat> for Attr {
    fn from(stat: &Stat) -> Self {
        let nanos = |nsec| u32::try_from(nsec).unwrap_or_default();
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            mode: stat.st_mode,
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: stat.st_rdev,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            blocks: u64::try_from(stat.st_blocks).unwrap_or_default(),
            blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
            atime: (stat.st_atime, nanos(stat.st_atime_nsec)),
            mtime: (stat.st_mtime, nanos(stat.st_mtime_nsec)),
            ctime: (stat.st_ctime, nanos(stat.st_ctime_nsec)),
        }
    }
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetTime {
    Now,
    At(i64, u32),
}

/// The attributes to change; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SetAttr {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<SetTime>,
    pub(crate) mtime: Option<SetTime>,
}

impl UnionFs {
    /// An object's attributes as the mount shows them.
    pub(crate) fn getattr(&self, inode: &Arc<Inode>) -> Result<Attr> {
        let attr = self.disk_attr(inode)?;
        Ok(self.shown(inode, attr))
    }

    /// Attributes from disk, overrides applied, owners and number not yet mapped.
    pub(crate) fn disk_attr(&self, inode: &Arc<Inode>) -> Result<Attr> {
        let mut attr = self.with_backing(inode, |backing| backing.attr())?;
        let data = match &inode.state.read().body {
            Body::File(file) if file.upper().is_some() => file.data_below().cloned(),
            Body::File(file) => file.data().cloned(),
            Body::Dir(_) => None,
        };
        if let Some(lower) = data {
            let below = self.layer(lower.layer).attr(&lower.dir, &lower.name)?;
            attr.size = below.size;
            attr.blocks = below.blocks;
        }
        self.union_nlink(inode, &mut attr)?;
        Ok(attr)
    }

    /// The link count that the union has, where it is not the backing object's.
    fn union_nlink(&self, inode: &Arc<Inode>, attr: &mut Attr) -> Result<()> {
        let indexed = {
            let state = inode.state.read();
            match &state.body {
                Body::Dir(dir) => {
                    attr.nlink = match &dir.upper {
                        UpperDir::Removed(_) => 0,
                        _ if self.settings.static_nlink => 1,
                        UpperDir::Named if dir.lowers.is_empty() => attr.nlink,
                        UpperDir::Absent if dir.lowers.len() == 1 => attr.nlink,
                        _ => 1,
                    };
                    return Ok(());
                }
                Body::File(file) => match file.upper() {
                    Some(UpperFile::Indexed(_)) => true,
                    Some(UpperFile::Nameless(fd)) => {
                        attr.nlink = u32::try_from(at::fstat(fd.as_fd())?.st_nlink).unwrap_or(u32::MAX);
                        false
                    }
                    Some(UpperFile::Named) => false,
                    None => {
                        // Counted once: a removed name is among the hidden ones as soon as it is whited out.
                        if state.link.is_none() && self.hidden_names(inode.ino).is_none() {
                            attr.nlink = attr.nlink.saturating_sub(1);
                        }
                        false
                    }
                },
            }
        };
        if indexed {
            attr.nlink = self.indexed_nlink(inode, attr.nlink)?;
        } else if let Some(gone) = self.hidden_names(inode.ino) {
            attr.nlink = attr.nlink.saturating_sub(gone);
        }
        Ok(())
    }

    /// Replaces number and owners by those that the mount shows.
    pub(crate) fn shown(&self, inode: &Inode, mut attr: Attr) -> Attr {
        attr.ino = inode.ino;
        self.owners.show(&mut attr);
        attr
    }

    /// How long the kernel may keep attributes that [`Self::shown`] gave. Not at all, where it has them under two nodeids:
    /// what changes them under one is not told to the other.
    pub(crate) fn attr_ttl(&self, attr: &Attr) -> &Duration {
        if self.inodes.nodeids.second(attr.ino).is_some() { &Duration::ZERO } else { &self.settings.ttl }
    }

    /// Changes attributes and returns the new ones.
    pub(crate) fn setattr(&self, inode: &Arc<Inode>, change: &SetAttr) -> Result<Attr> {
        self.check_writable()?;
        if let Some(size) = change.size {
            self.truncate(inode, size)?;
        }
        let uid = change.uid.map(|uid| self.owners.disk_uid(uid)).transpose()?;
        let gid = change.gid.map(|gid| self.owners.disk_gid(gid)).transpose()?;
        if change.mode.is_some() || uid.is_some() || gid.is_some() || change.atime.is_some() || change.mtime.is_some() {
            self.change(inode, |backing| self.apply(backing, change, uid, gid))?;
        }
        self.getattr(inode)
    }

    /// Takes away the bits that a change of content by others than root takes away. True if there were any.
    pub(crate) fn drop_setid(&self, inode: &Arc<Inode>) -> Result<bool> {
        let mode = self.disk_attr(inode)?.mode;
        let now = without_setid(mode);
        if now != mode {
            self.setattr(inode, &SetAttr { mode: Some(now & 0o7777), ..SetAttr::default() })?;
        }
        Ok(now != mode)
    }

    fn apply(&self, backing: &Backing<'_>, change: &SetAttr, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        if let Some(key) = self.owners.override_key() {
            if change.mode.is_some() || uid.is_some() || gid.is_some() {
                let mut attr = backing.attr()?;
                attr.uid = uid.unwrap_or(attr.uid);
                attr.gid = gid.unwrap_or(attr.gid);
                if let Some(mode) = change.mode {
                    attr.mode = attr.format() | (mode & 0o7777);
                } else if attr.format() == libc::S_IFREG {
                    // As the filesystem does it where owners are its own.
                    attr.mode = without_setid(attr.mode);
                }
                if attr.format() == libc::S_IFLNK {
                    as_far_as_possible(backing.chown(uid, gid))?;
                } else {
                    set_override(backing.target()?, key, &attr)?;
                }
            }
        } else {
            // chown before chmod: chown clears set-user-id bits that the mode may set.
            if uid.is_some() || gid.is_some() {
                backing.chown(uid, gid)?;
            }
            if let Some(mode) = change.mode {
                backing.chmod(mode & 0o7777)?;
            }
        }
        if change.atime.is_some() || change.mtime.is_some() {
            backing.utimens(&Timestamps {
                last_access: timespec(change.atime),
                last_modification: timespec(change.mtime),
            })?;
        }
        Ok(())
    }

    /// Size and use of the filesystem that changes go to.
    pub(crate) fn statfs(&self) -> Result<StatVfs> {
        let mut statfs = match &self.upper {
            Some(upper) => rustix::fs::fstatvfs(&upper.root)
                .map_err(|errno| crate::Error::call("fstatvfs", OsStr::new("/"), errno))?,
            None => self.layer(0).statfs()?,
        };
        statfs.f_namemax = statfs.f_namemax.min(self.settings.name_max as u64);
        Ok(statfs)
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.upper.is_some() && !self.settings.read_only { Ok(()) } else { Err(Refusal::ReadOnly.into()) }
    }
}

/// The mode that a file has after a change of its content or owner: a set-group-id bit without group execute gives
/// nobody anything and stays.
fn without_setid(mode: u32) -> u32 {
    let gone = if mode & libc::S_IXGRP == 0 { libc::S_ISUID } else { libc::S_ISUID | libc::S_ISGID };
    mode & !gone
}

/// A symlink holds no override xattr: its owner is the disk's, where that takes it, and stays what it is where not. A
/// program that unpacks an archive must not fail over it. Where one owner is shown for all, that of the disk matters as little.
pub(crate) fn as_far_as_possible(chowned: Result<()>) -> Result<()> {
    match chowned {
        Err(error) if matches!(error.errno(), Errno::PERM | Errno::INVAL | Errno::OVERFLOW) => {
            tracing::debug!(%error, "an owner that the disk does not take");
            Ok(())
        }
        other => other,
    }
}

/// Records owner, mode and type in the override xattr.
pub(crate) fn set_override(target: Target<'_>, key: &str, attr: &Attr) -> Result<()> {
    xattr::set(target, OsStr::new(key), ownership::format_override(attr).as_bytes(), 0)
}

fn timespec(time: Option<SetTime>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
        Some(SetTime::At(sec, nsec)) => Timespec { tv_sec: sec, tv_nsec: i64::from(nsec) },
    }
}

/// The time of a file's last change, to be given back to it.
pub(crate) fn modified_at(stat: &at::Stat) -> Timestamps {
    Timestamps {
        last_access: timespec(None),
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() },
    }
}

/// The times of a file whose content changes.
pub(crate) fn modified_now() -> Timestamps {
    Timestamps { last_access: timespec(None), last_modification: timespec(Some(SetTime::Now)) }
}

/// The times of an object, to be given to another.
pub(crate) fn times_of(attr: &Attr) -> Timestamps {
    Timestamps {
        last_access: timespec(Some(SetTime::At(attr.atime.0, attr.atime.1))),
        last_modification: timespec(Some(SetTime::At(attr.mtime.0, attr.mtime.1))),
    }
}
