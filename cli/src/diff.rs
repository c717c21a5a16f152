//! `lamel diff`

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use lamel_image::Store;
use lamel_unionfs::diff::{Change, diff, diff_over};
use lamel_unionfs::layer::Layer;
use rustix::io::Errno;
use serde::Serialize;

use crate::container;
use crate::image::{self, InsideArgs};
use crate::output::{OUTSIDE_ONLY, ask, is_foreign, print};

/// List what a container, an upper layer, or a second image, adds (A), changes (C) and deletes (D)
///
/// The time it takes is that of the upper's size, whatever lies below. With a mountpoint or with
/// --lower, what is a change and what is new is looked up in the lower layers; without them the
/// upper's own marks tell.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("subject").required(true).multiple(false))]
pub(crate) struct Args {
    /// A mount of lamel, a container, or an image that is compared with the next one; what exists, and what begins
    /// with `/` or `.`, is a mount
    #[arg(group = "subject", value_name = "MOUNTPOINT|CONTAINER|REF")]
    mountpoint: Option<PathBuf>,
    /// An image: what differs on the way to it is listed
    #[arg(value_name = "REF", requires = "mountpoint")]
    other: Option<String>,
    #[command(flatten)]
    inside: InsideArgs,
    /// The upper layer itself, mounted or not
    #[arg(long, value_name = "DIR", group = "subject")]
    upper: Option<PathBuf>,
    /// A lower layer; the first one given is the top
    #[arg(long, value_name = "DIR", requires = "upper", conflicts_with = "mountpoint")]
    lower: Vec<PathBuf>,
    /// One JSON array of objects with `kind` and `path`
    #[arg(long)]
    json: bool,
}

/// The virtual xattr that holds a mount's layers.
const QUESTION: &str = "system.lamel.layers";
/// The one that holds the daemon's process id.
const PID_QUESTION: &str = "system.lamel.pid";

#[derive(Debug, Serialize)]
struct Line {
    kind: String,
    path: String,
}

/// Prints the difference.
pub(crate) fn run(args: &Args) -> Result<()> {
    let changes = match (&args.mountpoint, &args.other) {
        (Some(one), Some(other)) => image::diff::run(&args.inside, one, other)?,
        (Some(one), None) if !image::is_path(one.as_os_str()) => {
            let name = one.to_str().with_context(|| format!("{} is no name of a container", one.display()))?;
            let Some(record) = container::export::find(&args.inside.store, name)? else {
                bail!("{name} is neither a container nor a mount");
            };
            return container::diff::run(&args.inside.store, &record, |changes| show(args, changes));
        }
        _ => of_layers(args)?,
    };
    show(args, &changes)
}

fn show(args: &Args, changes: &[Change]) -> Result<()> {
    if args.json {
        let line =
            |change: &Change| Line { kind: change.kind.to_string(), path: change.path.to_string_lossy().into_owned() };
        let lines: Vec<Line> = changes.iter().map(line).collect();
        return print([serde_json::to_vec_pretty(&lines)?]);
    }
    print(changes.iter().map(|change| {
        let mut line = format!("{} ", change.kind).into_bytes();
        line.extend_from_slice(change.path.as_os_str().as_bytes());
        line
    }))
}

/// What an upper changes.
fn of_layers(args: &Args) -> Result<Vec<Change>> {
    let (upper, mut lowers) = match (&args.mountpoint, &args.upper) {
        (Some(mountpoint), _) => layers_of(mountpoint)?,
        (None, Some(upper)) => (upper.clone(), args.lower.clone()),
        (None, None) => bail!("give a mountpoint or --upper"),
    };
    // An image lies below all directories.
    let Some(source) = lowers.pop_if(|lower| args.mountpoint.is_some() && !lower.is_dir()) else {
        return Ok(diff(&upper, &lowers)?);
    };
    let missing = || format!("the image of {} is no longer in its store", source.display());
    let root = source.ancestors().nth(3).with_context(missing)?;
    let store = Store::open(root, &[])?;
    let image = store.image_of_source(&source)?.with_context(missing)?;
    let opened = store.open_image(&image)?;
    let below: [Arc<dyn Layer>; 1] = [opened.layer.clone()];
    Ok(diff_over(&upper, &lowers, &below)?)
}

/// The layers of a mount, as its daemon names them.
fn layers_of(mountpoint: &Path) -> Result<(PathBuf, Vec<PathBuf>)> {
    // A mountpoint may be given through a link.
    let place = mountpoint.canonicalize().with_context(|| mountpoint.display().to_string())?;
    let shown = mountpoint.display();
    let answer = match ask(&place, QUESTION) {
        Ok(answer) => answer,
        Err(errno) if is_foreign(errno) => {
            bail!("{shown} is no mount of lamel; for a layer use --upper")
        }
        Err(Errno::PERM) => bail!("{shown}: {OUTSIDE_ONLY}"),
        Err(errno) => return Err(errno).with_context(|| shown.to_string()),
    };
    let (upper, lowers) = parse(&answer);
    let Some(upper) = upper else { bail!("{shown} is mounted without an upper: nothing can differ") };
    let pid = || {
        let answer = ask(&place, PID_QUESTION).with_context(|| shown.to_string())?;
        String::from_utf8(answer).context("the daemon gave no process id")
    };
    let reachable = |layer: LayerPath| match layer.fd {
        // The path leads into the mount; the daemon has what is below.
        Some(fd) if layer.path.starts_with(&place) => Ok(format!("/proc/{}/fd/{fd}", pid()?).into()),
        _ => Ok(layer.path),
    };
    let lowers: Result<Vec<PathBuf>> = lowers.into_iter().map(reachable).collect();
    Ok((reachable(upper)?, lowers?))
}

/// A layer, as its daemon names it.
#[derive(Debug, PartialEq, Eq)]
struct LayerPath {
    path: PathBuf,
    /// The daemon's descriptor of it.
    fd: Option<u32>,
}

fn parse(answer: &[u8]) -> (Option<LayerPath>, Vec<LayerPath>) {
    let (mut upper, mut lowers) = (None, Vec::new());
    for line in answer.split(|byte| *byte == b'\n') {
        let mut fields = line.splitn(2, |byte| *byte == b'\t');
        let (Some(role), Some(value)) = (fields.next(), fields.next()) else { continue };
        let layer = || LayerPath { path: PathBuf::from(OsString::from_vec(value.to_vec())), fd: None };
        match role {
            b"upper" => upper = Some(layer()),
            b"lower" => lowers.push(layer()),
            b"fd" => {
                if let Some(layer) = lowers.last_mut().or(upper.as_mut()) {
                    layer.fd = std::str::from_utf8(value).ok().and_then(|number| number.parse().ok());
                }
            }
            _ => {}
        }
    }
    (upper, lowers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_names_its_layers() {
        let (upper, lowers) = parse(b"upper\t/u\nfd\t7\nwork\t/w\nlower\t/a\tb\nlower\t/c\nfd\t9\n");
        let layer = |path: &str, fd| LayerPath { path: path.into(), fd };
        assert_eq!(upper, Some(layer("/u", Some(7))));
        assert_eq!(lowers, [layer("/a\tb", None), layer("/c", Some(9))]);
        assert_eq!(parse(b"lower\t/a\n").0, None);
    }
}
