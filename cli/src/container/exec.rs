//! `lamel exec`

mod relay;

use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr as _;

use anyhow::{Context as _, Result, bail};
use lamel_isolate::attach::{Signals, terminal_size};
use lamel_isolate::exec::{Options, Target};
use lamel_isolate::oci::{BoxBuilder, Capabilities, Capability, LinuxCapabilities, Process, Spec, User};
use lamel_isolate::user::Identity;
use lamel_isolate::{Error, caps, exe};
use lamel_unionfs::mount::{Side, daemonize};
use rustix::io::Errno;

use super::record::Record;
use super::settings::Settings;
use super::state::{State, Status};
use super::terminal::DetachKeys;
use crate::image::StoreArgs;
use crate::launch::{complain, warn};
use crate::run::environment::{EnvironmentArgs, TERM};
use crate::run::filter_cache;
use relay::{Attended, Pipes, attend};

/// What docker exits with if there is nothing to run a command in, if it cannot be run, and if it is not there.
const NO_CONTAINER: u8 = 1;
const NOT_RUNNABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// O_CLOEXEC, as `/proc/self/fdinfo` shows it.
const CLOSED_ON_EXEC: u32 = 0o2_000_000;

/// Run a command in a running container
///
/// The command gets the container's namespaces, control groups, limits, system call filter and
/// variables. It ends with the container, and without a terminal also with this program.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: the command's own; 128+N if signal N ended it; 126 if it cannot be run; 127 if it is not
there; 1 if there is no such container, or it does not run.

Example:
  lamel exec -it web sh")]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Do not wait for the command
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,
    /// Keys that leave the command alone in its terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    #[command(flatten)]
    environment: EnvironmentArgs,
    /// Working directory inside [default: the container's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// User and group inside, by name or number [default: the container's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// All capabilities
    #[arg(long)]
    privileged: bool,
    /// Hand on so many descriptors after the standard streams
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    preserve_fds: u32,
    /// The container's name or id
    container: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD", required = true)]
    command: Vec<String>,
}

/// Runs a command; its exit status is this program's.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    match attempt(args) {
        Ok(code) => Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(NOT_RUNNABLE))),
        Err(error) => {
            complain("lamel", &error);
            Ok(ExitCode::from(status(error.downcast_ref::<Error>())))
        }
    }
}

/// A directory to work in that is not there is a command that is not there, as docker has it.
fn status(error: Option<&Error>) -> u8 {
    match error {
        None | Some(Error::NotRunning { .. } | Error::Paused | Error::Cgroup(_) | Error::Call { .. }) => NO_CONTAINER,
        Some(Error::Program { errno: Errno::NOENT, .. } | Error::Directory { errno: Errno::NOENT, .. }) => NOT_FOUND,
        Some(_) => NOT_RUNNABLE,
    }
}

fn attempt(args: &Args) -> Result<i32> {
    // Before anything is opened that could have one of these numbers.
    preserved(args.preserve_fds)?;
    exe::protect()?;
    if args.tty && args.interactive && !std::io::stdin().is_terminal() {
        bail!("the input device is not a TTY: -t with -i needs a terminal for standard input");
    }
    let record = super::containers(&args.store)?.find(&args.container)?;
    let (target, spec) = (find(&record)?, record.spec()?);
    let identity = args.user.as_ref().map(|user| target.resolve_user(user, &record.settings.groups)).transpose()?;
    let process = process(args, &record.settings, &spec, &target, identity.as_ref())?;
    let (streams, pipes) = streams(args)?;
    let mut options = Options::new(record.id().to_owned());
    options.cache = filter_cache();
    options.streams = streams;
    options.preserved = args.preserve_fds;
    // What has a terminal is told by a hang-up, and may be left alone in it.
    options.ends_with_parent = !(args.tty || args.detach);
    let signals = Signals::hold().context("signals")?;
    let mut started = target.start(&spec, &process, options)?;
    for note in started.notes() {
        warn(&format!("note: {note}"));
    }
    if args.detach {
        started.leave();
        return Ok(0);
    }
    match attend(&mut started, &signals, args.interactive, pipes, &args.detach_keys)? {
        Attended::Ended => Ok(started.wait()?.code()),
        Attended::Detached(master) => {
            started.leave();
            hold(master)
        }
    }
}

/// The container, if it runs.
pub(super) fn find(record: &Record) -> Result<Target> {
    let State { status, pid, pid_started, .. } = record.state()?;
    let id = record.id();
    match status {
        Status::Running => {}
        Status::Paused => bail!("Container {id} is paused, unpause the container before exec"),
        Status::Restarting => bail!("Container {id} is restarting, wait until the container is running"),
        Status::Created | Status::Exited => bail!("container {id} is not running"),
    }
    match Target::find(pid, Some(pid_started)) {
        Err(Error::NotRunning { .. }) => bail!("container {id} is not running"),
        found => Ok(found?),
    }
}

