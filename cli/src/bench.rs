//! `lamel bench`

mod backend;
mod baseline;
mod copy;
mod daemon;
mod input;
mod machine;
mod namespace;
mod plan;
mod progress;
mod random;
mod report;
mod result;
mod runner;
mod signals;
mod stats;
#[allow(unsafe_code, reason = "what has no safe wrapper stands in one file")]
mod sys;
mod tree;
mod workload;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};

use crate::output::print;
use backend::{Backend, Place};
use input::Input;
use machine::Machine;
use plan::Size;
use progress::Progress;
use result::{Report, Settings};
use runner::Runner;
use signals::Leftovers;
use workload::Workload;

/// Measure what each way to have a union of directories costs on this host
///
/// Every workload runs on a fresh mount with a fresh upper, on each backend in turn, and that again
/// (--repeat): medians, with the smallest and largest. What fails is reported and has no speed; the
/// exit code is then 1.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Backends of --on:
  native                   the merged tree as plain files
  overlayfs[:OPTIONS]      Linux's own
  fuse-overlayfs[:/PROGRAM][:OPTIONS]
  lamel[:/PROGRAM][:OPTIONS]
  dir:PATH                 a directory, for instance on another filesystem; the input is copied there

Examples:
  lamel bench --on native,overlayfs,lamel,lamel:threads=1 --workloads walk,create
  lamel bench --upper /dev/shm --json new.json --baseline old.json"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// What to compare, between commas; what names no backend is an option of the one before it
    #[arg(long, value_name = "BACKENDS", default_value = "native,overlayfs,fuse-overlayfs,lamel")]
    on: String,
    /// Names of `lamel bench list` between commas, or all
    #[arg(long, value_name = "NAMES", default_value = "all")]
    workloads: String,
    /// How large the generated tree is
    #[arg(long, value_enum, default_value_t = Size::Medium)]
    size: Size,
    /// Layers of the generated tree
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=500))]
    layers: u16,
    /// A tree of yours as the only layer, instead of the generated one; it is not written to
    #[arg(long, value_name = "DIR", conflicts_with = "layers")]
    tree: Option<PathBuf>,
    /// Runs of each workload on each backend [default: 5; small and large: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeat: Option<u16>,
    /// Where the upper layers are made, for instance on a tmpfs [default: the state directory]
    #[arg(long, value_name = "DIR")]
    upper: Option<PathBuf>,
    /// Run everything in a user namespace, without privileges outside of it
    #[arg(long)]
    userns: bool,
    /// Where the generated tree is kept, 3 GiB for size medium [default: $XDG_STATE_HOME/lamel/bench]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Write the result with every sample
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the result as one page with charts
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Compare with the JSON of an earlier run; exit with 1 if lamel is slower beyond noise
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Say nothing while it runs
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Tell which workloads there are
    List,
}

