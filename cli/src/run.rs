//! `lamel run`

pub(crate) mod config;
pub(crate) mod environment;
pub(crate) mod identity;
pub(crate) mod limits;
pub(crate) mod security;
pub(crate) mod volume;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use lamel_isolate::attach::Signals;
use lamel_isolate::{Container, Created, Error, Options, exe, seccomp};

use crate::image::store::StoreArgs;
use crate::launch::complain;
use crate::log::LogArgs;
use crate::network::{self, Member, Place, Prepared};

/// What docker and podman exit with if there is no container, if its program cannot be run, and if it is not there.
const NO_CONTAINER: u8 = 125;
const NOT_RUNNABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Run a command in a container whose root is a directory
///
/// The container gets the namespaces, capabilities, system call filter and masks that Docker gives by
/// default. It ends with this command, and leaves nothing but what it wrote into its root.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Exit status: the command's own; 128+N if signal N ended it; 125 if there was no container; 126 if the
command cannot be run; 127 if it is not there.

Example:
  lamel run --rootfs /srv/debian -it bash")]
pub(crate) struct Args {
    /// The container's root directory
    #[arg(long, value_name = "DIR")]
    pub(crate) rootfs: PathBuf,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Nothing is kept of the container in any case
    #[arg(long)]
    pub(crate) rm: bool,
    /// Working directory inside; made if it is missing [default: /]
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
    /// Name of the container, by which others of its network reach it
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
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
    pub(crate) network: network::NetworkArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// Runs a container in the foreground; its exit status is this program's.
pub(crate) fn run(args: &Args, log: &LogArgs) -> ExitCode {
    let ran = log.init().and_then(|()| {
        exe::protect()?;
        start(args)
    });
    finish("lamel", ran)
}

/// Turns what came of a container into an exit status.
pub(crate) fn finish(program: &str, ran: Result<i32>) -> ExitCode {
    match ran {
        Ok(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(NO_CONTAINER)),
        Err(error) => {
            complain(program, &error);
            ExitCode::from(match error.downcast_ref::<Error>() {
                Some(Error::Program { errno: rustix::io::Errno::NOENT, .. }) => NOT_FOUND,
                Some(Error::Program { .. }) => NOT_RUNNABLE,
                _ => NO_CONTAINER,
            })
        }
    }
}

fn start(args: &Args) -> Result<i32> {
    if args.tty && args.interactive && !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        bail!("-t with -i needs a terminal for standard input, which is none");
    }
    let id = identity::random_id()?;
    let root = real_root(&args.rootfs)?;
    let mut options = Options::new(root.clone(), id.clone());
    options.pivot = !args.no_pivot;
    options.init = args.init;
    options.cache = filter_cache();
    if !args.interactive {
        close_input()?;
    }
    let request = args.network.resolve(&[])?;
    if !request.needs_directory() {
        let plain = Prepared::plain(request.namespace(), request.hostname(args.hostname.as_deref(), &id));
        return attend(&config::spec(args, &root, &plain)?, &options, args.interactive, |_| Ok(()));
    }
    let store = args.store.root()?;
    network::sweep(&store);
    let place = Place::make(&store, &id)?;
    let mut member = Member {
        root: &store,
        directory: place.path(),
        id: &id,
        hostname: request.hostname(args.hostname.as_deref(), &id),
        names: network::names(&id, args.name.as_deref(), &request),
    };
    let owner = args.identity.maps()?.and_then(|maps| maps.root());
    let prepared = request.prepare(&mut member, args.hostname.is_some(), owner)?;
    let spec = config::spec(args, &root, &prepared)?;
    let mut connection = None;
    attend(&spec, &options, args.interactive, |created| {
        connection = Some(request.connect(&member, created)?);
        Ok(())
    })
}

/// Starts a container and stays with it to its end. `connect` is called before its program runs.
pub(crate) fn attend(
    spec: &lamel_isolate::oci::Spec,
    options: &Options,
    input: bool,
    connect: impl FnOnce(&Created) -> Result<()>,
) -> Result<i32> {
    let signals = Signals::hold().context("signals")?;
    let mut container = Container::start_with(spec, options, connect)?;
    for note in container.notes() {
        complain("lamel", &anyhow::anyhow!("note: {note}"));
    }
    Ok(container.attend(&signals, input)?.code())
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

/// Nobody types for a container without -i.
pub(crate) fn close_input() -> Result<()> {
    let null = std::fs::File::open("/dev/null").context("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("standard input")
}
