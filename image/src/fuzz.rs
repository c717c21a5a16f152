//! What fuzz targets (`fuzz/` in the repository) do with bytes: each panics if a promise is broken.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::index::{self, Built, Limits};
use crate::manifest::{Document, ImageConfig, ManifestError, media};
use crate::reference::Reference;
use crate::view::View;
use crate::{Digest, IndexedLayer, archive};

/// Far less than layers may have, so that a bomb is met soon.
fn limits() -> Limits {
    Limits {
        entries: 2000,
        depth: 32,
        path: 4096,
        extended: 16 << 10,
        xattrs: 16,
        xattr_value: 4096,
        extents: 256,
        symlinks: 2000,
        index: 1 << 20,
        ..Limits::default()
    }
}

/// Indexes a tar. One that is taken gives an index that holds, alone and on itself; and written again as a tar it is the
/// same tree, so that from then on it stays the same bytes.
pub fn tar(bytes: &[u8]) {
    let Ok(built) = index::build(&mut &*bytes, &limits()) else { return };
    assert!(built.tar_bytes() <= bytes.len() as u64, "{} of {} bytes", built.tar_bytes(), bytes.len());
    let diff_id = Digest::of(bytes);
    let mut lies = Vec::new();
    built.write(&diff_id, &mut lies).unwrap_or_else(|error| unreachable!("memory is not full: {error}"));
    index::fuzz::hold(&lies, &[diff_id], bytes.len() as u64);
    let once = exported(bytes, &built);
    if once.is_empty() {
        return;
    }
    let again = index::build(&mut &*once, &Limits::default());
    let again = again.unwrap_or_else(|error| panic!("a tar of lamel's own is refused: {error}"));
    assert!(once == exported(&once, &again), "a tree changes when it is written and read");
}

/// A tar's tree as a tar of lamel's own; nothing if that is too long.
fn exported(tar: &[u8], built: &Built) -> Vec<u8> {
    let file = |bytes: &[u8]| -> std::io::Result<OwnedFd> {
        let mut file = File::from(memfd_create("lamel-fuzz", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        Ok(file.into())
    };
    let diff_id = Digest::of(tar);
    let mut lies = Vec::new();
    let made = built.write(&diff_id, &mut lies).and_then(|()| Ok((file(tar)?, file(&lies)?)));
    let (tar, lies) = made.unwrap_or_else(|error| panic!("no memory to work in: {error}"));
    let layer = IndexedLayer::open(Path::new("fuzz"), tar, &lies, &diff_id);
    let layer = layer.unwrap_or_else(|error| panic!("what was just written is refused: {error}"));
    let mut out = Vec::new();
    let done = archive::export(&View::new(Arc::new(layer)), Sized(&mut out));
    match done {
        Ok(()) => out,
        Err(_) if out.len() >= MOST => Vec::new(),
        Err(error) => panic!("what was just indexed cannot be read: {error}"),
    }
}

/// Names that many directories are above of make a tar long.
const MOST: usize = 32 << 20;

/// Takes so many bytes and no more.
struct Sized<'a>(&'a mut Vec<u8>);

impl std::io::Write for Sized<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() >= MOST {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Reads an index that somebody has changed, and set its checksum right again.
pub fn changed_index(bytes: &[u8]) {
    index::fuzz::changed(bytes);
}

/// Reads manifests, indexes, configurations and Docker's list of an archive. What is read and written again is the same.
pub fn documents(bytes: &[u8]) {
    let announced = [None, Some(media::MANIFEST), Some(media::INDEX), Some(media::DOCKER_MANIFEST)];
    for kind in announced {
        let same = |written: serde_json::Result<Vec<u8>>, read: &Document| {
            let written = written.unwrap_or_else(|error| panic!("what was read cannot be written: {error}"));
            match Document::parse(&written, kind) {
                Ok(again) => assert!(*read == again, "{read:?} is not {again:?}"),
                // Escapes are written longer than they were read.
                Err(ManifestError::TooLong { .. }) => {}
                Err(error) => panic!("what was written is refused: {error}"),
            }
        };
        match Document::parse(bytes, kind) {
            Ok(read @ Document::Manifest(_)) => {
                let Document::Manifest(manifest) = &read else { continue };
                same(serde_json::to_vec(manifest), &read);
            }
            Ok(read @ Document::Index(_)) => {
                let Document::Index(index) = &read else { continue };
                index.choose(&crate::platform::Platform::host());
                same(serde_json::to_vec(index), &read);
            }
            Err(_) => {}
        }
    }
    if let Ok(config) = ImageConfig::parse(bytes) {
        let written = serde_json::to_vec(&config);
        let written = written.unwrap_or_else(|error| panic!("what was read cannot be written: {error}"));
        match ImageConfig::parse(&written) {
            Ok(again) => assert!(config == again, "{config:?} is not {again:?}"),
            Err(ManifestError::TooLong { .. }) => {}
            Err(error) => panic!("what was written is refused: {error}"),
        }
        crate::manifest::chain_ids(&config.rootfs.diff_ids);
    }
    archive::fuzz_list(bytes);
}

/// Reads a name. One that is taken is the same once it is written in full, and leads out of no directory.
pub fn reference(text: &str) {
    let Ok(read) = text.parse::<Reference>() else { return };
    let whole = read.to_string();
    assert_eq!(whole.parse().as_ref(), Ok(&read), "{whole:?}");
    assert!(
        !whole.contains(char::is_control) && whole.is_ascii() && !whole.contains([' ', '\\', '?', '#']),
        "{whole:?}"
    );
    let parts = || read.repository().split('/');
    assert!(parts().all(|part| !part.is_empty() && part != "." && part != ".."), "{whole:?}");
    assert!(!read.registry().is_empty() && !read.registry().contains('/'), "{whole:?}");
    // As people write it, it is another way to say the same.
    let short = match read.tag() {
        Some(tag) => format!("{}:{tag}", read.familiar_name()),
        None => return,
    };
    let again: Result<Reference, _> = short.parse();
    if read.digest().is_none() {
        assert_eq!(again.as_ref(), Ok(&read), "{short:?}");
    }
}
