//! One image: its manifest, its configuration, and its layers as one.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Result, StoreError, at};
use super::ingest::LayerBlob;
use super::lock::{self, Mode};
use super::staging::publish;
use super::{Store, Writer};
use crate::index::Built;
use crate::manifest::{Descriptor, Document, ImageConfig, MAX_INDEX_DEPTH, Manifest, chain_ids};
use crate::platform::Platform;
use crate::stack::{self, LayerFiles};
use crate::{Digest, IndexedLayer};

/// An image for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Of its manifest.
    pub descriptor: Descriptor,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: ImageConfig,
}

impl Image {
    /// What Docker calls it by: the digest of its configuration.
    pub fn id(&self) -> Digest {
        self.manifest.config.digest
    }

    /// Digests of its layers' tars, the bottom one first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.config.rootfs.diff_ids
    }

    /// The identity of its layers together; of an image that has none, its own.
    pub fn chain_id(&self) -> Digest {
        chain_ids(self.diff_ids()).pop().unwrap_or(self.id())
    }

    /// Its layers, the bottom one first.
    pub fn layers(&self) -> impl Iterator<Item = LayerBlob> + '_ {
        let layers = self.manifest.layers.iter().zip(self.diff_ids());
        layers.map(|(blob, diff_id)| LayerBlob { digest: blob.digest, size: blob.size, diff_id: *diff_id })
    }

    /// The instruction that made each layer, the bottom one first; empty where the image does not say.
    pub fn instructions(&self) -> Vec<&str> {
        let steps = self.config.history.iter().filter(|step| !step.empty_layer).map(|step| step.created_by.as_str());
        steps.chain(std::iter::repeat("")).take(self.diff_ids().len()).collect()
    }

    /// Bytes of its blobs.
    pub fn size(&self) -> u64 {
        let blobs = self.manifest.layers.iter().chain([&self.manifest.config, &self.descriptor]);
        blobs.fold(0, |sum, blob| sum.saturating_add(blob.size))
    }
}

/// An image's layers, ready to be mounted.
pub struct Opened {
    /// All of them as one.
    pub layer: Arc<IndexedLayer>,
    /// Says that the image is in use.
    _in_use: Option<File>,
}

impl Store {
    /// Reads the image that a descriptor leads to; of an index, the one that serves `wanted` best.
    ///
    /// # Errors
    /// A blob is missing or cannot be understood, or there is none for the platform.
    pub fn image(&self, descriptor: &Descriptor, wanted: &Platform) -> Result<Image> {
        let mut descriptor = descriptor.clone();
        for _ in 0..=MAX_INDEX_DEPTH {
            let index = match self.document(&descriptor)? {
                Document::Manifest(manifest) => return self.image_of(descriptor, manifest),
                Document::Index(index) => index,
            };
            descriptor = match index.choose(wanted) {
                Some(chosen) => chosen.clone(),
                None => {
                    let platforms = index.manifests.iter().filter_map(|manifest| manifest.platform.as_ref());
                    let offered = platforms.map(Platform::to_string).collect::<Vec<_>>().join(" ");
                    let name = descriptor.digest.to_string();
                    return Err(StoreError::NoPlatform { name, wanted: Box::new(wanted.clone()), offered });
                }
            };
        }
        Err(StoreError::TooDeep(descriptor.digest))
    }

    fn image_of(&self, descriptor: Descriptor, manifest: Manifest) -> Result<Image> {
        let config = self.config(&manifest.config.digest)?;
        let digest = descriptor.digest;
        config.check_belongs_to(&manifest).map_err(|source| StoreError::Manifest { digest, source })?;
        Ok(Image { descriptor, manifest, config })
    }

    /// Opens an image's layers. What is missing beside its blobs is made, which takes a writable store.
    ///
    /// # Errors
    /// A blob is missing or damaged, or a layer cannot be indexed.
    pub fn open_image(&self, image: &Image) -> Result<Opened> {
        let _held = self.hold()?;
        if let Some(opened) = self.open_merged(image) {
            return Ok(opened);
        }
        // Something is missing, damaged or of another version.
        match self.writer() {
            Ok(writer) => {
                writer.prepare_layers(image)?;
                writer.make_stack(image)?;
            }
            // The layers by themselves may do.
            Err(StoreError::ReadOnly(_)) => {}
            Err(error) => return Err(error),
        }
        if let Some(opened) = self.open_merged(image) {
            return Ok(opened);
        }
        let layers = self.all_layer_files(image.diff_ids())?;
        let layer = stack::open_merging(self.root(), &layers);
        let layer = layer.map_err(|source| StoreError::Layer { blob: image.chain_id(), source })?;
        Ok(Opened { layer: Arc::new(layer), _in_use: None })
    }

