//! `lamel cp`

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use crate::base::base;
use crate::common::{EVERYBODY, Place, Who};

/// Starts the container `r1`, which sleeps after what `script` does, and makes `s1`, which was never started.
fn started(who: Who, script: &str) -> Place {
    let place = base(who);
    fs::write(place.join("inside.sh"), format!("{script}\necho x > /ready; exec sleep 1000")).unwrap();
    place.run(
        "lamel run -d --name r1 --network none base:1 sh -c \"$(cat inside.sh)\" > /dev/null
         lamel create --name s1 --network none base:1 > /dev/null
         for i in $(seq 200); do ! lamel cp r1:/ready - > /dev/null 2>&1 || break; sleep 0.05; done",
    );
    place
}

#[test]
fn names_follow_docker_s_rules() {
    for who in EVERYBODY {
        let place = started(who, "");
        place.run(
            "mkdir -p src/deep there && echo f > file && echo a > src/a && echo b > src/deep/b && ln -s file link",
        );
        for name in ["r1", "s1"] {
            let list = |path: &str| place.run(&format!("lamel cp {name}:{path} - | tar t | sort | tr '\\n' ' '"));
            // A file: to a new name, into a directory, over a file.
            place.run(&format!(
                "lamel cp -q file {name}:/new && lamel cp file {name}:/d && lamel cp -q file {name}:/d/sub/two"
            ));
            assert_eq!(place.run(&format!("lamel cp {name}:/d/sub/two - | tar xO")), "f", "{who:?}");
            assert!(list("/d").contains("d/file"), "{who:?} {name}: {}", list("/d"));
            let said = place.fails(&format!("lamel cp file {name}:/nowhere/"));
            assert!(said.contains("destination directory must exist"), "{said}");
            let said = place.fails(&format!("lamel cp file {name}:/nowhere/x"));
            assert!(said.contains("No such file"), "{said}");
            // A directory: to a new name, into a directory, what is in it, over a file.
            place.run(&format!(
                "lamel cp -q src {name}:/copy && lamel cp -q src {name}:/emptied && lamel cp -q src/. {name}:/opaque"
            ));
            assert_eq!(list("/copy"), "copy/ copy/a copy/deep/ copy/deep/b", "{who:?}");
            assert_eq!(list("/emptied/src/."), "./ a deep/ deep/b", "{who:?}");
            assert!(list("/opaque").contains("opaque/a opaque/deep/ opaque/deep/b"), "{who:?}");
            let said = place.fails(&format!("lamel cp src {name}:/meta"));
            assert!(said.contains("cannot copy a directory to a file"), "{said}");
            // A link is a link, unless it is followed.
            place.run(&format!("lamel cp -q link {name}:/l && lamel cp -qL link {name}:/followed"));
            assert!(place.run(&format!("lamel cp {name}:/l - | tar tv")).contains("l -> file"));
            assert_eq!(place.run(&format!("lamel cp {name}:/followed - | tar xO")), "f");
            // And out again.
            place.run(&format!(
                "rm -rf out && lamel cp -q {name}:/copy out && lamel cp -q {name}:/copy there && lamel cp -q {name}:/copy/a there/x
                 lamel cp -q {name}:/copy/. there && diff -r out src && diff -r there/copy src && cmp there/x src/a && cmp there/deep/b src/deep/b"
            ));
            place.run("rm -rf there && mkdir there");
            // A tar, of whatever compression, into a directory.
            place.run(&format!(
                "tar c src | lamel cp - {name}:/emptied && tar cz file | lamel cp - {name}:/emptied && tar cJ link | lamel cp - {name}:/emptied"
            ));
            assert!(list("/emptied").contains("emptied/file emptied/link emptied/src/ emptied/src/a"), "{who:?}");
            let said = place.fails(&format!("tar c file | lamel cp - {name}:/meta"));
            assert!(said.contains("must be a directory"), "{said}");
        }
        let said = place.fails("lamel cp r1:/d s1:/d");
        assert!(said.contains("between containers"), "{said}");
        assert!(place.fails("lamel cp file there").contains("must specify"));
        assert!(place.fails("lamel cp r1:/nothing .").contains("No such file"));
        assert!(place.fails("lamel cp r1:/meta/ .").contains("Not a directory"));
    }
}

