//! How fast containers start.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lamel_isolate::caps;
use lamel_isolate::seccomp::{DEFAULT_PROFILE, Profile};
use serde_json::{Value, json};

use super::super::machine::{field, kibibytes};
use super::super::process::{Running, run};
use super::super::result::Unit;
use super::super::runner::Samples;
use super::super::workload::{Stopped, row, skip};
use super::fixture::Fixture;
use super::images::sample;
use super::verbs::podman;
use super::{Engine, Job, Kind};

pub(super) const ALL: &[Job] = &[
    Job {
        name: "container",
        about: "run true in a container without a network, from the command to its end; lamel: lamel mount --rw, \
                lamel run --rootfs, lamel umount; crun: fuse-overlayfs, crun run of a prepared bundle, umount",
        caches: "everything was run once before; docker's daemon runs, nothing else does",
        rows: &[row("container-start", Unit::Seconds)],
        run: start,
    },
    Job {
        name: "container-20",
        about: "the same twenty times at once",
        caches: "as with container",
        rows: &[row("container-start-20", Unit::Seconds)],
        run: start_twenty,
    },
    Job {
        name: "isolator",
        about: "run true in a container whose root is a plain directory; crun with the same seccomp profile",
        caches: "as with container",
        rows: &[row("isolator-start", Unit::Seconds)],
        run: isolate,
    },
    Job {
        name: "container-memory",
        about: "memory of the process that was started, while its container sleeps",
        caches: "-",
        rows: &[row("container-memory", Unit::Bytes)],
        run: memory,
    },
];

/// What is run in a container.
const TRUE: &[&str] = &["true"];

fn start(fixture: &Fixture<'_>, engine: &Engine, scratch: &Path) -> Result<Samples, Stopped> {
    let prepared = Prepared::new(fixture, engine, scratch)?;
    prepared.run()?;
    let start = Instant::now();
    prepared.run()?;
    Ok(vec![sample("container-start", start.elapsed().as_secs_f64())])
}

fn start_twenty(fixture: &Fixture<'_>, engine: &Engine, scratch: &Path) -> Result<Samples, Stopped> {
    let prepared: Vec<Prepared<'_>> = (0..20)
        .map(|number| Prepared::new(fixture, engine, &scratch.join(number.to_string())))
        .collect::<Result<_, Stopped>>()?;
    if let Some(first) = prepared.first() {
        first.run()?;
    }
    let start = Instant::now();
    std::thread::scope(|scope| {
        let running: Vec<_> = prepared.iter().map(|one| scope.spawn(|| one.run())).collect();
        running.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done,
            Err(_) => bail!("a thread that starts a container panicked"),
        })
    })?;
    Ok(vec![sample("container-start-20", start.elapsed().as_secs_f64())])
}

fn isolate(fixture: &Fixture<'_>, engine: &Engine, scratch: &Path) -> Result<Samples, Stopped> {
    let root = fixture.rootfs.as_path();
    let command = || match engine.kind {
        Kind::Lamel { .. } => {
            let mut command = engine.lamel_command(&["run", "--network", "none", "--rootfs"])?;
            command.arg(root).args(TRUE);
            Ok(command)
        }
        Kind::Crun => {
            let bundle = scratch.join("bundle");
            if !bundle.exists() {
                write_bundle(&bundle, root, TRUE)?;
            }
            Ok(crun(scratch, &bundle))
        }
        _ => skip("runs no directory"),
    };
    run(&mut command()?)?;
    let ran = run(&mut command()?)?;
    Ok(vec![sample("isolator-start", ran.seconds)])
}

fn memory(fixture: &Fixture<'_>, engine: &Engine, scratch: &Path) -> Result<Samples, Stopped> {
    if engine.kind == Kind::Docker {
        return skip("containers are processes of its daemon");
    }
    let prepared = Prepared::new(fixture, engine, scratch)?;
    prepared.mount()?;
    let running = Running::start(&mut prepared.command(&["sleep", "3"])?)?;
    std::thread::sleep(Duration::from_millis(1500));
    let status = format!("/proc/{}/status", running.pid());
    let resident = field(&status, "VmRSS").and_then(|text| kibibytes(&text));
    let ended = running.finish();
    prepared.unmount()?;
    ended?;
    let resident = resident.context("the process had ended before its container did")?;
    Ok(vec![sample("container-memory", resident as f64)])
}

/// A container that can be run again and again.
struct Prepared<'a> {
    fixture: &'a Fixture<'a>,
    engine: &'a Engine,
    scratch: std::path::PathBuf,
}

