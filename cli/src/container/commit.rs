//! `lamel commit`

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use jiff::Timestamp;
use lamel_image::archive::Change;
use lamel_image::commit::{Commit, Format, commit};
use lamel_image::manifest::RunConfig;
use lamel_image::platform::Platform;
use lamel_image::reference::Reference;
use serde_json::{Map, Value};

use super::layers::{Layers, Running};
use super::record::Record;
use crate::image::StoreArgs;
use crate::launch::{told, warn};
use crate::output::print;

/// Variables that a container is given by itself, and no image.
const GIVEN: [&str; 4] = ["HOSTNAME", "HOME", "TERM", "PATH"];

/// Make an image of what a container changed
///
/// The layers of its image stay as they are; what the container wrote becomes one more, in a time that its
/// size alone matters to. Volumes and other mounts are not in it. A container that runs is paused meanwhile.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// How the image is run, as an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL,
    /// STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<Change>,
    /// A remark in the image's history
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,
    /// Who makes it
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
    /// Whether a container that runs is paused meanwhile [default: where that is possible]
    #[arg(short, long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pause: Option<bool>,
    /// Print nothing but the image's id, as is done anyway
    #[arg(short, long)]
    quiet: bool,
    /// Whose documents the image has
    #[arg(short, long, value_name = "FORMAT", default_value = "oci")]
    format: FormatArg,
    /// Its name or id
    container: String,
    /// The image's name
    #[arg(value_name = "REF")]
    name: Option<Reference>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FormatArg {
    Oci,
    Docker,
}

/// Makes one.
pub(super) fn run(args: &Args) -> Result<()> {
    let record = super::containers(&args.store)?.find(&args.container)?;
    if record.settings.image.is_none() {
        bail!(
            "container {name} runs over a directory, {}, and has no layer of its own: make an image of all that is there by: \
             lamel export {name} | lamel import - {}",
            record.root().display(),
            args.name.as_ref().map_or_else(|| "REF".to_owned(), ToString::to_string),
            name = args.container,
        );
    }
    let layers = Layers::of(&args.store, &record)?;
    let running = match (args.pause, Running::hold(&record, args.pause.unwrap_or(true))) {
        (None, Err(error)) => {
            warn(&format!(
                "not paused meanwhile ({}): what it is just writing may be in the image by half",
                told(&error)
            ));
            Running::hold(&record, false)?
        }
        (_, held) => held?,
    };
    running.sync();
    layers.work(&running, |layers| {
        let stack = layers.stack(&running)?;
        let what = Commit {
            base: Some(&layers.image),
            platform: Platform::host(),
            run: run_config(&record, &layers.image.config.config)?,
            changes: &args.change,
            created: Timestamp::now().to_string(),
            author: args.author.clone(),
            comment: args.message.clone(),
            created_by: record.settings.command(),
            format: match args.format {
                FormatArg::Oci => Format::Oci,
                FormatArg::Docker => Format::Docker,
            },
        };
        let writer = layers.store.writer()?;
        let made = commit(&writer, &stack, &what)?;
        match &args.name {
            Some(name) => writer.tag(name, &made)?,
            None => writer.add_unnamed(&made)?,
        }
        let id = layers.store.image(&made, &Platform::host())?.id();
        print([id.to_string().into_bytes()])
    })
}

/// How the container was run, as far as an image says so.
fn run_config(record: &Record, image: &RunConfig) -> Result<RunConfig> {
    let (settings, spec) = (&record.settings, record.spec()?);
    let process = spec.process().as_ref();
    let key = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let known: Vec<String> = image.env.iter().map(|variable| key(variable)).collect();
    let variables = process.and_then(|process| process.env().clone()).unwrap_or_default();
    // In the image's order, those that are new after them.
    let (old, new): (Vec<String>, Vec<String>) =
        variables.into_iter().partition(|variable| known.contains(&key(variable)));
    let mut env: Vec<String> =
        known.iter().filter_map(|name| old.iter().find(|variable| key(variable) == *name).cloned()).collect();
    let given = |name: &str| GIVEN.contains(&name) && (name != "HOME" || settings.home_of_user);
    env.extend(new.into_iter().filter(|variable| !given(&key(variable))));
    let cwd = process.map(|process| process.cwd().to_string_lossy().into_owned()).unwrap_or_default();
    let exposed = settings.exposed.iter().map(|port| (port.clone(), Value::Object(Map::new())));
    Ok(RunConfig {
        user: settings.user.clone(),
        exposed_ports: exposed.collect::<BTreeMap<_, _>>(),
        env,
        entrypoint: settings.entrypoint.clone(),
        cmd: settings.cmd.clone(),
        working_dir: if cwd == "/" { image.working_dir.clone() } else { cwd },
        labels: settings.labels.clone(),
        ..image.clone()
    })
}
