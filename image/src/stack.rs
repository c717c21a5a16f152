//! The layers of an image as one.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::index::{Built, Index, IndexError, Limits, merge};
use crate::sys::map::Map;
use crate::{Digest, IndexedLayer};

/// A layer in a store.
#[derive(Clone, Debug)]
pub struct LayerFiles {
    /// The digest of its tar.
    pub diff_id: Digest,
    /// Its tar.
    pub tar: PathBuf,
    /// Its index.
    pub index: PathBuf,
}

impl LayerFiles {
    fn open(path: &Path) -> Result<OwnedFd, IndexError> {
        let opened = File::open(path).map(OwnedFd::from);
        opened.map_err(|source| IndexError::Open { path: path.to_owned(), source })
    }

    /// Opens the index alone.
    pub(crate) fn open_index(&self) -> Result<Index, IndexError> {
        let map = Map::of(&Self::open(&self.index)?);
        let map = map.map_err(|source| IndexError::Open { path: self.index.clone(), source })?;
        Index::check(map, &[self.diff_id])
    }

    /// Opens the layer by itself.
    ///
    /// # Errors
    /// [`IndexError`] says what is wrong with which file.
    pub fn layer(&self) -> Result<IndexedLayer, IndexError> {
        IndexedLayer::open(&self.tar, Self::open(&self.tar)?, &Self::open(&self.index)?, &self.diff_id)
    }
}

/// Merges the indexes of layers, the bottom one first; what comes of it is worth keeping under their chainID.
///
/// # Errors
/// One of the indexes cannot be used, or the whole is too large.
pub fn merged(layers: &[LayerFiles]) -> Result<Built, IndexError> {
    let indexes = layers.iter().map(LayerFiles::open_index).collect::<Result<Vec<_>, _>>()?;
    merge(&indexes.iter().collect::<Vec<_>>(), &Limits::default())
}

/// Opens layers, the bottom one first, over the index that [`merged`] made of them.
///
/// # Errors
/// [`IndexError`] says what is wrong with which file.
pub fn open(source: &Path, layers: &[LayerFiles], index: &OwnedFd) -> Result<IndexedLayer, IndexError> {
    let tars = layers.iter().map(|layer| LayerFiles::open(&layer.tar)).collect::<Result<Vec<_>, _>>()?;
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
    IndexedLayer::open_stack(source, tars, index, &diff_ids)
}

/// Opens layers, the bottom one first, over a merged index that is kept in memory alone.
///
/// # Errors
/// As [`merged`] and [`open`].
pub fn open_merging(source: &Path, layers: &[LayerFiles]) -> Result<IndexedLayer, IndexError> {
    let built = merged(layers)?;
    let failed = |source_error| IndexError::Open { path: source.to_owned(), source: source_error };
    let mut file = File::from(memfd_create("lamel-index", MemfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?);
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
    let mut bytes = Vec::new();
    built.write_stack(&diff_ids, &mut bytes).and_then(|()| file.write_all(&bytes)).map_err(failed)?;
    open(source, layers, &file.into())
}
