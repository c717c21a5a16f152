//! A bounded cache of descriptors: no inode holds one, however many inodes the
//! kernel has.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

const SHARDS: usize = 16;

/// Descriptors, or what holds one, by key; least recently used ones are closed first.
pub(crate) struct FdCache<T = OwnedFd> {
    /// Held for the look-up alone, never while a descriptor is opened or closed.
    shards: [Mutex<LruCache<u64, Arc<T>>>; SHARDS],
}

impl<T> FdCache<T> {
    /// A cache of about `capacity` descriptors.
    pub(crate) fn new(capacity: usize) -> Self {
        let each = NonZeroUsize::new(capacity / SHARDS).unwrap_or(NonZeroUsize::MIN);
        Self { shards: std::array::from_fn(|_| Mutex::new(LruCache::sparse(each))) }
    }

    fn shard(&self, key: u64) -> &Mutex<LruCache<u64, Arc<T>>> {
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
        &self.shards[usize::try_from(mixed).unwrap_or_default() % SHARDS]
    }

    pub(crate) fn get(&self, key: u64) -> Option<Arc<T>> {
        self.shard(key).lock().get(&key).map(Arc::clone)
    }

    pub(crate) fn put(&self, key: u64, fd: Arc<T>) {
        let evicted = self.shard(key).lock().push(key, fd);
        drop(evicted);
    }

    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let evicted: Vec<_> = {
                let mut fds = shard.lock();
                std::iter::from_fn(|| fds.pop_lru()).collect()
            };
            drop(evicted);
        }
    }

    pub(crate) fn remove(&self, key: u64) {
        let removed = self.shard(key).lock().pop(&key);
        drop(removed);
    }
}
