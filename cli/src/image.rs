//! The commands on images.

pub(crate) mod registry;
mod store;
