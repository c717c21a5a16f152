//! `lamel mount`, and the other programs and commands that mount and unmount.

pub(crate) mod face;
pub(crate) mod helper;
pub(crate) mod umount;

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use lamel_image::platform::Platform;
use lamel_image::reference::Reference;
use lamel_image::store::{Image, Named, Store};
use lamel_unionfs::Options;
use lamel_unionfs::options::Dialect;

use crate::image::{self, StoreArgs};
use crate::launch::{Below, launch, launch_over, warn};
use crate::log::LogArgs;

/// Mount an image, a stack of directories, or both; returns once the mount works
///
/// An image is mounted as it lies in the store: nothing is unpacked. Set-user-id programs and
/// device nodes of an image work where -o suid and -o dev say so.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Options of -o, as kernel overlayfs has them:
  lowerdir=TOP:…:BOTTOM  upperdir=DIR  workdir=DIR     \\: \\, \\\\ stand for a colon, comma, backslash
  redirect_dir=on|follow|nofollow|off  metacopy=on|off  index=on|off  xino=on|off|auto  userxattr  volatile
and besides:
  fsync=0|1 (as volatile, 0 syncs nothing: a crash of the machine may lose the upper)
  acl noacl  io=auto|cached|handles|passthrough  writeback=0|1  timeout=SECONDS  threads=N  spin=0|1
  uidmapping=C:H:N[:…]  gidmapping=C:H:N[:…]  squash_to_root  squash_to_uid=N  squash_to_gid=N
  overflow_uid=N  overflow_gid=N  xattr_permissions=0|1|2  static_nlink  ino32_t
  ro rw dev nodev suid nosuid exec noexec atime noatime relatime … allow_other default_permissions
  fsname=NAME  subtype=NAME  context=\"…\"

Examples:
  lamel mount debian:12 /mnt
  lamel mount debian:12 /mnt --upper /tmp/changes
  lamel mount --lower /usr --upper /tmp/changes /mnt")]
pub(crate) struct Args {
    /// Mount options between commas
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<OsString>,
    /// A read-only layer; the first one given is the top, and an image lies below all of them
    #[arg(long, value_name = "DIR")]
    lower: Vec<PathBuf>,
    /// The layer that takes the changes; without it the mount is read-only
    #[arg(long, value_name = "DIR")]
    upper: Option<PathBuf>,
    /// Take changes, and forget them when the image is unmounted
    #[arg(long, conflicts_with = "upper")]
    rw: bool,
    /// An empty directory on the upper's filesystem [default: .NAME.work beside the upper]
    #[arg(long, value_name = "DIR", requires = "upper")]
    work: Option<PathBuf>,
    /// Stay in the foreground until unmounted
    #[arg(short, long)]
    foreground: bool,
    /// Of an image for several platforms, the one for this [default: this host's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    #[command(flatten)]
    store: StoreArgs,
    /// A name or an id of an image, and the directory to mount on; or the directory alone
    #[arg(required = true, num_args = 1..=2, value_names = ["IMAGE", "MOUNTPOINT"])]
    places: Vec<OsString>,
}

/// Mounts.
pub(crate) fn run(mut args: Args, log: &LogArgs) -> Result<()> {
    let mountpoint = args.places.pop().context("no mountpoint")?;
    let image = match args.places.pop() {
        Some(name) => Some(Found::new(name, &args)?),
        None if args.rw => bail!("--rw is for images; name an upper layer by --upper"),
        None => None,
    };
    let mut options = Options::new(mountpoint);
    // As every mount that root makes; default_permissions guards it.
    options.flags.allow_other = rustix::process::geteuid().is_root();
    if let Some(found) = &image {
        // Whoever made it must not become root here, nor reach a disk.
        (options.flags.suid, options.flags.dev) = (false, false);
        options.flags.fsname = found.name();
    }
    for text in &args.options {
        options.parse(Dialect::Overlay, text)?;
    }
    if !args.lower.is_empty() {
        if !options.lowers.is_empty() {
            bail!("lower layers are given twice, by --lower and by -o lowerdir=");
        }
        options.lowers = args.lower;
    }
    let mut made = None;
    if let Some(upper) = args.upper {
        if options.upper.is_some() {
            bail!("the upper layer is given twice, by --upper and by -o upperdir=");
        }
        options.work = args.work.or(options.work);
        if options.work.is_none() {
            let work = default_work(&upper)?;
            made = Made::directory(&work)?;
            if made.is_none() {
                check_owner(&work, &upper)?;
            }
            options.work = Some(work);
        }
        options.upper = Some(upper);
    }
    if options.upper.is_some() && (options.volatile || !options.fsync) {
        warn("nothing is synced (volatile, fsync=0): a crash of this machine may lose the upper layer");
    }
    match image {
        Some(_) if args.rw && options.upper.is_some() => bail!("--rw and an upper layer exclude each other"),
        Some(found) => launch_over(options, move |options| found.open(args.rw, options), args.foreground, log)?,
        None => launch(options, args.foreground, log)?,
    }
    if let Some(made) = made {
        made.keep();
    }
    Ok(())
}

