//! Docker's archives: `manifest.json` names configuration, layers and tags of
//! each image by their place in the archive.

use serde::{Deserialize, Deserializer};

use super::load::{Loaded, add_image, take_layer};
use super::members::Members;
use super::{ArchiveError, Result};
use crate::manifest::{ImageConfig, MAX_CONFIG, MAX_MANIFEST, ManifestError};
use crate::store::Writer;

/// An image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default, deserialize_with = "or_empty")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    layers: Vec<String>,
}

fn or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a list for the fuzz targets.
pub(crate) fn fuzz_list(bytes: &[u8]) {
    let Ok(items) = crate::manifest::parse::<Vec<Item>>("manifest", bytes, MAX_MANIFEST) else { return };
    for item in items {
        item.repo_tags.iter().for_each(|tag| crate::fuzz::reference(tag));
    }
}

/// Takes in all images of an archive.
pub(super) fn images(members: &Members, writer: &Writer<'_>) -> Result<Vec<Loaded>> {
    let name = "manifest.json";
    let items: Vec<Item> = members.json("manifest", name, MAX_MANIFEST)?.ok_or(ArchiveError::NoImage)?;
    items.into_iter().map(|item| image(members, writer, item)).collect()
}

fn image(members: &Members, writer: &Writer<'_>, item: Item) -> Result<Loaded> {
    // Before anything is taken in.
    let names = item.repo_tags.iter().map(|tag| tag.parse()).collect::<Result<_, _>>()?;
    let failed = |source| ArchiveError::Document { name: item.config.clone(), source };
    let missing = || ArchiveError::Missing(item.config.clone());
    let bytes = members.read("configuration", &item.config, MAX_CONFIG)?.ok_or_else(missing)?;
    let config = ImageConfig::parse(&bytes).map_err(failed)?;
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != item.layers.len() {
        return Err(failed(ManifestError::LayerCount { layers: item.layers.len(), diff_ids: diff_ids.len() }));
    }
    let layers = item.layers.iter().zip(diff_ids);
    let layers =
        layers.map(|(name, diff_id)| take_layer(writer, members, name, *diff_id)).collect::<Result<Vec<_>>>()?;
    Ok(Loaded { descriptor: add_image(writer, &bytes, &layers)?, names })
}