/// Measures.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(Command::List) = args.command {
        return list();
    }
    let backends = backend::parse_list(&args.on)?;
    let workloads = chosen(&args.workloads)?;
    // Read first: to learn after an hour that it cannot be read helps nobody.
    let baseline = args.baseline.as_deref().map(baseline::read).transpose()?;
    let may_mount = namespace::enter(args.userns)?;
    let facts = backends.iter().map(|backend| backend.facts(args.userns)).collect::<Result<Vec<_>>>()?;
    let state = match &args.state {
        Some(state) => state.clone(),
        None => default_state()?,
    };
    let repeat = args.repeat.map_or(args.size.repeat(), usize::from);
    let progress = Progress::new(backends.len() * workloads.len() * repeat, args.quiet);
    let input = match &args.tree {
        Some(directory) => Input::foreign(directory, args.size)?,
        None => {
            let tree = tree::tree(&state, args.size, args.layers.into(), &|text| progress.say(text))?;
            Input::generated(tree, args.size)?
        }
    };
    let upper = args.upper.clone().unwrap_or(state);
    fs::create_dir_all(&upper).with_context(|| upper.display().to_string())?;
    let upper = upper.canonicalize().with_context(|| upper.display().to_string())?;
    let base = upper.join(format!("lamel-bench-{}", std::process::id()));
    for path in input.layers.iter().chain([&base]) {
        plain(path)?;
    }
    let settings = settings(args, &input, &upper, repeat);
    if let Some(baseline) = &baseline {
        baseline::check_settings(&settings, &baseline.settings)?;
    }
    let directories = backends.iter().filter_map(Backend::filled).chain([base.clone()]).collect();
    signals::clean_up_on_signal(Leftovers { mountpoint: base.join("mnt"), directories })?;
    let runner = Runner {
        backends: &backends,
        workloads: &workloads,
        input: &input,
        repeat,
        place: Place { base, userns: args.userns, may_mount },
    };
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let rows = runner.run(&progress)?;
    progress.end();
    let report = Report {
        format: result::FORMAT,
        lamel: env!("CARGO_PKG_VERSION").to_owned(),
        started,
        command: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
        machine: Machine::here(),
        settings,
        backends: facts,
        rows,
    };
    finish(args, &report, baseline.as_ref())
}

/// Shows and keeps the result, and judges it.
fn finish(args: &Args, report: &Report, baseline: Option<&Report>) -> Result<()> {
    // Kept before anything is printed: the reader of a pipe may be gone.
    if let Some(path) = &args.json {
        let mut text = serde_json::to_vec_pretty(report)?;
        text.push(b'\n');
        fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.html {
        fs::write(path, report::html::html(report)).with_context(|| path.display().to_string())?;
    }
    print([report::table::table(report).into_bytes()])?;
    let failed = report.rows.iter().flat_map(|row| &row.cells).filter(|cell| cell.error.is_some()).count();
    let mut regressions = 0;
    if let Some(baseline) = baseline {
        let comparison = baseline::compare(report, baseline)?;
        print([comparison.text().into_bytes()])?;
        regressions = comparison.regressions();
    }
    match (failed, regressions) {
        (0, 0) => Ok(()),
        (0, worse) => bail!("{worse} results are worse than the baseline"),
        (failed, 0) => bail!("{failed} results are missing because of errors"),
        (failed, worse) => bail!("{failed} results are missing because of errors, {worse} are worse than the baseline"),
    }
}

fn settings(args: &Args, input: &Input, upper: &Path, repeat: usize) -> Settings {
    let lower = input.layers.last().map_or_else(|| input.merged.clone(), Clone::clone);
    Settings {
        size: args.size.name().to_owned(),
        shape: input.shape,
        tree: args.tree.as_ref().map(|tree| tree.display().to_string()),
        entries: input.entries.len(),
        layers: input.layers.len(),
        repeat,
        userns: args.userns,
        lower_filesystem: machine::filesystem(&lower),
        upper_filesystem: machine::filesystem(upper),
        drops_caches: machine::drop_caches(),
        reflink: !input.foreign && machine::can_reflink(&lower, upper),
    }
}

fn list() -> Result<()> {
    let mut lines = Vec::new();
    for workload in workload::all() {
        let rows: Vec<&str> = workload.rows.iter().map(|row| row.name).collect();
        lines.push(format!("{:<14} {}", workload.name, workload.about));
        lines.push(format!("{:<14}   gives {}", "", rows.join(", ")));
        lines.push(format!("{:<14}   caches: {}", "", workload.caches));
    }
    print(lines.into_iter().map(String::into_bytes))
}

fn chosen(names: &str) -> Result<Vec<&'static Workload>> {
    if names == "all" {
        return Ok(workload::all().collect());
    }
    let find = |name: &str| {
        let found = workload::all().find(|workload| workload.name == name);
        found.with_context(|| format!("--workloads: no {name:?}; `lamel bench list` tells which there are"))
    };
    names.split(',').map(find).collect()
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
