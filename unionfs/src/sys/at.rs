//! `*at` system calls on a directory descriptor and one name.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags, Timestamps};
use rustix::io::Errno;

use super::fchmodat2;
use crate::error::{Error, Result};

pub(crate) use rustix::fs::Stat;

/// `lstat` relative to `dir`; `None` when the name does not exist.
pub(crate) fn stat_opt(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Stat>> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::call("fstatat", name, errno)),
    }
}

/// `lstat` relative to `dir`.
pub(crate) fn stat(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Stat> {
    fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
        .map_err(|errno| Error::call("fstatat", name, errno))
}

/// `fstat`; works on `O_PATH` descriptors.
pub(crate) fn fstat(fd: BorrowedFd<'_>) -> Result<Stat> {
    fs::fstat(fd).map_err(|errno| Error::call("fstat", OsStr::new("<fd>"), errno))
}

/// Whether names can move between two directories: same filesystem, same mount.
pub(crate) fn same_mount(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> Result<bool> {
    use rustix::fs::StatxFlags;
    let mount = |fd| {
        let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
        let x = fs::statx(fd, c"", flags, StatxFlags::MNT_ID)
            .map_err(|errno| Error::call("statx", OsStr::new("<fd>"), errno))?;
        // Linux before 5.8 leaves the mount at 0.
        Ok::<_, Error>((x.stx_dev_major, x.stx_dev_minor, x.stx_mnt_id))
    };
    Ok(mount(a)? == mount(b)?)
}

/// Opens `name` itself, never what a symlink points to.
pub(crate) fn open(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> Result<OwnedFd> {
    fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::call("openat", name, errno))
}

/// A directory as the base of further calls (`O_PATH`).
pub(crate) fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    open(dir, name, OFlags::PATH | OFlags::DIRECTORY)
}

/// An object as such (`O_PATH`), whatever its type.
pub(crate) fn open_path(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    open(dir, name, OFlags::PATH)
}

/// Opens again what `fd` refers to, with other flags.
pub(crate) fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd> {
    let path = proc_path(fd);
    fs::open(path.as_str(), flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::call("open", OsStr::new(path.as_str()), errno))
}

/// The magic link of an own descriptor.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// `open(O_CREAT | O_EXCL)`.
pub(crate) fn create(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlags, mode: u32) -> Result<OwnedFd> {
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::from_raw_mode(mode)).map_err(|errno| Error::call("openat", name, errno))
}

/// Has reads of an open file leave its access time alone, where that is permitted.
pub(crate) fn set_noatime(fd: BorrowedFd<'_>) {
    // Of the flags that can be set no other was.
    if let Err(errno) = fs::fcntl_setfl(fd, OFlags::NOATIME) {
        tracing::debug!(%errno, "O_NOATIME");
    }
}

/// A nameless file beside `dir`'s entries; `None` where the filesystem has none.
pub(crate) fn tmpfile(dir: BorrowedFd<'_>, mode: u32) -> Result<Option<OwnedFd>> {
    match fs::openat(dir, c".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(mode)) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(errno) => Err(Error::call("open(O_TMPFILE)", OsStr::new("."), errno)),
    }
}

/// Gives a nameless or `O_PATH` object a name.
pub(crate) fn link_fd(fd: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    match fs::linkat(fd, c"", dir, name, AtFlags::EMPTY_PATH) {
        // Not for everybody, and not before Linux 6.10 for those who opened it.
        Err(Errno::NOENT | Errno::PERM) => {
            fs::linkat(fs::CWD, proc_path(fd).as_str(), dir, name, AtFlags::SYMLINK_FOLLOW)
        }
        other => other,
    }
    .map_err(|errno| Error::call("linkat", name, errno))
}

/// `link`, of the object itself.
pub(crate) fn link(from: BorrowedFd<'_>, from_name: &OsStr, to: BorrowedFd<'_>, to_name: &OsStr) -> Result<()> {
    fs::linkat(from, from_name, to, to_name, AtFlags::empty()).map_err(|errno| Error::call("linkat", to_name, errno))
}

/// `mknod` with a full mode (type and permissions).
pub(crate) fn mknod(dir: BorrowedFd<'_>, name: &OsStr, mode: u32, rdev: u64) -> Result<()> {
    fs::mknodat(dir, name, fs::FileType::from_raw_mode(mode), Mode::from_raw_mode(mode & 0o7777), rdev)
        .map_err(|errno| Error::call("mknodat", name, errno))
}

