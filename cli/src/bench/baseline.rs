//! Whether a result is worse than an earlier one, noise taken into account.
//!
//! Judged is lamel; what else was measured both times tells how much the host itself has become slower or faster, and
//! times are divided by that first. A row is worse if even the lower end of the interval that resampling gives for the
//! ratio of medians is above the tolerance.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::backend::Backend;
use super::report::shown;
use super::result::{Cell, FORMAT, Report, RowResult};
use super::stats::{median, ratio_interval};

/// Of the ratios that resampling gives, the interval holds this share: one false alarm in a hundred rows at most.
const CONFIDENCE: f64 = 0.99;
/// What is not worth an alarm, however sure it is.
const TOLERANCE: f64 = 1.05;
/// With fewer runs nothing is known of the noise.
const MIN_SAMPLES: usize = 3;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Worse,
    Better,
    Same,
    /// There is a number no more.
    Lost,
    /// Too few runs, or none then.
    Unknown,
}

/// One row of one backend, then and now.
#[derive(Debug)]
pub(crate) struct Line {
    row: String,
    backend: String,
    then: String,
    now: String,
    interval: Option<(f64, f64)>,
    pub(crate) verdict: Verdict,
}

/// A result beside an earlier one.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) lines: Vec<Line>,
    /// How many times as long the others take now.
    drift: Option<f64>,
    /// What makes the two hard to compare.
    warnings: Vec<String>,
}

/// Reads an earlier result.
pub(crate) fn read(path: &Path) -> Result<Report> {
    let at = || format!("baseline {}", path.display());
    let text = fs::read(path).with_context(at)?;
    let report: Report = serde_json::from_slice(&text).with_context(at)?;
    if report.format != FORMAT {
        bail!("{}: format {}, this lamel reads {FORMAT}: measure it again", at(), report.format);
    }
    Ok(report)
}

/// Refuses to compare what was not measured in the same way.
pub(crate) fn check_settings(new: &super::result::Settings, old: &super::result::Settings) -> Result<()> {
    let what = |settings: &super::result::Settings| {
        let tree = settings.tree.as_deref().unwrap_or("generated");
        format!(
            "size {}, tree {tree}, {} entries, {} layers{}",
            settings.size,
            settings.entries,
            settings.layers,
            if settings.userns { ", in a user namespace" } else { "" }
        )
    };
    let (new, old) = (what(new), what(old));
    if new != old {
        bail!("the baseline was measured with {old}, and this is {new}: not comparable");
    }
    Ok(())
}

/// Compares all that both have.
pub(crate) fn compare(new: &Report, old: &Report) -> Result<Comparison> {
    check_settings(&new.settings, &old.settings)?;
    let both: Vec<&str> =
        new.backends.iter().map(|b| b.name.as_str()).filter(|name| column(old, name).is_some()).collect();
    let (mut judged, others): (Vec<&str>, Vec<&str>) = both.iter().partition(|name| Backend::is_lamel(name));
    let drift = if judged.is_empty() {
        judged = both;
        None
    } else {
        drift(new, old, &others)
    };
    if judged.is_empty() {
        bail!("the baseline has none of the backends that were measured");
    }
    let mut warnings = Vec::new();
    if new.machine != old.machine {
        warnings.push("the baseline is of another machine or kernel".to_owned());
    }
    if new.settings.upper_filesystem != old.settings.upper_filesystem {
        warnings.push("the baseline's upper was on another filesystem".to_owned());
    }
    let mut lines = Vec::new();
    for row in &new.rows {
        let Some(earlier) = old.rows.iter().find(|earlier| earlier.name == row.name) else { continue };
        for name in &judged {
            let cells = (cell(new, row, name), cell(old, earlier, name));
            if let (Some(now), Some(then)) = cells {
                lines.push(line(row, name, now, then, drift));
            }
        }
    }
    Ok(Comparison { lines, drift, warnings })
}

fn column(report: &Report, name: &str) -> Option<usize> {
    report.backends.iter().position(|backend| backend.name == name)
}

fn cell<'a>(report: &Report, row: &'a RowResult, name: &str) -> Option<&'a Cell> {
    row.cells.get(column(report, name)?)
}

/// The median of the ratios of the backends that are not judged.
fn drift(new: &Report, old: &Report, others: &[&str]) -> Option<f64> {
    let mut ratios = Vec::new();
    for row in new.rows.iter().filter(|row| row.unit.is_time()) {
        let Some(earlier) = old.rows.iter().find(|earlier| earlier.name == row.name) else { continue };
        for name in others {
            let now = cell(new, row, name).and_then(Cell::median);
            let then = cell(old, earlier, name).and_then(Cell::median);
            ratios
                .extend(now.zip(then).map(|(now, then)| now / then).filter(|ratio| ratio.is_finite() && *ratio > 0.0));
        }
    }
    median(&ratios)
}

