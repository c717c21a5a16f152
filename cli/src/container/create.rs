//! `lamel create`, and how `lamel run` makes its container too.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use jiff::Timestamp;
use lamel_image::manifest::RunConfig;
use lamel_image::platform::Platform;
use lamel_image::store::{Image, Store};
use lamel_isolate::oci::{LinuxIdMapping, Spec};

use super::health::{self, HealthArgs};
use super::layers::maps;
use super::record::{Hold, Record};
use super::records::{Containers, Draft};
use super::settings::{ImageUsed, LogDriver, Restart, STOP_TIMEOUT, Settings};
use super::{events, names, signal};
use crate::image::{self, StoreArgs};
use crate::output::print;
use crate::run::config::{self, OfImage};
use crate::run::hooks;
use crate::run::identity::random_id;
use crate::run::limits::bytes;
use crate::volume::attach::{Asking, Attached};
use crate::volume::fill::Files;

/// Make a container, which `lamel start` starts
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) container: ContainerArgs,
}

/// What a container is made of, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct ContainerArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Its name [default: made up]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Write its id into this file, which must not be there
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Remove it when it has ended
    #[arg(long)]
    pub(super) rm: bool,
    /// A label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// An annotation of the OCI configuration
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// The signal that asks it to end [default: the image's, else TERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds after which it is killed if it does not end
    #[arg(long, value_name = "SECONDS", default_value_t = STOP_TIMEOUT)]
    stop_timeout: u32,
    /// Start it again when it ends: no, on-failure, on-failure:NUMBER, always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    restart: Restart,
    /// Never sync what it writes: a crash of the machine may lose it
    #[arg(long)]
    volatile: bool,
    /// Where its output is kept
    #[arg(long, value_name = "DRIVER", default_value = "k8s-file")]
    log_driver: LogDriver,
    /// max-size=SIZE: a log that would be larger is begun anew
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
    /// When to pull the image
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: Pull,
    /// Of an image for several platforms, the one for this [default: this host's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Pull without a word
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    health: HealthArgs,
    #[command(flatten)]
    pub(super) options: crate::run::Args,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Pull {
    /// If it is not in the store.
    Missing,
    Always,
    Never,
}

/// A container that was just made, and what it takes to start it.
pub(super) struct Made {
    pub(super) containers: Containers,
    pub(super) record: Record,
    pub(super) hold: Hold,
    pub(super) spec: Spec,
    pub(super) image: Option<(Store, Image)>,
}

/// Creates.
pub(super) fn run(args: &Args) -> Result<()> {
    let made = make(&args.container)?;
    print([made.record.id().as_bytes().to_vec()])
}

/// The ids of all containers with a user namespace of their own.
fn taken(containers: &Containers) -> Result<Vec<LinuxIdMapping>> {
    let specs = containers.list()?.into_iter().filter_map(|record| record.spec().ok());
    let linux = specs.filter_map(|spec| spec.linux().clone());
    Ok(linux
        .flat_map(|linux| [linux.uid_mappings().clone(), linux.gid_mappings().clone()])
        .flatten()
        .flatten()
        .collect())
}

/// Makes a container. Nothing is left if that fails.
pub(super) fn make(args: &ContainerArgs) -> Result<Made> {
    if let Some(name) = &args.name {
        names::check(name)?;
    }
    if args.rm && args.restart != Restart::No {
        bail!("Conflicting options: cannot specify both --restart and --rm");
    }
    let containers = super::containers(&args.store)?;
    let id = random_id()?;
    let cidfile = args.cidfile.as_deref().map(CidFile::make).transpose()?;
    let (found, words) = match &args.options.rootfs {
        Some(_) => (None, args.options.command.as_slice()),
        None => {
            let (name, words) = args.options.command.split_first().context("no image given, nor --rootfs")?;
            (Some(find(args, name)?), words)
        }
    };
    let settings = settings(args, found.as_ref().map(|(_, image)| image), words, &id)?;
    let of_image = found.as_ref().map(|(_, image)| of_image(&image.config.config)).unwrap_or_default();
    let mut draft = containers.draft(settings)?;
    // Until everybody sees which ids it has.
    let ids = if args.options.identity.finds_own() { Some(containers.lock_ids()?) } else { None };
    let (spec, attached) = fill(&mut draft, args, words, (&of_image, found.as_ref()), &containers)?;
    let (record, hold) = draft.publish()?;
    drop(ids);
    attached.keep();
    if let Some(file) = cidfile {
        file.fill(record.id())?;
    }
    events::add(&containers, "create", &record.settings, &[]);
    Ok(Made { containers, record, hold, spec, image: found })
}

