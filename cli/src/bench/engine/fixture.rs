//! What engines are measured on: an image in lamel's store, the same in a registry and in an archive, and daemons. Made
//! when the first job needs it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow};
use lamel_image::store::Store;
use lamel_image::view::{Step, View, ViewError};
use rustix::fs::FileType;
use rustix::mount::UnmountFlags;

use super::super::plan::{ROOT, Size};
use super::super::process::run;
use super::super::result::RowResult;
use super::super::runner::Turns;
use super::super::signals::detach_below;
use super::super::stored::Stored;
use super::super::tree;
use super::dockerd::Dockerd;
use super::forge::{Forge, add_file, add_link, add_tree};
use super::registry::Registry;
use super::verbs::podman;
use super::{Engine, Job};
use crate::image::find;

/// What is asked for.
pub(crate) struct Asked<'a> {
    pub(crate) stored: Option<&'a Stored>,
    /// Where generated images are kept.
    pub(crate) state: &'a Path,
    pub(crate) size: Size,
    pub(crate) layers: usize,
    /// Where everything else is made; not there yet.
    pub(crate) base: &'a Path,
    pub(crate) userns: bool,
    /// Whether the jobs are those of containers.
    pub(crate) containers: bool,
}

/// An image and all that is made of it.
pub(super) struct Fixture<'a> {
    base: &'a Path,
    /// The words that name its store to lamel.
    pub(super) store: Vec<OsString>,
    pub(super) name: String,
    /// A regular file of it, which is not empty.
    pub(super) file: PathBuf,
    /// Its layers as they are pulled.
    pub(super) blobs: Vec<PathBuf>,
    /// Names of images of one layer and of 64.
    pub(super) depths: Option<[&'static str; 2]>,
    /// The image as a plain directory.
    pub(super) rootfs: PathBuf,
    entries: usize,
    layers: usize,
    registry: OnceLock<(Registry, String)>,
    archive: OnceLock<PathBuf>,
    podman: OnceLock<PathBuf>,
    docker: OnceLock<Dockerd>,
    docker_image: OnceLock<()>,
}

/// What was found, and of what.
pub(crate) struct Measured {
    pub(crate) rows: Vec<RowResult>,
    pub(crate) image: String,
    pub(crate) entries: usize,
    pub(crate) layers: usize,
}

/// The generated images.
const TREE: &str = "localhost/bench:tree";
const DEPTHS: [&str; 2] = ["localhost/bench:one", "localhost/bench:many"];
const BUSYBOX: &str = "localhost/bench:busybox";

/// Runs jobs on engines.
pub(crate) fn measure(asked: &Asked<'_>, turns: &Turns<'_>, engines: &[Engine], jobs: &[&Job]) -> Result<Measured> {
    let say = |text: &str| turns.progress.say(text);
    fs::create_dir(asked.base).with_context(|| asked.base.display().to_string())?;
    // A host with both versions of control groups is more than crun can stand; nobody else sees this mount go.
    if !asked.userns && rustix::process::geteuid().is_root() {
        rustix::mount::unmount("/sys/fs/cgroup/unified", UnmountFlags::DETACH).ok();
    }
    let measured = Fixture::new(asked, &say).and_then(|fixture| {
        let rows = fixture.rows(asked, turns, engines, jobs)?;
        Ok(Measured { rows, image: fixture.name.clone(), entries: fixture.entries, layers: fixture.layers })
    });
    // Whatever came of it, and after its daemons have ended.
    let removed = remove(asked.base);
    let measured = measured?;
    removed.map(|()| measured)
}

