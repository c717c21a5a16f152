//! `lamel stat`

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};

use anyhow::{Result, bail};
use lamel_image::view::{Object, View};

use super::inside::{InsideArgs, device, for_each, json, kind, letter, mode, shown, time};
use crate::output::print;

/// Show everything about objects of an image, without a mount
///
/// Times are UTC.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    inside: InsideArgs,
    /// Follow a symlink that is named
    #[arg(short = 'L', long)]
    dereference: bool,
    /// As stat(1) has it: %n %N name, %a %A permissions, %f mode, %F type, %u %g owner, %s size, %b blocks,
    /// %h links, %i number, %t %T device, %Y %y time
    #[arg(short = 'c', long, value_name = "FORMAT")]
    format: Option<String>,
    /// A JSON object a line
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// An image and a path in it
    #[arg(required = true, value_name = "REF:PATH")]
    places: Vec<OsString>,
}

/// The time as stat(1) shows it.
const TIME: &str = "%Y-%m-%d %H:%M:%S.%N %z";

/// Shows it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let terminal = io::stdout().is_terminal();
    for_each(&args.inside, &args.places, |view, inside| {
        let object = view.resolve(&inside.path, args.dereference)?;
        if args.json {
            return print([json(view, &object)?.to_string().into_bytes()]);
        }
        match &args.format {
            Some(format) => print([filled_in(format, view, &object, &inside.path, terminal)?]),
            None => print(described(view, &object, &inside.path, terminal)?),
        }
    })
}

/// A name, and where it leads.
fn named(view: &View, object: &Object, path: &[u8], terminal: bool) -> Result<Vec<u8>> {
    let mut name = shown(path, terminal);
    if letter(object) == 'l' {
        name.extend_from_slice(b" -> ");
        name.extend_from_slice(&shown(view.target(object)?, terminal));
    }
    Ok(name)
}

fn described(view: &View, object: &Object, path: &[u8], terminal: bool) -> Result<Vec<Vec<u8>>> {
    let attr = &object.attr;
    let mut name = b"  File: ".to_vec();
    name.extend_from_slice(&named(view, object, path, terminal)?);
    let device = device(object).map(|(major, minor)| format!("     Device type: {major},{minor}")).unwrap_or_default();
    let mut lines = vec![
        name,
        format!("  Size: {:<10}\tBlocks: {:<10} {}", attr.size, attr.blocks, kind(object)).into_bytes(),
        format!(" Inode: {:<10}\tLinks: {:<5}{device}", attr.ino, attr.nlink).into_bytes(),
        format!("Access: ({:04o}/{})  Uid: {:>5}   Gid: {:>5}", attr.mode & 0o7777, mode(object), attr.uid, attr.gid)
            .into_bytes(),
        format!("Modify: {}", time(attr.mtime, TIME)).into_bytes(),
    ];
    for (name, value) in view.xattrs(object)? {
        let mut line = b" Xattr: ".to_vec();
        line.extend_from_slice(&shown(name, terminal));
        line.push(b'=');
        // Text as it is; anything else in hexadecimal.
        match std::str::from_utf8(value).ok().filter(|text| !text.contains(char::is_control)) {
            Some(text) => line.extend_from_slice(format!("\"{text}\"").as_bytes()),
            None => {
                line.extend_from_slice(b"0x");
                line.extend(value.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
            }
        }
        lines.push(line);
    }
    Ok(lines)
}

fn filled_in(format: &str, view: &View, object: &Object, path: &[u8], terminal: bool) -> Result<Vec<u8>> {
    let attr = &object.attr;
    let (major, minor) = device(object).unwrap_or_default();
    let mut line = Vec::new();
    let mut letters = format.chars();
    while let Some(next) = letters.next() {
        if next != '%' {
            line.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let value = match letters.next() {
            Some('n') => shown(path, terminal),
            Some('N') => named(view, object, path, terminal)?,
            Some('a') => format!("{:o}", attr.mode & 0o7777).into_bytes(),
            Some('A') => mode(object).into_bytes(),
            Some('f') => format!("{:x}", attr.mode).into_bytes(),
            Some('F') => kind(object).into(),
            Some('u') => attr.uid.to_string().into_bytes(),
            Some('g') => attr.gid.to_string().into_bytes(),
            Some('s') => attr.size.to_string().into_bytes(),
            Some('b') => attr.blocks.to_string().into_bytes(),
            Some('h') => attr.nlink.to_string().into_bytes(),
            Some('i') => attr.ino.to_string().into_bytes(),
            Some('t') => format!("{major:x}").into_bytes(),
            Some('T') => format!("{minor:x}").into_bytes(),
            Some('Y') => attr.mtime.0.to_string().into_bytes(),
            Some('y') => time(attr.mtime, TIME).into_bytes(),
            Some('%') => b"%".to_vec(),
            Some(other) => bail!("%{other} is not known; see lamel stat --help"),
            None => bail!("the format ends with %"),
        };
        line.extend_from_slice(&value);
    }
    Ok(line)
}
