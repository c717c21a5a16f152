//! Second nodeids.
//!
//! An inode's number is its nodeid towards the kernel, but for one case: all opens of a nodeid that the kernel serves by
//! itself share one file. A lower file that is being read so while its data moves to the upper goes on under a second
//! nodeid, which look-ups give from then on; `st_ino` stays what it was. Whoever opens the first one is told `ESTALE`,
//! upon which the VFS looks the path up again and finds the second. Data moves up once, so that there is no third.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

/// Second nodeids begin here: no inode has such a number.
const FIRST: u64 = 0b11 << 62;

/// The second nodeids of the inodes that have one.
pub(crate) struct Nodeids {
    /// Held for a look-up alone.
    maps: RwLock<Maps>,
    /// Entries in the maps: none as a rule, and then nobody takes the lock.
    count: AtomicUsize,
    next: AtomicU64,
}

#[derive(Default)]
struct Maps {
    seconds: HashMap<u64, u64>,
    inos: HashMap<u64, u64>,
}

impl Default for Nodeids {
    fn default() -> Self {
        Self { maps: RwLock::default(), count: AtomicUsize::new(0), next: AtomicU64::new(FIRST) }
    }
}

impl Nodeids {
    /// The number of the inode that a nodeid stands for.
    pub(crate) fn ino(&self, nodeid: u64) -> u64 {
        if nodeid < FIRST {
            return nodeid;
        }
        self.maps.read().inos.get(&nodeid).copied().unwrap_or(nodeid)
    }

    /// The second nodeid of an inode, if it has one.
    pub(crate) fn second(&self, ino: u64) -> Option<u64> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.maps.read().seconds.get(&ino).copied()
    }

    /// Gives an inode a second nodeid, unless it has one.
    pub(crate) fn renumber(&self, ino: u64) {
        let mut maps = self.maps.write();
        if maps.seconds.contains_key(&ino) {
            return;
        }
        let nodeid = self.next.fetch_add(1, Ordering::Relaxed);
        maps.seconds.insert(ino, nodeid);
        maps.inos.insert(nodeid, ino);
        self.count.store(maps.seconds.len(), Ordering::Release);
    }

    /// The kernel knows an inode by neither nodeid any more. Returns the second.
    pub(crate) fn forget(&self, ino: u64) -> Option<u64> {
        self.second(ino)?;
        let mut maps = self.maps.write();
        let nodeid = maps.seconds.remove(&ino)?;
        maps.inos.remove(&nodeid);
        if maps.seconds.is_empty() {
            *maps = Maps::default();
        }
        self.count.store(maps.seconds.len(), Ordering::Release);
        Some(nodeid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_gets_one_second_nodeid_and_gives_it_back() {
        let nodeids = Nodeids::default();
        assert_eq!((nodeids.second(7), nodeids.ino(7), nodeids.forget(7)), (None, 7, None));
        nodeids.renumber(7);
        let second = nodeids.second(7).unwrap();
        nodeids.renumber(7);
        assert_eq!(nodeids.second(7), Some(second));
        assert_eq!((nodeids.ino(second), nodeids.ino(7), nodeids.second(8)), (7, 7, None));
        assert_eq!(nodeids.forget(7), Some(second));
        assert_eq!((nodeids.second(7), nodeids.ino(second)), (None, second));
        assert_eq!(nodeids.maps.read().seconds.capacity(), 0);
    }
}
