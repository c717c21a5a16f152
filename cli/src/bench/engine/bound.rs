//! What no engine can do without: decompressing an image's layers, and hashing what comes of them.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::super::process::{Ran, run};

/// Decompresses each blob to a file and hashes it, with the programs that everybody has.
pub(super) fn unpack(blobs: &[PathBuf], scratch: &Path) -> Result<Ran> {
    let start = Instant::now();
    for blob in blobs {
        match decompressor(blob)? {
            Some(program) => {
                let tar = scratch.join("tar");
                decompress(program, blob, &tar)?;
                hash(&tar)?;
            }
            None => drop(hash(blob)?),
        }
    }
    Ok(Ran { seconds: start.elapsed().as_secs_f64(), peak: 0, output: String::new() })
}

/// Hashes a file.
pub(super) fn hash(file: &Path) -> Result<Ran> {
    run(Command::new("sha256sum").arg(file))
}

fn decompress(program: &str, from: &Path, to: &Path) -> Result<()> {
    let source = File::open(from).with_context(|| from.display().to_string())?;
    let target = File::create(to).with_context(|| to.display().to_string())?;
    let mut command = Command::new(program);
    command.arg("-dc").stdin(source).stdout(target).stderr(Stdio::null());
    let status = command.status().with_context(|| format!("starting {program}"))?;
    if status.success() { Ok(()) } else { bail!("{program} of {}: {status}", from.display()) }
}

/// The program for a blob, by its first bytes.
fn decompressor(blob: &Path) -> Result<Option<&'static str>> {
    let mut magic = [0; 4];
    let mut file = File::open(blob).with_context(|| blob.display().to_string())?;
    file.read_exact(&mut magic).with_context(|| blob.display().to_string())?;
    Ok(match magic {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd] => Some("zstd"),
        _ => None,
    })
}
