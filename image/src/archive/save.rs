//! From the store into an archive or a directory.
//!
//! The same images give the same bytes: nothing of the time or place of saving is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::{ArchiveError, Result};
use crate::Digest;
use crate::digest::{ALGORITHM, Verified};
use crate::manifest::{Descriptor, Document, Index, MAX_CONFIG, MAX_INDEX_DEPTH};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{IMAGE_NAME, REF_NAME, Store, StoreError};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An OCI layout in a tar, with Docker's `manifest.json` for older engines.
    Oci,
    /// Docker's archive, with plain layers.
    Docker,
}

/// Writes images as a tar; each under the names that are given with it.
///
/// # Errors
/// A blob is missing or damaged, or `out` fails.
pub fn save_archive(
    store: &Store,
    images: &[(Descriptor, Vec<Reference>)],
    format: Format,
    out: impl Write,
) -> Result<()> {
    let mut archive = Archive { builder: tar::Builder::new(out), written: BTreeSet::new() };
    match format {
        Format::Oci => archive.oci(store, images)?,
        Format::Docker => archive.docker(store, images)?,
    }
    let done = archive.builder.into_inner().and_then(|mut out| out.flush());
    done.map_err(|source| ArchiveError::Write { what: "the archive".to_owned(), source })
}

/// Writes images as an OCI layout into a directory, which is made or must be empty.
///
/// # Errors
/// As [`save_archive`].
pub fn save_dir(store: &Store, images: &[(Descriptor, Vec<Reference>)], dir: &Path) -> Result<()> {
    let failed = |path: &Path| {
        let what = path.display().to_string();
        move |source| ArchiveError::Write { what, source }
    };
    match fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if fs::read_dir(dir).map_err(failed(dir))?.next().is_some() {
                return Err(ArchiveError::NotEmpty(dir.to_owned()));
            }
        }
        made => made.map_err(failed(dir))?,
    }
    let blobs = dir.join("blobs").join(ALGORITHM);
    fs::create_dir_all(&blobs).map_err(failed(&blobs))?;
    for (digest, size) in all_blobs(store, images)? {
        let path = blobs.join(digest.hex());
        let mut file = File::create_new(&path).map_err(failed(&path))?;
        io::copy(&mut Verified::new(store.open_blob(&digest)?, digest, Some(size)), &mut file)
            .map_err(failed(&path))?;
    }
    // Last: before, it is no layout.
    for (name, bytes) in [("index.json", index_of(images)?), ("oci-layout", LAYOUT.to_vec())] {
        fs::write(dir.join(name), bytes).map_err(failed(&dir.join(name)))?;
    }
    Ok(())
}

/// What `oci-layout` says.
const LAYOUT: &[u8] = br#"{"imageLayoutVersion": "1.0.0"}"#;

struct Archive<W: Write> {
    builder: tar::Builder<W>,
    written: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    fn oci(&mut self, store: &Store, images: &[(Descriptor, Vec<Reference>)]) -> Result<()> {
        self.bytes("oci-layout", LAYOUT)?;
        self.bytes("index.json", &index_of(images)?)?;
        let mut items = Vec::new();
        for (descriptor, names) in images {
            // Engines that read it alone want the image for this host, if there is one.
            if let Ok(image) = store.image(descriptor, &Platform::host()) {
                items.push(item(
                    names,
                    &place(&image.id()),
                    image.manifest.layers.iter().map(|layer| place(&layer.digest)),
                ));
            }
        }
        self.bytes("manifest.json", Value::Array(items).to_string().as_bytes())?;
        for (digest, size) in all_blobs(store, images)? {
            self.file(&place(&digest), size, Verified::new(store.open_blob(&digest)?, digest, Some(size)))?;
        }
        Ok(())
    }

