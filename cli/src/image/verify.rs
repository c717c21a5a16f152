//! `lamel verify`

use anyhow::{Result, bail};
use lamel_image::store::Named;

use super::StoreArgs;
use crate::output::print;

/// Read everything in the store again and compare it with its digests; exits with 1 and names what
/// is bad
///
/// What is made of blobs (layers and indexes) is made again where it is bad.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Remove blobs that are bad, so that the next pull brings them again
    #[arg(long)]
    remove: bool,
    /// These images alone
    #[arg(value_name = "REF")]
    images: Vec<String>,
}

/// Verifies.
pub(crate) fn run(args: &Args) -> Result<()> {
    let store = args.store.open()?;
    let images: Vec<Named> = args.images.iter().map(|text| store.find(text)).collect::<Result<_, _>>()?;
    let some = (!images.is_empty()).then_some(images.as_slice());
    let verdict = store.verify(some, args.remove)?;
    print(verdict.faults.iter().map(|fault| {
        let done = if fault.repaired { " (made again)" } else { "" };
        format!("{}: {}{done}", fault.object, fault.problem).into_bytes()
    }))?;
    match verdict.faults.len() {
        0 => print([
            format!("{} blobs and {} layers are as they were written", verdict.blobs, verdict.layers).into_bytes()
        ]),
        1 => bail!("1 fault in {}", store.root().display()),
        count => bail!("{count} faults in {}", store.root().display()),
    }
}
