//! Identity: what the kernel calls a nodeid, and what we know behind it.
//!
//! An inode's number is its `st_ino` and, but for [`Nodeids`], its nodeid. It comes
//! from the object itself ([`InoMap`]), so that it survives a remount; an object
//! whose number is taken by another gets one from a reserved range.
//!
//! Locks, outermost first: an inode's `transaction`, then its `state`. The table's
//! own locks are held for a look-up alone. Two transactions are taken in the
//! order of inode numbers; none is taken while a `state` is held.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::{Hash, Hasher};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use rustix::fs::FileType;

use crate::cpus;
use crate::error::{Refusal, Result};
use crate::layer::LayerDir;
use crate::name::Name;
use crate::nodeid::Nodeids;

/// The root's number (`FUSE_ROOT_ID`).
pub(crate) const ROOT_INO: u64 = 1;
/// Numbers from here on are handed out to objects whose own number is taken.
const RESERVED: u64 = 1 << 63;
/// The same, when numbers are folded to 32 bits.
const RESERVED_32: u64 = 0xf000_0000;

/// Whether a number may stand for an object's own.
pub(crate) fn is_plain_ino(ino: u64) -> bool {
    ino > ROOT_INO && ino < RESERVED
}

/// An object's place in the union's tree.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) parent: Arc<Inode>,
    pub(crate) name: Name,
}

impl Link {
    pub(crate) fn is(&self, parent: &Arc<Inode>, name: &OsStr) -> bool {
        Arc::ptr_eq(&self.parent, parent) && *self.name == *name
    }
}

/// Where the upper has a file.
#[derive(Clone, Debug)]
pub(crate) enum UpperFile {
    /// Under the inode's own link.
    Named,
    /// In the index of hard links, under this name.
    Indexed(Name),
    /// It has no name any more; this `O_PATH` descriptor keeps it.
    Nameless(Arc<OwnedFd>),
}

/// Where a lower layer has an object.
#[derive(Clone, Debug)]
pub(crate) struct LowerFile {
    /// Position among the lower layers, 0 being the top one.
    pub(crate) layer: u16,
    pub(crate) kind: FileType,
    pub(crate) dir: Arc<LayerDir>,
    pub(crate) name: Name,
}

/// Anything but a directory.
#[derive(Debug)]
pub(crate) struct FileBody(Places);

/// Where a file is: nearly each in one place, which takes no more room than that needs.
#[derive(Debug)]
enum Places {
    /// In a lower layer alone, with its data.
    Lower(LowerFile),
    /// In the upper alone, under the inode's own link, and no lower layer ever had its data.
    Upper(FileType),
    Others(Box<Parts>),
}

#[derive(Debug)]
struct Parts {
    kind: FileType,
    version: u32,
    upper: Option<UpperFile>,
    lower: Option<LowerFile>,
    data: Option<Box<LowerFile>>,
}

impl FileBody {
    /// `lower` has the data (and, without an upper, the attributes too), unless it is itself a metacopy: then `data`
    /// has. With an upper, that is a metacopy.
    pub(crate) fn new(
        kind: FileType,
        upper: Option<UpperFile>,
        lower: Option<LowerFile>,
        data: Option<Box<LowerFile>>,
    ) -> Self {
        Self(match (upper, lower, data) {
            (None, Some(lower), None) => Places::Lower(lower),
            (Some(UpperFile::Named), None, None) => Places::Upper(kind),
            (upper, lower, data) => Places::Others(Box::new(Parts { kind, version: 0, upper, lower, data })),
        })
    }

    pub(crate) fn kind(&self) -> FileType {
        match &self.0 {
            Places::Lower(lower) => lower.kind,
            Places::Upper(kind) => *kind,
            Places::Others(parts) => parts.kind,
        }
    }

    /// Grows when the data moves to the upper: open handles then follow it.
    pub(crate) fn version(&self) -> u32 {
        match &self.0 {
            Places::Lower(_) | Places::Upper(_) => 0,
            Places::Others(parts) => parts.version,
        }
    }

    pub(crate) fn upper(&self) -> Option<&UpperFile> {
        static NAMED: UpperFile = UpperFile::Named;
        match &self.0 {
            Places::Lower(_) => None,
            Places::Upper(_) => Some(&NAMED),
            Places::Others(parts) => parts.upper.as_ref(),
        }
    }

