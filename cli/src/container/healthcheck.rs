//! `lamel healthcheck`, and one run of a container's check.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use lamel_isolate::exe;
use lamel_isolate::exec::{Options, check};

use super::exec::find;
use super::record::Record;
use super::settings::HealthCheck;
use super::state::Probe;
use crate::image::StoreArgs;
use crate::output::print;
use crate::run::filter_cache;

/// Bytes that are kept of a check's output, as docker keeps them.
const MAX_OUTPUT: usize = 4096;
/// What a check exits with that was not done in its time, as docker tells it.
const TOO_LONG: i32 = -1;

/// Check the health of containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run a container's health check once; exit with 0 if it is well, with 1 if not
    Run(RunArgs),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Its name or id
    container: String,
}

/// Checks.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let Command::Run(args) = &args.command;
    exe::protect()?;
    let record = super::containers(&args.store)?.find(&args.container)?;
    let Some(health) = &record.settings.health else {
        bail!("container {} has no health check", record.settings.name);
    };
    let probe = probe(&record, health)?;
    if probe.exit_code == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    print(["unhealthy".to_owned().into_bytes(), probe.output.trim_end().as_bytes().to_vec()])?;
    Ok(ExitCode::FAILURE)
}

/// Runs a container's check, for as long as it may take.
pub(crate) fn probe(record: &Record, health: &HealthCheck) -> Result<Probe> {
    let (target, spec) = (find(record)?, record.spec()?);
    let mut process = spec.process().clone().context("the container's configuration has no process")?;
    process.set_args(Some(words(&health.test))).set_terminal(Some(false)).set_console_size(None);
    let mut options = Options::new(record.id().to_owned());
    options.cache = filter_cache();
    let start = Timestamp::now();
    let checked = check(&target, &spec, &process, options, health.timeout, MAX_OUTPUT);
    let (exit_code, output) = match checked {
        Ok(checked) => match checked.exit {
            Some(exit) => (exit.code(), checked.output),
            None => (TOO_LONG, exceeded(health.timeout)),
        },
        // A check that is not there is a check that fails.
        Err(error @ lamel_isolate::Error::Program { .. }) => (TOO_LONG, error.to_string()),
        Err(error) => return Err(error.into()),
    };
    Ok(Probe { start, end: Timestamp::now(), exit_code, output })
}

fn exceeded(limit: Duration) -> String {
    format!("Health check exceeded timeout ({limit:?})")
}

/// The words of a check: `CMD` and the words, or `CMD-SHELL` and a line.
fn words(test: &[String]) -> Vec<String> {
    match test.split_first() {
        Some((kind, line)) if kind == "CMD-SHELL" => {
            ["/bin/sh", "-c"].map(str::to_owned).into_iter().chain(line.iter().cloned()).collect()
        }
        Some((_, words)) => words.to_vec(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_words_or_a_line() {
        let of = |test: &[&str]| words(&test.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["CMD", "a", "b"]), ["a", "b"]);
        assert_eq!(of(&["CMD-SHELL", "a b"]), ["/bin/sh", "-c", "a b"]);
        assert!(of(&[]).is_empty());
    }
}
