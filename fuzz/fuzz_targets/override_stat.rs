//! An override is read or refused, and says nothing that a stat cannot hold.
#![no_main]

use lamel_unionfs::ownership::parse_override;
use libfuzzer_sys::fuzz_target;

const TYPES: [u32; 7] = [0o040_000, 0o100_000, 0o120_000, 0o010_000, 0o140_000, 0o060_000, 0o020_000];

fuzz_target!(|data: &[u8]| {
    let Some(read) = parse_override(data) else {
        return;
    };
    assert_eq!(read.permissions & !0o7777, 0);
    if let Some((format, rdev)) = read.format {
        assert!(TYPES.contains(&format));
        assert!(rdev == 0 || matches!(format, 0o060_000 | 0o020_000));
    }
    // Three fields of it, written again, are read again.
    let again = format!("{}:{}:{:04o}", read.uid, read.gid, read.permissions);
    let again = parse_override(again.as_bytes()).expect("what was read can be read again");
    assert_eq!((again.uid, again.gid, again.permissions), (read.uid, read.gid, read.permissions));
});
