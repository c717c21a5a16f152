//! Removing what no image needs.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::Value;

use super::error::{Result, StoreError, at};
use super::lock::{self, Mode};
use super::names::{self, Named};
use super::staging::{self, Staging};
use super::{Store, TMP};
use crate::Digest;
use crate::digest::ALGORITHM;
use crate::manifest::{MAX_CONFIG, MAX_INDEX_DEPTH, MAX_MANIFEST, chain_ids, media};

/// Which images are removed before what none needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    /// None; interrupted downloads stay as well.
    Garbage,
    /// Those without a name.
    Unnamed,
    /// All that are not mounted.
    Unused,
}

/// What was removed.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Images.
    pub images: Vec<Named>,
    /// Blobs.
    pub blobs: Vec<Digest>,
    /// Bytes that were freed: of blobs, layers, indexes and downloads given up.
    pub bytes: u64,
}

/// What images need.
#[derive(Default)]
struct Needed {
    blobs: HashSet<Digest>,
    layers: HashSet<Digest>,
    stacks: HashSet<Digest>,
}

impl Store {
    /// Removes images, and what none needs. Waits for those who add to the store or look images up in it, unless
    /// `wait` is false: then `None` is returned where somebody does.
    ///
    /// # Errors
    /// An image cannot be read, so that what it needs is not known: nothing is removed then.
    pub fn prune(&self, which: Prune, wait: bool) -> Result<Option<Collected>> {
        let path = self.own.join("lock");
        let file = lock::open(&path).map_err(at("open", &path))?;
        if wait {
            lock::lock(&file, Mode::Exclusive).map_err(at("lock", &path))?;
        } else if !lock::try_lock(&file, Mode::Exclusive).map_err(at("lock", &path))? {
            return Ok(None);
        }
        let mut collected = Collected::default();
        self.remove_images(which, &mut collected)?;
        let needed = self.needed()?;
        // Layers last: they are made of blobs, never the other way round.
        for (kind, keep) in [("blobs", &needed.blobs), ("stacks", &needed.stacks), ("layers", &needed.layers)] {
            self.remove_others(kind, keep, &mut collected)?;
        }
        if which != Prune::Garbage {
            each(&self.own.join("partial"), |path| remove(path, &mut collected.bytes))?;
        }
        staging::sweep(&self.own.join(TMP));
        Ok(Some(collected))
    }

    fn remove_images(&self, which: Prune, collected: &mut Collected) -> Result<()> {
        let own: Vec<Named> = self.images()?.into_iter().filter(|image| !image.additional).collect();
        let mut going = Vec::new();
        for image in own {
            let goes = match which {
                Prune::Garbage => false,
                Prune::Unnamed => image.name.is_none() && !self.is_kept(&image.descriptor.digest)?,
                Prune::Unused => !self.is_in_use(&image.descriptor.digest)?,
            };
            if goes {
                going.push(image);
            }
        }
        if !going.is_empty() {
            let staging = Staging::new(&self.own.join(TMP))?;
            names::edit(&self.own, &staging, |entries| {
                entries.retain(|entry| !going.iter().any(|gone| gone.descriptor == *entry));
                (true, ())
            })?;
        }
        collected.images = going;
        Ok(())
    }

