//! `lamel restart`

use std::process::ExitCode;

use anyhow::Result;
use lamel_isolate::exe;

use super::stop::Args;
use super::wire::{Reply, Request};
use super::{control, each, start};

/// Restarts.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    exe::protect()?;
    let containers = super::containers(&args.store)?;
    each(&args.containers, |name| {
        let record = containers.find(name)?;
        if control::ask(&record, &Request::Restart(args.time))? != Some(Reply::Done) {
            start::start(&args.store, &containers, &record, false)?;
        }
        Ok(Some(name.to_owned()))
    })
}
