//! Control groups: one for each container that needs one, made, filled and removed by its parent.
//!
//! `v1` (also of a hybrid host) and `v2` stand behind one trait. A group lies
//! below the group that lamel was started in, so that what limits lamel limits
//! its containers. Its directory is locked for as long as its container's
//! parent lives; what a killed parent left is removed by the next one.

mod devices;
mod follow;
mod usage;
mod v1;
mod v2;

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

pub(crate) use follow::{doors, follow, is_frozen, memberships};
pub use usage::Usage;
pub(crate) use v1::Hierarchy;

/// How the names of groups begin that lamel makes of itself.
pub(crate) const PREFIX: &str = "lamel-";

/// How often a group is tried to be made that another lamel holds for a moment, to see whether it is abandoned.
const MAKE_TRIES: usize = 50;

/// Why a group cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A limit needs a controller that the host does not give.
    #[error("{limit} needs the cgroup controller {controller}, which is not there{advice}")]
    NoController {
        /// The member of `linux.resources`.
        limit: String,
        /// The controller.
        controller: &'static str,
        /// The way out, after `; `.
        advice: &'static str,
    },
    /// A limit that no version of cgroups here can hold.
    #[error("linux.resources: {0} is not supported")]
    Unsupported(String),
    /// A value is out of range.
    #[error("linux.resources: {limit}: {why}")]
    Value {
        /// The member.
        limit: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The host has none, or not for this user.
    #[error("no control group can be made: {0}")]
    Unavailable(String),
    /// A file of the group.
    #[error("{doing} {path}: {error}{}", advice(.error), path = .path.display())]
    Io {
        /// What was done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            "; a plain user can limit a container only where a cgroup v2 is delegated to him: leave the limit out"
        }
        Some(libc::ENOENT) => "; this kernel does not have the limit",
        _ => "",
    }
}

impl CgroupError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { doing, path, error }
    }
}

/// One file of a group and what is written into it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    file: String,
    value: String,
    /// The member of `linux.resources`, for errors.
    limit: &'static str,
}

impl Setting {
    fn new(controller: &'static str, file: &str, value: impl fmt::Display, limit: &'static str) -> Self {
        Self { controller, file: file.to_owned(), value: value.to_string(), limit }
    }
}

/// The ways into a group, for a process that is about to be made.
///
/// Nobody moves a process that is there already: for that the kernel waits until no process of the whole host is in the
/// middle of making a thread, which takes it as long as the rest of a container's start.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    /// Of version 1, a file for each hierarchy, through which a thread enters that is its process's only one.
    tasks: Vec<File>,
    /// Of version 2, the group that the process is made in.
    group: Option<File>,
}

impl Doors {
    /// The group that the process is to be cloned into.
    pub(crate) fn group(&self) -> Option<BorrowedFd<'_>> {
        self.group.as_ref().map(|group| group.as_fd())
    }

    /// Whether the process has to [`enter`](Self::enter).
    pub(crate) fn have_steps(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Enters, in the process that was made. Whether it may is a matter of who opened the files.
    pub(crate) fn enter(&self) -> Result<(), Errno> {
        self.tasks.iter().try_for_each(|tasks| rustix::io::write(tasks, b"0").map(drop))
    }
}

/// A group, whatever the version. Dropping it removes it.
pub(crate) trait Group: fmt::Debug + Send {
    /// Limits what runs in it.
    fn limit(&self, resources: &LinuxResources) -> Result<(), CgroupError>;
    /// The ways into it.
    fn doors(&self) -> Result<Doors, CgroupError>;
    /// Stops everything in it, or lets it go on.
    fn freeze(&mut self, frozen: bool) -> Result<(), CgroupError>;
    /// How many of its processes the kernel has killed for want of memory; none where it does not count them.
    fn oom_kills(&self) -> Option<u64>;
    /// Removes it; what runs in it must have ended.
    fn remove(&mut self);
}

