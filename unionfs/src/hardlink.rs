//! Several names of one file.
//!
//! A lower file with several names is copied up once: the index
//! (`WORK/index`, in kernel overlayfs's form) holds one link of the copy, named
//! by the lower file's identity, and any other name finds it there. Names that
//! the mount has seen are linked into the upper too, so that a reader without
//! the index shows the same.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;

use dashmap::DashMap;

use crate::copy_up::Depth;
use crate::cpus;
use crate::error::{Refusal, Result};
use crate::inode::{Body, Inode, Link, LowerFile, State, UpperFile};
use crate::layer::index_name;
use crate::lookup::Found;
use crate::name::Name;
use crate::sys::at;
use crate::sys::xattr::Target;
use crate::union::UnionFs;
use crate::whiteout::Namespace;

/// The names of one file beyond this number are not remembered.
const MAX_LINKS: usize = 64;

/// What is known of files with several names.
pub(crate) struct Links {
    /// Names that the mount has seen, by inode number.
    seen: DashMap<u64, Vec<Link>>,
    /// Lower names that whiteouts hide, where no index counts them.
    hidden: DashMap<u64, u32>,
}

impl Default for Links {
    fn default() -> Self {
        Self { seen: cpus::shared_map(), hidden: cpus::shared_map() }
    }
}

impl Links {
    /// An inode left the table; its names hold their parents no longer.
    pub(crate) fn forget(&self, ino: u64) -> Vec<Link> {
        self.seen.remove(&ino).map(|(_, links)| links).unwrap_or_default()
    }
}

impl UnionFs {
    /// Remembers a name of a file with several.
    pub(crate) fn note_link(&self, inode: &Inode, link: Link) {
        let mut links = self.links.seen.entry(inode.ino).or_default();
        if links.len() < MAX_LINKS && !links.iter().any(|known| known.is(&link.parent, &link.name)) {
            links.push(link);
        }
    }

    /// Whether names of the inode are being remembered.
    pub(crate) fn is_multi(&self, inode: &Inode) -> bool {
        self.links.seen.contains_key(&inode.ino)
    }

    /// Names that whiteouts hide of a lower file without an index.
    pub(crate) fn hidden_names(&self, ino: u64) -> Option<u32> {
        self.links.hidden.get(&ino).map(|count| *count)
    }

    /// The index counts the names from now on.
    pub(crate) fn hidden_names_counted(&self, ino: u64) {
        self.links.hidden.remove(&ino);
    }

    fn known_links(&self, inode: &Inode) -> Vec<Link> {
        self.links.seen.get(&inode.ino).map(|links| links.clone()).unwrap_or_default()
    }

    /// A name of the inode went away. The caller holds its transaction.
    pub(crate) fn drop_link(&self, inode: &Inode, state: &mut State, parent: &Arc<Inode>, name: &OsStr) {
        let other = match self.links.seen.get_mut(&inode.ino) {
            Some(mut links) => {
                links.retain(|link| !link.is(parent, name));
                links.first().cloned()
            }
            None => None,
        };
        if state.link.as_ref().is_some_and(|link| link.is(parent, name)) {
            state.link = other;
        }
    }

    /// Whether objects of a type can hold the marks of an indexed file: symlinks and special files take no `user.*`.
    pub(crate) fn can_index(&self, format: u32) -> Result<bool> {
        Ok(format == libc::S_IFREG || self.upper()?.markers.namespace == Some(Namespace::Trusted))
    }

    /// The index name of a lower file, if copies of it are to be indexed.
    pub(crate) fn index_key(&self, lower: &LowerFile) -> Result<Option<(Name, Vec<u8>)>> {
        let upper = self.upper()?;
        if upper.index().is_none() {
            return Ok(None);
        }
        let Some(origin) = self.layer(lower.layer).origin(&lower.dir, &lower.name) else {
            return Ok(None);
        };
        Ok(Some((Name::from(index_name(&origin).as_os_str()), origin)))
    }

