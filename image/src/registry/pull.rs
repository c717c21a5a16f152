//! From a registry into the store.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::Read as _;

use super::Registries;
use super::client::Client;
use super::error::RegistryError;
use super::fetch::Fetched;
use super::transfer::{Progress, Step, Told, TransferError, each};
use crate::digest::{Digest, Mismatch, Verified};
use crate::manifest::{
    Descriptor, Document, ImageConfig, Index, MAX_CONFIG, MAX_IMAGES, MAX_INDEX_DEPTH, Manifest, ManifestError,
};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{LayerBlob, Store, StoreError, Taken, Writer};

/// Which images of several under one name are pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The one for this host.
    Host,
    /// The one for another platform; the name is its alone from then on.
    Platform(Platform),
    /// All of them.
    All,
}

/// Where a name leads on its registry.
struct Source<'a> {
    name: String,
    /// Who gave the manifest, and who is asked for what is missing there.
    clients: &'a [Client],
}

/// A layer, and how its manifest names it.
struct Part {
    descriptor: Descriptor,
    blob: LayerBlob,
}

impl Registries {
    /// Pulls an image into the store and names it there. What was there before stays as it is until all is there.
    /// Returns what the name leads to: of several images under one name their index, though only the wanted
    /// ones are pulled; or the one that was asked for by its platform.
    ///
    /// # Errors
    /// The registry or the store fails, or there is no such image. What came of layers is kept for the next time.
    pub fn pull(
        &self,
        store: &Store,
        reference: &Reference,
        wanted: &Wanted,
        progress: Progress<'_>,
    ) -> Result<Descriptor, TransferError> {
        let clients = self.sources(reference)?;
        let (first, place) = resolve(&clients, reference)?;
        let source = Source { name: reference.to_string(), clients: clients.get(place..).unwrap_or_default() };
        // Nothing that is not named yet is removed while this lives.
        let writer = store.writer()?;
        let (top, images) = source.images(&writer, first, wanted)?;
        let mut parts: Vec<Part> = Vec::new();
        for (_, manifest) in &images {
            parts.extend(source.layers(&writer, manifest, wanted)?);
        }
        let mut seen = BTreeSet::new();
        parts.retain(|part| seen.insert(part.blob.digest));
        parts.iter().for_each(|part| progress(&part.blob.digest, Step::Needed(part.blob.size)));
        each(&parts, self.options.jobs, |part| source.layer(&writer, part, progress))?;
        for (descriptor, _) in &images {
            writer.prepare(&store.image(descriptor, &Platform::host())?)?;
        }
        match reference.digest() {
            None => writer.tag(reference, &top)?,
            Some(_) => writer.add_unnamed(&top)?,
        }
        Ok(top)
    }
}

/// Asks everyone in turn for a name; the first one that has it counts.
fn resolve(clients: &[Client], reference: &Reference) -> Result<(Fetched, usize), RegistryError> {
    let mut failures = Vec::new();
    for (place, client) in clients.iter().enumerate() {
        match client.manifest(&reference.to_string(), &reference.target(), None) {
            Ok(fetched) => return Ok((fetched, place)),
            Err(error) => failures.push(error),
        }
    }
    let last = failures.pop().unwrap_or_else(|| RegistryError::NoImage(reference.to_string()));
    match failures.is_empty() {
        true => Err(last),
        false => Err(RegistryError::Mirrors { mirrors: failures, last: Box::new(last) }),
    }
}

