//! What no engine can do without: decompressing an image's layers, and hashing what comes of them.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::super::process::{Ran, run};

/// Decompresses each blob to a file and hashes it, with the programs that everybody has.
pub(super) fn unpack(blobs: &[std::path::PathBuf], scratch: &Path) -> Result<Ran> {
    let mut all = Ran { seconds: 0.0, peak: 0, output: String::new() };
    for blob in blobs {
        let script = format!("{} < \"$1\" > \"$2\" && exec sha256sum \"$2\"", decompressor(blob)?);
        let ran = run(Command::new("sh").args(["-c", &script, "sh"]).arg(blob).arg(scratch.join("tar")))?;
        all.seconds += ran.seconds;
        all.peak = all.peak.max(ran.peak);
    }
    Ok(all)
}

/// Hashes a file.
pub(super) fn hash(file: &Path) -> Result<Ran> {
    run(Command::new("sha256sum").arg(file))
}

fn decompressor(blob: &Path) -> Result<&'static str> {
    let mut magic = [0; 4];
    let mut file = File::open(blob).with_context(|| blob.display().to_string())?;
    file.read_exact(&mut magic).with_context(|| blob.display().to_string())?;
    Ok(match magic {
        [0x1f, 0x8b, ..] => "gzip -dc",
        [0x28, 0xb5, 0x2f, 0xfd] => "zstd -dc",
        _ => "cat",
    })
}
