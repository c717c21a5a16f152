//! Reading everything again.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::blob::open_regular;
use super::error::{Result, StoreError, at};
use super::image::Image;
use super::ingest::write_index;
use super::names::Named;
use super::staging::publish;
use super::{Store, Writer};
use crate::digest::{ALGORITHM, Digest, Hasher, Verified};
use crate::index::{self, Limits};
use crate::manifest::{Descriptor, Document, MAX_INDEX_DEPTH, ManifestError};

/// Something in the store that is not as it must be.
#[derive(Debug)]
pub struct Fault {
    /// What it is.
    pub object: Object,
    /// What is wrong with it.
    pub problem: String,
    /// Whether it is right now: what is made of blobs is made again.
    pub repaired: bool,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A blob.
    Blob(Digest),
    /// A layer, by its diffID.
    Layer(Digest),
    /// The merged index of a stack.
    Stack(Digest),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::Layer(digest) => write!(f, "layer {digest}"),
            Self::Stack(digest) => write!(f, "index of the stack {digest}"),
        }
    }
}

/// What reading everything again has shown.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Blobs that were read.
    pub blobs: usize,
    /// Layers that were read.
    pub layers: usize,
    /// What is not as it must be.
    pub faults: Vec<Fault>,
}

/// What is to be read.
#[derive(Default)]
struct Scope {
    blobs: BTreeSet<Digest>,
    images: Vec<Image>,
    layers: BTreeSet<Digest>,
}

impl Store {
    /// Reads again what belongs to `images`, or everything in the own store: each blob against its digest, each
    /// layer against its diffID, each index against its tar. What is made of blobs is made again where it is wrong; a
    /// wrong blob is removed if `remove` says so.
    ///
    /// # Errors
    /// The store cannot be read or written; what is wrong in it is no error.
    pub fn verify(&self, images: Option<&[Named]>, remove: bool) -> Result<Verdict> {
        let writer = self.writer()?;
        let mut verdict = Verdict::default();
        let mut scope = Scope::default();
        let all = self.images()?;
        let own = |image: &&Named| images.is_some() || !image.additional;
        for image in images.unwrap_or(&all).iter().filter(own) {
            self.add_document(&image.descriptor, 0, &mut scope, &mut verdict);
        }
        if images.is_none() {
            scope.blobs.extend(digests_in(&self.own.join("blobs"))?);
            scope.layers.extend(digests_in(&self.own.join("layers"))?);
        }
        for digest in &scope.blobs {
            verdict.blobs += 1;
            if let Err(problem) = self.check_blob(digest) {
                if remove {
                    fs::remove_file(self.own.blob(digest)).map_err(at("unlink", &self.own.blob(digest)))?;
                }
                verdict.faults.push(Fault { object: Object::Blob(*digest), problem, repaired: false });
            }
        }
        for diff_id in &scope.layers {
            verdict.layers += 1;
            let place = self.own.layer(diff_id);
            if !place.exists() {
                continue;
            }
            if let Err(problem) = writer.check_layer(diff_id, &place)? {
                let blob = scope.images.iter().flat_map(Image::layers).find(|layer| layer.diff_id == *diff_id);
                let repaired = blob.is_none_or(|blob| writer.is_present(&blob).is_ok_and(|present| present));
                verdict.faults.push(Fault { object: Object::Layer(*diff_id), problem, repaired });
            }
        }
        for image in &scope.images {
            if let Some(fault) = writer.check_stack(image)? {
                verdict.faults.push(fault);
            }
        }
        Ok(verdict)
    }

