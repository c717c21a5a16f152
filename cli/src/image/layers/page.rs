//! The page: tables as they are, and treemaps that a script in it draws.

use std::fmt::Write as _;

use lamel_image::survey::LayerSurvey;
use serde_json::Value;

use super::{Surveyed, percent};
use crate::output::human::size;
use crate::output::page::{begin, embed, escape};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Wasteful paths that are listed.
const LISTED: usize = 200;

/// The whole page. `trees` are those of the layers, and then the merged one.
pub(super) fn html(surveyed: &Surveyed<'_>, trees: &[Value]) -> String {
    let survey = surveyed.survey;
    let mut page = begin(&format!("Layers of {}", surveyed.name), STYLE);
    writeln!(page, "<h1>{}</h1>", escape(surveyed.name)).ok();
    writeln!(
        page,
        "<p class=\"quiet\">{}, shown by lamel {}</p>",
        surveyed.image.descriptor.digest,
        env!("CARGO_PKG_VERSION")
    )
    .ok();
    writeln!(
        page,
        "<p>{} in {} layers; efficiency <b id=\"efficiency\">{}</b>; <b id=\"wasted\">{}</b> wasted, {} of what lies above \
         the bottom layer.</p>",
        size(survey.bytes()),
        survey.layers.len(),
        percent(survey.efficiency),
        size(survey.wasted),
        percent(survey.user_wasted())
    )
    .ok();
    page.push_str(
        "<h2>Layers</h2>\n<table id=\"layers\">\n<tr><th>Layer<th>Size<th>Entries<th>Added<th>Changed<th>Removed\
         <th>Instruction\n",
    );
    for (number, (layer, _, instruction)) in surveyed.layers().enumerate() {
        row(&mut page, number, layer, instruction);
    }
    let merged = survey.layers.len();
    writeln!(page, "<tr data-tree=\"{merged}\"><td colspan=\"7\"><button>merged image</button></table>").ok();
    page.push_str(
        "<h2>Files by size</h2>\n<p id=\"trail\"></p>\n<div id=\"map\"></div>\n<p class=\"quiet\">A click on a directory \
         goes into it. In a layer: <span class=\"key added\"></span> added, <span class=\"key changed\"></span> changed, \
         <span class=\"key removed\"></span> deleted from lower layers. In the merged image each layer has a colour of its \
         own.</p>\n<noscript><p class=\"bad\">The map is drawn by a script, which is switched off here.</p></noscript>\n",
    );
    waste(&mut page, surveyed);
    let trees = embed(&Value::Array(trees.to_vec()));
    writeln!(
        page,
        "<script type=\"application/json\" id=\"trees\">{trees}</script>\n<script>{SCRIPT}</script>\n</html>"
    )
    .ok();
    page
}

fn row(page: &mut String, number: usize, layer: &LayerSurvey, instruction: &str) {
    write!(page, "<tr data-tree=\"{number}\"><td><button>{}</button>", number + 1).ok();
    write!(page, "<td class=\"n\">{}<td class=\"n\">{}", size(layer.bytes), layer.entries).ok();
    for bytes in [layer.added, layer.changed, layer.removed] {
        write!(page, "<td class=\"n\">{}", size(bytes)).ok();
    }
    writeln!(page, "<td><code>{}</code>", escape(instruction)).ok();
}

fn waste(page: &mut String, surveyed: &Surveyed<'_>) {
    page.push_str("<h2>Wasted space</h2>\n");
    let waste: Vec<_> = surveyed.survey.waste.iter().filter(|waste| waste.bytes > 0).collect();
    if waste.is_empty() {
        page.push_str("<p>None: no path is in two layers.</p>\n");
        return;
    }
    page.push_str("<table id=\"waste\">\n<tr><th>Bytes<th>Times<th>Path\n");
    for waste in waste.iter().take(LISTED) {
        let path = String::from_utf8_lossy(&waste.path).replace(char::is_control, "\u{fffd}");
        writeln!(
            page,
            "<tr><td class=\"n\">{}<td class=\"n\">{}<td><code>{}</code>",
            size(waste.bytes),
            waste.count,
            escape(&path)
        )
        .ok();
    }
    page.push_str("</table>\n");
    if waste.len() > LISTED {
        writeln!(page, "<p class=\"quiet\">And {} more.</p>", waste.len() - LISTED).ok();
    }
}
