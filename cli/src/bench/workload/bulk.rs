//! Workloads on one large file.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Ground, Part, Run, Stopped, Unit, Workload, row, skip};
use crate::bench::random::Random;
use crate::bench::sys;
use crate::bench::tree::BULK;

pub(super) const ALL: &[Workload] = &[
    Workload {
        name: "bulk-read",
        about: "read a large file of a lower layer: in blocks of 1 MiB, and 4 KiB at random",
        caches: "bulk-read-cold: page cache dropped, fresh mount; the others: warm",
        needs: &[Part::Bulk],
        ground: Ground::Given,
        writes: false,
        rows: &[
            row("bulk-read-cold", Unit::Throughput),
            row("bulk-read", Unit::Throughput),
            row("random-read", Unit::Throughput),
        ],
        run: bulk_read,
    },
    Workload {
        name: "bulk-write",
        about: "write a new large file: in blocks of 1 MiB, and 4 KiB at random, both with a final fsync",
        caches: "fresh mount and upper",
        needs: &[],
        ground: Ground::Given,
        writes: true,
        rows: &[row("bulk-write", Unit::Throughput), row("random-write", Unit::Throughput)],
        run: bulk_write,
    },
    Workload {
        name: "mmap-read",
        about: "read a large file of a lower layer through a mapping: one byte of each page, in order and at random",
        caches: "mmap-read-cold: page cache dropped, fresh mount; the others: warm",
        needs: &[Part::Bulk],
        ground: Ground::Given,
        writes: false,
        rows: &[
            row("mmap-read-cold", Unit::Throughput),
            row("mmap-read", Unit::Throughput),
            row("mmap-random-read", Unit::Throughput),
        ],
        run: mmap_read,
    },
    Workload {
        name: "mmap-write",
        about: "write a new large file through a shared mapping: all of it, then 4 KiB at random, both with a final msync",
        caches: "fresh mount and upper",
        needs: &[],
        ground: Ground::Given,
        writes: true,
        rows: &[row("mmap-write", Unit::Throughput), row("mmap-random-write", Unit::Throughput)],
        run: mmap_write,
    },
    Workload {
        name: "bulk-copy-up",
        about: "append a byte to the large file of a lower layer",
        caches: "fresh mount and upper; the file is in the page cache as far as it fits",
        needs: &[Part::Bulk],
        ground: Ground::Given,
        writes: true,
        rows: &[row("bulk-copy-up", Unit::Seconds)],
        run: copy_up,
    },
    Workload {
        name: "reflink-copy-up",
        about: "the same where layer and upper lie on one filesystem that shares blocks (a new one, in a file)",
        caches: "fresh mount and upper; the file is in the page cache as far as it fits",
        needs: &[Part::Bulk],
        ground: Ground::Reflink,
        writes: true,
        rows: &[row("reflink-copy-up", Unit::Seconds)],
        run: reflink_copy_up,
    },
];

const BLOCK: usize = 1 << 20;

fn read_through(mut file: &File) -> Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut bytes = 0;
    loop {
        match file.read(&mut block).context("reading the large file")? {
            0 => return Ok(bytes),
            length => bytes += length as u64,
        }
    }
}

fn bulk_read(run: &Run<'_>) -> Result<(), Stopped> {
    run.part(Part::Bulk)?;
    let path = run.path.join(BULK);
    let bytes = run.input.shape.bulk;
    let open = || File::open(&path).with_context(|| path.display().to_string());
    run.cool();
    for row in ["bulk-read-cold", "bulk-read"] {
        run.measure_each(row, Some(bytes), || {
            let seen = read_through(&open()?)?;
            if seen != bytes {
                bail!("the large file has {seen} bytes, not {bytes}");
            }
            Ok(())
        })?;
    }
    let (file, places) = (open()?, places(bytes, run.input.shape.calls));
    run.measure_each("random-read", Some(places.len() as u64 * 4096), || {
        let mut block = [0; 4096];
        places.iter().try_for_each(|at| file.read_exact_at(&mut block, *at).context("reading at random"))
    })?;
    Ok(())
}

/// Pages of a file, at random.
fn places(bytes: u64, count: usize) -> Vec<u64> {
    let mut random = Random::new(4);
    let pages = usize::try_from(bytes / 4096).unwrap_or(usize::MAX);
    (0..count).map(|_| random.below(pages) as u64 * 4096).collect()
}

