//! The CPUs of this process, and maps that they share.

use std::hash::Hash;
use std::num::NonZero;
use std::sync::LazyLock;
use std::thread;

use dashmap::DashMap;

/// Parts of a map, each with a lock, for every CPU.
const SHARDS_PER_CPU: usize = 4;

/// How many CPUs this process may use, its cgroup's quota counted in.
pub(crate) fn count() -> usize {
    // Asking takes a dozen system calls and more.
    static COUNT: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, NonZero::get));
    *COUNT
}

/// A map that every thread works on. [`DashMap::new`] would ask for the CPUs once more.
pub(crate) fn shared_map<K: Eq + Hash, V>() -> DashMap<K, V> {
    DashMap::with_shard_amount((count() * SHARDS_PER_CPU).next_power_of_two())
}
