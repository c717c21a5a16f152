//! Manifests, indexes and configurations: read with bounds, and written.
//!
//! The types keep the fields that they do not know, so that what is read and
//! written again loses nothing, and their digests are checked as they are read.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::digest::{Digest, Hasher};
use crate::platform::Platform;

/// The longest manifest or index.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// The longest configuration.
pub const MAX_CONFIG: u64 = 8 << 20;
/// The most layers of an image; as many as one mount has.
pub const MAX_LAYERS: usize = 500;
/// The most images of one index.
pub const MAX_IMAGES: usize = 10_000;
/// How deep indexes may lie in indexes.
pub const MAX_INDEX_DEPTH: usize = 3;

/// Media types.
pub mod media {
    /// An OCI image's manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image's configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// A layer; `+gzip` or `+zstd` may follow.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's index.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// What a registry is told to answer with.
    pub const ACCEPTED: [&str; 4] = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX];
}

/// What is wrong with a manifest, an index or a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Longer than is taken.
    #[error("{what} of {found} bytes: more than {limit} (the limit) are not read")]
    TooLong {
        /// Of what.
        what: &'static str,
        /// How long it is.
        found: u64,
        /// How long it may be.
        limit: u64,
    },
    /// Not JSON, or not of this shape.
    #[error("malformed {0}")]
    Malformed(&'static str, #[source] serde_json::Error),
    /// Docker's first format, without digests that bind.
    #[error("a manifest of schema 1, which binds nothing to its digest: pull a newer image, or convert it with skopeo")]
    Schema1,
    /// Another schema.
    #[error("a manifest of the unknown schema version {0}")]
    Schema(u64),
    /// It calls itself something else than it was announced as, or than it is.
    #[error("a manifest that is not what it says: {0}")]
    Confused(String),
    /// A type that lamel does not read.
    #[error("media type {0:?} is not that of an image, an index or a layer")]
    MediaType(String),
    /// More of something than is taken.
    #[error("{found} {what}: more than {limit} (the limit) are refused")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Manifest and configuration do not belong together.
    #[error("the manifest has {layers} layers and the configuration {diff_ids}")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// Layers of the configuration.
        diff_ids: usize,
    },
}

/// A blob as another document names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is said to be.
    #[serde(default)]
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// What it runs on, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Remarks.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Descriptor {
    /// A blob without remarks.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let (platform, annotations, other) = (None, BTreeMap::new(), Map::new());
        Self { media_type: media_type.to_owned(), digest, size, platform, annotations, other }
    }
}

/// An image: its configuration and its layers, bottom first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u64,
    /// Its own media type.
    #[serde(default)]
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers.
    pub layers: Vec<Descriptor>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Manifest {
    /// An OCI image.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: media::MANIFEST.to_owned(), config, layers, other: Map::new() }
    }
}

/// Several images under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u64,
    /// Its own media type.
    #[serde(default)]
    pub media_type: String,
    /// The images, or indexes of them.
    pub manifests: Vec<Descriptor>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Index {
    /// An OCI index.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: media::INDEX.to_owned(), manifests, other: Map::new() }
    }

    /// The image that serves `wanted` best.
    pub fn choose(&self, wanted: &Platform) -> Option<&Descriptor> {
        let distance = |descriptor: &Descriptor| match &descriptor.platform {
            Some(platform) => platform.distance(wanted),
            // Said of none: a single image is for everyone, as old tools write it.
            None => (self.manifests.len() == 1).then_some(u8::MAX),
        };
        let suited = self.manifests.iter().filter_map(|descriptor| Some((distance(descriptor)?, descriptor)));
        suited.min_by_key(|(distance, _)| *distance).map(|(_, descriptor)| descriptor)
    }
}

/// What stands behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one at a time, taken apart where it is read")]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

