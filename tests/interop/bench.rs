//! One stack with all kinds of objects, the writers and readers of it, and the comparison of what they show.

use std::{ffi::OsStr, path::Path};

use crate::apart::Place;
use crate::common::{
    Compare, Kind, Mounted, Scratch, Stack, Subject, Tree, assert_same, diff, dump_all, dump_all_but, run_in,
};

/// Three scripts of changes, each working on what the one before left.
pub const GENERATIONS: [&str; 3] = [include_str!("ops_a.sh"), include_str!("ops_b.sh"), include_str!("ops_c.sh")];

/// What not every writer can do: `DIRS` moving a lower directory, `LINKS` keeping hard links of lower files together,
/// `NESTED` escaping the overlay xattrs that are set inside, `LINKATTRS` xattrs on symbolic links, `SPECIALS` copy-up of sockets and devices.
pub const ABILITIES: [&str; 5] = ["DIRS", "LINKS", "NESTED", "LINKATTRS", "SPECIALS"];

/// One object seen by two readers of one upper must be the same in everything but its number.
const SEEN: Compare = Compare {
    nlink: true,
    dir_nlink: false,
    xattrs: true,
    mtime: true,
    dir_mtime: true,
    ino: false,
    holes: true,
    root: true,
};

/// How a union is mounted, and what it is known to be unable to do.
#[derive(Clone)]
pub struct Party {
    pub name: &'static str,
    pub subject: Subject,
    /// What its scripts may do, of [`ABILITIES`].
    pub can: Vec<&'static str>,
    /// Names that it leaves in the upper and that other readers list.
    pub leaves: fn(&OsStr) -> bool,
    /// Known faults of what it writes, masked when that is compared with a plain directory.
    pub writes: Vec<Fault>,
    /// Known faults of what it shows, masked when it reads what another has written.
    pub reads: Vec<Fault>,
}

impl Party {
    /// All that a mount of what this party wrote shows, but for markers that others take for files.
    fn dump(&self, mounted: &Mounted) -> Tree {
        self.dump_by(mounted, self)
    }

    /// The same as `reader` shows it. lamel hides whatever is a marker to it.
    fn dump_by(&self, mounted: &Mounted, reader: &Self) -> Tree {
        match reader.subject {
            Subject::Lamel { .. } => dump_all(mounted.root()),
            _ => dump_all_but(mounted.root(), self.leaves),
        }
    }
}

/// A known, listed fault of a peer.
#[derive(Clone, Copy)]
pub struct Fault {
    /// What is wrong, printed with a failure.
    pub why: &'static str,
    /// Makes equal what this fault spoils, in what is wanted and what was got.
    pub mask: fn(&mut Tree, &mut Tree),
}

/// The stack, and a plain directory on which the same is done.
pub struct Bench {
    scratch: Scratch,
    place: Place,
    lowers_before: Vec<Tree>,
}

impl Bench {
    pub fn new(place: Place) -> Self {
        let scratch = Scratch::new();
        scratch.lowers(3);
        let bench = Self { scratch, place, lowers_before: Vec::new() };
        bench.script(bench.scratch.path(), include_str!("lowers.sh"), &[]);
        // What is right is taken from the kernel's own view of the lowers.
        let mut all = Subject::Overlayfs { opts: bench.kernel_opts(&[]) }.mount(&bench.scratch, 3, false, &[]);
        bench.script(bench.scratch.path(), &format!("cp -a {} native", all.root().display()), &[]);
        all.unmount();
        let lowers_before = bench.scratch.lowers(3).iter().map(|l| dump_all(l)).collect();
        Self { lowers_before, ..bench }
    }

    /// The options of a kernel mount in this place.
    pub fn kernel_opts(&self, more: &[&str]) -> Vec<String> {
        let userxattr = (self.place == Place::UserNamespace).then_some("userxattr");
        userxattr.iter().chain(more).map(|&o| o.to_owned()).collect()
    }

    /// Mounts the stack by `party`.
    pub fn mount(&self, party: &Party) -> Mounted {
        party.subject.mount_stack(Stack {
            lowers: self.scratch.lowers(3),
            upper: Some((self.scratch.upper(), self.scratch.work())),
            mnt: self.scratch.mnt(),
            opts: Vec::new(),
        })
    }

    /// Runs a script with the variables that tell it the writer can do.
    fn script(&self, dir: &Path, text: &str, can: &[&str]) {
        let mut vars = String::new();
        let mut var = |name: &str, value: &str| {
            vars += &format!("export {name}={value}\n");
        };
        match self.place {
            Place::Root => {
                var("NS", "trusted");
                var("ROOT", "1");
            }
            Place::UserNamespace => var("NS", "user"),
        }
        for ability in ABILITIES {
            var(ability, if can.contains(&ability) { "1" } else { "''" });
        }
        run_in(dir, &(vars + text));
    }

