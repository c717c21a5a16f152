//! Renaming. Everything that the new name needs is written first, where it
//! changes nothing that can be seen; then one `renameat2` makes the change.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::MutexGuard;
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::attr::times_of;
use crate::copy_up::Depth;
use crate::dir::dir_gone;
use crate::error::{Refusal, Result};
use crate::inode::{Body, Inode, Link, State, UpperFile};
use crate::lookup::Found;
use crate::name::Name;
use crate::options::RedirectDir;
use crate::sys::at;
use crate::sys::xattr::{self, Target};
use crate::union::UnionFs;
use crate::whiteout;
use crate::xattr::copies_up;

/// One end of a rename.
struct End<'a> {
    parent: &'a Arc<Inode>,
    name: &'a OsStr,
    /// What the name is, `None` for a free one.
    object: Option<(Found, Arc<Inode>)>,
    /// The parent in the upper.
    dir: Arc<OwnedFd>,
    /// A lower layer shows something under this name.
    below: bool,
}

impl UnionFs {
    /// Renames, with the flags of renameat2(2); `WHITEOUT` is not one for users.
    pub(crate) fn rename(
        &self,
        from: (&Arc<Inode>, &OsStr),
        to: (&Arc<Inode>, &OsStr),
        flags: RenameFlags,
    ) -> Result<()> {
        self.check_writable()?;
        self.check_name(to.1)?;
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(flags) || flags.bits().count_ones() > 1 {
            return Err(Refusal::Invalid.into());
        }
        let exchange = flags == RenameFlags::EXCHANGE;
        let source = self.find(from.0, from.1)?.ok_or(Refusal::NotFound)?;
        let target = self.find(to.0, to.1)?;
        match (&target, flags) {
            (Some(_), RenameFlags::NOREPLACE) => return Err(Refusal::Exists.into()),
            (None, RenameFlags::EXCHANGE) => return Err(Refusal::NotFound.into()),
            (Some(target), _) if !exchange => match (source.is_dir(), target.is_dir()) {
                (true, false) => return Err(Refusal::NotDirectory.into()),
                (false, true) => return Err(Refusal::IsDirectory.into()),
                _ => {}
            },
            _ => {}
        }
        let source_inode = self.intern(from.0, from.1, &source, false)?;
        let target = match target {
            Some(found) => {
                let inode = self.intern(to.0, to.1, &found, false)?;
                Some((found, inode))
            }
            None => None,
        };
        let inodes = (Arc::clone(&source_inode), target.as_ref().map(|(_, inode)| Arc::clone(inode)));
        let done = self.rename_found(from, to, (source, source_inode), target, exchange);
        self.release_inode(inodes.0);
        if let Some(inode) = inodes.1 {
            self.release_inode(inode);
        }
        done
    }

    fn rename_found(
        &self,
        from: (&Arc<Inode>, &OsStr),
        to: (&Arc<Inode>, &OsStr),
        source: (Found, Arc<Inode>),
        target: Option<(Found, Arc<Inode>)>,
        exchange: bool,
    ) -> Result<()> {
        if let Some((_, inode)) = &target
            && Arc::ptr_eq(inode, &source.1)
        {
            // Two names of one file: POSIX has nothing happen.
            return Ok(());
        }
        for (found, inode) in std::iter::once(&source).chain(target.as_ref().filter(|_| exchange)) {
            self.check_movable(found, inode)?;
        }
        self.copy_up(from.0, Depth::Attributes)?;
        self.copy_up(to.0, Depth::Attributes)?;
        self.copy_up(&source.1, Depth::Attributes)?;
        if let Some((_, inode)) = target.as_ref().filter(|_| exchange) {
            self.copy_up(inode, Depth::Attributes)?;
        }
        let (moving, replaced) = (Arc::clone(&source.1), target.as_ref().map(|(_, inode)| Arc::clone(inode)));
        let _transactions = lock_both(&moving, replaced.as_ref());
        // What is copied up now has another place on disk. (The names stay what they are: the kernel holds both parents.)
        let settled = |(found, inode): &(Found, Arc<Inode>)| found.named_in_upper() && inode.is_pure_upper();
        let (source, target) = if settled(&source) && target.as_ref().is_none_or(settled) {
            (source, target)
        } else {
            let again = |end: (&Arc<Inode>, &OsStr)| self.find(end.0, end.1);
            let source = (again(from)?.ok_or(Refusal::NotFound)?, source.1);
            let target = match (again(to)?, target) {
                (Some(found), Some((_, inode))) => Some((found, inode)),
                (None, None) => None,
                _ => return Err(Refusal::NotFound.into()),
            };
            (source, target)
        };
        let from = self.end(from, Some(source))?;
        let to = self.end(to, target)?;
        self.link_missing_name(&from)?;
        if exchange {
            self.link_missing_name(&to)?;
        }
        self.prepare(&from, &to)?;
        if exchange {
            self.prepare(&to, &from)?;
            self.swap(&from, &to)
        } else {
            self.replace(&from, &to)
        }
    }

