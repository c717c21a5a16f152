//! The container's starts and ends.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use lamel_isolate::oci::{LinuxIdMapping, Spec};
use lamel_isolate::{Container, user};

use super::super::record::Hold;
use super::super::remove::remove_tree;
use super::super::settings::Restart;
use super::super::state::{self, Status};
use super::super::wire::{Reply, Stream};
use super::client::Awaits;
use super::network::{self, Network};
use super::serve::{Monitor, Run};
use super::stdio::{Lent, Streams};
use super::{FLUSH_PATIENCE, UNMOUNT_PATIENCE, nest};
use crate::container::events;
use crate::launch::told;
use crate::run::{config, failure_code};

/// The wait before the first restart, which then doubles, and its most; a run of this length makes it short again.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const LONG_RUN: Duration = Duration::from_secs(10);
/// A run of this length is going to last.
const SETTLED: Duration = Duration::from_millis(500);

impl Monitor {
    /// Starts the container. On return its program runs, and everybody can read so. What comes back is to be said aloud.
    pub(super) fn start(&mut self) -> Result<Vec<String>> {
        let settings = &self.record.settings;
        let identity = user::resolve(&self.record.root(), &settings.user, &settings.groups)?;
        config::set_user(&mut self.spec, &identity, settings.home_of_user);
        let mut spec = self.spec.clone();
        if self.nested {
            nest(&mut spec);
        }
        let (mut streams, lent) = if settings.tty {
            (Streams::default(), Lent::nothing()?)
        } else {
            let owner = (identity.uid, identity.gid);
            Lent::pipes(settings.interactive, if self.nested { owner } else { outside(&spec, owner) })?
        };
        let network = Network::of(self, &mut spec)?;
        let mut connection = None;
        let mut container = Container::start_with(&spec, &self.options, |created| -> Result<()> {
            connection = Some(network.connect(created)?);
            Ok(())
        })?;
        drop(lent);
        // Beside the program, which has only just begun.
        self.record.write_spec(&self.spec)?;
        let notes = container.notes().to_vec();
        if let Some(master) = container.take_terminal() {
            streams = Streams::terminal(master)?;
        }
        self.begin_checks()?;
        let state = &mut self.state;
        state.status = Status::Running;
        state.pid = container.pid();
        state.pid_started = state::start_time(state.pid).unwrap_or(0);
        state.monitor = i32::try_from(std::process::id()).unwrap_or(0);
        state.started = Some(Timestamp::now());
        state.finished = None;
        (state.exit_code, state.stopped, state.oom_killed) = (0, false, false);
        state.error.clear();
        network::tell(state, &self.record.settings.network, connection.as_ref());
        self.record.write_state(&self.state)?;
        self.started = Instant::now();
        (self.kill_at, self.start_at, self.again) = (None, None, false);
        self.settled_at = Some(self.started + SETTLED);
        self.run = Some(Run { container, connection, streams, input: Vec::new(), input_ends: false });
        self.tell_event("start", &[]);
        Ok(notes)
    }

    /// What is to be done once the first process has ended. `false`: the monitor's work is done.
    pub(super) fn ended(&mut self) -> bool {
        let Some(mut run) = self.run.take() else { return self.start_at.is_some() };
        let code = match run.container.wait() {
            Ok(exit) => exit.code(),
            Err(error) => {
                tracing::error!("{error}");
                state::KILLED
            }
        };
        // All who could write are dead: what is there now is all there will be.
        for stream in [Stream::Out, Stream::Err] {
            while self.pass_on(&mut run.streams, stream) {}
        }
        self.state.oom_killed = run.container.was_oom_killed();
        if self.state.oom_killed {
            self.tell_event("oom", &[]);
        }
        drop(run);
        (self.kill_at, self.settled_at, self.checks) = (None, None, None);
        self.state.exit_code = code;
        self.state.finished = Some(Timestamp::now());
        (self.state.pid, self.state.pid_started) = (0, 0);
        self.state.networks.clear();
        self.state.ports.clear();
        self.tell_event("die", &[("exitCode", code.to_string())]);
        if std::mem::take(&mut self.stopping) {
            self.tell_event("stop", &[]);
        }
        if self.again {
            // Who asked for an end has had it.
            self.dismiss_waiting(code);
            return self.start_again();
        }
        if !self.is_to_restart(code) {
            return false;
        }
        self.backoff = if self.started.elapsed() >= LONG_RUN { FIRST_WAIT } else { self.backoff };
        self.start_at = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(LONGEST_WAIT);
        self.state.status = Status::Restarting;
        self.save();
        self.dismiss_waiting(code);
        true
    }

    fn is_to_restart(&self, code: i32) -> bool {
        match self.record.settings.restart {
            _ if self.state.stopped || self.ending => false,
            Restart::No => false,
            Restart::OnFailure(most) => code != 0 && (most == 0 || self.state.restarts < most),
            Restart::Always | Restart::UnlessStopped => true,
        }
    }

