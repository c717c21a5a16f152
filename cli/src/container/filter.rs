//! `--filter` of `lamel ps` and `lamel container prune`.

use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

use super::listed::Listed;
use super::records::Containers;
use super::settings::Restart;
use super::state::Status;
use crate::output::filter;

/// What `--filter` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Id(String),
    Name(String),
    Label(String, Option<String>),
    Status(Status),
    /// With this exit code.
    Exited(i32),
    /// Made of this image.
    Ancestor(String),
    Before(String),
    Since(String),
    Volume(String),
    Network(String),
    Health(String),
    /// With this restart policy.
    RestartPolicy(String),
    /// To be started when the machine is: by its policy, and not stopped by a command if that respects it.
    OnBoot(bool),
    /// Made before this time.
    Until(Timestamp),
}

impl FromStr for Filter {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (key, value) = text.split_once('=').context("a filter is KEY=VALUE")?;
        let own = value.to_owned();
        Ok(match key {
            "id" => Self::Id(own),
            "name" => Self::Name(own),
            "label" => match value.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(own, None),
            },
            "status" => match Status::ALL.into_iter().find(|status| status.name() == value) {
                Some(status) => Self::Status(status),
                None if ["removing", "dead"].contains(&value) => bail!("no container is ever {value} here"),
                None => bail!("no status {value:?}; there are: created running paused restarting exited"),
            },
            "exited" => Self::Exited(value.parse().context("exited is an exit code")?),
            "ancestor" => Self::Ancestor(own),
            "before" => Self::Before(own),
            "since" | "after" => Self::Since(own),
            "volume" => Self::Volume(own),
            "network" => Self::Network(own),
            "health" => match value {
                "starting" | "healthy" | "unhealthy" | "none" => Self::Health(own),
                _ => bail!("no health {value:?}; there are: starting healthy unhealthy none"),
            },
            "restart-policy" => match value {
                "no" | "on-failure" | "always" | "unless-stopped" => Self::RestartPolicy(own),
                _ => bail!("no restart policy {value:?}; there are: no on-failure always unless-stopped"),
            },
            "should-start-on-boot" => Self::OnBoot(value.parse().context("should-start-on-boot is true or false")?),
            "until" => Self::Until(super::time::parse(value, Timestamp::now())?),
            _ => bail!(
                "no filter {key:?}; there are: ancestor before exited health id label name network restart-policy \
                 should-start-on-boot since status until volume"
            ),
        })
    }
}

/// Whether a container passes: of each kind of filter one, but all labels.
pub(super) fn fits(containers: &Containers, filters: &[Filter], listed: &Listed) -> Result<bool> {
    filter::fits(filters, |filter| matches!(filter, Filter::Label(..)), |filter| passes(containers, filter, listed))
}

fn passes(containers: &Containers, filter: &Filter, listed: &Listed) -> Result<bool> {
    let (settings, state) = (&listed.record.settings, &listed.state);
    let created = |text: &str| Ok::<_, anyhow::Error>(containers.find(text)?.settings.created);
    Ok(match filter {
        Filter::Id(digits) => settings.id.starts_with(digits.as_str()),
        // As docker has it, any part of the name will do, and `^` and `$` bind it to the ends.
        Filter::Name(part) => {
            let start = part.strip_prefix('^');
            let part = start.unwrap_or(part);
            let part = part.strip_prefix('/').unwrap_or(part);
            match (start, part.strip_suffix('$')) {
                (Some(_), Some(whole)) => settings.name == whole,
                (Some(_), None) => settings.name.starts_with(part),
                (None, Some(end)) => settings.name.ends_with(end),
                (None, None) => settings.name.contains(part),
            }
        }
        Filter::Label(key, value) => {
            settings.labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        }
        Filter::Status(status) => state.status == *status,
        Filter::Exited(code) => state.status == Status::Exited && state.exit_code == *code,
        Filter::Ancestor(image) => settings.image.as_ref().is_some_and(|used| {
            let id = image.strip_prefix("sha256:").unwrap_or(image);
            used.name == *image
                || used.name.strip_suffix(":latest") == Some(image)
                || image.strip_suffix(":latest") == Some(used.name.as_str())
                || id.len() > 3 && used.config.hex().starts_with(id)
        }),
        Filter::Before(other) => settings.created < created(other)?,
        Filter::Since(other) => settings.created > created(other)?,
        Filter::Volume(volume) => {
            settings.volumes.iter().any(|used| used.name == *volume || used.destination == std::path::Path::new(volume))
        }
        Filter::Network(network) => settings.network == *network || state.networks.contains_key(network),
        Filter::Health(health) => {
            let found = state.health.as_ref().map_or("none", |health| health.status.as_str());
            found == health
        }
        Filter::RestartPolicy(name) => settings.restart.name() == name,
        Filter::OnBoot(wanted) => {
            let starts = match settings.restart {
                Restart::Always => true,
                Restart::UnlessStopped => state.started.is_some() && !state.stopped,
                Restart::No | Restart::OnFailure(_) => false,
            };
            starts == *wanted
        }
        Filter::Until(time) => settings.created < *time,
    })
}
