//! Shrunk failures, kept as named tests.
