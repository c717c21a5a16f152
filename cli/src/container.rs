//! Containers: the commands that make, run and look at them, a file each.
//!
//! Reading order: `settings` and `state` (what is on the disk), `record` and `records` (one container, and all of
//! them), `monitor` (the process that each has on the host), `wire` and `control` (what is said to it), `layers`,
//! `namespace` and `copy` (a container's files from outside), then the commands.

pub(crate) mod control;
pub(crate) mod copy;
pub(crate) mod diff;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod monitor;
pub(crate) mod namespace;
pub(crate) mod record;
pub(crate) mod records;
pub(crate) mod remove;
pub(crate) mod settings;
pub(crate) mod signal;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod terminal;
pub(crate) mod wire;

mod attach;
mod commit;
mod cp;
mod create;
mod exec;
mod filter;
mod health;
pub(crate) mod healthcheck;
mod inspect;
mod kill;
mod layers;
mod listed;
mod log;
mod logs;
mod names;
mod pause;
mod places;
mod port;
mod process;
mod prune;
mod ps;
mod rename;
mod restart;
mod rm;
mod run;
mod stats;
mod stop;
mod time;
mod top;
mod wait;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use lamel_image::Store;

use crate::image::StoreArgs;
use crate::launch::complain;
use crate::log::LogArgs;
use crate::output::print;
use crate::run::failure_code;
use monitor::NotStarted;
use records::Containers;

/// What is done with containers.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<run::Args>),
    Create(Box<create::Args>),
    Start(start::Args),
    Attach(attach::Args),
    /// Ask containers to end, and kill those that do not
    Stop(stop::Args),
    Kill(kill::Args),
    /// Stop containers, if they run, and start them
    Restart(stop::Args),
    Pause(pause::Args),
    Unpause(pause::UnpauseArgs),
    Wait(wait::Args),
    Rm(rm::Args),
    Rename(rename::Args),
    Commit(commit::Args),
    Cp(cp::Args),
    Exec(exec::Args),
    Top(top::Args),
    Stats(stats::Args),
    Healthcheck(healthcheck::Args),
    Ps(ps::Args),
    Logs(logs::Args),
    Inspect(inspect::Args),
    Port(port::Args),
    Events(events::Args),
    #[command(hide = true)]
    RemoveTree(remove::Args),
}

/// The commands of `lamel container`: all of them, as docker groups them.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// List containers
    #[command(alias = "list")]
    Ls(ps::Args),
    Prune(prune::Args),
    #[command(flatten)]
    Other(Command),
}

/// Does it; the exit status is this program's.
pub(crate) fn run(command: Command, log: &LogArgs) -> ExitCode {
    let runs = matches!(command, Command::Run(_));
    let done = log.init().and_then(|()| perform(command));
    done.unwrap_or_else(|error| {
        complain("lamel", &error);
        match error.downcast_ref::<NotStarted>() {
            Some(failed) => ExitCode::from(failed.code),
            None if runs => ExitCode::from(failure_code(&error)),
            None => ExitCode::FAILURE,
        }
    })
}

/// The same for `lamel container`.
pub(crate) fn run_group(group: Group, log: &LogArgs) -> ExitCode {
    let done = match group {
        Group::Other(command) => return run(command, log),
        Group::Ls(args) => return run(Command::Ps(args), log),
        Group::Prune(args) => log.init().and_then(|()| prune::run(&args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain("lamel", &error);
            ExitCode::FAILURE
        }
    }
}

fn perform(command: Command) -> Result<ExitCode> {
    let quietly = |done: Result<()>| done.map(|()| ExitCode::SUCCESS);
    match command {
        Command::Run(args) => run::run(&args),
        Command::Create(args) => quietly(create::run(&args)),
        Command::Start(args) => start::run(&args),
        Command::Attach(args) => attach::run(&args),
        Command::Stop(args) => stop::run(&args),
        Command::Kill(args) => kill::run(&args),
        Command::Restart(args) => restart::run(&args),
        Command::Pause(args) => pause::run(&args),
        Command::Unpause(args) => pause::unpause(&args),
        Command::Wait(args) => wait::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Cp(args) => quietly(cp::run(&args)),
        Command::Commit(args) => quietly(commit::run(&args)),
        Command::Rename(args) => quietly(rename::run(&args)),
        Command::Exec(args) => exec::run(&args),
        Command::Top(args) => quietly(top::run(&args)),
        Command::Stats(args) => quietly(stats::run(&args)),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Ps(args) => quietly(ps::run(&args)),
        Command::Logs(args) => quietly(logs::run(&args)),
        Command::Inspect(args) => quietly(inspect::run(&args)),
        Command::Port(args) => quietly(port::run(&args)),
        Command::Events(args) => quietly(events::run(&args)),
        Command::RemoveTree(args) => quietly(remove::run(&args)),
    }
}

/// The containers of a store.
pub(crate) fn containers(store: &StoreArgs) -> Result<Containers> {
    let containers = Containers::open(&store.path()?)?;
    crate::network::sweep(containers.store());
    Ok(containers)
}

/// A store whose images are about to be removed, but for those that containers are made of.
pub(crate) fn store_to_clean(args: &StoreArgs) -> Result<Store> {
    let mut store = args.open()?;
    // Where no container was ever made, there is nothing to look at, and nothing is made.
    if store.root().join("containers").is_dir() {
        let used = Containers::open(store.root())?.list()?;
        store.keep(used.iter().filter_map(|record| Some(record.settings.image.as_ref()?.manifest)));
    }
    Ok(store)
}

/// A container's exit code as this program's.
fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

/// Does something with each of the named, and prints what comes of it. What fails is told, and the others are done.
fn each(names: &[String], act: impl Fn(&str) -> Result<Option<String>>) -> Result<ExitCode> {
    tell(names.iter().map(|name| act(name)))
}

/// The same with all of them at the same time.
fn each_at_once(names: &[String], act: impl Fn(&str) -> Result<Option<String>> + Sync) -> Result<ExitCode> {
    if names.len() < 2 {
        return each(names, act);
    }
    std::thread::scope(|scope| {
        let act = &act;
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || act(name))).collect();
        let panicked = |_| Err(anyhow::anyhow!("a thread panicked"));
        tell(threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)))
    })
}

fn tell(results: impl Iterator<Item = Result<Option<String>>>) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for result in results {
        match result {
            Ok(line) => print(line.map(String::into_bytes))?,
            Err(error) => {
                complain("lamel", &error);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}
