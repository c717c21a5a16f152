//! `lamel cp`

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use lamel_image::archive::{Mounts, export_tree};
use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::Errno;

use super::copy::mounts;
use super::copy::root::{Root, above, asks_for_directory, base, wants_content};
use super::copy::through_pipe;
use super::copy::unpack::{Lost, Owner, Unpack};
use super::layers::{Running, maps, root_of};
use super::monitor::union;
use super::namespace::{self, Ids};
use super::record::Record;
use super::start;
use crate::image::StoreArgs;
use crate::launch::warn;
use crate::output::human;
use crate::run::identity::Maps;

/// Symlinks that are followed to the file that is written.
const MOST_LINKS: u32 = 40;

/// Copy files between a container and this system
///
/// A file goes to the path that is given, or into the directory that is there. A directory goes into one that is
/// there, or becomes the path that is given; with `/.` at its end, what is in it is copied. Volumes and directories
/// of the host are seen as the container sees them, whether it runs or not; its other mounts are there while it
/// runs. What is copied belongs to whoever copies, in the container to its root.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Keep owners, set-id bits, devices and all extended attributes
    #[arg(short, long)]
    archive: bool,
    /// Copy what a symlink at SRC leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing at the end
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path of this system, or `-`: a tar from standard input, which is unpacked
    source: OsString,
    /// The same; `-`: a tar to standard output
    destination: OsString,
}

/// One end of a copy.
enum End {
    Host(PathBuf),
    Container(String, PathBuf),
    Stream,
}

impl End {
    /// As docker tells them apart: what begins with `/` or `.` is a path of the host, and so is what has no colon.
    fn parse(text: &OsString) -> Result<Self> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        let bytes = text.as_encoded_bytes();
        let colon = bytes.iter().position(|byte| *byte == b':').filter(|_| !matches!(bytes.first(), Some(b'/' | b'.')));
        let Some(colon) = colon else { return Ok(Self::Host(absolute(Path::new(text))?)) };
        use std::os::unix::ffi::OsStrExt as _;
        let (name, path) = bytes.split_at(colon);
        let name = std::str::from_utf8(name).context("the container's name")?.to_owned();
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(path.get(1..).unwrap_or_default()));
        if path.as_os_str().is_empty() {
            bail!("{}: the path in the container is missing", text.display());
        }
        // Relative paths are from the container's root.
        let path = if path.is_absolute() { path } else { PathBuf::from(prefixed(&path)) };
        Ok(Self::Container(name, path))
    }
}

/// `/PATH`, with whatever stands at its end.
fn prefixed(path: &Path) -> OsString {
    let mut text = OsString::from("/");
    text.push(path);
    text
}

/// An absolute path that keeps its `/.` or `/`.
fn absolute(path: &Path) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let mut text = std::env::current_dir().context("the current directory")?.into_os_string();
    text.push("/");
    text.push(path);
    Ok(text.into())
}

/// Copies.
pub(super) fn run(args: &Args) -> Result<()> {
    let containers = super::containers(&args.store)?;
    let way = match (End::parse(&args.source)?, End::parse(&args.destination)?) {
        (End::Container(name, path), End::Host(to)) => (name, Way::Out(path, Some(to))),
        (End::Container(name, path), End::Stream) => (name, Way::Out(path, None)),
        (End::Host(from), End::Container(name, path)) => (name, Way::In(Some(from), path)),
        (End::Stream, End::Container(name, path)) => (name, Way::In(None, path)),
        (End::Container(..), End::Container(..)) => bail!("copying between containers is not supported"),
        _ => bail!("must specify at least one container source: CONTAINER:PATH"),
    };
    let (name, way) = way;
    let record = containers.find(&name)?;
    let copy = Copy { args, way, shown: args.destination.display().to_string() };
    copy.run(&record).with_context(|| format!("copying from {} to {}", args.source.display(), copy.shown))
}