fn bulk_write(run: &Run<'_>) -> Result<(), Stopped> {
    let bytes = run.input.shape.bulk / 4;
    let path = run.path.join("bench-bulk");
    let mut file = OpenOptions::new().create_new(true).write(true).open(&path).context("making a large file")?;
    let block = vec![b'b'; BLOCK];
    run.settle()?;
    run.measure_each("bulk-write", Some(bytes), || {
        let mut left = bytes;
        while left > 0 {
            let take = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            file.write_all(block.get(..take).unwrap_or_default()).context("writing a large file")?;
            left -= take as u64;
        }
        file.sync_all().context("fsync")
    })?;
    let places = places(bytes, run.input.shape.calls);
    run.measure_each("random-write", Some(places.len() as u64 * 4096), || {
        let page = [b'r'; 4096];
        places.iter().try_for_each(|at| file.write_all_at(&page, *at).context("writing at random"))?;
        file.sync_all().context("fsync")
    })?;
    Ok(())
}

fn mmap_read(run: &Run<'_>) -> Result<(), Stopped> {
    run.part(Part::Bulk)?;
    let path = run.path.join(BULK);
    let bytes = run.input.shape.bulk;
    run.cool();
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let touch = |pages: &mut dyn Iterator<Item = u64>| {
        let map = sys::map(&file).context("mapping the large file")?;
        if map.len() as u64 != bytes {
            bail!("the large file has {} bytes, not {bytes}", map.len());
        }
        let seen =
            pages.filter_map(|at| map.get(usize::try_from(at).ok()?)).fold(0_u64, |sum, byte| sum + u64::from(*byte));
        Ok(std::hint::black_box(seen))
    };
    for row in ["mmap-read-cold", "mmap-read"] {
        run.measure_each(row, Some(bytes), || touch(&mut (0..bytes).step_by(4096)))?;
    }
    let places = places(bytes, run.input.shape.calls);
    run.measure_each("mmap-random-read", Some(places.len() as u64 * 4096), || touch(&mut places.iter().copied()))?;
    Ok(())
}

fn mmap_write(run: &Run<'_>) -> Result<(), Stopped> {
    let bytes = run.input.shape.bulk / 4;
    let path = run.path.join("bench-mapped");
    let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path).context("making a large file")?;
    file.set_len(bytes).context("making a large file")?;
    run.settle()?;
    let mut map = sys::map_shared(&file).context("mapping a new file")?;
    run.measure_each("mmap-write", Some(bytes), || {
        map.fill(b'm');
        map.flush().context("msync")
    })?;
    let places = places(bytes, run.input.shape.calls);
    run.measure_each("mmap-random-write", Some(places.len() as u64 * 4096), || {
        for at in &places {
            let at = usize::try_from(*at).unwrap_or_default();
            map.get_mut(at..at + 4096).context("a page of the mapping")?.fill(b'r');
        }
        map.flush().context("msync")
    })?;
    drop(map);
    let mut block = [0];
    file.read_exact_at(&mut block, places.last().copied().unwrap_or_default()).context("reading what was mapped")?;
    if block != *b"r" {
        return Err(anyhow::anyhow!("what was written through the mapping is not in the file").into());
    }
    Ok(())
}

/// Reads the large file where it lies, so that a backend that copies it finds it in the page cache.
pub(super) fn warm_bulk(run: &Run<'_>) -> Result<()> {
    for layer in &run.input.layers {
        if let Ok(file) = File::open(layer.join(BULK)) {
            read_through(&file)?;
        }
    }
    Ok(())
}

/// Appends to the large file, and with that copies it up.
pub(super) fn append_byte(path: &Path) -> Result<()> {
    let mut file = OpenOptions::new().append(true).open(path).context("opening the large file")?;
    file.write_all(b"x").context("appending to the large file")
}

fn copy_up(run: &Run<'_>) -> Result<(), Stopped> {
    copy_up_as(run, "bulk-copy-up")
}

fn reflink_copy_up(run: &Run<'_>) -> Result<(), Stopped> {
    copy_up_as(run, "reflink-copy-up")
}

fn copy_up_as(run: &Run<'_>, row: &'static str) -> Result<(), Stopped> {
    run.part(Part::Bulk)?;
    if !run.union {
        return skip("there is no lower layer to copy from");
    }
    warm_bulk(run)?;
    run.settle()?;
    let path = run.path.join(BULK);
    run.measure(row, || append_byte(&path))?;
    let length = path.metadata().context("the large file")?.len();
    if length != run.input.shape.bulk + 1 {
        return Err(anyhow::anyhow!("the large file has {length} bytes after an append").into());
    }
    Ok(())
}
