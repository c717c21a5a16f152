//! `lamel bench`

mod backend;
mod baseline;
mod copy;
mod daemon;
mod engine;
mod extract;
mod ground;
mod input;
mod machine;
mod measure;
mod namespace;
mod plan;
mod process;
mod progress;
mod random;
mod report;
mod result;
mod runner;
mod select;
mod signals;
mod stats;
mod stored;
#[allow(unsafe_code, reason = "what has no safe wrapper stands in one file")]
mod sys;
mod tree;
mod workload;

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};

use crate::image::StoreArgs;
use crate::output::print;
use machine::Machine;
use measure::{Measured, measure};
use plan::Size;
use result::Report;
use select::Chosen;

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
for images and containers:
  lamel[:/PROGRAM], podman, docker (with a daemon of its own), skopeo (and umoci), crun (and fuse-overlayfs),
  bound (no engine: what gzip or zstd and sha256sum take by themselves)

Examples:
  lamel bench --on native,overlayfs,lamel,lamel:threads=1 --workloads walk,create
  lamel bench --workloads images --image debian:12
  lamel bench --upper /dev/shm --json new.json --baseline old.json"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// What to compare, between commas; what names no backend is an option of the one before it
    /// [default: native,overlayfs,fuse-overlayfs,lamel; for images lamel,podman,docker,skopeo,bound; for
    /// containers lamel,crun,podman,docker]
    #[arg(long, value_name = "BACKENDS")]
    on: Option<String>,
    /// Names of `lamel bench list` between commas; or all, images, containers
    #[arg(long, value_name = "NAMES", default_value = "all")]
    workloads: String,
    /// How large the generated tree is
    #[arg(long, value_enum, default_value_t = Size::Medium)]
    size: Size,
    /// Layers of the generated tree
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=500))]
    layers: u16,
    /// An image of the store instead of the generated tree. lamel serves it from there; its layers are
    /// extracted to directories once, for the backends that need those
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["layers", "tree"])]
    image: Option<String>,
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
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Tell which workloads there are
    List,
}

impl Args {
    /// Runs of each workload on each backend.
    fn repeats(&self) -> usize {
        self.repeat.map_or(self.size.repeat(), usize::from)
    }
}

/// Measures.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(Command::List) = args.command {
        return select::list();
    }
    let chosen = Chosen::parse(&args.workloads)?;
    // Read first: to learn after an hour that it cannot be read helps nobody.
    let baseline = args.baseline.as_deref().map(baseline::read).transpose()?;
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let Measured { settings, backends, rows } = measure(args, &chosen, baseline.as_ref())?;
    let report = Report {
        format: result::FORMAT,
        lamel: env!("CARGO_PKG_VERSION").to_owned(),
        started,
        command: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
        machine: Machine::here(),
        settings,
        backends,
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
