//! The identity under which a request makes new objects, per thread.
//!
//! A new object gets its owner, group and mode from the filesystem itself, in
//! one step, so that no moment exists in which it has the wrong ones: the thread
//! takes the caller's fsuid, fsgid and umask for the one call. Capabilities stay
//! (the kernel that asked has already checked permissions).

use std::cell::Cell;
use std::sync::LazyLock;

use rustix::fs::Mode;
use rustix::process::umask;
use rustix::thread::{CapabilitySets, UnshareFlags, capabilities, set_capabilities};

thread_local! {
    /// The umask of this thread, once the thread has one of its own.
    static UMASK: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Gives this thread a umask, working directory (`/`) and root of its own (once),
/// and sets the umask.
pub(crate) fn set_umask(mask: u32) {
    UMASK.with(|current| {
        if current.get().is_none() {
            // SAFETY: CLONE_FS separates what this thread alone goes on to use;
            // nothing else is shared through it.
            if unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.is_err() {
                tracing::warn!("unshare(CLONE_FS) refused: umask is shared between threads");
            } else if let Err(errno) = rustix::process::chdir("/") {
                // Wherever the process was just then, this thread would keep it from being unmounted.
                tracing::warn!(%errno, "chdir /");
            }
        }
        if current.get() != Some(mask) {
            umask(Mode::from_raw_mode(mask));
            current.set(Some(mask));
        }
    });
}

/// The process's own ids, which it never changes.
static OWN: LazyLock<(u32, u32)> =
    LazyLock::new(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));

/// While it lives, this thread makes files as `uid` and `gid`.
pub(crate) struct AsCaller {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl AsCaller {
    /// Takes the identity; ids that are the process's own cost nothing.
    pub(crate) fn new(uid: u32, gid: u32) -> Self {
        let (own_uid, own_gid) = *OWN;
        let mut guard = Self { uid: None, gid: None };
        if gid != own_gid {
            setfsgid(gid);
            guard.gid = Some(own_gid);
        }
        if uid != own_uid {
            let before = capabilities(None).ok();
            setfsuid(uid);
            guard.uid = Some(own_uid);
            if let Some(sets) = before {
                restore(sets);
            }
        }
        guard
    }
}

/// Leaving uid 0 takes the filesystem capabilities out of the effective set.
fn restore(sets: CapabilitySets) {
    if let Err(errno) = set_capabilities(None, sets) {
        tracing::warn!(%errno, "capset");
    }
}

impl Drop for AsCaller {
    fn drop(&mut self) {
        if let Some(uid) = self.uid {
            setfsuid(uid);
        }
        if let Some(gid) = self.gid {
            setfsgid(gid);
        }
    }
}

fn setfsuid(uid: u32) {
    // SAFETY: changes the filesystem uid of the calling thread alone.
    unsafe { libc::syscall(libc::SYS_setfsuid, uid) };
}

fn setfsgid(gid: u32) {
    // SAFETY: changes the filesystem gid of the calling thread alone.
    unsafe { libc::syscall(libc::SYS_setfsgid, gid) };
}

/// Whether permissions keep this process from no file of its user namespace (`CAP_DAC_OVERRIDE`).
pub(crate) fn may_open_all() -> bool {
    use rustix::thread::CapabilitySet;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::DAC_OVERRIDE))
}

/// Whether this process is privileged in the initial user namespace.
pub(crate) fn is_initial_root() -> bool {
    use rustix::thread::CapabilitySet;
    let initial = std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
        let fields: Vec<&str> = map.split_whitespace().collect();
        fields == ["0", "0", "4294967295"]
    });
    initial && capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}
