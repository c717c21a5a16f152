//! `lamel import`

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use lamel_image::archive::{Change, Import, import};
use lamel_image::platform::Platform;
use lamel_image::reference::Reference;

use super::StoreArgs;
use crate::output::print;

/// Make an image of one layer from the tar of a root filesystem
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// The tar, compressed or not; `-` is standard input
    #[arg(value_name = "TAR")]
    source: PathBuf,
    /// The image's name
    #[arg(value_name = "REF")]
    name: Option<Reference>,
    /// How the image is run, as an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL,
    /// STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<Change>,
    /// A remark in the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// What the image runs on [default: this host's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

/// Imports.
pub(crate) fn run(args: &Args) -> Result<()> {
    let store = args.store.open()?;
    let shown = args.source.display();
    let source: Box<dyn Read + Send> = if args.source.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(&args.source).with_context(|| shown.to_string())?)
    };
    let what = Import {
        platform: args.platform.clone().unwrap_or_else(Platform::host),
        created: Timestamp::now().to_string(),
        comment: args.message.clone().unwrap_or_else(|| format!("Imported from {shown}")),
        changes: &args.change,
    };
    let writer = store.writer()?;
    let image = import(&writer, source, &what).with_context(|| shown.to_string())?;
    match &args.name {
        Some(name) => writer.tag(name, &image)?,
        None => writer.add_unnamed(&image)?,
    }
    let id = store.image(&image, &what.platform)?.id();
    print([id.to_string().into_bytes()])
}