    /// Opens an image's layers over their merged index, if all of that is there: it tells whether they are whole.
    fn open_merged(&self, image: &Image) -> Option<Opened> {
        let (index, in_use) = self.open_stack(&image.chain_id())?;
        let layers = image.diff_ids().iter().map(|diff_id| self.layer_at(diff_id)).collect::<Option<Vec<_>>>()?;
        let layer = stack::open(&self.own.stack(&image.chain_id()), &layers, &index).ok()?;
        Some(Opened { layer: Arc::new(layer), _in_use: in_use })
    }

    /// The image whose layers a mount names as its source, if this store still has it.
    ///
    /// # Errors
    /// The images cannot be listed.
    pub fn image_of_source(&self, source: &Path) -> Result<Option<Image>> {
        for named in self.images()? {
            let descriptor = named.descriptor;
            let parts = match self.document(&descriptor) {
                Ok(Document::Index(index)) => index.manifests,
                Ok(Document::Manifest(_)) => vec![descriptor],
                // One that is damaged is not mounted.
                Err(_) => continue,
            };
            let images = parts.iter().filter_map(|part| self.image(part, &Platform::host()).ok());
            let found = images.into_iter().find(|image| self.own.stack(&image.chain_id()) == source);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Opens each of an image's layers by itself, the bottom one first; [`Store::open_image`] made what was missing.
    ///
    /// # Errors
    /// A layer is not there.
    pub fn open_layers(&self, image: &Image) -> Result<Vec<Arc<IndexedLayer>>> {
        let open = |files: LayerFiles| {
            let layer = files.layer().map_err(|source| StoreError::Layer { blob: files.diff_id, source })?;
            Ok(Arc::new(layer))
        };
        self.all_layer_files(image.diff_ids())?.into_iter().map(open).collect()
    }

    /// Opens the tar of one of an image's layers.
    ///
    /// # Errors
    /// It is not there and cannot be made.
    pub fn open_tar(&self, diff_id: &Digest, image: &Image) -> Result<File> {
        if self.layer_files(diff_id).is_none() {
            self.writer()?.prepare(image)?;
        }
        let files = self.layer_files(diff_id).ok_or(StoreError::NoLayer(*diff_id))?;
        File::open(&files.tar).map_err(at("open", &files.tar))
    }

    /// Layers in a stack, as they lie.
    fn all_layer_files(&self, diff_ids: &[Digest]) -> Result<Vec<LayerFiles>> {
        diff_ids.iter().map(|diff_id| self.layer_files(diff_id).ok_or(StoreError::NoLayer(*diff_id))).collect()
    }

    /// The merged index of a stack, and the lock that says that it is in use.
    fn open_stack(&self, chain_id: &Digest) -> Option<(OwnedFd, Option<File>)> {
        self.roots().find_map(|root| {
            let index = File::open(root.stack(chain_id)).ok()?;
            // On another's store, and where a filesystem has no locks, the image is just not known to be in use.
            let in_use =
                index.try_clone().ok().filter(|file| lock::try_lock(file, Mode::Shared).is_ok_and(|taken| taken));
            Some((index.into(), in_use))
        })
    }
}

impl Writer<'_> {
    /// Makes what an image is mounted from, as far as it is missing: nothing is left to do for its first mount.
    ///
    /// # Errors
    /// A blob is missing or damaged, or a layer cannot be indexed.
    pub fn prepare(&self, image: &Image) -> Result<()> {
        self.prepare_layers(image)?;
        let chain_id = image.chain_id();
        if self.store.roots().any(|root| root.stack(&chain_id).exists()) { Ok(()) } else { self.make_stack(image) }
    }

    fn prepare_layers(&self, image: &Image) -> Result<()> {
        image.layers().try_for_each(|layer| match self.is_present(&layer)? {
            true => Ok(()),
            false => Err(StoreError::NoBlob(layer.digest)),
        })
    }

    fn make_stack(&self, image: &Image) -> Result<()> {
        publish(&self.merge_layers(image.diff_ids())?, &self.store.own.stack(&image.chain_id()))
    }

    /// Makes the merged index of layers in staging.
    pub(super) fn merge_layers(&self, diff_ids: &[Digest]) -> Result<PathBuf> {
        let layers = self.store.all_layer_files(diff_ids)?;
        let built = stack::merged(&layers)?;
        let (path, file) = self.staging.file()?;
        write(&built, diff_ids, file).map_err(at("write", &path))?;
        Ok(path)
    }
}

fn write(built: &Built, diff_ids: &[Digest], file: File) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    built.write_stack(diff_ids, &mut file)?;
    file.flush()
}