#[test]
fn owners_modes_and_times_are_kept_as_asked() {
    let place = started(Who::Root, "");
    place.run(
        "mkdir out && lamel cp -q r1:/setid out/plain && lamel cp -qa r1:/setid out/kept && lamel cp -qa r1:/cap out/cap
         lamel cp -qa r1:/attr out/attr && lamel cp -q r1:/attr out/mine && lamel cp r1:/null out/ && lamel cp -qa r1:/null out/null
         lamel cp -qa r1:/sparse out/sparse && lamel cp -q r1:/l1 out/l",
    );
    let of = |name: &str| fs::symlink_metadata(place.join(&format!("out/{name}"))).unwrap();
    assert_eq!((of("plain").mode() & 0o7777, of("plain").uid()), (0o755, 0));
    assert_eq!((of("kept").mode() & 0o7777, of("kept").uid(), of("kept").gid()), (0o6755, 1000, 1000));
    assert_eq!(of("plain").mtime(), 1_700_000_000);
    assert!(place.run("getcap out/cap").contains("cap_net_raw"));
    let names = |name: &str| place.run(&format!("getfattr -m- --absolute-names out/{name}"));
    assert!(names("attr").contains("trusted.note") && names("attr").contains("user.note"));
    assert!(names("mine").contains("user.note") && !names("mine").contains("trusted.note"));
    assert_eq!(of("null").rdev(), rustix::fs::makedev(1, 3));
    assert!(of("sparse").blocks() < 1000 && of("sparse").len() == 40 << 20);
    place.run("cmp out/sparse tree/sparse");
    // Into the container: its root's, unless owners are kept.
    place.run(
        "echo x > mine && chown 5:6 mine && chmod 4711 mine && lamel cp -q mine r1:/m1 && lamel cp -qa mine r1:/m2",
    );
    let listed = place.run("lamel cp r1:/m1 - | tar tv --numeric-owner; lamel cp r1:/m2 - | tar tv --numeric-owner");
    assert!(listed.contains("-rwx--x--x 0/0") && listed.contains("-rws--x--x 5/6"), "{listed}");
}

#[test]
fn volumes_of_a_running_container_are_seen() {
    for who in EVERYBODY {
        let place = base(who);
        place.run(
            "mkdir bound && lamel run -d --name r1 --network none -v vol:/vol -v $PWD/bound:/bound --tmpfs /tmp base:1 sleep 1000 > /dev/null
             echo v > f && lamel cp -q f r1:/vol && lamel cp -q f r1:/bound && lamel cp -q f r1:/tmp/t",
        );
        assert_eq!(fs::read_to_string(place.join("bound/f")).unwrap(), "v\n", "{who:?}");
        assert_eq!(place.run("cat store/volumes/vol/data/f; lamel cp r1:/tmp/t - | tar xO"), "v\nv", "{who:?}");
        // What the kernel shows is nobody's.
        place.run("lamel cp -q r1:/. all && test -z \"$(ls -A all/proc)$(ls -A all/sys)\" && cat all/vol/f");
    }
}

#[test]
fn links_of_a_container_lead_nowhere_outside() {
    let place = base(Who::Root);
    let here = place.scratch.path().display().to_string();
    fs::create_dir(place.join("host")).unwrap();
    fs::write(place.join("host/secret"), "secret\n").unwrap();
    // What is a link to the host's path is one to the same path inside.
    fs::write(
        place.join("inside.sh"),
        format!("ln -s {here}/host /abs; ln -s ../../../../../../..{here}/host /up; ln -s / /root; ln -s {here}/host/secret /file; ln -s /proc/1/root/etc /magic; echo x > /ready; exec sleep 1000"),
    )
    .unwrap();
    place.run(
        "lamel run -d --name r1 --network none base:1 sh -c \"$(cat inside.sh)\" > /dev/null
         for i in $(seq 200); do ! lamel cp r1:/ready - > /dev/null 2>&1 || break; sleep 0.05; done; echo new > f",
    );
    for link in ["abs", "up"] {
        let said = place.fails(&format!("lamel cp r1:/{link}/secret out"));
        assert!(said.contains("No such file"), "{said}");
        let said = place.fails(&format!("lamel cp f r1:/{link}/f"));
        assert!(said.contains("No such file"), "{said}");
        assert!(!place.join("host/f").exists());
    }
    let said = place.fails("lamel cp -L r1:/file out");
    assert!(said.contains("No such file"), "{said}");
    // A last link is written as what it leads to inside, or replaced; never what it leads to outside.
    place.run("lamel cp -q f r1:/root/root/through && lamel cp r1:/through - | tar xO | grep -q new");
    place.outcome("lamel cp -q f r1:/file; lamel cp -q f r1:/magic/f");
    assert_eq!(fs::read_to_string(place.join("host/secret")).unwrap(), "secret\n");
    // What comes out of the container is written below the destination alone, which has links of its own.
    fs::create_dir(place.join("dest")).unwrap();
    symlink("../host", place.join("dest/d")).unwrap();
    let said = place.fails("lamel cp r1:/d dest");
    assert!(said.contains("non-directory"), "{said}");
    assert_eq!(fs::read_dir(place.join("host")).unwrap().count(), 1);
    // Nor does a tar.
    place.run("mkdir t && cd t && ln -s /etc/hostname l && echo x > x && tar -cPf ../bad.tar --transform 's,^x$,../../../../escape,' x");
    let said = place.fails("lamel cp - r1:/d < bad.tar");
    assert!(said.contains("upwards"), "{said}");
}

