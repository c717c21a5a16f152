//! A result on a terminal.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::super::result::{Cell, Report, RowResult};
use super::super::stats::{median, range};
use super::{References, means, ratio, short, shown};

/// The whole of it as text.
pub(crate) fn table(report: &Report) -> String {
    let references = References::of(report);
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    let names = report.backends.iter().map(|backend| folded(&backend.name));
    table.set_header(std::iter::once(String::new()).chain(names));
    for row in &report.rows {
        let cells = (0..report.backends.len()).map(|at| cell(row, at, references));
        table.add_row(std::iter::once(row.name.clone()).chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = head(report);
    writeln!(text, "{table}").ok();
    text.push_str(&foot(report, references));
    text
}

/// A name in lines that do not widen its column.
fn folded(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    letters.chunks(22).map(|line| line.iter().collect::<String>()).collect::<Vec<_>>().join("\n")
}

/// The median with its ratios, and below it the range.
fn cell(row: &RowResult, at: usize, references: References) -> String {
    let Some(cell) = row.cells.get(at) else { return String::new() };
    let values = cell.values();
    let (Some(middle), Some((least, most))) = (median(&values), range(&values)) else {
        return if cell.error.is_some() { "FAILED" } else { "–" }.to_owned();
    };
    let amount = cell.samples.first().and_then(|sample| sample.amount);
    let mut text = shown(row.unit, middle, amount);
    for (reference, sign) in [(references.native, "n"), (references.peer, "p")] {
        if let Some(ratio) = ratio(row, at, reference).filter(|_| reference != Some(at)) {
            write!(text, "  {}{sign}", short(ratio)).ok();
        }
    }
    write!(text, "\n{} – {}", shown(row.unit, least, amount), shown(row.unit, most, amount)).ok();
    if let Some((cpu, switches)) = daemon(cell).filter(|_| row.unit.is_time()) {
        write!(text, "\ncpu {cpu:.3} s, {switches} sw").ok();
    }
    text
}

/// Medians of what the daemon used.
fn daemon(cell: &Cell) -> Option<(f64, u64)> {
    let used = || cell.samples.iter().filter_map(|sample| sample.daemon.as_ref());
    let cpu = median(&used().map(|daemon| daemon.cpu_seconds).collect::<Vec<_>>())?;
    let switches = median(&used().map(|daemon| daemon.voluntary_switches as f64).collect::<Vec<_>>())?;
    Some((cpu, switches as u64))
}

fn head(report: &Report) -> String {
    let (machine, settings) = (&report.machine, &report.settings);
    let mut text = String::new();
    writeln!(
        text,
        "{}, {} CPUs, {:.0} GiB, {}\n{}{} entries in {} layers on {}, upper on {}{}; {} runs of each, medians{}{}",
        machine.cpu,
        machine.cores,
        machine.memory as f64 / f64::from(1 << 30),
        machine.kernel,
        settings.tree.as_deref().map_or_else(String::new, |tree| format!("{tree}: ")),
        settings.entries,
        settings.layers,
        settings.lower_filesystem,
        settings.upper_filesystem,
        if settings.reflink { " (reflink)" } else { "" },
        settings.repeat,
        if settings.userns { "; in a user namespace" } else { "" },
        if settings.drops_caches { "" } else { "; page cache NOT dropped (not permitted): cold is not cold" },
    )
    .ok();
    for backend in &report.backends {
        let options = if backend.options.is_empty() { String::new() } else { format!(" -o {}", backend.options) };
        writeln!(text, "  {}: {}{options}", backend.name, backend.version).ok();
    }
    text
}

/// What one backend has no numbers of, and why: rows of one reason together.
fn missing(report: &Report, at: usize) -> Vec<(&'static str, &str, Vec<&str>)> {
    let mut missing: Vec<(&'static str, &str, Vec<&str>)> = Vec::new();
    for row in &report.rows {
        let Some(cell) = row.cells.get(at) else { continue };
        let (verdict, why) = match (&cell.error, &cell.skipped) {
            (Some(error), _) => ("FAILED", error),
            (None, Some(reason)) => ("left out", reason),
            (None, None) => continue,
        };
        match missing.iter_mut().find(|(known, reason, _)| (*known, *reason) == (verdict, why)) {
            Some((_, _, rows)) => rows.push(&row.name),
            None => missing.push((verdict, why, vec![&row.name])),
        }
    }
    missing
}

fn foot(report: &Report, references: References) -> String {
    let mut text = String::new();
    let name = |at: Option<usize>| at.and_then(|at| report.backends.get(at)).map(|backend| &backend.name);
    if name(references.native).is_some() {
        text.push_str("n: times native  ");
    }
    if let Some(peer) = name(references.peer) {
        write!(text, "p: times {peer}  ").ok();
    }
    text.push_str("cpu, sw: CPU time and voluntary context switches of the daemon\n");
    for (at, backend) in report.backends.iter().enumerate() {
        for (verdict, why, rows) in missing(report, at) {
            writeln!(text, "{verdict} on {}: {}: {why}", backend.name, rows.join(", ")).ok();
        }
    }
    for mean in means(report) {
        writeln!(
            text,
            "{} takes {:.3} times as long as {} (geometric mean of {} times)",
            mean.subject, mean.ratio, mean.reference, mean.rows
        )
        .ok();
    }
    text
}
