//! From an archive into the store.

use std::io::{self, Read};

use super::members::{Input, Member, Members};
use super::{ArchiveError, Result, docker, v1};
use crate::decompress::{Compression, peek};
use crate::digest::{Digest, Hasher, Mismatch};
use crate::manifest::{
    Descriptor, Document, ImageConfig, Index, MAX_CONFIG, MAX_INDEX_DEPTH, MAX_MANIFEST, Manifest, ManifestError, media,
};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Layer, LayerBlob, StoreError, Taken, Writer, name_of};

/// An image that has been loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image or index.
    pub descriptor: Descriptor,
    /// The names that it has been given.
    pub names: Vec<Reference>,
}

/// Loads all images of an archive, under the names that it gives them, or the only one under `tag`.
///
/// # Errors
/// Nothing is named in the store then, unless an image before has been.
pub fn load(writer: &Writer<'_>, input: Input, tag: Option<&Reference>) -> Result<Vec<Loaded>> {
    let members = Members::open(input, writer)?;
    let mut images = if members.get("oci-layout")?.is_some() {
        Oci { members: &members, writer }.images()?
    } else if members.get("manifest.json")?.is_some() {
        docker::images(&members, writer)?
    } else if members.get("repositories")?.is_some() {
        v1::images(&members, writer)?
    } else {
        return Err(ArchiveError::NoImage);
    };
    if images.is_empty() {
        return Err(ArchiveError::NoImage);
    }
    if let Some(tag) = tag {
        match images.as_mut_slice() {
            [image] => image.names = vec![tag.clone()],
            several => return Err(ArchiveError::SeveralImages(several.len())),
        }
    }
    for image in &images {
        // An index may be for other platforms alone.
        match writer.store().image(&image.descriptor, &Platform::host()) {
            Err(StoreError::NoPlatform { .. } | StoreError::NoBlob(_)) => {}
            found => writer.prepare(&found?)?,
        }
        match image.names.as_slice() {
            [] => writer.add_unnamed(&image.descriptor)?,
            names => names.iter().try_for_each(|name| writer.tag(name, &image.descriptor))?,
        }
    }
    Ok(images)
}

/// Adds an image whose layers are in the store.
pub(super) fn add_image(writer: &Writer<'_>, config: &[u8], layers: &[Layer]) -> Result<Descriptor> {
    let config = writer.put(media::CONFIG, config)?;
    let manifest = Manifest::new(config, layers.iter().map(Layer::descriptor).collect());
    put_json(writer, media::MANIFEST, &manifest)
}

/// Adds a document that is made here.
pub(super) fn put_json(writer: &Writer<'_>, kind: &str, value: &impl serde::Serialize) -> Result<Descriptor> {
    let failed = |error: serde_json::Error| ArchiveError::Write { what: kind.to_owned(), source: error.into() };
    Ok(writer.put(kind, &serde_json::to_vec(value).map_err(failed)?)?)
}

/// Takes in a layer that the archive names by its place alone.
pub(super) fn take_layer(writer: &Writer<'_>, members: &Members, name: &str, diff_id: Digest) -> Result<Layer> {
    let Member { size, data } = members.need(name)?;
    let (head, data) = peek(data).map_err(ArchiveError::Read)?;
    let compression = Compression::of(&head);
    let digest = match compression {
        // The tar itself.
        Compression::Plain => diff_id,
        _ => {
            let mut hasher = Hasher::new();
            io::copy(&mut members.need(name)?.data, &mut hasher).map_err(ArchiveError::Read)?;
            hasher.finish()
        }
    };
    if compression.media_suffix().is_none() {
        // Images have none such: it is stored as the tar that is in it.
        let source = crate::decompress::Decompressed::new(data, crate::decompress::Expansion::default());
        let layer = writer.new_layer(source.map_err(ArchiveError::Read)?)?;
        return match layer.blob.diff_id {
            found if found == diff_id => Ok(layer),
            found => Err(StoreError::DiffId { blob: digest, expected: diff_id, found }.into()),
        };
    }
    let blob = LayerBlob { digest, size, diff_id };
    take(writer, &blob, data)?;
    Ok(Layer { blob, compression })
}

