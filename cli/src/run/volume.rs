//! `-v`, `--mount` and `--tmpfs`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use lamel_isolate::oci::{Mount, MountBuilder};

use super::identity::Maps;
use super::{idmap, label};
use crate::volume::store::check_name;

/// Options of mounts.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct VolumeArgs {
    /// Mount a file or directory of the host, or the volume of a name, which is made if it is not there; without either
    /// a new volume, which goes with the container by --rm or rm -v. Options: ro, rw, nocopy, bind, rbind, propagation,
    /// nosuid, nodev, noexec, idmap[=uids=FILES-HOST-COUNT#…;gids=…]
    #[arg(short, long, value_name = "[HOST|VOLUME:]CONTAINER[:OPTIONS]")]
    volume: Vec<String>,
    /// type=bind,source=…,target=… and readonly, bind-propagation=…, idmap; or type=tmpfs,target=… and tmpfs-size=…, tmpfs-mode=…;
    /// or type=volume[,source=NAME],target=… and readonly, volume-nocopy
    #[arg(long, value_name = "KEY=VALUE,…")]
    mount: Vec<String>,
    /// Mount what another container has mounted: its volumes and directories of the host
    #[arg(long, value_name = "CONTAINER[:ro|:rw]")]
    pub(crate) volumes_from: Vec<String>,
    /// Mount an empty directory in memory
    #[arg(long, value_name = "CONTAINER[:OPTIONS]")]
    tmpfs: Vec<String>,
}

/// A volume that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// None: one of its own.
    pub(crate) name: Option<String>,
    pub(crate) destination: PathBuf,
    pub(crate) read_only: bool,
    /// It stays empty, whatever is in the directory that it is mounted on.
    pub(crate) nocopy: bool,
    /// `nosuid` and its like.
    pub(crate) options: Vec<String>,
}

/// What one option asks for.
#[derive(Debug)]
enum Asked {
    Mount(Mount),
    Volume(Wish),
}

impl Asked {
    fn destination(&self) -> &Path {
        match self {
            Self::Mount(mount) => mount.destination(),
            Self::Volume(wish) => &wish.destination,
        }
    }
}

impl VolumeArgs {
    /// The mounts that are no volumes, those nearer to the root first.
    ///
    /// The maps are the container's.
    pub(crate) fn resolve(&self, maps: Option<&Maps>) -> Result<Vec<Mount>> {
        let mount = |asked| if let Asked::Mount(mount) = asked { Some(mount) } else { None };
        let mut mounts: Vec<Mount> = self.all()?.into_iter().filter_map(mount).collect();
        for mount in &mut mounts {
            idmap::resolve(mount, maps)?;
        }
        Ok(mounts)
    }

    /// The volumes.
    pub(crate) fn wishes(&self) -> Result<Vec<Wish>> {
        let wish = |asked| if let Asked::Volume(wish) = asked { Some(wish) } else { None };
        Ok(self.all()?.into_iter().filter_map(wish).collect())
    }

    fn all(&self) -> Result<Vec<Asked>> {
        let mut all = Vec::new();
        for text in &self.volume {
            all.push(volume(text).with_context(|| format!("-v {text}"))?);
        }
        for text in &self.mount {
            all.push(mount(text).with_context(|| format!("--mount {text}"))?);
        }
        for text in &self.tmpfs {
            all.push(Asked::Mount(tmpfs(text).with_context(|| format!("--tmpfs {text}"))?));
        }
        all.sort_by_key(|one| (one.destination().components().count(), one.destination().to_owned()));
        if let Some(pair) = all.windows(2).find(|pair| pair[0].destination() == pair[1].destination()) {
            bail!("two mounts on {}", pair[0].destination().display());
        }
        Ok(all)
    }
}

const PROPAGATION: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];
const ATTRIBUTES: [&str; 6] = ["nosuid", "suid", "nodev", "dev", "noexec", "exec"];

/// A mount, as the configuration has it.
pub(crate) fn build(destination: &Path, kind: &str, source: &Path, options: &[&str]) -> Result<Mount> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    Ok(MountBuilder::default().destination(destination).typ(kind).source(source).options(options).build()?)
}

/// A place of the host, shown in the container at the same path, which nothing can be written to.
pub(crate) fn shown_read_only(path: &Path) -> Result<Mount> {
    bind(path, path, true, &[])
}

fn absolute(path: &str) -> Result<PathBuf> {
    let path = PathBuf::from(path);
    if path.is_absolute() { Ok(path) } else { bail!("{} in the container must be absolute", path.display()) }
}

