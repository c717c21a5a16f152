//! From [`Options`] to a mounted filesystem, and away again.
//!
//! The order matters: the mountpoint is opened before anything is mounted, so
//! that a mount may cover the parent of its own layers; the layers are opened
//! and checked before the mount, so that a refused stack never shows; and from
//! the mount on, every failure takes it away again.

mod probe;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Session, SessionACL};
use rustix::io::Errno;
use rustix::mount::MountFlags as KernelFlags;

use crate::cpus;
use crate::error::OpenError;
use crate::fuse::Adapter;
use crate::layer::Layer;
use crate::options::{Atime, MountFlags, Options};
use crate::sys::mount::{self as sys, Device, HelperError};
use crate::sys::process::{self, Request, Signals};
use crate::union::UnionFs;

pub use crate::sys::mount::{kind_at, unmount};
pub use crate::sys::process::{Side, Starting, Waiting, daemonize};
pub use probe::{Offered, Passthrough, probe};

/// Serves requests when nothing else is said and the machine has fewer CPUs.
const MIN_THREADS: usize = 4;

/// How long an upper that is in use is waited for, and how often it is tried.
const IN_USE_PATIENCE: Duration = Duration::from_secs(2);
const IN_USE_PAUSE: Duration = Duration::from_millis(10);

/// What a second request to end exits with, as a shell shows SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The layers cannot be used.
    #[error(transparent)]
    Stack(#[from] OpenError),
    /// The place to mount on cannot be used.
    #[error("mountpoint {path}: {source}{}", advice_on_mountpoint(*.source), path = .path.display())]
    Mountpoint {
        /// As it was given.
        path: PathBuf,
        /// What the kernel answered.
        source: Errno,
    },
    /// No FUSE in this kernel, or not in this container.
    #[error(
        "{device}: {0}; load the kernel module (modprobe fuse), or hand the device to the container (--device {device})",
        device = sys::DEVICE
    )]
    NoDevice(Errno),
    /// mount(2) failed.
    #[error("mount on {path}: {source}{}", advice_on_mount(*.source), path = .path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// What the kernel answered.
        source: Errno,
    },
    /// This user may not mount, and there is no setuid helper.
    #[error(
        "not permitted to mount, and neither fusermount3 nor fusermount is installed; \
         install the package fuse3, or work in a user namespace (unshare -Urm)"
    )]
    NoHelper,
    /// The setuid helper refused.
    #[error("{said}{}", advice_on_helper(.said))]
    Helper {
        /// Its words.
        said: String,
    },
    /// The setuid helper could not be talked to.
    #[error("fusermount3: {0}")]
    HelperFailed(#[source] io::Error),
    /// The kernel and the daemon did not come to terms.
    #[error("FUSE handshake: {0}")]
    Handshake(#[source] io::Error),
    /// Signals cannot be received.
    #[error("signals: {0}")]
    Signals(#[source] io::Error),
    /// The session ended otherwise than by an unmount.
    #[error("serving: {0}")]
    Serve(#[source] io::Error),
}

fn advice_on_mountpoint(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT => "; create the directory first",
        Errno::NOTCONN => "; a daemon died here, clean up with: lamel umount --lazy MOUNTPOINT",
        _ => "",
    }
}

fn advice_on_mount(errno: Errno) -> &'static str {
    match errno {
        Errno::NODEV => "; the kernel has no FUSE: modprobe fuse",
        Errno::INVAL => "; the kernel log says which option it does not know: dmesg | tail",
        _ => "",
    }
}

fn advice_on_helper(said: &str) -> &'static str {
    if said.contains("user_allow_other") {
        "; leave allow_other out, or have root put a line user_allow_other into /etc/fuse.conf"
    } else {
        ""
    }
}

