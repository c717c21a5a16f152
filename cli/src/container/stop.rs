//! `lamel stop`

use std::process::ExitCode;

use anyhow::Result;

use super::control;
use super::each_at_once;
use super::wire::Request;
use crate::image::StoreArgs;

/// What `lamel restart` takes too.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// Seconds after which it is killed [default: as it was made, else 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    pub(super) time: Option<u32>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(super) containers: Vec<String>,
}

/// Stops.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let containers = super::containers(&args.store)?;
    each_at_once(&args.containers, |name| {
        let record = containers.find(name)?;
        control::ask(&record, &Request::Stop(args.time))?;
        Ok(Some(name.to_owned()))
    })
}
