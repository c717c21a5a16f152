//! Docker's archives before version 1.10: a directory for each layer, in which
//! `json` names the parent, and `repositories` names the topmost ones.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::load::{Loaded, add_image};
use super::members::Members;
use super::{ArchiveError, Result};
use crate::decompress::{Decompressed, Expansion};
use crate::manifest::{History, ImageConfig, MAX_CONFIG, MAX_LAYERS, MAX_MANIFEST, RunConfig};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Layer, Writer};

/// What such a `json` says of its layer.
#[derive(Debug, Deserialize)]
struct Step {
    #[serde(default)]
    parent: String,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    comment: String,
    #[serde(default)]
    config: Option<RunConfig>,
    #[serde(default)]
    container_config: Option<Map<String, Value>>,
}

/// Takes in all images that have a name.
pub(super) fn images(members: &Members, writer: &Writer<'_>) -> Result<Vec<Loaded>> {
    type Repositories = BTreeMap<String, BTreeMap<String, String>>;
    let repositories: Repositories =
        members.json("repositories", "repositories", MAX_MANIFEST)?.ok_or(ArchiveError::NoImage)?;
    let mut by_top: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
    for (repository, tags) in repositories {
        for (tag, top) in tags {
            by_top.entry(top).or_default().push(format!("{repository}:{tag}").parse()?);
        }
    }
    by_top.into_iter().map(|(top, names)| Ok(Loaded { descriptor: image(members, writer, top)?, names })).collect()
}

fn image(members: &Members, writer: &Writer<'_>, top: String) -> Result<crate::manifest::Descriptor> {
    let mut steps: Vec<(String, Step)> = Vec::new();
    let mut next = top;
    while !next.is_empty() {
        // Also ends a circle.
        if steps.len() == MAX_LAYERS || steps.iter().any(|(id, _)| *id == next) {
            return Err(ArchiveError::Circle(next));
        }
        let name = format!("{next}/json");
        let step: Step = members.json("configuration", &name, MAX_CONFIG)?.ok_or(ArchiveError::Missing(name))?;
        let parent = step.parent.clone();
        steps.push((std::mem::replace(&mut next, parent), step));
    }
    steps.reverse();
    let mut layers: Vec<Layer> = Vec::new();
    let mut history = Vec::new();
    for (id, step) in &steps {
        let data = members.need(&format!("{id}/layer.tar"))?.data;
        layers.push(writer.new_layer(Decompressed::new(data, Expansion::default()).map_err(ArchiveError::Read)?)?);
        history.push(History {
            created: step.created.clone(),
            created_by: command(step),
            comment: step.comment.clone(),
            ..History::default()
        });
    }
    let diff_ids = layers.iter().map(|layer| layer.blob.diff_id).collect();
    let host = Platform::host();
    let mut config = ImageConfig::new(&host, diff_ids);
    config.history = history;
    if let Some((_, step)) = steps.pop() {
        (config.created, config.author) = (step.created, step.author);
        config.config = step.config.unwrap_or_default();
        for (field, said) in [(&mut config.architecture, step.architecture), (&mut config.os, step.os)] {
            if !said.is_empty() {
                *field = said;
            }
        }
    }
    let failed =
        |error: serde_json::Error| ArchiveError::Write { what: "configuration".to_owned(), source: error.into() };
    add_image(writer, &serde_json::to_vec(&config).map_err(failed)?, &layers)
}

/// The instruction that made a layer.
fn command(step: &Step) -> String {
    let words = step.container_config.as_ref().and_then(|config| config.get("Cmd")).and_then(Value::as_array);
    let words = words.map(|words| words.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    words.unwrap_or_default().join(" ")
}
