//! Loading BPF: seccomp filters, and the device program of cgroup v2.

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::io::Errno;

use super::process::check;

pub(crate) use libc::sock_filter as Instruction;

/// Installs a seccomp filter in the calling thread.
pub(crate) fn load_filter(program: &[Instruction], flags: libc::c_ulong) -> Result<(), Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let argument = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which lives through the call and is not written.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const argument) })
        .map(drop)
}

/// One instruction of extended BPF (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extended {
    pub(crate) code: u8,
    /// The destination in the low half, the source in the high one.
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// The first members of `union bpf_attr` for a load.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// The members of `union bpf_attr` for an attachment.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_int, attribute: &T) -> Result<libc::c_long, Errno> {
    // SAFETY: the attribute has the layout of its command and lives, with what it points to, through the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<T>()) })
}

/// Loads a program that decides on devices.
pub(crate) fn load_device_program(program: &[Extended]) -> Result<OwnedFd, Errno> {
    let attribute = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
    };
    let fd = RawFd::try_from(bpf(PROG_LOAD, &attribute)?).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made it for this caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets a program decide on the devices of a group and of those below it.
pub(crate) fn attach_device_program(program: BorrowedFd<'_>, group: BorrowedFd<'_>) -> Result<(), Errno> {
    let attribute = Attach {
        target: group.as_raw_fd().unsigned_abs(),
        program: program.as_raw_fd().unsigned_abs(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &attribute).map(drop)
}
