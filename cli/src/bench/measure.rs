//! From what was asked for to rows of numbers: on mounts, and by engines.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::Args;
use super::backend::{self, Backend, Place};
use super::baseline;
use super::engine::{self, Asked, Engine, Job};
use super::ground::{Disk, Grounds};
use super::input::Input;
use super::machine;
use super::namespace;
use super::progress::Progress;
use super::result::{BackendFacts, Report, RowResult, Settings};
use super::runner::{Turns, on_mounts};
use super::select::Chosen;
use super::signals::{Leftovers, clean_up_on_signal};
use super::stored::Stored;
use super::tree;
use super::workload::Workload;

/// What was found, and how.
pub(crate) struct Measured {
    pub(crate) settings: Settings,
    pub(crate) backends: Vec<BackendFacts>,
    pub(crate) rows: Vec<RowResult>,
}

/// Measures what was chosen; `baseline` is what it will be compared with.
pub(crate) fn measure(args: &Args, chosen: &Chosen, baseline: Option<&Report>) -> Result<Measured> {
    let on = args.on.as_deref().unwrap_or_else(|| chosen.on());
    match chosen {
        Chosen::Mounts(workloads) => mounts(args, &backend::parse_list(on)?, workloads, baseline),
        Chosen::Images(jobs) => engines(args, &engine::parse_list(on)?, jobs, false),
        Chosen::Containers(jobs) => engines(args, &engine::parse_list(on)?, jobs, true),
    }
}

/// Where things are made, before anything is.
struct Places {
    stored: Option<Stored>,
    may_mount: bool,
    state: PathBuf,
    upper: PathBuf,
    base: PathBuf,
}

impl Places {
    /// Enters the namespaces, too: before the first thread is started.
    fn new(args: &Args) -> Result<Self> {
        let stored = args.image.as_ref().map(|name| Stored::open(&args.store, name)).transpose()?;
        let state = args.state.clone().map_or_else(default_state, Ok)?;
        let may_mount = namespace::enter(args.userns)?;
        fs::create_dir_all(&state).with_context(|| format!("state directory {}", state.display()))?;
        let state = state.canonicalize().with_context(|| state.display().to_string())?;
        let upper = args.upper.clone().unwrap_or_else(|| state.clone());
        fs::create_dir_all(&upper).with_context(|| upper.display().to_string())?;
        let upper = upper.canonicalize().with_context(|| upper.display().to_string())?;
        let base = upper.join(format!("lamel-bench-{}", std::process::id()));
        plain(&base)?;
        plain(&state)?;
        Ok(Self { stored, may_mount, state, upper, base })
    }
}

fn mounts(args: &Args, backends: &[Backend], workloads: &[&Workload], baseline: Option<&Report>) -> Result<Measured> {
    let places = Places::new(args)?;
    let facts = backends.iter().map(|backend| backend.facts(args.userns)).collect::<Result<Vec<_>>>()?;
    let progress = Progress::new(backends.len() * workloads.len() * args.repeats(), args.quiet);
    let say = |text: &str| progress.say(text);
    let input = match (&places.stored, &args.tree) {
        (Some(stored), _) => stored.input(&places.state, args.size, &say)?,
        (None, Some(directory)) => Input::foreign(directory, args.size)?,
        (None, None) => Input::generated(tree::tree(&places.state, args.size, args.layers.into(), &say)?, args.size)?,
    };
    input.layers.iter().try_for_each(|layer| plain(layer))?;
    let lower = input.layers.last().map_or_else(|| input.merged.clone(), Clone::clone);
    let settings = Settings {
        tree: match (&places.stored, &args.tree) {
            (Some(stored), _) => {
                Some(format!("image {} (lamel has it from its store, others its layers extracted)", stored.name))
            }
            (None, tree) => tree.as_ref().map(|tree| tree.display().to_string()),
        },
        entries: input.entries.len(),
        layers: input.layers.len(),
        lower_filesystem: machine::filesystem(&lower),
        reflink: !input.foreign && machine::can_reflink(&lower, &places.upper),
        ..settings(args, &places)
    };
    if let Some(baseline) = baseline {
        baseline::check_settings(&settings, &baseline.settings)?;
    }
    let place = Place { base: places.base, userns: args.userns, may_mount: places.may_mount };
    let disk = Disk::beside(&place);
    clean_up_on_signal(Leftovers {
        mountpoints: vec![place.base.join("mnt"), disk.join("mnt/run/mnt"), disk.join("mnt")],
        directories: backends.iter().filter_map(Backend::filled).chain([place.base.clone(), disk]).collect(),
    })?;
    let turns = Turns {
        subjects: backends.iter().map(|backend| backend.name.as_str()).collect(),
        repeat: args.repeats(),
        progress: &progress,
    };
    let grounds = Grounds { input: &input, place: &place, state: &places.state, size: args.size };
    let rows = on_mounts(&turns, backends, workloads, &grounds)?;
    progress.end();
    Ok(Measured { settings, backends: facts, rows })
}

fn engines(args: &Args, engines: &[Engine], jobs: &[&Job], containers: bool) -> Result<Measured> {
    if args.tree.is_some() {
        bail!("--tree is for workloads on mounts; images and containers take --image");
    }
    let places = Places::new(args)?;
    let facts = engines.iter().map(Engine::facts).collect::<Result<Vec<_>>>()?;
    let progress = Progress::new(engines.len() * jobs.len() * args.repeats(), args.quiet);
    clean_up_on_signal(Leftovers {
        mountpoints: vec![places.base.join("run/mnt")],
        directories: vec![places.base.clone()],
    })?;
    let turns = Turns {
        subjects: engines.iter().map(|engine| engine.name.as_str()).collect(),
        repeat: args.repeats(),
        progress: &progress,
    };
    let asked = Asked {
        stored: places.stored.as_ref(),
        state: &places.state,
        size: args.size,
        layers: args.layers.into(),
        base: &places.base,
        userns: args.userns,
        containers,
    };
    let measured = engine::measure(&asked, &turns, engines, jobs)?;
    progress.end();
    let settings = Settings {
        tree: Some(format!("image {}", measured.image)),
        entries: measured.entries,
        layers: measured.layers,
        ..settings(args, &places)
    };
    Ok(Measured { settings, backends: facts, rows: measured.rows })
}

/// What is the same for all.
fn settings(args: &Args, places: &Places) -> Settings {
    Settings {
        size: args.size.name().to_owned(),
        shape: args.size.shape(),
        tree: None,
        entries: 0,
        layers: 0,
        repeat: args.repeats(),
        userns: args.userns,
        lower_filesystem: machine::filesystem(&places.state),
        upper_filesystem: machine::filesystem(&places.upper),
        drops_caches: machine::drop_caches(),
        reflink: false,
    }
}

fn default_state() -> Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home);
    Ok(state.context("there is no $HOME: name a directory by --state")?.join("lamel/bench"))
}

/// Refuses a path that mount options would need to quote, each program in its own way.
fn plain(path: &Path) -> Result<()> {
    let odd = |byte: &u8| b",:\\\"".contains(byte);
    if path.as_os_str().as_encoded_bytes().iter().any(odd) {
        bail!("{}: a comma, colon, quote or backslash in it; name another by --state and --upper", path.display());
    }
    Ok(())
}
