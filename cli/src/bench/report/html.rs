//! A result as one HTML page: charts in SVG, no scripts, nothing fetched.

use std::fmt::Write as _;

use super::super::result::{Cell, Report, RowResult};
use super::super::stats::{median, range};
use super::{References, means, ratio, short, shown};
use crate::output::page::{begin, escape};

/// A colour for each backend, in order; readable on white and on black.
const COLOURS: [&str; 8] = ["#6b7280", "#3b82f6", "#f59e0b", "#ef4444", "#10b981", "#8b5cf6", "#ec4899", "#14b8a6"];

/// Of a chart, in its own units.
const WIDTH: f64 = 860.0;
const LABEL: f64 = 250.0;
/// What is left of the width takes the longest text behind a bar.
const BARS: f64 = 280.0;
const LINE: f64 = 26.0;

const STYLE: &str = "\
svg{width:100%;height:auto;display:block}svg text{font:13px system-ui,sans-serif;fill:currentColor}\
svg .range{stroke:currentColor;stroke-width:1.5}details{margin:.3rem 0}";

/// The whole page.
pub(crate) fn html(report: &Report) -> String {
    let references = References::of(report);
    let mut page = begin("lamel bench", STYLE);
    head(&mut page, report);
    summary(&mut page, report);
    let mut workload = "";
    for row in &report.rows {
        if row.workload != workload {
            workload = &row.workload;
            writeln!(page, "<h2 id=\"{0}\">{0}</h2>\n<p>{1}</p>", escape(workload), escape(&row.about)).ok();
            writeln!(page, "<p class=\"quiet\">Caches: {}</p>", escape(&row.caches)).ok();
        }
        writeln!(page, "<h3>{}</h3>", escape(&row.name)).ok();
        chart(&mut page, report, row, references);
        details(&mut page, report, row);
    }
    page.push_str("</html>\n");
    page
}

fn head(page: &mut String, report: &Report) {
    let (machine, settings) = (&report.machine, &report.settings);
    writeln!(
        page,
        "<h1>lamel bench</h1>\n<p class=\"quiet\">lamel {}, {}</p>",
        escape(&report.lamel),
        date(report.started)
    )
    .ok();
    writeln!(
        page,
        "<p>{}, {} CPUs, {:.0} GiB, {}</p>",
        escape(&machine.cpu),
        machine.cores,
        machine.memory as f64 / f64::from(1 << 30),
        escape(&machine.kernel)
    )
    .ok();
    writeln!(
        page,
        "<p>{}: {} entries in {} layers on {}; upper on {}{}; {} runs of each{}.</p>",
        settings.tree.as_deref().map_or_else(|| format!("Generated tree, size {}", settings.size), escape),
        settings.entries,
        settings.layers,
        escape(&settings.lower_filesystem),
        escape(&settings.upper_filesystem),
        if settings.reflink { ", which shares blocks with the layers" } else { "" },
        settings.repeat,
        if settings.userns { "; in a user namespace" } else { "" }
    )
    .ok();
    if !settings.drops_caches {
        page.push_str("<p class=\"bad\">The page cache could not be dropped: what is called cold was not.</p>\n");
    }
    writeln!(page, "<p><code>{}</code></p>", escape(&report.command.join(" "))).ok();
    page.push_str("<table>\n<tr><th>Backend<th>Version<th>Options\n");
    for (at, backend) in report.backends.iter().enumerate() {
        writeln!(
            page,
            "<tr><td><svg style=\"width:.8em;display:inline\" viewBox=\"0 0 1 1\"><rect width=\"1\" height=\"1\" \
             fill=\"{}\"/></svg> {}<td>{}<td>{}",
            colour(at),
            escape(&backend.name),
            escape(&backend.version),
            escape(&backend.options)
        )
        .ok();
    }
    page.push_str(
        "</table>\n<p class=\"quiet\">Bars are medians, lines reach from the smallest to the largest run; \
        shorter is better.</p>\n",
    );
}

fn summary(page: &mut String, report: &Report) {
    let means = means(report);
    if means.is_empty() {
        return;
    }
    page.push_str(
        "<h2 id=\"summary\">Over all times</h2>\n<table>\n<tr><th>Backend<th>takes<th>of the time of<th>rows\n",
    );
    for mean in means {
        writeln!(
            page,
            "<tr><td>{}<td class=\"n\">× {:.3}<td>{}<td class=\"n\">{}",
            escape(&mean.subject),
            mean.ratio,
            escape(&mean.reference),
            mean.rows
        )
        .ok();
    }
    page.push_str("</table>\n<p class=\"quiet\">Geometric means of the medians' ratios.</p>\n");
}

