//! A stack on which transactions are tried again and again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{
    common::{Compare, Kind, Mounted, Scratch, Stack, Subject, Tree, assert_same, diff, dump, dump_all, run_in},
    transaction::{LOWERS, Transaction},
};

/// Two dumps of one state: the number of an object may change with its remount only if the object is new.
const SAME: Compare = Compare {
    nlink: true,
    dir_nlink: false,
    xattrs: true,
    mtime: true,
    dir_mtime: true,
    ino: false,
    holes: false,
    root: true,
};

/// What is changed in a test bears a later time than this, what was there an earlier one.
const RECENT: i128 = 1_600_000_000_000_000_000;

/// How long one change may take with a daemon that dies under it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The stack, and where its upper is.
pub struct Rig {
    scratch: Scratch,
    /// Holds upper and work: the scratch directory, or a filesystem mounted in it.
    place: PathBuf,
    lowers_before: Vec<Tree>,
    opts: Vec<String>,
}

impl Rig {
    /// Lowers and upper in a tmpfs: durability is not the point.
    pub fn in_memory() -> Self {
        Self::new(Scratch::new_in("/dev/shm"), None)
    }

    /// With the upper in `place`, a directory below the scratch directory, if given.
    pub fn new(scratch: Scratch, place: Option<PathBuf>) -> Self {
        run_in(scratch.path(), LOWERS);
        let lowers_before = scratch.lowers(2).iter().map(|l| dump_all(l)).collect();
        let place = place.unwrap_or_else(|| scratch.path().to_owned());
        let rig = Self {
            scratch,
            place,
            lowers_before,
            // Points are counted by thread.
            opts: vec!["threads=1".to_owned()],
        };
        rig.reset();
        rig
    }

    /// Mounts with these options from now on.
    pub fn set_opts(&mut self, opts: &[&str]) {
        self.opts = opts.iter().map(|&o| o.to_owned()).collect();
    }

    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub fn upper(&self) -> PathBuf {
        self.place.join("upper")
    }

    pub fn work(&self) -> PathBuf {
        self.place.join("work")
    }

    /// Empties upper and work.
    pub fn reset(&self) {
        for dir in [self.upper(), self.work()] {
            match fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => panic!("{}: {e}", dir.display()),
                _ => fs::create_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())),
            }
        }
    }

    pub fn stack(&self) -> Stack {
        Stack {
            lowers: self.scratch.lowers(2),
            upper: Some((self.upper(), self.work())),
            mnt: self.scratch.mnt(),
            opts: self.opts.clone(),
        }
    }

    pub fn mount(&self) -> Mounted {
        Subject::lamel().mount_stack(self.stack())
    }

    /// A fresh upper, mounted and brought to the state from which `transaction` starts.
    pub fn start(&self, transaction: &Transaction) -> Mounted {
        self.reset();
        let mounted = self.mount();
        mounted.run(transaction.before);
        mounted
    }

    /// The states before and after, as a mount without faults shows them.
    pub fn states(&self, transaction: &Transaction) -> States {
        let mut mounted = self.start(transaction);
        let old = state(mounted.root());
        attempt(transaction, mounted.root()).unwrap_or_else(|e| panic!("{}, without a fault: {e}", transaction.name));
        let new = state(mounted.root());
        mounted.remount();
        let differences = diff(&new, &state(mounted.root()), SAME);
        assert!(differences.is_empty(), "{}, without a fault, after a remount:\n{differences}", transaction.name);
        mounted.unmount();
        self.check_work(transaction.name);
        States { old, new }
    }

    /// Panics if anything is left in the staging directory.
    pub fn check_work(&self, what: &str) {
        let staging = self.work().join("work");
        let left: Vec<_> = fs::read_dir(&staging)
            .unwrap_or_else(|e| panic!("{}: {e}", staging.display()))
            .map(|e| e.expect("read the staging directory").file_name())
            .collect();
        assert!(left.is_empty(), "{what}: left in {}: {left:?}", staging.display());
    }

    /// Panics if a lower was touched.
    pub fn check_lowers(&self, what: &str) {
        for (lower, before) in self.scratch.lowers(2).iter().zip(&self.lowers_before) {
            let what = format!("{what}: {} was written to", lower.display());
            assert_same(&what, before, &dump_all(lower), Compare::UNTOUCHED);
        }
    }
}

