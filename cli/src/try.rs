//! `lamel try`

mod apply;
mod kept;

use std::fs::{self, DirBuilder, File};
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use lamel_isolate::attach::terminal_size;
use lamel_isolate::{Options as ContainerOptions, exe, oci, seccomp};
use lamel_unionfs::diff::{Change, diff};
use lamel_unionfs::mount::{self, Side};
use lamel_unionfs::{Options, options};
use rustix::fs::FlockOperation;
use rustix::mount::MountPropagationFlags;

use crate::launch::complain;
use crate::log::LogArgs;
use crate::network::{Namespace, Prepared, host_name};
use crate::run::environment::EnvironmentArgs;
use crate::run::identity::{IdentityArgs, random_id};
use crate::run::volume::shown_read_only;
use crate::run::{self, config};

/// Changes that are listed before the question; the rest is counted.
const MAX_LISTED: usize = 1000;

/// Run a command on a copy-on-write view of this system, then ask what to do with its changes
///
/// The command runs as you, isolated as a container is, over your own root directory. What it
/// changes is kept aside, listed when it ends, and then applied, kept under a name, or dropped.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("kept").args(["list", "apply", "drop"]),
    override_usage = "lamel try [OPTIONS] CMD...\n       lamel try --list [NAME] | --apply NAME | --drop NAME",
    after_help = "\
Exit status: the command's own; 125 if it was not run.

Examples:
  lamel try apt-get install -y cowsay
  lamel try --keep cows apt-get install -y cowsay; lamel try --apply cows"
)]
pub(crate) struct Args {
    /// Apply the changes without asking
    #[arg(short, long)]
    yes: bool,
    /// Drop the changes without asking
    #[arg(short, long, conflicts_with = "yes")]
    no: bool,
    /// Keep the changes under this name, to go on from there the next time
    #[arg(long, value_name = "NAME", conflicts_with_all = ["yes", "no"])]
    keep: Option<String>,
    /// List the names that changes are kept under, or the changes under one of them
    #[arg(long, value_name = "NAME", num_args = 0..=1, conflicts_with_all = ["yes", "no", "keep", "command"])]
    list: Option<Option<String>>,
    /// Apply the changes that are kept under this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["yes", "no", "keep", "command"])]
    apply: Option<String>,
    /// Drop the changes that are kept under this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["yes", "no", "keep", "command"])]
    drop: Option<String>,
    /// The command's network
    #[arg(long, value_name = "MODE", default_value = "host")]
    network: Network,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD", required_unless_present = "kept")]
    command: Vec<String>,
}

/// The network of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Network {
    /// A namespace with nothing but loopback.
    None,
    /// No namespace.
    Host,
}

/// What becomes of the changes.
enum Fate {
    Apply,
    Keep(String),
    Drop,
}

/// Runs the command; its exit status is this program's.
pub(crate) fn run(args: &Args, log: &LogArgs) -> ExitCode {
    let ran = log.init().and_then(|()| {
        exe::protect()?;
        match (&args.list, &args.apply, &args.drop) {
            (Some(name), ..) => kept::show(name.as_deref()).map(|()| 0),
            (_, Some(name), _) => kept::apply_to_system(name).map(|()| 0),
            (.., Some(name)) => kept::discard(name).map(|()| 0),
            _ => attempt(args),
        }
    });
    run::finish("lamel", ran)
}

fn attempt(args: &Args) -> Result<i32> {
    let terminal = std::io::stdin().is_terminal();
    if !(args.yes || args.no || args.keep.is_some() || terminal) {
        bail!("nobody can be asked here about the changes: say -y, -n or --keep NAME");
    }
    if let Some(name) = &args.keep {
        check_name(name)?;
    }
    let caller = Caller::of(terminal)?;
    let place = Place::make(&caller.base, args.keep.as_deref(), &caller.id)?;
    caller.part_mounts()?;
    let view = View::mount(&place, &caller)?;
    let done = caller.run_in(&view, args).and_then(|code| {
        let changes = diff(&place.upper(), &[PathBuf::from("/")])?;
        list(&changes)?;
        match fate(args, changes.is_empty())? {
            Fate::Apply => apply::apply(&view.0, &place.stage()?, Path::new("/"), &changes)?,
            Fate::Keep(name) => place.keep(&caller.base, &name)?,
            Fate::Drop => {}
        }
        Ok(code)
    });
    view.unmount();
    place.clean(args.keep.as_deref());
    done
}