fn chart(page: &mut String, report: &Report, row: &RowResult, references: References) {
    let longest = row.cells.iter().filter_map(|cell| range(&cell.values())).map(|(_, most)| most).fold(0.0, f64::max);
    let height = LINE * report.backends.len() as f64;
    let name = escape(&row.name);
    writeln!(page, "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{name}\">").ok();
    for (at, (cell, backend)) in row.cells.iter().zip(&report.backends).enumerate() {
        let top = LINE * at as f64;
        let text = top + LINE * 0.66;
        let shown_name = shorten(&backend.name, 30);
        writeln!(
            page,
            "<text x=\"{:.0}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>",
            LABEL - 8.0,
            escape(&shown_name)
        )
        .ok();
        let values = cell.values();
        let (Some(middle), Some((least, most))) = (median(&values), range(&values)) else {
            let why = if cell.error.is_some() { "failed" } else { "left out" };
            writeln!(page, "<text class=\"none\" x=\"{LABEL}\" y=\"{text:.1}\" opacity=\".7\">{why}</text>").ok();
            continue;
        };
        let at_value = |value: f64| if longest > 0.0 { BARS * value / longest } else { 0.0 };
        // One that is too short to be seen is still there.
        let width = at_value(middle).max(1.0);
        writeln!(
            page,
            "<rect class=\"bar\" x=\"{LABEL}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\">\
             <title>{}</title></rect>",
            top + 4.0,
            LINE - 8.0,
            colour(at),
            escape(&backend.name)
        )
        .ok();
        writeln!(
            page,
            "<line class=\"range\" x1=\"{0:.1}\" x2=\"{2:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\"/>",
            LABEL + at_value(least),
            top + LINE / 2.0,
            LABEL + at_value(most)
        )
        .ok();
        let amount = cell.samples.first().and_then(|sample| sample.amount);
        let mut label = shown(row.unit, middle, amount);
        for (reference, of) in [(references.native, "native"), (references.peer, "first peer")] {
            if let Some(ratio) = ratio(row, at, reference).filter(|_| reference != Some(at)) {
                write!(label, " · {} × {of}", short(ratio)).ok();
            }
        }
        let right = LABEL + at_value(most).max(width) + 6.0;
        writeln!(page, "<text x=\"{right:.1}\" y=\"{text:.1}\">{}</text>", escape(&label)).ok();
    }
    page.push_str("</svg>\n");
}

/// Every sample, and what the daemons used.
fn details(page: &mut String, report: &Report, row: &RowResult) {
    page.push_str(
        "<details><summary class=\"quiet\">samples</summary>\n<table>\n<tr><th>Backend<th>Runs<th>Daemon: CPU\
        <th>switches<th>resident<th>files\n",
    );
    for (cell, backend) in row.cells.iter().zip(&report.backends) {
        let amount = cell.samples.first().and_then(|sample| sample.amount);
        let runs: Vec<String> = cell.samples.iter().map(|sample| shown(row.unit, sample.value, amount)).collect();
        let why = cell.error.as_ref().or(cell.skipped.as_ref());
        let runs = why.map_or_else(|| runs.join(", "), Clone::clone);
        writeln!(page, "<tr><td>{}<td>{}{}", escape(&backend.name), escape(&runs), daemon(cell)).ok();
    }
    page.push_str("</table></details>\n");
}

fn daemon(cell: &Cell) -> String {
    let middle = |of: &dyn Fn(&super::super::result::DaemonSample) -> f64| {
        median(&cell.samples.iter().filter_map(|sample| sample.daemon.as_ref()).map(of).collect::<Vec<_>>())
    };
    let (Some(cpu), Some(switches), Some(resident), Some(files)) = (
        middle(&|daemon| daemon.cpu_seconds),
        middle(&|daemon| daemon.voluntary_switches as f64),
        middle(&|daemon| daemon.resident_after as f64),
        middle(&|daemon| daemon.open_files as f64),
    ) else {
        return "<td><td><td><td>".to_owned();
    };
    format!(
        "<td class=\"n\">{cpu:.3} s<td class=\"n\">{switches:.0}<td class=\"n\">{:.1} MiB<td class=\"n\">{files:.0}",
        resident / f64::from(1 << 20)
    )
}

fn colour(at: usize) -> &'static str {
    COLOURS.get(at % COLOURS.len()).copied().unwrap_or("#888888")
}

/// The end tells options and programs apart.
fn shorten(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let end: String = text.chars().skip(length - (most - 1)).collect();
    format!("…{end}")
}

/// A day and a minute, UTC.
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, so that a leap day is the last one of its year.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day_of_month:02} {:02}:{:02} UTC", rest / 3600, rest % 3600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_795_262_400 + 3_660), "2026-11-21 13:01 UTC");
    }

    #[test]
    fn long_names_lose_their_beginning() {
        assert_eq!(shorten("lamel:/opt/x", 6), "…opt/x");
    }
}
