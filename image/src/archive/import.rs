//! A root filesystem as an image of one layer.

use std::io::Read;

use super::load::add_image;
use super::{ArchiveError, Change, Result};
use crate::decompress::{Decompressed, Expansion};
use crate::manifest::{Descriptor, History, ImageConfig};
use crate::platform::Platform;
use crate::store::Writer;

/// What an imported image is to be.
#[derive(Clone, Debug)]
pub struct Import<'a> {
    /// What it runs on.
    pub platform: Platform,
    /// When it is made, as RFC 3339 has it.
    pub created: String,
    /// A remark in its history.
    pub comment: String,
    /// How it is run, in instructions of a Dockerfile.
    pub changes: &'a [Change],
}

/// Adds a root filesystem, compressed or not, to the store; it has no name yet.
///
/// # Errors
/// It is no tar of a layer, or the store cannot be written.
pub fn import(writer: &Writer<'_>, source: impl Read + Send, what: &Import<'_>) -> Result<Descriptor> {
    // Stored as the tar that it is: then the layer takes no more place than it.
    let tar = Decompressed::new(source, Expansion::default()).map_err(ArchiveError::Read)?;
    let layer = writer.new_layer(tar)?;
    let mut config = ImageConfig::new(&what.platform, vec![layer.blob.diff_id]);
    config.created = Some(what.created.clone());
    config.history =
        vec![History { created: Some(what.created.clone()), comment: what.comment.clone(), ..History::default() }];
    for change in what.changes {
        change.apply(&mut config.config);
    }
    let failed =
        |error: serde_json::Error| ArchiveError::Write { what: "configuration".to_owned(), source: error.into() };
    let descriptor = add_image(writer, &serde_json::to_vec(&config).map_err(failed)?, &[layer])?;
    writer.prepare(&writer.store().image(&descriptor, &what.platform)?)?;
    Ok(descriptor)
}
