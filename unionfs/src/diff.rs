//! What an upper layer changes, read off the upper: every object that it holds
//! is a change or the way to one, so that the time is that of the upper's size.
//!
//! The lower layers, if they are known, say what was at a path before; one look
//! at each path of the upper, and a listing only where the upper replaces a
//! whole directory. Without them the upper's own marks tell what was copied up.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, OpenError, Result};
use crate::inode::{Inode, ROOT_INO};
use crate::layer::{Layer, Listed, list_dir};
use crate::options::Options;
use crate::sys::at;
use crate::sys::xattr::Target;
use crate::union::UnionFs;
use crate::whiteout::{self, Markers, Marks, Namespace, Redirect};

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing was there before.
    Added,
    /// Something was there before.
    Changed,
    /// Nothing is there any more.
    Deleted,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "A",
            Self::Changed => "C",
            Self::Deleted => "D",
        })
    }
}

/// One line of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// From the mount's root, beginning with `/`.
    pub path: PathBuf,
    /// What became of it.
    pub kind: Kind,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The upper cannot be opened.
    #[error("upper layer {path}: {source}", path = .path.display())]
    Upper {
        /// As it was given.
        path: PathBuf,
        /// What the kernel answered.
        source: Errno,
    },
    /// The lower layers cannot be opened.
    #[error(transparent)]
    Lowers(#[from] OpenError),
    /// Something in a layer cannot be read.
    #[error("{path}: {source}", path = .path.display())]
    Read {
        /// The directory, from the mount's root.
        path: PathBuf,
        /// What happened.
        source: Error,
    },
}

/// The changes that `upper` makes to `lowers` (top first), sorted by path.
///
/// A directory that replaces another one is a change, and what the other one
/// held and it does not is deleted; a renamed directory is deleted there and
/// added here, without a line for what it brought along. With no `lowers` the
/// upper's marks decide: an object that was not copied up counts as added.
pub fn diff(upper: &Path, lowers: &[PathBuf]) -> Result<Vec<Change>, DiffError> {
    diff_over(upper, lowers, &[])
}

/// The same with more layers, of any kind, below the directories.
///
/// # Errors
/// A layer cannot be read.
pub fn diff_over(upper: &Path, lowers: &[PathBuf], below: &[Arc<dyn Layer>]) -> Result<Vec<Change>, DiffError> {
    let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(upper, open, Mode::empty())
        .map_err(|source| DiffError::Upper { path: upper.to_owned(), source })?;
    let below = match (lowers, below) {
        ([], []) => None,
        _ => Some(UnionFs::open_over(&Options { lowers: lowers.to_vec(), ..Options::new("/") }, below)?),
    };
    let mut walk = Walk { below: below.as_ref(), changes: Vec::new(), todo: Vec::new() };
    let at_root = |source| DiffError::Read { path: "/".into(), source };
    let before = below.as_ref().map(|below| below.inodes.get(ROOT_INO)).transpose().map_err(at_root)?;
    let root = Arc::new(root);
    let whole = Dir {
        path: OsString::new(),
        parent: Arc::clone(&root),
        name: ".".into(),
        before,
        under: Under::Itself,
        added: false,
    };
    walk.todo.push(whole);
    while let Some(dir) = walk.todo.pop() {
        walk.directory(&dir).map_err(|source| {
            let path = if dir.path.is_empty() { "/".into() } else { PathBuf::from(&dir.path) };
            DiffError::Read { path, source }
        })?;
    }
    walk.changes.sort_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
    Ok(walk.changes)
}

/// What shines through a directory of the upper.
#[derive(Clone)]
enum Under {
    /// What was at its path before.
    Itself,
    /// Something else: nothing, or what a redirect leads to.
    Other(Option<Arc<Inode>>),
}

/// A directory of the upper that is still to be read.
struct Dir {
    /// From the mount's root; empty for the root.
    path: OsString,
    parent: Arc<OwnedFd>,
    name: OsString,
    /// The directory that was at this path before, if the lower layers are known.
    before: Option<Arc<Inode>>,
    under: Under,
    /// Nothing was at this path before, as far as marks tell.
    added: bool,
}

