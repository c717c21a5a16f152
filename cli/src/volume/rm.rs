//! `lamel volume rm`

use anyhow::{Result, bail};

use crate::image::StoreArgs;
use crate::launch::told;
use crate::output::print;

/// Remove volumes with what is in them
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// A volume that is not there is no error
    #[arg(short, long)]
    force: bool,
    /// Names, or their first letters
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

/// Removes, goes on after those that cannot be, and fails at the end for all of them.
pub(super) fn run(args: &Args) -> Result<()> {
    let (volumes, containers) = super::volumes(&args.store)?;
    let mut failed = Vec::new();
    for name in &args.names {
        if args.force && volumes.find(name)?.is_none() {
            continue;
        }
        let removed = volumes.get(name).and_then(|volume| {
            volumes.remove(&volume, &containers)?;
            print([volume.about.name.into_bytes()])
        });
        failed.extend(removed.err().map(|error| told(&error)));
    }
    if failed.is_empty() { Ok(()) } else { bail!(failed.join("; ")) }
}
