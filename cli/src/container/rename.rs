//! `lamel rename`

use anyhow::Result;

use crate::image::StoreArgs;

/// Give a container another name
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Its name or id
    container: String,
    /// The new name
    name: String,
}

/// Renames.
pub(super) fn run(args: &Args) -> Result<()> {
    let containers = super::containers(&args.store)?;
    let record = containers.find(&args.container)?;
    containers.rename(&record, &args.name)
}