impl Document {
    /// Reads a manifest or index; `announced` is the media type that a descriptor or a registry gave.
    pub fn parse(bytes: &[u8], announced: Option<&str>) -> Result<Self, ManifestError> {
        let what = "manifest";
        let value: Value = parse(what, bytes, MAX_MANIFEST)?;
        let has = |key: &str| value.get(key).is_some();
        let own = value.get("mediaType").and_then(Value::as_str).filter(|own| !own.is_empty());
        let version = value.get("schemaVersion").and_then(Value::as_u64);
        if version == Some(1) || has("fsLayers") || announced.is_some_and(|kind| kind.contains("manifest.v1+")) {
            // An OCI manifest's own type ends like schema 1's, but names its format before.
            if !announced.is_some_and(|kind| kind.starts_with("application/vnd.oci.")) || version == Some(1) {
                return Err(ManifestError::Schema1);
            }
        }
        if version != Some(2) {
            return Err(ManifestError::Schema(version.unwrap_or(0)));
        }
        if has("manifests") && (has("layers") || has("config")) {
            return Err(ManifestError::Confused("it lists layers and images".to_owned()));
        }
        // Registries serve what they do not know as plain JSON.
        let announced = announced.filter(|kind| media::ACCEPTED.contains(kind) || kind.starts_with("application/vnd."));
        if let (Some(own), Some(announced)) = (own, announced)
            && own != announced
        {
            return Err(ManifestError::Confused(format!("it came as {announced} and calls itself {own}")));
        }
        let kind = announced.or(own).map(str::to_owned);
        let is_index = match kind.as_deref() {
            Some(media::INDEX | media::DOCKER_INDEX) => true,
            Some(media::MANIFEST | media::DOCKER_MANIFEST) => false,
            Some(other) => return Err(ManifestError::MediaType(other.to_owned())),
            None => has("manifests"),
        };
        if is_index {
            let mut index: Index = serde_json::from_value(value).map_err(|e| ManifestError::Malformed(what, e))?;
            at_most("images of an index", index.manifests.len(), MAX_IMAGES)?;
            index.media_type = kind.unwrap_or_else(|| media::INDEX.to_owned());
            return Ok(Self::Index(index));
        }
        let mut manifest: Manifest = serde_json::from_value(value).map_err(|e| ManifestError::Malformed(what, e))?;
        at_most("layers of an image", manifest.layers.len(), MAX_LAYERS)?;
        manifest.media_type = kind.unwrap_or_else(|| media::MANIFEST.to_owned());
        let stranger = manifest.layers.iter().find(|layer| !is_layer(&layer.media_type));
        match stranger {
            Some(stranger) => Err(ManifestError::MediaType(stranger.media_type.clone())),
            None => Ok(Self::Manifest(manifest)),
        }
    }
}

/// Whether a media type is that of a layer; how it is compressed, its first bytes tell.
fn is_layer(kind: &str) -> bool {
    let layer = kind.starts_with("application/vnd.oci.image.layer.")
        || kind.starts_with("application/vnd.docker.image.rootfs.");
    layer && !kind.ends_with("+encrypted")
}

/// How a container of an image is run by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// User and group, as `--user` takes them.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports that it listens on.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// The environment, `KEY=VALUE`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// What is run.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Its arguments, or what is run if there is no entry point.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Directories that hold data.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Value>,
    /// Where it is run.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Remarks.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What ends it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Everything else, such as health checks.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The layers by what they hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type", default)]
    kind: String,
    /// Digests of the uncompressed layers, bottom first.
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// A remark.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An image's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When it was made, as RFC 3339 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The processor that it is for.
    #[serde(default)]
    pub architecture: String,
    /// Which one of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The system that it is for.
    #[serde(default)]
    pub os: String,
    /// How it is run.
    #[serde(default, deserialize_with = "or_default")]
    pub config: RunConfig,
    /// Its layers.
    pub rootfs: RootFs,
    /// How it was made, first step first.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ImageConfig {
    /// One for an image of these layers.
    pub fn new(platform: &Platform, diff_ids: Vec<Digest>) -> Self {
        Self {
            created: None,
            author: None,
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            config: RunConfig::default(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
            history: Vec::new(),
            other: Map::new(),
        }
    }

    /// Reads one.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let config: Self = parse("configuration", bytes, MAX_CONFIG)?;
        at_most("layers of an image", config.rootfs.diff_ids.len(), MAX_LAYERS)?;
        Ok(config)
    }

    /// Whether it describes the image of `manifest`.
    pub fn check_belongs_to(&self, manifest: &Manifest) -> Result<(), ManifestError> {
        let (layers, diff_ids) = (manifest.layers.len(), self.rootfs.diff_ids.len());
        if layers == diff_ids { Ok(()) } else { Err(ManifestError::LayerCount { layers, diff_ids }) }
    }

    /// What it runs on.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            other: Map::new(),
        }
    }
}

/// Identities of the stacks that end at each layer, bottom first.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => *diff_id,
            Some(below) => {
                let mut hasher = Hasher::new();
                hasher.update(format!("{below} {diff_id}").as_bytes());
                hasher.finish()
            }
        };
        chain.push(id);
    }
    chain
}

