//! Container engines beside one another: how fast an image comes and can be read, and how fast a container starts.

mod bound;
mod containers;
mod dockerd;
mod fixture;
mod forge;
mod images;
mod registry;
mod verbs;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::machine::version;
use super::result::BackendFacts;
use super::runner::Samples;
use super::tree::found;
use super::workload::{Listed, Row, Stopped, skip};
pub(crate) use fixture::{Asked, measure};

/// A thing that is done by engines, and measured.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) caches: &'static str,
    pub(crate) rows: &'static [Row],
    run: fn(&fixture::Fixture<'_>, &Engine, &std::path::Path) -> Result<Samples, Stopped>,
}

impl Job {
    pub(crate) fn listed(&self) -> Listed {
        Listed { name: self.name, about: self.about, caches: self.caches, rows: self.rows }
    }
}

/// The jobs of images, and those of containers.
pub(crate) const IMAGES: &[Job] = images::ALL;
pub(crate) const CONTAINERS: &[Job] = containers::ALL;

/// What is compared unless `--on` says otherwise.
pub(crate) const IMAGE_ENGINES: &str = "lamel,podman,docker,skopeo,bound";
pub(crate) const CONTAINER_ENGINES: &str = "lamel,crun,podman,docker";

/// What `--on` takes for images and containers.
const FORMS: &str = "lamel[:/PROGRAM], podman, docker, skopeo, crun, bound";

/// A program that has images, or runs containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Engine {
    /// As it was asked for.
    pub(crate) name: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Lamel {
        program: Option<PathBuf>,
    },
    Podman,
    /// With a daemon of the benchmark's own.
    Docker,
    /// skopeo copies, umoci unpacks.
    Skopeo,
    /// `crun run` of a prepared bundle over a mount of fuse-overlayfs.
    Crun,
    /// No engine: what decompressing and hashing alone take.
    Bound,
}

/// Engines in the text of `--on`.
pub(crate) fn parse_list(text: &str) -> Result<Vec<Engine>> {
    let parse = |name: &str| {
        let kind = match name.split_once(':') {
            None => match name {
                "lamel" => Kind::Lamel { program: None },
                "podman" => Kind::Podman,
                "docker" => Kind::Docker,
                "skopeo" => Kind::Skopeo,
                "crun" => Kind::Crun,
                "bound" => Kind::Bound,
                _ => bail!("--on: no engine {name:?}; there are {FORMS}"),
            },
            Some(("lamel", program)) if program.starts_with('/') => Kind::Lamel { program: Some(program.into()) },
            Some(_) => bail!("--on: {name:?} is none of {FORMS}"),
        };
        Ok(Engine { name: name.to_owned(), kind })
    };
    text.split(',').map(parse).collect()
}

impl Engine {
    /// Whether something of that name is an engine that lamel is compared with.
    pub(crate) fn is_peer(name: &str) -> bool {
        ["podman", "docker", "skopeo", "crun"].contains(&name)
    }

    /// The programs that it consists of.
    fn programs(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Lamel { .. } => &[],
            Kind::Podman => &["podman"],
            Kind::Docker => &["docker", "dockerd"],
            Kind::Skopeo => &["skopeo", "umoci"],
            Kind::Crun => &["crun", "fuse-overlayfs"],
            Kind::Bound => &["gzip", "zstd", "sha256sum"],
        }
    }

    /// Refuses what cannot be measured: programs that are missing, or privileges that they need here.
    fn check(&self, userns: bool) -> Result<(), Stopped> {
        if let Some(missing) = self.programs().iter().find(|program| !found(program)) {
            return skip(format!("{missing} is not installed"));
        }
        let plain = userns || !rustix::process::geteuid().is_root();
        match self.kind {
            Kind::Podman | Kind::Docker | Kind::Skopeo | Kind::Crun if plain => {
                skip(format!("{} is measured as root alone", self.name))
            }
            _ => Ok(()),
        }
    }

    /// What the report says of it.
    pub(crate) fn facts(&self) -> Result<BackendFacts> {
        let mut versions = Vec::new();
        if let Kind::Lamel { .. } = self.kind {
            versions.push(version(&self.lamel()?).with_context(|| self.name.clone())?);
            if cfg!(debug_assertions) && self.name == "lamel" {
                versions.push("(a debug build: its speed means nothing)".to_owned());
            }
        }
        for program in self.programs() {
            versions.push(match found(program) {
                true => version(program.as_ref())?,
                false => format!("{program} is not installed"),
            });
        }
        Ok(BackendFacts { name: self.name.clone(), version: versions.join(", "), options: String::new() })
    }

    /// The program of lamel.
    fn lamel(&self) -> Result<PathBuf> {
        match &self.kind {
            Kind::Lamel { program: Some(program) } => Ok(program.clone()),
            _ => std::env::current_exe().context("the path of this program"),
        }
    }

    /// A command of lamel.
    fn lamel_command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(self.lamel()?);
        command.args(words);
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_have_names() {
        let kinds: Vec<Kind> =
            parse_list("lamel:/opt/x,bound").unwrap().into_iter().map(|engine| engine.kind).collect();
        assert_eq!(kinds, [Kind::Lamel { program: Some("/opt/x".into()) }, Kind::Bound]);
        for bad in ["lamel:x", "podman:a", "native", ""] {
            assert!(parse_list(bad).is_err(), "{bad:?}");
        }
        for list in [IMAGE_ENGINES, CONTAINER_ENGINES] {
            assert!(parse_list(list).is_ok(), "{list}");
        }
    }
}
