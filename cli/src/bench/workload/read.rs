//! Workloads that only read, metadata above all.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::{DIRECTORY, Ground, Part, Run, Seen, Stopped, Unit, Workload, in_threads, many_threads, row, walk};
use crate::bench::plan::MANY;

/// What the number of layers costs: one workload for each.
macro_rules! layers {
    ($count:literal, $name:literal, [$cold:literal, $second:literal, $stat:literal, $negative:literal]) => {
        Workload {
            name: $name,
            about: concat!("walk, walk again, stat of each and first look for missing names, over ", $count, " layers"),
            caches: concat!($cold, ": page cache dropped, fresh mount; the others: after it"),
            needs: &[Part::Root],
            ground: Ground::Layers($count),
            writes: false,
            rows: &[
                row($cold, Unit::Seconds),
                row($second, Unit::Seconds),
                row($stat, Unit::Seconds),
                row($negative, Unit::Seconds),
            ],
            run: |run| depth(run, [$cold, $second, $stat, $negative]),
        }
    };
}

pub(super) const ALL: &[Workload] = &[
    Workload {
        name: "walk",
        about: "list every directory and stat every entry of a root filesystem",
        caches: "walk-cold: page cache dropped, fresh mount; walk-second: right after it; walk-warm: the third time",
        needs: &[Part::Root],
        ground: Ground::Given,
        writes: false,
        rows: &[
            row("walk-cold", Unit::Seconds),
            row("walk-second", Unit::Seconds),
            row("walk-warm", Unit::Seconds),
            row("memory-per-entry", Unit::Bytes),
            row("open-files", Unit::Count),
            row("memory-kept", Unit::Bytes),
        ],
        run: walks,
    },
    layers!(5, "layers-5", ["walk-cold-5", "walk-second-5", "stat-5", "negative-5"]),
    layers!(20, "layers-20", ["walk-cold-20", "walk-second-20", "stat-20", "negative-20"]),
    layers!(64, "layers-64", ["walk-cold-64", "walk-second-64", "stat-64", "negative-64"]),
    Workload {
        name: "stat",
        about: "stat every entry by its path, after a walk",
        caches: "warm: everything was walked and looked at before",
        needs: &[Part::Root],
        ground: Ground::Given,
        writes: false,
        rows: &[row("stat", Unit::Seconds)],
        run: stat,
    },
    Workload {
        name: "negative",
        about: "stat as many names that do not exist",
        caches: "after a walk; negative-first: never asked before; negative-repeat: again",
        needs: &[Part::Root],
        ground: Ground::Given,
        writes: false,
        rows: &[row("negative-first", Unit::Seconds), row("negative-repeat", Unit::Seconds)],
        run: negative,
    },
    Workload {
        name: "open",
        about: "open and close small files",
        caches: "warm: every file was opened and read before",
        needs: &[Part::Small],
        ground: Ground::Given,
        writes: false,
        rows: &[row("open", Unit::Seconds)],
        run: open,
    },
    Workload {
        name: "read",
        about: "open, read and close small files, with 1, 2 and N threads (N: CPUs, at least 4)",
        caches: "read-cold: page cache dropped, fresh mount; the others: warm",
        needs: &[Part::Small],
        ground: Ground::Given,
        writes: false,
        rows: &[
            row("read-cold", Unit::Seconds),
            row("read-1", Unit::Seconds),
            row("read-2", Unit::Seconds),
            row("read-n", Unit::Seconds),
        ],
        run: read,
    },
    Workload {
        name: "readdir",
        about: "list one large directory",
        caches: "readdir-first: fresh mount, layers warm; readdir-warm: again",
        needs: &[Part::Many],
        ground: Ground::Given,
        writes: false,
        rows: &[row("readdir-first", Unit::Seconds), row("readdir-warm", Unit::Seconds)],
        run: readdir,
    },
];

/// Walks the root filesystem, and checks that it is all there.
pub(super) fn walk_root(run: &Run<'_>) -> Result<()> {
    let seen = walk(run.root(), &run.input.subject)?;
    let expected = Seen { entries: run.input.entries.len(), directories: run.input.directories };
    if seen != expected {
        bail!("a walk shows {seen:?}, not {expected:?}");
    }
    Ok(())
}

