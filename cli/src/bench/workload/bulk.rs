//! Workloads on one large file.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail};

use super::{Part, Run, Stopped, Unit, Workload, row, skip};
use crate::bench::random::Random;
use crate::bench::tree::BULK;

pub(super) const ALL: &[Workload] = &[
    Workload {
        name: "bulk-read",
        about: "read a large file of a lower layer: in blocks of 1 MiB, and 4 KiB at random",
        caches: "bulk-read-cold: page cache dropped, fresh mount; the others: warm",
        needs: &[Part::Bulk],
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
        writes: true,
        rows: &[row("bulk-write", Unit::Throughput), row("random-write", Unit::Throughput)],
        run: bulk_write,
    },
    Workload {
        name: "bulk-copy-up",
        about: "append a byte to the large file of a lower layer",
        caches: "fresh mount and upper; the file is in the page cache as far as it fits",
        needs: &[Part::Bulk],
        writes: true,
        rows: &[row("bulk-copy-up", Unit::Seconds)],
        run: copy_up,
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

fn copy_up(run: &Run<'_>) -> Result<(), Stopped> {
    run.part(Part::Bulk)?;
    if !run.union {
        return skip("there is no lower layer to copy from");
    }
    for layer in &run.input.layers {
        if let Ok(file) = File::open(layer.join(BULK)) {
            read_through(&file)?;
        }
    }
    let path = run.path.join(BULK);
    run.settle()?;
    run.measure("bulk-copy-up", || {
        let mut file = OpenOptions::new().append(true).open(&path).context("opening the large file")?;
        file.write_all(b"x").context("appending to the large file")
    })?;
    let length = path.metadata().context("the large file")?.len();
    if length != run.input.shape.bulk + 1 {
        return Err(anyhow::anyhow!("the large file has {length} bytes after an append").into());
    }
    Ok(())
}
