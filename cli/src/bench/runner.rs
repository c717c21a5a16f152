//! Runs workloads on backends in turn, and collects what they give.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::backend::Backend;
use super::daemon::Meter;
use super::ground::{Grounds, Prepared};
use super::progress::Progress;
use super::result::{Cell, RowResult, Sample};
use super::workload::{Listed, Row, Run, Stopped, Workload};

/// The numbers of one run.
pub(crate) type Samples = Vec<(&'static str, Sample)>;

/// What is the same for everything that is measured in turns.
pub(crate) struct Turns<'a> {
    /// Names of what is compared.
    pub(crate) subjects: Vec<&'a str>,
    pub(crate) repeat: usize,
    pub(crate) progress: &'a Progress,
}

impl Turns<'_> {
    /// Runs one thing on each subject, and that again, so that what changes on the host meanwhile changes for all of
    /// them. An error is of the cleaning up, after which nothing can be measured.
    pub(crate) fn take(
        &self,
        listed: &Listed,
        mut once: impl FnMut(usize) -> Result<Result<Samples, Stopped>>,
    ) -> Result<Vec<RowResult>> {
        let mut rows = self.empty(listed);
        // Where it failed once it is not tried again.
        let mut stopped = vec![false; self.subjects.len()];
        for round in 0..self.repeat {
            for (at, (subject, stopped)) in self.subjects.iter().zip(&mut stopped).enumerate() {
                if *stopped {
                    self.progress.step(listed.name, subject, round, "left out");
                    continue;
                }
                let start = Instant::now();
                let done = once(at)?;
                *stopped = done.is_err();
                let said = match &done {
                    Ok(_) => format!("{:.2} s", start.elapsed().as_secs_f64()),
                    Err(stopped) => told(stopped),
                };
                self.progress.step(listed.name, subject, round, &said);
                note(&mut rows, at, done.as_ref().map(Vec::as_slice));
            }
        }
        Ok(rows)
    }

    /// The rows of what cannot be run at all.
    fn none(&self, listed: &Listed, stopped: &Stopped) -> Vec<RowResult> {
        let mut rows = self.empty(listed);
        for (at, subject) in self.subjects.iter().enumerate() {
            (0..self.repeat).for_each(|round| self.progress.step(listed.name, subject, round, &told(stopped)));
            note(&mut rows, at, Err(stopped));
        }
        rows
    }

    fn empty(&self, listed: &Listed) -> Vec<RowResult> {
        let row = |row: &Row| RowResult {
            workload: listed.name.to_owned(),
            name: row.name.to_owned(),
            about: listed.about.to_owned(),
            caches: listed.caches.to_owned(),
            unit: row.unit,
            cells: vec![Cell::default(); self.subjects.len()],
        };
        listed.rows.iter().map(row).collect()
    }
}

/// Runs workloads on mounts of backends.
pub(crate) fn on_mounts(
    turns: &Turns<'_>,
    backends: &[Backend],
    workloads: &[&Workload],
    grounds: &Grounds<'_>,
) -> Result<Vec<RowResult>> {
    let mut results = Vec::new();
    for workload in workloads {
        let listed = workload.listed();
        results.extend(match grounds.prepare(workload.ground, &|text| turns.progress.say(text)) {
            Ok(ground) => turns.take(&listed, |at| {
                let Some(backend) = backends.get(at) else { bail!("no backend {at}") };
                let done = once(workload, backend, &ground);
                // A mount or an upper that stays would be in the way of everything that follows.
                ground.place.remove().context("cleaning up; nothing more was measured")?;
                Ok(done)
            })?,
            Err(stopped) => turns.none(&listed, &stopped),
        });
    }
    Ok(results)
}

/// One workload on one fresh mount with a fresh upper.
fn once(workload: &Workload, backend: &Backend, ground: &Prepared<'_>) -> Result<Samples, Stopped> {
    let place = &ground.place;
    place.remove()?;
    place.make()?;
    let start = Instant::now();
    let mount = backend.mount(ground.input(), place, workload.needs, workload.writes)?;
    let run = Run {
        input: ground.input(),
        root: Run::open_root(&mount.root)?,
        path: mount.root.clone(),
        aside: place.base.join("aside"),
        union: backend.is_union(),
        mounted_after: start.elapsed(),
        daemon: mount.daemon().map(Meter::new),
        samples: Vec::new().into(),
    };
    match measured(workload, run, mount.daemon()) {
        Ok(samples) => {
            // What cannot be unmounted was not a good run.
            mount.unmount()?;
            Ok(samples)
        }
        Err(Stopped::Failed(error)) if mount.daemon().is_some() => {
            let words = mount.last_words();
            Err(Stopped::Failed(error.context(format!("the daemon's last words: {words}"))))
        }
        Err(other) => Err(other),
    }
}

/// Runs it, and ends the daemon if that has no end.
fn measured(workload: &Workload, run: Run<'_>, daemon: Option<u32>) -> Result<Samples, Stopped> {
    let (done, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(|| end_overdue(ended, daemon));
        let result = (workload.run)(&run);
        drop(done);
        result
    })?;
    Ok(run.samples.into_inner())
}

/// A daemon that answers no more would hold the workload for ever.
const LIMIT: Duration = Duration::from_secs(900);

/// Kills the daemon, and with it the workload's calls, if nothing comes from `ended` in time.
fn end_overdue(ended: mpsc::Receiver<()>, daemon: Option<u32>) {
    let overdue = ended.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
    let daemon = daemon.and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(daemon) = daemon.filter(|_| overdue) {
        tracing::error!("no end after {} s: the daemon is killed", LIMIT.as_secs());
        kill_process(daemon, Signal::KILL).ok();
    }
}

/// Why there are no numbers, for people.
fn told(stopped: &Stopped) -> String {
    match stopped {
        Stopped::Skipped(reason) => format!("skipped: {reason}"),
        Stopped::Failed(error) => format!("FAILED: {error:#}"),
    }
}

/// Puts a run's numbers, or why there are none, into the rows.
fn note(rows: &mut [RowResult], at: usize, done: Result<&[(&'static str, Sample)], &Stopped>) {
    for row in rows {
        let Some(cell) = row.cells.get_mut(at) else { continue };
        match done {
            Ok(samples) => match samples.iter().find(|(name, _)| *name == row.name) {
                Some((_, sample)) => cell.samples.push(sample.clone()),
                None => cell.skipped = Some("not with this backend".to_owned()),
            },
            Err(Stopped::Skipped(reason)) => cell.skipped = Some(reason.clone()),
            Err(Stopped::Failed(error)) => cell.error = Some(format!("{error:#}")),
        }
    }
}
