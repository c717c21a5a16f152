//! What the union promises, one named test per promise; `unionfs/src/SEMANTICS.md` cites them.
//!
//! Where ext4's answer is the right one, a test takes the same steps on the union and on a plain directory and
//! compares. `LAMEL_SUBJECT=overlayfs` (or `fuse-overlayfs`) runs the tests against that filesystem instead: a test
//! that kernel overlayfs fails says why in its comment ("Kernel overlayfs: …").

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::let_underscore_must_use,
    missing_docs,
    unreachable_pub,
    reason = "tests may panic, and need no public documentation"
)]

mod common;

mod semantics {
    mod concurrency;
    mod document;
    mod durability;
    mod files;
    mod forging;
    mod handles;
    mod hardlink;
    mod hostile_layers;
    mod identity;
    mod kit;
    mod layers;
    mod memory;
    mod names;
    mod no_copy;
    mod ownership;
    mod passthrough;
    mod peers;
    mod privileges;
    mod rename;
    mod sys;
    mod trust;
    mod userns;
}
