//! What pulling and pushing have in common: what is told on the way, what can go wrong, and several blobs at once.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::error::RegistryError;
use crate::digest::Digest;
use crate::manifest::ManifestError;
use crate::platform::Platform;
use crate::store::StoreError;

/// Why an image is not pulled or pushed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// None of the images under a name is for the platform.
    #[error("{name} has no image for {wanted}: choose one of these by --platform: {offered}")]
    NoPlatform {
        /// The name.
        name: String,
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        offered: String,
    },
    /// A configuration that is not taken.
    #[error("{name}: {source}")]
    Config {
        /// Whose.
        name: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// Indexes in indexes.
    #[error("{0}: indexes of indexes lie deeper than {max}", max = crate::manifest::MAX_INDEX_DEPTH)]
    TooDeep(String),
    /// An index of which the store has no image at all.
    #[error("{0}: the store has its index, and none of the images in it: pull it again")]
    Hollow(String),
}

/// What happens to a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is one of those that are needed, and has so many bytes.
    Needed(u64),
    /// It is where it should be already.
    Present,
    /// The registry had it in another repository.
    Mounted,
    /// It begins, after so many bytes that came another time.
    Begun(u64),
    /// So many bytes more.
    Moved(u64),
    /// It is whole.
    Done,
}

/// Who is told of each step of each blob, by several threads.
pub type Progress<'a> = &'a (dyn Fn(&Digest, Step) + Sync);

/// A reader that tells how far it is.
pub(super) struct Told<'a, R> {
    pub(super) inner: R,
    pub(super) digest: Digest,
    pub(super) progress: Progress<'a>,
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.progress)(&self.digest, Step::Moved(count as u64));
        Ok(count)
    }
}

/// Does something to each item, several at once. After a failure nothing more is begun, and the first one is returned.
pub(super) fn each<T: Sync, E: Send>(
    items: &[T],
    jobs: usize,
    action: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed)
            && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
        {
            action(item).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.clamp(1, items.len().max(1))).map(|_| scope.spawn(work)).collect();
        let results = workers.into_iter().map(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.fold(Ok(()), Result::and)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_at_once_and_the_first_failure() {
        let items: Vec<u32> = (0..100).collect();
        let sum = AtomicUsize::new(0);
        let add = |item: &u32| {
            sum.fetch_add(*item as usize, Ordering::Relaxed);
            Ok::<(), u32>(())
        };
        each(&items, 5, add).unwrap();
        assert_eq!(sum.load(Ordering::Relaxed), 4950);
        let done = AtomicUsize::new(0);
        let failing = |item: &u32| {
            done.fetch_add(1, Ordering::Relaxed);
            if *item == 3 { Err(*item) } else { Ok(()) }
        };
        assert_eq!(each(&items, 1, failing), Err(3));
        assert_eq!(done.load(Ordering::Relaxed), 4, "nothing is begun after a failure");
        assert_eq!(each::<u32, u32>(&[], 0, |_| Err(1)), Ok(()));
    }
}
