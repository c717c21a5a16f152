//! The subcommands that work on the image store, a file each.

mod history;
mod human;
mod images;
mod import;
mod inspect;
mod load;
mod prune;
mod registry;
mod rmi;
mod save;
mod store;
mod tag;
mod template;
mod verify;

use anyhow::Result;
use clap::Subcommand;

use registry::{login, pull, push};
pub(crate) use store::{StoreArgs, find};

/// What is done with images.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Pull(pull::Args),
    Push(push::Args),
    Login(login::Args),
    Logout(login::LogoutArgs),
    Load(load::Args),
    Save(save::Args),
    Import(import::Args),
    Images(images::Args),
    Inspect(inspect::Args),
    History(history::Args),
    Tag(tag::Args),
    Rmi(rmi::Args),
    Prune(prune::Args),
    Verify(verify::Args),
}

/// Does it.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Pull(args) => pull::run(&args),
        Command::Push(args) => push::run(&args),
        Command::Login(args) => login::run(&args),
        Command::Logout(args) => login::logout(&args),
        Command::Load(args) => load::run(&args),
        Command::Save(args) => save::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::History(args) => history::run(&args),
        Command::Tag(args) => tag::run(&args),
        Command::Rmi(args) => rmi::run(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Verify(args) => verify::run(&args),
    }
}