    /// Names in the union of an indexed file that has `on_disk` links.
    pub(crate) fn indexed_nlink(&self, inode: &Arc<Inode>, on_disk: u32) -> Result<u32> {
        let difference = self.with_upper(inode, |backing| {
            Ok(self.upper()?.markers.read(backing.target()?, None)?.nlink.unwrap_or_default())
        })?;
        Ok(u32::try_from((i64::from(on_disk) + difference).max(0)).unwrap_or(u32::MAX))
    }

    fn index_key_of(inode: &Inode) -> Option<Name> {
        match &inode.state.read().body {
            Body::File(file) => match file.upper() {
                Some(UpperFile::Indexed(key)) => Some(key.clone()),
                _ => None,
            },
            Body::Dir(_) => None,
        }
    }

    /// Changes the number of names of an indexed file: `names` in the union,
    /// of which `links` are links on disk.
    fn recount(&self, key: &OsStr, names: i64, links: i64) -> Result<i64> {
        let upper = self.upper()?;
        let index = upper.index().ok_or(Refusal::NotFound)?;
        let target = Target::At(index.as_fd(), key);
        let mut difference = upper.markers.read(target, None)?.nlink.unwrap_or_default();
        let on_disk = i64::try_from(at::stat(index.as_fd(), key)?.st_nlink).unwrap_or(i64::MAX);
        // Last: whoever gets an error has changed nothing.
        if names != links {
            difference += names - links;
            upper.markers.set_nlink(target, difference)?;
        }
        Ok(on_disk.saturating_add(difference))
    }

    /// Gives an indexed file that was found under a lower name this name in the
    /// upper. Failing to is no error: the index still joins them.
    pub(crate) fn link_up(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &OsStr, found: &Found) {
        if found.named_in_upper() || self.settings.read_only || found.is_dir() {
            return;
        }
        let Some(key) = Self::index_key_of(inode) else {
            return;
        };
        // Before the transaction: a parent's own is never taken under a child's.
        let linked = self.copy_up(parent, Depth::Attributes).and_then(|_| {
            let _transaction = inode.transaction.lock();
            self.link_up_name(&key, parent, name)
        });
        if let Err(error) = linked {
            tracing::debug!(%error, "a name of a copied-up hard link stays in the lower layer");
        }
    }

    /// The same for a caller that holds the transaction and needs it done.
    pub(crate) fn link_up_locked(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &OsStr) -> Result<()> {
        match Self::index_key_of(inode) {
            Some(key) => self.link_up_name(&key, parent, name),
            None => self.link_to_copy(inode, parent, name),
        }
    }

    /// Gives a file that was copied up under another of its names, and is in no index, this name too.
    fn link_to_copy(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &OsStr) -> Result<()> {
        let dir = self.upper_dir(parent)?;
        self.keep_times(parent, || {
            self.mark_impure(parent)?;
            self.with_upper(inode, |backing| match backing.target()? {
                Target::At(from, from_name) => at::link(from, from_name, dir.as_fd(), name),
                Target::Fd(fd) => at::link_fd(fd, dir.as_fd(), name),
            })
        })
    }

    fn link_up_name(&self, key: &OsStr, parent: &Arc<Inode>, name: &OsStr) -> Result<()> {
        let dir = self.upper_dir(parent)?;
        let index = self.upper()?.index().ok_or(Refusal::NotFound)?;
        if at::stat_opt(dir.as_fd(), name)?.is_some() {
            return Ok(());
        }
        self.keep_times(parent, || {
            self.mark_impure(parent)?;
            at::link(index.as_fd(), key, dir.as_fd(), name)?;
            // Linked first: killed in between, too many names are counted and the index entry stays for ever. With
            // too few it would go while a name below needs it.
            let counted = self.recount(key, 0, 1).map(drop);
            if counted.is_err() {
                // The name below shows again, and the index joins it.
                at::unlink(dir.as_fd(), name)?;
            }
            counted
        })
    }

