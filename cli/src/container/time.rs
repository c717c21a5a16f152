//! Points of time as docker's options have them.

use std::time::Duration;

use anyhow::{Result, bail};
use jiff::Timestamp;

/// Reads a time: RFC 3339, a date, seconds since 1970, or how long ago it was (`10m`, `1h30m`).
pub(super) fn parse(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    // Without a zone it is the machine's, which here is always taken for UTC.
    for rest in ["Z", "T00:00:00Z", ":00Z"] {
        if let Ok(time) = format!("{text}{rest}").parse::<Timestamp>() {
            return Ok(time);
        }
    }
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if numeric && let Some(time) = seconds(text).and_then(|time| Timestamp::from_duration(time).ok()) {
        return Ok(time);
    }
    if let Some(ago) = length(text).and_then(|ago| now.checked_sub(ago).ok()) {
        return Ok(ago);
    }
    bail!("{text:?} is no time: write 2026-01-31T12:00:00Z, seconds since 1970, or 10m for so long ago")
}

fn seconds(text: &str) -> Option<jiff::SignedDuration> {
    let value: f64 = text.parse().ok()?;
    jiff::SignedDuration::try_from_secs_f64(value).ok()
}

/// `1h30m`, `90s`, `1.5h`.
fn length(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (value, after) = rest.split_at(number);
        let unit = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let scale = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(value.parse::<f64>().ok()? * scale).ok()?;
        total = total.checked_add(part)?;
        rest = after;
    }
    Some(total).filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_ago() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        for (text, wanted) in [
            ("2026-01-31T11:00:00Z", "2026-01-31T11:00:00Z"),
            ("2026-01-31T12:00:00+01:00", "2026-01-31T11:00:00Z"),
            ("2026-01-31T11:00:00", "2026-01-31T11:00:00Z"),
            ("2026-01-31T11:00", "2026-01-31T11:00:00Z"),
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("60", "1970-01-01T00:01:00Z"),
            ("60.5", "1970-01-01T00:01:00.5Z"),
            ("1h30m", "2026-01-31T10:30:00Z"),
            ("90s", "2026-01-31T11:58:30Z"),
        ] {
            assert_eq!(parse(text, now).unwrap(), wanted.parse().unwrap(), "{text}");
        }
        for text in ["", "yesterday", "1x", "h", "-1h", "99999999999999999999"] {
            assert!(parse(text, now).is_err(), "{text}");
        }
    }
}
