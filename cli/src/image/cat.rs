//! `lamel cat`

use std::ffi::OsString;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

use super::inside::{InsideArgs, for_each};

/// Write files of an image to standard output, without a mount
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    inside: InsideArgs,
    /// An image and a file in it; symlinks are followed inside the image
    #[arg(required = true, value_name = "REF:PATH")]
    places: Vec<OsString>,
}

/// Writes them.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut out = io::stdout().lock();
    for_each(&args.inside, &args.places, |view, inside| {
        let file = view.resolve(&inside.path, true)?;
        view.write_content(&file, &mut out)?;
        out.flush().context("standard output")
    })
}
