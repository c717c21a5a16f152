//! `lamel wait`

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::record::Record;
use super::wire::{Buffer, Reply, Request};
use super::{control, each};
use crate::image::StoreArgs;

/// Wait until containers end, and print their exit codes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Waits.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let containers = super::containers(&args.store)?;
    each(&args.containers, |name| Ok(Some(code(&containers.find(name)?)?.to_string())))
}

/// The exit code of a container, once it has one.
fn code(record: &Record) -> Result<i32> {
    if let Some(line) = control::connect(record)?
        && line.ask(&Request::Wait).is_ok()
        && let Some(Reply::Exited(code)) = line.answer(&mut Buffer::new()).context("the container's monitor")?
    {
        return Ok(code);
    }
    Ok(record.state()?.exit_code)
}
