//! Programs that are started and waited for, within a time: foreign ones hang.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process};

use super::sys;

/// How long one may take.
const LIMIT: Duration = Duration::from_secs(300);

/// What a program has done.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) seconds: f64,
    /// The most memory that it, or a process that it waited for, held at a time, in bytes.
    pub(crate) peak: u64,
    /// Its standard output.
    pub(crate) output: String,
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    started: Instant,
    name: String,
    output: File,
    errors: File,
}

impl Running {
    /// Starts it. What it prints goes to memory and not to pipes, which daemons that it leaves would hold open.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let memory = || Ok::<_, anyhow::Error>(File::from(memfd_create("lamel-bench", MemfdFlags::CLOEXEC)?));
        let (output, errors) = (memory()?, memory()?);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(errors.try_clone()?);
        let words = std::iter::once(command.get_program()).chain(command.get_args().take(4));
        let name = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { child, started, name, output, errors })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its success.
    pub(crate) fn finish(mut self) -> Result<Ran> {
        let (done, ended) = mpsc::channel::<()>();
        let pid = self.child.id();
        let left = LIMIT.saturating_sub(self.started.elapsed());
        let (status, peak) = std::thread::scope(|scope| {
            scope.spawn(move || {
                if ended.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout)
                    && let Some(pid) = Pid::from_raw(pid.cast_signed())
                {
                    kill_process(pid, Signal::KILL).ok();
                }
            });
            let waited = sys::wait(&mut self.child);
            drop(done);
            waited
        })
        .with_context(|| format!("waiting for {}", self.name))?;
        let seconds = self.started.elapsed().as_secs_f64();
        let output = text(self.output)?;
        if !status.success() {
            let said = text(self.errors)?;
            let last: Vec<&str> = said.lines().rev().take(3).collect();
            bail!("{}: {status}: {}", self.name, last.into_iter().rev().collect::<Vec<_>>().join("; "));
        }
        Ok(Ran { seconds, peak, output })
    }
}

/// Runs a program that must succeed.
pub(crate) fn run(command: &mut Command) -> Result<Ran> {
    Running::start(command)?.finish()
}

fn text(mut file: File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).context("what a program printed")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
