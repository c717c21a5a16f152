//! The only module of the crate with unsafe code.

pub(crate) mod map;