/// Somebody in the container swaps a directory and a link to a path of the host while things are copied.
#[test]
fn swapped_links_lead_nowhere_outside() {
    let place = base(Who::Root);
    let here = place.scratch.path().display().to_string();
    fs::create_dir(place.join("host")).unwrap();
    fs::write(place.join("host/secret"), "secret\n").unwrap();
    fs::set_permissions(place.join("host"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(
        place.join("inside.sh"),
        format!(
            "mkdir -p /w/real /w/dir; echo plain > /w/real/secret; echo plain > /w/dir/secret; ln -s {here}/host /w/link
             while :; do mv /w/dir /w/tmp; mv /w/link /w/dir; mv /w/dir /w/link; mv /w/tmp /w/dir; done"
        ),
    )
    .unwrap();
    place.run(
        "lamel run -d --name r1 --network none base:1 sh -c \"$(cat inside.sh)\" > /dev/null; sleep 0.5; echo new > f",
    );
    place.run(
        "for i in $(seq 30); do
             lamel cp -q f r1:/w/dir/f 2> /dev/null || true; lamel cp -q r1:/w/dir/secret out 2> /dev/null || true
             ! test -f out || ! grep -q secret out; rm -rf out tree2; lamel cp -q r1:/w tree2 2> /dev/null || true
             ! grep -rq secret tree2 2> /dev/null || exit 9
         done",
    );
    assert_eq!(fs::read_dir(place.join("host")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(place.join("host/secret")).unwrap(), "secret\n");
}

/// docker ran the container's own xz and gzip on what it was given.
#[test]
fn nothing_in_a_container_is_executed() {
    let place = started(
        Who::Root,
        "for p in xz gzip unpigz zstd bzip2 tar; do printf '#!/bin/sh\\ntouch /pwned\\n' > /bin/$p; chmod 755 /bin/$p; done",
    );
    place.run(
        "echo x > f && tar c f > f.tar && for z in gzip xz zstd bzip2; do $z -c < f.tar | lamel cp - r1:/d; done
         lamel cp -q r1:/bin bins && lamel cp -q f r1:/bin/",
    );
    assert!(place.fails("lamel cp r1:/pwned .").contains("No such file"));
}

/// Of a container that does not run, also of one that never did.
#[test]
fn volumes_and_directories_of_the_host_are_seen_without_the_container() {
    for who in EVERYBODY {
        let place = base(who);
        place.run("mkdir shared own && echo shared > shared/file && echo mine > mine && cp -r tree/bin tree/etc own");
        let mounts = "-v vol:/vol -v $PWD/shared:/links/in/host -v $PWD/shared:/locked:ro -v $PWD/shared/file:/new/one";
        for (name, of) in [("image", "base:1"), ("directory", "--rootfs $PWD/own")] {
            place.run(&format!("lamel create --network none --name {name} {mounts} {of} sh -c 'ln -sf /etc/passwd /vol/link; ln -sf /../../../mine /vol/up' > /dev/null"));
            for round in ["new", "ended"] {
                place.run(&format!(
                    "lamel cp -q mine {name}:/vol/{round} && lamel cp -q mine {name}:/links/in/host/{name}"
                ));
                assert_eq!(
                    place.run(&format!("cat shared/{name}; lamel cp {name}:/new/one - | tar xO")),
                    "mine\nshared",
                    "{who:?} {name} {round}"
                );
                let seen = place.run(&format!(
                    "lamel run --rm --network none -v vol:/v base:1 sh -c 'cat /v/{round}; stat -c %u:%g /v/{round}'"
                ));
                assert_eq!(seen, "mine\n0:0", "{who:?} {name} {round}");
                let said = place.fails(&format!("lamel cp mine {name}:/locked/mine"));
                assert!(said.contains("Read-only file system"), "{who:?} {name} {round}: {said}");
                if name == "image" {
                    assert_eq!(place.run("lamel diff image"), "", "{who:?} {round}");
                }
                place.run(&format!("lamel start -a {name}"));
            }
            // What lies in a volume leads nowhere but into the container.
            assert!(
                place.run(&format!("lamel cp -L {name}:/vol/link - | tar xO")).starts_with("root:x:0:0"),
                "{who:?} {name}"
            );
            let said = place.fails(&format!("lamel cp -L {name}:/vol/up -"));
            assert!(said.contains("No such file"), "{who:?} {name}: {said}");
            place.run("lamel run --rm --network none -v vol:/v base:1 rm /v/link /v/up");
        }
        place.run("rm -r shared");
        let said = place.outcome("lamel cp mine image:/kept").stderr;
        assert!(
            said.contains("/locked is shown without what is mounted there") && said.contains("Successfully"),
            "{who:?}: {said}"
        );
    }
}
