//! Why the store does not do what it is asked for.

use std::io;
use std::path::{Path, PathBuf};

use crate::Digest;
use crate::digest::Mismatch;
use crate::index::IndexError;
use crate::manifest::ManifestError;
use crate::platform::Platform;
use crate::reference::Reference;

/// What went wrong with the store, or with what was to go into it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("{call} {path}: {source}{}", advice(.source), path = .path.display())]
    Io {
        /// What was tried.
        call: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A directory that something else lies in.
    #[error("{path} is not an image store and not empty: name another directory by --root", path = .0.display())]
    NotAStore(PathBuf),
    /// A store of a later format.
    #[error("{path} is an image layout of version {version:?}, 1.0.0 is read", path = .path.display())]
    LayoutVersion {
        /// The store.
        path: PathBuf,
        /// What its `oci-layout` says.
        version: String,
    },
    /// `index.json` or `oci-layout` cannot be read.
    #[error("{path}: {source}", path = .path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A blob that a manifest names is not there.
    #[error("blob {0} is not in the store: pull the image again")]
    NoBlob(Digest),
    /// A layer is not there, or damaged.
    #[error("layer {0} is not in the store, or damaged: run `lamel verify`")]
    NoLayer(Digest),
    /// A manifest, index or configuration cannot be used.
    #[error("{digest}: {source}")]
    Manifest {
        /// The blob.
        digest: Digest,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// Content that is not what its name says.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// A layer whose tar is another than the configuration names.
    #[error("layer {blob}: its tar is {found}, the image's configuration names {expected}")]
    DiffId {
        /// The blob.
        blob: Digest,
        /// What the configuration names.
        expected: Digest,
        /// What the blob holds.
        found: Digest,
    },
    /// A layer that cannot be indexed.
    #[error("layer {blob}: {source}")]
    Layer {
        /// The blob, or the layer's diffID.
        blob: Digest,
        /// What is wrong with it.
        source: IndexError,
    },
    /// An archive that cannot be indexed, of no name yet.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A stream that cannot be decompressed.
    #[error("{what}: {source}")]
    Stream {
        /// Of what.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The source of a blob failed or ended early. What came is kept: the next attempt goes on from there.
    #[error("layer {blob}: interrupted after {received} of {size} bytes: {source}")]
    Interrupted {
        /// The blob.
        blob: Digest,
        /// Bytes that are kept.
        received: u64,
        /// Bytes that it has.
        size: u64,
        /// What ended the stream.
        source: io::Error,
    },
    /// No image of that name or id.
    #[error("no image {0:?} in the store; `lamel images` lists them")]
    NoImage(String),
    /// Several images whose ids begin alike.
    #[error("{0:?} is the beginning of several images' ids: give more digits")]
    Ambiguous(String),
    /// None of the images under a name is for the platform.
    #[error("{name} has no image for {wanted}; it has: {offered}")]
    NoPlatform {
        /// The name or digest.
        name: String,
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        offered: String,
    },
    /// An index names indexes without end.
    #[error("{0}: indexes of indexes lie deeper than {max}", max = crate::manifest::MAX_INDEX_DEPTH)]
    TooDeep(Digest),
    /// A name that must not be given.
    #[error("{0} names a digest: an image is tagged by a name without one")]
    Tag(Box<Reference>),
    /// Only root's own files, or a filesystem that cannot be written.
    #[error("the store {path} cannot be written by this user: name another by --root", path = .0.display())]
    ReadOnly(PathBuf),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => ": free space, for instance by `lamel prune`",
        io::ErrorKind::PermissionDenied => ": name a store of your own by --root",
        _ => "",
    }
}

/// Names call and path of a failed call.
pub(super) fn at<'a>(call: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { call, path: path.to_owned(), source }
}

/// A result of the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
