//! What has no safe wrapper.

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus};

use memmap2::{Mmap, MmapMut};
use rustix::process::{Signal, set_parent_process_death_signal};

/// Makes a child end when this process does, however that comes about.
#[allow(unsafe_code, reason = "a signal that a child asks for has to be asked for in the child")]
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed. It makes one
    // system call, and allocates nothing: the error is an errno, which is converted without allocation.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}

/// Maps a file of the benchmark's own tree for reading.
#[allow(unsafe_code, reason = "a mapping is only as good as its file")]
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: nobody writes or cuts off the file while a workload runs: it lies in the tree that the benchmark made, or
    // in the fresh upper of its mount.
    unsafe { Mmap::map(file) }
}

/// Maps a new file of the benchmark's own for writing, shared with the file.
#[allow(unsafe_code, reason = "a mapping is only as good as its file")]
pub(crate) fn map_shared(file: &File) -> io::Result<MmapMut> {
    // SAFETY: the file was just made by the workload, in a mount that nobody else uses.
    unsafe { MmapMut::map_mut(file) }
}

/// Waits for a child; with its status comes the most memory that it, or a child that it waited for, held, in bytes.
#[allow(unsafe_code, reason = "what a child used is told by a call that has no wrapper")]
pub(crate) fn wait(child: &mut Child) -> io::Result<(ExitStatus, u64)> {
    let pid = child.id().cast_signed();
    let mut status = 0;
    // SAFETY: all of it are numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that live through the call, and the child is not waited for by anybody else:
    // it is borrowed, and stays a number that means nothing once it is gone.
    while unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let kibibytes = u64::try_from(usage.ru_maxrss).unwrap_or_default();
    Ok((ExitStatus::from_raw(status), kibibytes.saturating_mul(1024)))
}