fn walks(run: &Run<'_>) -> Result<(), Stopped> {
    run.cool();
    let before = run.daemon.as_ref().map(super::Meter::read);
    run.measure("walk-cold", || walk_root(run))?;
    if let (Some(meter), Some(before)) = (&run.daemon, &before) {
        let held = meter.since(before);
        let grown = held.resident_after.saturating_sub(held.resident_before);
        run.put("memory-per-entry", grown as f64 / run.input.entries.len().max(1) as f64, None, Some(before));
        run.put("open-files", held.open_files as f64, None, Some(before));
    }
    run.measure("walk-second", || walk_root(run))?;
    run.measure("walk-warm", || walk_root(run))?;
    if let (Some(meter), Some(before)) = (&run.daemon, &before) {
        // As under memory pressure: the kernel gives its entries up, and tells the daemon to forget them.
        if run.cool() {
            std::thread::sleep(Duration::from_millis(300));
            let held = meter.since(before);
            let kept = held.resident_after.saturating_sub(held.resident_before);
            run.put("memory-kept", kept as f64 / run.input.entries.len().max(1) as f64, None, Some(before));
        }
    }
    Ok(())
}

fn depth(run: &Run<'_>, [cold, second, stat, negative]: [&'static str; 4]) -> Result<(), Stopped> {
    run.cool();
    run.measure(cold, || walk_root(run))?;
    run.measure(second, || walk_root(run))?;
    stat_all(run.root(), &run.input.entries)?;
    run.measure(stat, || stat_all(run.root(), &run.input.entries))?;
    let names = missing(run)?;
    run.measure(negative, || miss_all(run, &names))?;
    Ok(())
}

fn stat(run: &Run<'_>) -> Result<(), Stopped> {
    walk_root(run)?;
    stat_all(run.root(), &run.input.entries)?;
    run.measure("stat", || stat_all(run.root(), &run.input.entries))?;
    Ok(())
}

fn stat_all(root: BorrowedFd<'_>, entries: &[CString]) -> Result<()> {
    for entry in entries {
        statat(root, entry, AtFlags::SYMLINK_NOFOLLOW).with_context(|| entry.to_string_lossy().into_owned())?;
    }
    Ok(())
}

/// As many names that are not there.
fn missing(run: &Run<'_>) -> Result<Vec<CString>> {
    let name = |entry: &CString| CString::new([entry.to_bytes(), b"~"].concat()).context("a name");
    run.input.entries.iter().map(name).collect()
}

fn miss_all(run: &Run<'_>, names: &[CString]) -> Result<()> {
    for name in names {
        match statat(run.root(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            other => bail!("{}: {other:?} where ENOENT was expected", name.to_string_lossy()),
        }
    }
    Ok(())
}

fn negative(run: &Run<'_>) -> Result<(), Stopped> {
    walk_root(run)?;
    let names = missing(run)?;
    run.measure("negative-first", || miss_all(run, &names))?;
    run.measure("negative-repeat", || miss_all(run, &names))?;
    Ok(())
}

fn open(run: &Run<'_>) -> Result<(), Stopped> {
    read_all(run.root(), &run.input.small)?;
    run.measure("open", || {
        for file in &run.input.small {
            drop(open_one(run.root(), file)?);
        }
        Ok(())
    })?;
    Ok(())
}

fn read(run: &Run<'_>) -> Result<(), Stopped> {
    run.cool();
    let (root, small) = (run.root(), &run.input.small);
    run.measure("read-cold", || read_all(root, small))?;
    for (row, threads) in [("read-1", 1), ("read-2", 2), ("read-n", many_threads())] {
        run.measure(row, || in_threads(threads, small, |part| read_all(root, part)))?;
    }
    Ok(())
}

fn open_one(root: BorrowedFd<'_>, file: &CStr) -> Result<rustix::fd::OwnedFd> {
    openat(root, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| file.to_string_lossy().into_owned())
}

/// Reads small files, none of which is empty.
pub(super) fn read_all(root: BorrowedFd<'_>, files: &[CString]) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    for file in files {
        let opened = open_one(root, file)?;
        let length = rustix::io::read(&opened, &mut buffer).with_context(|| file.to_string_lossy().into_owned())?;
        if length == 0 {
            bail!("{} is empty", file.to_string_lossy());
        }
    }
    Ok(())
}

fn readdir(run: &Run<'_>) -> Result<(), Stopped> {
    run.part(Part::Many)?;
    // The layers' own directories are brought into the cache, not the union's.
    for layer in &run.input.layers {
        if let Ok(entries) = std::fs::read_dir(layer.join(MANY)) {
            entries.for_each(drop);
        }
    }
    let list = || {
        let directory = openat(run.root(), MANY, DIRECTORY, Mode::empty()).context(MANY)?;
        let mut entries = 0;
        for entry in Dir::read_from(&directory).context(MANY)? {
            entry.context(MANY)?;
            entries += 1;
        }
        // With itself and its parent.
        let expected = run.input.shape.many + 2;
        if entries != expected {
            bail!("{MANY} lists {entries} entries, not {expected}");
        }
        Ok(())
    };
    run.measure("readdir-first", list)?;
    run.measure("readdir-warm", list)?;
    Ok(())
}
