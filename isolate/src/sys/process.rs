//! Processes: cloning, waiting, what a child inherits.

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

/// The result of a raw system call.
pub(super) fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 { Err(last_error()) } else { Ok(result) }
}

fn last_error() -> Errno {
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Errno::from_raw_os_error(errno)
}

/// Of clone3(2), Linux 5.7; the C library's own does not fit its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which process returns from [`clone`].
#[derive(Debug)]
pub(crate) enum Cloned {
    /// The caller, with the new process's id in its own pid namespace.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Makes a process, in new namespaces as `flags` (`CLONE_NEW*`) say, and in a control group of version 2 if one is
/// given. With `sibling` it is a child of the caller's parent.
///
/// # Safety
/// The child has one thread, and copies of locks that other threads may hold:
/// it must neither allocate, free, nor take any lock, and must end by exec or
/// [`exit`].
pub(crate) unsafe fn clone(flags: u64, group: Option<BorrowedFd<'_>>, sibling: bool) -> Result<Cloned, Errno> {
    // SAFETY: all zeros is a valid clone_args, which asks for a fork.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    if let Some(group) = group {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = group.as_raw_fd().unsigned_abs().into();
    }
    if sibling {
        // The signal is then the caller's own, and must not be named.
        arguments.flags |= u64::from(libc::CLONE_PARENT.unsigned_abs());
    } else {
        arguments.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    }
    // SAFETY: without CLONE_VM and without a stack the child runs on a copy of
    // everything, as after fork; what it may do is the caller's promise.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) })?;
    match i32::try_from(pid).ok().and_then(Pid::from_raw) {
        Some(pid) => Ok(Cloned::Parent(pid)),
        None => Ok(Cloned::Child),
    }
}

/// [`clone`] for [`crate::child`], whose code keeps the promise.
pub(crate) fn start(flags: u64, group: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    // SAFETY: the callers hand the child to `child::run`, `child::join`, `exec::fetch`, `idle` or `Hook::become_program`,
    // which never return, and neither allocate nor lock.
    unsafe { clone(flags, group, false) }
}

/// [`clone`] in a process that was cloned itself, with that one's parent for a parent.
pub(crate) fn clone_sibling(flags: u64) -> Result<Cloned, Errno> {
    // SAFETY: as in `fork_in_child`.
    unsafe { clone(flags, None, true) }
}

/// Forks in a process that was cloned and has one thread, to which the promise of [`clone`] goes on to apply. It is
/// done by clone(2), which filters let through where they refuse clone3.
pub(crate) fn fork_in_child() -> Result<Cloned, Errno> {
    // SAFETY: no memory is shared and no stack given: the child runs on a copy of everything, as after fork. The
    // caller is itself a child of `clone`, whose code neither allocates nor locks.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) })?;
    Ok(i32::try_from(pid).ok().and_then(Pid::from_raw).map_or(Cloned::Child, Cloned::Parent))
}

/// Ends the process at once: nothing is flushed, freed or run.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit runs no code of this process.
    unsafe { libc::_exit(code) }
}

/// Does nothing until it is killed, at the latest with its parent: for the sake of the namespaces that it is in.
pub(crate) fn idle(parent: Pid) -> ! {
    if die_with_parent().is_err() || rustix::process::getppid() != Some(parent) {
        exit(125);
    }
    loop {
        // SAFETY: pause takes nothing and returns after a signal.
        unsafe { libc::pause() };
    }
}

/// Ends the process if a panic tries to leave a child's code.
pub(crate) struct NoReturn;

impl Drop for NoReturn {
    fn drop(&mut self) {
        exit(125);
    }
}

/// New namespaces for the calling thread, which is its process's only one.
pub(crate) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: no flag that is used here unshares file descriptors.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Gives every signal its default action and lets all in.
pub(crate) fn reset_signals() -> Result<(), Errno> {
    // SAFETY: zeros are a valid sigaction: the default action, no flags.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    for signal in 1..=64 {
        // KILL, STOP and the C library's own two are refused, which is as well.
        // SAFETY: the pointer is to a valid sigaction that lives through the call.
        unsafe { libc::sigaction(signal, &raw const default, std::ptr::null_mut()) };
    }
    // SAFETY: zeros are the empty set of signals.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a valid set that lives through the call.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) }.into()).map(drop)
}

