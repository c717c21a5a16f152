//! Images looked at without a mount, compared with a mount and with other tools.

use crate::place::{Place, images};

/// A place whose store has the images, with `small` on `mnt`.
fn mounted() -> Place {
    let place = Place::new();
    place.run(&format!("lamel load -q -i {}/oci && lamel mount small mnt", images().display()));
    place
}

/// Both command lines print the same.
#[track_caller]
fn same(place: &Place, ours: &str, theirs: &str) -> String {
    let (ours, theirs) = (place.run(&format!("export TZ=UTC; {ours}")), place.run(&format!("export TZ=UTC; {theirs}")));
    assert!(ours == theirs, "--- lamel\n{ours}\n--- the mount\n{theirs}");
    assert!(!ours.is_empty());
    ours
}

#[test]
fn files_are_listed_as_on_a_mount() {
    let place = mounted();
    let ls = "ls -ln --time-style=long-iso";
    let squeeze = "grep -v '^total' | tr -s ' '";
    let long =
        same(&place, &format!("lamel ls -l small:/special | {squeeze}"), &format!("{ls} mnt/special | {squeeze}"));
    assert!(long.contains("b 1 0 0 253, 7") || long.contains("brw-r----- 1 0 0 253, 7"), "{long}");
    same(&place, "lamel ls small | sort", "ls mnt | sort");
    same(
        &place,
        &format!("lamel ls -laR small:/special | {squeeze}"),
        &format!("cd mnt/special && {ls} -aR | sed 's,^\\.\\(/.*\\)*:$,/special\\1:,' | {squeeze}"),
    );
    same(&place, "lamel ls -d small:/special/sticky small:/etc", "echo /special/sticky; echo /etc");
    same(&place, "lamel ls small:/special/empty", "ls mnt/special/empty/");
    let count = "print(len(json.load(sys.stdin)))";
    same(
        &place,
        &format!("lamel ls -R -a --json small | python3 -c 'import json, sys; {count}'"),
        "find mnt -mindepth 1 -print0 | tr -cd '\\0' | wc -c",
    );
    let formats = "'%n %u:%g %a %A %f %s %h %t:%T %Y %F %y'";
    same(
        &place,
        &format!(
            "for f in suid cap sparse hole fifo null disk sticky one absolute; do lamel stat -c {formats} small:/special/$f; done"
        ),
        &format!(
            "for f in suid cap sparse hole fifo null disk sticky one absolute; do stat -c {formats} mnt/special/$f | sed 's,mnt/,/,'; done"
        ),
    );
    let whole = place.run("lamel stat small:/special/attr small:/special/cap");
    assert!(whole.contains("user.note=\"two words\"") && whole.contains("security.capability=0x"), "{whole}");
    for (tree, flags) in [("usr", ""), ("usr", "-L 1"), ("etc", "-a")] {
        same(
            &place,
            &format!("lamel tree {flags} small:/{tree} | tail -n +2"),
            &format!("tree {flags} mnt/{tree} | sed 's/\\xc2\\xa0/ /g' | tail -n +2"),
        );
    }
}

#[test]
fn files_are_found_and_read_as_on_a_mount() {
    let place = mounted();
    for query in [
        "",
        "-type f -size +1k",
        "-type b,c,p",
        "-perm /6000",
        "-name '*e*' ! -type d",
        "-maxdepth 1",
        "-mindepth 2 -maxdepth 2 -iname 'B*'",
        "-path '/usr/*/a*'",
        "-uid +999",
        "-gid 6",
        "-size -2M -name 's*'",
    ] {
        let theirs = query.replace("'/usr/", "'mnt/usr/");
        same(
            &place,
            &format!("lamel find small:/ {query} -print0 | sed -z 's,^/$,,' | sort -z | tr '\\0' '|'"),
            &format!("find mnt {theirs} -print0 | sed -z 's,^mnt,,' | sort -z | tr '\\0' '|'"),
        );
    }
    same(
        &place,
        "lamel find small -type f -print0 | sort -z | while IFS= read -r -d '' f; do lamel cat \"small:$f\" | sha256sum; done",
        "cd mnt && find . -type f -print0 | sort -z | xargs -0 -n1 sh -c 'sha256sum < \"$1\"' -",
    );
    // Links lead on inside of the image and nowhere else.
    same(
        &place,
        "lamel cat small:/special/absolute small:/special/upwards small:/special/empty/../later",
        "cat mnt/etc/passwd mnt/etc/passwd mnt/special/later",
    );
    for (path, why) in [
        ("/special/dangling", "no such file"),
        ("/special", "not a regular file"),
        ("/special/fifo", "not a regular file"),
        ("/special/later/x", "not a directory"),
        ("/special/later/", "not a directory"),
        ("/usr/bin/perl", "no such file"),
    ] {
        let said = place.fails(&format!("lamel cat small:{path}"));
        assert!(said.contains(why), "{path}: {said}");
    }
    place.run("mkdir d && ln -s b d/a && ln -s a d/b && ln -s ../../../d/t d/t && tar -C d -cf d.tar . && lamel import d.tar d:1 > /dev/null");
    assert!(place.fails("lamel cat d:1:/a").contains("symbolic links"));
    // Who has seen enough is no error.
    place.run("lamel cat small:/special/sparse small:/special/sparse | head -c 1 > /dev/null");
    place.run("lamel cat small:/missing small:/etc/passwd > out || grep -q root out");
}