/// Who tries, from where; asked before this process moves into namespaces, where the answers are others.
struct Caller {
    ids: (u32, u32),
    cwd: PathBuf,
    /// Where changes lie.
    base: PathBuf,
    /// Of the container.
    id: String,
    cache: Option<seccomp::Cache>,
    terminal: bool,
}

fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain) && name.len() <= 128 {
        Ok(())
    } else {
        bail!("{name:?} is no name: letters, digits, and after the first _, . and -")
    }
}

/// Where changes lie.
fn state_directory() -> Result<PathBuf> {
    let base = if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/lib/lamel/try")
    } else {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        data.context("HOME is not set: where should the changes lie?")?.join("lamel/try")
    };
    let shown = || format!("making {}", base.display());
    DirBuilder::new().recursive(true).mode(0o700).create(&base).with_context(shown)?;
    base.canonicalize().with_context(shown)
}

/// The directories of one trial, locked for as long as it goes on.
struct Place(PathBuf, #[expect(dead_code, reason = "held, not read")] File);

impl Place {
    fn make(base: &Path, keep: Option<&str>, id: &str) -> Result<Self> {
        sweep(base);
        let name = keep.map_or_else(|| format!(".{}", id.get(..16).unwrap_or(id)), str::to_owned);
        let path = base.join(name);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&path).with_context(|| format!("making {}", path.display()))?;
        let lock = File::open(&path).with_context(|| path.display().to_string())?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("{} is in use", path.display());
        }
        let place = Self(path, lock);
        for directory in [place.upper(), place.work(), place.view()] {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(&directory).with_context(|| format!("making {}", directory.display()))?;
        }
        if keep.is_none() || fs::read_dir(place.upper())?.next().is_none() {
            like_root(&place.upper())?;
        }
        Ok(place)
    }

    fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    fn view(&self) -> PathBuf {
        self.0.join("view")
    }

    /// An empty directory in which changes are made ready.
    fn stage(&self) -> Result<PathBuf> {
        let stage = self.0.join("stage");
        fs::create_dir(&stage).with_context(|| stage.display().to_string())?;
        Ok(stage)
    }

    /// Keeps the changes, which lie under their name if that was known from the beginning.
    fn keep(&self, base: &Path, name: &str) -> Result<()> {
        let kept = base.join(name);
        if self.0 != kept {
            if kept.exists() {
                bail!("there are changes under the name {name} already: {}", kept.display());
            }
            // The view is still mounted below: the upper moves alone.
            let mut builder = DirBuilder::new();
            builder.mode(0o700).create(&kept).with_context(|| kept.display().to_string())?;
            fs::rename(self.upper(), kept.join("upper")).with_context(|| kept.display().to_string())?;
        }
        say(format_args!(
            "kept in {}; go on from there with: lamel try --keep {name} CMD; or apply it with: lamel try --apply {name}",
            kept.display()
        ));
        Ok(())
    }

    /// Removes what is not kept, once nothing is mounted there.
    fn clean(&self, keep: Option<&str>) {
        let removed = match keep {
            Some(_) => fs::remove_dir(self.view()),
            None => fs::remove_dir_all(&self.0),
        };
        if let Err(error) = removed {
            tracing::warn!("removing {}: {error}", self.0.display());
        }
    }
}

/// Removes what trials left whose process was killed.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let Ok(directory) = File::open(entry.path()) else { continue };
        if entry.file_name().as_bytes().starts_with(b".")
            && rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// The upper's root is the root that is seen: it gets the mode of the real one.
fn like_root(upper: &Path) -> Result<()> {
    let mode = fs::metadata("/")?.permissions();
    fs::set_permissions(upper, mode).with_context(|| upper.display().to_string())
}

/// Lets the view's root be owned by whoever owns the real one, as a plain user can say it.
fn own_by_others(upper: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let root = fs::metadata("/")?;
    let owner = format!("{}:{}:{:04o}:dir", root.uid(), root.gid(), root.mode() & 0o7777);
    rustix::fs::setxattr(upper, "user.containers.override_stat", owner.as_bytes(), rustix::fs::XattrFlags::empty())
        .with_context(|| format!("an xattr on {}", upper.display()))
}

