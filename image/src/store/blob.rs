//! Blobs as files named by their digest.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::error::{Result, StoreError, at};
use super::{Store, Writer};
use crate::digest::{Digest, Verified};
use crate::manifest::{Descriptor, Document, ImageConfig, MAX_CONFIG, MAX_MANIFEST, ManifestError};

/// Opens a regular file for reading; a fifo or device of that name neither blocks nor is used.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.union(rustix::fs::OFlags::NOFOLLOW);
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::new(ErrorKind::InvalidInput, "no regular file")) }
}

/// Reads a file of at most `limit` bytes; of a longer one, a byte more.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = open_regular(path).map_err(at("open", path))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(at("read", path))?;
    Ok(bytes)
}

impl Store {
    /// Whether a blob is there.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.roots().any(|root| root.blob(digest).is_file())
    }

    /// Opens a blob; who reads it all should check it by [`Verified`].
    ///
    /// # Errors
    /// It is not there, or cannot be opened.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        for root in self.roots() {
            let path = root.blob(digest);
            match open_regular(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                opened => return opened.map_err(at("open", &path)),
            }
        }
        Err(StoreError::NoBlob(*digest))
    }

    /// Reads a small blob and checks it.
    ///
    /// # Errors
    /// It is not there, longer than `limit` bytes, or not what its name says.
    pub fn read_blob(&self, what: &'static str, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let failed = |source| StoreError::Manifest { digest: *digest, source };
        let file = self.open_blob(digest)?;
        let stream = |source| StoreError::Stream { what: digest.to_string(), source };
        let found = file.metadata().map_err(stream)?.len();
        if found > limit {
            return Err(failed(ManifestError::TooLong { what, found, limit }));
        }
        let mut bytes = Vec::new();
        Verified::new(file.take(limit + 1), *digest, None).read_to_end(&mut bytes).map_err(stream)?;
        Ok(bytes)
    }

    /// Reads the manifest or index that a descriptor names.
    ///
    /// # Errors
    /// As [`Store::read_blob`], or it cannot be understood.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Document> {
        let digest = descriptor.digest;
        let bytes = self.read_blob("manifest", &digest, MAX_MANIFEST)?;
        let announced = Some(descriptor.media_type.as_str()).filter(|kind| !kind.is_empty());
        Document::parse(&bytes, announced).map_err(|source| StoreError::Manifest { digest, source })
    }

    /// Reads a configuration.
    ///
    /// # Errors
    /// As [`Store::document`].
    pub fn config(&self, digest: &Digest) -> Result<ImageConfig> {
        let bytes = self.read_blob("configuration", digest, MAX_CONFIG)?;
        ImageConfig::parse(&bytes).map_err(|source| StoreError::Manifest { digest: *digest, source })
    }
}

impl Writer<'_> {
    /// Adds a manifest, an index or a configuration.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let digest = Digest::of(bytes);
        let known = self.store.read_blob("blob", &digest, bytes.len() as u64);
        // A damaged one is written again.
        if known.is_err() {
            self.staging.publish_bytes(bytes, &self.store.own.blob(&digest))?;
        }
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    }
}
