//! Where the log goes, and how much of it.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The environment variable that holds a filter.
const FILTER_VARIABLE: &str = "LAMEL_LOG";
/// The environment variable that names a file, for callers that pass no options of ours.
const FILE_VARIABLE: &str = "LAMEL_LOG_FILE";
/// What is logged unless somebody asks for more.
const DEFAULT_FILTER: &str = "warn";
/// The levels there are.
const LEVELS: &str = "error, warn, info, debug or trace";
/// Counters are logged because a signal asked for them: always.
const COUNTERS: &str = "lamel::counters=info";

/// Options of the log.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LogArgs {
    /// error, warn, info, debug, trace, or a filter such as `lamel_unionfs::copy_up=debug`
    /// [default: $LAMEL_LOG, else warn]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Log")]
    log_level: Option<String>,
    /// Append the log to this file; otherwise it goes to standard error, which a daemon closes
    /// [default: $LAMEL_LOG_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Log")]
    log_file: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long, global = true, help_heading = "Log")]
    log_json: bool,
}

impl LogArgs {
    /// A log with everything in it, for the fuse-overlayfs face's `--debug`.
    pub(crate) fn debugging() -> Self {
        Self { log_level: Some("debug".to_owned()), ..Self::default() }
    }

    /// The same log in another file.
    pub(crate) fn with_file(self, file: PathBuf) -> Self {
        Self { log_file: Some(file), ..self }
    }

    /// Starts to log. The file is opened here and now, before any change of directory.
    pub(crate) fn init(&self) -> Result<()> {
        let from_environment = std::env::var(FILTER_VARIABLE).ok().filter(|filter| !filter.is_empty());
        let chosen = self.log_level.clone().or(from_environment);
        if let Some(word) = chosen.as_deref().filter(|chosen| !is_filter(chosen)) {
            bail!("log level {word:?}: use {LEVELS}");
        }
        let filter = format!("{COUNTERS},{}", chosen.as_deref().unwrap_or(DEFAULT_FILTER));
        let filter = EnvFilter::try_new(&filter)
            .with_context(|| format!("log level {:?}: use {LEVELS}", chosen.unwrap_or_default()))?;
        let file = self.log_file.clone().or_else(|| std::env::var_os(FILE_VARIABLE).map(PathBuf::from));
        let (writer, colours) = match file {
            Some(path) => (BoxMakeWriter::new(Mutex::new(open(&path)?)), false),
            None => {
                let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
                (BoxMakeWriter::new(std::io::stderr), terminal)
            }
        };
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours);
        let started = if self.log_json { log.json().finish().try_init() } else { log.finish().try_init() };
        started.map_err(|error| anyhow!("starting the log: {error}"))
    }
}

/// Whether a text says at which level to log. A word alone would be taken for the name of a module.
fn is_filter(text: &str) -> bool {
    let is_level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    text.split(',').any(|part| is_level(part.rsplit('=').next().unwrap_or_default().trim()))
}

fn open(path: &PathBuf) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("log file {}", path.display()))
}
