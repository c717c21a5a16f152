//! `lamel load`

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use lamel_image::archive::{self, Input};
use lamel_image::reference::Reference;
use lamel_image::store::Prune;

use super::StoreArgs;
use crate::output::print;

/// Load images from an archive or a directory
///
/// What `docker save`, `podman save`, `buildah push` and `skopeo copy` write is taken: Docker's
/// archives of any age, OCI archives and OCI directories, compressed or not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// The archive or directory; `-` is standard input
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// The name of the only image, in place of those that the archive gives it
    #[arg(long, value_name = "REF")]
    tag: Option<Reference>,
    /// Print the ids alone
    #[arg(short, long)]
    quiet: bool,
}

/// Loads.
pub(crate) fn run(args: &Args) -> Result<()> {
    let store = args.store.open()?;
    let shown = args.input.display();
    let input = open(&args.input).with_context(|| shown.to_string())?;
    let writer = store.writer()?;
    let loaded = archive::load(&writer, input, args.tag.as_ref()).with_context(|| shown.to_string());
    drop(writer);
    if loaded.is_err() {
        // Layers that came before what is wrong.
        store.prune(Prune::Garbage, false).ok();
    }
    let loaded = loaded?;
    print(loaded.iter().flat_map(|image| {
        let digest = image.descriptor.digest;
        match image.names.as_slice() {
            _ if args.quiet => vec![digest.to_string().into_bytes()],
            [] => vec![format!("Loaded image ID: {digest}").into_bytes()],
            names => names.iter().map(|name| format!("Loaded image: {name}").into_bytes()).collect(),
        }
    }))
}

fn open(path: &Path) -> Result<Input> {
    if path.as_os_str() == "-" {
        return Ok(Input::Stream(Box::new(std::io::stdin())));
    }
    if path.is_dir() {
        return Ok(Input::Directory(path.to_owned()));
    }
    Ok(Input::File(File::open(path)?))
}