    /// Whether an image, or one of an index, is among the kept.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_kept(&self, digest: &Digest) -> Result<bool> {
        let mut needed = Needed::default();
        if !self.kept.is_empty() {
            self.mark(digest, true, 0, &mut needed)?;
        }
        Ok(self.kept.iter().any(|kept| needed.blobs.contains(kept)))
    }

    /// Whether an image, or one of an index, is mounted or kept.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_in_use(&self, digest: &Digest) -> Result<bool> {
        if self.is_kept(digest)? {
            return Ok(true);
        }
        let mut needed = Needed::default();
        self.mark(digest, true, 0, &mut needed)?;
        Ok(needed.stacks.iter().any(|chain_id| {
            let stack = OpenOptions::new().read(true).write(true).open(self.own.stack(chain_id));
            stack.is_ok_and(|file: File| lock::try_lock(&file, Mode::Exclusive).is_ok_and(|taken| !taken))
        }))
    }

    fn needed(&self) -> Result<Needed> {
        let mut needed = Needed::default();
        for image in self.images()?.iter().filter(|image| !image.additional) {
            self.mark(&image.descriptor.digest, true, 0, &mut needed)?;
        }
        self.kept.iter().try_for_each(|kept| self.mark(kept, true, 0, &mut needed))?;
        Ok(needed)
    }

    /// Marks a document and all that it names. Whatever has a digest is kept: also what lamel does not understand.
    fn mark(&self, digest: &Digest, is_manifest: bool, depth: usize, needed: &mut Needed) -> Result<()> {
        if depth > MAX_INDEX_DEPTH + 1 {
            return Err(StoreError::TooDeep(*digest));
        }
        needed.blobs.insert(*digest);
        let (what, limit) = if is_manifest { ("manifest", MAX_MANIFEST) } else { ("configuration", MAX_CONFIG) };
        let bytes = match self.read_blob(what, digest, limit) {
            // Of an index, the images of other platforms were never pulled.
            Err(StoreError::NoBlob(_)) => return Ok(()),
            other => other?,
        };
        let Ok(value) = serde_json::from_slice::<Value>(&bytes) else { return Ok(()) };
        if !is_manifest {
            mark_layers(digest, &value, needed);
            return Ok(());
        }
        let mut found = Vec::new();
        descriptors(&value, &mut found);
        for (digest, kind) in found {
            needed.blobs.insert(digest);
            let is_manifest = media::ACCEPTED.contains(&kind);
            if is_manifest || kind.contains("config") || kind.contains("container.image") {
                self.mark(&digest, is_manifest, depth + 1, needed)?;
            }
        }
        Ok(())
    }

    fn remove_others(&self, kind: &str, keep: &HashSet<Digest>, collected: &mut Collected) -> Result<()> {
        each(&self.own.join(kind).join(ALGORITHM), |path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match Digest::from_hex(name) {
                Ok(digest) if keep.contains(&digest) => Ok(()),
                Ok(digest) => {
                    if kind == "blobs" {
                        collected.blobs.push(digest);
                    }
                    remove(path, &mut collected.bytes)
                }
                // Nobody can name it.
                Err(_) => remove(path, &mut collected.bytes),
            }
        })
    }
}

/// Everything in a document that has a digest, and its media type.
fn descriptors<'a>(value: &'a Value, found: &mut Vec<(Digest, &'a str)>) {
    match value {
        Value::Object(map) => {
            let digest = map.get("digest").and_then(Value::as_str).and_then(|digest| digest.parse().ok());
            if let Some(digest) = digest {
                found.push((digest, map.get("mediaType").and_then(Value::as_str).unwrap_or_default()));
            }
            map.values().for_each(|value| descriptors(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| descriptors(value, found)),
        _ => {}
    }
}

fn mark_layers(id: &Digest, config: &Value, needed: &mut Needed) {
    let diff_ids = config.pointer("/rootfs/diff_ids").and_then(Value::as_array);
    let diff_ids: Option<Vec<Digest>> =
        diff_ids.and_then(|ids| ids.iter().map(|id| id.as_str()?.parse().ok()).collect());
    let diff_ids = diff_ids.unwrap_or_default();
    needed.stacks.insert(chain_ids(&diff_ids).pop().unwrap_or(*id));
    needed.layers.extend(diff_ids);
}

/// Calls `act` with everything in a directory, which may be missing.
fn each(dir: &Path, mut act: impl FnMut(&Path) -> Result<()>) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(at("list", dir))?,
    };
    for entry in entries {
        act(&entry.map_err(at("list", dir))?.path())?;
    }
    Ok(())
}

/// Removes a file or a layer's directory, and counts what that frees.
fn remove(path: &Path, freed: &mut u64) -> Result<()> {
    let metadata = fs::symlink_metadata(path).map_err(at("stat", path))?;
    if metadata.is_dir() {
        each(path, |inside| remove(inside, freed))?;
        return fs::remove_dir(path).map_err(at("rmdir", path));
    }
    if metadata.nlink() == 1 {
        *freed = freed.saturating_add(metadata.len());
    }
    fs::remove_file(path).map_err(at("unlink", path))
}
