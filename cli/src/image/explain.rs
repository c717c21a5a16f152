//! `lamel explain REF:PATH`

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _};

use anyhow::{Result, bail};
use lamel_image::blame::{Say, Saying, blame};
use lamel_image::view::{View, ViewError};
use rustix::fs::FileType;
use serde_json::{Value, json};

use super::inside::{Images, Inside, InsideArgs, shown};
use crate::output::human::columns;
use crate::output::print;

/// Explains.
pub(crate) fn run(args: &InsideArgs, text: &OsStr, as_json: bool) -> Result<()> {
    let inside = Inside::parse(text)?;
    let mut images = Images::new(args)?;
    let looked = images.look(&inside.image)?;
    let path = canonical(&looked.view, &inside.path)?;
    let image = looked.image.clone();
    let instructions = image.instructions();
    let layers = images.layers(&inside.image)?;
    let said = blame(&layers, &path)?;
    if said.is_empty() {
        bail!("{}: no layer of the image has it", text.display());
    }
    let facts = said.iter().map(|say| {
        let instruction = instructions.get(say.layer).copied().unwrap_or_default();
        let diff_id = image.diff_ids().get(say.layer).map(ToString::to_string).unwrap_or_default();
        (say, diff_id, instruction)
    });
    if as_json {
        let facts: Vec<Value> = facts
            .map(|(say, diff_id, instruction)| {
                json!({
                    "layer": say.layer + 1,
                    "diffId": diff_id,
                    "instruction": instruction,
                    "says": what(say, &path),
                    "visible": say.visible,
                })
            })
            .collect();
        let value = json!({ "path": String::from_utf8_lossy(&path), "layers": facts });
        return print([serde_json::to_vec_pretty(&value)?]);
    }
    let rows: Vec<Vec<String>> = facts
        .map(|(say, diff_id, instruction)| {
            let state = if say.visible { "shown" } else { "hidden" };
            let short = diff_id.get(..19).unwrap_or_default().to_owned();
            let number = format!("layer {}", say.layer + 1);
            let instruction = instruction.replace(char::is_control, " ");
            vec![format!("  {state}"), number, short, what(say, &path), instruction]
        })
        .collect();
    let mut lines = vec![shown(&path, io::stdout().is_terminal())];
    lines.extend(columns(&rows));
    print(lines)
}

/// What a layer says, for people.
fn what(say: &Say, path: &[u8]) -> String {
    match say.saying {
        Saying::Deletes => "deletes what is below".to_owned(),
        Saying::Hides(len) => {
            let above = String::from_utf8_lossy(path.get(..len).unwrap_or_default()).into_owned();
            format!("hides what is below, at {}", above.replace(char::is_control, "?"))
        }
        Saying::Has { mode, size } => {
            let kind = match FileType::from_raw_mode(mode) {
                FileType::Directory => return format!("directory, mode {:04o}", mode & 0o7777),
                FileType::Symlink => "symlink",
                FileType::RegularFile => return format!("file of {size} bytes, mode {:04o}", mode & 0o7777),
                FileType::Fifo => "fifo",
                _ => "device",
            };
            kind.to_owned()
        }
    }
}

/// The path without symlinks on the way, as far as there is one; what is gone from the image keeps its names.
fn canonical(view: &View, path: &[u8]) -> Result<Vec<u8>> {
    let mut base = path.to_vec();
    while base.len() > 1 && base.ends_with(b"/") {
        base.pop();
    }
    let mut rest: Vec<u8> = Vec::new();
    loop {
        match view.resolve(&base, !rest.is_empty()) {
            Ok(object) => {
                let mut whole = if object.path == b"/" && !rest.is_empty() { Vec::new() } else { object.path };
                whole.extend_from_slice(&rest);
                return Ok(whole);
            }
            Err(ViewError::NotFound(_) | ViewError::NotDirectory(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let slash = base.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let name = base.split_off(slash);
        rest.splice(0..0, name);
        if base.is_empty() {
            base.push(b'/');
        }
    }
}
