//! `lamel prune`

use anyhow::Result;
use lamel_image::store::{Named, Prune};

use super::StoreArgs;
use crate::launch::warn;
use crate::output::human;
use crate::output::print;

/// Remove images without a name, and everything that no image needs
///
/// Interrupted downloads are given up. Waits for pulls and loads that are under way.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// All images that are not mounted and of which there are no containers, also those with a name
    #[arg(short, long)]
    all: bool,
    /// Taken for the sake of scripts: nothing is asked
    #[arg(short, long, hide = true)]
    force: bool,
}

/// Prunes.
pub(crate) fn run(args: &Args) -> Result<()> {
    let store = crate::container::store_to_clean(&args.store)?;
    let which = if args.all { Prune::Unused } else { Prune::Unnamed };
    let collected = match store.prune(which, false)? {
        Some(collected) => collected,
        None => {
            warn("waiting for those who add to the store");
            // Asked to wait, there is always an answer.
            store.prune(which, true)?.unwrap_or_default()
        }
    };
    let image = |image: &Named| match &image.name {
        Some(name) => format!("Untagged: {name}"),
        None => format!("Removed: {}", image.descriptor.digest),
    };
    let images = collected.images.iter().map(image);
    let blobs = collected.blobs.iter().map(|blob| format!("Deleted: {blob}"));
    let total = format!("Total reclaimed space: {}", human::size(collected.bytes));
    print(images.chain(blobs).chain([total]).map(String::into_bytes))
}
