//! What each engine is told to do. Everything that it keeps lies in the directory that it is given.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::super::process::{Ran, run};
use super::fixture::Fixture;
use super::{Engine, Kind, bound};

/// What podman takes for the path of its runroot, at most.
const MAX_RUNROOT: usize = 50;

/// podman with images of its own.
pub(super) fn podman(store: &Path, words: &[&str]) -> Result<Command> {
    let runroot = store.join("run");
    if runroot.as_os_str().len() > MAX_RUNROOT {
        bail!("podman takes no path of more than {MAX_RUNROOT} bytes for {}: say a shorter --state", runroot.display());
    }
    let mut command = Command::new("podman");
    for (option, name) in [("--root", "graph"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
        let path = store.join(name);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        command.arg(option).arg(path);
    }
    let conf = store.join("containers.conf");
    if !conf.exists() {
        // More open files than this host may allow are what it asks for by itself.
        let text = "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=32768:32768\"]\n";
        fs::write(&conf, text).with_context(|| conf.display().to_string())?;
    }
    command.env("CONTAINERS_CONF", conf);
    command.args(["--storage-driver", "overlay", "--events-backend", "none", "--cgroup-manager", "cgroupfs"]);
    command.args(words);
    Ok(command)
}

impl Engine {
    /// A command of lamel on a store.
    fn lamel_in(&self, store: &Path, verb: &str) -> Result<Command> {
        let mut command = self.lamel_command(&[verb, "--root"])?;
        command.arg(store.join("store"));
        Ok(command)
    }

    /// Takes the image from the registry until it can be read.
    pub(super) fn pull(&self, fixture: &Fixture<'_>, store: &Path) -> Result<Ran> {
        let remote = fixture.remote()?;
        match self.kind {
            Kind::Lamel { .. } => run(self.lamel_in(store, "pull")?.args(["--plain-http", "--quiet", &remote])),
            Kind::Podman => run(&mut podman(store, &["pull", "--quiet", "--tls-verify=false", &remote])?),
            Kind::Docker => run(&mut fixture.docker()?.client(&["pull", "--quiet", &remote])),
            Kind::Skopeo => copy_and_unpack(&["--src-tls-verify=false", &format!("docker://{remote}")], store),
            Kind::Bound => bound::unpack(&fixture.blobs, store),
            Kind::Crun => bail!("crun has no images"),
        }
    }

    /// Takes the image from an archive until it can be read.
    pub(super) fn load(&self, fixture: &Fixture<'_>, store: &Path) -> Result<Ran> {
        let archive = fixture.archive()?;
        match self.kind {
            Kind::Lamel { .. } => run(self.lamel_in(store, "load")?.arg("--quiet").arg("--input").arg(archive)),
            Kind::Podman => run(podman(store, &["load", "--quiet", "--input"])?.arg(archive)),
            Kind::Docker => run(fixture.docker()?.client(&["load", "--quiet", "--input"]).arg(archive)),
            Kind::Skopeo => copy_and_unpack(&[&format!("docker-archive:{}", archive.display())], store),
            Kind::Bound => bound::hash(archive),
            Kind::Crun => bail!("crun has no images"),
        }
    }

    /// Makes an image that was taken in readable, and reads a file in it.
    pub(super) fn read(&self, fixture: &Fixture<'_>, store: &Path, image: &str) -> Result<()> {
        let file = fixture.file.as_path();
        match self.kind {
            Kind::Lamel { .. } => {
                let mountpoint = store.join("mnt");
                fs::create_dir_all(&mountpoint).with_context(|| mountpoint.display().to_string())?;
                run(self.lamel_in(store, "mount")?.arg(image).arg(&mountpoint))?;
                whole(&mountpoint, file)
            }
            Kind::Podman => {
                let mounted = run(&mut podman(store, &["image", "mount", image])?)?;
                whole(Path::new(mounted.output.trim()), file)
            }
            Kind::Docker => {
                let docker = fixture.docker()?;
                run(&mut docker.client(&["create", "--name", READER, image, "true"]))?;
                // As a tar; a file is never empty in it.
                let read = run(&mut docker.client(&["cp", &format!("{READER}:/{}", file.display()), "-"]))?;
                if read.output.is_empty() { bail!("docker cp gives nothing") } else { Ok(()) }
            }
            Kind::Skopeo => whole(&store.join("bundle/rootfs"), file),
            Kind::Bound => Ok(()),
            Kind::Crun => bail!("crun has no images"),
        }
    }

    /// Undoes [`Engine::read`], and what is kept outside of the directory.
    pub(super) fn let_go(&self, fixture: &Fixture<'_>, store: &Path, image: &str) -> Result<()> {
        match self.kind {
            Kind::Lamel { .. } => {
                run(self.lamel_command(&["umount"])?.arg(store.join("mnt")))?;
            }
            Kind::Podman => {
                run(&mut podman(store, &["image", "unmount", image])?)?;
            }
            Kind::Docker => {
                let docker = fixture.docker()?;
                run(&mut docker.client(&["rm", "--force", READER]))?;
                run(&mut docker.client(&["rmi", "--force", image]))?;
            }
            Kind::Skopeo | Kind::Bound | Kind::Crun => {}
        }
        Ok(())
    }
}

/// The container that docker is read through.
const READER: &str = "lamel-bench-reader";

/// Copies an image to an OCI layout, and unpacks that.
fn copy_and_unpack(source: &[&str], store: &Path) -> Result<Ran> {
    let layout: PathBuf = store.join("oci");
    let mut copy = Command::new("skopeo");
    copy.args(["--insecure-policy", "copy", "--quiet"]).args(source).arg(format!("oci:{}:bench", layout.display()));
    let copied = run(&mut copy)?;
    let mut unpack = Command::new("umoci");
    unpack.arg("unpack").arg("--image").arg(format!("{}:bench", layout.display())).arg(store.join("bundle"));
    let unpacked = run(&mut unpack)?;
    let (seconds, peak) = (copied.seconds + unpacked.seconds, copied.peak.max(unpacked.peak));
    Ok(Ran { seconds, peak, output: String::new() })
}

/// Reads a file of a mounted image.
fn whole(root: &Path, file: &Path) -> Result<()> {
    let path = root.join(file);
    let content = fs::read(&path).with_context(|| path.display().to_string())?;
    if content.is_empty() { bail!("{} is empty", path.display()) } else { Ok(()) }
}
