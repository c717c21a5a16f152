//! `lamel export`

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use lamel_image::archive::{export, export_dir};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::inside::{Images, InsideArgs, shown};
use super::is_path;
use crate::container;
use crate::launch::warn;
use crate::output::{ask, is_foreign, write_archive};

/// Write the files of a container, of an image or of a mount as one tar
///
/// Owners, modes, times, extended attributes, device nodes, hard links and holes are in it as they
/// are; the same tree gives the same bytes. Of a mount the changes are in it too, and what is
/// mounted below it is not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    inside: InsideArgs,
    /// Where to; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// A container, an image, or a mount of lamel; what exists, and what begins with `/` or `.`, is a path
    #[arg(value_name = "CONTAINER|REF|MOUNT")]
    source: OsString,
}

/// The virtual xattr that tells a mount of lamel from others.
const QUESTION: &str = "system.lamel.pid";

/// Exports.
pub(crate) fn run(args: &Args) -> Result<()> {
    if is_path(&args.source) {
        return export_mount(Path::new(&args.source), &args.output);
    }
    let name = args.source.to_str().with_context(|| format!("{} is no name of an image", args.source.display()))?;
    let mut images = Images::new(&args.inside)?;
    if let Some(record) = container::export::find(&args.inside.store, name)? {
        // The first digits of a container's id may be an image's name.
        let named = [record.settings.name.as_str(), record.id()].contains(&name);
        if named || images.look(name).is_err() {
            return container::export::export(&args.inside.store, &record, &args.output);
        }
    }
    let view = images.view(name)?;
    write_archive(&args.output, |out| Ok(export(view, out)?))
}

fn export_mount(path: &Path, output: &Path) -> Result<()> {
    let name = path.display();
    // A mountpoint may be given through a link.
    let place = path.canonicalize().with_context(|| name.to_string())?;
    match ask(&place, QUESTION) {
        Ok(_) | Err(Errno::PERM) => {}
        Err(errno) if is_foreign(errno) => bail!("{name} is neither an image nor a mount of lamel"),
        Err(errno) => return Err(errno).with_context(|| name.to_string()),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&place, flags, Mode::empty()).with_context(|| name.to_string())?;
    let mut sockets = Vec::new();
    write_archive(output, |out| {
        sockets = export_dir(dir, out)?;
        Ok(())
    })?;
    for socket in sockets {
        let socket = String::from_utf8_lossy(&shown(&socket, true)).into_owned();
        warn(&format!("{socket}: left out, a tar holds no sockets"));
    }
    Ok(())
}