    pub(crate) fn lower(&self) -> Option<&LowerFile> {
        match &self.0 {
            Places::Lower(lower) => Some(lower),
            Places::Upper(_) => None,
            Places::Others(parts) => parts.lower.as_ref(),
        }
    }

    /// The data, when the lower file is itself a metacopy.
    pub(crate) fn data(&self) -> Option<&LowerFile> {
        match &self.0 {
            Places::Lower(_) | Places::Upper(_) => None,
            Places::Others(parts) => parts.data.as_deref(),
        }
    }

    /// The lower file that holds the data, unless the upper does.
    pub(crate) fn data_below(&self) -> Option<&LowerFile> {
        self.data().or(self.lower())
    }

    pub(crate) fn set_upper(&mut self, upper: UpperFile) {
        self.change(|parts| parts.upper = Some(upper));
    }

    /// The upper holds all of it from now on; open handles follow it.
    pub(crate) fn leave_lower(&mut self) {
        self.change(|parts| {
            (parts.lower, parts.data) = (None, None);
            parts.version += 1;
        });
    }

    fn change(&mut self, change: impl FnOnce(&mut Parts)) {
        let kind = self.kind();
        let mut parts = match std::mem::replace(&mut self.0, Places::Upper(kind)) {
            Places::Lower(lower) => Box::new(Parts { kind, version: 0, upper: None, lower: Some(lower), data: None }),
            Places::Upper(_) => {
                Box::new(Parts { kind, version: 0, upper: Some(UpperFile::Named), lower: None, data: None })
            }
            Places::Others(parts) => parts,
        };
        change(&mut parts);
        self.0 = Places::Others(parts);
    }
}

/// Where the upper has a directory.
#[derive(Clone, Debug)]
pub(crate) enum UpperDir {
    /// It has none.
    Absent,
    /// Under the inode's own link.
    Named,
    /// Removed; this `O_PATH` descriptor keeps it, if it was in the upper.
    Removed(Option<Arc<OwnedFd>>),
}

/// A lower layer's part of a directory.
#[derive(Clone, Debug)]
pub(crate) struct LowerDir {
    /// Position among the lower layers, 0 being the top one.
    pub(crate) layer: u16,
    pub(crate) dir: Arc<LayerDir>,
}

/// A directory.
#[derive(Debug)]
pub(crate) struct DirBody {
    pub(crate) upper: UpperDir,
    /// Entries of the upper directory may carry inode numbers of their own.
    pub(crate) impure: bool,
    /// Top first.
    pub(crate) lowers: Arc<[LowerDir]>,
}

#[derive(Debug)]
pub(crate) enum Body {
    File(FileBody),
    Dir(Box<DirBody>),
}

#[derive(Debug)]
pub(crate) struct State {
    /// `None`: the root, or an object without a name.
    pub(crate) link: Option<Link>,
    pub(crate) body: Body,
}

#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) ino: u64,
    /// How many times the kernel was told of it, less what it forgot.
    nlookup: AtomicU64,
    /// It is known to have no extended attributes that a user may see: nothing need be asked.
    bare: AtomicBool,
    /// Held by whoever moves the object: copy-up, rename, unlink, link.
    pub(crate) transaction: Mutex<()>,
    /// Read while its place is used, written when the place changes.
    pub(crate) state: RwLock<State>,
}

impl Inode {
    pub(crate) fn new(ino: u64, bare: bool, state: State) -> Self {
        let (nlookup, bare) = (AtomicU64::new(0), AtomicBool::new(bare));
        Self { ino, nlookup, bare, transaction: Mutex::new(()), state: RwLock::new(state) }
    }

    /// Whether it is known to have no extended attributes.
    pub(crate) fn is_bare(&self) -> bool {
        self.bare.load(Ordering::Acquire)
    }

