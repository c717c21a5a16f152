//! CPython's own tests of files, in a merged directory.

use std::fs;
use std::path::Path;

use crate::common::{Scratch, Subject};
use crate::long;

const FILES: &str = "test_os test_shutil test_mmap test_tarfile test_zipfile test_posix test_pathlib test_glob test_tempfile \
                     test_fcntl test_dbm test_mailbox test_file test_fileio test_stat test_posixpath test_genericpath \
                     test_filecmp test_dbm_dumb test_fileinput";

#[test]
fn python() {
    own_tests(&[]);
}

#[test]
fn python_with_passthrough() {
    own_tests(&["io=passthrough"]);
}

fn own_tests(options: &[&str]) {
    let scratch = Scratch::new();
    for lower in scratch.lowers(2) {
        fs::create_dir(lower.join("tests")).unwrap();
    }
    let mut mounted = Subject::lamel().mount(&scratch, 2, true, options);
    let out = long(
        Path::new("/"),
        240,
        &format!(
            "cd {dir}
             env -i PATH=/usr/bin:/bin HOME=/root LC_ALL=C.UTF-8 TMPDIR={dir} \
             /usr/bin/python3.11 -m test --tempdir {dir} -j2 --timeout 100 {FILES} 2>&1",
            dir = mounted.join("tests").display()
        ),
    );
    mounted.unmount();
    let passed = format!("All {} tests OK.", FILES.split_whitespace().count());
    assert!(out.contains(&passed), "{out}");
}
