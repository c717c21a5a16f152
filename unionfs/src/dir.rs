//! Changing directories: create, mkdir, mknod, symlink, link, unlink, rmdir.
//! Renaming has its own module.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;

use crate::attr::{Attr, as_far_as_possible, set_override};
use crate::copy_up::Depth;
use crate::error::{Refusal, Result};
use crate::file::{NewHandle, Register};
use crate::handle::Data;
use crate::inode::{Body, DirBody, Inode, InodeTable, Link, State, UpperDir, UpperFile};
use crate::layer::Content;
use crate::lookup::{Found, FoundBody};
use crate::name::Name;
use crate::options::Io;
use crate::sys::xattr::{self, Target};
use crate::sys::{at, credentials};
use crate::union::UnionFs;
use crate::upper::{Replaces, Upper};
use crate::whiteout;

/// Who asks for a new object, and with which umask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) umask: u32,
}

/// A new object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum New<'a> {
    File { mode: u32 },
    Dir { mode: u32 },
    Symlink { target: &'a OsStr },
    Node { mode: u32, rdev: u64 },
}

impl New<'_> {
    fn mode(self) -> u32 {
        match self {
            Self::File { mode } => libc::S_IFREG | (mode & 0o7777),
            Self::Dir { mode } => libc::S_IFDIR | (mode & 0o7777),
            Self::Symlink { .. } => libc::S_IFLNK | 0o777,
            Self::Node { mode, .. } => mode,
        }
    }

    fn is_dir(self) -> bool {
        matches!(self, Self::Dir { .. })
    }

    /// Makes it under a free name.
    fn make(self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<OwnedFd>> {
        match self {
            Self::File { mode } => at::create(dir, name, OFlags::RDWR, mode & 0o7777).map(Some),
            Self::Dir { mode } => at::mkdir(dir, name, mode & 0o7777).map(|()| None),
            Self::Symlink { target } => at::symlink(target, dir, name).map(|()| None),
            Self::Node { mode, rdev } => at::mknod(dir, name, mode, rdev).map(|()| None),
        }
    }
}

/// What the upper has where a new name goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    /// A whiteout device.
    Device,
    /// A whiteout file beside the name.
    File,
}

impl UnionFs {
    /// Makes an object and tells the kernel of it.
    pub(crate) fn make(
        &self,
        parent: &Arc<Inode>,
        name: &OsStr,
        new: New<'_>,
        caller: Caller,
    ) -> Result<(Arc<Inode>, Attr)> {
        let (inode, attr, file) = self.make_open(parent, name, new, caller)?;
        if let (Io::Cached, Some(file)) = (self.settings.io, file) {
            // It is about to be written.
            self.keep_open(&inode, file);
        }
        Ok((inode, attr))
    }

    /// Makes a regular file and opens it.
    pub(crate) fn create(
        &self,
        parent: &Arc<Inode>,
        name: &OsStr,
        mode: u32,
        caller: Caller,
        register: Register<'_>,
    ) -> Result<(Arc<Inode>, Attr, NewHandle)> {
        let (inode, attr, file) = self.make_open(parent, name, New::File { mode }, caller)?;
        let flags = self.open_flags(true);
        let opened = match file {
            Some(file) => Ok(Data { version: 0, layer: None, sealed: false, content: Content::File(file) }),
            None => self.open_data(&inode, flags),
        };
        match opened.and_then(|data| self.add_handle(&inode, inode.ino, flags, data, register)) {
            Ok(opened) => Ok((inode, attr, opened)),
            Err(error) => {
                // The kernel will not hear of the inode.
                let ino = inode.ino;
                drop(inode);
                self.forget(ino, 1);
                Err(error)
            }
        }
    }