/// The first descriptor after the standard streams.
const FIRST: libc::c_uint = 3;

/// Marks every descriptor above the standard streams, and above so many after them, to be closed on exec.
pub(crate) fn close_on_exec_after(preserved: u32) -> Result<(), Errno> {
    let first = FIRST.saturating_add(preserved);
    // SAFETY: no descriptor is closed here and now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Closes every descriptor above the standard streams, whoever owns it: only for a process that is going to [`exit`].
pub(crate) fn close_all() {
    // SAFETY: the owners of the descriptors are never run again in this process.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
}

/// The same but for a few, and for so many after the standard streams: only in a process that uses no other any more.
pub(crate) fn close_others<const N: usize>(kept: [BorrowedFd<'_>; N], preserved: u32) -> Result<(), Errno> {
    let mut kept = kept.map(|fd| fd.as_raw_fd().unsigned_abs());
    kept.sort_unstable();
    let mut from = FIRST.saturating_add(preserved);
    let close = |from: libc::c_uint, to: libc::c_uint| {
        if from > to {
            return Ok(());
        }
        // SAFETY: the owners of the descriptors are never run again in this process.
        check(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) }).map(drop)
    };
    for fd in kept {
        close(from, fd.saturating_sub(1))?;
        from = from.max(fd.saturating_add(1));
    }
    close(from, libc::c_uint::MAX)
}

/// Makes this process one that only who may trace everything on the host can trace or look into, until it executes a
/// program.
pub(crate) fn hide() -> Result<(), Errno> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
}

/// Joins a new session keyring of this name, so that the caller's keys stay outside.
pub(crate) fn join_session_keyring(name: &CStr) -> Result<(), Errno> {
    // SAFETY: the name is a C string that lives through the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) }).map(drop)
}

/// Sets a limit of this process (setrlimit(2)).
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the pointers are to a limit that lives through the call, and null.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null_mut::<libc::rlimit64>())
    })
    .map(drop)
}

