//! `lamel restart`

use std::process::ExitCode;

use anyhow::Result;
use lamel_isolate::exe;

use super::wire::{Reply, Request};
use super::{control, each, start};
use crate::image::StoreArgs;

/// Stop containers, if they run, and start them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Seconds after which it is killed [default: as it was made, else 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u32>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Restarts.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    exe::protect()?;
    let containers = super::containers(&args.store)?;
    each(&args.containers, |name| {
        let record = containers.find(name)?;
        if control::ask(&record, &Request::Restart(args.time))? != Some(Reply::Done) {
            start::start(&args.store, &containers, &record, false)?;
        }
        Ok(Some(name.to_owned()))
    })
}