    fn docker(&mut self, store: &Store, images: &[(Descriptor, Vec<Reference>)]) -> Result<()> {
        let mut items = Vec::new();
        for (descriptor, names) in images {
            if matches!(store.document(descriptor)?, Document::Index(index) if index.manifests.len() > 1) {
                let name = names.first().map_or_else(|| descriptor.digest.to_string(), Reference::to_string);
                return Err(ArchiveError::SeveralPlatforms(name));
            }
            let image = store.image(descriptor, &Platform::host())?;
            let config = format!("{}.json", image.id().hex());
            let layer = |diff_id: &Digest| format!("{}.tar", diff_id.hex());
            self.bytes(&config, &store.read_blob("configuration", &image.id(), MAX_CONFIG)?)?;
            for diff_id in image.diff_ids() {
                let tar = store.open_tar(diff_id, &image)?;
                let size = tar.metadata().map_err(writing("the archive"))?.len();
                self.file(&layer(diff_id), size, Verified::new(tar, *diff_id, Some(size)))?;
            }
            items.push(item(names, &config, image.diff_ids().iter().map(layer)));
        }
        self.bytes("manifest.json", Value::Array(items).to_string().as_bytes())
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.file(name, bytes.len() as u64, bytes)
    }

    /// Adds a member, unless it is there.
    fn file(&mut self, name: &str, size: u64, data: impl Read) -> Result<()> {
        if !self.written.insert(name.to_owned()) {
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        self.builder.append_data(&mut header, name, data).map_err(writing(name))
    }
}

fn writing(what: &str) -> impl FnOnce(io::Error) -> ArchiveError + '_ {
    move |source| ArchiveError::Write { what: what.to_owned(), source }
}

/// An image of Docker's `manifest.json`.
fn item(names: &[Reference], config: &str, layers: impl Iterator<Item = String>) -> Value {
    let tag = |name: &Reference| format!("{}:{}", name.familiar_name(), name.tag().unwrap_or("latest"));
    json!({
        "Config": config,
        "RepoTags": names.iter().map(tag).collect::<Vec<_>>(),
        "Layers": layers.collect::<Vec<_>>(),
    })
}

/// The `index.json` of a layout: each image once for each of its names.
fn index_of(images: &[(Descriptor, Vec<Reference>)]) -> Result<Vec<u8>> {
    let mut manifests = Vec::new();
    for (descriptor, names) in images {
        let plain = Descriptor { annotations: BTreeMap::new(), ..descriptor.clone() };
        let named = |name: &Reference| {
            let annotations = [REF_NAME, IMAGE_NAME].map(|key| (key.to_owned(), name.to_string()));
            Descriptor { annotations: annotations.into(), ..plain.clone() }
        };
        match names.as_slice() {
            [] => manifests.push(plain),
            names => manifests.extend(names.iter().map(named)),
        }
    }
    serde_json::to_vec(&Index::new(manifests)).map_err(|error| writing("index.json")(error.into()))
}

/// All blobs of images with their sizes; of an index, of those images that are in the store.
fn all_blobs(store: &Store, images: &[(Descriptor, Vec<Reference>)]) -> Result<BTreeMap<Digest, u64>> {
    let mut blobs = BTreeMap::new();
    for (descriptor, _) in images {
        add_blobs(store, descriptor, 0, &mut blobs)?;
    }
    Ok(blobs)
}

fn add_blobs(store: &Store, descriptor: &Descriptor, depth: usize, blobs: &mut BTreeMap<Digest, u64>) -> Result<()> {
    let document = store.document(descriptor)?;
    blobs.insert(descriptor.digest, descriptor.size);
    match document {
        Document::Manifest(manifest) => {
            blobs.extend(manifest.layers.iter().chain([&manifest.config]).map(|blob| (blob.digest, blob.size)));
            Ok(())
        }
        Document::Index(_) if depth == MAX_INDEX_DEPTH => Err(StoreError::TooDeep(descriptor.digest).into()),
        Document::Index(index) => {
            let present = index.manifests.iter().filter(|manifest| store.has_blob(&manifest.digest));
            present.into_iter().try_for_each(|manifest| add_blobs(store, manifest, depth + 1, blobs))
        }
    }
}

/// Where a blob lies in a layout.
fn place(digest: &Digest) -> String {
    format!("blobs/{ALGORITHM}/{}", digest.hex())
}