impl<'a> Fixture<'a> {
    fn new(asked: &Asked<'a>, say: &dyn Fn(&str)) -> Result<Self> {
        let (root, name, depths) = match asked.stored {
            Some(stored) => (stored.root.clone(), stored.name.clone(), None),
            None if asked.containers => (busybox(asked.state, say)?, BUSYBOX.to_owned(), None),
            None => (trees(asked, say)?, TREE.to_owned(), Some(DEPTHS)),
        };
        let store = Store::open(&root, &[])?;
        let (_, image) = find(&store, &name, None)?;
        let view = View::new(store.open_image(&image)?.layer);
        let (mut file, mut entries) = (None, 0);
        view.walk(view.root()?, &mut |object, depth| {
            entries += usize::from(depth > 0);
            if file.is_none() && object.is(FileType::RegularFile.as_raw_mode()) && object.attr.size > 0 {
                file = object.path.strip_prefix(b"/").map(|path| PathBuf::from(OsStr::from_bytes(path)));
            }
            Ok::<_, ViewError>(Step::Into)
        })?;
        let rootfs = match asked.containers {
            true => Stored::of(&store, &name)?.input(asked.state, asked.size, say)?.merged,
            false => PathBuf::new(),
        };
        Ok(Self {
            base: asked.base,
            store: vec!["--root".into(), root.clone().into()],
            file: file.with_context(|| format!("{name}: no file to read in it"))?,
            blobs: image.layers().map(|layer| root.join("blobs/sha256").join(layer.digest.hex())).collect(),
            layers: image.diff_ids().len(),
            name,
            depths,
            rootfs,
            entries,
            registry: OnceLock::new(),
            archive: OnceLock::new(),
            podman: OnceLock::new(),
            docker: OnceLock::new(),
            docker_image: OnceLock::new(),
        })
    }

    fn rows(&self, asked: &Asked<'_>, turns: &Turns<'_>, engines: &[Engine], jobs: &[&Job]) -> Result<Vec<RowResult>> {
        let scratch = asked.base.join("run");
        let mut rows = Vec::new();
        for job in jobs {
            rows.extend(turns.take(&job.listed(), |at| {
                let engine = engines.get(at).context("no such engine")?;
                fs::create_dir(&scratch).with_context(|| scratch.display().to_string())?;
                let done = engine.check(asked.userns).and_then(|()| (job.run)(self, engine, &scratch));
                remove(&scratch).context("cleaning up; nothing more was measured")?;
                Ok(done)
            })?);
        }
        Ok(rows)
    }

    /// The image's name in a registry of this host.
    pub(super) fn remote(&self) -> Result<String> {
        let (_, name) = once(&self.registry, || {
            let registry = Registry::start(&self.base.join("registry"))?;
            let name = format!("{}/bench/image:latest", registry.host);
            run(lamel("push")?.args(["--plain-http", "--quiet"]).args(&self.store).arg(&self.name).arg(&name))?;
            Ok((registry, name))
        })?;
        Ok(name.clone())
    }

    /// The image as docker save writes it.
    pub(super) fn archive(&self) -> Result<&Path> {
        once(&self.archive, || {
            let path = self.base.join("archive.tar");
            self.save(&self.name, &path)?;
            Ok(path)
        })
        .map(PathBuf::as_path)
    }

    fn save(&self, name: &str, path: &Path) -> Result<()> {
        let mut save = lamel("save")?;
        save.args(["--format", "docker-archive", "--output"]).arg(path).args(&self.store).arg(name);
        run(&mut save).map(drop)
    }

    /// A directory in which podman has the images.
    pub(super) fn podman(&self) -> Result<&Path> {
        once(&self.podman, || {
            let store = self.base.join("podman");
            fs::create_dir(&store).with_context(|| store.display().to_string())?;
            for name in self.depths.unwrap_or_default().into_iter().filter(|name| !name.is_empty()).chain([&*self.name])
            {
                let archive = self.base.join("podman.tar");
                self.save(name, &archive)?;
                run(podman(&store, &["load", "--quiet", "--input"])?.arg(&archive))?;
                fs::remove_file(&archive).with_context(|| archive.display().to_string())?;
            }
            Ok(store)
        })
        .map(PathBuf::as_path)
    }

