//! A redirect never leads out of the stack, whatever bytes a layer holds.
#![no_main]

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use lamel_unionfs::whiteout::{Redirect, parse_redirect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let safe = |part: &OsStr| {
        let bytes = part.as_bytes();
        assert!(!bytes.is_empty() && bytes.len() <= 255 && bytes != b"." && bytes != b"..");
        assert!(!bytes.contains(&b'/') && !bytes.contains(&0));
    };
    match parse_redirect(OsStr::from_bytes(data)) {
        None => {}
        Some(Redirect::Sibling(name)) => {
            safe(&name);
            assert_eq!(name.as_bytes(), data);
        }
        Some(Redirect::Absolute(parts)) => {
            assert!(!parts.is_empty());
            let mut joined = Vec::new();
            for part in &parts {
                safe(part);
                joined.push(b'/');
                joined.extend_from_slice(part.as_bytes());
            }
            assert_eq!(joined, data);
        }
    }
});