    /// Copies up the directories of every name seen, before [`Self::link_up_known`].
    pub(crate) fn copy_up_known_parents(&self, inode: &Inode) {
        for link in self.known_links(inode) {
            if let Err(error) = self.copy_up(&link.parent, Depth::Attributes) {
                tracing::debug!(%error, "a name of a copied-up hard link stays in the lower layer");
            }
        }
    }

    /// Links every name that the mount has seen of a file just indexed.
    pub(crate) fn link_up_known(&self, inode: &Arc<Inode>, key: &OsStr) {
        for link in self.known_links(inode) {
            if let Err(error) = self.link_up_name(key, &link.parent, &link.name) {
                tracing::debug!(%error, "a name of a copied-up hard link stays in the lower layer");
            }
        }
    }

    /// Before a lower name of a file with several goes: the copy that counts the
    /// names that remain. The caller holds the inode's transaction.
    pub(crate) fn before_unlink(&self, inode: &Arc<Inode>, found: &Found) -> Result<()> {
        let moves_no_data = self.settings.metacopy || found.attr.format() != libc::S_IFREG;
        if found.attr.nlink > 1 && !inode.in_upper() && moves_no_data {
            self.copy_up_locked(inode, Depth::Indexed)?;
        }
        Ok(())
    }

    /// After a name went: counts, and the index entry's end with the last name.
    /// `linked` says that the name was a link on disk. The name is gone for good,
    /// so that a failure is told to the log alone.
    pub(crate) fn after_unlink(&self, inode: &Arc<Inode>, linked: bool) {
        if let Err(error) = self.count_unlinked(inode, linked) {
            tracing::error!(%error, ino = inode.ino, "the link count of a file is too high from now on");
        }
    }

    fn count_unlinked(&self, inode: &Arc<Inode>, linked: bool) -> Result<()> {
        let Some(key) = Self::index_key_of(inode) else {
            if !inode.in_upper() {
                *self.links.hidden.entry(inode.ino).or_insert(0) += 1;
            }
            return Ok(());
        };
        if self.recount(&key, -1, if linked { -1 } else { 0 })? > 0 {
            return Ok(());
        }
        let index = self.upper()?.index().ok_or(Refusal::NotFound)?;
        let fd = at::open_path(index.as_fd(), &key)?;
        let mut state = inode.state.write();
        at::unlink(index.as_fd(), &key)?;
        if let Body::File(file) = &mut state.body {
            file.set_upper(UpperFile::Nameless(Arc::new(fd)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::attr::SetAttr;
    use crate::error::Error;
    use crate::inode::ROOT_INO;
    use crate::options::Options;

    #[test]
    fn a_name_that_was_found_before_another_was_copied_up_is_looked_for_again() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        ["lower", "upper", "work"].iter().for_each(|name| std::fs::create_dir(path(name)).unwrap());
        std::fs::write(path("lower/one"), b"data").unwrap();
        std::fs::hard_link(path("lower/one"), path("lower/two")).unwrap();
        let options = Options {
            lowers: vec![path("lower")],
            upper: Some(path("upper")),
            work: Some(path("work")),
            index: true,
            ..Options::new("/nowhere")
        };
        let fs = UnionFs::open_over(&options, &[]).unwrap();
        let (root, two) = (fs.inodes.get(ROOT_INO).unwrap(), OsStr::new("two"));
        let (one, _) = fs.lookup(&root, OsStr::new("one")).unwrap().unwrap();
        let found = fs.find(&root, two).unwrap().unwrap();
        fs.setattr(&one, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
        let outdated = fs.intern(&root, two, &found, true);
        assert!(matches!(outdated, Err(Error::Refused(Refusal::Outdated))), "{:?}", outdated.map(|inode| inode.ino));
        let (inode, attr) = fs.lookup(&root, two).unwrap().unwrap();
        assert!(Arc::ptr_eq(&inode, &one) && attr.mode & 0o777 == 0o600);
    }
}
