//! `lamel start`

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use lamel_image::manifest::Descriptor;
use lamel_image::platform::Platform;
use lamel_image::store::{Image, Store};
use lamel_isolate::exe;

use super::attach::{Left, Stay, StayArgs};
use super::each;
use super::filter::{self, Filter};
use super::listed::Listed;
use super::monitor::{self, Wanted};
use super::record::Record;
use super::records::Containers;
use super::terminal;
use super::wire::Line;
use crate::image::StoreArgs;

/// Start containers that have ended, or were only made
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// See its output and pass signals on, until it ends
    #[arg(short, long)]
    attach: bool,
    /// Give it this command's input
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    stay: StayArgs,
    /// All that do not run
    #[arg(long, conflicts_with_all = ["attach", "interactive"])]
    all: bool,
    /// Of all, those that it fits, as in `lamel ps`: restart-policy=always, should-start-on-boot=true
    #[arg(short, long, value_name = "KEY=VALUE", conflicts_with_all = ["attach", "interactive", "containers"])]
    filter: Vec<Filter>,
    /// Names or ids
    #[arg(required_unless_present_any = ["all", "filter"], conflicts_with = "all", value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Starts.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    exe::protect()?;
    let containers = super::containers(&args.store)?;
    if args.all || !args.filter.is_empty() {
        let names = waiting(&containers, &args.filter)?;
        return each(&names, |name| {
            let record = containers.find(name)?;
            Ok(start(&args.store, &containers, &record, false)?.map(|_| name.to_owned()))
        });
    }
    let stays = args.attach || args.interactive;
    let name = match (args.containers.as_slice(), stays) {
        ([one], true) => one,
        (_, true) => bail!("you cannot start and attach multiple containers at once"),
        (names, false) => {
            return each(names, |name| {
                let record = containers.find(name)?;
                start(&args.store, &containers, &record, false)?;
                Ok(Some(name.to_owned()))
            });
        }
    };
    let record = containers.find(name)?;
    let input = args.interactive && record.settings.interactive;
    let stay = Stay::new(&record, input, &args.stay)?;
    let Some(line) = start(&args.store, &containers, &record, true)? else {
        bail!("container {name} is running already; attach to it by: lamel attach {name}");
    };
    Ok(match stay.stay(&line)? {
        Left::Exited(code) => super::exit_code(code),
        Left::Detached => ExitCode::SUCCESS,
    })
}

/// The ids of those that do not run, the oldest first: others may need it.
fn waiting(containers: &Containers, filters: &[Filter]) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for record in containers.list()? {
        let Ok(state) = record.state() else { continue };
        let listed = Listed { record, state, size: None };
        if !listed.state.status.is_alive() && filter::fits(containers, filters, &listed)? {
            ids.push(listed.record.id().to_owned());
        }
    }
    ids.reverse();
    Ok(ids)
}

/// Starts one; `None` if it runs already.
pub(super) fn start(store: &StoreArgs, containers: &Containers, record: &Record, attach: bool) -> Result<Option<Line>> {
    let Some(hold) = record.hold()? else { return Ok(None) };
    // Renamed meanwhile, perhaps.
    let record = Record::open(record.dir())?;
    let image = match &record.settings.image {
        Some(_) => Some(image(store, &record)?),
        None => None,
    };
    let size = if attach { terminal::size() } else { None };
    let spec = record.spec()?;
    let wanted = Wanted { containers: containers.clone(), record, hold, spec, image, attach, size };
    monitor::start(wanted).map(Some)
}

/// The image that a container was made of, by its digest: its name may be another one's by now.
pub(crate) fn image(store: &StoreArgs, record: &Record) -> Result<(Store, Image)> {
    let used = record.settings.image.as_ref().context("it was not made of an image")?;
    let store = store.open()?;
    // What kind of manifest it is, it says itself.
    let descriptor = Descriptor::new("", used.manifest, used.manifest_size);
    let image = store
        .image(&descriptor, &Platform::host())
        .with_context(|| format!("the image {} of container {}", used.name, record.settings.name))?;
    Ok((store, image))
}
