//! The image store: an OCI image layout, and beside it the layers as they are served.
//!
//! ```text
//! oci-layout  index.json  blobs/sha256/HEX     as skopeo, umoci and crane read it
//! layers/sha256/DIFFID/{tar,index}             a layer uncompressed, and its index
//! stacks/sha256/CHAINID                        the merged index of an image's layers
//! partial/HEX                                  blobs that did not come whole; the next attempt goes on from there
//! tmp/                                         where all of it is made (`staging`)
//! lock  index.lock                             locks alone
//! containers/ volumes/ networks/ events        what runs images keeps it here; nothing in this crate reads it
//! ```
//!
//! Nothing is written in place: things are made in `tmp/`, checked, and renamed. What `layers` and `stacks` hold is
//! made of blobs alone and made again if it is missing.
//!
//! | lock | shared | exclusive |
//! |---|---|---|
//! | `lock` | while something is added, or opened by name | while things are removed |
//! | `index.lock` | | while `index.json` is replaced |
//! | `partial/HEX` | | by the process that takes in this blob |
//! | `blobs/sha256/HEX` | | by the process that makes the layer of it |
//! | `stacks/sha256/CHAINID` | while the image is mounted | to see whether it is |
//! | `tmp/*/lock` | | by the process that works there |
//!
//! They are taken in this order. A blob is on the disk before it has its name, and all blobs of an image have theirs
//! before the image has one. `layers`, `stacks` and `partial` are not flushed: what a power failure cut off is found by
//! its length or checksum when it is opened, and made again.
//!
//! Reading order: `staging`, `blob`, `ingest`, `names`, `image`, `collect`, `verify`.

mod blob;
mod collect;
mod error;
mod image;
mod ingest;
mod lock;
mod names;
mod staging;
#[cfg(test)]
mod tests;
mod verify;

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use collect::{Collected, Prune};
pub use error::{Result, StoreError};
pub use image::{Image, Opened};
pub use ingest::{Ingest, Layer, LayerBlob, Taken};
pub(crate) use names::name_of;
pub use names::{IMAGE_NAME, Named, REF_NAME};
pub use verify::{Fault, Object, Verdict};

use crate::Digest;
use crate::digest::ALGORITHM;
use crate::manifest;
use error::at;
use lock::Mode;
use staging::Staging;
pub use staging::{Scratch, remove_tree};

/// What `oci-layout` says (OCI image layout, "oci-layout file").
const LAYOUT: &str = r#"{"imageLayoutVersion": "1.0.0"}"#;
/// The longest `oci-layout`.
const MAX_LAYOUT: u64 = 4096;
/// Everything at the root of a store.
const NAMES: [&str; 12] = [
    "blobs",
    "containers",
    "events",
    "index.json",
    "index.lock",
    "layers",
    "lock",
    "networks",
    "oci-layout",
    "partial",
    "stacks",
    "volumes",
];
/// Where things are made.
const TMP: &str = "tmp";

/// One directory tree of the layout above.
#[derive(Clone, Debug)]
struct Root(PathBuf);

impl Root {
    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn by_digest_dir(&self, kind: &str) -> PathBuf {
        let mut path = self.0.join(kind);
        path.push(ALGORITHM);
        path
    }

    fn by_digest(&self, kind: &str, digest: &Digest) -> PathBuf {
        let mut path = self.by_digest_dir(kind);
        path.push(digest.hex());
        path
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.by_digest("blobs", digest)
    }

    fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.by_digest("layers", diff_id)
    }

    fn stack(&self, chain_id: &Digest) -> PathBuf {
        self.by_digest("stacks", chain_id)
    }

    fn partial(&self, digest: &Digest) -> PathBuf {
        self.join("partial").join(digest.hex())
    }

    fn index(&self) -> PathBuf {
        self.join("index.json")
    }

    fn check_layout(&self) -> Result<()> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Layout {
            image_layout_version: String,
        }
        let path = self.join("oci-layout");
        let bytes = blob::read_bounded(&path, MAX_LAYOUT)?;
        let layout: Layout = manifest::parse("oci-layout", &bytes, MAX_LAYOUT)
            .map_err(|source| StoreError::Layout { path: path.clone(), source })?;
        match layout.image_layout_version.as_str() {
            "1.0.0" => Ok(()),
            _ => Err(StoreError::LayoutVersion { path: self.0.clone(), version: layout.image_layout_version }),
        }
    }
}

/// A store, and others that are read where it lacks something.
#[derive(Clone, Debug)]
pub struct Store {
    own: Root,
    /// Searched in this order; never written.
    additional: Vec<Root>,
    /// Manifests that are needed, whether they have a name or not.
    kept: Vec<Digest>,
}

