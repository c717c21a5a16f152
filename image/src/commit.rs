//! An image of what a container changed: the layers of the one below as they are, and one more.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use lamel_unionfs::changeset::Stack;
use serde::Serialize;

use crate::archive::Change;
use crate::changeset::{PackError, write_changes};
use crate::manifest::{Descriptor, History, ImageConfig, Manifest, RunConfig, media};
use crate::platform::Platform;
use crate::store::{Image, Layer, StoreError, Writer};

/// Members of a configuration that tell how an older image was made.
const STALE: [&str; 5] = ["container", "container_config", "docker_version", "id", "parent"];

/// Which documents an image has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// OCI's.
    #[default]
    Oci,
    /// Docker's.
    Docker,
}

/// What the new image is to be.
#[derive(Clone, Debug)]
pub struct Commit<'a> {
    /// What the container was made of, if it was an image.
    pub base: Option<&'a Image>,
    /// What it runs on, if it was none.
    pub platform: Platform,
    /// How the container was run.
    pub run: RunConfig,
    /// What is changed of that.
    pub changes: &'a [Change],
    /// When it is made, as RFC 3339 has it.
    pub created: String,
    /// Who makes it.
    pub author: Option<String>,
    /// A remark in its history.
    pub comment: String,
    /// The command that made the changes.
    pub created_by: String,
    /// Of its documents.
    pub format: Format,
}

/// Why there is no new image.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The container's files cannot be read.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No pipe, or a document that cannot be written.
    #[error("{0}")]
    Write(#[from] io::Error),
}

type Result<T, E = CommitError> = std::result::Result<T, E>;

/// Adds the changes of a stack's upper as a layer on those of the image below; the image has no name yet.
///
/// The upper is read once, while the layer is hashed, indexed and stored; neither the layers below nor their size matter.
///
/// # Errors
/// Nothing is named in the store then.
pub fn commit(writer: &Writer<'_>, stack: &Stack, what: &Commit<'_>) -> Result<Descriptor> {
    let layer = make_layer(writer, stack)?;
    let mut config = match what.base {
        Some(base) => base.config.clone(),
        None => ImageConfig::new(&what.platform, Vec::new()),
    };
    // Each layer has a step: those that an older image does not tell of are there too.
    let told = config.history.iter().filter(|step| !step.empty_layer).count();
    let untold = config.rootfs.diff_ids.len().saturating_sub(told);
    config.history.extend(std::iter::repeat_n(History::default(), untold));
    config.history.push(History {
        created: Some(what.created.clone()),
        created_by: what.created_by.clone(),
        comment: what.comment.clone(),
        other: what.author.iter().map(|author| ("author".to_owned(), author.as_str().into())).collect(),
        ..History::default()
    });
    config.created = Some(what.created.clone());
    if what.author.is_some() {
        config.author.clone_from(&what.author);
    }
    config.other.retain(|key, _| !STALE.contains(&key.as_str()));
    config.rootfs.diff_ids.push(layer.blob.diff_id);
    config.config = what.run.clone();
    for change in what.changes {
        change.apply(&mut config.config);
    }
    let docker = what.format == Format::Docker;
    let (config_type, manifest_type) =
        if docker { (media::DOCKER_CONFIG, media::DOCKER_MANIFEST) } else { (media::CONFIG, media::MANIFEST) };
    let config = put(writer, config_type, &config)?;
    let below = what.base.iter().flat_map(|base| base.manifest.layers.iter().cloned());
    let layers = below.chain([layer.descriptor()]).map(|mut layer| {
        layer.media_type = media_type(&layer.media_type, docker);
        layer
    });
    let mut manifest = Manifest::new(config, layers.collect());
    manifest.media_type = manifest_type.to_owned();
    put(writer, manifest_type, &manifest)
}

fn put(writer: &Writer<'_>, kind: &str, document: &impl Serialize) -> Result<Descriptor> {
    Ok(writer.put(kind, &serde_json::to_vec(document).map_err(io::Error::from)?)?)
}

/// The media type of a layer in the other family of documents; the bytes are the same.
fn media_type(kind: &str, docker: bool) -> String {
    let ending = ["gzip", "zstd"].into_iter().find(|ending| kind.ends_with(ending));
    let elsewhere = kind.contains("nondistributable") || kind.contains("foreign");
    let (stem, join) = match (docker, elsewhere) {
        (true, false) => ("application/vnd.docker.image.rootfs.diff.tar", "."),
        (true, true) => ("application/vnd.docker.image.rootfs.foreign.diff.tar", "."),
        (false, false) => (media::LAYER, "+"),
        (false, true) => ("application/vnd.oci.image.layer.nondistributable.v1.tar", "+"),
    };
    ending.map_or_else(|| stem.to_owned(), |ending| format!("{stem}{join}{ending}"))
}

/// The upper is walked in a thread of its own, and what it gives taken in by this one.
fn make_layer(writer: &Writer<'_>, stack: &Stack) -> Result<Layer> {
    let (reader, pipe) = io::pipe()?;
    let whole = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let whole = &whole;
        let walk = scope.spawn(move || {
            let done = write_changes(stack, io::BufWriter::with_capacity(1 << 16, pipe));
            // Said before the pipe is closed, whose end the other thread waits for.
            done.map(|pipe: io::BufWriter<PipeWriter>| {
                whole.store(true, Ordering::Release);
                drop(pipe);
            })
        });
        let layer = writer.new_layer(Walked { reader, whole });
        match walk.join() {
            Ok(Ok(())) => Ok(layer?),
            // Nobody took what it gave: why, that one says.
            Ok(Err(PackError::Write(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
                layer.map_err(CommitError::from).and(Err(error.into()))
            }
            Ok(Err(error)) => Err(error.into()),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A stream that ends well only if everything was written to it.
struct Walked<'a> {
    reader: PipeReader,
    whole: &'a AtomicBool,
}

impl Read for Walked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.reader.read(buffer)? {
            0 if !buffer.is_empty() && !self.whole.load(Ordering::Acquire) => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_named_in_either_family() {
        let (oci, docker) = ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar");
        for (suffix, ending) in [("", ""), ("+gzip", ".gzip"), ("+zstd", ".zstd")] {
            let (oci, docker) = (format!("{oci}{suffix}"), format!("{docker}{ending}"));
            assert_eq!(media_type(&oci, true), docker);
            assert_eq!(media_type(&docker, false), oci);
            assert_eq!(media_type(&oci, false), oci);
        }
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        assert_eq!(media_type(&media_type(foreign, false), true), foreign);
    }
}