impl Caller {
    fn of(terminal: bool) -> Result<Self> {
        Ok(Self {
            ids: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            cwd: std::env::current_dir().context("the current directory")?,
            base: state_directory()?,
            id: random_id()?,
            cache: run::filter_cache(),
            terminal,
        })
    }

    fn is_root(&self) -> bool {
        self.ids.0 == 0
    }

    /// A mount namespace of this process's own, so that the view is nobody else's and goes with it; for a plain user
    /// in a user namespace with him for root, which lets him mount.
    fn part_mounts(&self) -> Result<()> {
        use nix::sched::{CloneFlags, unshare};
        if self.is_root() {
            unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
        } else {
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
                .context("a user namespace (sysctl user.max_user_namespaces, or the host's policy)")?;
            let write = |file: &str, text: String| fs::write(file, text).with_context(|| file.to_owned());
            write("/proc/self/uid_map", format!("0 {} 1\n", self.ids.0))?;
            write("/proc/self/setgroups", "deny".to_owned())?;
            write("/proc/self/gid_map", format!("0 {} 1\n", self.ids.1))?;
        }
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .context("parting the mounts from the host's")
    }

    fn run_in(&self, view: &View, args: &Args) -> Result<i32> {
        let container = run::Args {
            interactive: true,
            tty: self.terminal && std::io::stdout().is_terminal(),
            workdir: Some(self.cwd.clone()),
            environment: EnvironmentArgs::inherited(),
            identity: IdentityArgs::one(self.ids, !self.is_root()),
            ..run::Args::default()
        };
        let namespace = match args.network {
            Network::None => Namespace::Own,
            Network::Host => Namespace::Host,
        };
        let network = Prepared { namespace, hostname: host_name(), mounts: Vec::new() };
        let mut spec = config::spec(&container, &args.command, &config::OfImage::default(), &view.0, &network)?;
        let home_of_user = !config::has_home(&spec);
        config::set_user(&mut spec, &container.identity.resolve(&view.0)?, home_of_user);
        config::set_size(&mut spec, terminal_size())?;
        self.show_the_host(&mut spec)?;
        let mut options = ContainerOptions::new(view.0.clone(), self.id.clone());
        options.init = true;
        options.cache = self.cache.clone();
        run::attend(&spec, &options, true)
    }

    /// The view's own files stay; other filesystems of the host are shown as they are, read-only; where the changes
    /// lie is hidden.
    fn show_the_host(&self, spec: &mut oci::Spec) -> Result<()> {
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.retain(|mount| !mount.destination().starts_with("/etc"));
        // In a user namespace the layer is read as this process sees it, with everything that is mounted there.
        if self.is_root() {
            for other in other_filesystems(&fs::read_to_string("/proc/self/mountinfo")?, &self.base) {
                say(format_args!("note: {} is another filesystem: the command sees it read-only", other.display()));
                mounts.push(shown_read_only(&other)?);
            }
        }
        spec.set_mounts(Some(mounts));
        if let Some(linux) = spec.linux_mut() {
            let mut masked = linux.masked_paths().clone().unwrap_or_default();
            masked.push(self.base.to_str().ok_or_else(|| anyhow!("{} is no text", self.base.display()))?.to_owned());
            linux.set_masked_paths(Some(masked));
        }
        Ok(())
    }
}

/// The mounted view, and the process that serves it.
struct View(PathBuf);

impl View {
    fn mount(place: &Place, caller: &Caller) -> Result<Self> {
        let mut wanted = Options::new(place.view());
        wanted.lowers = vec!["/".into()];
        wanted.upper = Some(place.upper());
        wanted.work = Some(place.work());
        // Directories of others on the way to a plain user's own come into the upper with their owners in xattrs.
        if !caller.is_root() {
            own_by_others(&place.upper())?;
            wanted.ownership.xattr_permissions = options::XattrPermissions::User;
        }
        wanted.flags = options::MountFlags { allow_other: caller.is_root(), ..wanted.flags };
        match mount::daemonize().context("starting the filesystem")? {
            Side::Caller(waiting) => match waiting.wait() {
                Ok(()) => Ok(Self(place.view())),
                Err(text) => bail!("mounting the view: {text}"),
            },
            Side::Daemon(starting) => serve(&wanted, starting),
        }
    }

