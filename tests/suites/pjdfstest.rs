//! pjdfstest: every case must end on the mount as it does on the native directory in the same run, but for those of
//! `pjdfstest-expected.txt`, which must pass there and end here as it says.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use crate::{
    beside,
    common::{Scratch, Subject, sh_timeout},
    require_version,
};

/// Cases in this version of the suite.
const CASES: usize = 398;

/// The result of each case by its name.
type Results = BTreeMap<String, String>;

#[test]
fn pjdfstest_as_mounted_by_default() {
    same_as_native(&[]);
}

#[test]
fn pjdfstest_with_writeback() {
    same_as_native(&["writeback=1"]);
}

#[test]
fn pjdfstest_with_handles() {
    same_as_native(&["io=handles"]);
}

#[test]
fn pjdfstest_with_passthrough() {
    same_as_native(&["io=passthrough"]);
}

#[test]
fn pjdfstest_in_the_plain_format() {
    // What podman's mounts have: neither redirects nor metacopies.
    same_as_native(&["redirect_dir=off", "metacopy=off", "index=off"]);
}

#[test]
fn pjdfstest_with_owners_in_xattrs() {
    // What podman's mounts have where `force_mask` is set.
    same_as_native(&["redirect_dir=off", "metacopy=off", "xattr_permissions=2"]);
}

/// The suite's `open::etxtbsy` failed once in thirty runs: the program died of the truncation that was then refused.
#[test]
fn a_running_program_is_not_truncated_by_a_reader() {
    for options in [&[][..], &["io=handles"], &["io=handles", "writeback=0"], &["io=passthrough"]] {
        let scratch = Scratch::new();
        fs::copy("/bin/sleep", scratch.lower(0).join("program")).unwrap();
        let mut mounted = Subject::lamel().mount(&scratch, 1, true, options);
        mounted.run(
            "./program 1 & sleep 0.2
             ! python3 -c 'import os; os.open(\"program\", os.O_RDONLY | os.O_TRUNC)' 2> error
             grep -q 'Text file busy' error
             wait $!
             cmp /bin/sleep program",
        );
        mounted.unmount();
    }
}

fn same_as_native(options: &[&str]) {
    require_version("pjdfstest", "0.2.2");
    let scratch = Scratch::new();
    // The cases change user: all directories above must be open to them.
    open_to_all(scratch.path());
    let native = scratch.dir("native");
    open_to_all(&native);
    for lower in scratch.lowers(2) {
        open_to_all(&lower);
        // A merged directory that is not in the upper yet.
        let place = lower.join("place");
        fs::create_dir(&place).unwrap();
        open_to_all(&place);
    }
    open_to_all(&scratch.upper());
    let mut options = options.to_vec();
    options.push("allow_other");
    let mut mounted = Subject::lamel().mount(&scratch, 2, true, &options);

    let want = run(&native);
    let got = run(&mounted.join("place"));
    mounted.unmount();

    let failing = want.values().filter(|r| *r == "FAILED").count();
    assert_eq!(failing, 0, "failures on the native directory: {want:#?}");
    let listed = fs::read_to_string(beside("pjdfstest-expected.txt")).unwrap();
    let listed: BTreeMap<&str, &str> = listed
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| l.split_once(' ').expect("a case and its result"))
        .collect();
    let mut wrong = Vec::new();
    for (case, native) in &want {
        let want = match listed.get(case.as_str()) {
            Some(here) => {
                assert_eq!(native, "ok", "{case} is listed, and is natively not ok");
                here
            }
            None => native.as_str(),
        };
        let got = got.get(case).map_or("not run", String::as_str);
        if got != want {
            wrong.push(format!("{case}: want {want}, got {got}"));
        }
    }
    assert!(wrong.is_empty(), "{options:?}:\n{}", wrong.join("\n"));
    for case in listed.keys() {
        assert!(want.contains_key(*case), "{case} is listed, and is no case");
    }
}

fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
}

fn run(dir: &Path) -> Results {
    let out = sh_timeout(
        Path::new("/"),
        &format!(
            "RUST_BACKTRACE=0 NO_COLOR=1 timeout -s KILL 170 pjdfstest -c '{}' -s /dev/shm -p '{}' || test $? = 1",
            beside("pjdfstest.toml").display(),
            dir.display()
        ),
        Duration::from_secs(180),
    );
    let results: Results = out
        .stdout
        .lines()
        .filter_map(|line| {
            // `operation::case    ok`; what a failing case says is indented.
            let (case, result) = line.split_once(' ')?;
            let result = result.trim();
            let known = ["ok", "FAILED", "skipped"].contains(&result);
            (case.contains("::") && known).then(|| (case.to_owned(), result.to_owned()))
        })
        .collect();
    assert_eq!(results.len(), CASES, "pjdfstest did not run all its cases: {}\n{}", out.stdout, out.stderr);
    println!("{}: {}", dir.display(), out.stdout.lines().last().unwrap_or_default());
    results
}
