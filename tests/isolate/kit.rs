//! Root directories with busybox and a probe in them, and users that run containers over them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

pub(crate) use super::common::{EVERYBODY, Outcome, Scratch, Subject, Who, sh, spawn_captured};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Who {
    /// A program that this user runs, without anything of the test's environment.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut words = self.prefix().split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg(format!("PATH={PATH}"));
        if let Some(home) = match self {
            Self::Root => Some("/root"),
            Self::User => Some("/home/lamel-test"),
            Self::Alone => None,
        } {
            command.arg(format!("HOME={home}"));
        }
        command.arg(format!("LAMEL_ROOT={}", program.with_file_name("store").display()));
        // What is about the network asks for one.
        command.arg("LAMEL_NETWORK=none").arg(program);
        command
    }
}

/// A scratch directory with the binary, and `root`, a container's root directory, all of it the user's.
pub(crate) struct Ground {
    pub(crate) scratch: Scratch,
    pub(crate) who: Who,
}

impl Ground {
    pub(crate) fn new(who: Who) -> Self {
        let scratch = Scratch::new();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let bin = scratch.join("lamel");
        let built = Subject::lamel_bin();
        if fs::hard_link(&built, &bin).is_err() {
            fs::copy(&built, &bin).unwrap();
        }
        let ground = Self { scratch, who };
        ground.make_root("root");
        ground.dir("store");
        ground
    }

    /// Another root directory.
    pub(crate) fn make_root(&self, name: &str) -> PathBuf {
        let root = self.scratch.dir(name);
        for directory in ["bin", "etc", "tmp"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in sh("/bin/busybox --list").lines().filter(|applet| *applet != "busybox") {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::copy(probe(), root.join("bin/probe")).unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nme:x:1000:100::/home/me:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nusers:x:100:\nwheel:x:10:me\n").unwrap();
        self.give(&root);
        root
    }

    /// Makes everything below a path the user's.
    pub(crate) fn give(&self, path: &Path) {
        let id = self.who.id();
        if id == 0 {
            return;
        }
        let mut todo = vec![path.to_owned()];
        while let Some(path) = todo.pop() {
            lchown(&path, Some(id), Some(id)).unwrap();
            if path.is_dir() && !path.is_symlink() {
                todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }

    /// A directory of the user's beside the root.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let dir = self.scratch.dir(name);
        self.give(&dir);
        dir
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.scratch.join("root")
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.scratch.join("lamel")
    }

    /// `lamel run` with options, not yet started. It keeps nothing of the container.
    pub(crate) fn command(&self, options: &[&str], command: &[&str]) -> Command {
        let mut line = self.lamel(&["run", "--rm", "--rootfs"]);
        line.arg(self.root()).args(options).args(command);
        line
    }

    /// Any of lamel's commands, not yet started, with a store of the user's.
    pub(crate) fn lamel(&self, words: &[&str]) -> Command {
        let mut line = self.who.command(&self.bin());
        line.args(words).current_dir(self.scratch.path());
        line
    }

    /// The process id of the one container's monitor, once it is written down.
    pub(crate) fn monitor(&self) -> u32 {
        let state = format!("{}/containers/*/state.json", self.scratch.join("store").display());
        for _ in 0..1000 {
            let pid = sh(&format!("sed -n 's/.*\"monitor\": \\([0-9]*\\).*/\\1/p' {state}"));
            if let Some(pid) = pid.parse().ok().filter(|pid| *pid > 1) {
                return pid;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no monitor in {state}")
    }

    pub(crate) fn try_run(&self, options: &[&str], command: &[&str]) -> Outcome {
        spawn_captured(self.command(options, command), TIMEOUT)
    }

    /// Runs a shell script in a container, which succeeds; what it printed.
    #[track_caller]
    pub(crate) fn run(&self, options: &[&str], script: &str) -> String {
        let out = self.try_run(options, &["sh", "-c", script]);
        assert!(
            out.success(),
            "{:?}: lamel run {options:?} sh -c {script:?}: {}\n{}{}",
            self.who,
            out.status,
            out.stdout,
            out.stderr
        );
        out.stdout.trim_end().to_owned()
    }

    /// Runs what is refused before there is a container: 125, and these words.
    #[track_caller]
    pub(crate) fn refused(&self, options: &[&str], words: &[&str]) {
        let out = self.try_run(options, &["sh", "-c", "echo it ran"]);
        let shown = format!("{:?}: lamel run {options:?}: {}\n{}{}", self.who, out.status, out.stdout, out.stderr);
        assert_eq!(out.status.code(), Some(125), "{shown}");
        assert_eq!(out.stdout, "", "{shown}");
        for word in words {
            assert!(out.stderr.contains(word), "no {word:?}: {shown}");
        }
    }
}

/// The probe, compiled once for all tests.
fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/isolate/probe.c");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("isolate-probe");
        let draft = target.with_extension(std::process::id().to_string());
        let (from, to) = (draft.display(), target.display());
        sh(&format!("cc -O1 -static -Wall -Werror -o {from} {} && mv {from} {to}", source.display()));
        target
    })
}
