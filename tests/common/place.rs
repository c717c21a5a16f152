//! A store of a test's own, the user that it belongs to, and command lines there.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::{Outcome, Scratch, Subject, Who, sh_timeout};

/// How long one command line may take.
const LIMIT: Duration = Duration::from_secs(240);

/// A scratch directory with a store in it, whose commands find the binary under test as `lamel`.
pub struct Place {
    pub scratch: Scratch,
    who: Who,
}

impl Place {
    /// Root's.
    pub fn new() -> Self {
        let scratch = Scratch::new();
        fs::create_dir(scratch.join("bin")).unwrap();
        // Another user may not be able to reach the build directory.
        if fs::hard_link(Subject::lamel_bin(), scratch.join("bin/lamel")).is_err() {
            fs::copy(Subject::lamel_bin(), scratch.join("bin/lamel")).unwrap();
        }
        scratch.dir("mnt");
        Self { scratch, who: Who::Root }
    }

    /// From now on this user's, with all that is in the scratch directory itself.
    pub fn give(mut self, who: Who) -> Self {
        self.run(&format!("chmod 755 . && chown {0}:{0} . *", who.id()));
        self.who = who;
        self
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Runs a command line in the scratch directory; panics unless it succeeds. Returns its stdout.
    #[track_caller]
    pub fn run(&self, cmd: &str) -> String {
        let out = self.outcome(cmd);
        let who = self.who;
        assert!(
            out.success(),
            "{who:?}: `{cmd}`: {}\n--- stdout\n{}\n--- stderr\n{}",
            out.status,
            out.stdout,
            out.stderr
        );
        out.stdout.trim_end().to_owned()
    }

    /// Runs a command line that must fail; returns its stderr.
    #[track_caller]
    pub fn fails(&self, cmd: &str) -> String {
        let out = self.outcome(cmd);
        assert!(!out.success(), "{:?}: `{cmd}` was expected to fail, and printed: {}", self.who, out.stdout);
        out.stderr
    }

    pub fn outcome(&self, cmd: &str) -> Outcome {
        if self.who == Who::Root {
            return sh_timeout(self.scratch.path(), &format!("{}\n{cmd}", self.environment()), LIMIT);
        }
        let script = self.join("script");
        fs::write(&script, format!("set -eu\n{}\n{cmd}\n", self.environment())).unwrap();
        let line = format!("exec {} PATH=\"$PATH\" bash -o pipefail {}", self.who.prefix(), script.display());
        sh_timeout(self.scratch.path(), &line, LIMIT)
    }

    /// What every command line begins with.
    pub fn environment(&self) -> String {
        let here = self.scratch.path().display();
        format!(
            "export PATH={here}/bin:$PATH LAMEL_ROOT=${{LAMEL_ROOT-{here}/store}} HOME={here} LC_ALL=C.UTF-8; cd {here}"
        )
    }
}

/// Ends containers and unmounts also when the test fails.
impl Drop for Place {
    fn drop(&mut self) {
        let containers = "[ ! -d store/containers ] || for id in $(lamel ps -aq); do lamel rm -f $id > /dev/null; done";
        if !self.outcome(containers).success() {
            eprintln!("containers of {} are left", self.scratch.path().display());
        }
        for mnt in ["mnt", "mnt2"] {
            if self.outcome(&format!("! mountpoint -q {mnt} || lamel umount --lazy {mnt}")).success() {
                continue;
            }
            eprintln!("{mnt} of {} stays mounted", self.scratch.path().display());
        }
    }
}