    /// It is about to get an extended attribute.
    pub(crate) fn set_dressed(&self) {
        self.bare.store(false, Ordering::Release);
    }

    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.state.read().body, Body::Dir(_))
    }

    /// Whether the upper holds at least its attributes.
    pub(crate) fn in_upper(&self) -> bool {
        match &self.state.read().body {
            Body::File(file) => file.upper().is_some(),
            Body::Dir(dir) => !matches!(dir.upper, UpperDir::Absent),
        }
    }

    /// Whether the upper holds its attributes and data.
    pub(crate) fn is_pure_upper(&self) -> bool {
        match &self.state.read().body {
            Body::File(file) => file.upper().is_some() && file.lower().is_none(),
            Body::Dir(dir) => !matches!(dir.upper, UpperDir::Absent) && dir.lowers.is_empty(),
        }
    }

    pub(crate) fn link(&self) -> Option<Link> {
        self.state.read().link.clone()
    }
}

/// Parent chains are as deep as users make them: never recurse.
impl Drop for Inode {
    fn drop(&mut self) {
        let mut next = self.state.get_mut().link.take();
        while let Some(mut inode) = next.and_then(|link| Arc::into_inner(link.parent)) {
            next = inode.state.get_mut().link.take();
        }
    }
}

/// An inode as the table has it: known by its number.
struct Numbered(Arc<Inode>);

impl Borrow<u64> for Numbered {
    fn borrow(&self) -> &u64 {
        &self.0.ino
    }
}

impl Hash for Numbered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.ino.hash(state);
    }
}

impl PartialEq for Numbered {
    fn eq(&self, other: &Self) -> bool {
        self.0.ino == other.0.ino
    }
}

impl Eq for Numbered {}

/// All inodes that the kernel, a child or an open handle holds.
pub(crate) struct InodeTable {
    /// A set: the numbers are in the inodes.
    inodes: DashMap<Numbered, ()>,
    /// Objects whose own number (the key) was taken, by the numbers they got.
    displaced: Mutex<HashMap<u64, Vec<u64>>>,
    next_reserved: AtomicU64,
    pub(crate) nodeids: Nodeids,
}

impl InodeTable {
    pub(crate) fn new(root: Arc<Inode>, fold32: bool) -> Self {
        let inodes = cpus::shared_map();
        root.nlookup.store(1, Ordering::Relaxed);
        inodes.insert(Numbered(root), ());
        let first = if fold32 { RESERVED_32 } else { RESERVED };
        Self {
            inodes,
            displaced: Mutex::new(HashMap::new()),
            next_reserved: AtomicU64::new(first),
            nodeids: Nodeids::default(),
        }
    }

    /// The inode that the kernel calls `nodeid`.
    pub(crate) fn get(&self, nodeid: u64) -> Result<Arc<Inode>> {
        self.find(nodeid).ok_or_else(|| Refusal::UnknownInode.into())
    }

    pub(crate) fn find(&self, nodeid: u64) -> Option<Arc<Inode>> {
        self.inodes.get(&self.nodeids.ino(nodeid)).map(|entry| Arc::clone(&entry.key().0))
    }

    pub(crate) fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Gives back the room of inodes that are gone.
    pub(crate) fn shrink(&self) {
        self.inodes.shrink_to_fit();
    }

    /// The inode of an object whose own number is `ino`: the one in the table
    /// that `is_same` knows, or the one that `make` makes. Counts one look-up by
    /// the kernel if `count`.
    pub(crate) fn intern(
        &self,
        ino: u64,
        count: bool,
        is_same: impl Fn(&Arc<Inode>) -> Result<bool>,
        make: impl Fn(u64) -> Inode,
    ) -> Result<Arc<Inode>> {
        let counted = |inode: Arc<Inode>| {
            if count {
                inode.nlookup.fetch_add(1, Ordering::AcqRel);
            }
            inode
        };
        while is_plain_ino(ino) {
            // The clone keeps the inode in the table while it is compared.
            if let Some(present) = self.find(ino) {
                if is_same(&present)? {
                    return Ok(counted(present));
                }
                break;
            }
            // Counted before it can be seen: nobody else's forget may remove it.
            let inode = counted(Arc::new(make(ino)));
            if self.inodes.insert(Numbered(Arc::clone(&inode)), ()).is_none() {
                return Ok(inode);
            }
        }
        let known: Vec<u64> = self.displaced.lock().get(&ino).cloned().unwrap_or_default();
        for other in known {
            if let Some(present) = self.find(other)
                && is_same(&present)?
            {
                return Ok(counted(present));
            }
        }
        let own = self.next_reserved.fetch_add(1, Ordering::Relaxed);
        let inode = counted(Arc::new(make(own)));
        self.inodes.insert(Numbered(Arc::clone(&inode)), ());
        self.displaced.lock().entry(ino).or_default().push(own);
        Ok(inode)
    }