/// The two states of a transaction.
pub struct States {
    pub old: Tree,
    pub new: Tree,
}

/// Which of the two a tree is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Old,
    New,
}

impl States {
    /// Panics unless the tree is in one of the states but for what was appended to `file` and not synced: its blocks
    /// need not be there, as on any filesystem, but what was there before must.
    #[track_caller]
    pub fn but_for_the_end_of(&self, what: &str, root: &Path, file: &Path, before: &[u8]) {
        let content = fs::read(root.join(file)).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(content.starts_with(before), "{what}: what was there is damaged, {} bytes", content.len());
        let mut seen = state(root);
        let ino = seen.get(file).map(|node| node.ino);
        let differences = [&self.old, &self.new].map(|wanted| {
            // All its names.
            for (path, seen) in seen.iter_mut().filter(|(_, node)| Some(node.ino) == ino) {
                if let Some(wanted) = wanted.get(path) {
                    seen.content.clone_from(&wanted.content);
                    (seen.size, seen.mtime_ns) = (wanted.size, wanted.mtime_ns);
                }
            }
            diff(wanted, &seen, SAME)
        });
        assert!(differences.iter().any(String::is_empty), "{what}: neither state:\n{}", differences.join("\n"));
    }

    /// Panics if the tree is in neither state.
    #[track_caller]
    pub fn which(&self, what: &str, root: &Path) -> State {
        self.which_of(what, &state(root), Clone::clone)
    }

    /// After a crash: two things may be as they were in the middle of a copy-up, which itself shows nothing. A parent's
    /// time, set back after the copy was put there; and a link count that counts a lower name and its new link both.
    #[track_caller]
    pub fn which_after_a_crash(&self, what: &str, root: &Path) -> State {
        let seen = state(root);
        self.which_of(what, &seen, |wanted| {
            let mut wanted = wanted.clone();
            for (path, node) in &mut wanted {
                let Some(seen) = seen.get(path) else {
                    continue;
                };
                if node.kind == Kind::Dir && seen.mtime_ns == RECENT {
                    node.mtime_ns = RECENT;
                }
                if node.kind != Kind::Dir && node.nlink > 1 && seen.nlink == node.nlink + 1 {
                    node.nlink = seen.nlink;
                }
            }
            wanted
        })
    }

    #[track_caller]
    fn which_of(&self, what: &str, seen: &Tree, view: impl Fn(&Tree) -> Tree) -> State {
        let to_new = diff(&view(&self.new), seen, SAME);
        if to_new.is_empty() {
            return State::New;
        }
        let to_old = diff(&view(&self.old), seen, SAME);
        if to_old.is_empty() {
            return State::Old;
        }
        panic!("{what}: neither state.\nAgainst the old one:\n{to_old}Against the new one:\n{to_new}");
    }
}

/// A dump in which everything changed just now has one time.
fn state(root: &Path) -> Tree {
    let mut tree = dump(root);
    for node in tree.values_mut() {
        if node.mtime_ns > RECENT {
            node.mtime_ns = RECENT;
        }
    }
    tree
}

/// Does the change, and panics if it hangs.
pub fn attempt(transaction: &Transaction, root: &Path) -> io::Result<()> {
    let (done, wait) = mpsc::channel();
    let (change, root) = (transaction.change, root.to_owned());
    let worker = thread::spawn(move || {
        // The receiver is gone if it has lost its patience.
        let _ = done.send(change(&root));
    });
    let result = wait.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{}: hangs", transaction.name));
    worker.join().expect("the change panicked");
    result
}
