//! The real object behind an inode, wherever it is, under one face.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, Timestamps};
use rustix::io::Errno;

use crate::attr::Attr;
use crate::error::{Refusal, Result};
use crate::handle::{Data, is_writable};
use crate::inode::{Body, Inode, Link, LowerFile, ROOT_INO, UpperDir, UpperFile};
use crate::layer::{Content, Layer};
use crate::name::Name;
use crate::ownership;
use crate::sys::at;
use crate::sys::xattr::{self, Target};
use crate::union::UnionFs;

/// A real object.
pub(crate) enum Backing<'a> {
    /// In the upper (or its index), by directory and name.
    Upper { dir: Arc<OwnedFd>, name: Name, override_key: Option<&'static str> },
    /// In the upper, without a name.
    Nameless { fd: Arc<OwnedFd>, override_key: Option<&'static str> },
    /// In a lower layer.
    Lower { layer: &'a dyn Layer, at: LowerFile },
}

impl Backing<'_> {
    /// The object for calls on extended attributes; lower layers have no such face.
    pub(crate) fn target(&self) -> Result<Target<'_>> {
        match self {
            Self::Upper { dir, name, .. } => Ok(Target::At(dir.as_fd(), name)),
            Self::Nameless { fd, .. } => Ok(Target::Fd(fd.as_fd())),
            Self::Lower { .. } => Err(Refusal::ReadOnly.into()),
        }
    }

    /// Attributes, overrides applied.
    pub(crate) fn attr(&self) -> Result<Attr> {
        let (stat, override_key) = match self {
            Self::Upper { dir, name, override_key } => (at::stat(dir.as_fd(), name)?, override_key),
            Self::Nameless { fd, override_key } => (at::fstat(fd.as_fd())?, override_key),
            Self::Lower { layer, at } => return layer.attr(&at.dir, &at.name),
        };
        let mut attr = Attr::from(&stat);
        if let Some(key) = override_key
            && let Some(value) = xattr::get(self.target()?, OsStr::new(key))?
        {
            ownership::apply_override(&mut attr, &value, 0, OsStr::new("<upper>"))?;
        }
        Ok(attr)
    }

    pub(crate) fn chmod(&self, mode: u32) -> Result<()> {
        match self {
            Self::Upper { dir, name, .. } => at::chmod(dir.as_fd(), name, mode),
            Self::Nameless { fd, .. } => at::fchmod_path(fd.as_fd(), mode),
            Self::Lower { .. } => Err(Refusal::ReadOnly.into()),
        }
    }

    pub(crate) fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        match self {
            Self::Upper { dir, name, .. } => at::chown(dir.as_fd(), name, uid, gid),
            Self::Nameless { fd, .. } => at::fchown_path(fd.as_fd(), uid, gid),
            Self::Lower { .. } => Err(Refusal::ReadOnly.into()),
        }
    }

    pub(crate) fn utimens(&self, times: &Timestamps) -> Result<()> {
        match self {
            Self::Upper { dir, name, .. } => at::utimens(dir.as_fd(), name, times),
            Self::Nameless { fd, .. } => at::futimens_path(fd.as_fd(), times),
            Self::Lower { .. } => Err(Refusal::ReadOnly.into()),
        }
    }

    pub(crate) fn readlink(&self) -> Result<Vec<u8>> {
        match self {
            Self::Upper { dir, name, .. } => at::readlink(dir.as_fd(), name),
            Self::Nameless { fd, .. } => at::readlink(fd.as_fd(), OsStr::new("")),
            Self::Lower { layer, at } => layer.readlink(&at.dir, &at.name),
        }
    }

    /// Value of an extended attribute by its name on disk.
    pub(crate) fn xattr(&self, key: &OsStr) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Lower { layer, at } => layer.xattr(&at.dir, &at.name, key),
            _ => xattr::get(self.target()?, key),
        }
    }

    /// NUL-terminated names of extended attributes on disk.
    pub(crate) fn xattr_names(&self) -> Result<Vec<u8>> {
        match self {
            Self::Lower { layer, at } => layer.xattr_names(&at.dir, &at.name),
            _ => xattr::list(self.target()?),
        }
    }

    /// Opens the data. A lower file is only ever opened for reading.
    pub(crate) fn open(&self, flags: OFlags) -> Result<Content> {
        let safe = OFlags::NONBLOCK | OFlags::NOCTTY;
        match self {
            Self::Upper { dir, name, .. } => with_noatime(flags | safe, |flags| at::open(dir.as_fd(), name, flags)),
            Self::Nameless { fd, .. } => with_noatime(flags | safe, |flags| at::reopen(fd.as_fd(), flags)),
            Self::Lower { layer, at } if !is_writable(flags) => {
                return layer.open(&at.dir, &at.name);
            }
            Self::Lower { .. } => return Err(Refusal::ReadOnly.into()),
        }
        .map(Content::File)
    }
}

/// `O_NOATIME` is for owners alone; without it the open works all the same.
fn with_noatime(flags: OFlags, open: impl Fn(OFlags) -> Result<OwnedFd>) -> Result<OwnedFd> {
    match open(flags) {
        Err(error) if error.errno() == Errno::PERM && flags.contains(OFlags::NOATIME) => {
            open(flags.difference(OFlags::NOATIME))
        }
        other => other,
    }
}

/// Where an inode's object is, as a snapshot.
enum Place {
    Root,
    Named(Link),
    Indexed(Name),
    Nameless(Arc<OwnedFd>),
    Lower(LowerFile),
}

