//! The index of a layer: everything about its entries but their data, in one
//! file that is mapped and used as it lies.
//!
//! [`build`] reads the layer's tar once and makes the tree that an extraction
//! would leave behind (`draft`); [`Built::write`] lays it out as
//! [`Index`] reads it.

mod draft;
mod error;
mod format;
pub(crate) mod fuzz;
mod limits;
mod merge;
mod node;
mod read;
mod write;

use std::io::Read;

pub use error::{IndexError, MemberFault, TarFault};
pub(crate) use format::Inode;
pub use limits::Limits;
pub use merge::merge;
pub use read::Index;
pub(crate) use read::{Damaged, ROOT};
pub use write::Built;

use crate::tar::Reader;
use draft::Draft;

/// Reads an uncompressed tar to its end-of-archive marker; what follows is left in `tar`, and may have been read.
///
/// # Errors
/// [`IndexError`] says which member cannot be taken, and why.
pub fn build(tar: &mut dyn Read, limits: &Limits) -> Result<Built, IndexError> {
    let mut reader = Reader::new(tar, limits);
    let mut draft = Draft::new(limits);
    while let Some(member) = reader.next()? {
        draft.add(member)?;
    }
    Built::new(draft.into_nodes(), vec![reader.position()])
}
