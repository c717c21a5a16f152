//! `lamel save`

use std::path::PathBuf;

use anyhow::{Result, bail};
use lamel_image::archive::{Format, save_archive, save_dir};
use lamel_image::manifest::Descriptor;
use lamel_image::reference::Reference;

use super::StoreArgs;
use crate::output::write_archive;

/// Save images into an archive or a directory
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Where to; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// What to write; an OCI archive is one that Docker loads too
    #[arg(long, value_enum, default_value = "oci-archive")]
    format: Kind,
    /// Names or ids of images
    #[arg(required = true, value_name = "REF")]
    images: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    OciArchive,
    DockerArchive,
    OciDir,
}

/// Saves.
pub(crate) fn run(args: &Args) -> Result<()> {
    let store = args.store.open()?;
    let mut images: Vec<(Descriptor, Vec<Reference>)> = Vec::new();
    for text in &args.images {
        let found = store.find(text)?;
        // An image that is asked for by its id is saved without a name.
        let by_name = found.name.clone().filter(|_| found.is_called(text));
        match images.iter_mut().find(|(known, _)| known.digest == found.descriptor.digest) {
            Some((_, names)) => names.extend(by_name),
            None => images.push((found.descriptor, by_name.into_iter().collect())),
        }
    }
    let format = match args.format {
        Kind::OciDir if args.output.as_os_str() == "-" => bail!("a directory needs a name: give one by -o"),
        Kind::OciDir => return Ok(save_dir(&store, &images, &args.output)?),
        Kind::OciArchive => Format::Oci,
        Kind::DockerArchive => Format::Docker,
    };
    write_archive(&args.output, |out| Ok(save_archive(&store, &images, format, out)?))
}
