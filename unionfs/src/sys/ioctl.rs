//! ioctls and system calls that rustix has no safe form of.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::error::{Error, Result};

fn last(call: &'static str) -> Error {
    let errno = std::io::Error::last_os_error();
    Error::call(call, OsStr::new("<fd>"), Errno::from_io_error(&errno).unwrap_or(Errno::IO))
}

/// `FS_IOC_GETFLAGS`.
pub(crate) fn get_flags(fd: BorrowedFd<'_>) -> Result<u32> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the kernel writes one int (whatever the request's number says) to a live int.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) } < 0 {
        return Err(last("ioctl(FS_IOC_GETFLAGS)"));
    }
    Ok(flags.cast_unsigned())
}

/// `FS_IOC_SETFLAGS`.
pub(crate) fn set_flags(fd: BorrowedFd<'_>, flags: u32) -> Result<()> {
    let flags: libc::c_int = flags.cast_signed();
    // SAFETY: the kernel reads one int from a live int.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) } < 0 {
        return Err(last("ioctl(FS_IOC_SETFLAGS)"));
    }
    Ok(())
}

/// `FS_IOC_GETVERSION`.
pub(crate) fn get_version(fd: BorrowedFd<'_>) -> Result<u32> {
    let mut version: libc::c_long = 0;
    // SAFETY: the kernel writes at most one long to a live long.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETVERSION, &raw mut version) } < 0 {
        return Err(last("ioctl(FS_IOC_GETVERSION)"));
    }
    Ok(u32::try_from(version & 0xffff_ffff).unwrap_or_default())
}

/// `struct fsxattr`: flags, extent size hints and project of a file.
pub(crate) type FsXattr = [u8; 28];

/// `FS_IOC_FSGETXATTR`, `_IOR('X', 31, struct fsxattr)`.
pub(crate) const FSGETXATTR: u32 = (2 << 30) | (28 << 16) | (0x58 << 8) | 31;
/// `FS_IOC_FSSETXATTR`, `_IOW('X', 32, struct fsxattr)`.
pub(crate) const FSSETXATTR: u32 = (1 << 30) | (28 << 16) | (0x58 << 8) | 32;

/// `FS_IOC_FSGETXATTR`.
pub(crate) fn get_fsxattr(fd: BorrowedFd<'_>) -> Result<FsXattr> {
    let mut value: FsXattr = [0; 28];
    // SAFETY: the kernel writes a struct fsxattr, 28 bytes by the request's number, to 28 live bytes.
    if unsafe { libc::ioctl(fd.as_raw_fd(), FSGETXATTR as _, value.as_mut_ptr()) } < 0 {
        return Err(last("ioctl(FS_IOC_FSGETXATTR)"));
    }
    Ok(value)
}

/// `FS_IOC_FSSETXATTR`.
pub(crate) fn set_fsxattr(fd: BorrowedFd<'_>, value: &FsXattr) -> Result<()> {
    // SAFETY: the kernel reads a struct fsxattr, 28 bytes by the request's number, from 28 live bytes.
    if unsafe { libc::ioctl(fd.as_raw_fd(), FSSETXATTR as _, value.as_ptr()) } < 0 {
        return Err(last("ioctl(FS_IOC_FSSETXATTR)"));
    }
    Ok(())
}

/// The filesystem's UUID (`FS_IOC_GETFSUUID`, Linux 6.9).
pub(crate) fn fs_uuid(fd: BorrowedFd<'_>) -> Option<[u8; 16]> {
    #[repr(C)]
    struct FsUuid2 {
        len: u8,
        uuid: [u8; 16],
    }
    // _IOR(0x15, 0, struct fsuuid2)
    const FS_IOC_GETFSUUID: libc::c_ulong = (2 << 30) | (17 << 16) | (0x15 << 8);
    let mut out = FsUuid2 { len: 0, uuid: [0; 16] };
    // SAFETY: the kernel writes a struct fsuuid2, which `out` is, and nothing beyond.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_GETFSUUID as _, &raw mut out) };
    (done == 0 && out.len == 16).then_some(out.uuid)
}

/// Makes a detached mount read-only and without access times.
pub(crate) fn make_read_only(mount: BorrowedFd<'_>) -> Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    const MOUNT_ATTR_RDONLY: u64 = 1;
    const MOUNT_ATTR_NOATIME: u64 = 0x10;
    const MOUNT_ATTR_ATIME: u64 = 0x70;
    let attr = MountAttr {
        set: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOATIME,
        clear: MOUNT_ATTR_ATIME,
        propagation: 0,
        userns_fd: 0,
    };
    let set = |attr: &MountAttr| {
        // SAFETY: the path is a static NUL-terminated string, `attr` a live struct mount_attr of the size given.
        unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                mount.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                std::ptr::from_ref(attr),
                size_of::<MountAttr>(),
            )
        }
    };
    if set(&attr) == 0 {
        return Ok(());
    }
    // In a user namespace the access-time setting of a mount may be locked.
    if set(&MountAttr { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns_fd: 0 }) == 0 {
        return Ok(());
    }
    Err(last("mount_setattr"))
}

/// `fallocate` with a raw mode.
pub(crate) fn fallocate(fd: BorrowedFd<'_>, mode: i32, offset: u64, len: u64) -> Result<()> {
    let mode = rustix::fs::FallocateFlags::from_bits_retain(mode.cast_unsigned());
    rustix::fs::fallocate(fd, mode, offset, len).map_err(|errno| Error::call("fallocate", OsStr::new("<fd>"), errno))
}
