//! Images looked at without a mount, compared with a mount and with other tools.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::Place;
use crate::common::{Kind, dump};
use crate::made::images;

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

/// Adds the tag `two`: `small` with a ninth layer, whose instruction is `RUN two`.
fn add_second(place: &Place) {
    place.run(&format!(
        "cp -r {}/oci oci && mkdir -p l/special/new/deep l/etc && printf '<b>&\"' > 'l/special/new/deep/<b>&name'
         touch l/special/.wh.dir l/special/merged l/special/.wh.sticky && printf 'other' > l/special/later
         printf 'root:x:0:0:root:/toor:/bin/sh\\n' > l/etc/passwd && touch -d @1700000003 l/etc/passwd
         chmod 600 l/special/merged && touch l/special/.wh.merged && tar -C l --sort=name -cf l.tar etc special
         umoci raw add-layer --image oci:small --tag two --history.created_by 'RUN two' l.tar
         lamel load -q -i oci && mkdir mnt2 && lamel mount two mnt2",
        images().display()
    ));
}

#[test]
fn the_difference_of_two_images_is_that_of_their_mounts() {
    let place = mounted();
    add_second(&place);
    let (old, new) = (dump(&place.join("mnt")), dump(&place.join("mnt2")));
    let mut wanted = BTreeMap::new();
    for (path, node) in &new {
        let kind = match old.get(path) {
            None => 'A',
            Some(was) => {
                let same = (was.kind, was.mode, was.uid, was.gid, was.rdev)
                    == (node.kind, node.mode, node.uid, node.gid, node.rdev)
                    && was.xattrs == node.xattrs
                    && (node.kind == Kind::Dir
                        || (was.size, was.mtime_ns, &was.content, &was.target)
                            == (node.size, node.mtime_ns, &node.content, &node.target));
                if same {
                    continue;
                }
                'C'
            }
        };
        wanted.insert(path.clone(), kind);
    }
    let is_gone = |path: &Path| {
        !new.contains_key(path)
            && path.parent().is_some_and(|parent| new.get(parent).is_some_and(|node| node.kind == Kind::Dir))
    };
    wanted.extend(old.keys().filter(|path| is_gone(path)).map(|path| (path.clone(), 'D')));
    for path in wanted.keys().cloned().collect::<Vec<_>>() {
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            wanted.entry(parent.to_owned()).or_insert('C');
        }
    }
    let wanted: Vec<String> = wanted.iter().map(|(path, kind)| format!("{kind} /{}", path.display())).collect();
    let found = place.run("lamel diff small two");
    assert_eq!(found.lines().collect::<Vec<_>>(), wanted);
    for line in ["C /etc/passwd", "D /special/sticky", "C /special", "A /special/new/deep", "C /special/merged"] {
        assert!(wanted.iter().any(|wanted| wanted == line), "{line}");
    }
    let back = place.run("lamel diff two small --json | python3 -c 'import json, sys; [print(c[\"kind\"], c[\"path\"]) for c in json.load(sys.stdin)]'");
    assert!(back.contains("D /special/new") && back.contains("A /special/sticky/three"), "{back}");
    assert_eq!(place.run("lamel diff small small"), "");
    place.run("mkdir up && lamel umount mnt && lamel mount small mnt --upper up && touch mnt/x && lamel diff mnt | grep -x 'A /x' && lamel explain mnt/x | grep -q /up");
}

#[test]
fn layers_are_named_that_have_a_say_in_a_path() {
    let place = mounted();
    add_second(&place);
    let said = |path: &str| {
        let query = "import json, sys; [print(l['layer'], l['visible'], l['says'], l['instruction'], sep='|') for l in json.load(sys.stdin)['layers']]";
        place
            .run(&format!("lamel explain --json 'two:{path}' | python3 -c \"{query}\" | sed 's/|umoci[^|]*$//;s/|$//'"))
    };
    assert_eq!(
        said("/special/later"),
        "9|True|file of 5 bytes, mode 0644|RUN two\n6|False|file of 3 bytes, mode 0644\n3|False|deletes what is below\n2|False|file of 10 bytes, mode 0644"
    );
    // A directory above it goes.
    let gone = said("/special/sticky/three");
    assert!(
        gone.starts_with("9|True|hides what is below, at /special/sticky|RUN two\n2|False|file of 6 bytes"),
        "{gone}"
    );
    assert!(said("/usr/bin/perl").starts_with("3|True|deletes"));
    assert!(
        said("/usr/share/zoneinfo/UTC").contains("4|True|hides what is below, at /usr/share/zoneinfo\n1|False|file")
    );
    // Through a symlink on the way.
    assert_eq!(place.run("lamel explain small:/special/empty/three | head -1"), "/special/sticky/three");
    let text = place.run("lamel explain two:/special/later");
    assert!(
        text.starts_with("/special/later\n  shown") && text.contains("layer 9   sha256:") && text.contains("RUN two"),
        "{text}"
    );
    assert!(place.fails("lamel explain two:/never/was").contains("no layer"));
}
