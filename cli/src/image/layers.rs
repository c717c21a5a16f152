//! `lamel layers`

mod page;
mod treemap;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};
use lamel_image::store::Image;
use lamel_image::survey::{LayerSurvey, Survey, survey};
use serde_json::{Value, json};

use super::inside::{Images, InsideArgs, shown};
use crate::output::human::{columns, size};
use crate::output::{print, write_file};
use treemap::Trees;

/// Show what each layer of an image adds, changes and removes, and what of it is wasted
///
/// Wasted are the bytes of paths that several layers have, and the efficiency is the part of all
/// bytes that would do, as dive counts them. With a limit that is crossed the exit code is 1.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    inside: InsideArgs,
    /// One JSON object
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// Write a page with a map of each layer's files, which fetches nothing; `-` is standard output
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The least efficiency that is good, such as 0.95 or 95%
    #[arg(long, value_name = "PART", help_heading = "Limits")]
    lowest_efficiency: Option<Part>,
    /// The most wasted bytes that are good, such as 20MB
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    highest_wasted_bytes: Option<Bytes>,
    /// The greatest part of the bytes above the bottom layer that may be wasted, such as 0.1 or 10%
    #[arg(long, value_name = "PART", help_heading = "Limits")]
    highest_user_wasted_percent: Option<Part>,
    /// A name or an id of the image
    #[arg(value_name = "REF")]
    image: String,
}

/// A part of a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part(f64);

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, whole) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
        let part = number.trim().parse::<f64>().ok().map(|number| number / whole);
        part.filter(|part| (0.0..=1.0).contains(part))
            .map(Self)
            .ok_or_else(|| "give a part such as 0.9 or 90%".to_owned())
    }
}

/// A number of bytes, with a unit if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bytes(u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => Some(1.0),
            "kb" | "k" => Some(1e3),
            "mb" | "m" => Some(1e6),
            "gb" | "g" => Some(1e9),
            "kib" => Some(1024.0),
            "mib" => Some(1024.0 * 1024.0),
            "gib" => Some(1024.0 * 1024.0 * 1024.0),
            _ => None,
        };
        let bytes = number.parse::<f64>().ok().zip(unit).map(|(number, unit)| (number * unit).round());
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and far from the end"
        )]
        let bytes = bytes.filter(|bytes| *bytes < 1e18).map(|bytes| bytes as u64);
        bytes.map(Self).ok_or_else(|| "give bytes, with or without a unit, such as 20MB or 20MiB".to_owned())
    }
}

/// An image, and what its layers did.
struct Surveyed<'a> {
    /// As it was asked for.
    name: &'a str,
    image: &'a Image,
    survey: &'a Survey,
}

/// Paths that are listed for people.
const LISTED: usize = 20;

/// Shows it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut images = Images::new(&args.inside)?;
    let image = images.look(&args.image)?.image.clone();
    let layers = images.layers(&args.image)?;
    let mut trees = args.html.as_ref().map(|_| Trees::new(layers.len()));
    let survey = survey(&layers, &mut |seen| {
        if let Some(trees) = &mut trees {
            trees.add(&seen);
        }
    })?;
    let surveyed = Surveyed { name: &args.image, image: &image, survey: &survey };
    match (&args.html, trees) {
        (Some(path), Some(trees)) => {
            let page = page::html(&surveyed, &trees.finish());
            if path.as_os_str() == "-" {
                print([page.into_bytes()])?;
            } else {
                write_file(path, |out| Ok(out.write_all(page.as_bytes())?))?;
            }
        }
        _ if args.json => print([serde_json::to_vec_pretty(&surveyed.json())?])?,
        _ => print(surveyed.text(io::stdout().is_terminal()))?,
    }
    let crossed = args.crossed(&survey);
    if crossed.is_empty() { Ok(()) } else { bail!(crossed.join("; ")) }
}

impl Args {
    /// The limits that the image is beyond.
    fn crossed(&self, survey: &Survey) -> Vec<String> {
        let mut crossed = Vec::new();
        if let Some(Part(lowest)) = self.lowest_efficiency
            && survey.efficiency < lowest
        {
            let (found, lowest) = (percent(survey.efficiency), percent(lowest));
            crossed.push(format!("the efficiency is {found}, less than {lowest}"));
        }
        if let Some(Bytes(highest)) = self.highest_wasted_bytes
            && survey.wasted > highest
        {
            crossed.push(format!("{} bytes are wasted, more than {highest}", survey.wasted));
        }
        if let Some(Part(highest)) = self.highest_user_wasted_percent
            && survey.user_wasted() > highest
        {
            let (found, highest) = (percent(survey.user_wasted()), percent(highest));
            crossed.push(format!("{found} of the bytes above the bottom layer are wasted, more than {highest}"));
        }
        crossed
    }
}

