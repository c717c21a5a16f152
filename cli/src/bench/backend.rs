//! Ways to have the tree: which there are, and how each is set up and taken down.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_bind, mount_remount, move_mount,
};

use super::copy::copy_tree;
use super::engine::Engine;
use super::input::{Input, Part};
use super::machine::version;
use super::result::BackendFacts;
use super::sys;

/// One way to have the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    /// As it was asked for.
    pub(crate) name: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// The merged tree as plain files.
    Native,
    /// The same in a directory of the user's, whatever that is mounted from.
    Directory(PathBuf),
    /// Linux's own.
    Overlayfs { options: String },
    /// A program that serves a union on FUSE.
    Fuse { dialect: Dialect, program: Option<PathBuf>, options: String },
}

/// Whose command line a program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Lamel,
    FuseOverlayfs,
}

/// What `--on` takes.
pub(crate) const FORMS: &str = "native, overlayfs[:OPTIONS], fuse-overlayfs[:/PROGRAM][:OPTIONS], \
    lamel[:/PROGRAM][:OPTIONS], dir:PATH";

/// How long a mount may take to work, and a daemon to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Backends in the text of `--on`. A comma also parts mount options: what names no backend belongs to the one before.
pub(crate) fn parse_list(text: &str) -> Result<Vec<Backend>> {
    let mut names: Vec<String> = Vec::new();
    for piece in text.split(',') {
        let kind = piece.split(':').next().unwrap_or_default();
        if matches!(kind, "native" | "overlayfs" | "fuse-overlayfs" | "lamel" | "dir") {
            names.push(piece.to_owned());
            continue;
        }
        match names.last_mut() {
            Some(last) if last.contains(':') => {
                last.push(',');
                last.push_str(piece);
            }
            _ => bail!("--on: no backend {piece:?}; there are {FORMS}"),
        }
    }
    names.into_iter().map(Backend::parse).collect()
}

impl Backend {
    fn parse(name: String) -> Result<Self> {
        let (word, rest) = name.split_once(':').unwrap_or((&name, ""));
        let fuse = |dialect| {
            let (program, options) = match rest.split_once(':') {
                _ if !rest.starts_with('/') => (None, rest),
                Some((program, options)) => (Some(program.into()), options),
                None => (Some(rest.into()), ""),
            };
            Kind::Fuse { dialect, program, options: options.to_owned() }
        };
        let kind = match word {
            "native" if rest.is_empty() => Kind::Native,
            "dir" if !rest.is_empty() => Kind::Directory(rest.into()),
            "overlayfs" => Kind::Overlayfs { options: rest.to_owned() },
            "fuse-overlayfs" => fuse(Dialect::FuseOverlayfs),
            "lamel" => fuse(Dialect::Lamel),
            _ => bail!("--on: {name:?} is none of {FORMS}"),
        };
        Ok(Self { name, kind })
    }

    /// Whether it is lamel, which the comparisons are about.
    pub(crate) fn is_lamel(name: &str) -> bool {
        name == "lamel" || name.starts_with("lamel:")
    }

    /// Whether it stacks layers, or is an engine: what a ratio to a peer is taken of.
    pub(crate) fn is_peer(name: &str) -> bool {
        ["overlayfs", "fuse-overlayfs"].contains(&name.split(':').next().unwrap_or_default()) || Engine::is_peer(name)
    }

    /// Whether there are layers below that something can be copied up from.
    pub(crate) fn is_union(&self) -> bool {
        matches!(self.kind, Kind::Overlayfs { .. } | Kind::Fuse { .. })
    }

    /// The directory that it fills, if it needs one outside of [`Place`].
    pub(crate) fn filled(&self) -> Option<PathBuf> {
        match &self.kind {
            Kind::Directory(path) => Some(path.join(format!(".lamel-bench-{}", std::process::id()))),
            _ => None,
        }
    }

