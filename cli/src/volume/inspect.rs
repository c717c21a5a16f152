//! `lamel volume inspect`

use anyhow::Result;
use serde_json::Value;

use crate::image::StoreArgs;
use crate::output::print;
use crate::output::template::Template;

/// Tell all about volumes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// A template such as '{{.Mountpoint}}' [default: JSON]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names, or their first letters
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

/// Tells.
pub(super) fn run(args: &Args) -> Result<()> {
    let (volumes, _) = super::volumes(&args.store)?;
    let found: Vec<Value> = args.names.iter().map(|name| Ok(volumes.get(name)?.json())).collect::<Result<_>>()?;
    match args.format.as_deref() {
        None | Some("json") => print([serde_json::to_vec_pretty(&found)?]),
        Some(text) => {
            let template = Template::parse(text)?;
            let lines = found.iter().map(|value| template.render(value)).collect::<Result<Vec<_>>>()?;
            print(lines.into_iter().map(String::into_bytes))
        }
    }
}
