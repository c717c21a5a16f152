//! `lamel tag`

use anyhow::Result;
use lamel_image::reference::Reference;

use super::StoreArgs;

/// Give an image more names
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// A name or an id of the image
    #[arg(value_name = "REF")]
    image: String,
    /// The new names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Reference>,
}

/// Tags.
pub(crate) fn run(args: &Args) -> Result<()> {
    let store = args.store.open()?;
    let writer = store.writer()?;
    let found = store.find(&args.image)?;
    if found.additional {
        // The name is the own store's; what it needs is found in the other one.
        tracing::info!("{} lies in an additional store", args.image);
    }
    for name in &args.names {
        writer.tag(name, &found.descriptor)?;
    }
    Ok(())
}