    /// What the report says of it; an error if there is no such program or directory.
    pub(crate) fn facts(&self, userns: bool) -> Result<BackendFacts> {
        let (version, options) = match &self.kind {
            Kind::Native => ("-".to_owned(), String::new()),
            Kind::Directory(path) => {
                if !path.is_dir() {
                    bail!("{}: {} is no directory", self.name, path.display());
                }
                (super::machine::filesystem(path), String::new())
            }
            Kind::Overlayfs { options } => {
                let release = rustix::system::uname().release().to_string_lossy().into_owned();
                (release, if userns { with(options, "userxattr") } else { options.clone() })
            }
            Kind::Fuse { dialect, program, options } => {
                let program = program_of(*dialect, program.as_deref())?;
                let mut version = version(&program).with_context(|| self.name.clone())?;
                if cfg!(debug_assertions) && self.name == "lamel" {
                    version.push_str(" (a debug build: its speed means nothing)");
                }
                (version, options.clone())
            }
        };
        Ok(BackendFacts { name: self.name.clone(), version, options })
    }

    /// Sets it up in `place`, with what of `parts` is in the input.
    pub(crate) fn mount(&self, input: &Input, place: &Place, parts: &[Part], writes: bool) -> Result<Mount> {
        let mountpoint = place.base.join("mnt");
        let mut mount = Mount { root: mountpoint.clone(), kind: MountKind::Plain, log: place.base.join("log") };
        match &self.kind {
            Kind::Native if !writes && place.may_mount => {
                mount_bind(&input.merged, &mountpoint).context("binding the merged tree")?;
                mount.kind = MountKind::Kernel;
                // What is kept between runs must not be changed by a workload that says that it only reads.
                let read_only = MountFlags::BIND | MountFlags::RDONLY;
                mount_remount(&mountpoint, read_only, c"").context("making the merged tree read-only")?;
            }
            Kind::Native if !writes => mount.root.clone_from(&input.merged),
            Kind::Native => fill(input, parts, &mountpoint)?,
            Kind::Directory(path) => {
                mount.root = self.filled().unwrap_or_else(|| path.clone());
                mount.kind = MountKind::Filled;
                fs::create_dir(&mount.root).with_context(|| mount.root.display().to_string())?;
                fill(input, parts, &mount.root)?;
            }
            Kind::Overlayfs { options } => {
                let options = if place.userns { with(options, "userxattr") } else { options.clone() };
                overlayfs(input, place, &mountpoint, &options)?;
                mount.kind = MountKind::Kernel;
            }
            Kind::Fuse { dialect, program, options } => {
                let program = program_of(*dialect, program.as_deref())?;
                let mut command = Command::new(program);
                match (dialect, &input.stored) {
                    (Dialect::Lamel, Some(words)) => {
                        command.args(["mount", "--foreground", "-o"]).arg(upper_options(place, options));
                        command.args(words);
                    }
                    (Dialect::Lamel, None) => {
                        command.args(["mount", "--foreground", "-o"]).arg(stack_options(input, place, options));
                    }
                    (Dialect::FuseOverlayfs, _) => {
                        command.args(["-f", "-o"]).arg(stack_options(input, place, options));
                    }
                }
                command.arg(&mountpoint);
                mount.serve(command, &mountpoint)?;
            }
        }
        Ok(mount)
    }
}

/// Where a run's changes go.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Holds `upper`, `work`, `mnt`, `log` and `aside`.
    pub(crate) base: PathBuf,
    pub(crate) userns: bool,
    pub(crate) may_mount: bool,
}

impl Place {
    /// Makes its directories.
    pub(crate) fn make(&self) -> Result<()> {
        for name in ["upper", "work", "mnt", "aside"] {
            let path = self.base.join(name);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// Removes it with all that the workload has left.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.base) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.base.display()))
            }
            _ => Ok(()),
        }
    }
}

/// A backend that is set up. Taken down when dropped, then without a verdict.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) root: PathBuf,
    kind: MountKind,
    log: PathBuf,
}

#[derive(Debug)]
enum MountKind {
    /// Nothing to take down.
    Plain,
    /// A directory of ours in one of the user's.
    Filled,
    Kernel,
    Served(Child),
}