    /// Takes the view away and waits until everything is written.
    fn unmount(self) {
        if let Err(error) = mount::unmount(&self.0, true) {
            tracing::warn!("unmounting {}: {error}", self.0.display());
        }
        // The container is gone: the one child that is left serves the view.
        while let Err(rustix::io::Errno::INTR) = rustix::process::wait(rustix::process::WaitOptions::empty()) {}
    }
}

/// The filesystem's process. It ends with the one that started it.
fn serve(wanted: &Options, starting: mount::Starting) -> ! {
    let started = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(mount::mount(wanted)?));
    let mounted = match started {
        Ok(mounted) => mounted,
        Err(error) => {
            starting.failed(&format!("{error:#}"));
            std::process::exit(1);
        }
    };
    let served = starting.ready().map_err(anyhow::Error::from).and_then(|()| Ok(mounted.serve()?));
    std::process::exit(i32::from(served.is_err()))
}

/// Mountpoints of the host that a clone of its root does not show and the container does not have itself.
fn other_filesystems(mountinfo: &str, base: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in mountinfo.lines() {
        let Some(place) = line.split(' ').nth(4).filter(|place| !place.contains('\\')) else { continue };
        let place = Path::new(place);
        let own = ["/proc", "/sys", "/dev", "/run", "/tmp"].iter().any(|own| place.starts_with(own));
        let below = found.iter().any(|other| place.starts_with(other));
        if place != Path::new("/") && !own && !below && !place.starts_with(base) {
            found.push(place.to_owned());
        }
    }
    found
}

fn say(text: std::fmt::Arguments<'_>) {
    writeln!(std::io::stderr(), "lamel: {text}").ok();
}

fn list(changes: &[Change]) -> Result<()> {
    let mut err = std::io::stderr().lock();
    for change in changes.iter().take(MAX_LISTED) {
        err.write_all(&line(change)).and_then(|()| err.write_all(b"\n")).context("standard error")?;
    }
    if changes.len() > MAX_LISTED {
        writeln!(err, "… and {} more", changes.len() - MAX_LISTED).context("standard error")?;
    }
    Ok(())
}

/// A change as it is listed.
fn line(change: &Change) -> Vec<u8> {
    let mut line = format!("{} ", change.kind).into_bytes();
    line.extend_from_slice(change.path.as_os_str().as_bytes());
    line
}

fn fate(args: &Args, unchanged: bool) -> Result<Fate> {
    if let Some(name) = &args.keep {
        return Ok(Fate::Keep(name.clone()));
    }
    if unchanged {
        say(format_args!("nothing was changed"));
        return Ok(Fate::Drop);
    }
    if args.yes {
        return Ok(Fate::Apply);
    }
    if args.no {
        return Ok(Fate::Drop);
    }
    let mut input = std::io::stdin().lock();
    loop {
        let mut err = std::io::stderr();
        write!(err, "Apply these changes to this system? [y]es, [n]o, or keep NAME: ").and_then(|()| err.flush())?;
        let mut answer = String::new();
        if input.read_line(&mut answer).context("standard input")? == 0 {
            return Ok(Fate::Drop);
        }
        let words: Vec<&str> = answer.split_whitespace().collect();
        match words.as_slice() {
            ["y" | "yes"] => return Ok(Fate::Apply),
            ["n" | "no"] => return Ok(Fate::Drop),
            ["k" | "keep", name] => match check_name(name) {
                Ok(()) => return Ok(Fate::Keep((*name).to_owned())),
                Err(error) => complain("lamel", &error),
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_filesystems_are_found() {
        let table = "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /home rw - ext4 b rw\n3 2 8:3 / /home/x rw - ext4 c rw\n\
            4 1 0:5 / /proc rw - proc proc rw\n5 1 0:6 / /s/try/.1/view rw - fuse.lamel lamel rw\n";
        assert_eq!(other_filesystems(table, Path::new("/s/try")), [PathBuf::from("/home")]);
    }

    #[test]
    fn names_are_plain() {
        assert!(check_name("a.b-c_1").is_ok());
        for name in ["", ".", "..", "a/b", "-a", ".hidden", "a b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
