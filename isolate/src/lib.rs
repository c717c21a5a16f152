//! The process isolator of lamel: takes an OCI runtime-spec configuration and
//! runs it in three steps, *parse, plan, act*.
//!
//! The crate is empty until container support lands.
