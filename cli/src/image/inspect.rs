//! `lamel inspect`

use anyhow::{Result, bail};
use lamel_image::platform::Platform;
use lamel_image::reference::Reference;
use lamel_image::store::Store;
use serde_json::{Value, json};

use super::template::Template;
use super::{StoreArgs, images};
use crate::launch::told;
use crate::output::print;

/// Show everything about images, as a JSON array
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// A template such as '{{json .Config.Env}}', filled in for each image
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Of an image for several platforms, the one for this [default: this host's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Names or ids of images
    #[arg(required = true, value_name = "REF")]
    images: Vec<String>,
}

/// Inspects.
pub(crate) fn run(args: &Args) -> Result<()> {
    let store = args.store.open()?;
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for text in &args.images {
        match describe(&store, text, args.platform.as_ref()) {
            Ok(value) => found.push(value),
            Err(error) => failed.push(told(&error)),
        }
    }
    match args.format.as_deref() {
        None | Some("json") => print([serde_json::to_vec_pretty(&found)?])?,
        Some(text) => {
            let template = Template::parse(text)?;
            let lines = found.iter().map(|value| template.render(value)).collect::<Result<Vec<_>>>()?;
            print(lines.into_iter().map(String::into_bytes))?;
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!(failed.join("; ")) }
}

fn describe(store: &Store, text: &str, platform: Option<&Platform>) -> Result<Value> {
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
