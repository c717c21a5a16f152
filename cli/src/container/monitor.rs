//! The process that a container has on the host: its monitor.
//!
//! It is forked off by the command that starts the container and belongs to no terminal. It mounts the image where
//! nobody else sees it, starts the container, keeps its log, answers commands, and writes down how it ended. It holds
//! the container's lock as long as it lives; when it ends, however that happens, the kernel takes the mount, the
//! container's processes and the lock away.
//!
//! Reading order: this file (how it begins), `life` (starts and ends of the container), `serve` (what it waits for),
//! then `client`, `stdio`, `union`.

mod client;
mod health;
mod life;
mod network;
mod serve;
mod stdio;
pub(crate) mod union;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lamel_image::store::{Image, Store};
use lamel_isolate::attach::Signals;
use lamel_isolate::idmap::mapping;
use lamel_isolate::oci::{LinuxIdMapping, Mount, Spec};
use lamel_isolate::{Options, seccomp};
use lamel_unionfs::mount::{Side, Starting, daemonize};

use super::log::Log;
use super::record::{Hold, Record};
use super::records::Containers;
use super::settings::LogDriver;
use super::wire::Line;
use super::{control, events, namespace};
use crate::launch::told;
use crate::run::{failure_code, filter_cache};
use client::Client;
use serve::{Equipment, Monitor};

/// How a container is to be started.
pub(crate) struct Wanted {
    pub(crate) containers: Containers,
    pub(crate) record: Record,
    pub(crate) hold: Hold,
    pub(crate) spec: Spec,
    /// The image that it is made of, with the store that it lies in.
    pub(crate) image: Option<(Store, Image)>,
    /// The caller gets its output, and gives its input, from the beginning.
    pub(crate) attach: bool,
    /// Of the caller's terminal: columns and rows.
    pub(crate) size: Option<(u16, u16)>,
}

/// A container that was not started.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct NotStarted {
    /// What `lamel run` exits with.
    pub(crate) code: u8,
    text: String,
}

/// Starts the container. On return its program runs; the line leads to its monitor.
pub(crate) fn start(wanted: Wanted) -> Result<Line> {
    let parting = Parting::of(&wanted);
    let cache = filter_cache();
    let (ours, theirs) = namespace::line()?;
    match daemonize().context("starting the container's monitor")? {
        Side::Caller(waiting) => {
            drop((theirs, wanted));
            if let Parting::User { uids, gids } = &parting {
                // The maps of a user namespace are given from outside of it.
                namespace::give(&ours, uids, gids)?;
            }
            match waiting.wait() {
                Ok(()) => Ok(Line(ours)),
                Err(text) => Err(not_started(&text).into()),
            }
        }
        Side::Daemon(starting) => {
            drop(ours);
            std::process::exit(run(wanted, parting, cache, theirs, starting))
        }
    }
}

fn not_started(text: &str) -> NotStarted {
    let (code, text) = text.split_once(' ').unwrap_or(("", text));
    match code.parse() {
        Ok(code) => NotStarted { code, text: text.to_owned() },
        Err(_) => NotStarted { code: 125, text: "the container's monitor ended before it had started it".to_owned() },
    }
}

/// What keeps the monitor's mount from everybody else.
enum Parting {
    /// A directory needs no mount.
    None,
    /// A mount namespace, from which mounts below these places go to the host as they come from there.
    Mounts { shared: Vec<PathBuf> },
    /// A user namespace with a mount namespace, for who may not mount outside.
    User { uids: Vec<LinuxIdMapping>, gids: Vec<LinuxIdMapping> },
}

impl Parting {
    fn of(wanted: &Wanted) -> Self {
        if wanted.image.is_none() {
            return Self::None;
        }
        let linux = wanted.spec.linux().as_ref();
        let maps = linux.and_then(|linux| Some((linux.uid_mappings().clone()?, linux.gid_mappings().clone()?)));
        match maps.filter(|_| !rustix::process::geteuid().is_root()) {
            Some((uids, gids)) => Self::User { uids, gids },
            None => Self::Mounts { shared: shared(&wanted.spec) },
        }
    }

    /// Parts this process; the caller on the other side of `line` gives the maps.
    fn perform(&self, line: &OwnedFd) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Mounts { shared } => namespace::part_mounts(shared),
            Self::User { uids, gids } => {
                namespace::part_user(line)?;
                if [uids, gids].iter().all(|maps| maps.iter().any(|map| map.container_id() == 0)) {
                    become_root().context("becoming root of the user namespace")?;
                }
                namespace::part_mounts(&[])
            }
        }
    }
}