/// A filesystem that the kernel knows. Dropping it unmounts it.
pub struct Mounted {
    union: Arc<UnionFs>,
    session: Session<Adapter>,
    place: Place,
    signals: Signals,
    threads: usize,
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mounted").field("place", &self.place).field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Mounts what `options` describe.
///
/// This changes the process: it may open as many files as its hard limit
/// allows, its umask is empty, and the signals that end a daemon or ask it for
/// a report are held back for [`Mounted::serve`].
///
/// # Errors
/// [`MountError`] says what to do; nothing is mounted then.
pub fn mount(options: &Options) -> Result<Mounted, MountError> {
    mount_over(options, &[])
}

/// The same with more layers, of any kind, below the directories of the options.
///
/// # Errors
/// As [`mount`].
pub fn mount_over(options: &Options, below: &[Arc<dyn Layer>]) -> Result<Mounted, MountError> {
    let at_mountpoint = |source| MountError::Mountpoint { path: options.mountpoint.clone(), source };
    let mountpoint = sys::open_mountpoint(&options.mountpoint).map_err(at_mountpoint)?;
    if sys::is_dead(mountpoint.as_fd()) {
        return Err(at_mountpoint(Errno::NOTCONN));
    }
    let path = sys::real_path(mountpoint.as_fd()).map_err(at_mountpoint)?;
    process::raise_file_limit();
    process::clear_umask();
    let signals = Signals::hold().map_err(MountError::Signals)?;
    let union = Arc::new(open_stack(options, below)?);
    let mut flags = options.flags.clone();
    flags.read_only |= options.upper.is_none();
    let (connection, place) = attach(mountpoint, path, &flags)?;
    if let Some(device) = place.device {
        union.mounted_as(rustix::fs::makedev(device.major, device.minor));
    }
    let threads = options.threads.unwrap_or(cpus::count().max(MIN_THREADS));
    let mut config = fuser::Config::default();
    config.n_threads = Some(threads);
    // Every thread has a connection of its own, unless the device was the helper's to open.
    config.clone_fd = sys::open_device().is_ok();
    // The kernel keeps others out unless allow_other lets them in; it knows no
    // allow_root, which the session sees to.
    config.acl = if options.flags.allow_root { SessionACL::RootAndOwner } else { SessionACL::All };
    let adapter = Adapter::new(Arc::clone(&union), options.spin.unwrap_or(cpus::count() == CPUS_TO_SPIN));
    let notifier = adapter.notifier();
    let session = Session::from_fd(adapter, connection, config.acl, config).map_err(MountError::Handshake)?;
    // The session is new, and so is its notifier's place.
    notifier.get_or_init(|| session.notifier());
    Ok(Mounted { union, session, place, signals, threads })
}

/// Opens the stack; if another mount uses it, that one may be about to end:
/// umount(2) returns before the daemon has let go of its upper, and a program
/// that unmounts and mounts again must not notice.
pub(crate) fn open_stack(options: &Options, below: &[Arc<dyn Layer>]) -> Result<UnionFs, OpenError> {
    let start = Instant::now();
    loop {
        match UnionFs::open_over(options, below) {
            Err(OpenError::InUse { .. }) if start.elapsed() < IN_USE_PATIENCE => thread::sleep(IN_USE_PAUSE),
            other => return other,
        }
    }
}

/// How far the kernel reads ahead, KiB. Its 128 make eight requests of a MiB, and only sysfs raises them.
const READ_AHEAD_KIB: u32 = 512;

/// CPUs of a machine on which a companion thread (`crew.rs`) makes a difference: it keeps the only other one awake.
const CPUS_TO_SPIN: usize = 2;

impl Mounted {
    /// Serves until the filesystem is unmounted and nobody uses it any more.
    ///
    /// SIGTERM, SIGINT and SIGHUP unmount it lazily; a second one ends the
    /// process at once. SIGUSR1 logs the counters.
    pub fn serve(self) -> Result<(), MountError> {
        self.place.read_ahead();
        let Self { union, session, place, signals, threads: _ } = self;
        let (stopped, stop) = process::stop_pipe().map_err(MountError::Signals)?;
        let place = Arc::new(place);
        let watcher = {
            let place = Arc::clone(&place);
            let union = Arc::clone(&union);
            let watch = move || watch(&signals, &stopped, &place, &union);
            thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(MountError::Signals)?
        };
        let served = session.run().map_err(MountError::Serve);
        drop(stop);
        if watcher.join().is_err() {
            tracing::error!("the thread that waits for signals panicked");
        }
        end(union);
        served
    }

