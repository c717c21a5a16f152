//! `REF:PATH`, and how objects inside an image are shown.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use lamel_image::platform::Platform;
use lamel_image::store::{Image, Opened, Store};
use lamel_image::view::{Object, View};
use rustix::fs::FileType;
use serde_json::{Value, json};

use super::{StoreArgs, find};

/// Which store and which of an image's platforms are meant.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InsideArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Of an image for several platforms, the one for this [default: this host's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(super) platform: Option<Platform>,
}

/// An image and a path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) image: String,
    /// Begins with `/`.
    pub(super) path: Vec<u8>,
}

impl Inside {
    /// Takes `REF:/PATH` apart; `REF` alone is its root. No name of an image has `:/` in it.
    pub(super) fn parse(text: &OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        let colon = bytes.windows(2).position(|pair| pair == b":/");
        let (image, path) = bytes.split_at(colon.unwrap_or(bytes.len()));
        let image = std::str::from_utf8(image).ok().filter(|image| !image.is_empty());
        let image = image.with_context(|| format!("{} is not REF:/PATH", text.display()))?.to_owned();
        let path = path.strip_prefix(b":").unwrap_or(b"/").to_vec();
        Ok(Self { image, path })
    }
}

/// Whether a word is a path of this host and no `REF:PATH`, as `docker cp` tells them apart.
pub(crate) fn is_path(text: &OsStr) -> bool {
    let first = text.as_bytes().first();
    matches!(first, None | Some(b'/' | b'.')) || Path::new(text).symlink_metadata().is_ok()
}

/// An image's files, open.
pub(super) struct Looked {
    pub(super) view: View,
    pub(super) image: Image,
    /// Says that the image is in use.
    _opened: Opened,
}

/// The images that a command line names, each opened once.
pub(super) struct Images<'a> {
    args: &'a InsideArgs,
    store: Store,
    opened: HashMap<String, Looked>,
}

impl<'a> Images<'a> {
    pub(super) fn new(args: &'a InsideArgs) -> Result<Self> {
        Ok(Self { args, store: args.store.open()?, opened: HashMap::new() })
    }

    /// The files of an image.
    pub(super) fn view(&mut self, image: &str) -> Result<&View> {
        Ok(&self.look(image)?.view)
    }

    /// An image, opened.
    pub(super) fn look(&mut self, image: &str) -> Result<&Looked> {
        if !self.opened.contains_key(image) {
            let (_, found) = find(&self.store, image, self.args.platform.as_ref())?;
            let opened = self.store.open_image(&found)?;
            let looked = Looked { view: View::new(opened.layer.clone()), image: found, _opened: opened };
            self.opened.insert(image.to_owned(), looked);
        }
        self.opened.get(image).with_context(|| image.to_owned())
    }

    /// Each of an image's layers by itself, the bottom one first.
    pub(super) fn layers(&mut self, image: &str) -> Result<Vec<View>> {
        let image = self.look(image)?.image.clone();
        Ok(self.store.open_layers(&image)?.into_iter().map(View::new).collect())
    }
}

/// Does something with each `REF:PATH`, goes on after those that fail, and fails at the end for all of them.
pub(super) fn for_each(
    args: &InsideArgs,
    places: &[OsString],
    mut each: impl FnMut(&View, &Inside) -> Result<()>,
) -> Result<()> {
    let mut images = Images::new(args)?;
    let mut failed = Vec::new();
    for text in places {
        let inside = Inside::parse(text)?;
        let done = images.view(&inside.image).and_then(|view| each(view, &inside));
        match done {
            Err(error) if is_closed(&error) => return Ok(()),
            Err(error) => failed.push(crate::launch::told(&error)),
            Ok(()) => {}
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!(failed.join("; ")) }
}

/// Whether whoever reads the output has seen enough.
pub(super) fn is_closed(error: &anyhow::Error) -> bool {
    let closed = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(closed))
}

