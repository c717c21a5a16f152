//! Containers that run until the test ends.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::kit::*;

const LIMIT: Duration = Duration::from_secs(40);

/// A container named `c`; it is removed with this value.
pub(crate) struct Running(pub(crate) Ground);

impl Drop for Running {
    fn drop(&mut self) {
        let out = spawn_captured(self.lamel("rm", &["-f", "c"]), LIMIT);
        if !std::thread::panicking() {
            assert!(out.success(), "{}", out.stderr);
        }
    }
}

impl Running {
    /// With these options, doing nothing.
    pub(crate) fn start(who: Who, options: &[&str]) -> Self {
        Self::over(Ground::new(who), options, &["sleep", "100000"])
    }

    pub(crate) fn over(ground: Ground, options: &[&str], command: &[&str]) -> Self {
        ground.dir("store");
        let running = Self(ground);
        let root = running.0.root();
        let mut all = vec!["-d", "--name", "c"];
        all.extend(options);
        all.extend(["--rootfs", root.to_str().unwrap()]);
        all.extend(command);
        let out = spawn_captured(running.lamel("run", &all), LIMIT);
        assert!(out.success(), "{:?} {options:?}: {}", running.0.who, out.stderr);
        running
    }

    /// A command of lamel's on the container's store, not yet started.
    pub(crate) fn lamel(&self, subcommand: &str, words: &[&str]) -> Command {
        let mut line = self.0.who.command(&self.0.bin());
        line.arg(subcommand).arg("--root").arg(self.0.scratch.join("store")).args(words);
        line.current_dir(self.0.scratch.path());
        line
    }

    /// `lamel exec` with options, not yet started.
    pub(crate) fn command(&self, options: &[&str], command: &[&str]) -> Command {
        self.lamel("exec", &[options, &["c"], command].concat())
    }

    pub(crate) fn try_exec(&self, options: &[&str], command: &[&str]) -> Outcome {
        spawn_captured(self.command(options, command), LIMIT)
    }

    /// Runs a shell script in the container, which succeeds; what it printed.
    #[track_caller]
    pub(crate) fn exec(&self, options: &[&str], script: &str) -> String {
        let out = self.try_exec(options, &["sh", "-c", script]);
        assert!(
            out.success(),
            "{:?}: lamel exec {options:?} c sh -c {script:?}: {}\n{}{}",
            self.0.who,
            out.status,
            out.stdout,
            out.stderr
        );
        out.stdout.trim_end().to_owned()
    }

    /// Runs what is refused: this status, these words, and nothing was run.
    #[track_caller]
    pub(crate) fn refused(&self, options: &[&str], status: i32, words: &str) {
        let out = self.try_exec(options, &["sh", "-c", "echo it ran"]);
        let shown = format!("{:?}: lamel exec {options:?}: {}\n{}{}", self.0.who, out.status, out.stdout, out.stderr);
        assert_eq!((out.status.code(), out.stdout.as_str()), (Some(status), ""), "{shown}");
        assert!(out.stderr.contains(words), "no {words:?}: {shown}");
    }

    /// Of a command of lamel's that succeeds, what it printed.
    #[track_caller]
    pub(crate) fn told(&self, subcommand: &str, words: &[&str]) -> String {
        let out = spawn_captured(self.lamel(subcommand, words), LIMIT);
        assert!(out.success(), "{:?}: lamel {subcommand} {words:?}: {}{}", self.0.who, out.stdout, out.stderr);
        out.stdout.trim_end().to_owned()
    }

    pub(crate) fn directory(&self) -> PathBuf {
        let containers = self.0.scratch.join("store/containers");
        let id = std::fs::read_to_string(containers.join("names/c")).unwrap();
        containers.join(id)
    }

    /// Something of the container's `state.json`.
    pub(crate) fn state(&self, member: &str) -> u64 {
        let text = std::fs::read(self.directory().join("state.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()[member].as_u64().unwrap()
    }
}

#[track_caller]
pub(crate) fn eventually(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "still not so: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many processes on the host have this at the beginning of their arguments, and have not ended.
pub(crate) fn processes(beginning: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).replace('\0', " ").starts_with(beginning))
        })
        .count()
}
