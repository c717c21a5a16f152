//! `lamel umount`

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use lamel_unionfs::mount::{kind_at, unmount};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::output::{ask, is_foreign};

/// Unmount; returns when everything is written and the daemon is gone
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where it is mounted
    mountpoint: PathBuf,
    /// Unmount also if in use: at once for those who come, later for those who are inside
    #[arg(short, long)]
    lazy: bool,
}

/// The virtual xattr that holds the daemon's process id.
const QUESTION: &str = "system.lamel.pid";

/// How long to wait for the daemon before asking who else may hold the mount.
const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Who serves a mount.
#[derive(Debug)]
enum Daemon {
    /// A living process.
    Alive(OwnedFd),
    /// It was killed, does not let us ask, or is out of sight.
    Unknown,
}

/// Unmounts.
pub(crate) fn run(args: &Args) -> Result<()> {
    let shown = args.mountpoint.display();
    // A dead mount answers ENOTCONN to everything but to being named.
    let path = resolve(&args.mountpoint).with_context(|| shown.to_string())?;
    let Some(kind) = kind_at(&path)? else { bail!("{shown} is not a mountpoint") };
    let daemon = match ask(&path, QUESTION) {
        Ok(answer) => open_process(&answer)?,
        Err(errno) if is_foreign(errno) => {
            bail!("{shown} is a mount of another kind ({kind}); use umount")
        }
        Err(Errno::NOTCONN | Errno::CONNABORTED | Errno::ACCESS) if kind.starts_with("fuse") => Daemon::Unknown,
        Err(errno) => return Err(errno).with_context(|| shown.to_string()),
    };
    // Another mount namespace may hold the filesystem: then the unmount writes nothing.
    let written = if matches!(daemon, Daemon::Alive(_)) { write_back(&path) } else { Ok(()) };
    let device = device(&path);
    unmount(&path, args.lazy).map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::BUSY) => {
            anyhow!("{shown} is in use (EBUSY): `fuser -vm {shown}` lists by whom; --lazy unmounts it nevertheless")
        }
        Some(Errno::PERM) => anyhow!("unmounting {shown}: only its owner and root may do that"),
        _ => anyhow!("unmounting {shown}: {error}"),
    })?;
    let Daemon::Alive(process) = daemon else {
        return Ok(());
    };
    while !ended(&process, &PATIENCE)? {
        if args.lazy {
            tracing::info!("{shown} is unmounted; its daemon ends with its last user");
            break;
        }
        if let Some(pid) = device.as_deref().and_then(holder) {
            eprintln!("lamel: {shown} is unmounted here, but process {pid} has it in another mount namespace");
            break;
        }
    }
    written.map_err(|errno| anyhow!("{shown} is unmounted, but something written to it got lost: {errno}"))
}

/// The device of the mount at `path`, as mountinfo shows it.
fn device(path: &Path) -> Option<String> {
    let stat = rustix::fs::lstat(path).ok()?;
    Some(format!("{}:{}", rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)))
}

/// A process in whose mount namespace a device is still mounted.
fn holder(device: &str) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().filter_map(|entry| entry.file_name().into_string().ok()).find(|name| {
        name.bytes().all(|byte| byte.is_ascii_digit())
            && std::fs::read_to_string(format!("/proc/{name}/mountinfo"))
                .is_ok_and(|mounts| mounts.lines().any(|line| line.split(' ').nth(2) == Some(device)))
    })
}

/// The path without links; its last component may be a mount that is dead.
fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {
            let absolute = std::path::absolute(path)?;
            match (absolute.parent(), absolute.file_name()) {
                (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
                _ => Ok(absolute),
            }
        }
        other => other,
    }
}

fn open_process(answer: &[u8]) -> Result<Daemon> {
    let pid = std::str::from_utf8(answer).ok().and_then(|text| text.trim().parse().ok()).and_then(Pid::from_raw);
    let pid = pid.context("the daemon gave no process id")?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => Ok(Daemon::Alive(process)),
        // Just ended, or a number of another pid namespace.
        Err(Errno::SRCH) => Ok(Daemon::Unknown),
        Err(errno) => Err(errno).with_context(|| format!("process {} of the daemon", pid.as_raw_pid())),
    }
}

/// Nobody may wait for the last write after the unmount: it is done before.
fn write_back(path: &Path) -> Result<(), Errno> {
    use rustix::fs::{Mode, OFlags};
    let root = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    match root {
        Ok(root) => rustix::fs::syncfs(root),
        // Its owner may unmount what it may not enter.
        Err(errno) => {
            tracing::warn!("writing back {}: {errno}", path.display());
            Ok(())
        }
    }
}

fn ended(process: &OwnedFd, patience: &Timespec) -> Result<bool> {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(patience)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("waiting for the daemon"),
        }
    }
}
