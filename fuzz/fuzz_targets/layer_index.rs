//! An index that somebody has changed gives errors and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| lamel_image::fuzz::changed_index(data));
