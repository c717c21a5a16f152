//! The health check of a running container: when it is made, and what comes of it.
//!
//! A check may take its time, and the monitor has other things to do: it is made in a thread of its own.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rustix::pipe::{PipeFlags, pipe_with};

use super::super::healthcheck::probe;
use super::super::settings::HealthCheck;
use super::super::state::{Health, Probe, Status};
use super::serve::Monitor;

/// Runs that are kept, as docker keeps them.
const KEPT: usize = 5;

/// The checks of one run of the container.
pub(super) struct Checks {
    check: HealthCheck,
    /// When the next one is made; there is none while one is under way.
    due: Option<Instant>,
    /// Failures before this do not count.
    settled: Instant,
    found: Option<Receiver<Result<Probe>>>,
    /// Readable when one has been made, and its other end.
    done: (OwnedFd, OwnedFd),
}

impl Checks {
    fn new(check: HealthCheck) -> Result<Self> {
        let now = Instant::now();
        let done = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).context("pipe")?;
        Ok(Self { due: Some(now + check.interval), settled: now + check.start_period, check, found: None, done })
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.done.0.as_fd()
    }
}

impl Monitor {
    /// Begins to check, if there is something to check by.
    pub(super) fn begin_checks(&mut self) -> Result<()> {
        self.checks = self.record.settings.health.clone().map(Checks::new).transpose()?;
        self.state.health = self.checks.as_ref().map(|_| Health { status: "starting".to_owned(), ..Health::default() });
        Ok(())
    }

    /// Makes the check that is due.
    pub(super) fn make_check(&mut self) {
        let Some(checks) = self.checks.as_mut().filter(|checks| checks.due.is_some_and(|due| due <= Instant::now()))
        else {
            return;
        };
        // What is paused cannot answer.
        if self.state.status != Status::Running {
            checks.due = Some(Instant::now() + checks.check.interval);
            return;
        }
        checks.due = None;
        let (record, check) = (self.record.clone(), checks.check.clone());
        let (tell, found) = channel();
        let begun = checks.done.1.try_clone().context("a pipe").and_then(|done| {
            let work = move || {
                tell.send(probe(&record, &check)).ok();
                rustix::io::write(&done, b"d").ok();
            };
            thread::Builder::new().name("health".to_owned()).spawn(work).context("a thread")
        });
        match begun {
            Ok(_) => checks.found = Some(found),
            Err(error) => {
                tracing::error!("the health check cannot be made: {error:#}");
                checks.due = Some(Instant::now() + checks.check.interval);
            }
        }
    }

    /// Notes what a check has found.
    pub(super) fn checked(&mut self) {
        let (Some(checks), Some(health)) = (self.checks.as_mut(), self.state.health.as_mut()) else { return };
        rustix::io::read(&checks.done.0, &mut [0; 8]).ok();
        let Some(found) = checks.found.take().and_then(|found| found.recv().ok()) else { return };
        let now = Instant::now();
        checks.due = Some(now + checks.check.interval);
        let probe = found.unwrap_or_else(|error| {
            let at = Timestamp::now();
            Probe { start: at, end: at, exit_code: -1, output: format!("{error:#}") }
        });
        let before = health.status.clone();
        note(health, probe, now < checks.settled, checks.check.retries);
        let changed = (health.status != before).then(|| health.status.clone());
        self.save();
        if let Some(status) = changed {
            self.tell_event(&format!("health_status: {status}"), &[]);
        }
    }
}

/// What a run of the check means; `early`: the container may still be starting.
fn note(health: &mut Health, probe: Probe, early: bool, retries: u32) {
    if probe.exit_code == 0 {
        health.failing = 0;
        "healthy".clone_into(&mut health.status);
    } else if !(early && health.status == "starting") {
        health.failing += 1;
        if health.failing >= retries {
            "unhealthy".clone_into(&mut health.status);
        }
    }
    health.log.push(probe);
    let surplus = health.log.len().saturating_sub(KEPT);
    health.log.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_once_it_has_started() {
        let mut health = Health { status: "starting".to_owned(), ..Health::default() };
        let at = Timestamp::UNIX_EPOCH;
        let mut found = |exit_code, early| {
            note(&mut health, Probe { start: at, end: at, exit_code, output: String::new() }, early, 2);
            (health.status.clone(), health.failing, health.log.len())
        };
        assert_eq!(found(1, true), ("starting".to_owned(), 0, 1));
        assert_eq!(found(1, false), ("starting".to_owned(), 1, 2));
        assert_eq!(found(0, false), ("healthy".to_owned(), 0, 3));
        assert_eq!(found(1, true), ("healthy".to_owned(), 1, 4));
        assert_eq!(found(-1, false), ("unhealthy".to_owned(), 2, 5));
        assert_eq!(found(0, false), ("healthy".to_owned(), 0, 5));
    }
}
