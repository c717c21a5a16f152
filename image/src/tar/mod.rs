//! Tars. Reading a layer's: one forward pass over ustar, GNU and PAX headers; and writing one ([`mod@write`]).
//!
//! The crate `tar` knows how headers are laid out. What they mean is decided
//! here, because a layer must mean to lamel what it means to the engines that
//! made it (Go's `archive/tar`, GNU tar, libarchive). Where those disagree on
//! how an archive is framed, the archive is refused instead of guessed at.

mod header;
mod pax;
mod reader;
mod sparse;
mod stream;
pub mod write;

pub use reader::{Kind, Member, Reader, Xattr};
pub use sparse::Extent;
