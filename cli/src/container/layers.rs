//! What a container's own layer holds, read from outside: for commit, diff and export.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail};
use lamel_image::store::{Image, Opened, Store};
use lamel_image::view::View;
use lamel_isolate::oci::Spec;
use lamel_unionfs::changeset::{Stack, look_up};
use lamel_unionfs::layer::Layer;
use rustix::fs::{Mode, OFlags, openat};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::copy::root::Root;
use super::monitor::union;
use super::namespace::{self, Ids};
use super::record::{Hold, Record};
use super::state::{State, Status};
use super::wire::Request;
use super::{control, places, start};
use crate::image::StoreArgs;
use crate::run::identity::Maps;

/// The layers of a container of an image.
pub(super) struct Layers {
    pub(super) record: Record,
    pub(super) store: Store,
    pub(super) image: Image,
    spec: Spec,
    opened: Opened,
    below: Vec<Arc<dyn Layer>>,
}

impl Layers {
    pub(super) fn of(store: &StoreArgs, record: &Record) -> Result<Self> {
        if record.settings.image.is_none() {
            bail!(
                "container {} runs over a directory, {}, which it writes itself: there is no layer of its changes",
                record.settings.name,
                record.root().display()
            );
        }
        let (store, image) = start::image(store, record)?;
        let opened = store.open_image(&image)?;
        let spec = record.spec()?;
        let below = places::below(record, &spec, &opened)?;
        Ok(Self { record: record.clone(), spec, store, image, opened, below })
    }

    /// Those under its own.
    pub(super) fn below(&self) -> &[Arc<dyn Layer>] {
        &self.below
    }

    /// Works where the container's ids are those of the disk.
    pub(super) fn work(&self, running: &Running, work: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        if rustix::process::geteuid().is_root() {
            return work(self);
        }
        match (running.monitor, maps(&self.spec)) {
            (Some(pid), _) => namespace::aside(Ids::Of(pid), false, || work(self)),
            (None, Some(maps)) => namespace::aside(Ids::Mapped(&maps), false, || work(self)),
            (None, None) => work(self),
        }
    }

    /// The layers as one, read without a mount. What a program of the container would be shown of files with several names
    /// is in the upper then.
    pub(super) fn stack(&self, running: &Running) -> Result<Stack> {
        let options = union::options(&self.record, &self.spec);
        if running.fresh {
            union::dress_root(
                &self.record,
                &View::new(self.opened.layer.clone()),
                options.ownership.xattr_permissions,
            )?;
        }
        let stack = Stack::open(&self.record.upper(), options.ownership.xattr_permissions, &self.below)?;
        let names = stack.names_to_look_up(&self.record.work())?;
        match &running.root {
            _ if names.is_empty() => {}
            Some(process) => {
                let root = Root::confined(root_of(process)?);
                // What is not there, is not to be found.
                names.iter().for_each(|name| drop(root.find(name, false)));
            }
            None => look_up(&options, &self.below, &names)?,
        }
        Ok(stack)
    }
}

/// The ids of a container that has its own.
pub(crate) fn maps(spec: &Spec) -> Option<Maps> {
    let linux = spec.linux().as_ref()?;
    Some(Maps { uids: linux.uid_mappings().clone()?, gids: linux.gid_mappings().clone()? })
}

/// How a container is held while its files are looked at: one that runs may be paused, one that does not is not started.
pub(super) struct Running {
    /// The process directory of its first process, if it runs.
    pub(super) root: Option<OwnedFd>,
    pub(super) monitor: Option<i32>,
    /// It was never started.
    pub(super) fresh: bool,
    paused: Option<Paused>,
    _hold: Option<Hold>,
}

impl Running {
    /// Looks whether it runs, and pauses it if it is to be.
    pub(super) fn hold(record: &Record, pause: bool) -> Result<Self> {
        let hold = record.hold()?;
        let state = record.state()?;
        if hold.is_some() || !state.status.is_alive() {
            return Ok(Self { root: None, monitor: None, fresh: state.started.is_none(), paused: None, _hold: hold });
        }
        let root = process(&state).with_context(|| format!("container {} is just ending", record.settings.name))?;
        let monitor = Some(state.monitor).filter(|pid| *pid > 0);
        let mut running = Self { root: Some(root), monitor, fresh: false, paused: None, _hold: None };
        if pause && state.status == Status::Running {
            let mut paused = Paused::new(record)?;
            paused.is = control::ask(record, &Request::Pause)?.is_some();
            running.paused = Some(paused);
        }
        Ok(running)
    }

    /// Has the kernel hand on what programs have written to files that they have mapped.
    pub(super) fn sync(&self) {
        let synced = self.root.as_ref().map(|process| Ok::<_, anyhow::Error>(rustix::fs::syncfs(root_of(process)?)?));
        if let Some(Err(error)) = synced {
            tracing::debug!("syncfs: {error:#}");
        }
    }
}

/// A container that goes on when this goes, also after an error or a signal, which waits for it.
struct Paused {
    record: Record,
    is: bool,
    signal: Arc<AtomicUsize>,
    registered: Vec<SigId>,
}

impl Paused {
    fn new(record: &Record) -> Result<Self> {
        let mut paused = Self { record: record.clone(), is: false, signal: Arc::default(), registered: Vec::new() };
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            let number = usize::try_from(signal).unwrap_or_default();
            let registered = signal_hook::flag::register_usize(signal, Arc::clone(&paused.signal), number);
            paused.registered.push(registered.context("signals")?);
        }
        Ok(paused)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if self.is
            && let Err(error) = control::ask(&self.record, &Request::Unpause)
        {
            crate::launch::complain("lamel", &error.context("letting the container go on; say: lamel unpause"));
        }
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
        if let Some(signal) = i32::try_from(self.signal.load(Ordering::Acquire)).ok().filter(|signal| *signal > 0) {
            signal_hook::low_level::emulate_default_handler(signal).ok();
        }
    }
}

/// The process directory of a container's first process, which is that process's as long as it is open.
fn process(state: &State) -> Result<OwnedFd> {
    let path = format!("/proc/{}", state.pid);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path.as_str(), flags, Mode::empty()).with_context(|| path.clone())?;
    if super::state::start_time(state.pid) != Some(state.pid_started) {
        bail!("{path} is another process by now");
    }
    Ok(dir)
}

/// The root directory of a process as it sees it.
pub(super) fn root_of(process: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(process, Path::new("root"), flags, Mode::empty()).context("the container's root directory")
}