impl UnionFs {
    fn place(&self, inode: &Inode) -> Result<Place> {
        let state = inode.state.read();
        if inode.ino == ROOT_INO && self.upper.is_some() {
            return Ok(Place::Root);
        }
        let named = || state.link.clone().map(Place::Named).ok_or(Refusal::NotFound.into());
        match &state.body {
            Body::File(file) => match (file.upper(), file.lower()) {
                (Some(UpperFile::Named), _) => named(),
                (Some(UpperFile::Indexed(name)), _) => Ok(Place::Indexed(name.clone())),
                (Some(UpperFile::Nameless(fd)), _) => Ok(Place::Nameless(Arc::clone(fd))),
                (None, Some(lower)) => Ok(Place::Lower(lower.clone())),
                (None, None) => Err(Refusal::UnknownInode.into()),
            },
            Body::Dir(dir) => match &dir.upper {
                UpperDir::Named => named(),
                UpperDir::Removed(Some(fd)) => Ok(Place::Nameless(Arc::clone(fd))),
                UpperDir::Absent | UpperDir::Removed(None) => match dir.lowers.first() {
                    Some(lower) => Ok(Place::Lower(LowerFile {
                        layer: lower.layer,
                        kind: FileType::Directory,
                        dir: Arc::clone(&lower.dir),
                        name: Name::from(OsStr::new(".")),
                    })),
                    None => Err(Refusal::NotFound.into()),
                },
            },
        }
    }

    /// Calls `act` on the object that holds the inode's attributes, which stays
    /// in its place meanwhile.
    pub(crate) fn with_backing<T>(&self, inode: &Arc<Inode>, act: impl FnOnce(&Backing<'_>) -> Result<T>) -> Result<T> {
        let override_key = self.upper.as_ref().and_then(|upper| upper.override_key);
        loop {
            let backing = match self.place(inode)? {
                Place::Root => Backing::Upper {
                    dir: Arc::clone(&self.upper()?.root),
                    name: Name::from(OsStr::new(".")),
                    override_key,
                },
                Place::Nameless(fd) => Backing::Nameless { fd, override_key },
                Place::Lower(at) => Backing::Lower { layer: self.layer(at.layer), at },
                Place::Indexed(name) => {
                    let dir = Arc::clone(self.upper()?.index().ok_or(Refusal::NotFound)?);
                    Backing::Upper { dir, name, override_key }
                }
                Place::Named(link) => {
                    let dir = self.upper_dir(&link.parent)?;
                    let state = inode.state.read();
                    if !state.link.as_ref().is_some_and(|now| now.is(&link.parent, &link.name)) {
                        continue;
                    }
                    return act(&Backing::Upper { dir, name: link.name, override_key });
                }
            };
            return act(&backing);
        }
    }

    /// The same, of an object that is in the upper.
    pub(crate) fn with_upper<T>(&self, inode: &Arc<Inode>, act: impl FnOnce(&Backing<'_>) -> Result<T>) -> Result<T> {
        self.with_backing(inode, |backing| match backing {
            Backing::Lower { .. } => Err(Refusal::ReadOnly.into()),
            _ => act(backing),
        })
    }

    /// Opens the inode's data: in the upper, or, for reading, below.
    pub(crate) fn open_data(&self, inode: &Arc<Inode>, flags: OFlags) -> Result<Data> {
        let (version, below) = match &inode.state.read().body {
            Body::File(file) => (file.version(), file.data_below().cloned()),
            Body::Dir(_) => return Err(Refusal::IsDirectory.into()),
        };
        let Some(lower) = below else {
            let content = self.with_backing(inode, |backing| backing.open(flags))?;
            return Ok(Data { version, layer: None, sealed: false, content });
        };
        let layer = self.layer(lower.layer);
        let content = layer.open(&lower.dir, &lower.name)?;
        Ok(Data { version, layer: Some(lower.layer), sealed: layer.is_sealed(), content })
    }

    /// A descriptor of the inode's directory in the upper.
    pub(crate) fn upper_dir(&self, inode: &Arc<Inode>) -> Result<Arc<OwnedFd>> {
        'walk: loop {
            let mut missing = Vec::new();
            let mut here = Arc::clone(inode);
            let mut fd = loop {
                if here.ino == ROOT_INO {
                    break Arc::clone(&self.upper()?.root);
                }
                if let Some(fd) = self.dirs.get(here.ino) {
                    break fd;
                }
                let parent = {
                    let state = here.state.read();
                    let Body::Dir(dir) = &state.body else {
                        return Err(Refusal::NotDirectory.into());
                    };
                    match (&dir.upper, &state.link) {
                        (UpperDir::Removed(Some(fd)), _) => break Arc::clone(fd),
                        (UpperDir::Named, Some(link)) => Arc::clone(&link.parent),
                        _ => return Err(Refusal::NotFound.into()),
                    }
                };
                missing.push((std::mem::replace(&mut here, Arc::clone(&parent)), parent));
            };
            for (dir, parent) in missing.into_iter().rev() {
                // Held over the open: a rename of this directory waits.
                let state = dir.state.read();
                let Some(link) = state.link.as_ref().filter(|link| Arc::ptr_eq(&link.parent, &parent)) else {
                    continue 'walk;
                };
                fd = Arc::new(at::open_dir(fd.as_fd(), &link.name)?);
                self.dirs.put(dir.ino, Arc::clone(&fd));
            }
            return Ok(fd);
        }
    }
}