/// Whether a mount shows something of the host's.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    mount.typ().as_deref() == Some("bind") || options.iter().any(|option| option == "bind" || option == "rbind")
}

/// A bind mount; read-only for everything on it, as docker makes it.
pub(crate) fn bind(source: &Path, target: &Path, read_only: bool, more: &[&str]) -> Result<Mount> {
    let mut options = Vec::new();
    if !more.iter().any(|option| ["bind", "rbind"].contains(option)) {
        options.push("rbind");
    }
    if !more.iter().any(|option| PROPAGATION.contains(option)) {
        options.push("rprivate");
    }
    options.push(if read_only { "rro" } else { "rw" });
    options.extend(more);
    build(target, "bind", source, &options)
}

fn volume(text: &str) -> Result<Asked> {
    let mut parts = text.splitn(3, ':');
    let (source, target) = match (parts.next(), parts.next()) {
        (Some(target), None) if !target.is_empty() => (None, target),
        (Some(source), Some(target)) if !source.is_empty() && !target.is_empty() => (Some(source), target),
        _ => bail!("needs CONTAINER, HOST:CONTAINER or VOLUME:CONTAINER"),
    };
    let host = source.filter(|source| source.starts_with(['/', '.']));
    let (mut read_only, mut nocopy, mut more) = (false, false, Vec::new());
    for option in parts.next().unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "nocopy" if host.is_none() => nocopy = true,
            "bind" | "rbind" if host.is_some() => more.push(option),
            _ if PROPAGATION.contains(&option) && host.is_some() => more.push(option),
            _ if ATTRIBUTES.contains(&option) => more.push(option),
            // Without SELinux there is nothing that files would have to be given, and docker says nothing either.
            "z" | "Z" if !label::relabels() => {}
            _ if idmap::is_idmap(option) && host.is_some() => more.push(option),
            _ => bail!("the option {option} is not supported here"),
        }
    }
    let destination = absolute(target)?;
    let Some(source) = host else {
        let name = source.map(named).transpose()?;
        let options = more.into_iter().map(str::to_owned).collect();
        return Ok(Asked::Volume(Wish { name, destination, read_only, nocopy, options }));
    };
    let source = std::path::absolute(source)?;
    if !source.exists() {
        // As docker does for -v.
        std::fs::create_dir_all(&source).with_context(|| format!("making {}", source.display()))?;
    }
    bind(&source, &destination, read_only, &more).map(Asked::Mount)
}

fn named(name: &str) -> Result<String> {
    check_name(name)?;
    Ok(name.to_owned())
}

fn mount(text: &str) -> Result<Asked> {
    let (mut kind, mut source, mut target, mut read_only, mut nocopy) = (None, None, None, false, None);
    let (mut more, mut data) = (Vec::new(), Vec::new());
    for field in text.split(',') {
        if idmap::is_idmap(field) {
            more.push(field);
            continue;
        }
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        let needed = || value.filter(|value| !value.is_empty()).ok_or_else(|| anyhow!("{key} needs a value"));
        match key {
            "type" => kind = Some(needed()?),
            "source" | "src" => source = Some(needed()?),
            "target" | "destination" | "dst" => target = Some(absolute(needed()?)?),
            "readonly" | "ro" => {
                read_only = match value {
                    None | Some("true" | "1") => true,
                    Some("false" | "0") => false,
                    Some(other) => bail!("{key}={other}: true or false"),
                }
            }
            "bind-propagation" => {
                let value = needed()?;
                more.push(*PROPAGATION.iter().find(|p| **p == value).ok_or_else(|| anyhow!("no propagation {value}"))?);
            }
            "volume-nocopy" => nocopy = Some(value.is_none_or(|value| matches!(value, "true" | "1"))),
            "tmpfs-size" => data.push(format!("size={}", super::limits::bytes(needed()?)?)),
            "tmpfs-mode" => data.push(format!("mode={}", needed()?)),
            _ => bail!("{key} is not supported"),
        }
    }
    let target = target.context("target= is missing")?;
    if nocopy.is_some() && !matches!(kind, Some("volume") | None) {
        bail!("volume-nocopy is for type=volume");
    }
    match kind {
        // As docker has it, a volume is what is meant if nothing is said.
        Some("volume") | None => {
            if !data.is_empty() || !more.is_empty() {
                bail!("type=volume takes neither a propagation, nor idmap, nor options of tmpfs");
            }
            let (name, nocopy) = (source.map(named).transpose()?, nocopy.unwrap_or(false));
            Ok(Asked::Volume(Wish { name, destination: target, read_only, nocopy, options: Vec::new() }))
        }
        Some("bind") => {
            if !data.is_empty() {
                bail!("tmpfs-size and tmpfs-mode are for type=tmpfs");
            }
            let source = std::path::absolute(source.context("source= is missing")?)?;
            // As docker has it for --mount: a source that is missing is a mistake.
            source.symlink_metadata().with_context(|| source.display().to_string())?;
            bind(&source, &target, read_only, &more).map(Asked::Mount)
        }
        Some("tmpfs") => {
            if source.is_some() || !more.is_empty() {
                bail!("type=tmpfs takes neither a source, nor a propagation, nor idmap");
            }
            let mut options = vec!["nosuid", "nodev", "noexec"];
            options.extend(read_only.then_some("ro"));
            options.extend(data.iter().map(String::as_str));
            build(&target, "tmpfs", Path::new("tmpfs"), &options).map(Asked::Mount)
        }
        Some(other) => bail!("type={other} is not there; bind, tmpfs and volume are"),
    }
}