/// `mkdir`.
pub(crate) fn mkdir(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<()> {
    fs::mkdirat(dir, name, Mode::from_raw_mode(mode)).map_err(|errno| Error::call("mkdirat", name, errno))
}

/// `symlink`.
pub(crate) fn symlink(target: &OsStr, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    fs::symlinkat(target, dir, name).map_err(|errno| Error::call("symlinkat", name, errno))
}

/// The target of a symlink.
pub(crate) fn readlink(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<u8>> {
    fs::readlinkat(dir, name, Vec::new())
        .map(|target| target.into_bytes())
        .map_err(|errno| Error::call("readlinkat", name, errno))
}

/// Removes a name that is no directory.
pub(crate) fn unlink(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    fs::unlinkat(dir, name, AtFlags::empty()).map_err(|errno| Error::call("unlinkat", name, errno))
}

/// Removes an empty directory.
pub(crate) fn rmdir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(|errno| Error::call("rmdir", name, errno))
}

/// `renameat2`.
pub(crate) fn rename(
    from: BorrowedFd<'_>,
    from_name: &OsStr,
    to: BorrowedFd<'_>,
    to_name: &OsStr,
    flags: RenameFlags,
) -> Result<()> {
    let done = if flags.is_empty() {
        fs::renameat(from, from_name, to, to_name)
    } else {
        fs::renameat_with(from, from_name, to, to_name, flags)
    };
    done.map_err(|errno| Error::call("renameat2", to_name, errno))
}

/// Permission bits of an object that is no symlink.
pub(crate) fn chmod(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<()> {
    if *fchmodat2::IS_THERE {
        return fchmodat2::fchmodat2(dir, name, mode).map_err(|errno| Error::call("fchmodat2", name, errno));
    }
    // Through a descriptor of the object.
    let object = open_path(dir, name)?;
    fchmod_path(object.as_fd(), mode)
}

/// Permission bits of an open file.
pub(crate) fn fchmod(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    fs::fchmod(fd, Mode::from_raw_mode(mode)).map_err(|errno| Error::call("fchmod", OsStr::new("<fd>"), errno))
}

/// Permission bits of what an `O_PATH` descriptor refers to.
pub(crate) fn fchmod_path(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    let path = proc_path(fd);
    fs::chmod(path.as_str(), Mode::from_raw_mode(mode))
        .map_err(|errno| Error::call("chmod", OsStr::new(path.as_str()), errno))
}

/// Owner and group; `None` leaves one as it is.
pub(crate) fn chown(dir: BorrowedFd<'_>, name: &OsStr, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    fs::chownat(dir, name, uid.map(user), gid.map(group), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| Error::call("fchownat", name, errno))
}

/// Owner and group of what a descriptor (also `O_PATH`) refers to.
pub(crate) fn fchown_path(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    fs::chownat(fd, c"", uid.map(user), gid.map(group), AtFlags::EMPTY_PATH)
        .map_err(|errno| Error::call("fchownat", OsStr::new("<fd>"), errno))
}

fn user(id: u32) -> fs::Uid {
    fs::Uid::from_raw(id)
}

fn group(id: u32) -> fs::Gid {
    fs::Gid::from_raw(id)
}

/// Access and modification time of the object itself.
pub(crate) fn utimens(dir: BorrowedFd<'_>, name: &OsStr, times: &Timestamps) -> Result<()> {
    fs::utimensat(dir, name, times, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| Error::call("utimensat", name, errno))
}

/// Sets the times of an open file.
pub(crate) fn futimens(fd: BorrowedFd<'_>, times: &Timestamps) -> Result<()> {
    fs::futimens(fd, times).map_err(|errno| Error::call("futimens", OsStr::new("<fd>"), errno))
}

/// Access and modification time of what an `O_PATH` descriptor refers to.
pub(crate) fn futimens_path(fd: BorrowedFd<'_>, times: &Timestamps) -> Result<()> {
    let path = proc_path(fd);
    fs::utimensat(fs::CWD, path.as_str(), times, AtFlags::empty())
        .map_err(|errno| Error::call("utimensat", OsStr::new(path.as_str()), errno))
}

/// Calls `each` with every entry but `.` and `..`: name, inode number, type as
/// far as the filesystem tells it.
pub(crate) fn list(dir: BorrowedFd<'_>, mut each: impl FnMut(&OsStr, u64, fs::FileType) -> Result<()>) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let real = open(dir, OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut entries = fs::RawDir::new(real, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|errno| Error::call("getdents", OsStr::new("."), errno))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            each(name, entry.ino(), entry.file_type())?;
        }
    }
    Ok(())
}

/// Writes an object's data and attributes to disk.
pub(crate) fn fsync(fd: BorrowedFd<'_>, data_only: bool) -> Result<()> {
    let done = if data_only { fs::fdatasync(fd) } else { fs::fsync(fd) };
    done.map_err(|errno| Error::call("fsync", OsStr::new("<fd>"), errno))
}

/// `ftruncate`.
pub(crate) fn truncate(fd: BorrowedFd<'_>, size: u64) -> Result<()> {
    fs::ftruncate(fd, size).map_err(|errno| Error::call("ftruncate", OsStr::new("<fd>"), errno))
}

/// An advisory lock on a directory that lasts as long as `fd`; `false` when
/// somebody else holds it.
pub(crate) fn try_lock(fd: BorrowedFd<'_>) -> Result<bool> {
    match fs::flock(fd, fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(Error::call("flock", OsStr::new("<fd>"), errno)),
    }
}

/// A private clone of the mount that `dir` is on, rooted there and without the
/// mounts below it, read-only and without access times. `None` where the
/// process may not make one.
pub(crate) fn private_clone(dir: BorrowedFd<'_>) -> Option<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(dir, c"", flags).ok()?;
    super::ioctl::make_read_only(clone.as_fd()).ok()?;
    Some(clone)
}
