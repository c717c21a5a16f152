//! `lamel pause` and `lamel unpause`

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::wire::Request;
use super::{control, each};
use crate::image::StoreArgs;

/// Stop all processes of containers where they are
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
}

/// Let paused containers go on
#[derive(Debug, clap::Args)]
pub(crate) struct UnpauseArgs {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Which {
    #[command(flatten)]
    store: StoreArgs,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Pauses.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    ask(&args.which, &Request::Pause)
}

/// Lets go on.
pub(super) fn unpause(args: &UnpauseArgs) -> Result<ExitCode> {
    ask(&args.which, &Request::Unpause)
}

fn ask(which: &Which, request: &Request) -> Result<ExitCode> {
    let containers = super::containers(&which.store)?;
    each(&which.containers, |name| {
        let record = containers.find(name)?;
        match control::ask(&record, request)? {
            Some(_) => Ok(Some(name.to_owned())),
            None => bail!("container {name} is not running"),
        }
    })
}