/// Which way a copy goes, and from where to where.
enum Way {
    /// Out of the container, to the host or a stream.
    Out(PathBuf, Option<PathBuf>),
    /// Into the container, from the host or a stream.
    In(Option<PathBuf>, PathBuf),
}

struct Copy<'a> {
    args: &'a Args,
    way: Way,
    shown: String,
}

impl Copy<'_> {
    fn run(&self, record: &Record) -> Result<()> {
        let running = Running::hold(record, false)?;
        let spec = record.spec()?;
        let ids = maps(&spec);
        let is_root = rustix::process::geteuid().is_root();
        // Ids as this process sees them: in the container's user namespace they are the container's.
        let inside = Inside(ids.clone().filter(|_| is_root));
        if let Some(process) = &running.root {
            let copy = || self.copy(&Root::confined(root_of(process)?), &inside);
            return match running.monitor {
                Some(pid) if !is_root => namespace::aside(Ids::Of(pid), false, copy),
                _ => copy(),
            };
        }
        let open = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(record.root(), flags, Mode::empty());
            Ok::<_, anyhow::Error>(Root::confined(root.with_context(|| record.root().display().to_string())?))
        };
        let ids = match &ids {
            Some(maps) if !is_root => Ids::Mapped(maps),
            _ => Ids::Own,
        };
        let image = match record.settings.rootfs {
            Some(_) => None,
            None => Some(start::image(&self.args.store, record)?),
        };
        // Mounted for the time of the copy, where nobody else sees it.
        namespace::aside(ids, true, || {
            let union = match &image {
                Some((store, image)) => Some(union::mount(record, store, image, &spec, running.fresh)?),
                None => None,
            };
            let copied = open().and_then(|root| {
                mounts::bind(&root, spec.mounts().as_deref().unwrap_or_default(), record.dir());
                self.copy(&root, &inside)
            });
            if let Some(union) = union {
                union.unmount(Some(union::PATIENCE));
            }
            copied
        })
    }

    fn copy(&self, root: &Root, inside: &Inside) -> Result<()> {
        let host = Root::host()?;
        let (bytes, lost) = match &self.way {
            Way::Out(from, None) => {
                let (object, name) = self.source(root, from)?;
                let out = io::stdout();
                if io::IsTerminal::is_terminal(&out) {
                    bail!("cannot copy to a terminal: redirect the output, or name a file");
                }
                export_tree(object, name.as_encoded_bytes(), Mounts::Enter, out.lock())?;
                return Ok(());
            }
            Way::Out(from, Some(to)) => {
                let owner = if self.args.archive { Owner::Kept } else { Owner::Me };
                self.transfer((root, from), (&host, to), owner)?
            }
            Way::In(Some(from), to) => {
                let owner = if self.args.archive { inside.kept() } else { inside.root() };
                self.transfer((&host, from), (root, to), owner)?
            }
            Way::In(None, to) => {
                let there = root.find(to, true).with_context(|| to.display().to_string())?;
                if kind(&there)? != FileType::Directory {
                    bail!("{}: the destination of a tar must be a directory", to.display());
                }
                // A tar says whose things are.
                let unpack = Unpack { root, base: to.clone(), owner: inside.kept(), with_root: false };
                return report(unpack.run(io::stdin())?);
            }
        };
        if !self.args.quiet {
            warn(&format!("Successfully copied {} to {}", human::size(bytes), self.shown));
        }
        report(lost)
    }

    /// The object that is copied, and its name in the archive: `.` where what is in it is meant.
    fn source(&self, root: &Root, path: &Path) -> Result<(OwnedFd, OsString)> {
        let object = root.find(path, self.args.follow_link || asks_for_directory(path));
        let object = object.with_context(|| path.display().to_string())?;
        if asks_for_directory(path) && kind(&object)? != FileType::Directory {
            return Err(Errno::NOTDIR).with_context(|| path.display().to_string());
        }
        let name = base(path).filter(|_| !wants_content(path)).map_or_else(|| ".".into(), ToOwned::to_owned);
        Ok((object, name))
    }

    /// Copies from one root to another by docker's rules.
    fn transfer(&self, from: (&Root, &Path), to: (&Root, &Path), owner: Owner) -> Result<(u64, Lost)> {
        let (object, own) = self.source(from.0, from.1)?;
        let is_dir = kind(&object)? == FileType::Directory;
        let (root, path) = to;
        let there = match root.find(path, true) {
            Ok(there) => Some(kind(&there)?),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno).with_context(|| path.display().to_string()),
        };
        let (dir, name) = match (there, is_dir) {
            (Some(FileType::Directory), _) => (path.to_owned(), own),
            (Some(_), true) => bail!("cannot copy a directory to a file: {}", path.display()),
            (Some(_), false) if asks_for_directory(path) => {
                return Err(Errno::NOTDIR).with_context(|| path.display().to_string());
            }
            (Some(_), false) => named(&end_of_links(root, path)?)?,
            (None, false) if asks_for_directory(path) => {
                bail!("the destination directory must exist: {}", path.display());
            }
            (None, _) => named(path)?,
        };
        // Said before anything is read.
        root.directory(&dir).with_context(|| format!("the destination directory {}", dir.display()))?;
        let unpack = Unpack { root, base: dir, owner, with_root: false };
        let mut lost = Lost::default();
        let exported = through_pipe(
            |out| Ok(export_tree(object, name.as_encoded_bytes(), Mounts::Enter, out)?),
            |tar| {
                lost = unpack.run(tar)?;
                Ok(())
            },
        )?;
        Ok((exported.bytes, lost))
    }
}

