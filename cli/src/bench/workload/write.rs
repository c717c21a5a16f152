//! Workloads that change metadata and small files.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{AtFlags, Mode, OFlags, chmodat, mkdirat, openat, renameat, statat, unlinkat};

use super::{DIRECTORY, Ground, Part, Run, Stopped, Unit, Workload, in_threads, row};

pub(super) const ALL: &[Workload] = &[
    Workload {
        name: "create",
        about: "make files of 4 KiB in a new directory, with 1 and 2 threads (two directories)",
        caches: "fresh mount and upper",
        needs: &[],
        ground: Ground::Given,
        writes: true,
        rows: &[row("create-1", Unit::Seconds), row("create-2", Unit::Seconds)],
        run: create,
    },
    Workload {
        name: "append",
        about: "append a byte to small files of a lower layer: each is copied up",
        caches: "fresh mount and upper; the files' data is in the page cache",
        needs: &[Part::Small],
        ground: Ground::Given,
        writes: true,
        rows: &[row("append", Unit::Seconds)],
        run: append,
    },
    Workload {
        name: "chmod",
        about: "change the mode of small files of a lower layer: data need not be copied",
        caches: "fresh mount and upper; the files' data is in the page cache",
        needs: &[Part::Small],
        ground: Ground::Given,
        writes: true,
        rows: &[row("chmod", Unit::Seconds)],
        run: chmod,
    },
    Workload {
        name: "rename",
        about: "rename new files within their directory, then remove them",
        caches: "the files were just made",
        needs: &[],
        ground: Ground::Given,
        writes: true,
        rows: &[row("rename", Unit::Seconds), row("unlink", Unit::Seconds)],
        run: rename_and_unlink,
    },
    Workload {
        name: "fsync",
        about: "make a file, write 4 KiB and fsync it; then append 4 KiB and fdatasync, again and again",
        caches: "fresh mount and upper",
        needs: &[],
        ground: Ground::Given,
        writes: true,
        rows: &[row("fsync", Unit::Each), row("fdatasync", Unit::Each)],
        run: fsync,
    },
    Workload {
        name: "delete",
        about: "remove small files of a lower layer: each becomes a whiteout",
        caches: "fresh mount and upper",
        needs: &[Part::Small],
        ground: Ground::Given,
        writes: true,
        rows: &[row("delete", Unit::Seconds)],
        run: delete,
    },
];

/// Where new things are made.
const FRESH: &str = "bench-made";

/// Makes a directory and opens it.
fn fresh(run: &Run<'_>, name: &str) -> Result<OwnedFd> {
    mkdirat(run.root(), name, Mode::from_raw_mode(0o755)).context("making a directory")?;
    openat(run.root(), name, DIRECTORY, Mode::empty()).context("opening a new directory")
}

fn names(count: usize, prefix: &str) -> Result<Vec<CString>> {
    (0..count).map(|number| Ok(CString::new(format!("{prefix}{number:06}"))?)).collect()
}

fn make(directory: BorrowedFd<'_>, names: &[CString]) -> Result<()> {
    let content = [b'x'; 4096];
    for name in names {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(directory, name, flags, Mode::from_raw_mode(0o644))
            .with_context(|| format!("making {}", name.to_string_lossy()))?;
        let written = rustix::io::write(&file, &content).context("writing a new file")?;
        if written != content.len() {
            bail!("{written} bytes were written, not {}", content.len());
        }
    }
    Ok(())
}

fn create(run: &Run<'_>) -> Result<(), Stopped> {
    let names = names(run.input.shape.made, "f")?;
    let one = fresh(run, FRESH)?;
    run.settle()?;
    run.measure("create-1", || make(one.as_fd(), &names))?;
    let two = [fresh(run, "bench-a")?, fresh(run, "bench-b")?];
    run.settle()?;
    let (first, second) = names.split_at(names.len() / 2);
    run.measure("create-2", || {
        in_threads(2, &[(0, first), (1, second)], |parts| {
            parts.iter().try_for_each(|(at, names)| make(two.get(*at).unwrap_or(&two[0]).as_fd(), names))
        })
    })?;
    Ok(())
}

fn append(run: &Run<'_>) -> Result<(), Stopped> {
    run.input.warm_small();
    let small = &run.input.small;
    let first = small.first().context("no small files")?;
    let length = |file| Ok::<_, anyhow::Error>(statat(run.root(), file, AtFlags::empty()).context("a file")?.st_size);
    let before = length(first)?;
    run.settle()?;
    run.measure("append", || {
        for file in small {
            let at = || file.to_string_lossy().into_owned();
            let opened = openat(run.root(), file, OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC, Mode::empty())
                .with_context(at)?;
            rustix::io::write(&opened, b"x").with_context(at)?;
        }
        Ok(())
    })?;
    if length(first)? != before + 1 {
        return Err(anyhow::anyhow!("an appended byte is missing").into());
    }
    Ok(())
}

fn chmod(run: &Run<'_>) -> Result<(), Stopped> {
    run.input.warm_small();
    run.settle()?;
    run.measure("chmod", || {
        for file in &run.input.small {
            chmodat(run.root(), file, Mode::from_raw_mode(0o600), AtFlags::empty())
                .with_context(|| file.to_string_lossy().into_owned())?;
        }
        Ok(())
    })?;
    Ok(())
}

fn rename_and_unlink(run: &Run<'_>) -> Result<(), Stopped> {
    let directory = fresh(run, FRESH)?;
    let (old, new) = (names(run.input.shape.made, "f")?, names(run.input.shape.made, "g")?);
    make(directory.as_fd(), &old)?;
    run.settle()?;
    run.measure("rename", || {
        old.iter().zip(&new).try_for_each(|(old, new)| renameat(&directory, old, &directory, new).context("renaming"))
    })?;
    run.settle()?;
    run.measure("unlink", || {
        new.iter().try_for_each(|name| unlinkat(&directory, name, AtFlags::empty()).context("removing"))
    })?;
    Ok(())
}

fn fsync(run: &Run<'_>) -> Result<(), Stopped> {
    let directory = fresh(run, FRESH)?;
    // A disk's flush takes longer than anything else here.
    let names = names(run.input.shape.made / 10, "s")?;
    let content = [b's'; 4096];
    let amount = Some(names.len() as u64);
    let append = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    let open = |name: &CStr| openat(&directory, name, append, Mode::from_raw_mode(0o644)).context("making a file");
    let write = |file: &OwnedFd| match rustix::io::write(file, &content).context("writing")? {
        4096 => Ok(()),
        written => bail!("{written} bytes were written, not 4096"),
    };
    run.settle()?;
    run.measure_each("fsync", amount, || {
        names.iter().try_for_each(|name| {
            let file = open(name)?;
            write(&file)?;
            rustix::fs::fsync(&file).context("fsync")
        })
    })?;
    let file = open(c"appended")?;
    run.measure_each("fdatasync", amount, || {
        names.iter().try_for_each(|_| {
            write(&file)?;
            rustix::fs::fdatasync(&file).context("fdatasync")
        })
    })?;
    Ok(())
}

fn delete(run: &Run<'_>) -> Result<(), Stopped> {
    run.settle()?;
    run.measure("delete", || {
        for file in &run.input.small {
            unlinkat(run.root(), file, AtFlags::empty()).with_context(|| file.to_string_lossy().into_owned())?;
        }
        Ok(())
    })?;
    Ok(())
}
