//! `lamel diff`

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use lamel_unionfs::diff::{Change, diff};
use rustix::io::Errno;
use serde::Serialize;

use crate::output::{OUTSIDE_ONLY, ask, is_foreign, print};

/// List what an upper layer adds (A), changes (C) and deletes (D)
///
/// The time it takes is that of the upper's size, whatever lies below. With a mountpoint or with
/// --lower, what is a change and what is new is looked up in the lower layers; without them the
/// upper's own marks tell.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("subject").required(true).multiple(false))]
pub(crate) struct Args {
    /// A mount of lamel
    #[arg(group = "subject")]
    mountpoint: Option<PathBuf>,
    /// The upper layer itself, mounted or not
    #[arg(long, value_name = "DIR", group = "subject")]
    upper: Option<PathBuf>,
    /// A lower layer; the first one given is the top
    #[arg(long, value_name = "DIR", requires = "upper")]
    lower: Vec<PathBuf>,
    /// One JSON array of objects with `kind` and `path`
    #[arg(long)]
    json: bool,
}

/// The virtual xattr that holds a mount's layers.
const QUESTION: &str = "system.lamel.layers";

#[derive(Debug, Serialize)]
struct Line {
    kind: String,
    path: String,
}

/// Prints the difference.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (upper, lowers) = match (&args.mountpoint, &args.upper) {
        (Some(mountpoint), _) => layers_of(mountpoint)?,
        (None, Some(upper)) => (upper.clone(), args.lower.clone()),
        (None, None) => bail!("give a mountpoint or --upper"),
    };
    let changes = diff(&upper, &lowers)?;
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
    if upper.starts_with(&place) {
        bail!("{shown} covers its own upper layer {}; unmount it and use --upper", upper.display());
    }
    Ok((upper, lowers))
}

fn parse(answer: &[u8]) -> (Option<PathBuf>, Vec<PathBuf>) {
    let (mut upper, mut lowers) = (None, Vec::new());
    for line in answer.split(|byte| *byte == b'\n') {
        let mut fields = line.splitn(2, |byte| *byte == b'\t');
        let (role, path) = (fields.next(), fields.next());
        let path = path.map(|path| PathBuf::from(OsString::from_vec(path.to_vec())));
        match role {
            Some(b"upper") => upper = path,
            Some(b"lower") => lowers.extend(path),
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
        let (upper, lowers) = parse(b"upper\t/u\nwork\t/w\nlower\t/a\tb\nlower\t/c\n");
        assert_eq!(upper, Some("/u".into()));
        assert_eq!(lowers, ["/a\tb", "/c"].map(PathBuf::from));
        assert_eq!(parse(b"lower\t/a\n").0, None);
    }
}
