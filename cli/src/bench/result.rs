//! What a run found, as it stands in its JSON.

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::plan::Shape;

/// Raised when an older reader would misunderstand a newer file.
pub(crate) const FORMAT: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    /// The version of lamel that measured.
    pub(crate) lamel: String,
    /// Seconds since 1970.
    pub(crate) started: u64,
    pub(crate) command: Vec<String>,
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) backends: Vec<BackendFacts>,
    pub(crate) rows: Vec<RowResult>,
}

/// How it was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) size: String,
    pub(crate) shape: Shape,
    /// The directory given by `--tree`.
    pub(crate) tree: Option<String>,
    pub(crate) entries: usize,
    pub(crate) layers: usize,
    pub(crate) repeat: usize,
    pub(crate) userns: bool,
    pub(crate) lower_filesystem: String,
    pub(crate) upper_filesystem: String,
    /// Whether the page cache could be dropped where a workload wants it cold.
    pub(crate) drops_caches: bool,
    /// Whether a file of the lower can be shared with the upper instead of copied.
    pub(crate) reflink: bool,
}

/// A way to have the tree, and what can be told of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BackendFacts {
    /// As it was asked for.
    pub(crate) name: String,
    pub(crate) version: String,
    /// What it was mounted with, layers apart.
    pub(crate) options: String,
}

/// What a number means. Of each, less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    /// Seconds for the whole.
    Seconds,
    /// Seconds for the whole, shown for each of `amount` calls.
    Each,
    /// Seconds for the whole, shown as `amount` bytes in a second.
    Throughput,
    Bytes,
    Count,
}

impl Unit {
    /// Whether it is a time, and counts in the means.
    pub(crate) fn is_time(self) -> bool {
        matches!(self, Self::Seconds | Self::Each | Self::Throughput)
    }
}

/// One line of the result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RowResult {
    pub(crate) workload: String,
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) caches: String,
    pub(crate) unit: Unit,
    /// In the order of [`Report::backends`].
    pub(crate) cells: Vec<Cell>,
}

/// What one backend did in one row.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) samples: Vec<Sample>,
    /// Why there is no result, or not as many as asked for.
    pub(crate) error: Option<String>,
    /// Why it was not tried.
    pub(crate) skipped: Option<String>,
}

impl Cell {
    /// The samples' values, if there was no error: what failed once is not speed.
    pub(crate) fn values(&self) -> Vec<f64> {
        if self.error.is_some() {
            return Vec::new();
        }
        self.samples.iter().map(|sample| sample.value).collect()
    }

    pub(crate) fn median(&self) -> Option<f64> {
        super::stats::median(&self.values())
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// In the row's unit.
    pub(crate) value: f64,
    /// Calls or bytes, for units that are for each of them.
    pub(crate) amount: Option<u64>,
    /// What the daemon did meanwhile, if the backend has one.
    pub(crate) daemon: Option<DaemonSample>,
}

/// What a daemon used during a measurement, and held after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DaemonSample {
    pub(crate) cpu_seconds: f64,
    pub(crate) voluntary_switches: u64,
    pub(crate) involuntary_switches: u64,
    pub(crate) resident_before: u64,
    pub(crate) resident_after: u64,
    pub(crate) open_files: u64,
    pub(crate) threads: u64,
}