    /// The kernel is told once more of an inode.
    pub(crate) fn count(&self, inode: &Inode) {
        inode.nlookup.fetch_add(1, Ordering::AcqRel);
    }

    /// The kernel drops `count` look-ups. `gone` is told of every nodeid whose
    /// inode leaves the table.
    pub(crate) fn forget(&self, nodeid: u64, count: u64, gone: impl FnMut(u64)) {
        let ino = self.nodeids.ino(nodeid);
        if let Some(inode) = self.find(ino) {
            let mut now = inode.nlookup.load(Ordering::Acquire);
            loop {
                let next = now.saturating_sub(count);
                match inode.nlookup.compare_exchange_weak(now, next, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => break,
                    Err(seen) => now = seen,
                }
            }
        }
        self.reap(ino, gone);
    }

    /// Removes an inode that nobody holds, and then its parents that only it held.
    pub(crate) fn reap(&self, mut ino: u64, mut gone: impl FnMut(u64)) {
        while ino != ROOT_INO {
            let mut second = None;
            let removed = self.inodes.remove_if(&ino, |Numbered(inode), ()| {
                let unheld = inode.nlookup.load(Ordering::Acquire) == 0 && Arc::strong_count(inode) == 1;
                if unheld {
                    // Before anybody can find another inode of this number.
                    second = self.nodeids.forget(ino);
                }
                unheld
            });
            let Some((Numbered(inode), ())) = removed else { return };
            if ino >= RESERVED_32 {
                self.displaced.lock().retain(|_, list| {
                    list.retain(|own| *own != ino);
                    !list.is_empty()
                });
            }
            gone(ino);
            second.into_iter().for_each(&mut gone);
            let Some(parent) = inode.link().map(|link| link.parent.ino) else {
                return;
            };
            drop(inode);
            ino = parent;
        }
    }

    /// Whether the kernel holds the inode.
    pub(crate) fn is_known(inode: &Inode) -> bool {
        inode.nlookup.load(Ordering::Acquire) > 0
    }
}

/// Maps (device, inode number) of the layers to numbers of one device.
///
/// The first device's numbers (all layers', as a rule) are shown as they are;
/// those of others carry the device's position in the upper bits.
pub(crate) struct InoMap {
    /// Devices in the order in which they were met: upper, then lowers from the top.
    devices: RwLock<Vec<u64>>,
    /// Numbers, for as long as the mount lasts, of copies that cannot hold theirs as a mark.
    unmarked: DashMap<(u64, u64), u64>,
    fold32: bool,
}

impl InoMap {
    pub(crate) fn new(devices: &[u64], fold32: bool) -> Self {
        let map = Self { devices: RwLock::new(Vec::new()), unmarked: cpus::shared_map(), fold32 };
        for device in devices {
            map.position(*device);
        }
        map
    }

    fn position(&self, device: u64) -> u64 {
        if let Some(known) = self.devices.read().iter().position(|known| *known == device) {
            return known as u64;
        }
        let mut devices = self.devices.write();
        let known = devices.iter().position(|known| *known == device);
        known.unwrap_or_else(|| {
            devices.push(device);
            devices.len() - 1
        }) as u64
    }

    /// Has a copied-up object keep the number that it had in its layer.
    pub(crate) fn keep(&self, device: u64, ino: u64, shown: u64) {
        if is_plain_ino(shown) {
            self.unmarked.insert((device, ino), shown);
        }
    }

    /// The number of an object that was just made: nothing is left of whatever had its number on disk before.
    pub(crate) fn fresh(&self, device: u64, ino: u64) -> u64 {
        if !self.unmarked.is_empty() {
            self.unmarked.remove(&(device, ino));
        }
        self.number(device, ino)
    }