/// The image that is mounted.
struct Found {
    store: Store,
    named: Named,
    image: Image,
}

impl Found {
    fn new(name: OsString, args: &Args) -> Result<Self> {
        let name = name.into_string().map_err(|name| anyhow!("{} is no name of an image", name.display()))?;
        let store = args.store.open()?;
        let (named, image) = image::find(&store, &name, args.platform.as_ref())?;
        Ok(Self { store, named, image })
    }

    /// What mountinfo shows: its name as it is written in full, which no option's separator is in.
    fn name(&self) -> String {
        self.named.name.as_ref().map_or_else(|| self.image.id().to_string(), Reference::to_string)
    }

    /// Opens its layers, and a place for changes that are not kept.
    fn open(&self, rw: bool, options: &mut Options) -> Result<Below> {
        let opened = self.store.open_image(&self.image)?;
        let mut below = Below { layers: vec![opened.layer.clone()], held: vec![Box::new(opened)] };
        if rw {
            let scratch = self.store.scratch()?;
            (options.upper, options.work) = (Some(scratch.dir()?), Some(scratch.dir()?));
            // Nobody will look at it again.
            options.volatile = true;
            below.held.push(Box::new(scratch));
        }
        Ok(below)
    }
}

/// `.NAME.work` beside the upper: on the same filesystem, unless the upper is where one is mounted.
fn default_work(upper: &Path) -> Result<PathBuf> {
    let upper = upper.canonicalize().with_context(|| format!("upper layer {}", upper.display()))?;
    let (Some(parent), Some(name)) = (upper.parent(), upper.file_name()) else {
        bail!("upper layer {} has no place beside it; name a workdir by --work", upper.display());
    };
    let mut work = OsString::from(".");
    work.push(name);
    work.push(".work");
    Ok(parent.join(work))
}

/// Refuses a workdir that somebody else laid ready under its well-known name, as anybody can in `/tmp`: who owns it has
/// a say in what the mount shows. Whoever owns the upper has that anyway.
fn check_owner(work: &Path, upper: &Path) -> Result<()> {
    let found = work.symlink_metadata().with_context(|| work.display().to_string())?;
    let owners = [rustix::process::geteuid().as_raw(), upper.metadata()?.uid()];
    if !found.is_dir() || !owners.contains(&found.uid()) {
        bail!("workdir {}: is no directory of yours; remove it, or name another by --work", work.display());
    }
    Ok(())
}

/// A directory that was made for a mount, and goes with it if the mount fails.
#[derive(Debug)]
struct Made(PathBuf);

impl Made {
    /// `None` if it was there before.
    fn directory(path: &Path) -> Result<Option<Self>> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => Ok(Some(Self(path.to_owned()))),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("making the workdir {}; name another by --work", path.display()))
            }
        }
    }

    fn keep(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        // Only what the mount itself makes is taken along, and only while empty.
        for inside in ["work", "index"] {
            std::fs::remove_dir(self.0.join(inside)).ok();
        }
        std::fs::remove_dir(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workdir_lies_beside_the_upper() {
        let place = tempfile::tempdir().unwrap();
        let upper = place.path().canonicalize().unwrap().join("up");
        std::fs::create_dir(&upper).unwrap();
        let work = default_work(&upper.join("../up/")).unwrap();
        assert_eq!(work, upper.with_file_name(".up.work"));
        assert!(default_work(Path::new("/")).is_err());
        assert!(default_work(&upper.join("missing")).is_err());
        let made = Made::directory(&work).unwrap().unwrap();
        std::fs::create_dir(work.join("work")).unwrap();
        drop(made);
        assert!(!work.exists());
        Made::directory(&work).unwrap().unwrap().keep();
        assert!(work.exists());
        assert!(Made::directory(&work).unwrap().is_none());
    }
}
