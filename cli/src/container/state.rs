//! `state.json`: what changes while a container lives. Its monitor alone writes it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::settings::Port;

/// Bytes of a file of the state that are read.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// A monitor has no umask. Its user reads what it wrote as another of his ids; others do not come into the directory.
const MODE: u32 = 0o644;

/// The exit code of a container whose monitor was killed: with it the kernel killed the container.
pub(crate) const KILLED: i32 = 137;

/// Where a container is in its life, in docker's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Never started.
    #[default]
    Created,
    Running,
    Paused,
    /// It ended, and its monitor waits to start it again.
    Restarting,
    Exited,
}

impl Status {
    pub(crate) const ALL: [Self; 5] = [Self::Created, Self::Running, Self::Paused, Self::Restarting, Self::Exited];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }

    /// Whether a monitor has to live for this to be true.
    pub(crate) fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// What the health check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub(crate) status: String,
    /// Failures one after the other.
    pub(crate) failing: u32,
    /// The last runs, the newest last.
    pub(crate) log: Vec<Probe>,
}

/// One run of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probe {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) exit_code: i32,
    pub(crate) output: String,
}

/// What a container has in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) prefix: u8,
    pub(crate) gateway: String,
    pub(crate) mac: String,
}

/// `state.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) status: Status,
    /// Of the first process, as the host sees it; 0 if there is none.
    pub(crate) pid: i32,
    /// When that one started, in clock ticks after boot: field 22 of `/proc/PID/stat`. It tells a process from a later
    /// one with the same number.
    pub(crate) pid_started: u64,
    /// Of the monitor; 0 if there is none.
    pub(crate) monitor: i32,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
    pub(crate) exit_code: i32,
    pub(crate) oom_killed: bool,
    /// Why it could not be started.
    pub(crate) error: String,
    /// How often the restart policy has started it again.
    pub(crate) restarts: u32,
    /// It was stopped by a command, which `unless-stopped` respects.
    pub(crate) stopped: bool,
    pub(crate) health: Option<Health>,
    /// By the network's name.
    pub(crate) networks: BTreeMap<String, Endpoint>,
    /// Those that are published.
    pub(crate) ports: Vec<Port>,
}

impl State {
    /// What a state that speaks of a living monitor means if there is none.
    pub(crate) fn bereft(self) -> Self {
        if !self.status.is_alive() {
            return Self { pid: 0, monitor: 0, ..self };
        }
        let code = if self.status == Status::Restarting { self.exit_code } else { KILLED };
        Self { status: Status::Exited, pid: 0, monitor: 0, exit_code: code, networks: BTreeMap::new(), ..self }
    }
}

/// When a process started, in clock ticks after boot; `None` if there is no such process.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Reads a file of the state.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let shown = || path.display().to_string();
    let mut text = String::new();
    fs::File::open(path).with_context(shown)?.take(MAX_FILE).read_to_string(&mut text).with_context(shown)?;
    serde_json::from_str(&text).with_context(shown)
}

/// Writes a file of the state beside the old one and puts it in its place: a reader sees the one or the other, whole.
///
/// It is not flushed to the disk: after a power failure nothing runs that it could speak of.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let shown = || format!("writing {}", path.display());
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let text = serde_json::to_vec_pretty(value).with_context(shown)?;
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&draft)?;
        file.write_all(&text)
    };
    let written = match write().and_then(|()| fs::rename(&draft, path)) {
        // The container may have filled the disk itself: then the old file's place has to do.
        Err(error) if error.kind() == ErrorKind::StorageFull && path.exists() => {
            fs::remove_file(&draft).ok();
            write_over(path, &text)
        }
        written => written,
    };
    if written.is_err() {
        fs::remove_file(&draft).ok();
    }
    written.with_context(shown)
}

fn write_over(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(text)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_without_a_monitor_is_an_end() {
        let state = |status, exit_code| State { status, pid: 5, monitor: 4, exit_code, ..State::default() }.bereft();
        for (before, code, after, told) in [
            (Status::Running, 0, Status::Exited, KILLED),
            (Status::Paused, 0, Status::Exited, KILLED),
            (Status::Restarting, 3, Status::Exited, 3),
            (Status::Exited, 3, Status::Exited, 3),
            (Status::Created, 0, Status::Created, 0),
        ] {
            let told_state = state(before, code);
            assert_eq!((told_state.status, told_state.exit_code, told_state.pid), (after, told, 0), "{before:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_and_an_older_file_has_defaults() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state.json");
        let state = State { status: Status::Paused, started: Some(Timestamp::UNIX_EPOCH), ..State::default() };
        write(&path, &state).unwrap();
        assert_eq!(read::<State>(&path).unwrap(), state);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        fs::write(&path, r#"{"status": "exited", "unknown": 1}"#).unwrap();
        assert_eq!(read::<State>(&path).unwrap(), State { status: Status::Exited, ..State::default() });
        assert!(write(&place.path().join("nowhere/state.json"), &state).is_err());
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(start_time(own), start_time(own));
        assert!(start_time(own).unwrap() > 0);
        assert_eq!(start_time(i32::MAX), None);
    }
}
