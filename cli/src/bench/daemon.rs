//! A backend's process: what it uses while a workload runs.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

use super::machine::{field, kibibytes};
use super::result::DaemonSample;

/// A process that is watched.
#[derive(Debug)]
pub(crate) struct Meter {
    pid: Pid,
    directory: PathBuf,
}

/// A process's counters at some moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    cpu: f64,
    voluntary: u64,
    involuntary: u64,
    resident: u64,
}

impl Meter {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid: Pid::from_raw(pid.cast_signed()), directory: PathBuf::from(format!("/proc/{pid}")) }
    }

    pub(crate) fn read(&self) -> Reading {
        let (mut voluntary, mut involuntary) = (0, 0);
        for task in entries(&self.directory.join("task")) {
            let status = task.join("status");
            let count = |key| field(&status, key).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
            voluntary += count("voluntary_ctxt_switches");
            involuntary += count("nonvoluntary_ctxt_switches");
        }
        Reading { cpu: self.cpu(), voluntary, involuntary, resident: self.resident() }
    }

    /// What happened since `before`, and what is held now.
    pub(crate) fn since(&self, before: &Reading) -> DaemonSample {
        let now = self.read();
        DaemonSample {
            cpu_seconds: (now.cpu - before.cpu).max(0.0),
            // A thread that ended took its counters along.
            voluntary_switches: now.voluntary.saturating_sub(before.voluntary),
            involuntary_switches: now.involuntary.saturating_sub(before.involuntary),
            resident_before: before.resident,
            resident_after: now.resident,
            open_files: entries(&self.directory.join("fd")).count() as u64,
            threads: entries(&self.directory.join("task")).count() as u64,
        }
    }

    /// CPU time as the kernel shows it to everybody, in ticks: whole ones, of which there are 100 in a second.
    pub(crate) fn ticks(&self) -> Option<u64> {
        let text = fs::read_to_string(self.directory.join("stat")).ok()?;
        // The name of the program may hold anything; utime and stime are the 12th and 13th field after it.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    }

    /// Seconds of all threads, also of ended ones.
    fn cpu(&self) -> f64 {
        let clock = nix::time::clock_getcpuclockid(self.pid).and_then(nix::time::clock_gettime);
        clock.map_or(0.0, |time: TimeSpec| time.tv_sec() as f64 + time.tv_nsec() as f64 * 1e-9)
    }

    fn resident(&self) -> u64 {
        field(self.directory.join("status"), "VmRSS").and_then(|text| kibibytes(&text)).unwrap_or_default()
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}