    /// The number of an object.
    pub(crate) fn number(&self, device: u64, ino: u64) -> u64 {
        if !self.unmarked.is_empty()
            && let Some(shown) = self.unmarked.get(&(device, ino))
        {
            return *shown;
        }
        const BITS: u32 = 48;
        let position = self.position(device);
        let wide = if position == 0 && is_plain_ino(ino) {
            ino
        } else if ino >> BITS == 0 && position < 1 << (62 - BITS) && ino > ROOT_INO {
            (position << BITS) | ino
        } else {
            let mixed = (ino ^ position.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed >> 2) | (1 << 62)
        };
        if self.fold32 {
            let folded = (wide ^ (wide >> 32)) & 0xffff_ffff;
            return if folded > ROOT_INO { folded % RESERVED_32 } else { folded + 2 };
        }
        wide
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_one_device_are_its_own() {
        let map = InoMap::new(&[5], false);
        assert_eq!(map.number(5, 77), 77);
        assert_ne!(map.number(6, 77), 77);
        assert_eq!(map.number(6, 77), map.number(6, 77));
        assert!(is_plain_ino(map.number(5, 1)));
        assert!(is_plain_ino(map.number(7, u64::MAX)));
    }

    #[test]
    fn a_kept_number_lasts_until_its_place_is_taken() {
        let map = InoMap::new(&[5], false);
        map.keep(5, 77, 11);
        assert_eq!(map.number(5, 77), 11);
        assert_eq!(map.fresh(5, 77), 77);
        assert_eq!(map.number(5, 77), 77);
    }

    /// A walk leaves one for each entry: with the two counts of its `Arc` and the allocator's own word 112 bytes, the
    /// allocator's sizes being multiples of 16. One field more makes it 128.
    #[test]
    fn an_inode_is_small() {
        assert_eq!(size_of::<Inode>(), 88);
        assert_eq!(size_of::<LowerFile>(), size_of::<Body>(), "what kind of body it is takes no room of its own");
        assert_eq!(size_of::<Numbered>(), 8);
    }

    fn file(ino: u64) -> Inode {
        let body = Body::File(FileBody::new(FileType::RegularFile, None, None, None));
        Inode::new(ino, false, State { link: None, body })
    }

    #[test]
    fn an_inode_lives_as_long_as_the_kernel_knows_it() {
        let table = InodeTable::new(Arc::new(file(ROOT_INO)), false);
        for _ in 0..2 {
            table.intern(7, true, |_| Ok(true), file).unwrap();
        }
        let mut gone = Vec::new();
        table.forget(7, 1, |ino| gone.push(ino));
        assert!(gone.is_empty() && table.find(7).is_some());
        table.forget(7, 1, |ino| gone.push(ino));
        assert!(gone == [7] && table.find(7).is_none());
    }

    #[test]
    fn both_nodeids_of_an_inode_count_as_one() {
        let table = InodeTable::new(Arc::new(file(ROOT_INO)), false);
        table.intern(7, true, |_| Ok(true), file).unwrap();
        table.nodeids.renumber(7);
        table.intern(7, true, |_| Ok(true), file).unwrap();
        let second = table.nodeids.second(7).unwrap();
        assert_eq!(table.find(second).unwrap().ino, 7);
        let mut gone = Vec::new();
        table.forget(7, 1, |nodeid| gone.push(nodeid));
        assert!(gone.is_empty() && table.find(7).is_some());
        table.forget(second, 1, |nodeid| gone.push(nodeid));
        assert_eq!(gone, [7, second]);
        assert!(table.find(second).is_none() && table.nodeids.second(7).is_none());
    }

    #[test]
    fn a_taken_number_is_replaced_and_found_again() {
        let table = InodeTable::new(Arc::new(file(ROOT_INO)), false);
        let first = table.intern(7, true, |_| Ok(true), file).unwrap();
        let second = table.intern(7, true, |present| Ok(!Arc::ptr_eq(present, &first)), file).unwrap();
        assert_ne!(second.ino, 7);
        let again = table.intern(7, true, |present| Ok(!Arc::ptr_eq(present, &first)), file).unwrap();
        assert_eq!(again.ino, second.ino);
    }
}