    /// Starts the container once more. What cannot be started has ended. `false`: the monitor's work is done.
    pub(super) fn start_again(&mut self) -> bool {
        let by_policy = !std::mem::take(&mut self.again);
        self.start_at = None;
        if by_policy {
            self.state.restarts += 1;
        }
        match self.start() {
            Ok(_) => {
                if !by_policy {
                    self.tell_event("restart", &[]);
                }
                self.clients.iter_mut().filter(|c| c.awaits == Awaits::Restarted).for_each(|c| c.dismiss(&Reply::Done));
                true
            }
            Err(error) => {
                tracing::error!("{error:#}");
                self.state.error = told(&error);
                self.state.exit_code = failure_code(&error).into();
                let failed = Reply::Failed(self.state.error.clone());
                self.clients.iter_mut().filter(|c| c.awaits == Awaits::Restarted).for_each(|c| c.dismiss(&failed));
                if !by_policy || !self.is_to_restart(self.state.exit_code) {
                    return false;
                }
                self.start_at = Some(Instant::now() + self.backoff);
                self.backoff = (self.backoff * 2).min(LONGEST_WAIT);
                self.state.status = Status::Restarting;
                self.save();
                true
            }
        }
    }

    /// Tells those who wait for an end, and those who saw the output.
    fn dismiss_waiting(&mut self, code: i32) {
        for client in &mut self.clients {
            match client.awaits {
                Awaits::End => client.dismiss(&Reply::Exited(code)),
                Awaits::Stopped => client.dismiss(&Reply::Done),
                Awaits::Restarted => {}
                Awaits::Nothing if client.attached => client.dismiss(&Reply::Exited(code)),
                Awaits::Nothing => {}
            }
        }
    }

    /// The end of it all: the state says how it was, or nobody finds the container any more, and then everybody hears
    /// of it. What is left to do they need not wait for; who wants to work on the container waits for its lock.
    pub(super) fn finish(mut self: Box<Self>, hold: Hold) {
        let code = self.state.exit_code;
        std::fs::remove_file(self.record.socket()).ok();
        self.state.status = Status::Exited;
        self.state.monitor = 0;
        let concealed = if self.record.settings.auto_remove { self.conceal() } else { None };
        if concealed.is_none() {
            self.save();
        }
        self.late_comers();
        self.dismiss_waiting(code);
        let start = Instant::now();
        while self.clients.iter().any(super::client::Client::has_more) && start.elapsed() < FLUSH_PATIENCE {
            self.await_room();
        }
        self.clients.clear();
        match (self.union.take(), &concealed) {
            // What is thrown away need not be written first.
            (Some(union), Some(dir)) => union.moved(dir.join("rootfs")).unmount(None),
            (Some(union), None) => union.unmount(Some(UNMOUNT_PATIENCE)),
            (None, _) => {}
        }
        if let Some(dir) = concealed
            && let Err(error) = remove_tree(&dir, None)
        {
            tracing::error!("removing {}: {error:#}", dir.display());
        }
        drop(hold);
    }

    /// Takes the container out of sight; where it lies then.
    fn conceal(&self) -> Option<PathBuf> {
        match self.containers.conceal(&self.record) {
            Ok(dir) => {
                crate::volume::discard_own(&self.containers, &self.record.settings);
                self.tell_event("destroy", &[]);
                Some(dir)
            }
            Err(error) => {
                tracing::error!("{error:#}");
                None
            }
        }
    }

    /// Commands that came while the end was on its way see that nobody listens.
    fn late_comers(&mut self) {
        while rustix::net::accept_with(&self.listener, rustix::net::SocketFlags::CLOEXEC).is_ok() {}
    }

    /// Writes the state down. If the disk is full, the old one stays, which the free lock will put right.
    pub(super) fn save(&mut self) {
        if let Err(error) = self.record.write_state(&self.state) {
            tracing::error!("{error:#}");
        }
    }

    pub(super) fn tell_event(&self, action: &str, more: &[(&str, String)]) {
        events::add(&self.containers, action, &self.record.settings, more);
    }

    pub(super) fn first_wait() -> Duration {
        FIRST_WAIT
    }
}

/// Ids of the container as the host has them.
pub(super) fn outside(spec: &Spec, (uid, gid): (u32, u32)) -> (u32, u32) {
    let through = |maps: Option<&[LinuxIdMapping]>, id: u32| {
        let Some(maps) = maps else { return id };
        let place = |map: &LinuxIdMapping| {
            let at = id.checked_sub(map.container_id()).filter(|at| *at < map.size())?;
            // The last number is no id.
            map.host_id().checked_add(at).filter(|id| *id != u32::MAX)
        };
        maps.iter().find_map(place).unwrap_or(id)
    };
    let linux = spec.linux().as_ref();
    let maps = |which: fn(&lamel_isolate::oci::Linux) -> &Option<Vec<LinuxIdMapping>>| {
        linux.and_then(|linux| which(linux).as_deref())
    };
    (
        through(maps(lamel_isolate::oci::Linux::uid_mappings), uid),
        through(maps(lamel_isolate::oci::Linux::gid_mappings), gid),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use lamel_isolate::idmap::mapping;

    #[test]
    fn ids_go_out_through_the_maps() {
        let mut spec = Spec::default();
        if let Some(linux) = spec.linux_mut() {
            linux.set_uid_mappings(Some(vec![mapping(0, 1000, 1), mapping(1, 100_000, 10)])).set_gid_mappings(None);
        }
        assert_eq!(outside(&spec, (0, 5)), (1000, 5));
        assert_eq!(outside(&spec, (3, 0)), (100_002, 0));
        assert_eq!(outside(&spec, (77, 0)), (77, 0));
    }
}