/// Makes what is in the container's directory, but for what makes it known, and its volumes.
fn fill<'a>(
    draft: &mut Draft<'_>,
    args: &ContainerArgs,
    words: &[String],
    (of_image, image): (&OfImage, Option<&(Store, Image)>),
    containers: &'a Containers,
) -> Result<(Spec, Attached<'a>)> {
    let record = &mut draft.record;
    if record.settings.rootfs.is_none() {
        for (dir, mode) in [(record.upper(), 0o755), (record.work(), 0o700), (record.root(), 0o755)] {
            DirBuilder::new().mode(mode).create(&dir).with_context(|| format!("making {}", dir.display()))?;
        }
    }
    // Where it will be once it is published.
    let root = match &record.settings.rootfs {
        Some(root) => root.clone(),
        None => PathBuf::from("rootfs"),
    };
    args.options.identity.find_own(|| taken(containers))?;
    let network = record.settings.request.outline(args.options.hostname.as_deref(), record.id())?;
    let mut spec = config::spec(&args.options, words, of_image, &root, &network)?;
    record.settings.home_of_user = !config::has_home(&spec);
    let mut annotations: HashMap<String, String> = record.settings.annotations.clone().into_iter().collect();
    annotations.extend(spec.annotations().clone().unwrap_or_default());
    spec.set_annotations(Some(annotations));
    let asking = Asking {
        args: &args.options.volumes,
        of_image: image.map(|(_, image)| image.config.config.volumes.keys().cloned().collect()).unwrap_or_default(),
        files: match image {
            Some((store, image)) => Files::Image(store, image),
            None => Files::Directory(&root),
        },
        maps: maps(&spec),
        containers,
    };
    let attached = asking.attach(&mut spec)?;
    record.settings.volumes.clone_from(&attached.used);
    hooks::add(&mut spec, &args.options.hooks_dir)?;
    record.write_spec(&spec)?;
    Ok((spec, attached))
}

fn of_image(config: &RunConfig) -> OfImage {
    OfImage {
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env: config.env.clone(),
        working_dir: config.working_dir.clone(),
    }
}

/// Finds the image, and pulls it as `--pull` says.
fn find(args: &ContainerArgs, name: &str) -> Result<(Store, Image)> {
    let store = args.store.open()?;
    let platform = args.platform.as_ref();
    if args.pull != Pull::Always {
        match image::find(&store, name, platform) {
            Ok((_, image)) => return Ok((store, image)),
            Err(error) if args.pull == Pull::Never || !image::is_missing(&error) => {
                return Err(error.context(format!("No such image: {name}")));
            }
            Err(_) if !args.quiet => crate::launch::warn(&format!("Unable to find image '{name}' locally")),
            Err(_) => {}
        }
    }
    image::pull(&store, name, platform, args.quiet)?;
    let (_, image) = image::find(&store, name, platform)?;
    Ok((store, image))
}

