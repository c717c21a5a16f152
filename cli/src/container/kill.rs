//! `lamel kill`

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::wire::Request;
use super::{control, each, signal};
use crate::image::StoreArgs;

/// Send a signal to the first process of containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Kills.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let number = signal::parse(&args.signal)?;
    let containers = super::containers(&args.store)?;
    each(&args.containers, |name| {
        let record = containers.find(name)?;
        match control::ask(&record, &Request::Signal(number))? {
            Some(_) => Ok(Some(name.to_owned())),
            None => bail!("cannot kill container: {name}: container {} is not running", record.id()),
        }
    })
}