/// How ids of the container are given to its files from here; `None`: as they are.
struct Inside(Option<Maps>);

impl Inside {
    fn root(&self) -> Owner {
        let (uid, gid) = self.0.as_ref().map_or((0, 0), |maps| maps.outside(0, 0));
        Owner::Fixed(uid, gid)
    }

    fn kept(&self) -> Owner {
        self.0.clone().map_or(Owner::Kept, Owner::Shifted)
    }
}

fn kind(object: &OwnedFd) -> Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(object)?.st_mode))
}

/// The directory that a new path is in, and its name there.
fn named(path: &Path) -> Result<(PathBuf, OsString)> {
    let name = base(path).ok_or_else(|| anyhow!("{} cannot be made", path.display()))?;
    Ok((above(path), name.to_owned()))
}

/// The path of the file itself that symlinks at the end of a path lead to; it is looked up again when it is written.
fn end_of_links(root: &Root, path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let object = root.find(&path, false).with_context(|| path.display().to_string())?;
        if kind(&object)? != FileType::Symlink {
            return Ok(path);
        }
        use std::os::unix::ffi::OsStringExt as _;
        let target = rustix::fs::readlinkat(&object, "", Vec::new()).with_context(|| path.display().to_string())?;
        path = above(&path).join(PathBuf::from(OsString::from_vec(target.into_bytes())));
    }
    Err(Errno::LOOP).with_context(|| path.display().to_string())
}

fn report(lost: Lost) -> Result<()> {
    if lost.owners > 0 {
        warn(&format!("{} objects belong to whoever copied: their owners cannot be given here", lost.owners));
    }
    if lost.devices > 0 {
        warn(&format!("{} devices were left out: root copies them with --archive", lost.devices));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart_as_docker_does() {
        let container = |text: &str| match End::parse(&text.into()).unwrap() {
            End::Container(name, path) => Some((name, path)),
            _ => None,
        };
        assert_eq!(container("c:/a/."), Some(("c".to_owned(), "/a/.".into())));
        assert_eq!(container("c:etc/x"), Some(("c".to_owned(), "/etc/x".into())));
        assert_eq!(container("c:a:b"), Some(("c".to_owned(), "/a:b".into())));
        for text in ["/a:b", "./a:b", "a", "-", "../x:y"] {
            assert!(container(text).is_none(), "{text}");
        }
        assert!(End::parse(&"c:".into()).is_err());
    }
}