fn line(row: &RowResult, name: &str, now: &Cell, then: &Cell, drift: Option<f64>) -> Line {
    let drift = drift.filter(|_| row.unit.is_time()).unwrap_or(1.0);
    let (new, old) = (now.values(), then.values());
    let corrected: Vec<f64> = new.iter().map(|value| value / drift).collect();
    let enough = new.len() >= MIN_SAMPLES && old.len() >= MIN_SAMPLES;
    let interval = if enough { ratio_interval(&corrected, &old, CONFIDENCE) } else { None };
    let verdict = match interval {
        _ if new.is_empty() && !old.is_empty() => Verdict::Lost,
        Some((least, _)) if least > TOLERANCE => Verdict::Worse,
        Some((_, most)) if most < 1.0 / TOLERANCE => Verdict::Better,
        Some(_) => Verdict::Same,
        None => Verdict::Unknown,
    };
    let text = |cell: &Cell| {
        let amount = cell.samples.first().and_then(|sample| sample.amount);
        cell.median().map_or_else(|| "–".to_owned(), |value| shown(row.unit, value, amount))
    };
    Line { row: row.name.clone(), backend: name.to_owned(), then: text(then), now: text(now), interval, verdict }
}

impl Comparison {
    /// Rows that are worse, or gone.
    pub(crate) fn regressions(&self) -> usize {
        self.lines.iter().filter(|line| matches!(line.verdict, Verdict::Worse | Verdict::Lost)).count()
    }

    /// As text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from("\nAgainst the baseline");
        match self.drift {
            Some(drift) => {
                writeln!(text, "; the other backends take {drift:.2} times as long as then, times are divided by it:")
            }
            None => writeln!(text, ":"),
        }
        .ok();
        for warning in &self.warnings {
            writeln!(text, "  note: {warning}").ok();
        }
        for line in &self.lines {
            let verdict = match line.verdict {
                Verdict::Worse => "WORSE",
                Verdict::Better => "better",
                Verdict::Same => "same",
                Verdict::Lost => "LOST",
                Verdict::Unknown => "unknown (too few runs)",
            };
            let interval = line.interval.map_or_else(String::new, |(least, most)| format!("×{least:.2} – ×{most:.2}"));
            writeln!(
                text,
                "  {:<18} {:<24} {:>12} → {:>12}  {interval:<16} {verdict}",
                line.row, line.backend, line.then, line.now
            )
            .ok();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::machine::Machine;
    use crate::bench::plan::Size;
    use crate::bench::result::{BackendFacts, Sample, Settings, Unit};

    fn report(cells: &[(&str, &[f64])]) -> Report {
        let size = Size::Small;
        let sample = |value: &f64| Sample { value: *value, amount: None, daemon: None };
        let facts = |name: &str| BackendFacts { name: name.to_owned(), version: String::new(), options: String::new() };
        let machine = Machine { cpu: String::new(), cores: 2, memory: 0, kernel: String::new() };
        Report {
            format: FORMAT,
            lamel: String::new(),
            started: 0,
            command: Vec::new(),
            machine,
            settings: Settings {
                size: size.name().to_owned(),
                shape: size.shape(),
                tree: None,
                entries: 1,
                layers: 5,
                repeat: 3,
                userns: false,
                lower_filesystem: String::new(),
                upper_filesystem: String::new(),
                drops_caches: true,
                reflink: false,
            },
            backends: cells.iter().map(|(name, _)| facts(name)).collect(),
            rows: vec![RowResult {
                workload: "walk".to_owned(),
                name: "walk-cold".to_owned(),
                about: String::new(),
                caches: String::new(),
                unit: Unit::Seconds,
                cells: cells
                    .iter()
                    .map(|(_, values)| Cell { samples: values.iter().map(sample).collect(), ..Cell::default() })
                    .collect(),
            }],
        }
    }

    fn verdict(new: &[(&str, &[f64])], old: &[(&str, &[f64])]) -> Verdict {
        compare(&report(new), &report(old)).unwrap().lines.remove(0).verdict
    }

    #[test]
    fn a_change_beyond_noise_is_seen_both_ways() {
        let old: &[(&str, &[f64])] = &[("lamel", &[1.0, 1.02, 0.98])];
        assert_eq!(verdict(&[("lamel", &[1.5, 1.52, 1.48])], old), Verdict::Worse);
        assert_eq!(verdict(&[("lamel", &[0.5, 0.52, 0.48])], old), Verdict::Better);
        assert_eq!(verdict(&[("lamel", &[1.0, 1.5, 0.97])], old), Verdict::Same);
        assert_eq!(verdict(&[("lamel", &[1.03, 1.04, 1.03])], old), Verdict::Same);
        assert_eq!(verdict(&[("lamel", &[9.0])], old), Verdict::Unknown);
        assert_eq!(verdict(&[("lamel", &[])], old), Verdict::Lost);
    }

    #[test]
    fn a_slower_host_is_no_regression() {
        let old: &[(&str, &[f64])] = &[("native", &[2.0, 2.0, 2.0]), ("lamel", &[1.0, 1.02, 0.98])];
        let slow = |native: f64| verdict(&[("native", &[native; 3]), ("lamel", &[2.0, 2.04, 1.96])], old);
        assert_eq!(slow(4.0), Verdict::Same);
        assert_eq!(slow(2.0), Verdict::Worse);
    }

    #[test]
    fn what_was_measured_otherwise_is_not_compared() {
        let old = report(&[("lamel", &[1.0; 3])]);
        let mut new = old.clone();
        new.settings.layers = 64;
        assert!(compare(&new, &old).is_err());
        assert!(compare(&report(&[("native", &[1.0; 3])]), &old).is_err());
    }
}
