//! Running commands with a time limit and an asserted status.

use std::{
    io::Read,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// How long a command may take unless the test says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

/// Runs `cmd` with bash (`-eu -o pipefail`) in `/`; panics unless it succeeds. Returns stdout without its last newline.
pub fn sh(cmd: &str) -> String {
    run_in(Path::new("/"), cmd)
}

/// [`sh`] in the directory `dir`, for instance a mount.
pub fn run_in(dir: &Path, cmd: &str) -> String {
    let out = sh_timeout(dir, cmd, TIMEOUT);
    assert!(
        out.success(),
        "`{cmd}` in {}: {}\n--- stdout\n{}\n--- stderr\n{}",
        dir.display(),
        out.status,
        out.stdout,
        out.stderr
    );
    out.stdout.trim_end_matches('\n').to_owned()
}

/// Runs `cmd` in `dir`; panics if it succeeds. Returns stderr.
pub fn sh_fails(dir: &Path, cmd: &str) -> String {
    let out = sh_timeout(dir, cmd, TIMEOUT);
    assert!(!out.success(), "`{cmd}` was expected to fail, and printed: {}", out.stdout);
    out.stderr
}

/// Runs `cmd` in `dir` and returns what came of it.
pub fn sh_outcome(dir: &Path, cmd: &str) -> Outcome {
    sh_timeout(dir, cmd, TIMEOUT)
}

/// Runs `cmd` in `dir`, for at most `limit`.
pub fn sh_timeout(dir: &Path, cmd: &str, limit: Duration) -> Outcome {
    let mut command = Command::new("bash");
    command.args(["-eu", "-o", "pipefail", "-c", cmd]).current_dir(dir);
    spawn_captured(command, limit)
}

/// Runs a command to the end of it *and of its output pipes*: a daemon that keeps them open counts as a hang. Panics
/// after `limit`, having killed the command.
pub fn spawn_captured(mut command: Command, limit: Duration) -> Outcome {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let pid = child.id();
    let stderr = thread::spawn(move || read_all(&mut err));
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        let stdout = read_all(&mut out);
        let stderr = stderr.join().unwrap_or_default();
        let status = child.wait();
        let _ = tx.send((status, stdout, stderr));
    });
    match rx.recv_timeout(limit) {
        Ok((status, stdout, stderr)) => {
            Outcome { status: status.unwrap_or_else(|e| panic!("wait for {command:?}: {e}")), stdout, stderr }
        }
        Err(_) => {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed());
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            panic!("{command:?}: not finished, or its output still open, after {limit:?}");
        }
    }
}

fn read_all(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