impl Mount {
    /// The process that serves it.
    pub(crate) fn daemon(&self) -> Option<u32> {
        match &self.kind {
            MountKind::Served(child) => Some(child.id()),
            _ => None,
        }
    }

    /// Starts the program, and waits until its mount works.
    fn serve(&mut self, mut command: Command, mountpoint: &Path) -> Result<()> {
        let log = File::create(&self.log).with_context(|| self.log.display().to_string())?;
        let bare = device(mountpoint)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        sys::die_with_parent(&mut command);
        let child = command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
        self.kind = MountKind::Served(child);
        let start = Instant::now();
        // The first answer comes when the daemon serves; no longer pause, the mount time is measured by this.
        while device(mountpoint)? == bare {
            if let MountKind::Served(child) = &mut self.kind
                && let Some(status) = child.try_wait().context("waiting for the daemon")?
            {
                self.kind = MountKind::Plain;
                bail!("{:?} ended ({status}): {}", command.get_program(), self.last_words());
            }
            if start.elapsed() > PATIENCE {
                bail!("{:?}: no mount after {} s: {}", command.get_program(), PATIENCE.as_secs(), self.last_words());
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        Ok(())
    }

    /// The end of what a daemon wrote.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        if lines.is_empty() { "it said nothing".to_owned() } else { lines.join("; ") }
    }

    /// Takes it down; an error if that did not go as it should.
    pub(crate) fn unmount(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        let root = self.root.clone();
        match std::mem::replace(&mut self.kind, MountKind::Plain) {
            MountKind::Plain => Ok(()),
            MountKind::Filled => fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display())),
            MountKind::Kernel => patiently(|| rustix::mount::unmount(&root, UnmountFlags::empty()))
                .inspect_err(|_| {
                    rustix::mount::unmount(&root, UnmountFlags::DETACH).ok();
                })
                .with_context(|| format!("unmounting {}", root.display())),
            MountKind::Served(mut child) => {
                let unmounted = lamel_unionfs::mount::unmount(&root, false).or_else(|_| {
                    std::thread::sleep(Duration::from_millis(200));
                    lamel_unionfs::mount::unmount(&root, false)
                });
                if unmounted.is_err() {
                    lamel_unionfs::mount::unmount(&root, true).ok();
                }
                let ended = wait(&mut child);
                unmounted.with_context(|| format!("unmounting {}", root.display()))?;
                ended
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            tracing::warn!("{error:#}");
        }
    }
}