    fn make_open(
        &self,
        parent: &Arc<Inode>,
        name: &OsStr,
        new: New<'_>,
        caller: Caller,
    ) -> Result<(Arc<Inode>, Attr, Option<OwnedFd>)> {
        self.check_writable()?;
        self.check_name(name)?;
        if let New::Node { mode, rdev: 0 } = new
            && mode & libc::S_IFMT == libc::S_IFCHR
        {
            return Err(Refusal::Reserved.into());
        }
        let (uid, gid) = self.owners.maker(caller.uid, caller.gid);
        let caller = Caller { uid, gid, ..caller };
        self.copy_up(parent, Depth::Attributes)?;
        let dir = self.upper_dir(parent)?;
        let upper = self.upper()?;
        // Tried at once where there are no `.wh.` files: only a whiteout device, which is rare, makes the try futile.
        let plain = upper.override_key.is_none();
        let tried = match plain && self.lowers_of(parent)?.is_empty() {
            true => match as_caller(caller, || new.make(dir.as_fd(), name)) {
                Err(error) if error.errno() == Errno::EXIST => None,
                made => Some(made?),
            },
            false => None,
        };
        let file = match tried {
            Some(file) => file,
            None => match self.slot(parent, &dir, name)? {
                Slot::Free if plain => as_caller(caller, || new.make(dir.as_fd(), name))?,
                slot => self.make_staged(upper, &dir, name, new, caller, slot)?,
            },
        };
        let stat = match &file {
            Some(file) => at::fstat(file.as_fd())?,
            None => at::stat(dir.as_fd(), name)?,
        };
        let mut attr = Attr::from(&stat);
        if upper.override_key.is_some() {
            attr = upper.entry(Target::At(dir.as_fd(), name), name)?.attr;
        }
        // Attributes of a new object are inherited.
        let bare = parent.is_bare();
        let body = if new.is_dir() {
            FoundBody::Dir { upper: true, impure: false, lowers: Arc::from([]) }
        } else {
            FoundBody::File { upper: Some(UpperFile::Named), lower: None, data: None }
        };
        let found =
            Found { attr, ino: self.inos.fresh(attr.dev, attr.ino), upper_id: Some((attr.dev, attr.ino)), bare, body };
        let inode = self.intern(parent, name, &found, true)?;
        let attr = self.shown(&inode, attr);
        Ok((inode, attr, file))
    }

    fn slot(&self, parent: &Inode, dir: &OwnedFd, name: &OsStr) -> Result<Slot> {
        match at::stat_opt(dir.as_fd(), name)? {
            Some(stat) if whiteout::is_device_whiteout(&stat) => Ok(Slot::Device),
            Some(_) => Err(Refusal::Exists.into()),
            None if self.lowers_of(parent)?.is_empty() => Ok(Slot::Free),
            None if whiteout::has_whiteout_file(dir.as_fd(), name)? => Ok(Slot::File),
            None => Ok(Slot::Free),
        }
    }

    /// Makes an object out of sight, gives it what it needs, and moves it to its name.
    fn make_staged(
        &self,
        upper: &Upper,
        dir: &Arc<OwnedFd>,
        name: &OsStr,
        new: New<'_>,
        caller: Caller,
        slot: Slot,
    ) -> Result<Option<OwnedFd>> {
        let nursery = Nursery::like(upper, dir)?;
        let inner = OsStr::new("new");
        let file = match upper.override_key {
            None => as_caller(caller, || new.make(nursery.fd.as_fd(), inner))?,
            Some(key) => make_overridden(&nursery, dir, inner, new, caller, key)?,
        };
        if new.is_dir() && slot != Slot::Free {
            let made = at::open_dir(nursery.fd.as_fd(), inner)?;
            upper.markers.set_opaque(made.as_fd())?;
        }
        let flags = match slot {
            // The whiteout lands in the nursery and goes with it.
            Slot::Device => RenameFlags::EXCHANGE,
            Slot::Free | Slot::File => RenameFlags::NOREPLACE,
        };
        at::rename(nursery.fd.as_fd(), inner, dir.as_fd(), name, flags)?;
        if slot == Slot::File {
            upper.markers.remove_whiteout_file(dir.as_fd(), name)?;
        }
        Ok(file)
    }

    /// Gives a file another name.
    pub(crate) fn link(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &OsStr) -> Result<Attr> {
        self.check_writable()?;
        self.check_name(name)?;
        if inode.is_dir() {
            return Err(Refusal::Reserved.into());
        }
        self.copy_up(parent, Depth::Attributes)?;
        self.copy_up(inode, Depth::Attributes)?;
        if !inode.is_pure_upper() && !self.is_indexed(inode) {
            // Two names of a metacopy need its data, or a redirect that fits both.
            self.copy_up(inode, Depth::Data(None))?;
        }
        let transaction = inode.transaction.lock();
        let upper = self.upper()?;
        let dir = self.upper_dir(parent)?;
        let slot = self.slot(parent, &dir, name)?;
        let below = match &inode.state.read().body {
            Body::File(file) => file.lower().map(|lower| lower.dir.path_of(&lower.name)),
            Body::Dir(_) => None,
        };
        let impure = self.with_upper(inode, |backing| {
            let target = backing.target()?;
            // A metacopy that kernel overlayfs made has no redirect while it has but its lower name.
            if let Some(path) = &below {
                upper.markers.set_redirect(target, path)?;
            }
            Ok(upper.markers.read(target, None)?.ino.is_some())
        })?;
        if impure {
            self.mark_impure(parent)?;
        }
        let staged = upper.stage();
        self.with_upper(inode, |backing| {
            let (to, to_name): (BorrowedFd<'_>, &OsStr) = match slot {
                Slot::Device => (upper.staging().as_fd(), &staged.name),
                Slot::Free | Slot::File => (dir.as_fd(), name),
            };
            match backing.target()? {
                Target::At(from, from_name) => at::link(from, from_name, to, to_name),
                Target::Fd(fd) => at::link_fd(fd, to, to_name),
            }
        })?;
        match slot {
            Slot::Free => {}
            Slot::Device => at::rename(upper.staging().as_fd(), &staged.name, dir.as_fd(), name, RenameFlags::empty())?,
            Slot::File => upper.markers.remove_whiteout_file(dir.as_fd(), name)?,
        }
        let here = Link { parent: Arc::clone(parent), name: Name::from(name) };
        if let Some(first) = inode.link() {
            self.note_link(inode, first);
        }
        self.note_link(inode, here.clone());
        {
            let mut state = inode.state.write();
            if state.link.is_none() {
                state.link = Some(here);
                if let Body::File(file) = &mut state.body
                    && matches!(file.upper(), Some(UpperFile::Nameless(_)))
                {
                    file.set_upper(UpperFile::Named);
                }
            }
        }
        drop(transaction);
        self.getattr(inode)
    }