    fn end<'a>(&self, end: (&'a Arc<Inode>, &'a OsStr), object: Option<(Found, Arc<Inode>)>) -> Result<End<'a>> {
        let (parent, name) = end;
        Ok(End { parent, name, object, dir: self.upper_dir(parent)?, below: self.exists_below(parent, name)? })
    }

    /// A directory with lower parts moves by a redirect or not at all.
    fn check_movable(&self, found: &Found, inode: &Arc<Inode>) -> Result<()> {
        let redirects = self.settings.redirect_dir == RedirectDir::On && self.upper()?.markers.can_mark();
        if found.is_dir() && !redirects && !self.lowers_of(inode)?.is_empty() {
            return Err(Refusal::CrossDevice.into());
        }
        Ok(())
    }

    /// An indexed file that is moved by a lower name needs that name in the upper.
    fn link_missing_name(&self, end: &End<'_>) -> Result<()> {
        let Some((found, inode)) = &end.object else {
            return Ok(());
        };
        if found.named_in_upper() {
            return Ok(());
        }
        self.link_up_locked(inode, end.parent, end.name)
    }

    /// Writes on the object at `from` what it needs to be itself at `to`.
    fn prepare(&self, from: &End<'_>, to: &End<'_>) -> Result<()> {
        let Some((_, inode)) = &from.object else {
            return Ok(());
        };
        let markers = &self.upper()?.markers;
        let target = Target::At(from.dir.as_fd(), from.name);
        let (has_lower, is_dir) = match &inode.state.read().body {
            Body::Dir(body) => (!body.lowers.is_empty(), true),
            Body::File(file) => (file.lower().is_some(), false),
        };
        let marks = markers.read(target, None);
        let numbered = marks.as_ref().is_ok_and(|marks| marks.ino.is_some());
        if has_lower {
            let path = self.redirect_of(from.parent, from.name, &marks?)?;
            markers.set_redirect(target, &path)?;
        }
        let opaque = is_dir && !has_lower && to.below;
        if opaque {
            let dir = at::open_dir(from.dir.as_fd(), from.name)?;
            markers.set_opaque(dir.as_fd())?;
        }
        if numbered {
            self.mark_impure(to.parent)?;
        }
        Ok(())
    }

    fn swap(&self, from: &End<'_>, to: &End<'_>) -> Result<()> {
        let (Some((_, a)), Some((_, b))) = (&from.object, &to.object) else {
            return Err(Refusal::NotFound.into());
        };
        {
            let (mut a_state, mut b_state) = write_both(a, b);
            at::rename(from.dir.as_fd(), from.name, to.dir.as_fd(), to.name, RenameFlags::EXCHANGE)?;
            self.moved(a, &mut a_state, from, to);
            self.moved(b, &mut b_state, to, from);
        }
        Ok(())
    }

    fn replace(&self, from: &End<'_>, to: &End<'_>) -> Result<()> {
        let Some((_, moving)) = &from.object else {
            return Err(Refusal::NotFound.into());
        };
        let kept = match &to.object {
            Some((found, inode)) => {
                if found.is_dir() {
                    self.check_empty(inode)?;
                    if found.named_in_upper() {
                        self.clear(to)?;
                    }
                } else {
                    self.before_unlink(inode, found)?;
                }
                self.keep(inode, found, &to.dir, to.name)?
            }
            None => None,
        };
        {
            let mut state = moving.state.write();
            let mut replaced = to.object.as_ref().map(|(_, inode)| inode.state.write());
            self.move_over(from, to)?;
            // Before anybody looks for either where something else is now.
            self.moved(moving, &mut state, from, to);
            if let (Some((found, inode)), Some(state)) = (&to.object, replaced.as_deref_mut()) {
                match found.is_dir() {
                    true => dir_gone(state, kept),
                    false => self.name_gone(inode, state, to.parent, to.name, kept),
                }
            }
        }
        if let Some((found, inode)) = &to.object {
            if found.is_dir() {
                self.dirs.remove(inode.ino);
            } else {
                self.after_unlink(inode, found.named_in_upper());
            }
        }
        Ok(())
    }