impl Store {
    /// Opens the store at `root`, which is made if there is nothing, and removes what killed processes left in it.
    ///
    /// # Errors
    /// The place holds something else, or cannot be read; or one of `additional` is no store.
    pub fn open(root: &Path, additional: &[PathBuf]) -> Result<Self> {
        let own = Root(std::path::absolute(root).map_err(at("find", root))?);
        match fs::symlink_metadata(own.join("oci-layout")) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => create(&own)?,
            Err(error) => return Err(at("stat", &own.join("oci-layout"))(error)),
        }
        own.check_layout()?;
        staging::sweep(&own.join(TMP));
        let additional: Vec<Root> = additional.iter().cloned().map(Root).collect();
        additional.iter().try_for_each(Root::check_layout)?;
        Ok(Self { own, additional, kept: Vec::new() })
    }

    /// Says that the images of these manifests are in use, as by containers: what they need is not removed.
    pub fn keep(&mut self, manifests: impl IntoIterator<Item = Digest>) {
        self.kept.extend(manifests);
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.own.0
    }

    /// The own root, then the others.
    fn roots(&self) -> impl Iterator<Item = &Root> {
        std::iter::once(&self.own).chain(&self.additional)
    }

    /// Keeps what is in the store from being removed while it is looked at.
    fn hold(&self) -> Result<File> {
        let path = self.own.join("lock");
        let file = match lock::open(&path) {
            // Somebody else's: it can be looked at all the same.
            Err(error) if is_read_only(&error) => File::open(&path),
            other => other,
        };
        let file = file.map_err(at("open", &path))?;
        lock::lock(&file, Mode::Shared).map_err(at("lock", &path))?;
        Ok(file)
    }

    /// Begins to add to the store. Nothing is removed from it while the writer lives.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn writer(&self) -> Result<Writer<'_>> {
        let held = self.hold()?;
        let complete = |error| match error {
            StoreError::Io { source, .. } if is_read_only(&source) => StoreError::ReadOnly(self.own.0.clone()),
            other => other,
        };
        // Other tools remove empty directories that they do not know.
        make_dirs(&self.own).map_err(complete)?;
        let staging = Staging::new(&self.own.join(TMP)).map_err(complete)?;
        Ok(Writer { store: self, staging, _held: held })
    }
}

impl Store {
    /// Makes a place for what lasts as long as one process, such as the upper layer of a mount that is not kept.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn scratch(&self) -> Result<Scratch> {
        let tmp = self.own.join(TMP);
        DirBuilder::new().recursive(true).create(&tmp).map_err(at("mkdir", &tmp))?;
        Scratch::new(&tmp)
    }

    /// Bytes of a layer's tar; `None` if it has not been made.
    pub fn layer_size(&self, diff_id: &Digest) -> Option<u64> {
        self.roots().find_map(|root| Some(fs::metadata(root.layer(diff_id).join("tar")).ok()?.len()))
    }
}

fn is_read_only(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Makes an empty store; several processes may do so at once.
fn create(root: &Root) -> Result<()> {
    // Layers hold other people's secrets: who shares a store opens it to others.
    DirBuilder::new().recursive(true).mode(0o700).create(&root.0).map_err(at("mkdir", &root.0))?;
    for entry in fs::read_dir(&root.0).map_err(at("list", &root.0))? {
        let name = entry.map_err(at("list", &root.0))?.file_name();
        if name != TMP && name != "lost+found" && !NAMES.iter().any(|known| name == *known) {
            return Err(StoreError::NotAStore(root.0.clone()));
        }
    }
    make_dirs(root)?;
    let staging = Staging::new(&root.join(TMP))?;
    let layout = root.join("oci-layout");
    if !root.index().exists() {
        names::create(root, &staging)?;
    }
    staging.publish_bytes(LAYOUT.as_bytes(), &layout)
}

fn make_dirs(root: &Root) -> Result<()> {
    let by_digest = ["blobs", "layers", "stacks"].map(|kind| root.join(kind).join(ALGORITHM));
    for dir in by_digest.into_iter().chain([root.join("partial"), root.join(TMP)]) {
        DirBuilder::new().recursive(true).create(&dir).map_err(at("mkdir", &dir))?;
    }
    Ok(())
}

/// Adds to a store. Threads may share one.
#[derive(Debug)]
pub struct Writer<'a> {
    store: &'a Store,
    staging: Staging,
    /// What is not named yet must not be taken for garbage.
    _held: File,
}

impl<'a> Writer<'a> {
    /// The store that is written.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// A file of no name, which goes with its last descriptor.
    pub(crate) fn scratch_file(&self) -> Result<File> {
        let (path, file) = self.staging.file()?;
        fs::remove_file(&path).map_err(at("unlink", &path))?;
        Ok(file)
    }
}
