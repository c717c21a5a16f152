//! `container.json`: what was asked for when a container was made. Only its name changes later.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use lamel_image::Digest;
use serde::{Deserialize, Serialize};

use crate::network::Request;

/// Seconds between the stop signal and SIGKILL, as docker has them.
pub(crate) const STOP_TIMEOUT: u32 = 10;

/// The image that a container was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageUsed {
    /// As it was given, or made complete.
    pub(crate) name: String,
    /// Of the manifest.
    pub(crate) manifest: Digest,
    /// Bytes of the manifest, which belong to its descriptor.
    pub(crate) manifest_size: u64,
    /// Of the configuration: the image's id.
    pub(crate) config: Digest,
    /// Of the layers' tars, the bottom one first.
    pub(crate) diff_ids: Vec<Digest>,
    /// Of the layers together.
    pub(crate) chain: Digest,
}

/// A port that is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Port {
    /// Of the host; empty for all.
    pub(crate) address: String,
    pub(crate) host: u16,
    pub(crate) container: u16,
    /// `tcp` or `udp`.
    pub(crate) protocol: String,
}

/// A volume that is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeUsed {
    pub(crate) name: String,
    pub(crate) destination: PathBuf,
    pub(crate) read_only: bool,
    /// It was made for this container, and goes with `--rm` and `rm -v`.
    pub(crate) anonymous: bool,
}

/// What happens when a container ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Restart {
    #[default]
    No,
    /// If its exit code is not 0, this often at most; 0 for any number.
    OnFailure(u32),
    Always,
    /// Always, but if it was stopped by a command.
    UnlessStopped,
}

impl FromStr for Restart {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, most) = text.split_once(':').map_or((text, None), |(name, most)| (name, Some(most)));
        Ok(match (name, most) {
            ("no" | "", None) => Self::No,
            ("on-failure", None) => Self::OnFailure(0),
            ("on-failure", Some(most)) => Self::OnFailure(most.parse().context("on-failure:NUMBER")?),
            ("always", None) => Self::Always,
            ("unless-stopped", None) => Self::UnlessStopped,
            _ => bail!("{text:?} is none of no, on-failure[:NUMBER], always, unless-stopped"),
        })
    }
}

impl Restart {
    /// Its name, as docker's `inspect` has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure(_) => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    /// How often at most; 0 for any number.
    pub(crate) fn most(self) -> u32 {
        if let Self::OnFailure(most) = self { most } else { 0 }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if self.most() > 0 { write!(f, ":{}", self.most()) } else { Ok(()) }
    }
}

/// A command that tells whether a container is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthCheck {
    /// `CMD` and words, or `CMD-SHELL` and a line.
    pub(crate) test: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// After the start, in which failures do not count.
    pub(crate) start_period: Duration,
    /// Failures one after the other that make it unhealthy.
    pub(crate) retries: u32,
}

/// Where its output is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogDriver {
    /// In the file `log`, lines as Kubernetes has them.
    #[default]
    #[value(alias = "json-file")]
    K8sFile,
    /// Nowhere.
    None,
}

/// `container.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    /// None for a directory.
    pub(crate) image: Option<ImageUsed>,
    /// The directory of `--rootfs`.
    pub(crate) rootfs: Option<PathBuf>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    /// As `--user` or the image has it; looked up at each start.
    pub(crate) user: String,
    /// `--group-add`.
    pub(crate) groups: Vec<String>,
    /// Nobody set HOME: it is the user's.
    pub(crate) home_of_user: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// As `--network` has it.
    pub(crate) network: String,
    /// All that was asked of the network.
    #[serde(default)]
    pub(crate) request: Request,
    /// `PORT/PROTOCOL` of the image and of `--expose`.
    #[serde(default)]
    pub(crate) exposed: Vec<String>,
    #[serde(default)]
    pub(crate) volumes: Vec<VolumeUsed>,
    pub(crate) stop_signal: i32,
    /// Seconds.
    pub(crate) stop_timeout: u32,
    pub(crate) restart: Restart,
    pub(crate) health: Option<HealthCheck>,
    pub(crate) log_driver: LogDriver,
    /// Bytes that the log may have.
    #[serde(default)]
    pub(crate) log_size: Option<u64>,
    pub(crate) auto_remove: bool,
    pub(crate) init: bool,
    pub(crate) tty: bool,
    /// `-i`: standard input is open.
    pub(crate) interactive: bool,
    /// Nothing that it writes is ever synced.
    pub(crate) volatile: bool,
    pub(crate) privileged: bool,
    pub(crate) pivot: bool,
}

impl Settings {
    /// What is run, in one line.
    pub(crate) fn command(&self) -> String {
        self.entrypoint.iter().chain(&self.cmd).map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// What it was made of, as it was named.
    pub(crate) fn image_name(&self) -> String {
        match (&self.image, &self.rootfs) {
            (Some(image), _) => image.name.clone(),
            (None, Some(rootfs)) => rootfs.display().to_string(),
            (None, None) => String::new(),
        }
    }

    /// The first digits of its id, as commands print them.
    pub(crate) fn short_id(&self) -> &str {
        short(&self.id)
    }
}

/// The first digits of an id.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Settings of a container that nothing was asked for.
    pub(crate) fn plain(id: &str, name: &str) -> Settings {
        Settings {
            id: id.to_owned(),
            name: name.to_owned(),
            created: Timestamp::UNIX_EPOCH,
            image: None,
            rootfs: Some("/srv/root".into()),
            entrypoint: Vec::new(),
            cmd: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()],
            user: String::new(),
            groups: Vec::new(),
            home_of_user: true,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            network: "none".to_owned(),
            request: Request::default(),
            exposed: Vec::new(),
            volumes: Vec::new(),
            stop_signal: 15,
            stop_timeout: STOP_TIMEOUT,
            restart: Restart::No,
            health: None,
            log_driver: LogDriver::K8sFile,
            log_size: None,
            auto_remove: false,
            init: false,
            tty: false,
            interactive: false,
            volatile: false,
            privileged: false,
            pivot: true,
        }
    }

    #[test]
    fn policies_as_docker_writes_them() {
        for text in ["no", "on-failure", "on-failure:3", "always", "unless-stopped"] {
            assert_eq!(text.parse::<Restart>().unwrap().to_string(), text);
        }
        for text in ["never", "always:3", "on-failure:x", "on-failure:-1", "no:1"] {
            assert!(text.parse::<Restart>().is_err(), "{text}");
        }
    }

    #[test]
    fn settings_come_back_as_they_were() {
        let mut settings = plain(&"ab".repeat(32), "x");
        settings.restart = Restart::OnFailure(3);
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
        assert_eq!((settings.command().as_str(), settings.short_id()), ("sh -c true", "abababababab"));
    }
}
