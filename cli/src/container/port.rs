//! `lamel port`

use anyhow::{Result, bail};

use super::settings::Port;
use crate::image::StoreArgs;
use crate::output::print;

/// Show which ports of a container are published, and where
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Its name or id
    container: String,
    /// This port of the container's alone
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

/// Shows.
pub(super) fn run(args: &Args) -> Result<()> {
    let record = super::containers(&args.store)?.find(&args.container)?;
    let state = record.state()?;
    let ports: &[Port] = if state.status.is_alive() { &state.ports } else { &[] };
    let place = |port: &Port| {
        let address = if port.address.is_empty() { "0.0.0.0" } else { &port.address };
        format!("{address}:{}", port.host)
    };
    match &args.port {
        None => print(
            ports.iter().map(|port| format!("{}/{} -> {}", port.container, port.protocol, place(port)).into_bytes()),
        ),
        Some(text) => {
            let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let fits = |port: &&Port| port.container.to_string() == number && port.protocol == protocol;
            let found: Vec<Vec<u8>> = ports.iter().filter(fits).map(|port| place(port).into_bytes()).collect();
            if found.is_empty() {
                bail!("no public port '{text}' published for {}", record.settings.name);
            }
            print(found)
        }
    }
}
