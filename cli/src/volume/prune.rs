//! `lamel volume prune`

use anyhow::{Result, bail};

use super::ls::Filter;
use super::store::{size, users};
use crate::image::StoreArgs;
use crate::output::human;
use crate::output::print;

/// Remove the volumes that no container uses; those with a name stay unless --all is given
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Those with a name too
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// label=KEY[=VALUE]: these alone
    #[arg(long, value_name = "FILTER")]
    filter: Vec<Filter>,
}

/// Removes.
pub(super) fn run(args: &Args) -> Result<()> {
    if !args.force && !confirmed(args.all)? {
        return Ok(());
    }
    let (volumes, containers) = super::volumes(&args.store)?;
    let (mut removed, mut bytes) = (Vec::new(), 0);
    for volume in volumes.list()? {
        let wanted = (args.all || volume.about.anonymous) && Filter::fits(&args.filter, &volume, &containers)?;
        if !wanted || !users(&containers, &volume.about.name)?.is_empty() {
            continue;
        }
        let size = size(&volume.data()).unwrap_or(0);
        match volumes.remove(&volume, &containers) {
            Ok(()) => {
                bytes += size;
                removed.push(volume.about.name);
            }
            Err(error) => crate::launch::complain("lamel", &error),
        }
    }
    let mut lines = Vec::new();
    if !removed.is_empty() {
        lines.push(b"Deleted Volumes:".to_vec());
        lines.extend(removed.into_iter().map(String::into_bytes));
        lines.push(Vec::new());
    }
    lines.push(format!("Total reclaimed space: {}", human::size(bytes)).into_bytes());
    print(lines)
}

fn confirmed(all: bool) -> Result<bool> {
    use std::io::{BufRead as _, IsTerminal as _, Write as _};
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here: say --force");
    }
    let which = if all { "all volumes" } else { "all volumes without a name" };
    let mut err = std::io::stderr();
    write!(err, "This removes {which} that no container uses. Go on? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