/// The command, with what it has of the container's first process.
fn process(
    args: &Args,
    settings: &Settings,
    spec: &Spec,
    target: &Target,
    identity: Option<&Identity>,
) -> Result<Process> {
    let first = spec.process().as_ref().context("the container's configuration has no process")?;
    let user = match identity {
        None => first.user().clone(),
        Some(Identity { uid, gid, groups, .. }) => {
            let mut user = User::default();
            user.set_uid(*uid).set_gid(*gid);
            // Where one id is all there is, none can be chosen.
            if target.allows_groups() || groups != &[*gid] {
                user.set_additional_gids(Some(groups.clone()));
            }
            user
        }
    };
    let cwd = args.workdir.as_ref().unwrap_or(first.cwd());
    if !cwd.is_absolute() {
        bail!("-w {}: must be absolute", cwd.display());
    }
    let mut process = Process::default();
    process
        .set_args(Some(args.command.clone()))
        .set_env(Some(args.environment.over(variables(first, settings, identity, args.tty))?))
        .set_cwd(cwd.clone())
        .set_capabilities(Some(capabilities(args.privileged, first, user.uid() == 0)?))
        .set_user(user)
        .set_terminal(Some(args.tty))
        .set_rlimits(first.rlimits().clone())
        .set_no_new_privileges(first.no_new_privileges())
        .set_apparmor_profile(first.apparmor_profile().clone())
        .set_selinux_label(first.selinux_label().clone())
        .set_oom_score_adj(first.oom_score_adj());
    if let Some((columns, rows)) = terminal_size().filter(|_| args.tty) {
        process.set_console_size(Some(BoxBuilder::default().width(columns).height(rows).build()?));
    }
    Ok(process)
}

/// The container's variables, as they are for this user.
fn variables(first: &Process, settings: &Settings, identity: Option<&Identity>, tty: bool) -> BTreeMap<String, String> {
    let pair = |pair: &String| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut variables: BTreeMap<String, String> = first.env().iter().flatten().filter_map(pair).collect();
    if tty {
        variables.entry("TERM".to_owned()).or_insert_with(|| TERM.to_owned());
    }
    if let Some(identity) = identity.filter(|_| settings.home_of_user) {
        let home = identity.home.as_deref().unwrap_or(if identity.uid == 0 { "/root" } else { "/" });
        variables.insert("HOME".to_owned(), home.to_owned());
    }
    variables
}

/// Those that the container has, or all; none of them inheritable (CVE-2022-29162).
fn capabilities(privileged: bool, first: &Process, root: bool) -> Result<LinuxCapabilities> {
    let set: Capabilities = if privileged {
        let known = |name: &String| Capability::from_str(name.trim_start_matches("CAP_")).with_context(|| name.clone());
        caps::available().iter().map(known).collect::<Result<_>>()?
    } else {
        first.capabilities().as_ref().and_then(|sets| sets.bounding().clone()).unwrap_or_default()
    };
    let held = root.then(|| set.clone());
    let mut capabilities = LinuxCapabilities::default();
    capabilities.set_bounding(Some(set)).set_inheritable(None).set_ambient(None);
    capabilities.set_effective(held.clone()).set_permitted(held);
    Ok(capabilities)
}

/// The command's standard streams, and their other ends.
///
/// It gets this program's own but for a terminal: who has one open could read from it all that is typed, and write into
/// its input.
fn streams(args: &Args) -> Result<([Option<OwnedFd>; 3], Pipes)> {
    let mut pipes = Pipes::default();
    if args.tty {
        return Ok(([None, None, None], pipes));
    }
    let null = || -> Result<Option<OwnedFd>> {
        let file = fs::OpenOptions::new().read(true).write(true).open("/dev/null").context("/dev/null")?;
        Ok(Some(file.into()))
    };
    if args.detach {
        return Ok(([null()?, null()?, null()?], pipes));
    }
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe");
    let mut streams = [None, None, None];
    if !args.interactive {
        streams[0] = null()?;
    } else if std::io::stdin().is_terminal() {
        let (read, write) = pipe()?;
        (streams[0], pipes.stdin) = (Some(read), Some(write));
    }
    for (stream, end, terminal) in [
        (1, &mut pipes.stdout, std::io::stdout().is_terminal()),
        (2, &mut pipes.stderr, std::io::stderr().is_terminal()),
    ] {
        if terminal {
            let (read, write) = pipe()?;
            (streams[stream], *end) = (Some(write), Some(read));
        }
    }
    Ok((streams, pipes))
}

/// Sees that the descriptors that are handed on were handed to this program.
fn preserved(count: u32) -> Result<()> {
    for number in (3_u32..).take(usize::try_from(count)?) {
        let shown = || format!("--preserve-fds {count}: descriptor {number} is not open");
        // What is opened to look would close on exec itself.
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).with_context(shown)?;
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
        if u32::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & CLOSED_ON_EXEC != 0) {
            bail!(shown());
        }
    }
    Ok(())
}

/// Keeps a terminal open for a command that was left alone in it: its end would be a hang-up.
fn hold(master: OwnedFd) -> Result<i32> {
    match daemonize().context("going to the background")? {
        Side::Caller(waiting) => {
            waiting.wait().map_err(anyhow::Error::msg)?;
            Ok(0)
        }
        Side::Daemon(starting) => {
            let held = rustix::io::ioctl_fionbio(&master, false).and_then(|()| {
                starting.ready().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                let mut unseen = [0; 4096];
                // Until nobody has the terminal open any more.
                while rustix::io::read(&master, &mut unseen)? > 0 {}
                Ok(())
            });
            std::process::exit(i32::from(held.is_err()))
        }
    }
}