    /// The same in a process that has its own use for the signals, which stay held back.
    pub fn serve_without_signals(self) -> Result<(), MountError> {
        self.place.read_ahead();
        let Self { union, session, place: _place, signals: _, threads: _ } = self;
        let served = session.run().map_err(MountError::Serve);
        end(union);
        served
    }
}

/// Lets go of the layers, and writes the upper to the disk if it is to be.
fn end(union: Arc<UnionFs>) {
    tracing::debug!("ended: {}", union.report());
    let upper = union.upper_to_sync();
    // Another mount may have the upper before what is written is on disk.
    drop(union);
    if let Some(upper) = upper
        && let Err(errno) = sys::sync_filesystem(upper.as_fd())
    {
        tracing::error!("writing the upper to disk: {errno}");
    }
}

/// Does what signals ask for, until the other end of `stopped` is closed.
fn watch(signals: &Signals, stopped: &OwnedFd, place: &Place, union: &UnionFs) {
    let mut ending = false;
    loop {
        match signals.next(stopped.as_fd()) {
            Ok(Some(Request::Report)) => {
                tracing::info!(target: "lamel::counters", "{}", union.report())
            }
            Ok(Some(Request::End)) if ending => {
                tracing::warn!("asked to end a second time while the mount is in use: giving it up");
                std::process::exit(EXIT_INTERRUPTED);
            }
            Ok(Some(Request::End)) => {
                ending = true;
                tracing::info!("asked to end: unmounting {}", place.path.display());
                place.detach();
            }
            Ok(None) => return,
            Err(error) => {
                tracing::error!("cannot receive signals: {error}");
                return;
            }
        }
    }
}

/// Where a filesystem is mounted. Dropping it unmounts it.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// Tells our filesystem from another one at the same path.
    device: Option<Device>,
    /// A copy of the connection, to see whether the filesystem still exists:
    /// after its end the kernel gives its device number to another one.
    connection: Option<OwnedFd>,
}

impl Place {
    fn new(path: PathBuf, device: Option<Device>, connection: &OwnedFd) -> Self {
        Self { path, device, connection: connection.try_clone().ok() }
    }

    fn is_mounted(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| sys::is_connected(connection.as_fd()))
    }

    /// Has the kernel read far ahead. Nobody who waits for the mount waits for this.
    fn read_ahead(&self) {
        if let Some(device) = self.device
            && let Err(error) = sys::read_ahead(device, READ_AHEAD_KIB)
        {
            // In a user namespace, or where sysfs is read-only.
            tracing::debug!(%error, "the kernel reads ahead as much as it does by itself");
        }
    }

    /// Takes the filesystem out of the tree; it lives on for those who are inside.
    fn detach(&self) {
        if !self.is_mounted() {
            return;
        }
        let places = match self.device.map(sys::places_of) {
            Some(Ok(places)) => places,
            Some(Err(_)) | None => vec![self.path.clone()],
        };
        // Last mounted first: a bind mount may lie inside the mount itself.
        for path in places.into_iter().rev() {
            if self.device.is_some() && sys::device_of(&path).ok() != self.device {
                tracing::warn!("{} is covered by another mount and stays", path.display());
            } else if let Err(error) = unmount(&path, true) {
                tracing::warn!("unmounting {}: {error}", path.display());
            }
        }
    }
}

/// After a regular end the filesystem is mounted nowhere any more.
///
/// Otherwise nobody serves it: everybody who holds the connection is gone but for this copy.
impl Drop for Place {
    fn drop(&mut self) {
        if self.is_mounted() {
            self.detach();
        }
    }
}

/// Mounts a new FUSE connection on the directory `mountpoint`, which lies at `path`.
fn attach(mountpoint: OwnedFd, path: PathBuf, flags: &MountFlags) -> Result<(OwnedFd, Place), MountError> {
    let connection = match sys::open_device() {
        Ok(connection) => connection,
        // The helper may open it, being root.
        Err(Errno::ACCESS | Errno::PERM) => return attach_by_helper(path, flags),
        Err(errno) => return Err(MountError::NoDevice(errno)),
    };
    let kind = format!("fuse.{}", flags.subtype);
    let data = kernel_data(&connection, flags);
    match sys::mount_on(mountpoint.as_fd(), &flags.fsname, &kind, kernel_flags(flags), &data) {
        Ok(()) => {}
        Err(Errno::PERM) => return attach_by_helper(path, flags),
        Err(source) => return Err(MountError::Mount { path, source }),
    }
    match sys::device_of(&path) {
        Ok(device) => {
            let place = Place::new(path, Some(device), &connection);
            Ok((connection, place))
        }
        Err(source) => {
            if let Err(errno) = sys::uncover(mountpoint.as_fd()) {
                tracing::warn!("unmounting {}: {errno}", path.display());
            }
            Err(MountError::Mountpoint { path, source })
        }
    }
}

/// The same through the setuid helper, for a user who may not mount.
fn attach_by_helper(path: PathBuf, flags: &MountFlags) -> Result<(OwnedFd, Place), MountError> {
    let connection = sys::helper_mount(&path, &helper_options(flags)).map_err(|error| match error {
        HelperError::Missing => MountError::NoHelper,
        HelperError::Said(said) => MountError::Helper { said },
        HelperError::Io(error) => MountError::HelperFailed(error),
    })?;
    let place = Place::new(path.clone(), sys::device_of(&path).ok(), &connection);
    Ok((connection, place))
}

