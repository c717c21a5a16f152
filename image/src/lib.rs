//! The image store of lamel: read-only layers named by their sha256, served
//! through a memory-mapped index over the layer's tar instead of being unpacked.
//!
//! Hostile input (archives, manifests, answers of a registry) is parsed in this
//! crate and nowhere else. The crate is empty until image support lands; the
//! union filesystem's [`Layer`](https://docs.rs/lamel-unionfs) trait is the seam
//! that its indexed layers will implement.