    /// Lets `writer` do one generation of changes, does the same on the plain directory, and compares all views.
    ///
    /// `can` narrows what the script does to what every writer of a chain can do.
    pub fn generation(&self, number: usize, writer: &Party, can: &[&str], readers: &[Party]) {
        let text = GENERATIONS[number];
        let what = format!("generation {number} written by {}", writer.name);
        let native = self.scratch.join("native");
        let plain: Vec<_> = can.iter().copied().filter(|&a| a != "NESTED").collect();
        self.script(&native, text, &plain);

        let mut mounted = self.mount(writer);
        self.script(mounted.root(), text, can);
        let shown = writer.dump(&mounted);
        mounted.unmount();
        let right = dump_all(&native);
        let faults = [writer.writes.as_slice(), &writer.reads].concat();
        let differences = differences(right, shown.clone(), &faults, native_view, SEEN);
        assert!(differences.is_empty(), "{what}, against a plain directory:\n{differences}");

        for reader in readers {
            let mut mounted = self.mount(reader);
            let seen = writer.dump_by(&mounted, reader);
            mounted.unmount();
            let faults = [writer.reads.as_slice(), &reader.reads].concat();
            let differences = self::differences(shown.clone(), seen, &faults, |_| {}, SEEN);
            assert!(differences.is_empty(), "{what}, read by {}:\n{differences}", reader.name);
        }

        // The readers have left it as it was, and numbers outlive a remount where the writer promises that.
        let mut mounted = self.mount(writer);
        let mut again = writer.dump(&mounted);
        mounted.unmount();
        if self.place == Place::UserNamespace {
            // Symlinks and special files take no user xattr that could hold the number.
            for (path, node) in again.iter_mut().filter(|(_, n)| !matches!(n.kind, Kind::File | Kind::Dir)) {
                node.ino = shown.get(path).map_or(node.ino, |shown| shown.ino);
            }
        }
        let ino = matches!(writer.subject, Subject::Lamel { .. });
        let differences = self::differences(shown, again, &writer.reads, |_| {}, Compare { ino, ..SEEN });
        assert!(differences.is_empty(), "{what}, remounted:\n{differences}");
        self.check_lowers();
    }

    /// Panics if a lower was touched.
    pub fn check_lowers(&self) {
        for (lower, before) in self.scratch.lowers(3).iter().zip(&self.lowers_before) {
            assert_same(&format!("{} was written to", lower.display()), before, &dump_all(lower), Compare::UNTOUCHED);
        }
    }

    /// One writer makes all generations.
    pub fn all_generations(place: Place, writer: &Party, readers: &[Party]) {
        let writers = vec![writer.clone(); GENERATIONS.len()];
        Self::chain(place, &writers, readers);
    }

    /// Each generation has its own writer; the scripts do what all of them can.
    pub fn chain(place: Place, writers: &[Party], readers: &[Party]) {
        let bench = Self::new(place);
        let can: Vec<_> =
            ABILITIES.into_iter().filter(|ability| writers.iter().all(|w| w.can.contains(ability))).collect();
        // The faults of an earlier writer stay in the upper.
        let mut before = Party { writes: Vec::new(), reads: Vec::new(), leaves: |_| false, ..writers[0].clone() };
        for (number, writer) in writers.iter().enumerate() {
            let mut writer = writer.clone();
            writer.writes.extend(before.writes);
            if !(writer.leaves)(OsStr::new(".wh.")) {
                writer.leaves = before.leaves;
            }
            bench.generation(number, &writer, &can, readers);
            before = writer;
        }
    }
}

/// What differs, but for known faults and what `view` makes equal.
fn differences(mut want: Tree, mut got: Tree, faults: &[Fault], view: impl Fn(&mut Tree), how: Compare) -> String {
    view(&mut want);
    view(&mut got);
    for fault in faults {
        (fault.mask)(&mut want, &mut got);
    }
    let mut out = diff(&want, &got, how);
    if !out.is_empty() {
        for fault in faults {
            out += &format!("(masked: {})\n", fault.why);
        }
    }
    out
}

/// Beside a plain directory: what was changed just now has no equal times, and a plain directory escapes nothing.
fn native_view(tree: &mut Tree) {
    tree.retain(|path, _| !path.starts_with("nest"));
    for node in tree.values_mut() {
        if node.mtime_ns > RECENT {
            node.mtime_ns = RECENT;
        }
    }
    // "nest" itself was made in the root.
    if let Some(root) = tree.get_mut(Path::new("")) {
        root.mtime_ns = 0;
    }
}

/// No script sets a time after this one, and no clock is before it.
pub const RECENT: i128 = 1_600_000_000_000_000_000;