/// Sets the three sets of capset(2), as bits by number.
pub(crate) fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<(), Errno> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`
    const VERSION: u32 = 0x2008_0522;
    let header = Header { version: VERSION, pid: 0 };
    // Low halves of the three, then the high ones.
    let half = |set: u64, high: bool| if high { (set >> 32) as u32 } else { set as u32 };
    let mut data = [0_u32; 6];
    for (at, high) in [(0, false), (3, true)] {
        data[at] = half(effective, high);
        data[at + 1] = half(permitted, high);
        data[at + 2] = half(inheritable, high);
    }
    // SAFETY: header and data have the layout of this version, and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// prctl(2) with numbers alone.
fn prctl(option: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> Result<libc::c_int, Errno> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take numbers, no pointers.
    let result = unsafe { libc::prctl(option, a, b, zero, zero) };
    check(result.into())?;
    Ok(result)
}

/// Takes a capability out of the bounding set.
pub(crate) fn drop_bounding(number: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, number.into(), 0).map(drop)
}

/// Whether a capability is in the bounding set; `EINVAL` if the kernel does not know it.
pub(crate) fn has_bounding(number: u8) -> Result<bool, Errno> {
    Ok(prctl(libc::PR_CAPBSET_READ, number.into(), 0)? == 1)
}

/// Empties the ambient set.
pub(crate) fn clear_ambient() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0).map(drop)
}

/// Puts a capability into the ambient set.
pub(crate) fn raise_ambient(number: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, number.into()).map(drop)
}

/// The directory that the process works in, as the kernel names it; `(unreachable)…` if it is outside of the root.
pub(crate) fn current_dir(buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes no more than the buffer's length into it.
    let len = check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    Ok(usize::try_from(len).unwrap_or(0))
}

/// A descriptor for a process, by which it is signalled and waited for.
pub(crate) fn pidfd(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: two numbers, no pointers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw_nonzero().get(), 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made it for this caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Where the kernel keeps the words that this program was started with, which `/proc/PID/cmdline` shows to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    start: usize,
    len: usize,
}

impl CommandLine {
    /// This process's own; none if the kernel does not tell.
    pub(crate) fn find() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Fields 48 and 49 (proc_pid_stat(5)), of which the third is the first after the name.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(48 - 3).map(str::parse::<usize>);
        let (start, end) = (fields.next()?.ok()?, fields.next()?.ok()?);
        let len = end.checked_sub(start)?;
        (start != 0 && (1..=MAX_COMMAND_LINE).contains(&len)).then_some(Self { start, len })
    }

    /// Puts `name` in their place, in a process that was cloned and never asks for them.
    pub(crate) fn replace(self, name: &[u8]) {
        let name = name.get(..self.len.min(name.len())).unwrap_or_default();
        // SAFETY: the kernel has put the words there, into writable memory of this process's own stack, and says so
        // of this very program; the child has a copy of it, and the one who runs in it reads no arguments.
        unsafe {
            std::ptr::write_bytes(self.start as *mut u8, 0, self.len);
            std::ptr::copy_nonoverlapping(name.as_ptr(), self.start as *mut u8, name.len());
        }
    }
}

/// The longest that the kernel takes.
const MAX_COMMAND_LINE: usize = 8 * 1024 * 1024;

/// The namespace above one of pids (ioctl_ns(2)); an error if it cannot be seen from here.
pub(crate) fn parent_namespace(namespace: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    /// `_IO(0xb7, 0x2)`
    const NS_GET_PARENT: libc::Ioctl = 0xb702;
    // SAFETY: the request takes no argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT) };
    check(fd.into())?;
    // SAFETY: the kernel has just made it for this caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One ended child, without waiting: its id and its wait status.
pub(crate) fn reap() -> Result<Option<(i32, i32)>, Errno> {
    let mut status = 0;
    // SAFETY: the pointer is to a number that lives through the call.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }.into())?;
    Ok(i32::try_from(pid).ok().filter(|pid| *pid > 0).map(|pid| (pid, status)))
}

/// Sends any signal by its number, also a real-time one, to a process of this pid namespace.
pub(crate) fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: two numbers.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// Blocks all signals in this thread; an init asks for them one by one.
pub(crate) fn block_signals() -> Result<(), Errno> {
    // SAFETY: any bits are a valid set of signals, and sigfillset writes all of them.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a set that lives through the call.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: as above.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) }.into()).map(drop)
}

/// Waits for any blocked signal; its number.
pub(crate) fn next_signal() -> Result<i32, Errno> {
    // SAFETY: as in `block_signals`.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a set that lives through the call.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: the set lives through the call; nothing else is asked for.
    let signal = unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
    check(signal.into())?;
    Ok(signal)
}

/// The signal that a process gets when its parent ends.
pub(crate) fn die_with_parent() -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}

/// Lets a command's process die with the thread that starts it, and have nothing of this process's signals and
/// descriptors but the standard streams and the one that is kept, under its number.
pub(crate) fn bind_to_parent(command: &mut std::process::Command, kept: Option<BorrowedFd<'_>>) {
    use std::os::unix::process::CommandExt as _;
    let parent = rustix::process::getpid();
    let kept = kept.map(|fd| fd.as_raw_fd());
    let prepare = move || {
        die_with_parent()?;
        if rustix::process::getppid() != Some(parent) {
            // It died before that.
            exit(125);
        }
        reset_signals()?;
        close_on_exec_after(0)?;
        if let Some(fd) = kept {
            // SAFETY: numbers alone; if the descriptor is not there this fails.
            check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }.into())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec this neither allocates nor locks: it is system calls alone.
    unsafe { command.pre_exec(prepare) };
}
