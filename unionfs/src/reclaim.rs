//! Giving memory back after the kernel forgot many inodes, which it does when it is short of memory itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::sys::memory;
use crate::union::UnionFs;

/// So many inodes take about a megabyte: less is not worth the while.
const MANY: u64 = 5_000;
/// The kernel has done with forgetting when it forgot nothing for so long.
const CALM: Duration = Duration::from_millis(50);
/// It is waited for no longer than so many times that.
const PATIENCE: u32 = 20;

/// What was forgotten since memory was given back.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    inodes: AtomicU64,
    running: AtomicBool,
}

impl Reclaim {
    /// An inode left the table.
    pub(crate) fn note(&self) {
        self.inodes.fetch_add(1, Ordering::Relaxed);
    }

    /// True once when enough is gone: then [`UnionFs::reclaim`] is to be called, beside the threads that serve.
    pub(crate) fn is_due(&self) -> bool {
        self.inodes.load(Ordering::Relaxed) >= MANY && !self.running.swap(true, Ordering::Acquire)
    }

    /// Waits until no more inodes go; how many went.
    fn settled(&self) -> u64 {
        let mut before = self.inodes.load(Ordering::Relaxed);
        for _ in 0..PATIENCE {
            thread::sleep(CALM);
            let now = self.inodes.load(Ordering::Relaxed);
            if now == before {
                break;
            }
            before = now;
        }
        before
    }
}

impl UnionFs {
    /// Gives back what inodes that are gone took, and descriptors of directories that keep the kernel from dropping those.
    pub(crate) fn reclaim(&self) {
        let gone = self.reclaim.settled();
        self.reclaim.inodes.fetch_sub(gone, Ordering::Relaxed);
        self.inodes.shrink();
        self.lower_dirs.clear();
        memory::trim();
        tracing::debug!(gone, "memory given back");
        self.reclaim.running.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_for_many_inodes() {
        let reclaim = Reclaim::default();
        let told: Vec<bool> = (0..2 * MANY)
            .map(|_| {
                reclaim.note();
                reclaim.is_due()
            })
            .collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        assert_eq!(told.iter().position(|told| *told), Some(usize::try_from(MANY).unwrap() - 1));
        assert_eq!(reclaim.settled(), 2 * MANY);
    }
}