fn tmpfs(text: &str) -> Result<Mount> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut all = vec!["rw", "nosuid", "nodev", "noexec"];
    all.extend(options.split(',').filter(|option| !option.is_empty()));
    build(&absolute(target)?, "tmpfs", Path::new("tmpfs"), &all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(asked: &Asked) -> Vec<&str> {
        match asked {
            Asked::Mount(mount) => mount.options().iter().flatten().map(String::as_str).collect(),
            Asked::Volume(wish) => panic!("{wish:?}"),
        }
    }

    fn wish(asked: Asked) -> (Option<String>, String, bool, bool) {
        match asked {
            Asked::Volume(wish) => (wish.name, wish.destination.display().to_string(), wish.read_only, wish.nocopy),
            Asked::Mount(mount) => panic!("{mount:?}"),
        }
    }

    #[test]
    fn volumes_as_docker_writes_them() {
        let mount = volume("/etc:/x:ro,noexec").unwrap();
        assert_eq!(
            (mount.destination(), options(&mount)),
            (Path::new("/x"), vec!["rbind", "rprivate", "rro", "noexec"])
        );
        assert_eq!(options(&volume("/etc:/x:bind,rslave").unwrap()), ["rw", "bind", "rslave"]);
        let name = Some("name".to_owned());
        assert_eq!(wish(volume("/x").unwrap()), (None, "/x".to_owned(), false, false));
        assert_eq!(wish(volume("name:/x:ro,nocopy").unwrap()), (name.clone(), "/x".to_owned(), true, true));
        assert_eq!(wish(mount_of("type=volume,src=name,dst=/x,volume-nocopy")), (name, "/x".to_owned(), false, true));
        assert_eq!(wish(mount_of("dst=/x,readonly")), (None, "/x".to_owned(), true, false));
        for text in ["x", "na/me:/x", "/etc:x", ":/x", "/etc:", "/etc:/x:O", "/etc:/x:nocopy", "name:/x:rslave"] {
            assert!(volume(text).is_err(), "{text}");
        }
    }

    fn mount_of(text: &str) -> Asked {
        mount(text).unwrap()
    }

    #[test]
    fn mounts_as_docker_writes_them() {
        let bind = mount_of("type=bind,src=/etc,dst=/x,readonly,bind-propagation=rslave");
        assert_eq!(options(&bind), ["rbind", "rro", "rslave"]);
        let memory = mount_of("type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=1770");
        assert_eq!(options(&memory), ["nosuid", "nodev", "noexec", "size=1048576", "mode=1770"]);
        for text in [
            "type=bind,src=/nowhere-at-all,dst=/x",
            "type=image,dst=/x",
            "src=/etc,dst=/x",
            "type=bind,src=/etc",
            "type=bind,src=/etc,dst=/x,bind-propagation=junk",
            "type=bind,src=/etc,dst=/x,unknown=1",
            "type=bind,src=/etc,dst=/x,volume-nocopy",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn outer_mounts_come_first_and_none_twice() {
        let args = VolumeArgs {
            volume: vec!["/etc:/a/b".to_owned(), "/etc:/a".to_owned()],
            tmpfs: vec!["/a/b/c:size=5".to_owned()],
            ..Default::default()
        };
        let places: Vec<PathBuf> = args.resolve(None).unwrap().iter().map(|m| m.destination().clone()).collect();
        assert_eq!(places, ["/a", "/a/b", "/a/b/c"].map(PathBuf::from));
        let twice = VolumeArgs { tmpfs: vec!["/a".to_owned(), "/a".to_owned()], ..Default::default() };
        assert!(twice.resolve(None).is_err());
    }
}
