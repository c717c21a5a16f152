//! `lamel pull`

use anyhow::Result;
use lamel_image::platform::Platform;
use lamel_image::registry::{Options, Wanted};
use lamel_image::store::Store;

use super::{Teller, TransferArgs, open, reference};
use crate::image::StoreArgs;
use crate::output::print;

/// Pull an image from a registry; it can be mounted as soon as this returns
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What breaks off goes on where it stopped, also the next time. Prints the image's digest.

Example:
  lamel pull docker.io/library/alpine:3")]
pub(crate) struct Args {
    /// The image's name; as docker has it, alpine is docker.io/library/alpine:latest
    #[arg(value_name = "REF")]
    name: String,
    /// Of several images under one name, the one for this platform [default: this host's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with = "all_platforms")]
    platform: Option<Platform>,
    /// All images under the name
    #[arg(long)]
    all_platforms: bool,
    #[command(flatten)]
    transfer: TransferArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// Pulls.
pub(crate) fn run(args: &Args) -> Result<()> {
    let name = reference(&args.name)?;
    let wanted = match (&args.platform, args.all_platforms) {
        (_, true) => Wanted::All,
        (Some(platform), false) => Wanted::Platform(platform.clone()),
        (None, false) => Wanted::Host,
    };
    let (store, registries) = (args.store.open()?, args.transfer.registries()?);
    let teller = Teller::new(args.transfer.quiet);
    teller.say(&format!("pulling {name}"));
    let progress = |digest: &_, step| teller.step(digest, step, "pulled");
    let pulled = registries.pull(&store, &name, &wanted, &progress)?;
    print([pulled.digest.to_string().into_bytes()])
}

/// Pulls an image that a command needs.
pub(crate) fn implicitly(store: &Store, name: &str, platform: Option<&Platform>, quiet: bool) -> Result<()> {
    let name = reference(name)?;
    let wanted = platform.map_or(Wanted::Host, |platform| Wanted::Platform(platform.clone()));
    let teller = Teller::new(quiet);
    teller.say(&format!("pulling {name}"));
    let progress = |digest: &_, step| teller.step(digest, step, "pulled");
    open(Options::default())?.pull(store, &name, &wanted, &progress)?;
    Ok(())
}
