//! `index.json`: which images there are, and their names.
//!
//! An image stands there once for each of its names, as OCI tools have it: `org.opencontainers.image.ref.name` holds
//! the complete name, so that two repositories may have the same tag, and `io.containerd.image.name` repeats it for
//! those who look there. An image without a name stands there once.

use std::collections::BTreeMap;

use super::error::{Result, StoreError, at};
use super::lock::{self, Mode};
use super::staging::{Staging, sync_dir};
use super::{Root, Store, Writer, blob};
use crate::Digest;
use crate::manifest::{Descriptor, Document, Index, MAX_MANIFEST, ManifestError, media};
use crate::reference::Reference;

/// Annotation of the OCI image layout: a name within the layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of containerd and Docker: a complete name.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// The registry of images that were made here and bear a bare name.
const LOCAL: &str = "localhost/";

/// An entry of `index.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The image or index, with the annotations of the entry.
    pub descriptor: Descriptor,
    /// Its name, unless it has lost it.
    pub name: Option<Reference>,
    /// Whether it lies in another store than the own one.
    pub additional: bool,
}

impl Named {
    fn new(descriptor: Descriptor, additional: bool) -> Self {
        let name = name_of(&descriptor.annotations);
        Self { descriptor, name, additional }
    }

    /// Whether `text` is its name, in full or as short as it is understood, rather than its id.
    pub fn is_called(&self, text: &str) -> bool {
        self.rank(text).is_some()
    }

    /// How well `text` fits as its name; less is better.
    fn rank(&self, text: &str) -> Option<u8> {
        if self.descriptor.annotations.get(REF_NAME).is_some_and(|name| name == text) {
            return Some(0);
        }
        let name = self.name.as_ref()?;
        let fits = |wanted: Reference| match wanted.digest() {
            None => *name == wanted,
            Some(digest) => name.name() == wanted.name() && self.descriptor.digest == *digest,
        };
        let complete = text.parse().is_ok_and(fits);
        let local = || format!("{LOCAL}{text}").parse().is_ok_and(fits);
        if complete { Some(1) } else { local().then_some(2) }
    }
}

/// The name that the annotations of an entry give an image.
pub(crate) fn name_of(annotations: &BTreeMap<String, String>) -> Option<Reference> {
    let complete = annotations.get(IMAGE_NAME).and_then(|name| name.parse::<Reference>().ok());
    complete.or_else(|| {
        let name = annotations.get(REF_NAME)?;
        // A bare word is a name for this layout alone.
        let local = !name.contains(['/', ':']);
        if local { format!("{LOCAL}{name}").parse().ok() } else { name.parse().ok() }
    })
}

/// An `index.json` of no images.
pub(super) fn create(root: &Root, staging: &Staging) -> Result<()> {
    staging.publish_bytes(&encode(&Index::new(Vec::new()))?, &root.index())
}

fn encode(index: &Index) -> Result<Vec<u8>> {
    let failed = |source| StoreError::Stream { what: "index.json".to_owned(), source };
    serde_json::to_vec(index).map_err(|error| failed(error.into()))
}

impl Root {
    fn read_index(&self) -> Result<Index> {
        let path = self.index();
        let bytes = blob::read_bounded(&path, MAX_MANIFEST)?;
        let read = Document::parse(&bytes, Some(media::INDEX));
        match read {
            Ok(Document::Index(index)) => Ok(index),
            Ok(Document::Manifest(_)) => {
                let source = ManifestError::Confused("index.json is an image".to_owned());
                Err(StoreError::Layout { path, source })
            }
            Err(source) => Err(StoreError::Layout { path, source }),
        }
    }
}

impl Store {
    /// All images, those of the own store first.
    ///
    /// # Errors
    /// An `index.json` cannot be read.
    pub fn images(&self) -> Result<Vec<Named>> {
        let mut images = Vec::new();
        for (number, root) in self.roots().enumerate() {
            let found = root.read_index()?.manifests.into_iter();
            images.extend(found.map(|descriptor| Named::new(descriptor, number > 0)));
        }
        Ok(images)
    }

    /// Finds an image by its name, by `NAME@DIGEST`, or by the first digits of its id or digest.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn find(&self, text: &str) -> Result<Named> {
        let images = self.images()?;
        let named = images.iter().filter_map(|image| Some((image.rank(text)?, image)));
        if let Some((_, found)) = named.min_by_key(|(rank, _)| *rank) {
            return Ok(found.clone());
        }
        // Pulled by its digest, an image has no name; and what it is called elsewhere does not change it.
        let digest = text.parse().ok().and_then(|wanted: Reference| wanted.digest().copied());
        let bound = images.iter().find(|image| Some(image.descriptor.digest) == digest);
        bound.map_or_else(|| self.find_by_id(text, &images), |found| Ok(found.clone()))
    }

    fn find_by_id(&self, text: &str, images: &[Named]) -> Result<Named> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_id = (1..=64).contains(&digits.len()) && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut found: Option<(Digest, &Named)> = None;
        for image in images.iter().filter(|_| is_id) {
            let digest = image.descriptor.digest;
            let id = self.ids_of(&image.descriptor).into_iter().find(|id| id.hex().starts_with(digits));
            let Some(id) = id else { continue };
            match found {
                Some((known, other)) if known != id && other.descriptor.digest != digest => {
                    return Err(StoreError::Ambiguous(text.to_owned()));
                }
                Some(_) => {}
                None => found = Some((id, image)),
            }
        }
        found.map(|(_, image)| image.clone()).ok_or_else(|| StoreError::NoImage(text.to_owned()))
    }

    /// The digests that an entry may be called by.
    fn ids_of(&self, descriptor: &Descriptor) -> Vec<Digest> {
        let config = match self.document(descriptor) {
            Ok(Document::Manifest(manifest)) => Some(manifest.config.digest),
            Ok(Document::Index(_)) => {
                let host = crate::platform::Platform::host();
                self.image(descriptor, &host).ok().map(|image| image.id())
            }
            // One that cannot be read can still be named, to be removed.
            Err(_) => None,
        };
        [Some(descriptor.digest), config].into_iter().flatten().collect()
    }
}