    /// Docker's daemon.
    pub(super) fn docker(&self) -> Result<&Dockerd> {
        once(&self.docker, || Dockerd::start(&self.base.join("docker")))
    }

    /// Makes docker have the image.
    pub(super) fn docker_image(&self) -> Result<()> {
        once(&self.docker_image, || {
            run(self.docker()?.client(&["load", "--quiet", "--input"]).arg(self.archive()?)).map(drop)
        })
        .copied()
    }
}

/// The value of a cell, made the first time.
fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if cell.get().is_none() {
        cell.set(make()?).ok();
    }
    cell.get().ok_or_else(|| anyhow!("made while it was made"))
}

/// The `lamel` that measures: what it prepares is not measured.
fn lamel(verb: &str) -> Result<std::process::Command> {
    let mut command = std::process::Command::new(std::env::current_exe().context("the path of this program")?);
    command.arg(verb);
    Ok(command)
}

/// Loads a layout into the store at `root`.
fn load(layout: &Path, root: &Path, name: &str) -> Result<()> {
    let mut load = lamel("load")?;
    load.args(["--quiet", "--tag", name, "--root"]).arg(root).arg("--input").arg(layout);
    run(&mut load)?;
    fs::remove_dir_all(layout).with_context(|| layout.display().to_string())
}

/// A store with the root filesystem of the generated tree as images of as many layers as asked for, of one, and of 64.
fn trees(asked: &Asked<'_>, say: &dyn Fn(&str)) -> Result<PathBuf> {
    let many = tree::tree(asked.state, asked.size, 64, say)?;
    let some = tree::tree(asked.state, asked.size, asked.layers, say)?;
    let _lock = tree::lock(asked.state)?;
    tree::once(asked.state, &format!("store-{}-{}", asked.size.name(), asked.layers), say, |to| {
        for (name, layers) in [(TREE, &some.layers), (DEPTHS[0], &vec![some.merged.clone()]), (DEPTHS[1], &many.layers)]
        {
            let layout = to.with_extension("layout");
            let mut forge = Forge::new(&layout)?;
            for layer in layers.iter().rev() {
                forge.layer(|archive| match layer.join(ROOT).is_dir() {
                    true => add_tree(archive, layer, Path::new(ROOT)),
                    false => Ok(()),
                })?;
            }
            forge.finish()?;
            load(&layout, &to.join("store"), name)?;
        }
        Ok(())
    })
    .map(|made| made.join("store"))
}

/// A store with an image of busybox alone.
fn busybox(state: &Path, say: &dyn Fn(&str)) -> Result<PathBuf> {
    let program = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|directory| directory.join("busybox"))
        .find(|path| path.is_file())
        .context(
            "containers are started of busybox, a static one (Debian: busybox-static), or of --image: it is not there",
        )?;
    let _lock = tree::lock(state)?;
    tree::once(state, "store-busybox", say, |to| {
        let layout = to.with_extension("layout");
        let mut forge = Forge::new(&layout)?;
        forge.layer(|archive| {
            let content = fs::read(&program).with_context(|| program.display().to_string())?;
            add_file(archive, Path::new("bin/busybox"), 0o755, &content)?;
            for name in ["sh", "sleep", "true"] {
                add_link(archive, &Path::new("bin").join(name), Path::new("busybox"))?;
            }
            for name in ["dev", "proc", "sys", "etc"] {
                add_file(archive, &Path::new(name).join(".keep"), 0o644, &[])?;
            }
            add_file(archive, Path::new("etc/passwd"), 0o644, b"root:x:0:0:root:/:/bin/sh\n")
        })?;
        forge.finish()?;
        load(&layout, &to.join("store"), BUSYBOX)
    })
    .map(|made| made.join("store"))
}

/// Removes a directory with what engines have left mounted in it.
fn remove(path: &Path) -> Result<()> {
    detach_below(path);
    fs::remove_dir_all(path).with_context(|| format!("removing {}", path.display()))
}
