//! `lamel container prune`

use anyhow::Result;

use super::events;
use super::filter::{self, Filter};
use super::listed::Listed;
use super::ps::written;
use crate::image::StoreArgs;
use crate::output::{human, print};

/// Remove all containers that do not run
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// until=TIME and label=KEY[=VALUE], and all that `lamel ps` has
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// Taken for the sake of scripts: nothing is asked
    #[arg(short, long, hide = true)]
    force: bool,
}

/// Prunes.
pub(super) fn run(args: &Args) -> Result<()> {
    let containers = super::containers(&args.store)?;
    let (mut removed, mut bytes) = (Vec::new(), 0_u64);
    for record in containers.list()? {
        let Ok(state) = record.state() else { continue };
        let listed = Listed { record, state, size: None };
        if listed.state.status.is_alive() || !filter::fits(&containers, &args.filter, &listed)? {
            continue;
        }
        let record = &listed.record;
        // Who starts or removes it at this moment is welcome to it.
        let Ok(Some(hold)) = record.hold() else { continue };
        let size = written(&record.upper());
        containers.remove(record, hold)?;
        events::add(&containers, "destroy", &record.settings, &[]);
        bytes = bytes.saturating_add(size);
        removed.push(record.id().to_owned());
    }
    let heading = (!removed.is_empty()).then(|| "Deleted Containers:".to_owned());
    let total = format!("Total reclaimed space: {}", human::size(bytes));
    print(heading.into_iter().chain(removed).chain([total]).map(String::into_bytes))
}
