//! The reference model: random stacks and sequences of operations, compared with a plain in-memory tree after every
//! step. See `model/mod.rs`.

mod common;
#[path = "model/mod.rs"]
mod model;

use common::Subject;
use model::{
    case::Case,
    runner::{Quirks, play_many},
};

fn judge(subject: &Subject, quirks: Quirks, count: u32) {
    play_many(subject, quirks, count).unwrap_or_else(|e| panic!("{e}"));
}

/// Plays 2,000 sequences, or as many as `LAMEL_MODEL_CASES` says.
#[test]
fn lamel_satisfies_the_model() {
    let asked = std::env::var("LAMEL_MODEL_CASES").ok();
    let count = asked.map_or(2_000, |n| n.parse().unwrap_or_else(|e| panic!("LAMEL_MODEL_CASES={n}: {e}")));
    judge(&Subject::lamel(), Quirks::LAMEL, count);
}

/// The oracle is not of lamel's making: another implementation satisfies it.
#[test]
fn kernel_overlayfs_satisfies_the_model() {
    judge(&Subject::overlayfs_full(), Quirks::OVERLAYFS, 100);
}

/// The oracle sees faults: fuse-overlayfs 1.x answers EXDEV to the rename of a lower directory, for one.
#[test]
fn the_model_finds_faults() {
    let found = play_many(&Subject::fuse_overlayfs(), Quirks::LAMEL, 200).unwrap_err();
    println!("found in fuse-overlayfs: {found}");
}

/// The text of a failure is the text of a regression test.
#[test]
fn a_case_survives_printing() {
    use proptest::{prelude::*, test_runner::TestRunner};
    TestRunner::default()
        .run(&model::strategy::cases(), |case| {
            let again: Case = case.to_string().parse().map_err(TestCaseError::fail)?;
            prop_assert_eq!(again, case);
            Ok(())
        })
        .unwrap();
}
