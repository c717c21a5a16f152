//! `lamel rm`

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::records::Containers;
use super::wire::Request;
use super::{control, each_at_once, events};
use crate::image::StoreArgs;
use crate::launch::complain;
use crate::volume;

/// Remove containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Kill it first if it runs; and what is not there needs no removing
    #[arg(short, long)]
    force: bool,
    /// Remove the volumes that were made for it alone too
    #[arg(short, long)]
    volumes: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Removes.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let containers = super::containers(&args.store)?;
    each_at_once(&args.containers, |name| match remove(&containers, name, args) {
        Ok(()) => Ok(Some(name.to_owned())),
        Err(error) if args.force && is_missing(&error) => {
            complain("lamel", &error);
            Ok(None)
        }
        Err(error) => Err(error),
    })
}

/// Whether an error says that there is no such container.
pub(super) fn is_missing(error: &anyhow::Error) -> bool {
    error.to_string().starts_with("No such container")
}

fn remove(containers: &Containers, name: &str, args: &Args) -> Result<()> {
    let force = args.force;
    let record = containers.find(name)?;
    let hold = loop {
        match record.hold() {
            Ok(Some(hold)) => break hold,
            Ok(None) if force => drop(control::ask(&record, &Request::Stop(Some(0)))?),
            Ok(None) => bail!(
                "cannot remove container {name:?}: container is running: stop the container before removing or force \
                 remove"
            ),
            // With --rm, its monitor was faster.
            Err(error) if force && is_missing(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    };
    containers.remove(&record, hold)?;
    if args.volumes {
        volume::discard_own(containers, &record.settings);
    }
    events::add(containers, "destroy", &record.settings, &[]);
    Ok(())
}
