//! `lamel volume`, and volumes of containers.

use serde_json::Value;

use crate::base::base;
use crate::common::{EVERYBODY, Who};

#[test]
fn a_volume_is_filled_once_from_what_it_covers() {
    for who in EVERYBODY {
        let place = base(who);
        let probe = "cd /d; find . | sort | while read f; do stat -c '%n %F %a %u:%g %Y' $f; done";
        std::fs::write(place.join("probe"), probe).unwrap();
        let image = place.run("lamel run --rm --network none base:1 sh -c \"$(cat probe)\"");
        let inside = place.run("lamel run --rm --network none -v vol:/d base:1 sh -c \"$(cat probe)\"");
        assert_eq!(inside, image, "{who:?}");
        place.run("lamel run --rm --network none -v vol:/d base:1 sh -c 'rm -r /d/*; echo mine > /d/mine'");
        let left = place.run("lamel run --rm --network none -v vol:/d base:1 ls /d; lamel run --rm --network none -v vol:/other base:1 cat /other/mine");
        assert_eq!(left, "mine\nmine", "{who:?}");
        assert_eq!(place.run("lamel run --rm --network none -v none:/d:nocopy base:1 ls /d"), "", "{who:?}");
        assert_eq!(
            place.run("lamel run --rm --network none --mount type=volume,src=mm,dst=/d,volume-nocopy base:1 ls /d"),
            ""
        );
        let said = place.outcome("lamel run --rm --network none -v vol:/d:ro base:1 touch /d/x").stderr;
        assert!(said.contains("Read-only"), "{who:?}: {said}");
        assert_eq!(place.run("lamel volume ls -q"), "mm\nnone\nvol", "{who:?}");
        assert_eq!(place.run("lamel volume rm mm none vol && ls -A store/volumes"), "mm\nnone\nvol\nlock", "{who:?}");
    }
}

#[test]
fn links_and_attributes_come_along_and_are_not_followed() {
    let place = base(Who::Root);
    place.run(
        "mkdir -p t/bin t/v/in && cp /bin/busybox t/bin/sh && ln -s /etc/passwd t/v/link && ln -s ../../.. t/v/in/up && echo x > t/v/f
         ln t/v/f t/v/g && setfattr -n user.a -v b t/v/f && mkfifo t/v/fifo && chmod 1777 t/v && chown 3:4 t/v && ln -s v t/alias && ln -s ../../.. t/out
         tar -C t --format=pax --xattrs --xattrs-include='*' -cf t.tar . && lamel import t.tar l:1 > /dev/null
         lamel create --network none -v one:/v -v two:/alias -v three:/out l:1 sh > /dev/null",
    );
    for name in ["one", "two"] {
        let listed = place.run(&format!("cd store/volumes/{name}/data && stat -c '%n %F %a %u:%g %h' . * in/*"));
        assert_eq!(
            listed,
            ". directory 1777 3:4 3\nf regular file 644 0:0 2\nfifo fifo 644 0:0 1\ng regular file 644 0:0 2\nin directory 755 0:0 2\n\
             link symbolic link 777 0:0 1\nin/up symbolic link 777 0:0 1"
        );
        assert!(place.run(&format!("getfattr -d store/volumes/{name}/data/f")).contains("user.a=\"b\""));
    }
    // The link leads to the image's root, and nowhere further.
    assert_eq!(place.run("ls store/volumes/three/data"), "alias\nbin\nout\nv");
}

#[test]
fn volumes_without_a_name_go_with_their_container() {
    for who in EVERYBODY {
        let place = base(who);
        place.run(
            "lamel commit -c 'VOLUME /d' $(lamel create --network none base:1) v:1 > /dev/null
             lamel run --rm --network none -v /x v:1 sh -c 'echo x > /x/x; cat /d/one'",
        );
        assert_eq!(place.run("lamel volume ls -q"), "", "{who:?}");
        place.run("lamel run --name c1 --network none -v /x -v named:/y v:1 sh -c 'echo y > /d/y'");
        assert_eq!(place.run("lamel volume ls -q | wc -l").trim(), "3", "{who:?}");
        let name = place.run("lamel volume ls -q --filter name=named");
        let said = place.fails("lamel volume rm named");
        assert!(said.contains("volume named is in use by c1"), "{who:?} {name}: {said}");
        // Another container takes them over, and keeps them.
        let seen = place.run("lamel run --name c2 --volumes-from c1:ro --network none base:1 sh -c 'cat /d/y; touch /d/z; ls -d /x /y' 2>&1 || true");
        assert!(seen.contains('y') && seen.contains("Read-only") && seen.contains("/x\n/y"), "{who:?}: {seen}");
        place.run("lamel rm -v c1 > /dev/null");
        assert_eq!(place.run("lamel volume ls -q | wc -l").trim(), "3", "{who:?}");
        place.run("lamel rm -v c2 > /dev/null");
        assert_eq!(place.run("lamel volume ls -q"), "named", "{who:?}");
        // One that cannot be started leaves none behind either.
        place
            .outcome("lamel run --rm --network none -v /x v:1 /nothing; lamel run --network none -v /x -v /x v:1 true");
        assert_eq!(place.run("lamel volume ls -q"), "named", "{who:?}");
    }
}

#[test]
fn the_commands_are_docker_s() {
    let place = base(Who::Root);
    assert_eq!(
        place.run("lamel volume create -l a=b -l c one; lamel volume create two; lamel volume create one"),
        "one\ntwo\none"
    );
    let made = place.run("lamel volume create");
    assert_eq!(made.len(), 64);
    let list = |options: &str| place.run(&format!("lamel volume ls {options}"));
    assert!(list("").starts_with("DRIVER   VOLUME NAME\nlocal    "));
    assert_eq!(list("-q --filter label=a --filter label=c"), "one");
    assert_eq!(list("-q --filter label=a=x"), "");
    assert_eq!(list("--filter name=tw --format '{{.Name}} {{.Driver}}'"), "two local");
    let line: Value = serde_json::from_str(&list("--format json --filter name=one")).unwrap();
    assert_eq!((&line["Name"], &line["Labels"]["a"]), (&"one".into(), &"b".into()));
    let place_of = place.run("lamel volume inspect -f '{{.Mountpoint}}' one");
    assert!(std::path::Path::new(&place_of).is_dir() && place_of.ends_with("/volumes/one/data"), "{place_of}");
    let all: Value = serde_json::from_str(&place.run("lamel volume inspect one two")).unwrap();
    assert_eq!((all.as_array().unwrap().len(), &all[0]["Scope"]), (2, &"local".into()));
    place.run("lamel create --name c1 --network none -v one:/x base:1 > /dev/null");
    assert_eq!(list("-q --filter dangling=false"), "one");
    assert!(place.fails("lamel volume rm one two x").contains("in use by c1"));
    assert_eq!(list("-q | wc -l"), "2");
    assert!(place.fails("lamel volume prune").contains("--force"));
    assert!(place.run("lamel volume prune -f").contains(&made));
    assert_eq!(list("-q"), "one");
    assert!(place.run("lamel rm c1 && lamel volume prune -f --all").contains("one"));
    for bad in ["create a/b", "create ..", "create -d nfs x", "inspect one", "rm one", "ls --filter x=y"] {
        place.fails(&format!("lamel volume {bad}"));
    }
    place.run("lamel volume rm -f one");
    let said = place.fails("lamel run --rm --network none -v a/b:/x base:1 true");
    assert!(said.contains("invalid characters"), "{said}");
}