/// The host's hierarchies, and where in them lamel itself is.
#[derive(Debug)]
pub(crate) enum Layout {
    /// Version 1, perhaps with a hierarchy of version 2 without controllers beside it.
    V1(Vec<Hierarchy>),
    /// Version 2: where it is mounted, and lamel's own group below that.
    V2 { mount: PathBuf, own: PathBuf },
    /// None is mounted.
    None,
}

impl Layout {
    /// Reads the mount table and lamel's own groups.
    pub(crate) fn detect() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    fn parse(mountinfo: &str, own: &str) -> Self {
        let hierarchies = v1::parse(mountinfo, own);
        if !hierarchies.is_empty() {
            return Self::V1(hierarchies);
        }
        let mount = mountinfo.lines().find_map(|line| {
            let (place, filesystem) = line.split_once(" - ")?;
            filesystem.starts_with("cgroup2 ").then(|| PathBuf::from(place.split(' ').nth(4).unwrap_or_default()))
        });
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).map(below);
        match (mount, own) {
            (Some(mount), Some(own)) => Self::V2 { mount, own },
            _ => Self::None,
        }
    }

    /// A new group for a container, with these limits; none if it needs none, or for a user who cannot have one and
    /// asks for no limit.
    pub(crate) fn open(
        &self,
        name: &str,
        path: Option<&Path>,
        resources: Option<&LinuxResources>,
    ) -> Result<Option<Box<dyn Group>>, CgroupError> {
        let Some(resources) = resources.filter(|resources| **resources != LinuxResources::default()) else {
            return Ok(None);
        };
        let group: Box<dyn Group> = match self {
            Self::None => return Err(CgroupError::Unavailable("no cgroup hierarchy is mounted".to_owned())),
            Self::V1(hierarchies) => Box::new(v1::Groups::new(hierarchies, name, path, resources)?),
            Self::V2 { mount, own } => Box::new(v2::Group::new(mount, own, name, path, resources)?),
        };
        group.limit(resources)?;
        Ok(Some(group))
    }
}

/// A path from a hierarchy's root, as a path below it.
fn below(path: &str) -> PathBuf {
    PathBuf::from(path.trim_start_matches('/'))
}

/// Whether a container with these limits has a group of its own in a hierarchy of version 1.
pub(crate) fn has_own_group(hierarchy: &Hierarchy, resources: Option<&LinuxResources>) -> Result<bool, CgroupError> {
    resources.map_or(Ok(false), |resources| v1::uses(hierarchy, resources))
}

/// A directory of a group, locked.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes it. A directory that is there may be used if nobody else uses it.
    fn make(path: PathBuf) -> Result<Self, CgroupError> {
        // Between making and locking another one may take it for abandoned.
        for _ in 0..MAKE_TRIES {
            match DirBuilder::new().recursive(true).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(CgroupError::io("making", &path)(error)),
            }
            let Ok(lock) = File::open(&path) else { continue };
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if path.exists() => return Ok(Self { path, _lock: lock }),
                Ok(()) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Err(CgroupError::Unavailable(format!("{} is in use", path.display())))
    }

    fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        write(&self.path.join(file), value)
    }

    fn remove(&self) {
        // What ended a moment ago may still be leaving.
        for _ in 0..50 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return tracing::warn!("removing the control group {}: {error}", self.path.display());
                }
                _ => return,
            }
        }
        tracing::warn!("the control group {} is still in use", self.path.display());
    }
}

fn open_to_write(path: &Path) -> Result<File, CgroupError> {
    fs::OpenOptions::new().write(true).open(path).map_err(CgroupError::io("opening", path))
}

/// The number behind a word, in a file of words and numbers.
fn counter(path: &Path, word: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok())
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    use std::io::Write as _;
    open_to_write(path)?.write_all(value.as_bytes()).map_err(CgroupError::io("writing", path))
}

/// Removes groups of lamel below `parent` whose owner was killed.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(directory) = File::open(entry.path()) else { continue };
        if rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            fs::remove_dir(entry.path()).ok();
        }
    }
}

