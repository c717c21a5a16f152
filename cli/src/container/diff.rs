//! `lamel diff CONTAINER`, for [`crate::diff`].

use std::path::PathBuf;

use anyhow::Result;
use lamel_unionfs::diff::{Change, Kind, diff_over};

use super::layers::{Layers, Running};
use super::record::Record;
use crate::image::StoreArgs;

/// Shows what a container added, changed and deleted.
pub(crate) fn run(store: &StoreArgs, record: &Record, show: impl FnOnce(&[Change]) -> Result<()>) -> Result<()> {
    let layers = Layers::of(store, record)?;
    let running = Running::hold(record, false)?;
    // Where something is mounted, a place was made for it, which is no change of the container's.
    let places: Vec<PathBuf> =
        record.spec()?.mounts().iter().flatten().map(|mount| mount.destination().clone()).collect();
    layers.work(&running, |layers| {
        let mut changes = diff_over(&record.upper(), &[], &layers.below())?;
        changes.retain(|change| change.kind != Kind::Added || !places.contains(&change.path));
        show(&changes)
    })
}
