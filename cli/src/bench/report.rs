//! What is shown of a result, and in which form.

pub(crate) mod html;
pub(crate) mod table;

use super::backend::Backend;
use super::result::{Report, RowResult, Unit};
use super::stats::geometric_mean;

/// The columns that ratios are taken of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    /// The first `native`, `dir:` not counted.
    pub(crate) native: Option<usize>,
    /// The first that stacks layers and is not lamel.
    pub(crate) peer: Option<usize>,
}

impl References {
    pub(crate) fn of(report: &Report) -> Self {
        let first = |wanted: &dyn Fn(&str) -> bool| report.backends.iter().position(|backend| wanted(&backend.name));
        Self { native: first(&|name| name == "native"), peer: first(&Backend::is_peer) }
    }
}

/// `column`'s median as a multiple of `reference`'s.
pub(crate) fn ratio(row: &RowResult, column: usize, reference: Option<usize>) -> Option<f64> {
    let own = row.cells.get(column)?.median()?;
    let other = row.cells.get(reference?)?.median()?;
    let ratio = own / other;
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

/// How one backend compares with another over all times that both have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mean {
    pub(crate) subject: String,
    pub(crate) reference: String,
    pub(crate) ratio: f64,
    pub(crate) rows: usize,
}

/// The geometric means of lamel's ratios to every other backend.
pub(crate) fn means(report: &Report) -> Vec<Mean> {
    let mut means = Vec::new();
    for (at, subject) in report.backends.iter().enumerate().filter(|(_, backend)| Backend::is_lamel(&backend.name)) {
        for (other, reference) in report.backends.iter().enumerate().filter(|(other, _)| *other != at) {
            let times = report.rows.iter().filter(|row| row.unit.is_time());
            let ratios: Vec<f64> = times.filter_map(|row| ratio(row, at, Some(other))).collect();
            if let Some(ratio) = geometric_mean(&ratios) {
                let (subject, reference) = (subject.name.clone(), reference.name.clone());
                means.push(Mean { subject, reference, ratio, rows: ratios.len() });
            }
        }
    }
    means
}

/// A value as people read it.
pub(crate) fn shown(unit: Unit, value: f64, amount: Option<u64>) -> String {
    match (unit, amount) {
        (Unit::Each, Some(amount)) if amount > 0 => seconds(value / amount as f64),
        (Unit::Throughput, Some(amount)) if value > 0.0 => format!("{:.0} MB/s", amount as f64 / value / 1e6),
        (Unit::Seconds | Unit::Each | Unit::Throughput, _) => seconds(value),
        (Unit::Bytes, _) if value >= 1e5 => format!("{:.1} MiB", value / f64::from(1 << 20)),
        (Unit::Bytes, _) => format!("{value:.0} B"),
        (Unit::Count, _) => format!("{value:.0}"),
    }
}

/// A ratio, with digits enough for small ones.
pub(crate) fn short(ratio: f64) -> String {
    if ratio < 0.1 { format!("{ratio:.3}") } else { format!("{ratio:.2}") }
}

/// Three digits and a unit.
fn seconds(value: f64) -> String {
    let (scaled, unit) = match value {
        value if value >= 1.0 => (value, "s"),
        value if value >= 1e-3 => (value * 1e3, "ms"),
        value => (value * 1e6, "µs"),
    };
    let digits = match scaled {
        scaled if scaled >= 100.0 => 0,
        scaled if scaled >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_readable() {
        assert_eq!(seconds(2.0), "2.00 s");
        assert_eq!(seconds(0.0123), "12.3 ms");
        assert_eq!(shown(Unit::Each, 0.01, Some(1000)), "10.0 µs");
        assert_eq!(shown(Unit::Throughput, 0.5, Some(1_000_000_000)), "2000 MB/s");
        assert_eq!(shown(Unit::Bytes, 323.7, None), "324 B");
        assert_eq!(shown(Unit::Bytes, 2.5e6, None), "2.4 MiB");
    }
}