/// Waits for a daemon to end, and ends it if it does not.
fn wait(child: &mut Child) -> Result<()> {
    let start = Instant::now();
    loop {
        match child.try_wait().context("waiting for the daemon")? {
            Some(_) => return Ok(()),
            None if start.elapsed() > PATIENCE => {
                child.kill().and_then(|()| child.wait()).context("killing the daemon")?;
                bail!("the daemon had not ended {} s after the unmount and was killed", PATIENCE.as_secs());
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Tries again while a mount is in use: the kernel lets go of a last file a little later.
fn patiently(mut act: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    for _ in 0..100 {
        match act() {
            Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(10)),
            other => return other,
        }
    }
    act()
}

fn device(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| path.display().to_string())?.dev())
}

/// Copies parts of the merged tree.
fn fill(input: &Input, parts: &[Part], to: &Path) -> Result<()> {
    for part in parts.iter().filter_map(|part| input.part(*part)) {
        if part == Path::new(".") {
            // The whole tree; a second part is in it already.
            for entry in fs::read_dir(&input.merged).context("reading the tree")? {
                let name = entry.context("reading the tree")?.file_name();
                copy_tree(&input.merged.join(&name), &to.join(&name))?;
            }
            return Ok(());
        }
        let target = to.join(&part);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        copy_tree(&input.merged.join(&part), &target)?;
    }
    Ok(())
}

fn program_of(dialect: Dialect, program: Option<&Path>) -> Result<PathBuf> {
    match (program, dialect) {
        (Some(program), _) => Ok(program.to_owned()),
        (None, Dialect::Lamel) => std::env::current_exe().context("the path of this program"),
        (None, Dialect::FuseOverlayfs) => Ok("fuse-overlayfs".into()),
    }
}

/// One more option.
fn with(options: &str, another: &str) -> String {
    if options.is_empty() { another.to_owned() } else { format!("{another},{options}") }
}

/// `lowerdir=…,upperdir=…,workdir=…` and what was asked for.
fn stack_options(input: &Input, place: &Place, more: &str) -> OsString {
    let mut text = OsString::from("lowerdir=");
    for (at, layer) in input.layers.iter().enumerate() {
        text.push(if at > 0 { ":" } else { "" });
        text.push(layer);
    }
    text.push(",");
    text.push(upper_options(place, more));
    text
}

/// `upperdir=…,workdir=…` and what was asked for.
fn upper_options(place: &Place, more: &str) -> OsString {
    let mut text = OsString::from("upperdir=");
    text.push(place.base.join("upper"));
    text.push(",workdir=");
    text.push(place.base.join("work"));
    if !more.is_empty() {
        text.push(",");
        text.push(more);
    }
    text
}

/// Mounts Linux's overlayfs.
fn overlayfs(input: &Input, place: &Place, mountpoint: &Path, options: &str) -> Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| match errno {
        Errno::NODEV => anyhow!("this kernel has no overlayfs"),
        Errno::PERM => anyhow!("mounting overlayfs needs root, or a user namespace: --userns"),
        errno => anyhow!("fsopen: {errno}"),
    })?;
    let done = (|| {
        // One by one: a single string is limited to 255 bytes here, and to a page by mount(2).
        for layer in &input.layers {
            fsconfig_set_string(&context, "lowerdir+", layer)?;
        }
        fsconfig_set_string(&context, "upperdir", place.base.join("upper"))?;
        fsconfig_set_string(&context, "workdir", place.base.join("work"))?;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(&context, key, value)?,
                None => fsconfig_set_flag(&context, option)?,
            }
        }
        fsconfig_create(&context)
    })();
    if let Err(errno) = done {
        // The kernel's own words come from the context, a line a read.
        let mut words = vec![0; 512];
        let mut said = String::new();
        while let Ok(length @ 1..) = rustix::io::read(&context, &mut words) {
            said.push_str(&String::from_utf8_lossy(words.get(..length).unwrap_or_default()));
        }
        bail!("overlayfs: {errno}: {}", if said.is_empty() { "no reason given" } else { said.trim() });
    }
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).context("fsmount")?;
    move_mount(&mount, c"", CWD, mountpoint, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .with_context(|| mountpoint.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        parse_list(text).unwrap().into_iter().map(|backend| backend.name).collect()
    }

    #[test]
    fn options_keep_their_commas() {
        assert_eq!(names("native,lamel:a=1,b,dir:/x,overlayfs"), ["native", "lamel:a=1,b", "dir:/x", "overlayfs"]);
        for bad in ["nativ", "lamel,threads=1", "native:x", "dir:", ""] {
            assert!(parse_list(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_program_is_told_from_options() {
        let kind = |text: &str| parse_list(text).unwrap().remove(0).kind;
        let fuse = |dialect, program: Option<&str>, options: &str| Kind::Fuse {
            dialect,
            program: program.map(PathBuf::from),
            options: options.to_owned(),
        };
        assert_eq!(kind("lamel"), fuse(Dialect::Lamel, None, ""));
        assert_eq!(kind("lamel:threads=2"), fuse(Dialect::Lamel, None, "threads=2"));
        assert_eq!(kind("fuse-overlayfs:/opt/x"), fuse(Dialect::FuseOverlayfs, Some("/opt/x"), ""));
        assert_eq!(kind("lamel:/opt/x:a,b"), fuse(Dialect::Lamel, Some("/opt/x"), "a,b"));
        assert!(Backend::is_lamel("lamel:/opt/x:a,b") && !Backend::is_peer("lamel"));
        assert!(Backend::is_peer("fuse-overlayfs:/opt/x") && !Backend::is_peer("native"));
    }
}
