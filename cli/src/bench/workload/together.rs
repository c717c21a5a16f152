//! Workloads of several threads that should not be in each other's way.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use super::bulk::{append_byte, warm_bulk};
use super::{Ground, Part, Run, Stopped, Unit, Workload, in_threads, row, skip};
use crate::bench::stats::median;
use crate::bench::tree::BULK;

pub(super) const ALL: &[Workload] = &[
    Workload {
        name: "two-threads",
        about: "look up names that were never asked for, in two directories: one after the other, and one thread in each",
        caches: "the directories themselves were looked up before",
        needs: &[Part::Small],
        ground: Ground::Given,
        writes: false,
        rows: &[row("lookup-1", Unit::Each), row("lookup-2", Unit::Each)],
        run: two_threads,
    },
    Workload {
        name: "stat-during-copy-up",
        about: "look up names that were never asked for while the large file is copied up: the middle one and the slowest",
        caches: "fresh mount and upper; the large file is in the page cache as far as it fits",
        needs: &[Part::Bulk, Part::Small],
        ground: Ground::Given,
        writes: true,
        rows: &[row("copy-up-lookup", Unit::Seconds), row("copy-up-lookup-worst", Unit::Seconds)],
        run: during_copy_up,
    },
];

/// Two directories with small files in them, or one twice.
fn directories(run: &Run<'_>) -> Result<[CString; 2]> {
    let parent = |file: &CString| {
        let path = file.to_bytes();
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
        CString::new(path.get(..end).unwrap_or_default()).context("a name")
    };
    let (first, last) = run.input.small.first().zip(run.input.small.last()).context("no small files")?;
    Ok([parent(first)?, parent(last)?])
}

/// Looks up a name that is not there, and that nobody has asked for.
fn miss(root: BorrowedFd<'_>, name: &str) -> Result<()> {
    match statat(root, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        other => bail!("{name}: {other:?} where ENOENT was expected"),
    }
}

fn names(directory: &CString, series: &str, count: usize) -> Vec<String> {
    let directory = directory.to_string_lossy();
    (0..count).map(|number| format!("{directory}/bench-{series}-{number:06}")).collect()
}

fn two_threads(run: &Run<'_>) -> Result<(), Stopped> {
    let calls = run.input.shape.calls;
    let (root, directories) = (run.root(), directories(run)?);
    directories.iter().try_for_each(|directory| miss(root, &format!("{}/bench-none", directory.to_string_lossy())))?;
    for (row, threads) in [("lookup-1", 1), ("lookup-2", 2)] {
        // A half in each directory: parts of equal length, so that a thread has one of them.
        let names: Vec<String> = directories
            .iter()
            .zip(["a", "b"])
            .flat_map(|(directory, which)| names(directory, &format!("{row}-{which}"), calls / 2))
            .collect();
        run.measure_each(row, Some(names.len() as u64), || {
            in_threads(threads, &names, |part| part.iter().try_for_each(|name| miss(root, name)))
        })?;
    }
    Ok(())
}

fn during_copy_up(run: &Run<'_>) -> Result<(), Stopped> {
    run.part(Part::Bulk)?;
    if !run.union {
        return skip("there is no lower layer to copy from");
    }
    warm_bulk(run)?;
    let [directory, _] = directories(run)?;
    run.settle()?;
    let (file, done) = (run.path.join(BULK), AtomicBool::new(false));
    let mut waits = Vec::new();
    std::thread::scope(|scope| {
        let copying = scope.spawn(|| {
            let copied = append_byte(&file);
            done.store(true, Ordering::Release);
            copied
        });
        for number in 0_u64.. {
            let start = Instant::now();
            miss(run.root(), &format!("{}/bench-wait-{number}", directory.to_string_lossy()))?;
            waits.push(start.elapsed().as_secs_f64());
            if done.load(Ordering::Acquire) {
                break;
            }
        }
        match copying.join() {
            Ok(copied) => copied,
            Err(_) => bail!("the thread that copies panicked"),
        }
    })?;
    run.put("copy-up-lookup", median(&waits).context("no look-up")?, None, None);
    run.put("copy-up-lookup-worst", waits.iter().copied().fold(0.0, f64::max), None, None);
    Ok(())
}
