//! `-v`, `--mount` and `--tmpfs`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use lamel_isolate::oci::{Mount, MountBuilder};

/// Options of mounts.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct VolumeArgs {
    /// Mount a file or directory of the host; options: ro, rw, bind, rbind, propagation, nosuid, nodev, noexec
    #[arg(short, long, value_name = "HOST:CONTAINER[:OPTIONS]")]
    volume: Vec<String>,
    /// type=bind,source=…,target=… and readonly, bind-propagation=…; or type=tmpfs,target=… and tmpfs-size=…, tmpfs-mode=…
    #[arg(long, value_name = "KEY=VALUE,…")]
    mount: Vec<String>,
    /// Mount an empty directory in memory
    #[arg(long, value_name = "CONTAINER[:OPTIONS]")]
    tmpfs: Vec<String>,
}

impl VolumeArgs {
    /// The mounts, those nearer to the root first.
    pub(crate) fn resolve(&self) -> Result<Vec<Mount>> {
        let mut mounts = Vec::new();
        for text in &self.volume {
            mounts.push(volume(text).with_context(|| format!("-v {text}"))?);
        }
        for text in &self.mount {
            mounts.push(mount(text).with_context(|| format!("--mount {text}"))?);
        }
        for text in &self.tmpfs {
            mounts.push(tmpfs(text).with_context(|| format!("--tmpfs {text}"))?);
        }
        mounts.sort_by_key(|mount| (mount.destination().components().count(), mount.destination().clone()));
        if let Some(pair) = mounts.windows(2).find(|pair| pair[0].destination() == pair[1].destination()) {
            bail!("two mounts on {}", pair[0].destination().display());
        }
        Ok(mounts)
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

/// A bind mount; read-only for everything on it, as docker makes it.
fn bind(source: &Path, target: &Path, read_only: bool, more: &[&str]) -> Result<Mount> {
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

fn volume(text: &str) -> Result<Mount> {
    let mut parts = text.splitn(3, ':');
    let (source, target) = match (parts.next(), parts.next()) {
        (Some(source), Some(target)) if !source.is_empty() && !target.is_empty() => (source, target),
        _ => bail!("needs HOST:CONTAINER; volumes with a name, or without one, are not there yet"),
    };
    if !source.starts_with(['/', '.']) {
        bail!("{source} would be a volume's name, which is not there yet; a path begins with / or .");
    }
    let source = std::path::absolute(source)?;
    if !source.exists() {
        // As docker does for -v.
        std::fs::create_dir_all(&source).with_context(|| format!("making {}", source.display()))?;
    }
    let (mut read_only, mut more) = (false, Vec::new());
    for option in parts.next().unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "bind" | "rbind" => more.push(option),
            _ if PROPAGATION.contains(&option) || ATTRIBUTES.contains(&option) => more.push(option),
            _ => bail!("the option {option} is not supported"),
        }
    }
    bind(&source, &absolute(target)?, read_only, &more)
}

fn mount(text: &str) -> Result<Mount> {
    let (mut kind, mut source, mut target, mut read_only) = (None, None, None, false);
    let (mut more, mut data) = (Vec::new(), Vec::new());
    for field in text.split(',') {
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
            "tmpfs-size" => data.push(format!("size={}", super::limits::bytes(needed()?)?)),
            "tmpfs-mode" => data.push(format!("mode={}", needed()?)),
            _ => bail!("{key} is not supported"),
        }
    }
    let target = target.context("target= is missing")?;
    match kind {
        Some("bind") => {
            if !data.is_empty() {
                bail!("tmpfs-size and tmpfs-mode are for type=tmpfs");
            }
            let source = std::path::absolute(source.context("source= is missing")?)?;
            // As docker has it for --mount: a source that is missing is a mistake.
            source.symlink_metadata().with_context(|| source.display().to_string())?;
            bind(&source, &target, read_only, &more)
        }
        Some("tmpfs") => {
            if source.is_some() || !more.is_empty() {
                bail!("type=tmpfs takes neither a source nor a propagation");
            }
            let mut options = vec!["nosuid", "nodev", "noexec"];
            options.extend(read_only.then_some("ro"));
            options.extend(data.iter().map(String::as_str));
            build(&target, "tmpfs", Path::new("tmpfs"), &options)
        }
        Some(other) => bail!("type={other} is not there yet; bind and tmpfs are"),
        None => bail!("type= is missing: bind or tmpfs"),
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

    fn options(mount: &Mount) -> Vec<&str> {
        mount.options().iter().flatten().map(String::as_str).collect()
    }

    #[test]
    fn volumes_as_docker_writes_them() {
        let mount = volume("/etc:/x:ro,noexec").unwrap();
        assert_eq!(
            (mount.destination().as_path(), options(&mount)),
            (Path::new("/x"), vec!["rbind", "rprivate", "rro", "noexec"])
        );
        assert_eq!(options(&volume("/etc:/x:bind,rslave").unwrap()), ["rw", "bind", "rslave"]);
        for text in ["/etc", "name:/x", "/etc:x", ":/x", "/etc:", "/etc:/x:z", "/etc:/x:O"] {
            assert!(volume(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_as_docker_writes_them() {
        let bind = mount("type=bind,src=/etc,dst=/x,readonly,bind-propagation=rslave").unwrap();
        assert_eq!(options(&bind), ["rbind", "rro", "rslave"]);
        let memory = mount("type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        assert_eq!(options(&memory), ["nosuid", "nodev", "noexec", "size=1048576", "mode=1770"]);
        for text in [
            "type=bind,src=/nowhere-at-all,dst=/x",
            "type=volume,dst=/x",
            "src=/etc,dst=/x",
            "type=bind,src=/etc",
            "type=bind,src=/etc,dst=/x,bind-propagation=junk",
            "type=bind,src=/etc,dst=/x,unknown=1",
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
        let places: Vec<PathBuf> = args.resolve().unwrap().iter().map(|m| m.destination().clone()).collect();
        assert_eq!(places, ["/a", "/a/b", "/a/b/c"].map(PathBuf::from));
        let twice = VolumeArgs { tmpfs: vec!["/a".to_owned(), "/a".to_owned()], ..Default::default() };
        assert!(twice.resolve().is_err());
    }
}
