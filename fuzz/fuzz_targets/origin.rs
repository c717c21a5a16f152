//! Origins, link counts and inode numbers, as an upper's xattrs hold them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| lamel_unionfs::fuzz::marks(data));
