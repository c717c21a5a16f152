//! How fast containers start.

use std::fs;
use std::path::{Path, PathBuf};
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
        about: "run --rm --network none IMAGE true, from the command to its end; crun: fuse-overlayfs, crun run of a \
                prepared bundle, umount",
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
        about: "memory of the process that keeps a container which sleeps: its first process's parent",
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
    let prepared = Prepared::new(fixture, engine, scratch)?;
    let resident = match engine.kind {
        Kind::Crun => {
            prepared.mount()?;
            let running = Running::start(&mut prepared.command(&["sleep", "3"])?)?;
            std::thread::sleep(SETTLED);
            let resident = memory_of(&running.pid().to_string());
            let ended = running.finish();
            prepared.unmount()?;
            ended?;
            resident?
        }
        _ => {
            run(prepared
                .engine_command(&["run", "--detach", "--rm", "--name", NAME])?
                .args(prepared.rest(&["sleep", "60"])))?;
            std::thread::sleep(SETTLED);
            let inspected = run(&mut prepared.engine_command(&["inspect", "--format", "{{.State.Pid}}", NAME])?);
            let resident = inspected.and_then(|inspected| {
                let status = format!("/proc/{}/status", inspected.output.trim());
                memory_of(&field(&status, "PPid").with_context(|| status.clone())?)
            });
            // sleep listens to nothing else, and some wait long for it; then it goes by itself, unless that takes longer.
            run(&mut prepared.engine_command(&["kill", NAME])?)?;
            run(&mut prepared.engine_command(&["rm", "--force", NAME])?).ok();
            resident?
        }
    };
    Ok(vec![sample("container-memory", resident)])
}

/// The container whose memory is looked at.
const NAME: &str = "lamel-bench-sleeper";
/// After so long nothing of a start is going on.
const SETTLED: Duration = Duration::from_secs(1);

/// Resident memory of a process.
fn memory_of(pid: &str) -> Result<f64> {
    let status = format!("/proc/{pid}/status");
    let resident = field(&status, "VmRSS").and_then(|text| kibibytes(&text));
    Ok(resident.with_context(|| format!("{status}: the process has ended"))? as f64)
}

/// A container that can be run again and again.
struct Prepared<'a> {
    fixture: &'a Fixture<'a>,
    engine: &'a Engine,
    scratch: PathBuf,
}

impl<'a> Prepared<'a> {
    fn new(fixture: &'a Fixture<'a>, engine: &'a Engine, scratch: &Path) -> Result<Self, Stopped> {
        match engine.kind {
            Kind::Lamel { .. } => {}
            Kind::Crun => {
                for name in ["mnt", "upper", "work"] {
                    let path = scratch.join(name);
                    fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
                }
                // Prepared means that it is not written while the clock runs.
                write_bundle(&scratch.join(TRUE.join("-")), &scratch.join("mnt"), TRUE)?;
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
        if self.engine.kind == Kind::Crun {
            let (upper, work) = (self.scratch.join("upper"), self.scratch.join("work"));
            let lower = self.fixture.rootfs.display();
            let options = format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
            run(Command::new("fuse-overlayfs").arg("-o").arg(options).arg(self.scratch.join("mnt")))?;
        }
        Ok(())
    }

    fn unmount(&self) -> Result<()> {
        match self.engine.kind {
            Kind::Crun => Ok(lamel_unionfs::mount::unmount(&self.scratch.join("mnt"), false)?),
            _ => Ok(()),
        }
    }

    /// Runs the container.
    fn command(&self, words: &[&str]) -> Result<Command> {
        if self.engine.kind == Kind::Crun {
            let bundle = self.scratch.join(words.join("-"));
            write_bundle(&bundle, &self.scratch.join("mnt"), words)?;
            return Ok(crun(&self.scratch, &bundle));
        }
        let mut command = self.engine_command(&["run", "--rm"])?;
        command.args(self.rest(words));
        Ok(command)
    }

    /// A command of the engine, on the images and containers that it has.
    fn engine_command(&self, words: &[&str]) -> Result<Command> {
        match self.engine.kind {
            Kind::Lamel { .. } => {
                let (verb, words) = words.split_first().context("no command")?;
                let mut command = self.engine.lamel_command(&[verb])?;
                command.args(&self.fixture.store).args(words);
                Ok(command)
            }
            Kind::Podman => podman(self.fixture.podman()?, words),
            Kind::Docker => Ok(self.fixture.docker()?.client(words)),
            Kind::Crun | Kind::Skopeo | Kind::Bound => bail!("has no such commands"),
        }
    }

    /// What comes after the options of a run.
    fn rest<'w>(&'w self, words: &[&'w str]) -> Vec<&'w str> {
        [&["--network", "none", self.fixture.name.as_str()], words].concat()
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
