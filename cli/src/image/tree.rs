//! `lamel tree`

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};

use anyhow::Result;
use lamel_image::view::{Object, View};

use super::inside::{InsideArgs, for_each, letter, shown};
use crate::output::print;

/// Show directories of an image as a tree, without a mount
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    inside: InsideArgs,
    /// Go no deeper than this many directories
    #[arg(short = 'L', value_name = "LEVELS", value_parser = clap::value_parser!(u32).range(1..))]
    levels: Option<u32>,
    /// Names that begin with a dot too
    #[arg(short)]
    all: bool,
    /// Directories alone
    #[arg(short)]
    directories: bool,
    /// An image and a directory in it; the image alone is its root directory
    #[arg(required = true, value_name = "REF[:PATH]")]
    places: Vec<OsString>,
}

/// Shows them.
pub(crate) fn run(args: &Args) -> Result<()> {
    let terminal = io::stdout().is_terminal();
    for_each(&args.inside, &args.places, |view, inside| {
        let root = view.resolve(&inside.path, true)?;
        print(lines(view, root, args, terminal)?)
    })
}

/// What is still to be drawn: an object, what stands before it, whether it is its directory's last, and its depth.
struct Branch {
    object: Object,
    before: String,
    last: bool,
    depth: u32,
}

fn lines(view: &View, root: Object, args: &Args, terminal: bool) -> Result<Vec<Vec<u8>>> {
    let mut lines = vec![shown(&root.path, terminal)];
    // The directory itself counts, as with tree(1).
    let (mut directories, mut files) = (1_u64, 0_u64);
    let mut todo = branches(view, &root, args, "", 1)?;
    while let Some(Branch { object, before, last, depth }) = todo.pop() {
        let mut line = format!("{before}{}", if last { "└── " } else { "├── " }).into_bytes();
        line.extend_from_slice(&shown(object.name(), terminal));
        if letter(&object) == 'l' {
            line.extend_from_slice(b" -> ");
            line.extend_from_slice(&shown(view.target(&object)?, terminal));
        }
        lines.push(line);
        if !object.attr.is_dir() {
            files += 1;
            continue;
        }
        directories += 1;
        if args.levels.is_none_or(|levels| depth < levels) {
            let before = format!("{before}{}", if last { "    " } else { "│   " });
            todo.append(&mut branches(view, &object, args, &before, depth + 1)?);
        }
    }
    let plural = |count: u64, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let mut counted = plural(directories, "directory", "directories");
    if !args.directories {
        counted = format!("{counted}, {}", plural(files, "file", "files"));
    }
    lines.extend([Vec::new(), counted.into_bytes()]);
    Ok(lines)
}

/// What is in a directory, the last first.
fn branches(view: &View, dir: &Object, args: &Args, before: &str, depth: u32) -> Result<Vec<Branch>> {
    let mut children = view.children(dir)?;
    children.retain(|child| args.all || !child.name().starts_with(b"."));
    children.retain(|child| !args.directories || child.attr.is_dir());
    let branch = |(at, object)| Branch { object, before: before.to_owned(), last: at == 0, depth };
    Ok(children.into_iter().rev().enumerate().map(branch).collect())
}
