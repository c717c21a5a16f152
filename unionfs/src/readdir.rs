//! Listings: the union of a directory's parts, as a snapshot per reader.
//!
//! The kernel opens no directories here: a reader is known by its offsets alone,
//! each of which carries the number of the snapshot that it belongs to.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::error::{Error, Refusal, Result};
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

/// What a directory listed when somebody began to read it.
pub(crate) struct Snapshot {
    number: u64,
    entries: Vec<Entry>,
}

/// Readers of one directory that are told apart.
const NUMBERS: u64 = 1 << NUMBER_BITS;
/// So few that the offsets of 16 million entries fit into the 31 bits of an old 32-bit program.
const NUMBER_BITS: u32 = 7;
/// Entries of all snapshots together, beyond which those that were not read for longest go.
const MAX_ENTRIES: usize = 1 << 18;

impl Snapshot {
    /// The entries from an offset on, each with the offset behind it.
    pub(crate) fn from(&self, offset: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let start = usize::try_from(offset >> NUMBER_BITS).unwrap_or(usize::MAX);
        let next = move |position: usize| (position as u64 + 1) << NUMBER_BITS | self.number;
        self.entries.iter().enumerate().skip(start).map(move |(position, entry)| (next(position), entry))
    }
}

/// The snapshots that are being read.
pub(crate) struct Listings {
    /// Held for a look-up alone, never while a directory is read.
    kept: Mutex<Kept>,
}

struct Kept {
    /// By directory and number.
    snapshots: LruCache<(u64, u64), Arc<Snapshot>>,
    entries: usize,
    next: u64,
}

impl Default for Listings {
    fn default() -> Self {
        Self { kept: Mutex::new(Kept { snapshots: LruCache::unbounded(), entries: 0, next: 0 }) }
    }
}

impl Listings {
    fn get(&self, ino: u64, offset: u64) -> Option<Arc<Snapshot>> {
        self.kept.lock().snapshots.get(&(ino, offset % NUMBERS)).map(Arc::clone)
    }

    fn put(&self, ino: u64, entries: Vec<Entry>) -> Arc<Snapshot> {
        let mut kept = self.kept.lock();
        let number = kept.next % NUMBERS;
        kept.next += 1;
        kept.entries += entries.len();
        let snapshot = Arc::new(Snapshot { number, entries });
        if let Some((_, old)) = kept.snapshots.push((ino, number), Arc::clone(&snapshot)) {
            kept.entries -= old.entries.len();
        }
        while kept.entries > MAX_ENTRIES && kept.snapshots.len() > 1 {
            let Some((_, old)) = kept.snapshots.pop_lru() else { break };
            kept.entries -= old.entries.len();
        }
        snapshot
    }

    fn remove(&self, ino: u64, number: u64) {
        let mut kept = self.kept.lock();
        if let Some(old) = kept.snapshots.pop(&(ino, number)) {
            kept.entries -= old.entries.len();
        }
    }
}

impl UnionFs {
    /// The snapshot that an offset belongs to, taken anew at offset 0 (rewinddir).
    ///
    /// One that nobody read for very long may be gone: then its reader goes on in a new one, where it was.
    pub(crate) fn snapshot(&self, inode: &Arc<Inode>, offset: u64) -> Result<Arc<Snapshot>> {
        if offset > 0
            && let Some(snapshot) = self.listings.get(inode.ino, offset)
        {
            if snapshot.from(offset).next().is_none() {
                // The reader sees its end with this request.
                self.listings.remove(inode.ino, snapshot.number);
            }
            return Ok(snapshot);
        }
        let entries = self.list(inode)?;
        Ok(self.listings.put(inode.ino, entries))
    }

    fn list(&self, inode: &Arc<Inode>) -> Result<Vec<Entry>> {
        let removed = matches!(&inode.state.read().body, Body::Dir(dir) if matches!(dir.upper, UpperDir::Removed(_)));
        if removed {
            return Ok(Vec::new());
        }
        let above = inode.link().map_or(inode.ino, |link| link.parent.ino);
        let dots = [(".", inode.ino), ("..", above)];
        let mut entries: Vec<Entry> =
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
            let device = layer.device(&lower.dir)?;
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

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn entries(names: &[&str]) -> Vec<Entry> {
        names.iter().map(|name| Entry { name: name.into(), ino: 7, format: libc::S_IFREG }).collect()
    }

    fn names(snapshot: &Snapshot, offset: u64) -> Vec<&OsStr> {
        snapshot.from(offset).map(|(_, entry)| entry.name.as_os_str()).collect()
    }

    #[test]
    fn each_reader_goes_on_in_its_own_snapshot() {
        let listings = Listings::default();
        let first = listings.put(5, entries(&["a", "b", "c"]));
        let (after_a, _) = first.from(0).next().unwrap();
        let second = listings.put(5, entries(&["b", "d"]));
        let (after_b, _) = second.from(0).next().unwrap();
        assert_eq!(names(&listings.get(5, after_a).unwrap(), after_a), ["b", "c"]);
        assert_eq!(names(&listings.get(5, after_b).unwrap(), after_b), ["d"]);
        assert!(listings.get(6, after_a).is_none());
        let (end, _) = first.from(0).last().unwrap();
        assert!(names(&first, end).is_empty());
    }

    #[test]
    fn offsets_of_millions_of_entries_fit_into_31_bits() {
        let last = (16_000_000 << NUMBER_BITS) | (NUMBERS - 1);
        assert!(i32::try_from(last).is_ok());
    }

    #[test]
    fn what_was_not_read_for_longest_goes_first() {
        let listings = Listings::default();
        let many = vec!["x"; MAX_ENTRIES / 2];
        let offsets: Vec<u64> = (0..3).map(|ino| listings.put(ino, entries(&many)).from(0).next().unwrap().0).collect();
        let kept: Vec<bool> = (0..3).zip(&offsets).map(|(ino, offset)| listings.get(ino, *offset).is_some()).collect();
        assert_eq!(kept, [false, true, true]);
    }
}
