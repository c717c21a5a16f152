//! Images made by hand: every byte of them is known.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use lamel_image::Digest;
use lamel_image::manifest::media;
use serde_json::{Value, json};

/// A blob.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: String,
}

impl Blob {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let digest = Digest::of(&bytes).to_string();
        Self { bytes, digest }
    }

    fn json(value: &Value) -> Self {
        Self::new(serde_json::to_vec(value).unwrap())
    }

    fn described(&self, kind: &str) -> Value {
        json!({"mediaType": kind, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// An image for one platform.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) layers: Vec<Blob>,
    pub(crate) config: Blob,
    pub(crate) manifest: Blob,
    architecture: &'static str,
}

/// Bytes that do not compress and differ by `seed`.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}

impl Image {
    /// An image of one layer for each file.
    pub(crate) fn new(files: &[(&str, Vec<u8>)]) -> Self {
        Self::of("amd64", files)
    }

    /// For another processor.
    pub(crate) fn of(architecture: &'static str, files: &[(&str, Vec<u8>)]) -> Self {
        let tars: Vec<Vec<u8>> = files.iter().map(|(name, content)| tar(name, content)).collect();
        let diff_ids: Vec<String> = tars.iter().map(|tar| Digest::of(tar).to_string()).collect();
        let layers: Vec<Blob> = tars.iter().map(|tar| Blob::new(gzip(tar))).collect();
        let config = Blob::json(&json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": files.iter().map(|(name, _)| json!({"created_by": format!("COPY {name} /")})).collect::<Vec<_>>(),
        }));
        let described = layers.iter().map(|layer| layer.described(&format!("{}+gzip", media::LAYER)));
        let manifest = Blob::json(&json!({
            "schemaVersion": 2, "mediaType": media::MANIFEST,
            "config": config.described(media::CONFIG), "layers": described.collect::<Vec<_>>(),
        }));
        Self { layers, config, manifest, architecture }
    }

    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().chain([&self.config, &self.manifest])
    }

    /// Writes an OCI layout that has the image under `tag`.
    pub(crate) fn write(&self, dir: &Path, tag: &str) {
        write_layout(dir, &[self.blobs().cloned().collect()], &self.manifest, media::MANIFEST, tag);
    }
}

/// An index of these images, and an OCI layout that has it under `tag`.
pub(crate) fn write_index(dir: &Path, images: &[&Image], tag: &str) -> Blob {
    let entries = images.iter().map(|image| {
        let mut entry = image.manifest.described(media::MANIFEST);
        entry["platform"] = json!({"os": "linux", "architecture": image.architecture});
        entry
    });
    let index =
        Blob::json(&json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": entries.collect::<Vec<_>>()}));
    let mut blobs: Vec<Vec<Blob>> = images.iter().map(|image| image.blobs().cloned().collect()).collect();
    blobs.push(vec![index.clone()]);
    write_layout(dir, &blobs, &index, media::INDEX, tag);
    index
}

fn write_layout(dir: &Path, blobs: &[Vec<Blob>], top: &Blob, kind: &str, tag: &str) {
    let place = dir.join("blobs/sha256");
    fs::create_dir_all(&place).unwrap();
    for blob in blobs.iter().flatten() {
        fs::write(place.join(&blob.digest[7..]), &blob.bytes).unwrap();
    }
    let mut entry = top.described(kind);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
}

fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
