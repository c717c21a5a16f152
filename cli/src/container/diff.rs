//! `lamel diff CONTAINER`, for [`crate::diff`].

use anyhow::Result;
use lamel_unionfs::diff::{Change, diff_over};

use super::layers::{Layers, Running};
use super::record::Record;
use crate::image::StoreArgs;

/// Shows what a container added, changed and deleted.
pub(crate) fn run(store: &StoreArgs, record: &Record, show: impl FnOnce(&[Change]) -> Result<()>) -> Result<()> {
    let layers = Layers::of(store, record)?;
    let running = Running::hold(record, false)?;
    layers.work(&running, |layers| show(&diff_over(&record.upper(), &[], layers.below())?))
}
