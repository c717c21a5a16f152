//! Manifests, indexes, configurations, and the list in an archive of Docker's.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| lamel_image::fuzz::documents(data));