impl<'a> Prepared<'a> {
    fn new(fixture: &'a Fixture<'a>, engine: &'a Engine, scratch: &Path) -> Result<Self, Stopped> {
        match engine.kind {
            Kind::Lamel { .. } | Kind::Crun => {
                for name in ["mnt", "upper", "work"] {
                    let path = scratch.join(name);
                    fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
                }
            }
            Kind::Podman => drop(fixture.podman()?),
            Kind::Docker => fixture.docker_image()?,
            Kind::Skopeo | Kind::Bound => return skip("runs no containers"),
        }
        Ok(Self { fixture, engine, scratch: scratch.to_owned() })
    }

    /// From nothing to the end of it.
    fn run(&self) -> Result<()> {
        self.mount()?;
        let ran = self.command(TRUE).and_then(|mut command| run(&mut command));
        let unmounted = self.unmount();
        ran?;
        unmounted
    }

    /// Mounts its root, where the engine does not do that by itself.
    fn mount(&self) -> Result<()> {
        let mountpoint = self.scratch.join("mnt");
        match self.engine.kind {
            Kind::Lamel { .. } => {
                let mut mount = self.engine.lamel_command(&["mount", "--rw"])?;
                run(mount.args(&self.fixture.store).arg(&self.fixture.name).arg(&mountpoint))?;
            }
            Kind::Crun => {
                let (upper, work) = (self.scratch.join("upper"), self.scratch.join("work"));
                let lower = self.fixture.rootfs.display();
                let options = format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
                run(Command::new("fuse-overlayfs").arg("-o").arg(options).arg(&mountpoint))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn unmount(&self) -> Result<()> {
        let mountpoint = self.scratch.join("mnt");
        match self.engine.kind {
            Kind::Lamel { .. } => drop(run(self.engine.lamel_command(&["umount"])?.arg(mountpoint))?),
            Kind::Crun => lamel_unionfs::mount::unmount(&mountpoint, false).context("unmounting fuse-overlayfs")?,
            _ => {}
        }
        Ok(())
    }

    /// Runs the container over its root.
    fn command(&self, words: &[&str]) -> Result<Command> {
        let mountpoint = self.scratch.join("mnt");
        let mut command = match self.engine.kind {
            Kind::Lamel { .. } => {
                let mut command = self.engine.lamel_command(&["run", "--network", "none", "--rootfs"])?;
                command.arg(mountpoint);
                command
            }
            Kind::Crun => {
                let bundle = self.scratch.join(words.join("-"));
                write_bundle(&bundle, &mountpoint, words)?;
                return Ok(crun(&self.scratch, &bundle));
            }
            Kind::Podman => podman(self.fixture.podman()?, &["run", "--rm", "--network", "none", &self.fixture.name])?,
            Kind::Docker => self.fixture.docker()?.client(&["run", "--rm", "--network", "none", &self.fixture.name]),
            Kind::Skopeo | Kind::Bound => bail!("runs no containers"),
        };
        command.args(words);
        Ok(command)
    }
}

/// crun with a state directory of its own.
fn crun(scratch: &Path, bundle: &Path) -> Command {
    let mut command = Command::new("crun");
    command.arg("--root").arg(scratch.join("crun")).arg("run").arg("--bundle").arg(bundle);
    // Ids are the host's: its control groups are named by them.
    let place = scratch.to_string_lossy().bytes().filter(u8::is_ascii_alphanumeric).map(char::from).collect::<String>();
    command.arg(format!("lamel-bench-{}", place.chars().rev().take(40).collect::<String>()));
    command
}

/// Writes a bundle with what Docker gives a container by default, unless it is there.
fn write_bundle(bundle: &Path, root: &Path, words: &[&str]) -> Result<()> {
    let at = || bundle.display().to_string();
    if bundle.join("config.json").exists() {
        return Ok(());
    }
    fs::create_dir_all(bundle).with_context(at)?;
    fs::write(bundle.join("config.json"), serde_json::to_vec(&configuration(root, words)?)?).with_context(at)
}

fn configuration(root: &Path, words: &[&str]) -> Result<Value> {
    let capabilities: Vec<String> = caps::DEFAULT.map(str::to_owned).to_vec();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let seccomp = Profile::parse(DEFAULT_PROFILE)?.resolve(&capabilities, &release)?;
    let mount = |destination: &str, kind: &str, options: &str| {
        let options: Vec<&str> = options.split(',').collect();
        json!({"destination": destination, "type": kind, "source": kind, "options": options})
    };
    let namespaces = ["mount", "pid", "ipc", "uts", "network", "cgroup"].map(|kind| json!({"type": kind}));
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": "bench",
        "root": {"path": root},
        "process": {
            "args": words, "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": [
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
            mount("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=67108864"),
            mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
        ],
        "linux": {
            "namespaces": namespaces, "seccomp": seccomp,
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }))
}
