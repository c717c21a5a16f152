//! The image store of lamel: read-only layers named by their sha256, served
//! through a memory-mapped index over the layer's tar instead of being unpacked.
//!
//! Hostile input (archives, manifests, answers of a registry) is parsed in this
//! crate and nowhere else.

pub mod digest;

pub use digest::Digest;