impl Source<'_> {
    /// Asks everyone in turn, as far as one does not have what another may.
    fn ask<T>(&self, action: impl Fn(&Client) -> Result<T, TransferError>) -> Result<T, TransferError> {
        let mut result = Err(RegistryError::NoImage(self.name.clone()).into());
        for client in self.clients {
            result = action(client);
            match &result {
                Err(TransferError::Registry(RegistryError::NoBlob { .. } | RegistryError::NoImage(_))) => {}
                _ => break,
            }
        }
        result
    }

    /// The images that are wanted, and what the name is to lead to.
    fn images(
        &self,
        writer: &Writer<'_>,
        top: Fetched,
        wanted: &Wanted,
    ) -> Result<(Descriptor, Vec<(Descriptor, Manifest)>), TransferError> {
        let mut images = Vec::new();
        let named = top.descriptor.clone();
        // One document may be named many times, and lead to many in its turn.
        let mut seen = BTreeSet::from([named.digest]);
        let mut todo = vec![(top, 0)];
        while let Some((fetched, depth)) = todo.pop() {
            writer.put(&fetched.descriptor.media_type, &fetched.bytes)?;
            let index = match fetched.document {
                Document::Manifest(manifest) => {
                    images.push((fetched.descriptor, manifest));
                    continue;
                }
                Document::Index(_) if depth == MAX_INDEX_DEPTH => {
                    return Err(TransferError::TooDeep(self.name.clone()));
                }
                Document::Index(index) => index,
            };
            for child in self.choose(&index, wanted)? {
                if !seen.insert(child.digest) {
                    continue;
                }
                if seen.len() > MAX_IMAGES {
                    let (what, found, limit) = ("images under one name", seen.len(), MAX_IMAGES);
                    let source = ManifestError::TooMany { what, found, limit };
                    return Err(RegistryError::Manifest { name: self.name.clone(), source }.into());
                }
                todo.push((self.document(writer, child)?, depth + 1));
            }
        }
        let named = match (wanted, images.first()) {
            (Wanted::Platform(_), Some((descriptor, _))) => descriptor.clone(),
            _ => named,
        };
        Ok((named, images))
    }

    fn choose<'i>(&self, index: &'i Index, wanted: &Wanted) -> Result<Vec<&'i Descriptor>, TransferError> {
        let platform = match wanted {
            // Statements about images stand beside them, as images for no platform.
            Wanted::All => return Ok(index.manifests.iter().filter(|child| !is_statement(child)).collect()),
            Wanted::Host => &Platform::host(),
            Wanted::Platform(platform) => platform,
        };
        let no_platform = || {
            let platforms = index.manifests.iter().filter(|child| !is_statement(child));
            let offered: Vec<String> =
                platforms.filter_map(|child| Some(child.platform.as_ref()?.to_string())).collect();
            let (name, offered) = (self.name.clone(), super::error::shown(&offered.join(" ")));
            TransferError::NoPlatform { name, wanted: Box::new(platform.clone()), offered }
        };
        Ok(vec![index.choose(platform).ok_or_else(no_platform)?])
    }

    /// A manifest that another names, unless it is there already.
    fn document(&self, writer: &Writer<'_>, wanted: &Descriptor) -> Result<Fetched, TransferError> {
        let digest = wanted.digest;
        if writer.store().has_blob(&digest)
            && let Ok(document) = writer.store().document(wanted)
        {
            let bytes = writer.store().read_blob("manifest", &digest, crate::manifest::MAX_MANIFEST)?;
            return Ok(Fetched { descriptor: wanted.clone(), bytes, document });
        }
        self.ask(|client| Ok(client.manifest(&self.name, &digest.to_string(), Some(wanted))?))
    }

    /// The layers of an image, by the blobs of its manifest and the diffIDs of its configuration.
    fn layers(&self, writer: &Writer<'_>, manifest: &Manifest, wanted: &Wanted) -> Result<Vec<Part>, TransferError> {
        let failed = |source| TransferError::Config { name: self.name.clone(), source };
        let blob = &manifest.config;
        let bytes = match writer.store().read_blob("configuration", &blob.digest, MAX_CONFIG) {
            Ok(bytes) => bytes,
            // Not there, or damaged: then it is asked for again.
            Err(_) => self.config(blob)?,
        };
        let config = ImageConfig::parse(&bytes).map_err(failed)?;
        config.check_belongs_to(manifest).map_err(failed)?;
        if let Wanted::Platform(platform) = wanted
            && config.platform().distance(platform).is_none()
        {
            let offered = super::error::shown(&config.platform().to_string());
            return Err(TransferError::NoPlatform {
                name: self.name.clone(),
                wanted: Box::new(platform.clone()),
                offered,
            });
        }
        writer.put(&blob.media_type, &bytes)?;
        let pairs = manifest.layers.iter().zip(&config.rootfs.diff_ids);
        Ok(pairs
            .map(|(layer, diff_id)| Part {
                descriptor: layer.clone(),
                blob: LayerBlob { digest: layer.digest, size: layer.size, diff_id: *diff_id },
            })
            .collect())
    }

    fn config(&self, wanted: &Descriptor) -> Result<Vec<u8>, TransferError> {
        if wanted.size > MAX_CONFIG {
            let (what, found, limit) = ("configuration", wanted.size, MAX_CONFIG);
            let source = ManifestError::TooLong { what, found, limit };
            return Err(TransferError::Config { name: self.name.clone(), source });
        }
        self.ask(|client| {
            let mut bytes = Vec::new();
            let blob = client.blob(wanted, 0);
            let read = Verified::new(blob, wanted.digest, Some(wanted.size)).read_to_end(&mut bytes);
            read.map_err(|error| self.blame(&wanted.digest, error))?;
            Ok(bytes)
        })
    }

    /// What an error of a blob's reader was before it passed as one of reading.
    fn blame(&self, digest: &Digest, error: std::io::Error) -> RegistryError {
        let error = match error.downcast::<RegistryError>() {
            Ok(error) => return error,
            Err(error) => error,
        };
        match error.downcast::<Mismatch>() {
            Ok(source) => RegistryError::Mismatch { name: self.name.clone(), source },
            Err(source) => RegistryError::Local { digest: *digest, source },
        }
    }

    /// Takes in a layer, from where an earlier attempt left it.
    fn layer(&self, writer: &Writer<'_>, part: &Part, progress: Progress<'_>) -> Result<(), TransferError> {
        let digest = part.blob.digest;
        let kept = Cell::new(0);
        loop {
            let done = self.ask(|client| {
                let Taken::Wanted(ingest) = writer.layer(&part.blob)? else {
                    progress(&digest, Step::Present);
                    return Ok(());
                };
                kept.set(ingest.received());
                progress(&digest, Step::Begun(ingest.received()));
                let blob = client.blob(&part.descriptor, ingest.received());
                match ingest.run(writer, Told { inner: blob, digest, progress }) {
                    Ok(_) => {
                        progress(&digest, Step::Done);
                        Ok(())
                    }
                    Err(StoreError::Interrupted { source, .. }) if is_absence(&source) => {
                        Err(self.blame(&digest, source).into())
                    }
                    Err(error) => Err(error.into()),
                }
            });
            match done {
                // What was kept of an earlier attempt may be what is wrong; it is gone now: once more without it.
                Err(TransferError::Store(StoreError::Mismatch(_))) if kept.get() > 0 => {}
                done => return done,
            }
        }
    }
}

fn is_absence(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(error, Some(RegistryError::NoBlob { .. }))
}

/// Whether an entry of an index is no image but says something of one.
fn is_statement(child: &Descriptor) -> bool {
    child.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}
