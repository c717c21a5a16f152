//! Moving an object to the upper before a change: the only lower→upper
//! transaction. Built in the staging directory or as a nameless file, it
//! appears by one rename or link, or not at all.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::attr::{Attr, as_far_as_possible, modified_now, set_override, times_of};
use crate::backing::Backing;
use crate::error::{Error, Refusal, Result};
use crate::inode::{Body, Inode, Link, LowerFile, UpperDir, UpperFile};
use crate::layer::Content;
use crate::options::Io;
use crate::sys::xattr::{self, Target};
use crate::sys::{at, copy, credentials};
use crate::union::{Counters, UnionFs};
use crate::xattr::copied_as;

/// Files up to this size that occupy blocks for all their bytes are not searched for holes.
const SMALL: u64 = 64 * 1024;

/// How much of an object a change needs in the upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Its attributes; the data may stay below (metacopy).
    Attributes,
    /// Its attributes, in the index alone: the name is about to go.
    Indexed,
    /// Its data too; `Some(size)` when it is about to be truncated to that.
    Data(Option<u64>),
}

impl Depth {
    fn is_data(self) -> bool {
        matches!(self, Self::Data(_))
    }
}

/// What a copy-up starts from.
struct Source {
    /// Attributes of the object, from wherever they are now.
    attr: Attr,
    link: Option<Link>,
    file: Option<FileSource>,
}

struct FileSource {
    /// Where its data is now, if it has any.
    data: Option<LowerFile>,
    /// The lower object whose identity the copy keeps; `None` for a metacopy.
    origin: Option<LowerFile>,
    upper: Option<UpperFile>,
}

impl UnionFs {
    /// Brings an object to the upper, with the directories above it. True if this call did it: a file that was to be
    /// truncated is so then.
    pub(crate) fn copy_up(&self, inode: &Arc<Inode>, depth: Depth) -> Result<bool> {
        if is_done(inode, depth) {
            return Ok(false);
        }
        self.check_writable()?;
        loop {
            self.copy_up_ancestors(inode)?;
            self.copy_up_known_parents(inode);
            let transaction = inode.transaction.lock();
            // Renamed into another directory meanwhile?
            if inode.link().is_some_and(|link| !link.parent.in_upper()) {
                drop(transaction);
                continue;
            }
            return self.copy_up_locked(inode, depth);
        }
    }

