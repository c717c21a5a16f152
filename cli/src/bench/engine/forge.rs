//! Images made by hand, with layers as builders write them.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use lamel_image::digest::{Digest, Hasher};
use lamel_image::manifest::media;
use lamel_image::platform::Platform;
use serde_json::{Value, json};

/// An archive of a layer as it is written.
pub(super) type Layer<'a> = tar::Builder<&'a mut dyn Write>;

/// An OCI layout of one image.
#[derive(Debug)]
pub(super) struct Forge {
    to: PathBuf,
    diff_ids: Vec<String>,
    layers: Vec<Value>,
}

/// A stream that is hashed on its way.
struct Hashed<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Forge {
    /// Begins one in a directory that is not there.
    pub(super) fn new(to: &Path) -> Result<Self> {
        fs::create_dir_all(to.join("blobs/sha256")).with_context(|| to.display().to_string())?;
        fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
        Ok(Self { to: to.to_owned(), diff_ids: Vec::new(), layers: Vec::new() })
    }

    /// Adds a layer, compressed as `docker push` compresses it.
    pub(super) fn layer(&mut self, write: impl FnOnce(&mut Layer<'_>) -> Result<()>) -> Result<()> {
        let draft = self.to.join("draft");
        let file = BufWriter::new(File::create(&draft).with_context(|| draft.display().to_string())?);
        let blob = Hashed { inner: file, hasher: Hasher::new() };
        let mut tar = Hashed { inner: GzEncoder::new(blob, Compression::default()), hasher: Hasher::new() };
        let mut builder: Layer<'_> = tar::Builder::new(&mut tar);
        builder.follow_symlinks(false);
        builder.mode(tar::HeaderMode::Deterministic);
        write(&mut builder)?;
        builder.finish().context("writing a layer")?;
        drop(builder);
        self.diff_ids.push(tar.hasher.finish().to_string());
        let mut blob = tar.inner.finish().context("compressing a layer")?;
        blob.flush().context("writing a layer")?;
        let (size, digest) = (blob.hasher.len(), blob.hasher.finish());
        fs::rename(&draft, self.blob(&digest)).context("naming a blob")?;
        let kind = format!("{}+gzip", media::LAYER);
        self.layers.push(json!({"mediaType": kind, "digest": digest.to_string(), "size": size}));
        Ok(())
    }

    /// Writes configuration, manifest and index.
    pub(super) fn finish(self) -> Result<()> {
        let host = Platform::host();
        let config = self.document(&json!({
            "os": host.os, "architecture": host.architecture,
            "config": {"Cmd": ["true"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
        }))?;
        let manifest = self.document(&json!({
            "schemaVersion": 2, "mediaType": media::MANIFEST,
            "config": described(media::CONFIG, &config), "layers": self.layers,
        }))?;
        let index = json!({"schemaVersion": 2, "manifests": [described(media::MANIFEST, &manifest)]});
        fs::write(self.to.join("index.json"), serde_json::to_vec(&index)?).context("writing the index")
    }

    fn document(&self, value: &Value) -> Result<Vec<u8>> {
        let bytes = serde_json::to_vec(value)?;
        fs::write(self.blob(&Digest::of(&bytes)), &bytes).context("writing a blob")?;
        Ok(bytes)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.to.join("blobs/sha256").join(digest.hex())
    }
}

fn described(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

/// Puts a directory of a layer into an archive, with whiteouts as archives have them.
pub(super) fn add_tree(layer: &mut Layer<'_>, base: &Path, path: &Path) -> Result<()> {
    let from = base.join(path);
    let at = || from.display().to_string();
    layer.append_path_with_name(&from, path).with_context(at)?;
    let mut names = fs::read_dir(&from).with_context(at)?.collect::<io::Result<Vec<_>>>().with_context(at)?;
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let inside = path.join(entry.file_name());
        let kind = entry.metadata().with_context(at)?;
        if kind.is_dir() {
            add_tree(layer, base, &inside)?;
        } else if kind.file_type().is_char_device() && kind.rdev() == 0 {
            let name = format!(".wh.{}", entry.file_name().to_string_lossy());
            add_file(layer, &path.join(name), 0, &[])?;
        } else {
            layer.append_path_with_name(entry.path(), &inside).with_context(at)?;
        }
    }
    Ok(())
}

/// Puts a file into an archive.
pub(super) fn add_file(layer: &mut Layer<'_>, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    layer.append_data(&mut header, path, content).with_context(|| path.display().to_string())
}

/// Puts a symbolic link into an archive.
pub(super) fn add_link(layer: &mut Layer<'_>, path: &Path, target: &Path) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    layer.append_link(&mut header, path, target).with_context(|| path.display().to_string())
}