/// Bytes of an image as standard output may have them: a terminal is shown no control characters.
pub(super) fn shown(bytes: &[u8], terminal: bool) -> Vec<u8> {
    if terminal { String::from_utf8_lossy(bytes).replace(char::is_control, "?").into_bytes() } else { bytes.to_vec() }
}

/// The letter of a type, as ls(1) and find(1) have it: a regular file's differs between them.
pub(super) fn letter(object: &Object) -> char {
    match FileType::from_raw_mode(object.attr.mode) {
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        _ => '-',
    }
}

/// What stat(1) calls a type.
pub(super) fn kind(object: &Object) -> &'static str {
    match letter(object) {
        'd' => "directory",
        'l' => "symbolic link",
        'c' => "character special file",
        'b' => "block special file",
        'p' => "fifo",
        's' => "socket",
        _ if object.attr.size == 0 => "regular empty file",
        _ => "regular file",
    }
}

/// Type and permissions, as ls(1) writes them.
pub(super) fn mode(object: &Object) -> String {
    let mode = object.attr.mode;
    let mut text = String::from(letter(object));
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Major and minor number of a device node.
pub(super) fn device(object: &Object) -> Option<(u32, u32)> {
    let rdev = object.attr.rdev;
    matches!(letter(object), 'b' | 'c').then(|| (rustix::fs::major(rdev), rustix::fs::minor(rdev)))
}

/// A time in UTC, as images are the same everywhere, by a format of strftime(3); seconds since the epoch if no calendar has it.
pub(super) fn time((seconds, nanos): (i64, u32), format: &str) -> String {
    let time = Timestamp::new(seconds, i32::try_from(nanos).unwrap_or_default());
    match time {
        Ok(time) => time.strftime(format).to_string(),
        Err(_) => format!("@{seconds}"),
    }
}

/// Everything about an object.
pub(super) fn json(view: &View, object: &Object) -> Result<Value> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let attr = &object.attr;
    let mut value = json!({
        "path": text(&object.path),
        "type": kind(object),
        "mode": format!("{:04o}", attr.mode & 0o7777),
        "uid": attr.uid,
        "gid": attr.gid,
        "links": attr.nlink,
        "size": attr.size,
        "blocks": attr.blocks,
        "mtime": Timestamp::new(attr.mtime.0, i32::try_from(attr.mtime.1).unwrap_or_default()).ok().map(|time| time.to_string()),
        "xattrs": view.xattrs(object)?.iter().map(|(name, _)| text(name)).collect::<Vec<_>>(),
    });
    if object.is(FileType::Symlink.as_raw_mode()) {
        value["target"] = text(view.target(object)?).into();
    }
    if let Some((major, minor)) = device(object) {
        value["device"] = json!([major, minor]);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_told_apart() {
        let parse = |text: &str| {
            let inside = Inside::parse(OsStr::new(text)).unwrap();
            (inside.image, String::from_utf8(inside.path).unwrap())
        };
        let pair = |image: &str, path: &str| (image.to_owned(), path.to_owned());
        assert_eq!(parse("debian:12:/etc/a:/b"), pair("debian:12", "/etc/a:/b"));
        assert_eq!(parse("localhost:5000/x:/"), pair("localhost:5000/x", "/"));
        assert_eq!(parse("debian:12"), pair("debian:12", "/"));
        assert!(Inside::parse(OsStr::new(":/etc")).is_err());
        assert!(is_path(OsStr::new("/x:/y")) && is_path(OsStr::new("./a")) && is_path(OsStr::new("Cargo.toml")));
        assert!(!is_path(OsStr::new("debian:12:/etc")));
    }

    #[test]
    fn times_are_utc_and_may_lie_beyond_the_calendar() {
        assert_eq!(time((i64::MAX, 0), "%Y"), format!("@{}", i64::MAX));
        assert_eq!(time((86_400 * 200, 5), "%Y-%N"), "1970-000000005");
    }
}