/// Changes `index.json`, alone; `change` says whether there is something to write.
pub(super) fn edit<T>(
    root: &Root,
    staging: &Staging,
    change: impl FnOnce(&mut Vec<Descriptor>) -> (bool, T),
) -> Result<T> {
    let path = root.join("index.lock");
    let file = lock::open(&path).map_err(at("open", &path))?;
    lock::lock(&file, Mode::Exclusive).map_err(at("lock", &path))?;
    let mut index = root.read_index()?;
    let (changed, result) = change(&mut index.manifests);
    if changed {
        let bytes = encode(&index)?;
        let (what, found, limit) = ("index.json", bytes.len() as u64, MAX_MANIFEST);
        if found > limit {
            let source = ManifestError::TooLong { what, found, limit };
            return Err(StoreError::Layout { path: root.index(), source });
        }
        // Blobs lie on the disk before they get their name; their names come before those of the images that need them.
        sync_dir(&root.by_digest_dir("blobs"))?;
        staging.publish_bytes(&bytes, &root.index())?;
        sync_dir(&root.0)?;
    }
    Ok(result)
}

impl Writer<'_> {
    fn edit<T>(&self, change: impl FnOnce(&mut Vec<Descriptor>) -> (bool, T)) -> Result<T> {
        edit(&self.store.own, &self.staging, change)
    }

    /// Gives an image or index, whose blobs are all there, a name; an image that had it keeps its place without one.
    ///
    /// # Errors
    /// The name is bound to a digest, or `index.json` cannot be written.
    pub fn tag(&self, name: &Reference, target: &Descriptor) -> Result<()> {
        if name.digest().is_some() {
            return Err(StoreError::Tag(Box::new(name.clone())));
        }
        self.edit(|entries| {
            let mut entry = target.clone();
            entry.annotations.insert(REF_NAME.to_owned(), name.to_string());
            entry.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
            if entries.contains(&entry) {
                return (false, ());
            }
            take_name(entries, name);
            // Named now: the place without a name is no longer needed.
            entries.retain(|other| other.digest != entry.digest || name_of(&other.annotations).is_some());
            entries.push(entry);
            (true, ())
        })
    }

    /// Adds an image or index that has no name, unless it is there.
    ///
    /// # Errors
    /// `index.json` cannot be written.
    pub fn add_unnamed(&self, target: &Descriptor) -> Result<()> {
        self.edit(|entries| {
            let known = entries.iter().any(|entry| entry.digest == target.digest);
            if !known {
                entries.push(without_name(target.clone()));
            }
            (!known, ())
        })
    }

    /// Takes a name away; an image whose last one it was keeps its place without one. Says whether it was there.
    ///
    /// # Errors
    /// `index.json` cannot be written.
    pub fn untag(&self, name: &Reference) -> Result<bool> {
        self.edit(|entries| {
            let found = take_name(entries, name);
            (found, found)
        })
    }

    /// Takes an image out of `index.json` with all its names, which are returned; its blobs go when the store is
    /// pruned.
    ///
    /// # Errors
    /// `index.json` cannot be written.
    pub fn remove(&self, digest: &Digest) -> Result<Vec<Reference>> {
        self.edit(|entries| {
            let names = entries.iter().filter(|entry| entry.digest == *digest);
            let names: Vec<_> = names.filter_map(|entry| name_of(&entry.annotations)).collect();
            let before = entries.len();
            entries.retain(|entry| entry.digest != *digest);
            (entries.len() < before, names)
        })
    }
}

/// Removes a name from whoever has it.
fn take_name(entries: &mut Vec<Descriptor>, name: &Reference) -> bool {
    let (having, mut others): (Vec<_>, Vec<_>) =
        std::mem::take(entries).into_iter().partition(|entry| name_of(&entry.annotations).as_ref() == Some(name));
    let found = !having.is_empty();
    for entry in having {
        if !others.iter().any(|other| other.digest == entry.digest) {
            others.push(without_name(entry));
        }
    }
    *entries = others;
    found
}

fn without_name(mut entry: Descriptor) -> Descriptor {
    entry.annotations.remove(REF_NAME);
    entry.annotations.remove(IMAGE_NAME);
    entry
}