/// The sources of mounts that share what is mounted on them with the host.
fn shared(spec: &Spec) -> Vec<PathBuf> {
    let is_shared = |mount: &&Mount| mount.options().iter().flatten().any(|o| o == "shared" || o == "rshared");
    let mut places: Vec<PathBuf> =
        spec.mounts().iter().flatten().filter(is_shared).filter_map(|mount| mount.source().clone()).collect();
    places.sort();
    places.dedup();
    places
}

/// Who makes files in others' names has to come back to root: only root has all capabilities when it comes back.
fn become_root() -> Result<(), rustix::io::Errno> {
    use rustix::fs::{Gid, Uid};
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    // That closed its part of /proc, through which its children get their ids.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
}

/// In the monitor's own user namespace the container's maps every id to itself.
fn nest(spec: &mut Spec) {
    let same = |maps: &[LinuxIdMapping]| -> Vec<LinuxIdMapping> {
        maps.iter().map(|map| mapping(map.container_id(), map.container_id(), map.size())).collect()
    };
    if let Some(linux) = spec.linux_mut() {
        let uids = linux.uid_mappings().as_deref().map(same);
        let gids = linux.gid_mappings().as_deref().map(same);
        linux.set_uid_mappings(uids).set_gid_mappings(gids);
    }
}

/// The monitor's life; what it exits with is nobody's business.
fn run(wanted: Wanted, parting: Parting, cache: Option<seccomp::Cache>, line: OwnedFd, starting: Starting) -> i32 {
    let (containers, record) = (wanted.containers.clone(), wanted.record.clone());
    let (mut monitor, hold) = match begin(wanted, &parting, cache, line) {
        Ok(begun) => begun,
        Err((error, hold)) => {
            let code = failure_code(&error);
            let text = told(&error);
            failed_to_start(&containers, &record, hold, code.into(), &text);
            starting.failed(&format!("{code} {text}"));
            return 1;
        }
    };
    if starting.ready().is_err() {
        tracing::debug!("the starting command is gone");
    }
    monitor.serve();
    monitor.finish(hold);
    0
}

/// Everything up to the running program. The lock comes back in any case.
fn begin(
    wanted: Wanted,
    parting: &Parting,
    cache: Option<seccomp::Cache>,
    line: OwnedFd,
) -> Result<(Box<Monitor>, Hold), (anyhow::Error, Hold)> {
    let Wanted { containers, record, hold, mut spec, image, attach, size } = wanted;
    let make = move || -> Result<Box<Monitor>> {
        rustix::thread::set_name(c"lamel-monitor").context("prctl")?;
        let state = record.state()?;
        let signals = Signals::hold().context("signals")?;
        // Before the namespaces: what is made here belongs to who called.
        let listener = control::listen(&record)?;
        let log = match record.settings.log_driver {
            LogDriver::K8sFile => Log::open(&record.log(), record.settings.log_size)
                .with_context(|| record.log().display().to_string())?,
            LogDriver::None => Log::none(),
        };
        parting.perform(&line)?;
        let union = match image {
            Some((store, image)) => Some(union::mount(&record, &store, &image, &spec, state.started.is_none())?),
            None => None,
        };
        crate::run::config::set_size(&mut spec, size)?;
        let mut options = Options::new(record.dir().to_owned(), record.id().to_owned());
        options.pivot = record.settings.pivot;
        options.init = record.settings.init;
        options.cache = cache;
        let client = Client::new(line, attach);
        let nested = matches!(parting, Parting::User { .. });
        let equipment = Equipment { signals, listener, log, union, client };
        let mut monitor = Box::new(Monitor::new(containers, record, state, (spec, nested), options, equipment));
        // The standard streams are about to be the container's.
        let caller = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3).context("standard error")?;
        for note in monitor.start()? {
            rustix::io::write(&caller, format!("lamel: note: {note}\n").as_bytes()).ok();
        }
        Ok(monitor)
    };
    match make() {
        Ok(monitor) => Ok((monitor, hold)),
        Err(error) => Err((error, hold)),
    }
}

/// As docker has it, what could not be started is there as it was made; with --rm it is not.
fn failed_to_start(containers: &Containers, record: &Record, hold: Hold, code: i32, text: &str) {
    let written = if record.settings.auto_remove {
        containers.remove(record, hold).map(|()| crate::volume::discard_own(containers, &record.settings))
    } else {
        record.state().and_then(|mut state| {
            (state.exit_code, state.error, state.finished) = (code, text.to_owned(), Some(jiff::Timestamp::now()));
            record.write_state(&state)
        })
    };
    if let Err(error) = written {
        tracing::error!("{error:#}");
    }
    if record.settings.auto_remove {
        events::add(containers, "destroy", &record.settings, &[]);
    }
}

/// How long the union is waited for at the end: somebody who looks into the container from outside may hold it.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(5);
/// How long commands are given to take what is still on its way to them.
const FLUSH_PATIENCE: Duration = Duration::from_secs(30);
