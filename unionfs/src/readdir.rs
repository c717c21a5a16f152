//! Listings: the union of a directory's parts, as a snapshot per open directory.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::error::{Error, Refusal, Result};
use crate::handle::DirHandle;
use crate::inode::{Body, Inode, UpperDir};
use crate::layer::{Listed, list_dir};
use crate::sys::at;
use crate::sys::xattr::Target;
use crate::union::UnionFs;

/// One entry of a listing.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    /// The number that stat shows.
    pub(crate) ino: u64,
    /// Type (`S_IFMT` bits), 0 if not known.
    pub(crate) format: u32,
}

/// What a directory listed when it was read from the beginning.
pub(crate) type Snapshot = Vec<Entry>;

impl UnionFs {
    /// The snapshot of an open directory, taken anew at offset 0 (rewinddir).
    pub(crate) fn snapshot(&self, handle: &DirHandle, offset: u64) -> Result<Arc<Snapshot>> {
        let mut kept = handle.snapshot.lock();
        if offset > 0
            && let Some(snapshot) = &*kept
        {
            return Ok(Arc::clone(snapshot));
        }
        let snapshot = Arc::new(self.list(&handle.inode)?);
        *kept = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    fn list(&self, inode: &Arc<Inode>) -> Result<Snapshot> {
        let removed = matches!(&inode.state.read().body, Body::Dir(dir) if matches!(dir.upper, UpperDir::Removed(_)));
        if removed {
            return Ok(Vec::new());
        }
        let above = inode.link().map_or(inode.ino, |link| link.parent.ino);
        let dots = [(".", inode.ino), ("..", above)];
        let mut entries: Snapshot =
            dots.into_iter().map(|(name, ino)| Entry { name: name.into(), ino, format: libc::S_IFDIR }).collect();
        self.merge(inode, &mut |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok(entries)
    }

    /// Whether a directory shows nothing.
    pub(crate) fn is_empty_dir(&self, inode: &Arc<Inode>) -> Result<bool> {
        let stop: Refusal = Refusal::NotEmpty;
        match self.merge(inode, &mut |_| Err(stop.into())) {
            Ok(()) => Ok(true),
            Err(Error::Refused(Refusal::NotEmpty)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Calls `each` for every visible entry, the upper's first.
    pub(crate) fn merge(&self, inode: &Arc<Inode>, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let lowers = self.lowers_of(inode)?;
        let mut parts = lowers.len();
        let mut seen: HashSet<OsString> = HashSet::new();
        if let Some(dir) = self.upper_dir_opt(inode)? {
            let device = at::fstat(dir.as_fd())?.st_dev;
            let impure = matches!(&inode.state.read().body, Body::Dir(body) if body.impure);
            let upper = self.upper()?;
            let mut hidden = Vec::new();
            list_dir(&dir, false, &mut |listed| {
                let (name, ino, format) = match listed {
                    Listed::Whiteout(name) => {
                        hidden.push(name.to_owned());
                        return Ok(());
                    }
                    Listed::Entry(name, ino, format) => (name, ino, format),
                };
                let mut number = self.inos.number(device, ino);
                if impure {
                    number = upper.markers.read_ino(Target::At(dir.as_fd(), name))?.unwrap_or(number);
                }
                if parts > 0 {
                    seen.insert(name.to_owned());
                }
                let format = if upper.override_key.is_some() && format == libc::S_IFREG { 0 } else { format };
                each(Entry { name: name.to_owned(), ino: number, format })
            })?;
            if parts > 0 {
                seen.extend(hidden);
            }
        }
        for lower in lowers.iter() {
            parts -= 1;
            let layer = self.layer(lower.layer);
            let device = layer.attr(&lower.dir, OsStr::new("."))?.dev;
            let mut here = Vec::new();
            layer.list(&lower.dir, &mut |listed| {
                let (name, ino, format) = match listed {
                    Listed::Whiteout(name) => {
                        if parts > 0 {
                            here.push(name.to_owned());
                        }
                        return Ok(());
                    }
                    Listed::Entry(name, ino, format) => (name, ino, format),
                };
                if seen.contains(name) {
                    return Ok(());
                }
                if parts > 0 {
                    here.push(name.to_owned());
                }
                each(Entry { name: name.to_owned(), ino: self.inos.number(device, ino), format })
            })?;
            seen.extend(here);
        }
        Ok(())
    }
}
