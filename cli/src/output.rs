//! What the subcommands share in asking a mount, in printing and in writing files.

mod archive;
pub(crate) mod page;

pub(crate) mod filter;
pub(crate) mod human;
pub(crate) mod template;

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::io::Errno;

pub(crate) use archive::{write_archive, write_file};

/// The longest answer that is taken, as the kernel's own limit of an xattr.
const LONGEST: usize = 64 * 1024;

/// What a process in another mount namespace than the daemon's is answered.
pub(crate) const OUTSIDE_ONLY: &str =
    "where the layers lie is told only to processes that see the daemon's mounts: ask outside of the container";

/// Asks the daemon that serves `path` through one of its virtual xattrs.
pub(crate) fn ask(path: &Path, question: impl AsRef<OsStr>) -> Result<Vec<u8>, Errno> {
    let mut answer = vec![0; LONGEST];
    let len = rustix::fs::lgetxattr(path, question.as_ref(), &mut answer)?;
    answer.truncate(len);
    Ok(answer)
}

/// Whether an error of [`ask`] says that nobody there knows the question.
pub(crate) fn is_foreign(errno: Errno) -> bool {
    matches!(errno, Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)
}

/// Writes lines of bytes to standard output.
pub(crate) fn print(lines: impl IntoIterator<Item = Vec<u8>>) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = lines
        .into_iter()
        .try_for_each(|line| out.write_all(&line).and_then(|()| out.write_all(b"\n")))
        .and_then(|()| out.flush());
    match done {
        // `lamel diff … | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output"),
    }
}
