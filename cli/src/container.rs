//! Containers: the commands that make, run and look at them, a file each.
//!
//! Reading order: `settings` and `state` (what is on the disk), `record` and `records` (one container, and all of
//! them), then the commands.

pub(crate) mod record;
pub(crate) mod records;
pub(crate) mod settings;
pub(crate) mod state;

mod exec;
mod names;
mod process;
mod remove;
mod rename;
mod stats;
mod terminal;
mod top;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::image::StoreArgs;
use crate::launch::complain;
use crate::log::LogArgs;
use records::Containers;

/// What is done with containers.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Rename(rename::Args),
    Exec(exec::Args),
    Top(top::Args),
    Stats(stats::Args),
}

/// Does it; the exit status is this program's.
pub(crate) fn run(command: Command, log: &LogArgs) -> ExitCode {
    let done = log.init().and_then(|()| match command {
        Command::Exec(args) => exec::run(&args),
        Command::Top(args) => top::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Stats(args) => stats::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Rename(args) => rename::run(&args).map(|()| ExitCode::SUCCESS),
    });
    done.unwrap_or_else(|error| {
        complain("lamel", &error);
        ExitCode::FAILURE
    })
}

/// The containers of a store.
pub(crate) fn containers(store: &StoreArgs) -> Result<Containers> {
    Containers::open(&store.path()?)
}
