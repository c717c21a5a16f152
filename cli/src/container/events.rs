//! The file `events`: what happened to containers, a JSON object a line.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;

use anyhow::Result;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::records::Containers;
use super::settings::Settings;

/// Bytes of the file, after which a new one is begun and the one before the last forgotten.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) time: Timestamp,
    /// `container`, `volume`, `network`.
    pub(crate) kind: String,
    pub(crate) action: String,
    pub(crate) id: String,
    /// Of a container: its name, image and labels, and what belongs to the action.
    pub(crate) attributes: BTreeMap<String, String>,
}

/// Writes down what happened to a container. Where that fails, it has happened all the same.
pub(crate) fn add(containers: &Containers, action: &str, settings: &Settings, more: &[(&str, String)]) {
    let mut attributes = settings.labels.clone();
    attributes.insert("name".to_owned(), settings.name.clone());
    attributes.insert("image".to_owned(), settings.image_name());
    attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let event = Event {
        time: Timestamp::now(),
        kind: "container".to_owned(),
        action: action.to_owned(),
        id: settings.id.clone(),
        attributes,
    };
    if let Err(error) = write(containers, &event) {
        tracing::warn!("the event {action} is not written down: {error:#}");
    }
}

/// Adds a line. It is whole: the file is locked meanwhile.
pub(crate) fn write(containers: &Containers, event: &Event) -> Result<()> {
    let path = containers.events();
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    loop {
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        if file.metadata()?.len() < MAX_FILE {
            return Ok(file.write_all(&line)?);
        }
        // Who waits for the lock then writes one line more into the old file, which is as well.
        fs::rename(&path, path.with_extension("old"))?;
    }
}