/// What may be limited of the I/O on a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Throttled {
    ReadBytes,
    WrittenBytes,
    Reads,
    Writes,
}

/// The limits of I/O, one for each device.
fn throttles(io: &LinuxBlockIo) -> impl Iterator<Item = (Throttled, &LinuxThrottleDevice)> {
    [
        (Throttled::ReadBytes, io.throttle_read_bps_device()),
        (Throttled::WrittenBytes, io.throttle_write_bps_device()),
        (Throttled::Reads, io.throttle_read_iops_device()),
        (Throttled::Writes, io.throttle_write_iops_device()),
    ]
    .into_iter()
    .flat_map(|(what, devices)| devices.iter().flatten().map(move |device| (what, device)))
}

/// The lines of a file of weights: one for all devices, and those of single ones.
fn weights(io: &LinuxBlockIo) -> Vec<String> {
    let devices = io.weight_device().iter().flatten();
    let lines =
        devices.filter_map(|device| Some(format!("{}:{} {}", device.major(), device.minor(), device.weight()?)));
    io.weight().map(|weight| weight.to_string()).into_iter().chain(lines).collect()
}

/// `pids.max`, which is the same in both versions.
fn pids_limit(resources: &LinuxResources) -> Option<String> {
    let limit = resources.pids().as_ref()?.limit();
    Some(if limit > 0 { limit.to_string() } else { "max".to_owned() })
}

/// The members of `linux.resources` that no version here can hold.
fn refuse_unsupported(resources: &LinuxResources) -> Result<(), CgroupError> {
    let unsupported = |what: &str| Err(CgroupError::Unsupported(what.to_owned()));
    if resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty()) {
        return unsupported("hugepageLimits");
    }
    if resources.network().as_ref().is_some_and(|n| n.class_id().is_some() || n.priorities().is_some()) {
        return unsupported("network");
    }
    if let Some(io) = resources.block_io()
        && (io.leaf_weight().is_some()
            || io.weight_device().iter().flatten().any(|device| device.leaf_weight().is_some()))
    {
        return unsupported("blockIO.leafWeight (kernels no longer have it)");
    }
    if resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty()) {
        return unsupported("rdma");
    }
    if let Some(memory) = resources.memory()
        && (memory.kernel().is_some_and(|limit| limit > 0) || memory.kernel_tcp().is_some_and(|limit| limit > 0))
    {
        return unsupported("memory.kernel (kernels no longer have it)");
    }
    if let Some(cpu) = resources.cpu()
        && (cpu.realtime_runtime().is_some() || cpu.realtime_period().is_some())
    {
        return unsupported("cpu.realtimeRuntime");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_apart() {
        let v2 = "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let Layout::V2 { mount, own } = Layout::parse(v2, "0::/user.slice/x\n") else { panic!("not v2") };
        assert_eq!((mount, own), ("/sys/fs/cgroup".into(), "user.slice/x".into()));
        let hybrid = format!(
            "31 1 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n{}",
            v2.replace("/cgroup rw", "/cgroup/unified rw")
        );
        let Layout::V1(hierarchies) = Layout::parse(&hybrid, "2:cpu,cpuacct:/a\n0::/\n") else { panic!("not v1") };
        assert_eq!(hierarchies.len(), 1);
        assert!(matches!(Layout::parse("", ""), Layout::None));
    }

    #[test]
    fn what_a_killed_owner_left_is_swept() {
        let place = tempfile::tempdir().unwrap();
        let held = Directory::make(place.path().join("lamel-held")).unwrap();
        assert!(Directory::make(place.path().join("lamel-held")).is_err());
        drop(Directory::make(place.path().join("lamel-left")).unwrap());
        fs::create_dir(place.path().join("other")).unwrap();
        sweep(place.path());
        let mut names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["lamel-held", "other"]);
        held.remove();
        assert!(!held.path.exists());
    }
}