    /// Copies an object's attributes up and changes them by `act`, undisturbed: a metacopy that became a whole file
    /// meanwhile would have been copied without the change.
    pub(crate) fn change<T>(&self, inode: &Arc<Inode>, act: impl FnOnce(&Backing<'_>) -> Result<T>) -> Result<T> {
        self.copy_up(inode, Depth::Attributes)?;
        // Of an object that is all in the upper, or a directory, no further copy is made.
        let _transaction = (!inode.is_dir() && !inode.is_pure_upper()).then(|| inode.transaction.lock());
        self.with_upper(inode, act)
    }

    /// Whether opening an inode for writing would move more than `bytes`. Shared blocks do not move.
    pub(crate) fn moves_more_than(&self, ino: u64, bytes: u64) -> bool {
        let Some(inode) = self.inodes.find(ino) else {
            return false;
        };
        let below = match &inode.state.read().body {
            Body::File(file) => file.data_below().cloned(),
            Body::Dir(_) => None,
        };
        let shares = |device| self.upper.as_ref().is_some_and(|upper| upper.shares_blocks_with(device));
        below.is_some_and(|lower| {
            let attr = self.layer(lower.layer).attr(&lower.dir, &lower.name);
            attr.is_ok_and(|attr| attr.size > bytes && !shares(attr.dev))
        })
    }

    /// Copies up the directories above an inode, topmost first.
    fn copy_up_ancestors(&self, inode: &Arc<Inode>) -> Result<()> {
        let mut missing = Vec::new();
        let mut next = inode.link().map(|link| link.parent);
        while let Some(dir) = next.filter(|dir| !dir.in_upper()) {
            next = dir.link().map(|link| link.parent);
            missing.push(dir);
        }
        for dir in missing.into_iter().rev() {
            let _transaction = dir.transaction.lock();
            self.copy_up_locked(&dir, Depth::Attributes)?;
        }
        Ok(())
    }

    /// The same as [`Self::copy_up`] for callers that hold the inode's transaction
    /// and have its parent in the upper.
    pub(crate) fn copy_up_locked(&self, inode: &Arc<Inode>, depth: Depth) -> Result<bool> {
        if is_done(inode, depth) {
            return Ok(false);
        }
        self.check_writable()?;
        // What is made here is not the caller's: no umask of theirs applies.
        credentials::set_umask(0);
        let source = self.source(inode)?;
        match &source.file {
            None => self.copy_up_dir(inode, &source)?,
            Some(file) => match source.attr.format() {
                libc::S_IFREG => self.copy_up_file(inode, &source, file, depth)?,
                _ => self.copy_up_special(inode, &source, file, depth)?,
            },
        }
        Ok(true)
    }

    fn source(&self, inode: &Arc<Inode>) -> Result<Source> {
        let (link, file, elsewhere) = {
            let state = inode.state.read();
            let elsewhere = matches!(&state.body, Body::File(file) if file.data().is_some());
            let file = match &state.body {
                Body::Dir(_) => None,
                Body::File(file) => Some(FileSource {
                    data: file.data_below().cloned(),
                    origin: if file.upper().is_none() { file.lower().cloned() } else { None },
                    upper: file.upper().cloned(),
                }),
            };
            (state.link.clone(), file, elsewhere)
        };
        let mut attr = self.with_backing(inode, |backing| backing.attr())?;
        // Of a lower file that is no metacopy these are its data's attributes too.
        if let Some(FileSource { data: Some(data), upper, .. }) = &file
            && attr.format() == libc::S_IFREG
            && (upper.is_some() || elsewhere)
        {
            attr.size = self.layer(data.layer).attr(&data.dir, &data.name)?.size;
        }
        Ok(Source { attr, link, file })
    }

    fn copy_up_dir(&self, inode: &Arc<Inode>, source: &Source) -> Result<()> {
        let upper = self.upper()?;
        let Some(link) = &source.link else {
            return Err(Refusal::NotFound.into());
        };
        let staged = upper.stage();
        let staging = upper.staging().as_fd();
        at::mkdir(staging, &staged.name, 0o700)?;
        let copy = at::open_dir(staging, &staged.name)?;
        let target = Target::At(copy.as_fd(), OsStr::new("."));
        self.set_attr(inode, target, &source.attr)?;
        upper.markers.set_ino(target, inode.ino)?;
        let parent = self.upper_dir(&link.parent)?;
        self.keep_times(&link.parent, || {
            self.mark_impure(&link.parent)?;
            let mut state = inode.state.write();
            at::rename(staging, &staged.name, parent.as_fd(), &link.name, RenameFlags::NOREPLACE)?;
            if let Body::Dir(dir) = &mut state.body {
                dir.upper = UpperDir::Named;
            }
            Ok(())
        })?;
        staged.publish();
        Counters::count(&self.counters.attribute_copy_ups);
        Ok(())
    }

    /// Symlinks, devices, FIFOs and sockets.
    fn copy_up_special(&self, inode: &Arc<Inode>, source: &Source, file: &FileSource, depth: Depth) -> Result<()> {
        let upper = self.upper()?;
        let staged = upper.stage();
        let staging = upper.staging().as_fd();
        let attr = &source.attr;
        if attr.format() == libc::S_IFLNK {
            let target = self.with_backing(inode, |backing| backing.readlink())?;
            at::symlink(OsStr::from_bytes(&target), staging, &staged.name)?;
        } else if upper.override_key.is_some() {
            drop(at::create(staging, &staged.name, OFlags::WRONLY, 0o755)?);
        } else {
            at::mknod(staging, &staged.name, attr.format() | 0o600, attr.rdev)?;
        }
        let target = Target::At(staging, &staged.name);
        self.set_attr(inode, target, attr)?;
        // Whatever is not published goes with `staged`.
        self.publish_new_file(inode, source, file, Made::Named(&staged.name), depth, true)?;
        Counters::count(&self.counters.attribute_copy_ups);
        Ok(())
    }

    fn copy_up_file(&self, inode: &Arc<Inode>, source: &Source, file: &FileSource, depth: Depth) -> Result<()> {
        let upper = self.upper()?;
        let with_data = depth.is_data() || !self.settings.metacopy || source.attr.size == 0;
        let in_place = match &file.upper {
            Some(UpperFile::Indexed(_)) => true,
            // Another program's metacopy: one with several names must stay one file, and one that is shown by its own
            // number must not free that for another file.
            Some(UpperFile::Named) => source.attr.nlink > 1 || self.wears_own_number(inode, source),
            Some(UpperFile::Nameless(_)) | None => false,
        };
        // Another name of it in the upper must see the data too.
        let several = file.upper.is_some() && source.attr.nlink > 1;
        if (in_place || several) && with_data {
            if let Some(link) = &source.link {
                self.mark_impure(&link.parent)?;
            }
            return self.fill_metacopy(inode, source, file, depth);
        }
        let staging = upper.staging().as_fd();
        let (copy, staged) = match at::tmpfile(staging, 0o600)? {
            Some(copy) => (copy, None),
            None => {
                let staged = upper.stage();
                (at::create(staging, &staged.name, OFlags::RDWR, 0o600)?, Some(staged))
            }
        };
        let target = Target::Fd(copy.as_fd());
        if with_data {
            self.copy_data(file, &source.attr, depth, copy.as_fd())?;
        } else {
            at::truncate(copy.as_fd(), source.attr.size)?;
            upper.markers.set_metacopy(target)?;
        }
        self.set_attr(inode, target, &source.attr)?;
        if let Depth::Data(Some(wanted)) = depth {
            // Published as what the truncation makes of it.
            at::truncate(copy.as_fd(), wanted)?;
            at::futimens(copy.as_fd(), &modified_now())?;
        }
        if with_data && source.attr.size > 0 {
            upper.make_durable(copy.as_fd())?;
        }
        let made = match &staged {
            Some(staged) => Made::Named(&staged.name),
            None => Made::File(&copy),
        };
        if file.upper.is_some() {
            upper.markers.set_ino(target, inode.ino)?;
            self.publish_over(inode, source, made)?;
        } else {
            self.publish_new_file(inode, source, file, made, depth, with_data)?;
        }
        if let Some(staged) = staged {
            staged.publish();
        }
        if with_data && self.settings.io == Io::Cached {
            // It is about to be written.
            self.keep_open(inode, copy);
        }
        let counter = if with_data { &self.counters.data_copy_ups } else { &self.counters.attribute_copy_ups };
        Counters::count(counter);
        Ok(())
    }

    fn copy_data(&self, file: &FileSource, attr: &Attr, depth: Depth, to: BorrowedFd<'_>) -> Result<()> {
        let size = attr.size;
        // Blocks that hold no data count too, so that only of a small file their number tells enough.
        let may_have_holes = size > SMALL || attr.blocks.saturating_mul(512) < size;
        let Some(data) = &file.data else {
            return Err(Refusal::UnknownInode.into());
        };
        let len = match depth {
            Depth::Data(Some(wanted)) => wanted.min(size),
            _ => size,
        };
        if len == 0 {
            return Ok(());
        }
        match self.layer(data.layer).open(&data.dir, &data.name)? {
            Content::File(from) => {
                if !copy::file(from.as_fd(), to, size, len, may_have_holes)? {
                    self.upper()?.shares_no_blocks();
                }
                Ok(())
            }
            Content::Bytes(bytes) => {
                let bytes = (*bytes).as_ref();
                let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
                copy::write_all(to, &bytes[..len], 0)
            }
            Content::Sparse(from) => from.copy(to, len),
        }
    }

    /// Gives a metacopy its data in place, for all its names at once. Until the mark goes, what is in it does not count.
    fn fill_metacopy(&self, inode: &Arc<Inode>, source: &Source, file: &FileSource, depth: Depth) -> Result<()> {
        let upper = self.upper()?;
        if !self.wears_own_number(inode, source) {
            // Without the mark of a metacopy nothing else would tell its number.
            self.with_upper(inode, |backing| upper.markers.set_ino(backing.target()?, inode.ino))?;
            if let Some(link) = &source.link {
                self.mark_impure(&link.parent)?;
            }
        }
        self.with_upper(inode, |backing| {
            let Content::File(copy) = backing.open(OFlags::RDWR)? else {
                return Err(Refusal::UnknownInode.into());
            };
            self.copy_data(file, &source.attr, depth, copy.as_fd())?;
            let (len, times) = match depth {
                Depth::Data(Some(wanted)) => (wanted, modified_now()),
                _ => (source.attr.size, times_of(&source.attr)),
            };
            at::truncate(copy.as_fd(), len)?;
            backing.utimens(&times)?;
            upper.make_durable(copy.as_fd())?;
            // A metacopy without a mark is shown by its lower file's number; with data of its own it would not be.
            if self.inos.number(source.attr.dev, source.attr.ino) != inode.ino {
                upper.markers.set_ino(backing.target()?, inode.ino)?;
            }
            // The data counts from this one call on.
            upper.markers.clear_metacopy(backing.target()?)
        })?;
        data_moved(&mut inode.state.write().body);
        Counters::count(&self.counters.data_copy_ups);
        Ok(())
    }

    /// Whether an object of the upper is shown by the number that it has on disk.
    fn wears_own_number(&self, inode: &Inode, source: &Source) -> bool {
        self.inos.number(source.attr.dev, source.attr.ino) == inode.ino
    }

    /// Replaces a metacopy by the whole file.
    fn publish_over(&self, inode: &Arc<Inode>, source: &Source, made: Made<'_>) -> Result<()> {
        let upper = self.upper()?;
        let staging = upper.staging().as_fd();
        let Some(link) = source.link.as_ref().filter(
            |_| matches!(&inode.state.read().body, Body::File(file) if matches!(file.upper(), Some(UpperFile::Named))),
        ) else {
            return self.keep_nameless(inode, made, true);
        };
        let parent = self.upper_dir(&link.parent)?;
        let second = upper.stage();
        let name: &OsStr = match made {
            Made::File(copy) => {
                at::link_fd(copy.as_fd(), staging, &second.name)?;
                &second.name
            }
            Made::Named(name) => name,
        };
        self.keep_times(&link.parent, || {
            let mut state = inode.state.write();
            at::rename(staging, name, parent.as_fd(), &link.name, RenameFlags::empty())?;
            data_moved(&mut state.body);
            Ok(())
        })?;
        second.publish();
        Ok(())
    }

    fn publish_new_file(
        &self,
        inode: &Arc<Inode>,
        source: &Source,
        file: &FileSource,
        made: Made<'_>,
        depth: Depth,
        with_data: bool,
    ) -> Result<()> {
        let indexed = match &file.origin {
            Some(lower) if source.attr.nlink > 1 && self.can_index(source.attr.format())? => {
                self.index_key(lower)?.map(|key| (lower, key))
            }
            _ => None,
        };
        let Some((lower, (key, origin))) = indexed else {
            if depth == Depth::Indexed {
                return Ok(());
            }
            self.publish_new(inode, source, made)?;
            // Without an index the copy has the one name that it was published under.
            for other in self.links.forget(inode.ino) {
                self.release_inode(other.parent);
            }
            if with_data {
                data_moved(&mut inode.state.write().body);
            }
            return Ok(());
        };
        let upper = self.upper()?;
        let index = upper.index().ok_or(Refusal::NotFound)?;
        let target = match made {
            Made::File(copy) => Target::Fd(copy.as_fd()),
            Made::Named(name) => Target::At(upper.staging().as_fd(), name),
        };
        upper.markers.set_ino(target, inode.ino)?;
        upper.markers.set_origin(target, &origin)?;
        // One link on disk, the index's; all the names of the lower file in the union.
        let hidden = self.hidden_names(inode.ino).unwrap_or_default();
        upper.markers.set_nlink(target, i64::from(source.attr.nlink) - i64::from(hidden) - 1)?;
        if !with_data {
            let path = match &source.link {
                Some(link) => self.path_below(&link.parent, &link.name)?,
                None => lower.dir.path_of(&lower.name),
            };
            upper.markers.set_redirect(target, &path)?;
        }
        upper.mark_index_used();
        {
            let mut state = inode.state.write();
            match made {
                Made::File(copy) => at::link_fd(copy.as_fd(), index.as_fd(), &key)?,
                Made::Named(name) => {
                    at::rename(upper.staging().as_fd(), name, index.as_fd(), &key, RenameFlags::NOREPLACE)?
                }
            }
            if let Body::File(body) = &mut state.body {
                body.set_upper(UpperFile::Indexed(key.clone()));
            }
            if with_data {
                data_moved(&mut state.body);
            }
        }
        self.hidden_names_counted(inode.ino);
        if depth != Depth::Indexed {
            if let Some(link) = &source.link {
                self.note_link(inode, link.clone());
            }
            self.link_up_known(inode, &key);
        }
        Ok(())
    }

    /// Publishes the copy of a lower object under its name.
    fn publish_new(&self, inode: &Arc<Inode>, source: &Source, made: Made<'_>) -> Result<()> {
        let Some(link) = &source.link else {
            return self.keep_nameless(inode, made, false);
        };
        let upper = self.upper()?;
        let target = match made {
            Made::File(copy) => Target::Fd(copy.as_fd()),
            Made::Named(name) => Target::At(upper.staging().as_fd(), name),
        };
        // Symlinks and special files hold no user.* attributes: their number is kept in memory alone.
        match upper.markers.set_ino(target, inode.ino) {
            Err(error) if error.errno() == Errno::PERM && source.attr.format() != libc::S_IFREG => {
                let copy = upper.entry(target, &link.name)?.attr;
                self.inos.keep(copy.dev, copy.ino, inode.ino);
            }
            other => other?,
        }
        let parent = self.upper_dir(&link.parent)?;
        self.keep_times(&link.parent, || {
            self.mark_impure(&link.parent)?;
            let mut state = inode.state.write();
            match made {
                Made::File(copy) => at::link_fd(copy.as_fd(), parent.as_fd(), &link.name)?,
                Made::Named(name) => {
                    at::rename(upper.staging().as_fd(), name, parent.as_fd(), &link.name, RenameFlags::NOREPLACE)?;
                }
            }
            if let Body::File(body) = &mut state.body {
                body.set_upper(UpperFile::Named);
                if body.kind() != FileType::RegularFile {
                    body.leave_lower();
                }
            }
            Ok(())
        })
    }

    /// The copy of a file that has no name any more.
    fn keep_nameless(&self, inode: &Arc<Inode>, made: Made<'_>, whole: bool) -> Result<()> {
        let staging = self.upper()?.staging().as_fd();
        let fd = match made {
            Made::File(copy) => at::reopen(copy.as_fd(), OFlags::PATH)?,
            Made::Named(name) => {
                let fd = at::open_path(staging, name)?;
                at::unlink(staging, name)?;
                fd
            }
        };
        let mut state = inode.state.write();
        if let Body::File(body) = &mut state.body {
            body.set_upper(UpperFile::Nameless(Arc::new(fd)));
        }
        if whole {
            data_moved(&mut state.body);
        }
        Ok(())
    }

    /// Owner, xattrs, mode and times, in the order in which none undoes another: a change of owner drops
    /// `security.capability`, and a mode without write permission may refuse xattrs.
    fn set_attr(&self, inode: &Arc<Inode>, target: Target<'_>, attr: &Attr) -> Result<()> {
        let backing = match target {
            Target::At(dir, name) => Owned::At(dir, name),
            Target::Fd(fd) => Owned::Fd(fd),
        };
        match self.upper()?.override_key {
            Some(key) if attr.format() != libc::S_IFLNK => {
                self.copy_xattrs(inode, target)?;
                set_override(target, key, attr)?;
                backing.chmod(0o755)?;
            }
            key => {
                let chowned = backing.chown(attr.uid, attr.gid);
                // With an owner who was not to be had go the bits that make him somebody's user.
                let kept = if chowned.is_ok() { 0o7777 } else { 0o1777 };
                if key.is_some() || self.owners.shows_one_owner() {
                    as_far_as_possible(chowned)?
                } else {
                    chowned?
                }
                self.copy_xattrs(inode, target)?;
                if attr.format() != libc::S_IFLNK {
                    backing.chmod(attr.mode & kept)?;
                }
            }
        }
        backing.utimens(attr)
    }

    fn copy_xattrs(&self, inode: &Arc<Inode>, to: Target<'_>) -> Result<()> {
        self.with_backing(inode, |from| {
            let names = from.xattr_names()?;
            for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                let Some(copied) = copied_as(from, name, self.owners.override_key())? else {
                    continue;
                };
                let Some(value) = from.xattr(OsStr::from_bytes(name))? else {
                    continue;
                };
                match xattr::set(to, &copied, &value, 0) {
                    // Not carried by the upper's filesystem, or not ours to set.
                    Err(error) if matches!(error.errno(), Errno::OPNOTSUPP | Errno::PERM) => {
                        tracing::debug!(%error, "attribute not copied up");
                    }
                    other => other?,
                }
            }
            Ok(())
        })
    }

