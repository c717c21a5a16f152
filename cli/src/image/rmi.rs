//! `lamel rmi`

use anyhow::{Result, bail};
use lamel_image::store::{Named, Prune, Store};

use super::StoreArgs;
use crate::launch::told;
use crate::output::print;

/// Remove names of images, and images that have none left
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Also images that are mounted or that containers are made of, and all names of one that is given by its id
    #[arg(short, long)]
    force: bool,
    /// Names or ids of images
    #[arg(required = true, value_name = "REF")]
    images: Vec<String>,
}

/// Removes.
pub(crate) fn run(args: &Args) -> Result<()> {
    let store = crate::container::store_to_clean(&args.store)?;
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for text in &args.images {
        match remove(&store, text, args.force) {
            Ok(done) => lines.extend(done),
            Err(error) => failed.push(told(&error)),
        }
    }
    // If somebody adds to the store now, what is not needed any more goes with the next prune.
    if let Some(collected) = store.prune(Prune::Garbage, false)? {
        lines.extend(collected.blobs.iter().map(|blob| format!("Deleted: {blob}")));
    }
    print(lines.into_iter().map(String::into_bytes))?;
    if failed.is_empty() { Ok(()) } else { bail!(failed.join("; ")) }
}

fn remove(store: &Store, text: &str, force: bool) -> Result<Vec<String>> {
    let found = store.find(text)?;
    if found.additional {
        bail!("{text} lies in an additional store, which is only read");
    }
    let digest = found.descriptor.digest;
    let others: Vec<Named> =
        store.images()?.into_iter().filter(|image| !image.additional && image.descriptor.digest == digest).collect();
    let by_name = found.name.as_ref().filter(|_| found.is_called(text));
    if by_name.is_none() && others.len() > 1 && !force {
        bail!("{text} has {} names: remove them, or the image with --force", others.len());
    }
    let last = by_name.is_none() || others.len() == 1;
    if last && !force && store.is_in_use(&digest)? {
        bail!("{text} is mounted, or a container is made of it: remove that first, or the image with --force");
    }
    let writer = store.writer()?;
    let gone = match by_name {
        Some(name) if !last => {
            writer.untag(name)?;
            vec![name.clone()]
        }
        _ => writer.remove(&digest)?,
    };
    Ok(gone.iter().map(|name| format!("Untagged: {name}")).collect())
}
