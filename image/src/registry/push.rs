//! From the store to a registry.

use std::collections::{BTreeMap, BTreeSet};

use super::Registries;
use super::client::Client;
use super::error::RegistryError;
use super::fetch::is_foreign;
use super::transfer::{Progress, Step, TransferError, each};
use super::upload::{Blob, Pushed};
use crate::digest::{Digest, Mismatch};
use crate::manifest::{Descriptor, Document, Index, MAX_INDEX_DEPTH, MAX_MANIFEST, Manifest, ManifestError};
use crate::reference::Reference;
use crate::store::{Named, Store};

/// A manifest or index that is sent after everything that it names.
struct Paper {
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

/// All that is to be sent.
#[derive(Default)]
struct Load {
    blobs: BTreeMap<Digest, Descriptor>,
    /// In the order in which they are sent.
    papers: Vec<Paper>,
    /// What became of each document: an index may name one many times.
    known: BTreeMap<Digest, Option<Descriptor>>,
}

impl Registries {
    /// Pushes an image, or an index with those of its images that are in the store, and names it there. Returns
    /// what it is there: of an index whose images are not all in the store, one of those that are.
    ///
    /// # Errors
    /// The registry or the store fails, or the store lacks something.
    pub fn push(
        &self,
        store: &Store,
        image: &Named,
        to: &Reference,
        progress: Progress<'_>,
    ) -> Result<Descriptor, TransferError> {
        let client = self.destination(to)?;
        let mut load = Load::default();
        let top = load.add(store, &image.descriptor, 0)?.ok_or_else(|| TransferError::Hollow(to.to_string()))?;
        if let Some(expected) = to.digest().filter(|digest| **digest != top.digest) {
            let source = Mismatch::Digest { expected: *expected, found: top.digest };
            return Err(RegistryError::Mismatch { name: to.to_string(), source }.into());
        }
        let sources = sources(store, to);
        let blobs: Vec<&Descriptor> = load.blobs.values().collect();
        blobs.iter().for_each(|blob| progress(&blob.digest, Step::Needed(blob.size)));
        each(&blobs, self.options.jobs, |blob| self.push_blob(&client, store, blob, &sources, progress))?;
        for paper in &load.papers {
            let is_top = paper.descriptor.digest == top.digest;
            let by_digest = paper.descriptor.digest.to_string();
            let target = if is_top { to.tag().unwrap_or(&by_digest) } else { &by_digest };
            client.push_manifest(target, &paper.descriptor.media_type, &paper.bytes)?;
        }
        Ok(top)
    }

    fn push_blob(
        &self,
        client: &Client,
        store: &Store,
        descriptor: &Descriptor,
        sources: &BTreeMap<Digest, BTreeSet<String>>,
        progress: Progress<'_>,
    ) -> Result<(), TransferError> {
        let digest = descriptor.digest;
        let file = store.open_blob(&digest)?;
        let found = file.metadata().map_err(|source| RegistryError::Local { digest, source })?.len();
        if found != descriptor.size {
            let source = Mismatch::Size { digest, expected: descriptor.size, found };
            return Err(RegistryError::Mismatch { name: "the store".to_owned(), source }.into());
        }
        let sources: Vec<String> = sources.get(&digest).into_iter().flatten().cloned().collect();
        let sent = |count| progress(&digest, Step::Moved(count));
        let begun = || progress(&digest, Step::Begun(0));
        let blob = Blob { descriptor, file: &file, begun: &begun, sent: &sent };
        let step = match client.push_blob(&blob, &sources, self.options.chunk)? {
            Pushed::Present => Step::Present,
            Pushed::Mounted => Step::Mounted,
            Pushed::Sent => Step::Done,
        };
        progress(&digest, step);
        Ok(())
    }
}

impl Load {
    /// Adds a document and what it names, before it; `None` for an index that nothing is there of.
    fn add(
        &mut self,
        store: &Store,
        descriptor: &Descriptor,
        depth: usize,
    ) -> Result<Option<Descriptor>, TransferError> {
        if let Some(known) = self.known.get(&descriptor.digest) {
            return Ok(known.clone());
        }
        let bytes = store.read_blob("manifest", &descriptor.digest, MAX_MANIFEST)?;
        let sent = match store.document(descriptor)? {
            Document::Manifest(manifest) => {
                self.add_blobs(&manifest);
                Some(self.paper(&manifest.media_type, bytes))
            }
            Document::Index(_) if depth == MAX_INDEX_DEPTH => {
                return Err(TransferError::TooDeep(descriptor.digest.to_string()));
            }
            Document::Index(index) => self.add_index(store, index, bytes, depth)?,
        };
        self.known.insert(descriptor.digest, sent.clone());
        Ok(sent)
    }

    /// An index as it is if all its images are there; else one of those that are, or the only one itself.
    fn add_index(
        &mut self,
        store: &Store,
        mut index: Index,
        bytes: Vec<u8>,
        depth: usize,
    ) -> Result<Option<Descriptor>, TransferError> {
        let mut kept = Vec::new();
        for child in &index.manifests {
            if store.has_blob(&child.digest)
                && let Some(sent) = self.add(store, child, depth + 1)?
            {
                kept.push(if sent.digest == child.digest {
                    child.clone()
                } else {
                    Descriptor { platform: child.platform.clone(), ..sent }
                });
            }
        }
        if kept == index.manifests {
            return Ok(Some(self.paper(&index.media_type, bytes)));
        }
        match kept.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only.clone())),
            _ => {
                index.manifests = kept;
                let written = serde_json::to_vec(&index).map_err(|error| RegistryError::Manifest {
                    name: Digest::of(&bytes).to_string(),
                    source: ManifestError::Malformed("index", error),
                });
                Ok(Some(self.paper(&index.media_type, written?)))
            }
        }
    }

    fn paper(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        self.papers.push(Paper { descriptor: descriptor.clone(), bytes });
        descriptor
    }

    fn add_blobs(&mut self, manifest: &Manifest) {
        // What must not be distributed stays where its manifest says that it lies.
        let layers = manifest.layers.iter().filter(|layer| !(is_foreign(layer) && layer.other.contains_key("urls")));
        for blob in layers.chain([&manifest.config]) {
            self.blobs.insert(blob.digest, blob.clone());
        }
    }
}

/// Other repositories of the same registry that ought to have a blob: those that images in the store are named by.
fn sources(store: &Store, to: &Reference) -> BTreeMap<Digest, BTreeSet<String>> {
    let mut found: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    // It is but a hint: images that cannot be read give none.
    for image in store.images().unwrap_or_default() {
        let Some(name) = image.name.filter(|name| name.registry() == to.registry()) else { continue };
        if name.repository() == to.repository() {
            continue;
        }
        let mut load = Load::default();
        if load.add(store, &image.descriptor, 0).is_ok() {
            for digest in load.blobs.keys() {
                found.entry(*digest).or_default().insert(name.repository().to_owned());
            }
        }
    }
    found
}