    /// Adds a document and all that it names to the scope; what is missing of it is a fault.
    fn add_document(&self, descriptor: &Descriptor, depth: usize, scope: &mut Scope, verdict: &mut Verdict) {
        let mut fault = |digest: Digest, problem: String| {
            verdict.faults.push(Fault { object: Object::Blob(digest), problem, repaired: false });
        };
        if self.has_blob(&descriptor.digest) {
            scope.blobs.insert(descriptor.digest);
        }
        match self.document(descriptor) {
            // No image, but for instance an attestation: right if its blob is.
            Err(StoreError::Manifest { source: ManifestError::MediaType(_), .. }) => {}
            Err(error) => fault(descriptor.digest, error.to_string()),
            Ok(Document::Index(_)) if depth == MAX_INDEX_DEPTH => {
                fault(descriptor.digest, StoreError::TooDeep(descriptor.digest).to_string());
            }
            Ok(Document::Index(index)) => {
                // Images of other platforms need not be here.
                for manifest in index.manifests.iter().filter(|manifest| self.has_blob(&manifest.digest)) {
                    self.add_document(manifest, depth + 1, scope, verdict);
                }
            }
            Ok(Document::Manifest(manifest)) => {
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    if !scope.blobs.contains(&blob.digest) && !self.has_blob(&blob.digest) {
                        fault(blob.digest, "is missing".to_owned());
                    } else {
                        scope.blobs.insert(blob.digest);
                    }
                }
                if let Ok(image) = self.image(descriptor, &crate::platform::Platform::host()) {
                    scope.layers.extend(image.diff_ids());
                    scope.images.push(image);
                }
            }
        }
    }

    /// Reads a blob against its digest; says what is wrong with it.
    pub(super) fn check_blob(&self, digest: &Digest) -> Result<(), String> {
        let blob = self.open_blob(digest).map_err(|error| error.to_string())?;
        let read = io::copy(&mut Verified::new(blob, *digest, None), &mut io::sink());
        read.map(drop).map_err(|error| error.to_string())
    }
}

impl Writer<'_> {
    /// Reads a layer's tar again, and compares what would be its index. A wrong index is replaced, a wrong layer
    /// removed.
    fn check_layer(&self, diff_id: &Digest, place: &Path) -> Result<Result<(), String>> {
        let index = place.join("index");
        match read_layer(&place.join("tar"), diff_id) {
            Ok(built) => {
                let made = self.staging.path();
                write_index(&built, diff_id, &made)?;
                if same(&made, &index).unwrap_or(false) {
                    return Ok(Ok(()));
                }
                publish(&made, &index)?;
                Ok(Err("its index was not that of its tar".to_owned()))
            }
            Err(problem) => {
                publish(place, &self.staging.path())?;
                Ok(Err(problem))
            }
        }
    }

    /// Makes the merged index of an image again, and compares it.
    fn check_stack(&self, image: &Image) -> Result<Option<Fault>> {
        let chain_id = image.chain_id();
        let place = self.store.own.stack(&chain_id);
        let complete = image.diff_ids().iter().all(|diff_id| self.store.layer_files(diff_id).is_some());
        if !complete || !place.exists() {
            return Ok(None);
        }
        let made = self.merge_layers(image.diff_ids())?;
        if same(&made, &place).unwrap_or(false) {
            return Ok(None);
        }
        publish(&made, &place)?;
        let problem = "was not that of its layers".to_owned();
        Ok(Some(Fault { object: Object::Stack(chain_id), problem, repaired: true }))
    }
}

fn read_layer(tar: &Path, diff_id: &Digest) -> Result<index::Built, String> {
    let file = open_regular(tar).map_err(|error| format!("its tar: {error}"))?;
    let mut tee = Tee { file, hasher: Hasher::new() };
    let built = index::build(&mut tee, &Limits::default());
    io::copy(&mut tee, &mut io::sink()).map_err(|error| error.to_string())?;
    match tee.hasher.finish() {
        found if found != *diff_id => Err(format!("its tar has the digest {found}")),
        _ => built.map_err(|error| error.to_string()),
    }
}

struct Tee {
    file: File,
    hasher: Hasher,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Whether two files hold the same.
fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let hash = |path: &Path| {
        let mut hasher = Hasher::new();
        io::copy(&mut open_regular(path)?, &mut hasher)?;
        Ok::<Digest, io::Error>(hasher.finish())
    };
    Ok(hash(one)? == hash(other)?)
}

/// The digests that name something in `blobs` or `layers`.
fn digests_in(dir: &Path) -> Result<Vec<Digest>> {
    let dir = dir.join(ALGORITHM);
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).map_err(at("list", &dir))? {
        let name = entry.map_err(at("list", &dir))?.file_name();
        found.extend(name.to_str().and_then(|name| Digest::from_hex(name).ok()));
    }
    Ok(found)
}
