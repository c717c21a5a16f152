//! `lamel ls`

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};

use anyhow::{Result, bail};
use lamel_image::view::{Object, View};
use serde_json::Value;

use super::inside::{Images, Inside, InsideArgs, device, json, letter, mode, shown, time};
use crate::launch::told;
use crate::output::print;

/// List what is in an image, without a mount
///
/// Times are UTC.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    inside: InsideArgs,
    /// Mode, links, owner, group, size or device numbers, time and a symlink's target too
    #[arg(short)]
    long: bool,
    /// Names that begin with a dot too
    #[arg(short, long)]
    all: bool,
    /// What is in the directories in it too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Directories themselves, not what is in them
    #[arg(short, long)]
    directory: bool,
    /// A name a line, which is how they are always listed
    #[arg(short = '1')]
    _one: bool,
    /// One JSON array of objects
    #[arg(long, conflicts_with = "long")]
    json: bool,
    /// An image and a path in it; the image alone is its root directory
    #[arg(required = true, value_name = "REF[:PATH]")]
    places: Vec<OsString>,
}

/// Lists.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut images = Images::new(&args.inside)?;
    let mut listing = Listing { args, terminal: io::stdout().is_terminal(), lines: Vec::new(), values: Vec::new() };
    let mut failed = Vec::new();
    let mut found = Vec::new();
    for text in &args.places {
        let inside = Inside::parse(text)?;
        // As ls(1): a link that is named is followed unless it would be shown.
        let object =
            images.view(&inside.image).and_then(|view| Ok(view.resolve(&inside.path, !args.long && !args.directory)?));
        match object {
            Ok(object) => found.push((inside, object)),
            Err(error) => failed.push(told(&error)),
        }
    }
    let is_listed = |object: &Object| object.attr.is_dir() && !args.directory;
    let several = args.recursive || args.places.len() > 1;
    for (inside, object) in found.iter().filter(|(_, object)| !is_listed(object)) {
        let view = images.view(&inside.image)?;
        listing.rows(view, &[(inside.path.clone(), object.clone())])?;
    }
    for (inside, object) in found.into_iter().filter(|(_, object)| is_listed(object)) {
        listing.directory(images.view(&inside.image)?, object, several)?;
    }
    if args.json {
        print([serde_json::to_vec_pretty(&listing.values)?])?;
    } else {
        print(listing.lines)?;
    }
    if failed.is_empty() { Ok(()) } else { bail!(failed.join("; ")) }
}

struct Listing<'a> {
    args: &'a Args,
    terminal: bool,
    lines: Vec<Vec<u8>>,
    values: Vec<Value>,
}

impl Listing<'_> {
    /// A directory, and those in it if they are asked for.
    fn directory(&mut self, view: &View, dir: Object, several: bool) -> Result<()> {
        let mut todo = vec![dir];
        while let Some(dir) = todo.pop() {
            if several {
                if !self.lines.is_empty() {
                    self.lines.push(Vec::new());
                }
                self.lines.push([shown(&dir.path, self.terminal).as_slice(), b":"].concat());
            }
            let mut children = view.children(&dir)?;
            children.retain(|child| self.args.all || !child.name().starts_with(b"."));
            let mut rows = Vec::new();
            if self.args.all && !self.args.json {
                let above = view.resolve(&[dir.path.as_slice(), b"/.."].concat(), true)?;
                rows.extend([(b".".to_vec(), dir.clone()), (b"..".to_vec(), above)]);
            }
            rows.extend(children.iter().map(|child| (child.name().to_vec(), child.clone())));
            self.rows(view, &rows)?;
            if self.args.recursive {
                todo.extend(children.into_iter().rev().filter(|child| child.attr.is_dir()));
            }
        }
        Ok(())
    }

    /// Objects under their names.
    fn rows(&mut self, view: &View, rows: &[(Vec<u8>, Object)]) -> Result<()> {
        if self.args.json {
            for (_, object) in rows {
                self.values.push(json(view, object)?);
            }
            return Ok(());
        }
        if !self.args.long {
            self.lines.extend(rows.iter().map(|(name, _)| shown(name, self.terminal)));
            return Ok(());
        }
        let mut cells = Vec::with_capacity(rows.len());
        for (_, object) in rows {
            cells.push(columns(view, object)?);
        }
        let width = |column: usize| cells.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..6).map(width).collect();
        for ((name, object), cells) in rows.iter().zip(&cells) {
            let mut line = Vec::new();
            for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                // The mode's mark of an ACL stands at its end.
                let padded = if column == 0 { format!("{cell:<width$} ") } else { format!("{cell:>width$} ") };
                line.extend_from_slice(padded.as_bytes());
            }
            line.extend_from_slice(&shown(name, self.terminal));
            if letter(object) == 'l' {
                line.extend_from_slice(b" -> ");
                line.extend_from_slice(&shown(view.target(object)?, self.terminal));
            }
            self.lines.push(line);
        }
        Ok(())
    }
}

fn columns(view: &View, object: &Object) -> Result<[String; 6]> {
    let attr = &object.attr;
    let has_acl = view.xattrs(object)?.iter().any(|(name, _)| name.starts_with(b"system.posix_acl_"));
    Ok([
        mode(object) + if has_acl { "+" } else { "" },
        attr.nlink.to_string(),
        attr.uid.to_string(),
        attr.gid.to_string(),
        device(object).map_or_else(|| attr.size.to_string(), |(major, minor)| format!("{major}, {minor}")),
        time(attr.mtime, "%Y-%m-%d %H:%M"),
    ])
}
