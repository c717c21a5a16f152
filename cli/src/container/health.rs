//! Health checks: what the options and the image say of them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lamel_image::manifest::RunConfig;
use serde::Deserialize;

use super::settings::HealthCheck;

/// Options of the health check.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct HealthArgs {
    /// A command line of /bin/sh that tells whether the container is well [default: the image's]
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_healthcheck")]
    health_cmd: Option<String>,
    /// Time between two checks [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = super::create::duration)]
    health_interval: Option<Duration>,
    /// Time that one check may take [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = super::create::duration)]
    health_timeout: Option<Duration>,
    /// Time after the start in which failures do not count [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = super::create::duration)]
    health_start_period: Option<Duration>,
    /// Failures one after the other that make it unhealthy [default: 3]
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// Check nothing, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
}

/// As an image has it (Docker image specification, "Healthcheck"); times are nanoseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct OfImage {
    test: Vec<String>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    retries: u32,
}

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;

/// The health check of a container, if it has one.
pub(super) fn of(args: &HealthArgs, config: &RunConfig) -> Result<Option<HealthCheck>> {
    if args.no_healthcheck || args.health_cmd.as_deref() == Some("none") {
        return Ok(None);
    }
    let image: OfImage = match config.other.get("Healthcheck") {
        Some(value) if !value.is_null() => serde_json::from_value(value.clone()).context("the image's Healthcheck")?,
        _ => OfImage::default(),
    };
    let test = match &args.health_cmd {
        Some(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        None => image.test,
    };
    // `NONE` takes an inherited one away.
    if !matches!(test.first().map(String::as_str), Some("CMD" | "CMD-SHELL")) || test.len() < 2 {
        return Ok(None);
    }
    let time = |option: Option<Duration>, image: u64, default| {
        option.unwrap_or(if image == 0 { default } else { Duration::from_nanos(image) })
    };
    let retries = if image.retries == 0 { RETRIES } else { image.retries };
    Ok(Some(HealthCheck {
        test,
        interval: time(args.health_interval, image.interval, INTERVAL),
        timeout: time(args.health_timeout, image.timeout, TIMEOUT),
        start_period: time(args.health_start_period, image.start_period, Duration::ZERO),
        retries: args.health_retries.filter(|retries| *retries > 0).unwrap_or(retries),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(check: serde_json::Value) -> RunConfig {
        let mut config = RunConfig::default();
        config.other.insert("Healthcheck".to_owned(), check);
        config
    }

    #[test]
    fn options_go_before_the_image() {
        let config = image(json!({"Test": ["CMD", "check"], "Interval": 5_000_000_000_u64, "Retries": 2}));
        let check = of(&HealthArgs::default(), &config).unwrap().unwrap();
        assert_eq!(
            (check.test.as_slice(), check.interval),
            (&["CMD".to_owned(), "check".to_owned()][..], Duration::from_secs(5))
        );
        assert_eq!((check.timeout, check.retries), (TIMEOUT, 2));
        let args = HealthArgs { health_cmd: Some("true".to_owned()), health_retries: Some(7), ..Default::default() };
        let check = of(&args, &config).unwrap().unwrap();
        assert_eq!((check.test[0].as_str(), check.retries), ("CMD-SHELL", 7));
        let none = HealthArgs { no_healthcheck: true, ..Default::default() };
        assert_eq!(of(&none, &config).unwrap(), None);
    }

    #[test]
    fn an_image_may_have_none_or_junk() {
        for check in [json!(null), json!({"Test": ["NONE"]}), json!({"Test": []}), json!({"Test": ["CMD"]})] {
            assert_eq!(of(&HealthArgs::default(), &image(check)).unwrap(), None);
        }
        assert!(of(&HealthArgs::default(), &image(json!({"Test": 5}))).is_err());
    }
}
