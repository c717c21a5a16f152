//! Which names a directory of a lower layer may have: what spares a deep stack
//! asking every layer for every name.
//!
//! A directory that was listed to its end is asked for nothing but what it listed,
//! whiteouts included. Names are kept as hashes of four bytes: two that share one
//! cost a needless system call, and no more.

use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::whiteout;

/// A directory that was asked in vain so often is listed: that costs about as much.
const MISSES: u32 = 4;
/// Directories of more names are not listed for the sake of look-ups.
const LARGE: usize = 2_000;

/// A name to be compared with those of directories.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NameHash(Option<u32>);

impl NameHash {
    /// A filesystem may spell letters beyond ASCII in another way than it is asked for them; and the directory itself is
    /// in no listing.
    pub(crate) fn of(name: &OsStr) -> Self {
        Self((name.is_ascii() && name != ".").then(|| hash(name)))
    }
}

fn hash(name: &OsStr) -> u32 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name.as_bytes());
    hasher.finish() as u32
}

/// What is known of the names of one directory, which never change.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// In order. `None`: of this directory nothing can be told.
    known: OnceLock<Option<Box<[u32]>>>,
    misses: AtomicU32,
}

impl Names {
    /// Whether it is worth asking for a name.
    pub(crate) fn may_have(&self, name: NameHash) -> bool {
        match (self.known.get(), name.0) {
            (Some(Some(known)), Some(name)) => known.binary_search(&name).is_ok(),
            _ => true,
        }
    }

    /// Whether the directory was listed.
    pub(crate) fn are_known(&self) -> bool {
        self.known.get().is_some()
    }

    /// Counts a name that was not there. True once: when the directory should be listed.
    pub(crate) fn missed(&self) -> bool {
        self.known.get().is_none() && self.misses.fetch_add(1, Ordering::Relaxed) == MISSES - 1
    }
}

/// The names of a directory while it is being listed.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    hashes: Vec<u32>,
    /// An entry's name with one letter in the other case.
    flipped: Option<OsString>,
    beyond_ascii: bool,
}

impl Listing {
    /// An entry as it is on disk, whatever it is. A whiteout file stands for the name that it hides.
    pub(crate) fn add(&mut self, name: &OsStr) {
        self.hashes.push(hash(whiteout::hidden_by(name).unwrap_or(name)));
        self.beyond_ascii |= !name.is_ascii();
        if self.flipped.is_none() {
            self.flipped = flip(name);
        }
    }

    /// Whether there are so many that a look-up should not wait for all of them.
    pub(crate) fn is_large(&self) -> bool {
        self.hashes.len() > LARGE
    }

    /// Nothing more comes. `has` asks the directory for a name: one that folds case has more names than it lists.
    pub(crate) fn complete(mut self, names: &Names, has: impl FnOnce(&OsStr) -> bool) {
        // Without a letter to try that with, only others fold: the Kelvin sign is a k.
        let folds = self.flipped.as_deref().map_or(self.beyond_ascii, has);
        let known = (!folds).then(|| {
            self.hashes.sort_unstable();
            self.hashes.dedup();
            self.hashes.into_boxed_slice()
        });
        // Whoever else listed it saw the same.
        names.known.get_or_init(|| known);
    }
}

fn flip(name: &OsStr) -> Option<OsString> {
    let mut bytes = name.as_bytes().to_vec();
    *bytes.iter_mut().find(|byte| byte.is_ascii_alphabetic())? ^= b' ';
    Some(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str], has: impl FnOnce(&OsStr) -> bool) -> Names {
        let known = Names::default();
        let mut listing = Listing::default();
        names.iter().for_each(|name| listing.add(OsStr::new(name)));
        listing.complete(&known, has);
        known
    }

    fn may_have(names: &Names, name: &str) -> bool {
        names.may_have(NameHash::of(OsStr::new(name)))
    }

    #[test]
    fn what_was_not_listed_is_not_there() {
        let names = listed(&["a", "b", "7"], |_| false);
        assert!(["a", "b", "7", ".", "\u{e9}"].iter().all(|name| may_have(&names, name)));
        assert!(["c", "A", "", ".."].iter().all(|name| !may_have(&names, name)));
        assert!(may_have(&Names::default(), "c"), "nothing is known of it");
        let whiteouts = listed(&[".wh.a", ".wh..wh..opq"], |_| false);
        assert!(may_have(&whiteouts, "a") && !may_have(&whiteouts, "b"));
    }

    #[test]
    fn a_directory_that_folds_case_may_have_any_name() {
        let names = listed(&["1", "readme", "b"], |name| name == "Readme");
        assert!(may_have(&names, "README") && may_have(&names, "c"));
        assert!(may_have(&listed(&["\u{212a}"], |_| false), "k"), "the Kelvin sign");
        assert!(!may_have(&listed(&["1", "2"], |_| true), "k"), "nothing to fold");
        assert!(may_have(&listed(&[".wh.readme"], |name| name == ".Wh.readme"), "README"), "hides any of its names");
    }

    #[test]
    fn a_directory_asked_in_vain_is_to_be_listed_once() {
        let names = Names::default();
        let told: Vec<bool> = (0..2 * MISSES).map(|_| names.missed()).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        assert!(!listed(&[], |_| false).missed());
    }
}
