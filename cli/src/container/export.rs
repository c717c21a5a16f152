//! `lamel export CONTAINER`, for `image::export`.

use std::path::Path;

use anyhow::{Context as _, Result};
use lamel_image::archive::export_dir;
use lamel_image::changeset::write_tree;
use rustix::fs::{Mode, OFlags};

use super::layers::{Layers, Running};
use super::record::Record;
use crate::image::StoreArgs;
use crate::output::write_archive;

/// The container of a name, if there is one.
pub(crate) fn find(store: &StoreArgs, name: &str) -> Result<Option<Record>> {
    if !store.path()?.join("containers").is_dir() {
        return Ok(None);
    }
    match super::containers(store)?.find(name) {
        Ok(record) => Ok(Some(record)),
        Err(error) if super::rm::is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes everything that its layers show. Volumes and other mounts are not in it.
pub(crate) fn export(store: &StoreArgs, record: &Record, output: &Path) -> Result<()> {
    let output = match output.to_str() {
        Some("-") => output.to_owned(),
        _ => std::path::absolute(output)?,
    };
    if record.settings.rootfs.is_some() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(record.root(), flags, Mode::empty());
        let dir = dir.with_context(|| record.root().display().to_string())?;
        return write_archive(&output, |out| {
            export_dir(dir, out)?;
            Ok(())
        });
    }
    let layers = Layers::of(store, record)?;
    let running = Running::hold(record, false)?;
    running.sync();
    layers.work(&running, |layers| {
        let stack = layers.stack(&running)?;
        write_archive(&output, |out| {
            write_tree(&stack, out)?;
            Ok(())
        })
    })
}
