//! Where an archive is written to: a file, or standard output.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Bytes that are passed on at once.
const BUFFER: usize = 1 << 20;

/// Writes an archive to the file `path`, or to standard output for `-`.
pub(crate) fn write_archive(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if path.as_os_str() == "-" {
        let out = io::stdout();
        if out.is_terminal() {
            bail!("an archive is not written to a terminal: name a file by -o");
        }
        return write_all(out.lock(), write).context("standard output");
    }
    write_file(path, write)
}

/// Writes a file beside its place, and gives it its name when it is whole.
pub(crate) fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let shown = path.display();
    // A device or a pipe is written as it is.
    if path.exists() && !path.is_file() {
        let file = File::options().write(true).open(path).with_context(|| shown.to_string())?;
        return write_all(file, write).with_context(|| shown.to_string());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    let file = File::create_new(&beside).with_context(|| beside.display().to_string())?;
    let written = write_all(file, write).with_context(|| shown.to_string());
    let done = written.and_then(|()| std::fs::rename(&beside, path).with_context(|| shown.to_string()));
    if done.is_err() {
        std::fs::remove_file(&beside).ok();
    }
    done
}

fn write_all(out: impl Write, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, out);
    write(&mut out)?;
    Ok(out.flush()?)
}
