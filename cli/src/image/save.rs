//! `lamel save`

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use lamel_image::archive::{Format, save_archive, save_dir};
use lamel_image::manifest::Descriptor;
use lamel_image::reference::Reference;

use super::StoreArgs;

/// Save images into an archive or a directory
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Where to; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// What to write; an OCI archive is one that Docker loads too
    #[arg(long, value_enum, default_value = "oci-archive")]
    format: Kind,
    /// Names or ids of images
    #[arg(required = true, value_name = "REF")]
    images: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    OciArchive,
    DockerArchive,
    OciDir,
}

/// Saves.
pub(crate) fn run(args: &Args) -> Result<()> {
    let store = args.store.open()?;
    let mut images: Vec<(Descriptor, Vec<Reference>)> = Vec::new();
    for text in &args.images {
        let found = store.find(text)?;
        // An image that is asked for by its id is saved without a name.
        let by_name = found.name.clone().filter(|_| found.is_called(text));
        match images.iter_mut().find(|(known, _)| known.digest == found.descriptor.digest) {
            Some((_, names)) => names.extend(by_name),
            None => images.push((found.descriptor, by_name.into_iter().collect())),
        }
    }
    let format = match args.format {
        Kind::OciDir if args.output.as_os_str() == "-" => bail!("a directory needs a name: give one by -o"),
        Kind::OciDir => return Ok(save_dir(&store, &images, &args.output)?),
        Kind::OciArchive => Format::Oci,
        Kind::DockerArchive => Format::Docker,
    };
    if args.output.as_os_str() == "-" {
        let out = std::io::stdout();
        if out.is_terminal() {
            bail!("an archive is not written to a terminal: name a file by -o");
        }
        return Ok(save_archive(&store, &images, format, BufWriter::with_capacity(1 << 20, out.lock()))?);
    }
    save_file(&args.output, |out| Ok(save_archive(&store, &images, format, out)?))
}

/// Writes a file beside its place, and gives it its name when it is whole.
fn save_file(path: &PathBuf, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let shown = path.display();
    // A device or a pipe is written as it is.
    if path.exists() && !path.is_file() {
        let file = File::options().write(true).open(path).with_context(|| shown.to_string())?;
        return write(&mut BufWriter::with_capacity(1 << 20, file));
    }
    let mut beside = path.clone().into_os_string();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    let file = File::create_new(&beside).with_context(|| beside.display().to_string())?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = write(&mut out).and_then(|()| out.flush().with_context(|| shown.to_string()));
    let done = written.and_then(|()| std::fs::rename(&beside, path).with_context(|| shown.to_string()));
    if done.is_err() {
        std::fs::remove_file(&beside).ok();
    }
    done
}
