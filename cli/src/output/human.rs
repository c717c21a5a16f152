//! Sizes and times as Docker shows them.

use jiff::Timestamp;

/// Bytes in units of thousands, with three digits.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    // What would be rounded up to a thousand is one of the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    let digits = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{name}")
}

/// A time as RFC 3339 has it, if it is one.
pub(crate) fn timestamp(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}

/// How long ago something was.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    let text = match hours {
        _ if seconds < 1 => "Less than a second".to_owned(),
        _ if seconds == 1 => "1 second".to_owned(),
        _ if seconds < 60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        0 | 1 => "About an hour".to_owned(),
        hours if hours < 48 => format!("{hours} hours"),
        hours if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        hours if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        hours if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        hours => format!("{} years", hours / 24 / 365),
    };
    format!("{text} ago")
}

/// Rows under one another, three blanks between columns.
pub(crate) fn columns(rows: &[Vec<String>]) -> Vec<Vec<u8>> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().as_bytes().to_vec()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let sizes = [0, 999, 1000, 4_260_000, 9_999_999, 77_800_000, 123_456_789, 999_999_999, u64::MAX].map(size);
        assert_eq!(sizes, ["0B", "999B", "1kB", "4.26MB", "10MB", "77.8MB", "123MB", "1GB", "18.4EB"]);
    }

    #[test]
    fn ages_are_dockers() {
        let now: Timestamp = "2026-01-31T00:00:00Z".parse().unwrap();
        let ages = [
            ("2026-01-31T00:00:05Z", "Less than a second ago"),
            ("2026-01-30T23:59:30Z", "30 seconds ago"),
            ("2026-01-30T23:58:30Z", "About a minute ago"),
            ("2026-01-30T23:00:00Z", "About an hour ago"),
            ("2026-01-30T01:00:00+01:00", "24 hours ago"),
            ("2026-01-20T00:00:00Z", "11 days ago"),
            ("2025-12-31T00:00:00Z", "4 weeks ago"),
            ("2025-01-31T00:00:00.123456789Z", "12 months ago"),
            ("1970-01-01T00:00:00Z", "56 years ago"),
        ];
        for (then, text) in ages {
            assert_eq!(ago(timestamp(Some(then)).unwrap(), now), text);
        }
        assert_eq!(timestamp(Some("yesterday")), None);
    }
}
