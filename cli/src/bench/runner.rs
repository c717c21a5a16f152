//! Runs workloads on backends in turn, and collects what they give.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::backend::{Backend, Mount, Place};
use super::daemon::Meter;
use super::input::Input;
use super::progress::Progress;
use super::result::{Cell, RowResult, Sample};
use super::workload::{Run, Stopped, Workload};

/// What is run.
pub(crate) struct Runner<'a> {
    pub(crate) backends: &'a [Backend],
    pub(crate) workloads: &'a [&'static Workload],
    pub(crate) input: &'a Input,
    pub(crate) repeat: usize,
    pub(crate) place: Place,
}

/// The numbers of one run.
type Samples = Vec<(&'static str, Sample)>;

impl Runner<'_> {
    /// Runs all of it: each workload on each backend, and that again, so that what changes on the host meanwhile
    /// changes for all of them.
    pub(crate) fn run(&self, progress: &Progress) -> Result<Vec<RowResult>> {
        let mut results = Vec::new();
        for workload in self.workloads {
            let mut rows: Vec<RowResult> = workload.rows.iter().map(|row| self.empty(workload, row)).collect();
            // Where it failed once it is not tried again.
            let mut stopped = vec![false; self.backends.len()];
            for round in 0..self.repeat {
                for (at, (backend, stopped)) in self.backends.iter().zip(&mut stopped).enumerate() {
                    if *stopped {
                        progress.step(workload.name, &backend.name, round, "left out");
                        continue;
                    }
                    let start = Instant::now();
                    let done = self.once(workload, backend);
                    *stopped = done.is_err();
                    let said = match &done {
                        Ok(_) => format!("{:.2} s", start.elapsed().as_secs_f64()),
                        Err(Stopped::Skipped(reason)) => format!("skipped: {reason}"),
                        Err(Stopped::Failed(error)) => format!("FAILED: {error:#}"),
                    };
                    progress.step(workload.name, &backend.name, round, &said);
                    note(&mut rows, at, done);
                    // A mount or an upper that stays would be in the way of everything that follows.
                    self.place.remove().context("cleaning up; nothing more was measured")?;
                }
            }
            results.extend(rows);
        }
        Ok(results)
    }

    fn empty(&self, workload: &Workload, row: &super::workload::Row) -> RowResult {
        RowResult {
            workload: workload.name.to_owned(),
            name: row.name.to_owned(),
            about: workload.about.to_owned(),
            caches: workload.caches.to_owned(),
            unit: row.unit,
            cells: vec![Cell::default(); self.backends.len()],
        }
    }

    /// One workload on one fresh mount with a fresh upper.
    fn once(&self, workload: &Workload, backend: &Backend) -> Result<Samples, Stopped> {
        self.place.remove()?;
        self.place.make()?;
        let start = Instant::now();
        let mount = backend.mount(self.input, &self.place, workload.needs, workload.writes)?;
        let mounted_after = start.elapsed();
        let done = self.measured(workload, backend, &mount, mounted_after);
        match done {
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

    fn measured(
        &self,
        workload: &Workload,
        backend: &Backend,
        mount: &Mount,
        mounted_after: Duration,
    ) -> Result<Samples, Stopped> {
        let run = Run {
            input: self.input,
            root: Run::open_root(&mount.root)?,
            path: mount.root.clone(),
            aside: self.place.base.join("aside"),
            union: backend.is_union(),
            mounted_after,
            daemon: mount.daemon().map(Meter::new),
            samples: Vec::new().into(),
        };
        let (done, ended) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(|| end_overdue(ended, mount.daemon()));
            let result = (workload.run)(&run);
            drop(done);
            result
        })?;
        Ok(run.samples.into_inner())
    }
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

/// Puts a run's numbers, or why there are none, into the rows.
fn note(rows: &mut [RowResult], at: usize, done: Result<Samples, Stopped>) {
    let mut samples = match done {
        Ok(samples) => samples,
        Err(stopped) => {
            for cell in rows.iter_mut().filter_map(|row| row.cells.get_mut(at)) {
                match &stopped {
                    Stopped::Skipped(reason) => cell.skipped = Some(reason.clone()),
                    Stopped::Failed(error) => cell.error = Some(format!("{error:#}")),
                }
            }
            return;
        }
    };
    for row in rows {
        let own = samples.iter().position(|(name, _)| *name == row.name);
        match (row.cells.get_mut(at), own) {
            (Some(cell), Some(own)) => cell.samples.push(samples.swap_remove(own).1),
            (Some(cell), None) => cell.skipped = Some("not with this backend".to_owned()),
            (None, _) => {}
        }
    }
}
