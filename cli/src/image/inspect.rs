//! What `lamel inspect` tells of an image.

use anyhow::Result;
use lamel_image::platform::Platform;
use lamel_image::reference::Reference;
use lamel_image::store::Store;
use serde_json::{Value, json};

use super::images;

/// Everything about an image, in docker's words.
pub(crate) fn describe(store: &Store, text: &str, platform: Option<&Platform>) -> Result<Value> {
    let (named, image) = super::store::find(store, text, platform)?;
    let digest = named.descriptor.digest;
    let names: Vec<Reference> = store
        .images()?
        .into_iter()
        .filter(|other| other.descriptor.digest == digest)
        .filter_map(|other| other.name)
        .collect();
    let mut repositories: Vec<String> = names.iter().map(|name| format!("{}@{digest}", name.familiar_name())).collect();
    repositories.sort();
    repositories.dedup();
    let tag = |name: &Reference| format!("{}:{}", name.familiar_name(), name.tag().unwrap_or_default());
    let config = &image.config;
    Ok(json!({
        "Id": image.id(),
        "Digest": digest,
        "RepoTags": names.iter().map(tag).collect::<Vec<_>>(),
        "RepoDigests": repositories,
        "Created": config.created,
        "Author": config.author.clone().unwrap_or_default(),
        "Architecture": config.architecture,
        "Variant": config.variant.clone().unwrap_or_default(),
        "Os": config.os,
        "Config": config.config,
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
        "History": config.history,
        "Size": images::size(store, &image),
        "Manifest": image.manifest,
    }))
}