    /// The object that a name is about to be taken from.
    fn victim(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<(Found, Arc<Inode>)> {
        let found = self.find(parent, name)?.ok_or(Refusal::NotFound)?;
        let inode = self.intern(parent, name, &found, false)?;
        Ok((found, inode))
    }

    /// Removes a name that is no directory.
    pub(crate) fn unlink(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<()> {
        self.check_writable()?;
        let (found, inode) = self.victim(parent, name)?;
        let done = if found.is_dir() {
            Err(Refusal::IsDirectory.into())
        } else {
            self.unlink_file(parent, name, &found, &inode)
        };
        self.release_inode(inode);
        done
    }

    fn unlink_file(&self, parent: &Arc<Inode>, name: &OsStr, found: &Found, inode: &Arc<Inode>) -> Result<()> {
        self.copy_up(parent, Depth::Attributes)?;
        let _transaction = inode.transaction.lock();
        self.before_unlink(inode, found)?;
        let below = !found.named_in_upper() || self.exists_below(parent, name)?;
        let dir = self.upper_dir(parent)?;
        let kept = self.keep(inode, found, &dir, name)?;
        let upper = self.upper()?;
        {
            let mut state = inode.state.write();
            match (found.named_in_upper(), below) {
                (true, true) => upper.whiteout(&dir, name, Replaces::File)?,
                (true, false) => at::unlink(dir.as_fd(), name)?,
                (false, _) => upper.whiteout(&dir, name, Replaces::Nothing)?,
            }
            self.name_gone(inode, &mut state, parent, name, kept);
        }
        self.after_unlink(inode, found.named_in_upper());
        Ok(())
    }

    /// A descriptor that keeps an object of the upper alive, if somebody may ask for it.
    pub(crate) fn keep(
        &self,
        inode: &Inode,
        found: &Found,
        dir: &OwnedFd,
        name: &OsStr,
    ) -> Result<Option<Arc<OwnedFd>>> {
        if !found.named_in_upper() || !(InodeTable::is_known(inode) || self.is_multi(inode)) {
            return Ok(None);
        }
        at::open_path(dir.as_fd(), name).map(|fd| Some(Arc::new(fd)))
    }

    /// A name of a file is gone from disk. `kept` refers to its object in the upper. `state` was locked before it went:
    /// nobody may look for the file where something else is now.
    pub(crate) fn name_gone(
        &self,
        inode: &Inode,
        state: &mut State,
        parent: &Arc<Inode>,
        name: &OsStr,
        kept: Option<Arc<OwnedFd>>,
    ) {
        self.drop_link(inode, state, parent, name);
        if state.link.is_none()
            && let Body::File(file) = &mut state.body
            && matches!(file.upper(), Some(UpperFile::Named))
            && let Some(kept) = kept
        {
            file.set_upper(UpperFile::Nameless(kept));
        }
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<()> {
        self.check_writable()?;
        let (found, inode) = self.victim(parent, name)?;
        let done = if found.is_dir() {
            self.remove_dir(parent, name, &found, &inode)
        } else {
            Err(Refusal::NotDirectory.into())
        };
        self.release_inode(inode);
        done
    }

    fn remove_dir(&self, parent: &Arc<Inode>, name: &OsStr, found: &Found, inode: &Arc<Inode>) -> Result<()> {
        self.check_empty(inode)?;
        self.copy_up(parent, Depth::Attributes)?;
        let _transaction = inode.transaction.lock();
        let below = !found.named_in_upper() || self.exists_below(parent, name)?;
        let dir = self.upper_dir(parent)?;
        let kept = self.keep(inode, found, &dir, name)?;
        let upper = self.upper()?;
        let mut state = inode.state.write();
        match (found.named_in_upper(), below) {
            (true, true) => upper.whiteout(&dir, name, Replaces::Dir)?,
            (true, false) => upper.discard_dir(&dir, name)?,
            (false, _) => upper.whiteout(&dir, name, Replaces::Nothing)?,
        }
        dir_gone(&mut state, kept);
        self.dirs.remove(inode.ino);
        Ok(())
    }

    /// Refuses a directory with visible entries.
    pub(crate) fn check_empty(&self, inode: &Arc<Inode>) -> Result<()> {
        if self.is_empty_dir(inode)? { Ok(()) } else { Err(Refusal::NotEmpty.into()) }
    }

    fn is_indexed(&self, inode: &Inode) -> bool {
        matches!(&inode.state.read().body, Body::File(file) if matches!(file.upper(), Some(UpperFile::Indexed(_))))
    }
}

/// A directory's name is gone from disk.
pub(crate) fn dir_gone(state: &mut State, kept: Option<Arc<OwnedFd>>) {
    state.link = None;
    if let Body::Dir(body) = &mut state.body {
        let lowers = if kept.is_some() { Arc::from([]) } else { Arc::clone(&body.lowers) };
        **body = DirBody { upper: UpperDir::Removed(kept), impure: false, lowers };
    }
}

/// Runs `act` with the caller's identity and umask.
fn as_caller<T>(caller: Caller, act: impl FnOnce() -> Result<T>) -> Result<T> {
    credentials::set_umask(caller.umask);
    let _identity = credentials::AsCaller::new(caller.uid, caller.gid);
    act()
}

/// Makes an object whose owner, mode and type are in the override xattr.
fn make_overridden(
    nursery: &Nursery<'_>,
    parent: &OwnedFd,
    name: &OsStr,
    new: New<'_>,
    caller: Caller,
    key: &str,
) -> Result<Option<OwnedFd>> {
    credentials::set_umask(0);
    let fd = nursery.fd.as_fd();
    let above = xattr::get(Target::At(parent.as_fd(), OsStr::new(".")), OsStr::new(key))?
        .and_then(|value| crate::ownership::parse_override(&value))
        .filter(|above| above.permissions & libc::S_ISGID != 0);
    let gid = above.map_or(caller.gid, |above| above.gid);
    let (real, rdev) = match new {
        New::Dir { .. } => (New::Dir { mode: 0o755 }, 0),
        New::Symlink { .. } => {
            let made = new.make(fd, name)?;
            as_far_as_possible(at::chown(fd, name, Some(caller.uid), Some(gid)))?;
            return Ok(made);
        }
        New::File { .. } => (New::File { mode: 0o755 }, 0),
        New::Node { rdev, .. } => (New::File { mode: 0o755 }, rdev),
    };
    let file = real.make(fd, name)?;
    let mut attr = Attr::from(&at::stat(fd, name)?);
    let mut mode = new.mode() & !caller.umask;
    attr.uid = caller.uid;
    attr.gid = gid;
    if above.is_some() && new.is_dir() {
        mode |= libc::S_ISGID;
    }
    attr.mode = mode;
    attr.rdev = rdev;
    set_override(Target::At(fd, name), key, &attr)?;
    Ok(file.filter(|_| matches!(new, New::File { .. })))
}

/// A directory in the staging directory from which new objects inherit what they
/// would inherit from their parent: its group, if that is set-group-id, and its
/// default ACL.
struct Nursery<'a> {
    fd: OwnedFd,
    _staged: crate::upper::Staged<'a>,
}

impl<'a> Nursery<'a> {
    fn like(upper: &'a Upper, parent: &OwnedFd) -> Result<Self> {
        const DEFAULT_ACL: &str = "system.posix_acl_default";
        credentials::set_umask(0);
        let staged = upper.stage();
        let staging = upper.staging().as_fd();
        at::mkdir(staging, &staged.name, 0o700)?;
        let fd = at::open_dir(staging, &staged.name)?;
        let itself = OsStr::new(".");
        let stat = at::stat(parent.as_fd(), itself)?;
        if stat.st_mode & libc::S_ISGID != 0 {
            at::chown(fd.as_fd(), itself, None, Some(stat.st_gid))?;
            at::chmod(fd.as_fd(), itself, 0o2700)?;
        }
        if upper.override_key.is_none()
            && let Some(acl) = xattr::get(Target::At(parent.as_fd(), itself), OsStr::new(DEFAULT_ACL))?
        {
            xattr::set(Target::At(fd.as_fd(), itself), OsStr::new(DEFAULT_ACL), &acl, 0)?;
        }
        Ok(Self { fd, _staged: staged })
    }
}
