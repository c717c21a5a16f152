//! Copying trees by descriptors: one side writes a tar ([`lamel_image::archive::export_tree`]), the other reads it. Nothing
//! leads out of the root that a path is resolved in, and nothing in it is ever executed.
//!
//! Reading order: [`root`] (how a path is resolved), [`unpack`], then [`mounts`].

pub(crate) mod mounts;
pub(crate) mod root;
pub(crate) mod unpack;

use std::io::{self, PipeReader};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Result, anyhow};

/// The magic link of an own descriptor, for calls that an `O_PATH` descriptor is of no use for.
fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Lets one side write a tar while the other reads it. What the writing side says of an error says more: it is told
/// first, unless it only found nobody to read on.
pub(crate) fn through_pipe<T: Send>(
    write: impl FnOnce(io::PipeWriter) -> Result<T> + Send,
    read: impl FnOnce(PipeReader) -> Result<()>,
) -> Result<T> {
    let (reader, writer) = io::pipe()?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| write(writer));
        let read = read(reader);
        let written = writing.join().map_err(|_| anyhow!("the thread that reads the source panicked"))?;
        match (written, read) {
            (Err(error), Err(other)) if is_unread(&error) => Err(other),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(value), Ok(())) => Ok(value),
        }
    })
}

fn is_unread(error: &anyhow::Error) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(broken))
}
