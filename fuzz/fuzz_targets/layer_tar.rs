//! A layer's tar gives an index that holds what it promises, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| lamel_image::fuzz::tar(data));