/// A part in hundredths.
fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

impl Surveyed<'_> {
    /// Each layer with its diffID and its instruction.
    fn layers(&self) -> impl Iterator<Item = (&LayerSurvey, String, &str)> {
        let diff_ids = self.image.diff_ids().iter().map(ToString::to_string);
        let layers = self.survey.layers.iter().zip(diff_ids).zip(self.image.instructions());
        layers.map(|((layer, diff_id), instruction)| (layer, diff_id, instruction))
    }

    fn json(&self) -> Value {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let survey = self.survey;
        let layers: Vec<Value> = (1..)
            .zip(self.layers())
            .map(|(number, (layer, diff_id, instruction))| {
                json!({
                    "layer": number,
                    "diffId": diff_id,
                    "instruction": instruction,
                    "sizeBytes": layer.bytes,
                    "entries": layer.entries,
                    "addedBytes": layer.added,
                    "changedBytes": layer.changed,
                    "removedBytes": layer.removed,
                })
            })
            .collect();
        let waste = survey.waste.iter().filter(|waste| waste.bytes > 0);
        let waste: Vec<Value> = waste
            .map(|waste| json!({ "path": text(&waste.path), "count": waste.count, "sizeBytes": waste.bytes }))
            .collect();
        json!({
            "image": {
                "name": self.name,
                "digest": self.image.descriptor.digest,
                "sizeBytes": survey.bytes(),
                "wastedBytes": survey.wasted,
                "userWastedPercent": survey.user_wasted(),
                "efficiencyScore": survey.efficiency,
                "wasted": waste,
            },
            "layers": layers,
        })
    }

    fn text(&self, terminal: bool) -> Vec<Vec<u8>> {
        let head = ["LAYER", "SIZE", "ENTRIES", "ADDED", "CHANGED", "REMOVED", "INSTRUCTION"].map(str::to_owned);
        let mut rows = vec![head.to_vec()];
        for (number, (layer, _, instruction)) in (1..).zip(self.layers()) {
            let sizes = [layer.added, layer.changed, layer.removed].map(size);
            let mut row = vec![format!("{number}"), size(layer.bytes), layer.entries.to_string()];
            row.extend(sizes);
            row.push(instruction.replace(char::is_control, " "));
            rows.push(row);
        }
        let survey = self.survey;
        let mut lines = columns(&rows);
        lines.push(Vec::new());
        lines.push(format!("efficiency {}", percent(survey.efficiency)).into_bytes());
        let wasted = format!(
            "wasted {}, {} of what lies above the bottom layer",
            size(survey.wasted),
            percent(survey.user_wasted())
        );
        lines.push(wasted.into_bytes());
        let waste: Vec<_> = survey.waste.iter().filter(|waste| waste.bytes > 0).collect();
        if waste.is_empty() {
            return lines;
        }
        let mut rows = vec![["WASTED", "TIMES", "PATH"].map(str::to_owned).to_vec()];
        rows.extend(waste.iter().take(LISTED).map(|waste| {
            // Columns are text: a name that is none is shown as far as it is.
            let path = String::from_utf8_lossy(&shown(&waste.path, terminal)).into_owned();
            vec![size(waste.bytes), waste.count.to_string(), path]
        }));
        lines.push(Vec::new());
        lines.extend(columns(&rows));
        if waste.len() > LISTED {
            lines.push(format!("and {} more: --json has all of them", waste.len() - LISTED).into_bytes());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_parts_and_bytes() {
        assert_eq!("0.95".parse(), Ok(Part(0.95)));
        assert_eq!("95%".parse(), Ok(Part(0.95)));
        assert_eq!("20MB".parse(), Ok(Bytes(20_000_000)));
        assert_eq!("3 KiB".parse(), Ok(Bytes(3072)));
        assert_eq!("7".parse(), Ok(Bytes(7)));
        assert_eq!("1.1MB".parse(), Ok(Bytes(1_100_000)));
        for wrong in ["", "x", "-1", "1.5", "NaN", "101%"] {
            assert!(wrong.parse::<Part>().is_err(), "{wrong}");
        }
        for wrong in ["", "MB", "-1", "1.5.2MB", ".", "1 XB", "99999999999999999999"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
        }
    }
}
