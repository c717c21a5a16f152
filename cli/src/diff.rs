//! `lamel diff`

use anyhow::{Result, bail};

/// Not there yet
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<()> {
    bail!("lamel diff is not there yet")
}