fn take(writer: &Writer<'_>, blob: &LayerBlob, mut data: impl Read + Send) -> Result<()> {
    if let Taken::Wanted(ingest) = writer.layer(blob)? {
        io::copy(&mut data.by_ref().take(ingest.received()), &mut io::sink()).map_err(ArchiveError::Read)?;
        ingest.run(writer, data)?;
    }
    Ok(())
}

/// An OCI layout.
struct Oci<'a> {
    members: &'a Members,
    writer: &'a Writer<'a>,
}

impl Oci<'_> {
    fn images(&self) -> Result<Vec<Loaded>> {
        let name = "index.json";
        let bytes =
            self.members.read("index", name, MAX_MANIFEST)?.ok_or_else(|| ArchiveError::Missing(name.to_owned()))?;
        let failed = |source| ArchiveError::Document { name: name.to_owned(), source };
        let Document::Index(Index { manifests, .. }) = Document::parse(&bytes, Some(media::INDEX)).map_err(failed)?
        else {
            return Err(failed(ManifestError::Confused("index.json is an image".to_owned())));
        };
        let mut loaded: Vec<Loaded> = Vec::new();
        for mut descriptor in manifests {
            let name = name_of(&descriptor.annotations);
            descriptor.annotations.clear();
            if let Some(known) = loaded.iter_mut().find(|known| known.descriptor.digest == descriptor.digest) {
                known.names.extend(name);
                continue;
            }
            if self.copy(&descriptor, 0)? {
                loaded.push(Loaded { descriptor, names: name.into_iter().collect() });
            }
        }
        Ok(loaded)
    }

    /// Copies what a descriptor leads to; false if it is no image, but for instance an attestation.
    fn copy(&self, descriptor: &Descriptor, depth: usize) -> Result<bool> {
        let name = place(&descriptor.digest);
        let failed = |source| ArchiveError::Document { name: name.clone(), source };
        let bytes = self.blob("manifest", descriptor, MAX_MANIFEST)?;
        match Document::parse(&bytes, Some(&descriptor.media_type).filter(|kind| !kind.is_empty()).map(String::as_str))
        {
            Err(ManifestError::MediaType(_)) => return Ok(false),
            Err(error) => return Err(failed(error)),
            Ok(Document::Index(_)) if depth == MAX_INDEX_DEPTH => {
                return Err(StoreError::TooDeep(descriptor.digest).into());
            }
            Ok(Document::Index(index)) => {
                for manifest in &index.manifests {
                    // Archives of an index often hold the image of one platform.
                    if self.members.get(&place(&manifest.digest))?.is_some() {
                        self.copy(manifest, depth + 1)?;
                    }
                }
            }
            Ok(Document::Manifest(manifest)) => {
                let config = self.blob("configuration", &manifest.config, MAX_CONFIG)?;
                let parsed = ImageConfig::parse(&config).map_err(failed)?;
                parsed.check_belongs_to(&manifest).map_err(failed)?;
                for (layer, diff_id) in manifest.layers.iter().zip(&parsed.rootfs.diff_ids) {
                    let blob = LayerBlob { digest: layer.digest, size: layer.size, diff_id: *diff_id };
                    let Member { size: found, data } = self.members.need(&place(&layer.digest))?;
                    if found != layer.size {
                        let (digest, expected) = (layer.digest, layer.size);
                        return Err(StoreError::from(Mismatch::Size { digest, expected, found }).into());
                    }
                    take(self.writer, &blob, data)?;
                }
                self.writer.put(&manifest.config.media_type, &config)?;
            }
        }
        self.writer.put(&descriptor.media_type, &bytes)?;
        Ok(true)
    }

    /// Reads a small blob and checks it.
    fn blob(&self, what: &'static str, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let name = place(&descriptor.digest);
        let bytes = self.members.read(what, &name, limit)?.ok_or(ArchiveError::Missing(name))?;
        let mut hasher = Hasher::new();
        hasher.update(&bytes);
        let checked = crate::digest::check(hasher, &descriptor.digest, Some(descriptor.size));
        checked.map_err(StoreError::from)?;
        Ok(bytes)
    }
}

/// Where a blob lies in a layout.
fn place(digest: &Digest) -> String {
    format!("blobs/{}/{}", crate::digest::ALGORITHM, digest.hex())
}
