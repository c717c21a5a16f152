//! The image store of lamel: read-only layers named by their sha256, served
//! through a memory-mapped index over the layer's tar instead of being unpacked.
//!
//! Hostile input (archives, manifests, answers of a registry) is parsed in this
//! crate and nowhere else.

pub mod archive;
pub mod blame;
pub mod changeset;
pub mod commit;
pub mod compare;
pub mod decompress;
pub mod digest;
pub mod fuzz;
pub mod index;
pub mod layer;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod registry;
pub mod stack;
pub mod store;
pub mod survey;
pub mod tar;
pub mod view;

mod read_ahead;
#[allow(unsafe_code, reason = "the one place for it")]
mod sys;

pub use digest::Digest;
pub use layer::IndexedLayer;
pub use store::Store;
