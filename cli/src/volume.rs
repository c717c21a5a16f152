//! `lamel volume`: directories that outlive containers, a file for each subcommand.
//!
//! Reading order: [`store`] (what is on the disk), [`fill`] (where their first content comes from), [`attach`] (how a
//! container gets them), the commands.

pub(crate) mod attach;
mod create;
pub(crate) mod fill;
mod inspect;
mod ls;
mod prune;
mod rm;
pub(crate) mod store;

use anyhow::Result;
use clap::Subcommand;

use crate::container::records::Containers;
use crate::container::settings::Settings;
use crate::image::StoreArgs;
use store::Volumes;

/// Make, list and remove volumes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Args),
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    Inspect(inspect::Args),
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
    Prune(prune::Args),
}

/// Does it.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Create(args) => create::run(args),
        Command::Ls(args) => ls::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Rm(args) => rm::run(args),
        Command::Prune(args) => prune::run(args),
    }
}

/// Removes the volumes that were made for a container alone, which is no longer known itself.
pub(crate) fn discard_own(containers: &Containers, settings: &Settings) {
    let own: Vec<String> =
        settings.volumes.iter().filter(|used| used.anonymous).map(|used| used.name.clone()).collect();
    if own.is_empty() {
        return;
    }
    match Volumes::open(containers.store()) {
        Ok(volumes) => volumes.remove_anonymous(own, containers),
        Err(error) => tracing::warn!("volumes: {error:#}"),
    }
}

/// The volumes of a store, and the containers that may use them.
fn volumes(store: &StoreArgs) -> Result<(Volumes, Containers)> {
    let containers = Containers::open(&store.path()?)?;
    Ok((Volumes::open(containers.store())?, containers))
}
