//! The option strings of `lamel mount`, mount(8) and fuse-overlayfs. The first byte chooses the dialect.
#![no_main]

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use lamel_unionfs::{Options, options::Dialect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((first, text)) = data.split_first() else {
        return;
    };
    let (mut options, dialect) = match first % 4 {
        0 => (Options::new("mnt"), Dialect::Overlay),
        1 => (Options::new("mnt"), Dialect::Sloppy),
        2 => (Options::fuse_overlayfs("mnt", true), Dialect::FuseOverlayfs),
        _ => (Options::fuse_overlayfs("mnt", false), Dialect::FuseOverlayfs),
    };
    match options.parse(dialect, OsStr::from_bytes(text)) {
        Err(error) => {
            // It is printed on one line of a terminal.
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
        }
        Ok(warnings) => {
            for warning in warnings {
                assert!(!warning.to_string().contains(char::is_control), "{warning:?}");
            }
            options.resolve(Path::new("/somewhere"));
            let paths = options.lowers.iter().chain(&options.upper).chain(&options.work);
            for path in paths.chain([&options.mountpoint]) {
                assert!(path.is_absolute(), "{}", path.display());
            }
        }
    }
});
