//! A store with an image of busybox, and the user that it belongs to.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::ground::Ground;
pub(crate) use super::ground::{EVERYBODY, Outcome, Who, sh, spawn_captured};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A store with the image `bb`. On drop all its containers are removed, running or not.
pub(crate) struct House {
    pub(crate) ground: Ground,
}

impl House {
    pub(crate) fn new(who: Who) -> Self {
        let house = Self { ground: Ground::new(who) };
        let (root, tar) = (house.ground.root(), house.ground.scratch.join("bb.tar"));
        sh(&format!("chmod 1777 {0}/tmp && tar -C {0} --owner=0 --group=0 -cf {1} .", root.display(), tar.display()));
        house.ok(&["import", "bb.tar", "bb"]);
        house
    }

    /// Another image of the same files, with instructions of a Dockerfile.
    pub(crate) fn image(&self, name: &str, changes: &[&str]) {
        let mut words = vec!["import"];
        changes.iter().for_each(|change| words.extend(["-c", change]));
        words.extend(["bb.tar", name]);
        self.ok(&words);
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.ground.scratch.join("store")
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        self.ground.lamel(words)
    }

    pub(crate) fn lamel(&self, words: &[&str]) -> Outcome {
        spawn_captured(self.command(words), TIMEOUT)
    }

    /// Runs a command that succeeds; what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let out = self.lamel(words);
        let shown = format!("{:?}: lamel {words:?}: {}\n{}{}", self.ground.who, out.status, out.stdout, out.stderr);
        assert!(out.success(), "{shown}");
        out.stdout.trim_end().to_owned()
    }

    /// Runs a command that fails with this status; what it said.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) -> String {
        let out = self.lamel(words);
        let shown = format!("{:?}: lamel {words:?}: {}\n{}{}", self.ground.who, out.status, out.stdout, out.stderr);
        assert_eq!(out.status.code(), Some(code), "{shown}");
        out.stderr
    }

    /// `STATE EXIT-CODE` of a container; empty if there is none.
    pub(crate) fn state(&self, name: &str) -> String {
        let filter = format!("name=^{name}$");
        self.ok(&["ps", "-a", "--filter", &filter, "--format", "{{.State}} {{.ExitCode}}"])
    }

    /// A field of `lamel inspect`.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str, field: &str) -> String {
        self.ok(&["inspect", "-f", &format!("{{{{{field}}}}}"), name])
    }

    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(20), "still not so: {what}\n{}", self.ok(&["ps", "-a"]));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A command in the background, whose output nobody reads.
    pub(crate) fn spawn(&self, words: &[&str]) -> std::process::Child {
        let mut command = self.command(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Monitors of this store's containers.
    pub(crate) fn monitors(&self) -> Vec<u32> {
        let pids = sh(&format!(
            "grep -l '^lamel-monitor' /proc/[0-9]*/comm 2> /dev/null | xargs -r -n1 dirname | xargs -r -I@ sh -c \
             'grep -qs {} @/cmdline @/environ && echo @' | xargs -r -n1 basename || true",
            self.ground.scratch.path().display()
        ));
        pids.lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// Everything below `containers` that is not there in an empty store.
    pub(crate) fn left(&self) -> String {
        let root = self.store().join("containers");
        sh(&format!("find {} -mindepth 1 ! -name lock ! -name names -o -path '*/names/*' | sort", root.display()))
    }

    /// No process, mount, control group or file of a container is left.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        self.eventually("no monitor is left", || self.monitors().is_empty());
        assert_eq!(self.left(), "");
        let path = self.ground.scratch.path().display();
        assert_eq!(sh(&format!("grep -c {path} /proc/[0-9]*/mountinfo 2> /dev/null | grep -v ':0$' || true")), "");
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // Whatever a failed test left running.
        sh(&format!(
            "for p in $(sed -n 's/.*\"monitor\": \\([1-9][0-9]*\\).*/\\1/p' {}/containers/*/state.json 2> /dev/null); do \
             grep -qs '^lamel-monitor' /proc/$p/comm && kill -9 $p; done; true",
            self.store().display()
        ));
    }
}