/// The options that the kernel's FUSE reads from text.
fn kernel_data(connection: &OwnedFd, flags: &MountFlags) -> String {
    use std::os::fd::AsRawFd;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        connection.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if flags.default_permissions {
        data.push_str(",default_permissions");
    }
    if flags.allow_other || flags.allow_root {
        data.push_str(",allow_other");
    }
    for context in applicable_contexts(flags) {
        data.push(',');
        data.push_str(context);
    }
    data
}

/// Without SELinux the kernel refuses its options; labels protect nothing there.
fn applicable_contexts(flags: &MountFlags) -> &[String] {
    if flags.context.is_empty() || Path::new("/sys/fs/selinux/enforce").exists() {
        return &flags.context;
    }
    tracing::warn!("this kernel runs without SELinux; ignored: {}", flags.context.join(","));
    &[]
}

fn kernel_flags(flags: &MountFlags) -> KernelFlags {
    let mut bits = match flags.atime {
        Atime::NoAtime => KernelFlags::NOATIME,
        Atime::RelAtime => KernelFlags::RELATIME,
        Atime::StrictAtime => KernelFlags::STRICTATIME,
    };
    let optional = [
        (flags.read_only, KernelFlags::RDONLY),
        (!flags.dev, KernelFlags::NODEV),
        (!flags.suid, KernelFlags::NOSUID),
        (!flags.exec, KernelFlags::NOEXEC),
        (flags.nodiratime, KernelFlags::NODIRATIME),
        (flags.sync, KernelFlags::SYNCHRONOUS),
        (flags.dirsync, KernelFlags::DIRSYNC),
        (flags.nosymfollow, KernelFlags::from_bits_retain(NOSYMFOLLOW)),
    ];
    for (wanted, bit) in optional {
        bits.set(bit, wanted);
    }
    bits
}

/// `MS_NOSYMFOLLOW`, Linux 5.10.
const NOSYMFOLLOW: u32 = 256;

/// The same for the setuid helper. It gives a plain user neither devices nor
/// set-user-id programs, and refuses to be asked for them.
fn helper_options(flags: &MountFlags) -> String {
    let mut options = vec![format!("fsname={}", flags.fsname), format!("subtype={}", flags.subtype)];
    let optional = [
        (flags.read_only, "ro"),
        (!flags.dev, "nodev"),
        (!flags.suid, "nosuid"),
        (!flags.exec, "noexec"),
        (flags.atime == Atime::NoAtime, "noatime"),
        (flags.nodiratime, "nodiratime"),
        (flags.sync, "sync"),
        (flags.dirsync, "dirsync"),
        (flags.nosymfollow, "nosymfollow"),
        (flags.default_permissions, "default_permissions"),
        (flags.allow_other || flags.allow_root, "allow_other"),
    ];
    options.extend(optional.iter().filter(|(wanted, _)| *wanted).map(|(_, name)| (*name).to_owned()));
    options.extend_from_slice(applicable_contexts(flags));
    options.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_bits() {
        let flags = MountFlags { read_only: true, suid: false, ..MountFlags::default() };
        let bits = kernel_flags(&flags);
        assert_eq!(bits, KernelFlags::RDONLY | KernelFlags::NOSUID | KernelFlags::NOATIME);
    }

    #[test]
    fn the_helper_is_not_asked_for_what_it_refuses() {
        assert_eq!(helper_options(&MountFlags::default()), "fsname=lamel,subtype=lamel,noatime,default_permissions");
        let flags = MountFlags { dev: false, allow_root: true, read_only: true, ..MountFlags::default() };
        assert_eq!(
            helper_options(&flags),
            "fsname=lamel,subtype=lamel,ro,nodev,noatime,default_permissions,allow_other"
        );
    }

    #[test]
    fn errors_say_what_to_do() {
        let missing = MountError::Mountpoint { path: "/m".into(), source: Errno::NOENT };
        assert!(missing.to_string().contains("create the directory"), "{missing}");
        assert!(MountError::NoDevice(Errno::NOENT).to_string().contains("modprobe fuse"));
        let refused = "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf";
        assert!(MountError::Helper { said: refused.to_owned() }.to_string().contains("leave allow_other out"));
    }
}
