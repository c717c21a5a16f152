//! The subcommands that work on the image store, a file each.

mod cat;
pub(crate) mod diff;
pub(crate) mod explain;
mod export;
mod find;
mod history;
mod images;
mod import;
mod inside;
pub(crate) mod inspect;
mod layers;
mod load;
mod ls;
mod prune;
mod registry;
mod rmi;
mod save;
mod stat;
pub(crate) mod store;
mod tag;
mod tree;
mod verify;

use anyhow::Result;
use clap::Subcommand;

pub(crate) use inside::{InsideArgs, is_path};
pub(crate) use registry::{duration, pull::implicitly as pull};
use registry::{login, push};
pub(crate) use store::{STORE_HEADING, StoreArgs, find, is_missing};

/// What is done with images.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Pull(registry::pull::Args),
    Push(push::Args),
    Login(login::Args),
    Logout(login::LogoutArgs),
    Load(load::Args),
    Save(save::Args),
    Import(import::Args),
    Images(images::Args),
    History(history::Args),
    Tag(tag::Args),
    Rmi(rmi::Args),
    Prune(prune::Args),
    Verify(verify::Args),
    Ls(ls::Args),
    Tree(tree::Args),
    Cat(cat::Args),
    Stat(stat::Args),
    Find(find::Args),
    Layers(layers::Args),
    Export(export::Args),
}

/// Does it.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Pull(args) => registry::pull::run(&args),
        Command::Push(args) => push::run(&args),
        Command::Login(args) => login::run(&args),
        Command::Logout(args) => login::logout(&args),
        Command::Load(args) => load::run(&args),
        Command::Save(args) => save::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Images(args) => images::run(&args),
        Command::History(args) => history::run(&args),
        Command::Tag(args) => tag::run(&args),
        Command::Rmi(args) => rmi::run(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Ls(args) => ls::run(&args),
        Command::Tree(args) => tree::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Stat(args) => stat::run(&args),
        Command::Find(args) => find::run(&args),
        Command::Layers(args) => layers::run(&args),
        Command::Export(args) => export::run(&args),
    }
}
