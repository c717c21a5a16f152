//! What a workload runs on, where that is not the input that was asked for.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::mount::UnmountFlags;

use super::backend::Place;
use super::input::{Input, Part};
use super::machine;
use super::plan::Size;
use super::tree::{self, BULK, found, succeed};
use super::workload::Stopped;

/// Which layers, and on what filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// The input, as it was asked for.
    Given,
    /// The generated tree in so many layers, whatever was asked for.
    Layers(usize),
    /// A filesystem that shares blocks between files, made for it, with the large file in its only layer.
    Reflink,
}

/// Where grounds are made.
#[derive(Debug)]
pub(crate) struct Grounds<'a> {
    pub(crate) input: &'a Input,
    pub(crate) place: &'a Place,
    /// Where the generated tree is kept.
    pub(crate) state: &'a Path,
    pub(crate) size: Size,
}

/// A ground that is there.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    given: &'a Input,
    own: Option<Input>,
    pub(crate) place: Place,
    _disk: Option<Disk>,
}

impl Prepared<'_> {
    pub(crate) fn input(&self) -> &Input {
        self.own.as_ref().unwrap_or(self.given)
    }
}

impl Grounds<'_> {
    /// Makes what a workload runs on, or says why that is not possible here.
    pub(crate) fn prepare(&self, ground: Ground, say: &dyn Fn(&str)) -> Result<Prepared<'_>, Stopped> {
        let mut prepared = Prepared { given: self.input, own: None, place: self.place.clone(), _disk: None };
        if ground == Ground::Given {
            return Ok(prepared);
        }
        if self.input.foreign {
            return Err(Stopped::Skipped("only with the generated tree".to_owned()));
        }
        match ground {
            Ground::Given => {}
            Ground::Layers(layers) => {
                let tree = tree::tree(self.state, self.size, layers, say)?;
                prepared.own = Some(Input { layers: tree.layers, ..self.input.clone() });
            }
            Ground::Reflink => {
                let file = self.input.merged.join(self.input.part(Part::Bulk).context("there is no large file")?);
                let disk = Disk::new(self.place, self.input.shape.bulk)?;
                let lower = disk.root().join("lower");
                fs::create_dir_all(lower.join(BULK).parent().unwrap_or(&lower)).context("making a layer")?;
                fs::copy(file, lower.join(BULK)).context("copying the large file")?;
                prepared.place.base = disk.root().join("run");
                prepared.own = Some(Input { layers: vec![lower], ..self.input.clone() });
                prepared._disk = Some(disk);
            }
        }
        Ok(prepared)
    }
}

/// A filesystem in a file, which shares blocks. Gone when dropped.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

/// The least that an xfs is made in.
const LEAST: u64 = 512 << 20;

impl Disk {
    /// Where one is made that goes with `place`.
    pub(crate) fn beside(place: &Place) -> PathBuf {
        place.base.with_extension("disk")
    }

    /// Where it is mounted.
    fn root(&self) -> PathBuf {
        self.0.join("mnt")
    }

    fn new(place: &Place, bulk: u64) -> Result<Self, Stopped> {
        let skip = |why: &str| Err(Stopped::Skipped(why.to_owned()));
        if !place.may_mount || place.userns {
            return skip("only root may mount a filesystem that shares blocks");
        }
        let make: &[&str] = match () {
            () if found("mkfs.xfs") => &["mkfs.xfs", "-q", "-m", "reflink=1"],
            () if found("mkfs.btrfs") => &["mkfs.btrfs", "-q"],
            () => return skip("neither mkfs.xfs nor mkfs.btrfs is installed"),
        };
        let disk = Self(Self::beside(place));
        fs::create_dir_all(disk.root()).with_context(|| disk.0.display().to_string())?;
        let image = disk.0.join("image");
        let file = File::create(&image).with_context(|| image.display().to_string())?;
        file.set_len(bulk.saturating_mul(3).saturating_add(LEAST)).context("making room for a filesystem")?;
        succeed(Command::new(make[0]).args(&make[1..]).arg(&image))?;
        // The loop device goes with the mount.
        succeed(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.root()))?;
        if !machine::can_reflink(&disk.root(), &disk.root()) {
            return skip("the filesystem that was made does not share blocks");
        }
        Ok(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.root(), UnmountFlags::DETACH).ok();
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!("removing {}: {error}", self.0.display());
        }
    }
}