    /// Does something in a directory of the upper that its times must not show.
    pub(crate) fn keep_times<T>(&self, dir: &Arc<Inode>, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.with_upper(dir, |backing| backing.attr())?;
        let done = act();
        // Also after what was tried and taken back.
        if let Err(error) = self.with_upper(dir, |backing| backing.utimens(&times_of(&before))) {
            tracing::debug!(%error, "times of a directory after a copy-up in it");
        }
        done
    }

    /// Before an entry with an inode number of its own comes into a directory.
    pub(crate) fn mark_impure(&self, dir: &Arc<Inode>) -> Result<()> {
        if matches!(&dir.state.read().body, Body::Dir(body) if body.impure) {
            return Ok(());
        }
        let fd = self.upper_dir(dir)?;
        self.upper()?.markers.set_impure(fd.as_fd())?;
        if let Body::Dir(body) = &mut dir.state.write().body {
            body.impure = true;
        }
        Ok(())
    }
}

/// What was built, before it is published.
#[derive(Clone, Copy)]
enum Made<'a> {
    /// Under this name in the staging directory.
    Named(&'a OsString),
    /// A nameless file.
    File(&'a OwnedFd),
}

/// An object under construction.
enum Owned<'a> {
    At(BorrowedFd<'a>, &'a OsStr),
    Fd(BorrowedFd<'a>),
}

impl Owned<'_> {
    fn chown(&self, uid: u32, gid: u32) -> Result<(), Error> {
        match self {
            Self::At(dir, name) => at::chown(*dir, name, Some(uid), Some(gid)),
            Self::Fd(fd) => at::fchown_path(*fd, Some(uid), Some(gid)),
        }
    }

    fn chmod(&self, mode: u32) -> Result<(), Error> {
        match self {
            Self::At(dir, name) => at::chmod(*dir, name, mode),
            Self::Fd(fd) => at::fchmod(*fd, mode),
        }
    }

    fn utimens(&self, attr: &Attr) -> Result<(), Error> {
        match self {
            Self::At(dir, name) => at::utimens(*dir, name, &times_of(attr)),
            Self::Fd(fd) => at::futimens(*fd, &times_of(attr)),
        }
    }
}

fn is_done(inode: &Inode, depth: Depth) -> bool {
    if depth.is_data() { inode.is_pure_upper() } else { inode.in_upper() }
}

/// The upper holds the data from now on; open handles follow it.
fn data_moved(body: &mut Body) {
    if let Body::File(file) = body {
        file.leave_lower();
    }
}
