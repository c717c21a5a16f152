//! What is measured: the table of workloads, and what each of them is given.

mod bulk;
mod program;
mod read;
mod start;
mod together;
mod write;

use std::cell::RefCell;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags};

use super::daemon::{Meter, Reading};
use super::ground::Ground;
use super::input::{Input, Part};
use super::machine;
use super::result::{Sample, Unit};

/// A thing that is done on a fresh mount with a fresh upper, and measured.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Which caches hold what when the clock starts.
    pub(crate) caches: &'static str,
    pub(crate) needs: &'static [Part],
    pub(crate) ground: Ground,
    /// Whether it changes what it needs.
    pub(crate) writes: bool,
    pub(crate) rows: &'static [Row],
    pub(crate) run: fn(&Run<'_>) -> Result<(), Stopped>,
}

/// What can be told of something that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) caches: &'static str,
    pub(crate) rows: &'static [Row],
}

impl Workload {
    pub(crate) fn listed(&self) -> Listed {
        Listed { name: self.name, about: self.about, caches: self.caches, rows: self.rows }
    }
}

/// A number that a workload gives.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
}

pub(crate) const fn row(name: &'static str, unit: Unit) -> Row {
    Row { name, unit }
}

/// Why there is no number.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// It does not apply, or something that it needs is not there.
    Skipped(String),
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Ends a workload that does not apply.
pub(crate) fn skip<T>(reason: impl Into<String>) -> Result<T, Stopped> {
    Err(Stopped::Skipped(reason.into()))
}

/// All workloads.
pub(crate) fn all() -> impl Iterator<Item = &'static Workload> {
    [start::ALL, read::ALL, write::ALL, bulk::ALL, together::ALL, program::ALL].into_iter().flatten()
}

/// One run of a workload on a mount.
pub(crate) struct Run<'a> {
    pub(crate) input: &'a Input,
    /// The root of the tree.
    pub(crate) root: OwnedFd,
    pub(crate) path: PathBuf,
    /// A directory outside of what is measured.
    pub(crate) aside: PathBuf,
    /// Whether there are layers below.
    pub(crate) union: bool,
    /// From the start of the backend to its first answer.
    pub(crate) mounted_after: Duration,
    pub(crate) daemon: Option<Meter>,
    pub(crate) samples: RefCell<Vec<(&'static str, Sample)>>,
}

/// What a directory is opened with.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Run<'_> {
    pub(crate) fn open_root(path: &Path) -> Result<OwnedFd> {
        rustix::fs::open(path, DIRECTORY, Mode::empty()).with_context(|| path.display().to_string())
    }

    /// Measures `body`.
    fn measure<T>(&self, row: &'static str, body: impl FnOnce() -> Result<T>) -> Result<T> {
        self.measure_each(row, None, body)
    }

    /// Measures `body`, which does something `amount` times, or to as many bytes.
    fn measure_each<T>(&self, row: &'static str, amount: Option<u64>, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.daemon.as_ref().map(Meter::read);
        let start = Instant::now();
        let done = body();
        let value = start.elapsed().as_secs_f64();
        let done = done?;
        self.put(row, value, amount, before.as_ref());
        Ok(done)
    }

    /// Notes a number that was found in another way.
    fn put(&self, row: &'static str, value: f64, amount: Option<u64>, before: Option<&Reading>) {
        let daemon = self.daemon.as_ref().zip(before).map(|(meter, before)| meter.since(before));
        self.samples.borrow_mut().push((row, Sample { value, amount, daemon }));
    }

    fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Where a part lies, or why the workload does not apply.
    fn part(&self, part: Part) -> Result<PathBuf, Stopped> {
        match self.input.part(part) {
            Some(path) => Ok(path),
            None if self.input.foreign => skip("only in the generated tree"),
            None => skip(format!("the tree was made without {part:?}: the program for it was missing")),
        }
    }

    /// Makes the page cache cold; says whether that was allowed.
    fn cool(&self) -> bool {
        machine::drop_caches()
    }

    /// Writes back what is dirty below the tree, so that it is not written while the clock runs.
    fn settle(&self) -> Result<()> {
        rustix::fs::syncfs(&self.root).context("writing back")
    }
}

/// How many entries a walk saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    entries: usize,
    directories: usize,
}

/// Lists directories and looks at each entry, as `find -ls` does.
fn walk(at: BorrowedFd<'_>, name: &CStr) -> Result<Seen> {
    use rustix::fs::{AtFlags, Dir, FileType, openat, statat};
    let shown = || name.to_string_lossy().into_owned();
    let directory = openat(at, name, DIRECTORY, Mode::empty()).with_context(shown)?;
    let mut seen = Seen { entries: 0, directories: 1 };
    let mut below = Vec::new();
    for entry in Dir::read_from(&directory).with_context(shown)? {
        let entry = entry.with_context(shown)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        seen.entries += 1;
        let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).with_context(shown)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            below.push(name.to_owned());
        }
    }
    for name in below {
        let inside = walk(directory.as_fd(), &name)?;
        seen.entries += inside.entries;
        seen.directories += inside.directories;
    }
    Ok(seen)
}

/// Does `work` on equal parts of `items`, each in a thread of its own.
fn in_threads<T: Sync>(threads: usize, items: &[T], work: impl Fn(&[T]) -> Result<()> + Sync) -> Result<()> {
    let share = items.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let running: Vec<_> = items.chunks(share).map(|part| scope.spawn(|| work(part))).collect();
        running.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done,
            Err(_) => anyhow::bail!("a thread of the workload panicked"),
        })
    })
}

/// Threads of the rows that use all CPUs: more than two, to be another row.
fn many_threads() -> usize {
    std::thread::available_parallelism().map_or(4, std::num::NonZero::get).max(4)
}