struct Walk<'a> {
    below: Option<&'a UnionFs>,
    changes: Vec<Change>,
    /// Trees are as deep as a program made them: no recursion.
    todo: Vec<Dir>,
}

impl Walk<'_> {
    fn directory(&mut self, dir: &Dir) -> Result<()> {
        let fd = match at::open_dir(dir.parent.as_fd(), &dir.name) {
            Ok(fd) => Arc::new(fd),
            // Removed since it was listed, in a mount that is being worked in.
            Err(error) if error.errno() == Errno::NOENT => return Ok(()),
            Err(error) => return Err(error),
        };
        let marks = read_marks(Target::At(fd.as_fd(), OsStr::new(".")))?;
        let (mut entries, mut deleted) = (Vec::new(), BTreeSet::new());
        list_dir(&fd, marks.xwhiteouts, &mut |listed| {
            match listed {
                Listed::Whiteout(name) => drop(deleted.insert(name.to_owned())),
                Listed::Entry(name, _, format) => entries.push((name.to_owned(), format)),
            }
            Ok(())
        })?;
        let present: HashSet<&OsStr> = entries.iter().map(|(name, _)| name.as_os_str()).collect();
        for name in &deleted {
            if !present.contains(name.as_os_str()) && self.was_there(dir, name)? {
                self.push(dir, name, Kind::Deleted);
            }
        }
        if let Under::Other(_) = &dir.under {
            self.hidden(dir, &present, &deleted)?;
        }
        for (name, format) in &entries {
            self.entry(dir, &fd, name, *format, deleted.contains(name))?;
        }
        Ok(())
    }

    fn push(&mut self, dir: &Dir, name: &OsStr, kind: Kind) {
        self.changes.push(Change { path: PathBuf::from(path_of(dir, name)), kind });
    }

    /// Whether a whiteout deletes something. Without lower layers it is taken at its word.
    fn was_there(&self, dir: &Dir, name: &OsStr) -> Result<bool> {
        match (self.below, &dir.before) {
            (Some(below), Some(before)) => Ok(below.find(before, name)?.is_some()),
            (Some(_), None) => Ok(false),
            (None, _) => Ok(!dir.added),
        }
    }

    /// What was in a directory before and does not shine through the one that replaces it.
    fn hidden(&mut self, dir: &Dir, present: &HashSet<&OsStr>, deleted: &BTreeSet<OsString>) -> Result<()> {
        let (Some(below), Some(before)) = (self.below, &dir.before) else {
            return Ok(());
        };
        let mut names = Vec::new();
        below.merge(before, &mut |entry| {
            names.push(entry.name);
            Ok(())
        })?;
        for name in names {
            if present.contains(name.as_os_str()) || deleted.contains(&name) {
                continue;
            }
            let replaced = match &dir.under {
                Under::Other(Some(other)) => below.find(other, &name)?.is_some(),
                Under::Other(None) | Under::Itself => false,
            };
            self.push(dir, &name, if replaced { Kind::Changed } else { Kind::Deleted });
        }
        Ok(())
    }

    fn entry(&mut self, dir: &Dir, fd: &Arc<OwnedFd>, name: &OsStr, format: u32, hides: bool) -> Result<()> {
        let target = Target::At(fd.as_fd(), name);
        let is_dir = match format {
            0 => at::stat_opt(fd.as_fd(), name)?.is_some_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR),
            format => format == libc::S_IFDIR,
        };
        // With the lower layers at hand the marks of a file say nothing more.
        let marks = match (self.below, is_dir) {
            (Some(_), false) => Marks::default(),
            _ => match read_marks(target) {
                Err(error) if error.errno() == Errno::NOENT => return Ok(()),
                marks => marks?,
            },
        };
        let mut before = None;
        let mut existed = false;
        if let (Some(below), Some(parent)) = (self.below, &dir.before)
            && let Some(found) = below.find(parent, name)?
        {
            existed = true;
            if found.is_dir() {
                before = below.lookup(parent, name)?.map(|(inode, _)| inode);
            }
        }
        let opaque = is_dir && (marks.opaque || hides || has_opaque_file(fd, name)?);
        if self.below.is_none() {
            let copied = marks.ino.is_some() || marks.origin.is_some() || marks.metacopy;
            let merged = is_dir && !opaque && marks.redirect.is_none() && holds_whiteouts(fd, name)?;
            existed = !dir.added && !is_moved(dir, name, &marks) && (copied || merged);
        }
        self.push(dir, name, if existed { Kind::Changed } else { Kind::Added });
        if is_dir {
            let under = self.under(dir, name, &marks, opaque)?;
            let path = path_of(dir, name);
            self.todo.push(Dir { path, parent: Arc::clone(fd), name: name.to_owned(), before, under, added: !existed });
        } else if let (Some(below), Some(replaced)) = (self.below, before) {
            // A file in place of a directory: what that held is gone.
            let path = path_of(dir, name);
            below.merge(&replaced, &mut |entry| {
                let mut path = path.clone();
                path.push("/");
                path.push(entry.name);
                self.changes.push(Change { path: path.into(), kind: Kind::Deleted });
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What shines through a directory of the upper.
    fn under(&self, parent: &Dir, name: &OsStr, marks: &Marks, opaque: bool) -> Result<Under> {
        if opaque {
            return Ok(Under::Other(None));
        }
        let Some(below) = self.below else {
            return Ok(Under::Itself);
        };
        let source = match &parent.under {
            Under::Itself => parent.before.clone(),
            Under::Other(other) => other.clone(),
        };
        let (start, way) = match marks.redirect.as_deref().and_then(whiteout::parse_redirect) {
            None if matches!(parent.under, Under::Itself) => return Ok(Under::Itself),
            None => (source, vec![name.to_owned()]),
            Some(Redirect::Sibling(name)) => (source, vec![name]),
            Some(Redirect::Absolute(path)) => (Some(below.inodes.get(ROOT_INO)?), path),
        };
        let mut at = start;
        for name in way {
            let Some(dir) = at else { break };
            at = match below.find(&dir, &name)? {
                Some(found) if found.is_dir() => below.lookup(&dir, &name)?.map(|(inode, _)| inode),
                _ => None,
            };
        }
        Ok(Under::Other(at))
    }
}

fn path_of(dir: &Dir, name: &OsStr) -> OsString {
    let mut path = dir.path.clone();
    path.push("/");
    path.push(name);
    path
}

/// Whether a redirect says that the object had another name before.
fn is_moved(dir: &Dir, name: &OsStr, marks: &Marks) -> bool {
    match marks.redirect.as_deref().map(whiteout::parse_redirect) {
        None => false,
        Some(Some(Redirect::Sibling(before))) => before != name,
        Some(Some(Redirect::Absolute(parts))) => {
            let before: OsString = parts.iter().flat_map(|part| [OsStr::new("/"), part]).collect();
            before != path_of(dir, name)
        }
        Some(None) => true,
    }
}

/// The marks of an object in an upper, whichever kind of mount wrote them.
fn read_marks(target: Target<'_>) -> Result<Marks> {
    let read = |namespace| Markers { namespace: Some(namespace), devices: true, opaque_file: false }.read(target, None);
    let (trusted, user) = (read(Namespace::Trusted)?, read(Namespace::User)?);
    Ok(Marks {
        redirect: trusted.redirect.or(user.redirect),
        metacopy: trusted.metacopy || user.metacopy,
        ino: trusted.ino.or(user.ino),
        origin: trusted.origin.or(user.origin),
        ..trusted
    })
}

fn has_opaque_file(parent: &OwnedFd, name: &OsStr) -> Result<bool> {
    match at::open_dir(parent.as_fd(), name) {
        Ok(dir) => whiteout::has_opaque_file(dir.as_fd()),
        Err(error) if error.errno() == Errno::NOENT => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a directory deletes something from those below, and so lies over one.
fn holds_whiteouts(parent: &OwnedFd, name: &OsStr) -> Result<bool> {
    let dir = match at::open_dir(parent.as_fd(), name) {
        Err(error) if error.errno() == Errno::NOENT => return Ok(false),
        dir => dir?,
    };
    let mut found = false;
    list_dir(&dir, false, &mut |listed| {
        found |= matches!(listed, Listed::Whiteout(_));
        Ok(())
    })?;
    Ok(found)
}
