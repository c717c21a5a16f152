//! How fast images come and can be read.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::super::machine::{field, kibibytes};
use super::super::process::{Ran, run};
use super::super::result::{Sample, Unit};
use super::super::runner::Samples;
use super::super::workload::{Stopped, row, skip};
use super::fixture::Fixture;
use super::verbs::podman;
use super::{Engine, Job, Kind};
use crate::output::ask;

pub(super) const ALL: &[Job] = &[
    Job {
        name: "pull",
        about: "pull an image from a registry on this host into an empty store, mount it and read a file; \
                bound: its layers decompressed and hashed by gzip or zstd and sha256sum",
        caches: "the store is empty; the registry's files are in the page cache",
        rows: &[row("pull-to-read", Unit::Seconds), row("pull", Unit::Seconds), row("pull-memory", Unit::Bytes)],
        run: pull,
    },
    Job {
        name: "load",
        about: "load an image from what docker save writes into an empty store, mount it and read a file; \
                bound: sha256sum of the archive",
        caches: "the store is empty; the archive is in the page cache",
        rows: &[row("load-to-read", Unit::Seconds), row("load", Unit::Seconds), row("load-memory", Unit::Bytes)],
        run: load,
    },
    Job {
        name: "image-mount",
        about: "mount an image of one layer, and one of the same tree in 64 layers; memory of the process that serves the \
                latter, after a walk",
        caches: "mounted once before",
        rows: &[
            row("image-mount-1", Unit::Seconds),
            row("image-mount-64", Unit::Seconds),
            row("image-mount-memory", Unit::Bytes),
        ],
        run: mount,
    },
];

/// A number.
pub(super) fn sample(name: &'static str, value: f64) -> (&'static str, Sample) {
    (name, Sample { value, amount: None, daemon: None })
}

/// Takes an image in and reads a file of it.
fn take_in(
    fixture: &Fixture<'_>,
    engine: &Engine,
    store: &Path,
    [whole, part, memory]: [&'static str; 3],
    image: &str,
    take: impl FnOnce() -> Result<Ran>,
) -> Result<Samples, Stopped> {
    if engine.kind == Kind::Docker {
        // Its start is not measured.
        fixture.docker()?;
    }
    // What earlier runs have written is not written back while this one is measured.
    rustix::fs::sync();
    let start = Instant::now();
    let ran = take()?;
    engine.read(fixture, store, image)?;
    let mut samples = vec![sample(whole, start.elapsed().as_secs_f64()), sample(part, ran.seconds)];
    // docker's client has no part in the work.
    if engine.kind != Kind::Docker && engine.kind != Kind::Bound {
        samples.push(sample(memory, ran.peak as f64));
    }
    engine.let_go(fixture, store, image)?;
    Ok(samples)
}

fn has_images(engine: &Engine) -> Result<(), Stopped> {
    if engine.kind == Kind::Crun { skip("crun has no images") } else { Ok(()) }
}

fn pull(fixture: &Fixture<'_>, engine: &Engine, store: &Path) -> Result<Samples, Stopped> {
    has_images(engine)?;
    if !super::found("docker-registry") {
        return skip("docker-registry is not installed");
    }
    let rows = ["pull-to-read", "pull", "pull-memory"];
    take_in(fixture, engine, store, rows, &fixture.remote()?, || engine.pull(fixture, store))
}

fn load(fixture: &Fixture<'_>, engine: &Engine, store: &Path) -> Result<Samples, Stopped> {
    has_images(engine)?;
    fixture.archive()?;
    let rows = ["load-to-read", "load", "load-memory"];
    take_in(fixture, engine, store, rows, &fixture.name, || engine.load(fixture, store))
}

fn mount(fixture: &Fixture<'_>, engine: &Engine, store: &Path) -> Result<Samples, Stopped> {
    let Some(depths) = &fixture.depths else { return skip("only with the generated tree") };
    let mut samples = Vec::new();
    match engine.kind {
        Kind::Lamel { .. } => {
            let mountpoint = store.join("mnt");
            std::fs::create_dir(&mountpoint).context("making a mountpoint")?;
            for (row, image) in ["image-mount-1", "image-mount-64"].into_iter().zip(depths) {
                let mount = || run(engine.lamel_command(&["mount"])?.args(&fixture.store).arg(image).arg(&mountpoint));
                let unmount = || run(engine.lamel_command(&["umount"])?.arg(&mountpoint));
                mount()?;
                unmount()?;
                samples.push(sample(row, mount()?.seconds));
                if row == "image-mount-64" {
                    samples.push(sample("image-mount-memory", held(&mountpoint)?));
                }
                unmount()?;
            }
        }
        Kind::Podman => {
            let podman = |words: &[&str]| run(&mut podman(fixture.podman()?, words)?);
            for (row, image) in ["image-mount-1", "image-mount-64"].into_iter().zip(depths) {
                podman(&["image", "mount", image])?;
                podman(&["image", "unmount", image])?;
                samples.push(sample(row, podman(&["image", "mount", image])?.seconds));
                podman(&["image", "unmount", image])?;
            }
        }
        _ => return skip("mounts no images"),
    }
    Ok(samples)
}

/// Memory of the process that serves a mount of lamel, after a walk.
fn held(mountpoint: &Path) -> Result<f64> {
    run(std::process::Command::new("find").arg(mountpoint).args(["-ls"]))?;
    let pid = ask(mountpoint, "system.lamel.pid").context("the daemon's process")?;
    let status = format!("/proc/{}/status", String::from_utf8_lossy(&pid));
    let resident = field(&status, "VmRSS").and_then(|text| kibibytes(&text)).with_context(|| status.clone())?;
    Ok(resident as f64)
}
