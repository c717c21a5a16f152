//! What a volume holds at first: the content of the directory that it is mounted on.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result};
use lamel_image::archive::{Mounts, export_from, export_tree};
use lamel_image::store::{Image, Opened, Store};
use lamel_image::view::{Object, View, ViewError};
use rustix::fs::{Mode, OFlags};

use super::store::Volume;
use crate::container::copy::root::Root;
use crate::container::copy::through_pipe;
use crate::container::copy::unpack::{Owner, Unpack};
use crate::container::namespace::{self, Ids};
use crate::run::identity::Maps;

/// Where a container's files are before it is started.
pub(crate) enum Files<'a> {
    /// In an image.
    Image(&'a Store, &'a Image),
    /// In a directory.
    Directory(&'a Path),
}

/// Fills a volume that is empty with what is at `path` in the container's files, as its owners have it; links are copied as
/// links. `maps` are the container's ids, where it has its own.
pub(crate) fn fill(volume: &Volume, files: &Files<'_>, path: &Path, maps: Option<&Maps>) -> Result<()> {
    let _lock = volume.lock()?;
    let data = volume.data();
    if fs::read_dir(&data).with_context(|| data.display().to_string())?.next().is_some() {
        return Ok(());
    }
    let source = match files {
        Files::Image(store, image) => {
            let opened = store.open_image(image)?;
            let view = View::new(opened.layer.clone());
            match view.resolve(path.as_os_str().as_encoded_bytes(), true) {
                Ok(found) if found.attr.is_dir() => Source::Image(Box::new((opened, view, found))),
                Ok(_) | Err(ViewError::NotFound(_) | ViewError::NotDirectory(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Files::Directory(root) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(*root, flags, Mode::empty()).with_context(|| root.display().to_string())?;
            match Root::confined(fd).directory(path) {
                Ok(dir) => Source::Directory(dir),
                Err(_) => return Ok(()),
            }
        }
    };
    let copied = match maps {
        None => source.copy_to(&data, Owner::Kept),
        Some(maps) if rustix::process::geteuid().is_root() => source.copy_to(&data, Owner::Shifted(maps.clone())),
        Some(maps) => namespace::aside(Ids::Mapped(maps), false, || source.copy_to(&data, Owner::Kept)),
    };
    copied.with_context(|| format!("filling the volume {} from {}", volume.about.name, path.display()))
}

/// A directory that was found.
enum Source {
    Image(Box<(Opened, View, Object)>),
    Directory(OwnedFd),
}

impl Source {
    fn copy_to(self, data: &Path, owner: Owner) -> Result<()> {
        let fd = rustix::fs::open(data, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let root = Root::confined(fd);
        let unpack = Unpack { root: &root, base: ".".into(), owner, with_root: true };
        through_pipe(
            |out| match self {
                Self::Image(found) => {
                    let (_in_use, view, top) = *found;
                    Ok(export_from(&view, top, out)?)
                }
                Self::Directory(dir) => {
                    export_tree(dir, b".", Mounts::Skip, out)?;
                    Ok(())
                }
            },
            |tar| unpack.run(tar).map(drop),
        )
    }
}