fn settings(args: &ContainerArgs, image: Option<&Image>, words: &[String], id: &str) -> Result<Settings> {
    let options = &args.options;
    let none = RunConfig::default();
    let config = image.map_or(&none, |image| &image.config.config);
    let (entrypoint, cmd) = config::command(options, words, &of_image(config))?;
    let mut labels = config.labels.clone();
    for label in &args.label {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        labels.insert(key.to_owned(), value.to_owned());
    }
    let mut annotations = BTreeMap::new();
    for annotation in &args.annotation {
        let (key, value) = annotation.split_once('=').ok_or_else(|| anyhow!("--annotation {annotation}: KEY=VALUE"))?;
        annotations.insert(key.to_owned(), value.to_owned());
    }
    let asked = options.identity.user();
    let of_image = Some(config.stop_signal.as_str()).filter(|signal| !signal.is_empty());
    let stop_signal = match args.stop_signal.as_deref().or(of_image) {
        Some(text) => signal::parse(text).with_context(|| format!("stop signal {text:?}"))?,
        None => rustix::process::Signal::TERM.as_raw(),
    };
    let used = |image: &Image| ImageUsed {
        // As docker shows it: as it was called.
        name: options.command.first().cloned().unwrap_or_default(),
        manifest: image.descriptor.digest,
        manifest_size: image.descriptor.size,
        config: image.id(),
        diff_ids: image.diff_ids().to_vec(),
        chain: image.chain_id(),
    };
    let exposed: Vec<String> = config.exposed_ports.keys().cloned().collect();
    let request = options.network.resolve(&exposed)?;
    Ok(Settings {
        id: id.to_owned(),
        name: args.name.clone().unwrap_or_default(),
        created: Timestamp::now(),
        image: image.map(used),
        rootfs: options.rootfs.as_deref().map(real_root).transpose()?,
        entrypoint,
        cmd,
        user: if asked.is_empty() { config.user.clone() } else { asked },
        groups: options.identity.group_add.clone(),
        home_of_user: true,
        labels,
        annotations,
        network: request.mode.to_string(),
        request,
        exposed,
        volumes: Vec::new(),
        stop_signal,
        stop_timeout: args.stop_timeout,
        restart: args.restart,
        health: health::of(&args.health, config)?,
        log_driver: args.log_driver,
        log_size: log_size(&args.log_opt)?,
        auto_remove: args.rm,
        init: options.init,
        tty: options.tty,
        interactive: options.interactive,
        volatile: args.volatile,
        privileged: options.security.privileged,
        pivot: !options.no_pivot,
    })
}

/// What `--log-opt` says.
fn log_size(options: &[String]) -> Result<Option<u64>> {
    let mut size = None;
    for option in options {
        let shown = || format!("--log-opt {option}");
        match option.split_once('=') {
            // As podman has it for no limit.
            Some(("max-size", "-1")) => size = None,
            Some(("max-size", text)) => size = Some(bytes(text).with_context(shown)?).filter(|size| *size > 0),
            _ => bail!("{}: not supported; there is max-size=SIZE", shown()),
        }
    }
    Ok(size)
}

/// The directory by its real name, for no part of it may be a link; but if it is one itself, that is left to be refused.
fn real_root(root: &Path) -> Result<PathBuf> {
    let shown = || format!("root directory {}", root.display());
    if root.is_symlink() {
        let target = root.canonicalize().with_context(shown)?;
        bail!("{} is a symbolic link; name the directory itself: --rootfs {}", shown(), target.display());
    }
    root.canonicalize().with_context(shown)
}

/// The file of `--cidfile`, which goes again if there is no container.
struct CidFile {
    path: PathBuf,
    file: Option<File>,
}

impl CidFile {
    fn make(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.with_context(|| {
            format!("container ID file {}, make sure the other container isn't running or delete it", path.display())
        })?;
        Ok(Self { path: path.to_owned(), file: Some(file) })
    }

    fn fill(mut self, id: &str) -> Result<()> {
        match self.file.take() {
            Some(mut file) => file.write_all(id.as_bytes()).with_context(|| self.path.display().to_string()),
            None => Ok(()),
        }
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Seconds or parts of them, as docker writes a length of time.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    image::duration(text)
}
