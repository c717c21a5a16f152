//! `lamel volume create`

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use jiff::Timestamp;

use super::store::About;
use crate::image::StoreArgs;
use crate::output::print;
use crate::run::identity::random_id;

/// Make a volume; one of that name that is there already is left as it is
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// A label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// `local` is the only one
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    driver: String,
    /// Its name [default: made up]
    name: Option<String>,
}

/// Makes one and prints its name.
pub(super) fn run(args: &Args) -> Result<()> {
    if args.driver != "local" {
        bail!("there is no volume driver {}; local is the only one", args.driver);
    }
    let (volumes, _) = super::volumes(&args.store)?;
    let about = About {
        name: args.name.clone().map_or_else(random_id, Ok)?,
        created: Timestamp::now(),
        labels: labels(&args.label),
        anonymous: args.name.is_none(),
    };
    let (volume, _) = volumes.make(&about)?;
    print([volume.about.name.into_bytes()])
}

fn labels(texts: &[String]) -> BTreeMap<String, String> {
    let label = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    };
    texts.iter().map(label).collect()
}