/// Reads JSON of a bounded length.
pub(crate) fn parse<T: for<'de> Deserialize<'de>>(
    what: &'static str,
    bytes: &[u8],
    limit: u64,
) -> Result<T, ManifestError> {
    let found = bytes.len() as u64;
    if found > limit {
        return Err(ManifestError::TooLong { what, found, limit });
    }
    serde_json::from_slice(bytes).map_err(|error| ManifestError::Malformed(what, error))
}

fn at_most(what: &'static str, found: usize, limit: usize) -> Result<(), ManifestError> {
    if found <= limit { Ok(()) } else { Err(ManifestError::TooMany { what, found, limit }) }
}

/// Go's tools write `null` for what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(kind: &str) -> Value {
        serde_json::json!({"mediaType": kind, "digest": Digest::of(b"x").to_string(), "size": 1, "data": "eA=="})
    }

    fn manifest(layers: usize) -> Value {
        serde_json::json!({
            "schemaVersion": 2, "mediaType": media::MANIFEST, "config": descriptor(media::CONFIG),
            "layers": vec![descriptor("application/vnd.oci.image.layer.v1.tar+gzip"); layers],
            "annotations": {"a": "b"},
        })
    }

    fn read(value: &Value, announced: Option<&str>) -> Result<Document, ManifestError> {
        Document::parse(&serde_json::to_vec(value).unwrap(), announced)
    }

    #[test]
    fn what_is_read_is_written_whole() {
        let value = manifest(2);
        let Document::Manifest(read) = read(&value, Some(media::MANIFEST)).unwrap() else { panic!("no manifest") };
        assert_eq!(serde_json::to_value(&read).unwrap(), value);
        let text = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"history":null,
            "config":{"Env":null,"Cmd":["sh"],"Volumes":null,"Labels":null,"Healthcheck":{"Test":["CMD"]}}}"#;
        let config = ImageConfig::parse(text).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert!(serde_json::to_string(&config).unwrap().contains(r#""Healthcheck":{"Test":["CMD"]}"#));
    }

    #[test]
    fn a_document_is_what_it_says() {
        let mut both = manifest(1);
        both["manifests"] = Value::Array(Vec::new());
        assert!(matches!(read(&both, Some(media::MANIFEST)), Err(ManifestError::Confused(_))));
        assert!(matches!(read(&manifest(1), Some(media::INDEX)), Err(ManifestError::Confused(_))));
        let mut unnamed = manifest(1);
        unnamed.as_object_mut().unwrap().remove("mediaType");
        assert!(read(&unnamed, Some(media::INDEX)).is_err());
        assert!(matches!(read(&unnamed, None), Ok(Document::Manifest(_))));
        let old = serde_json::json!({"schemaVersion": 1, "fsLayers": [], "history": []});
        for announced in
            [None, Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), Some(media::MANIFEST)]
        {
            assert!(matches!(read(&old, announced), Err(ManifestError::Schema1)));
        }
        assert!(matches!(read(&serde_json::json!({"schemaVersion": 3}), None), Err(ManifestError::Schema(3))));
        let mut chart = manifest(0);
        chart["layers"] = serde_json::json!([descriptor("application/vnd.example.chart.v1.tar+gzip")]);
        assert!(matches!(read(&chart, None), Err(ManifestError::MediaType(_))));
        chart["layers"] = serde_json::json!([descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")]);
        assert!(matches!(read(&chart, None), Err(ManifestError::MediaType(_))));
    }

    #[test]
    fn sizes_are_bounded() {
        let long = vec![b' '; usize::try_from(MAX_MANIFEST).unwrap() + 1];
        assert!(matches!(Document::parse(&long, None), Err(ManifestError::TooLong { .. })));
        assert!(matches!(read(&manifest(MAX_LAYERS + 1), None), Err(ManifestError::TooMany { .. })));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(Document::parse(deep.as_bytes(), None), Err(ManifestError::Malformed(..))));
        let mut hostile = manifest(1);
        hostile["layers"][0]["digest"] = "sha256:../../x".into();
        assert!(matches!(read(&hostile, None), Err(ManifestError::Malformed(..))));
        hostile["layers"][0]["digest"] = Digest::of(b"").to_string().into();
        hostile["layers"][0]["size"] = (-1).into();
        assert!(matches!(read(&hostile, None), Err(ManifestError::Malformed(..))));
    }

    #[test]
    fn chain_ids_bind_the_order() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(chain_ids(&[a, b])[1], Digest::of(format!("{a} {b}").as_bytes()));
        assert_eq!(chain_ids(&[a, b])[0], a);
        assert_ne!(chain_ids(&[a, b])[1], chain_ids(&[b, a])[1]);
    }
}
