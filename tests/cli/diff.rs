//! `lamel diff`

use super::*;

/// A stack that is changed in every way that a difference can show.
fn changed() -> Scratch {
    let s = scratch();
    common::run_in(
        &s.lower(0),
        "mkdir -p dir/sub replaced renamed to-file merged
         echo x | tee dir/one dir/sub/two replaced/kept replaced/lost renamed/a renamed/b to-file/in gone meta",
    );
    succeeds(&s, &format!("mount -o {STACK} mnt"));
    common::run_in(
        &s.mnt(),
        "echo more >> file
         echo n > new
         mkdir new-dir; echo n > new-dir/inner
         echo more >> dir/sub/two
         rm dir/one gone
         rm -r replaced; mkdir replaced; echo n > replaced/kept; echo n > replaced/added
         mv renamed other; rm other/a; echo n > other/c
         rm -r to-file; echo n > to-file
         chmod 600 meta
         echo n > never; rm never
         rmdir merged; mkdir merged",
    );
    s
}

const WANT: &str = "\
C /dir
D /dir/one
C /dir/sub
C /dir/sub/two
C /file
D /gone
C /merged
C /meta
A /new
A /new-dir
A /new-dir/inner
A /other
A /other/c
D /renamed
C /replaced
A /replaced/added
C /replaced/kept
D /replaced/lost
C /to-file
D /to-file/in
";

#[test]
fn a_mount_and_its_layers_give_the_same_difference() {
    let s = changed();
    assert_eq!(succeeds(&s, "diff mnt"), WANT);
    succeeds(&s, "umount mnt");
    assert_eq!(succeeds(&s, "diff --upper upper --lower lower0"), WANT);
    let json: serde_json::Value =
        serde_json::from_str(&succeeds(&s, "diff --upper upper --lower lower0 --json")).unwrap();
    let lines: Vec<String> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|line| format!("{} {}\n", line["kind"].as_str().unwrap(), line["path"].as_str().unwrap()))
        .collect();
    assert_eq!(lines.concat(), WANT);
}

/// Whoever looks for the lower layer at its path finds the mount.
#[test]
fn a_mount_over_its_own_lower_gives_the_same_difference() {
    let s = scratch();
    succeeds(&s, "mount -o lowerdir=lower0,upperdir=upper,workdir=work lower0");
    common::run_in(&s.join("lower0"), "rm file; echo n > new");
    assert_eq!(succeeds(&s, "diff lower0"), "D /file\nA /new\n");
    succeeds(&s, "umount lower0");
}

#[test]
fn without_lower_layers_the_marks_tell() {
    let s = changed();
    succeeds(&s, "umount mnt");
    let got = succeeds(&s, "diff --upper upper");
    // Only what replaces something without having been copied up counts as new.
    let want = "\
C /dir
D /dir/one
C /dir/sub
C /dir/sub/two
C /file
D /gone
A /merged
C /meta
A /new
A /new-dir
A /new-dir/inner
A /other
A /other/c
D /renamed
A /replaced
A /replaced/added
A /replaced/kept
A /to-file
";
    assert_eq!(got, want);
}

#[test]
fn whiteouts_of_the_other_kind_are_read() {
    let s = scratch();
    common::run_in(
        s.path(),
        "mkdir -p lower0/opaque upper/opaque; touch lower0/opaque/old upper/opaque/new
         touch upper/.wh.file upper/.wh.never upper/opaque/.wh..wh..opq",
    );
    let want = "D /file\nC /opaque\nA /opaque/new\nD /opaque/old\n";
    assert_eq!(succeeds(&s, "diff --upper upper --lower lower0"), want);
}

#[test]
fn the_lower_layers_are_not_walked() {
    let s = scratch();
    common::run_in(&s.lower(0), "mkdir big; cd big; for i in $(seq 300); do mkdir d$i; touch d$i/f; done");
    fs::create_dir(s.join("upper/big")).unwrap();
    fs::write(s.join("upper/big/new"), "").unwrap();
    let bin = Subject::lamel_bin().display().to_string();
    let calls = common::run_in(
        s.path(),
        &format!(
            "strace -f -e trace=%file,getdents64 {bin} diff --upper upper --lower lower0 2>&1 >out | wc -l; cat out"
        ),
    );
    let (calls, lines) = calls.split_once('\n').unwrap();
    assert_eq!(lines, "C /big\nA /big/new");
    assert!(calls.parse::<u32>().unwrap() < 200, "{calls} system calls");
}

#[test]
fn what_is_no_subject_is_refused() {
    let s = scratch();
    fails(&s, "diff", &["--upper"]);
    fails(&s, "diff mnt --upper upper", &["cannot be used with"]);
    fails(&s, "diff mnt --lower lower0", &["cannot be used with"]);
    fails(&s, "diff mnt", &["no mount of lamel", "--upper"]);
    fails(&s, "diff --upper missing", &["missing", "No such file"]);
    succeeds(&s, "mount --lower lower0 mnt");
    let out = run_words(&s, "diff mnt");
    assert!(!out.success() && out.stderr.contains("without an upper"), "{}", out.stderr);
    succeeds(&s, "umount mnt");
}
