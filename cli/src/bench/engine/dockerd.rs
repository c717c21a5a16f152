//! Docker's daemon, started for the benchmark alone: its images and its socket are nobody else's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::super::sys;

/// How long it may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(40);

/// Ended with its value.
#[derive(Debug)]
pub(super) struct Dockerd {
    child: Child,
    socket: PathBuf,
}

impl Dockerd {
    /// Starts it, with all that it has in a directory.
    pub(super) fn start(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let log = File::create(dir.join("log")).context("dockerd's log")?;
        let socket = dir.join("socket");
        let mut command = Command::new("dockerd");
        command.args(["--ip6tables=false", "--iptables=false", "--bridge=none", "--data-root"]).arg(dir.join("data"));
        command.arg("--exec-root").arg(dir.join("exec")).arg("--pidfile").arg(dir.join("pid"));
        command.arg("-H").arg(format!("unix://{}", socket.display()));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        sys::die_with_parent(&mut command);
        let mut dockerd = Self { child: command.spawn().context("starting dockerd")?, socket };
        let start = Instant::now();
        loop {
            let mut version = dockerd.client(&["version"]);
            if version.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success()) {
                return Ok(dockerd);
            }
            let ended = dockerd.child.try_wait().context("waiting for dockerd")?;
            if ended.is_some() || start.elapsed() > PATIENCE {
                let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
                bail!("dockerd does not serve: {}", log.lines().last().unwrap_or("it said nothing"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A command of its client.
    pub(super) fn client(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.socket.display())).args(words);
        command
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // It ends its containers and its own containerd then.
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            kill_process(pid, Signal::TERM).ok();
        }
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