    /// The one step: the object takes its new name, and a whiteout its old one
    /// if a lower layer would show there.
    fn move_over(&self, from: &End<'_>, to: &End<'_>) -> Result<()> {
        let upper = self.upper()?;
        let is_dir = from.object.as_ref().is_some_and(|(found, _)| found.is_dir());
        let (from_fd, to_fd) = (from.dir.as_fd(), to.dir.as_fd());
        let on_whiteout = at::stat_opt(to_fd, to.name)?.is_some_and(|stat| whiteout::is_device_whiteout(&stat));
        if is_dir && on_whiteout {
            // A directory cannot replace a device; they change places, and the
            // whiteout serves where the directory was, or hides nothing there.
            at::rename(from_fd, from.name, to_fd, to.name, RenameFlags::EXCHANGE)?;
            if !from.below
                && let Err(error) = at::unlink(from_fd, from.name)
            {
                // It is done, and what is left hides nothing.
                tracing::warn!(%error, "a whiteout is left where a directory was");
            }
        } else if from.below && upper.markers.devices {
            match at::rename(from_fd, from.name, to_fd, to.name, RenameFlags::WHITEOUT) {
                Err(error) if matches!(error.errno(), Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    // Without RENAME_WHITEOUT the whiteout comes second.
                    at::rename(from_fd, from.name, to_fd, to.name, RenameFlags::empty())?;
                    upper.markers.make_whiteout(from_fd, from.name)?;
                }
                other => other?,
            }
        } else if from.below {
            upper.markers.make_whiteout(from_fd, from.name)?;
            at::rename(from_fd, from.name, to_fd, to.name, RenameFlags::empty())?;
        } else {
            at::rename(from_fd, from.name, to_fd, to.name, RenameFlags::empty())?;
        }
        if to.below {
            // A whiteout file beside the name would hide nothing that this needs, but a later reader's directory.
            upper.markers.remove_whiteout_file(to_fd, to.name)?;
        }
        Ok(())
    }

    /// Replaces a directory that shows nothing but holds whiteouts by an empty
    /// one, so that it can be renamed over.
    fn clear(&self, to: &End<'_>) -> Result<()> {
        let upper = self.upper()?;
        let old = at::open_dir(to.dir.as_fd(), to.name)?;
        let mut holds = false;
        at::list(old.as_fd(), |_, _, _| {
            holds = true;
            Ok(())
        })?;
        if !holds {
            return Ok(());
        }
        let staged = upper.stage();
        let staging = upper.staging().as_fd();
        at::mkdir(staging, &staged.name, 0o700)?;
        let new = at::open_dir(staging, &staged.name)?;
        let itself = OsStr::new(".");
        let (old_target, new_target) = (Target::At(old.as_fd(), itself), Target::At(new.as_fd(), itself));
        for name in xattr::list(old_target)?.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            use std::os::unix::ffi::OsStrExt;
            let name = OsStr::from_bytes(name);
            if (copies_up(name.as_bytes(), None))
                && let Some(value) = xattr::get(old_target, name)?
            {
                xattr::set(new_target, name, &value, 0)?;
            }
        }
        let stat = at::fstat(old.as_fd())?;
        at::chown(new.as_fd(), itself, Some(stat.st_uid), Some(stat.st_gid))?;
        at::chmod(new.as_fd(), itself, stat.st_mode & 0o7777)?;
        at::utimens(new.as_fd(), itself, &times_of(&(&stat).into()))?;
        // The opaque file of the fuse-overlayfs format would make it non-empty again.
        upper.markers.set_opaque_xattr(new.as_fd())?;
        at::rename(staging, &staged.name, to.dir.as_fd(), to.name, RenameFlags::EXCHANGE)?;
        if let Some((_, inode)) = &to.object {
            self.dirs.remove(inode.ino);
        }
        Ok(())
    }

    /// An object has a new name on disk.
    fn moved(&self, inode: &Inode, state: &mut State, from: &End<'_>, to: &End<'_>) {
        let link = Link { parent: Arc::clone(to.parent), name: Name::from(to.name) };
        if self.is_multi(inode) {
            self.drop_link(inode, state, from.parent, from.name);
            self.note_link(inode, link.clone());
        }
        let was_here = state.link.as_ref().is_none_or(|now| now.is(from.parent, from.name));
        if was_here {
            state.link = Some(link);
            if let Body::File(file) = &mut state.body
                && matches!(file.upper(), Some(UpperFile::Nameless(_)))
            {
                file.set_upper(UpperFile::Named);
            }
        }
    }
}

/// The transactions of both, in the order of inode numbers.
fn lock_both<'a>(a: &'a Inode, b: Option<&'a Arc<Inode>>) -> (MutexGuard<'a, ()>, Option<MutexGuard<'a, ()>>) {
    match b {
        None => (a.transaction.lock(), None),
        Some(b) if a.ino < b.ino => {
            let first = a.transaction.lock();
            (first, Some(b.transaction.lock()))
        }
        Some(b) => {
            let first = b.transaction.lock();
            (a.transaction.lock(), Some(first))
        }
    }
}

type StateGuard<'a> = parking_lot::RwLockWriteGuard<'a, crate::inode::State>;

/// The states of both, in the order of inode numbers.
fn write_both<'a>(a: &'a Inode, b: &'a Inode) -> (StateGuard<'a>, StateGuard<'a>) {
    if a.ino < b.ino {
        let first = a.state.write();
        (first, b.state.write())
    } else {
        let second = b.state.write();
        (a.state.write(), second)
    }
}
