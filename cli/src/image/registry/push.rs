//! `lamel push`

use anyhow::{Context as _, Result};

use super::{Teller, TransferArgs, reference};
use crate::image::StoreArgs;
use crate::output::print;

/// Push an image to a registry
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What the registry has is not sent again. Prints the digest that the image has there.

Example:
  lamel push localhost/tool:1 registry.example/team/tool:1")]
pub(crate) struct Args {
    /// The image, by name or id
    #[arg(value_name = "REF")]
    image: String,
    /// Its name on the registry [default: its own]
    #[arg(value_name = "DEST")]
    destination: Option<String>,
    #[command(flatten)]
    transfer: TransferArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// Pushes.
pub(crate) fn run(args: &Args) -> Result<()> {
    let store = args.store.open()?;
    let image = store.find(&args.image)?;
    let destination = match &args.destination {
        Some(text) => reference(text)?,
        None => image.name.clone().context("an image without a name: say where to push it")?,
    };
    let registries = args.transfer.registries()?;
    let teller = Teller::new(args.transfer.quiet);
    teller.say(&format!("pushing {destination}"));
    let progress = |digest: &_, step| teller.step(digest, step, "pushed");
    let pushed = registries.push(&store, &image, &destination, &progress)?;
    if pushed.digest != image.descriptor.digest {
        teller.say("not all images of the index are in the store: those that are were pushed");
    }
    print([pushed.digest.to_string().into_bytes()])
}
