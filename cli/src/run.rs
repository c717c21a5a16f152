//! The options that say how a container is run, and the OCI configuration that they make.

pub(crate) mod config;
pub(crate) mod environment;
pub(crate) mod hooks;
pub(crate) mod identity;
mod idmap;
mod label;
pub(crate) mod limits;
pub(crate) mod security;
pub(crate) mod volume;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use lamel_isolate::attach::Signals;
use lamel_isolate::{Container, Error, Options, seccomp};

use crate::launch::complain;
use crate::network::NetworkArgs;

/// What docker and podman exit with if there is no container, if its program cannot be run, and if it is not there.
const NO_CONTAINER: u8 = 125;
const NOT_RUNNABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// How a container is run.
#[derive(Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Run over this directory instead of an image
    #[arg(long, value_name = "DIR")]
    pub(crate) rootfs: Option<PathBuf>,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Working directory inside; made if it is missing [default: the image's, else /]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// Use this as the program, and CMD as its arguments
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Reap processes and hand signals on in a first process of lamel's own
    #[arg(long)]
    pub(crate) init: bool,
    /// Mount the root read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Host name inside [default: made up]
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Run the hooks that the files of this directory have for such a container (oci-hooks(5)); a later one goes first
    #[arg(long, value_name = "DIR")]
    pub(crate) hooks_dir: Vec<PathBuf>,
    /// Cover the old root instead of leaving it, where the root filesystem is an initramfs
    #[arg(long)]
    pub(crate) no_pivot: bool,
    #[command(flatten)]
    pub(crate) environment: environment::EnvironmentArgs,
    #[command(flatten)]
    pub(crate) identity: identity::IdentityArgs,
    #[command(flatten)]
    pub(crate) volumes: volume::VolumeArgs,
    #[command(flatten)]
    pub(crate) security: security::SecurityArgs,
    #[command(flatten)]
    pub(crate) limits: limits::LimitArgs,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// The image, unless there is --rootfs, then the command and its arguments [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "REF [CMD]")]
    pub(crate) command: Vec<String>,
}

/// Turns what came of a container into an exit status.
pub(crate) fn finish(program: &str, ran: Result<i32>) -> ExitCode {
    match ran {
        Ok(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(NO_CONTAINER)),
        Err(error) => {
            complain(program, &error);
            ExitCode::from(failure_code(&error))
        }
    }
}

/// What to exit with if there is no container.
pub(crate) fn failure_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Error>() {
        Some(Error::Program { errno: rustix::io::Errno::NOENT, .. }) => NOT_FOUND,
        Some(Error::Program { .. }) => NOT_RUNNABLE,
        _ => NO_CONTAINER,
    }
}

/// Starts a container and stays with it to its end.
pub(crate) fn attend(spec: &lamel_isolate::oci::Spec, options: &Options, input: bool) -> Result<i32> {
    let signals = Signals::hold().context("signals")?;
    let mut container = Container::start(spec, options)?;
    for note in container.notes() {
        complain("lamel", &anyhow::anyhow!("note: {note}"));
    }
    Ok(container.attend(&signals, input)?.code())
}

/// Where compiled filters are kept.
pub(crate) fn filter_cache() -> Option<seccomp::Cache> {
    let base = if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/cache")
    } else {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?
    };
    Some(seccomp::Cache::new(base.join("lamel/seccomp")))
}
