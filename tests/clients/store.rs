//! A private container store, its user and its configuration.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::common::{Outcome, Scratch, Subject, sh, sh_timeout};

/// How long one session may take.
const LIMIT: u32 = 280;

/// The account that rootless sessions run under; `tests/run.sh` makes it.
const ACCOUNT: &str = "lamel-test";

/// Who uses the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    Rootless,
}

/// What the store's containers lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// A full copy of every layer.
    Vfs,
    FuseOverlayfs,
    Lamel,
}

/// A store. Drop removes its containers, mounts and processes.
pub(crate) struct Store {
    home: PathBuf,
    user: User,
}

impl Store {
    /// Lays out a store of its own below `scratch`.
    pub(crate) fn new(scratch: &Scratch, user: User, driver: Driver) -> Self {
        let home = scratch.dir(format!("{driver:?}").to_lowercase());
        let store = Self { home, user };
        for dir in ["graph", "run", "xdg", "out", "bin"] {
            store.dir(dir);
        }
        let driver_lines = match driver {
            Driver::Vfs => "driver = \"vfs\"\n".to_owned(),
            Driver::FuseOverlayfs => overlay(Path::new(&sh("command -v fuse-overlayfs"))),
            Driver::Lamel => {
                let program = store.home.join("bin/fuse-overlayfs");
                install(&program);
                overlay(&program)
            }
        };
        let (storage, options) = driver_lines.split_once('\n').expect("the driver's line comes first");
        let conf = format!(
            "[storage]\n{storage}\ngraphroot = \"{home}/graph\"\nrunroot = \"{home}/run\"\n{options}",
            home = store.home.display()
        );
        fs::write(store.home.join("storage.conf"), conf).unwrap();
        // Nothing here may depend on systemd, on a network, on which cgroup version the host has, or on the locks in
        // shared memory of the user's other stores.
        let conf = "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=32768:32768\"]\nnetns = \"host\"\n\
                    [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nruntime = \"runc\"\nlock_type = \"file\"\n";
        fs::write(store.home.join("containers.conf"), conf).unwrap();
        if user == User::Rootless {
            sh(&format!(
                "id {ACCOUNT} > /dev/null && grep -q '^{ACCOUNT}:' /etc/subuid && setpriv --reuid {ACCOUNT} --clear-groups \
                 test -w /dev/fuse && chown -R {ACCOUNT}: {}",
                store.home.display()
            ));
        }
        sh(&format!("chmod 700 {}", store.home.join("xdg").display()));
        store
    }

    /// A directory of the store.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let dir = self.home.join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Runs a command as the store's user; panics unless it succeeds. Returns its stdout.
    pub(crate) fn run(&self, cmd: &str) -> String {
        let out = self.outcome(cmd);
        assert!(
            out.success(),
            "{}: `{cmd}`: {}\n--- stdout\n{}\n--- stderr\n{}",
            self.home.display(),
            out.status,
            out.stdout,
            out.stderr
        );
        out.stdout
    }

    fn outcome(&self, cmd: &str) -> Outcome {
        let (become_user, kind) = match self.user {
            User::Root => (String::new(), "root"),
            User::Rootless => (format!("setpriv --reuid {ACCOUNT} --regid {ACCOUNT} --init-groups"), "rootless"),
        };
        let home = self.home.display();
        let script = self.home.join("command.sh");
        fs::write(&script, cmd).unwrap_or_else(|e| panic!("{}: {e}", script.display()));
        // Killed as a whole, should it hang: foreign runtimes do.
        let cmd = format!(
            "exec {become_user} env -i HOME={home} XDG_RUNTIME_DIR={home}/xdg KIND={kind} LANG=C.UTF-8 \
             PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
             CONTAINERS_CONF={home}/containers.conf CONTAINERS_STORAGE_CONF={home}/storage.conf \
             timeout -k 5 {LIMIT} bash -eu {}",
            script.display()
        );
        sh_timeout(&self.home, &cmd, Duration::from_secs(u64::from(LIMIT) + 20))
    }

    /// Removes everything, and panics if a process or a mount of the store is left.
    pub(crate) fn close(self) {
        self.run("podman rm -af -t 0 > /dev/null; buildah rm -a > /dev/null; podman rmi -af > /dev/null 2>&1");
        self.end_pause();
        let left = self.processes();
        assert!(left.is_empty(), "{}: processes left: {left:?}", self.home.display());
    }

    /// Rootless podman keeps a process that holds its namespaces.
    fn end_pause(&self) {
        let pid = fs::read_to_string(self.home.join("xdg/libpod/tmp/pause.pid"));
        if let Ok(pid) = pid {
            end(&pid);
        }
    }

    /// Processes whose command line names the store, after a wait for them to end: the other test's rootless client, in a
    /// mount namespace of its own, may hold a copy of this one's mounts.
    fn processes(&self) -> Vec<(u32, String)> {
        let mut left = Vec::new();
        for _ in 0..600 {
            left = self.find_processes();
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        left
    }

    fn find_processes(&self) -> Vec<(u32, String)> {
        let home = self.home.to_str().unwrap();
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
                let line = fs::read(entry.path().join("cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                line.contains(home).then_some((pid, line))
            })
            .collect()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        // A failed session, maybe with a hanging client: processes and mounts go without a verdict.
        self.end_pause();
        for (pid, _) in self.find_processes() {
            end(&pid.to_string());
        }
    }
}

fn end(pid: &str) {
    let pid = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may be gone by now.
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
    }
}

fn overlay(program: &Path) -> String {
    format!("driver = \"overlay\"\n[storage.options.overlay]\nmount_program = \"{}\"\n", program.display())
}

/// Puts lamel there, under the name by which it knows what is asked of it.
fn install(program: &Path) {
    let lamel = Subject::lamel_bin();
    // Another user may not be able to reach the build directory: a copy beside the link.
    let copy = program.with_file_name("lamel");
    fs::copy(lamel, &copy).unwrap();
    symlink("lamel", program).unwrap();
}
