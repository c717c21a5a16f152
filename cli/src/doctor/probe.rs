//! Things that are tried in a process of their own: what they do to it goes with it.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

/// How long one may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Probe {
    /// A user namespace.
    User,
    /// All namespaces of a container, and its /proc.
    Namespaces,
    /// A new /proc, in the first process of a pid namespace.
    Proc,
    /// The kernel's own overlay.
    Overlay,
    /// A pair of virtual network devices, and a bridge.
    Veth,
}

impl Probe {
    /// Tries it in another process; says why it failed.
    pub(super) fn attempt(self) -> Result<(), String> {
        let name = clap::ValueEnum::to_possible_value(&self);
        let name = name.map(|value| value.get_name().to_owned()).unwrap_or_default();
        run(Command::new("/proc/self/exe").args(["doctor", "--probe", &name])).map(drop)
    }

    /// Tries it in this one.
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::User => enter(CloneFlags::CLONE_NEWUSER, true),
            Self::Namespaces => {
                let all = CloneFlags::CLONE_NEWNS
                    | CloneFlags::CLONE_NEWPID
                    | CloneFlags::CLONE_NEWNET
                    | CloneFlags::CLONE_NEWUTS
                    | CloneFlags::CLONE_NEWIPC
                    | CloneFlags::CLONE_NEWCGROUP;
                enter(all, false)?;
                // A pid namespace begins with the next process.
                Self::Proc.attempt().map_err(|why| anyhow::anyhow!(why))
            }
            Self::Proc => {
                part()?;
                let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
                mount("proc", "/proc", "proc", flags, None).context("mounting /proc")
            }
            Self::Overlay => {
                enter(CloneFlags::CLONE_NEWNS, false)?;
                overlay()
            }
            Self::Veth => {
                enter(CloneFlags::CLONE_NEWNET, false)?;
                let ip =
                    |words: &str| run(Command::new("ip").args(words.split(' '))).map_err(|why| anyhow::anyhow!(why));
                ip("link add lamel0 type veth peer name lamel1").context("veth")?;
                ip("link add lamel2 type bridge").context("bridge")?;
                Ok(())
            }
        }
    }
}

/// Goes into new namespaces; whoever is not root goes into a user namespace with them, in which he is.
fn enter(flags: CloneFlags, user: bool) -> Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let user = user || !uid.is_root();
    let flags = if user { flags | CloneFlags::CLONE_NEWUSER } else { flags };
    unshare(flags).context("unshare")?;
    if user {
        // Not there before Linux 3.19.
        std::fs::write("/proc/self/setgroups", "deny").ok();
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("/proc/self/uid_map")?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("/proc/self/gid_map")?;
    }
    if flags.contains(CloneFlags::CLONE_NEWNS) { part() } else { Ok(()) }
}

/// Nothing that is mounted here is seen elsewhere.
fn part() -> Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("making mounts private")
}

fn overlay() -> Result<()> {
    let place = Path::new("/proc/self/fdinfo");
    // Any directory will do to hang it on.
    let base: PathBuf = if Path::new("/tmp").is_dir() { "/tmp".into() } else { place.to_owned() };
    mount("lamel", &base, "tmpfs", MountFlags::empty(), None).context("tmpfs")?;
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(base.join(name))?;
    }
    let at = |name: &str| base.join(name).display().to_string();
    let data = format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
    let data = if rustix::process::geteuid().is_root() && is_initial() { data } else { format!("{data},userxattr") };
    let data = std::ffi::CString::new(data)?;
    mount("lamel", base.join("merged"), "overlay", MountFlags::empty(), data.as_c_str()).context("overlay")
}

/// Whether this is the host's own user namespace.
fn is_initial() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// Runs a program to its end, but no longer than is worth waiting for; its output, or why there is none.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = || -> Result<String> {
        let mut child = command.spawn()?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if start.elapsed() > LIMIT {
                child.kill()?;
                child.wait()?;
                bail!("no answer in {} s", LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let mut said = String::new();
        let pipe: Option<Box<dyn std::io::Read>> = if status.success() {
            child.stdout.take().map(|pipe| Box::new(pipe) as _)
        } else {
            child.stderr.take().map(|pipe| Box::new(pipe) as _)
        };
        if let Some(pipe) = pipe {
            pipe.take(4096).read_to_string(&mut said)?;
        }
        let said = said.trim().trim_start_matches("lamel: ").to_owned();
        if status.success() { Ok(said) } else { bail!(if said.is_empty() { status.to_string() } else { said }) }
    };
    let mut done = done;
    done().map_err(|error| error.to_string().lines().next_back().unwrap_or_default().to_owned())
}

/// A program in the search path.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where administrators' programs lie is not in everybody's path.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(program)).find(|place| place.is_file())
}
