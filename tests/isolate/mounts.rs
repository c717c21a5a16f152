//! Bind mounts whose owners or propagation are not the plain ones.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};

use super::kit::*;

/// Files of 0, 1000 and 70000 in a directory of the host's.
fn owned(ground: &Ground) -> String {
    let dir = ground.scratch.dir("owned");
    for id in [0, 1000, 70_000] {
        fs::write(dir.join(id.to_string()), "").unwrap();
        chown(dir.join(id.to_string()), Some(id), Some(id)).unwrap();
    }
    dir.display().to_string()
}

const SEEN: &str = "cd /x && stat -c '%n=%u:%g' 0 1000 70000 | tr '\\n' ' '";

#[test]
fn owners_are_shown_as_others() {
    let ground = Ground::new(Who::Root);
    let dir = owned(&ground);
    sh(&format!("chown -R 100000:100000 {}", ground.root().display()));
    let user = ["--uidmap", "0:100000:65536"];
    let seen = |option: &str, more: &[&str]| {
        let volume = format!("{dir}:/x:{option}");
        ground.run(&[&user[..], &["-v", &volume], more].concat(), SEEN)
    };
    let nobody = 65534;
    assert_eq!(seen("rw", &[]), format!("0={nobody}:{nobody} 1000={nobody}:{nobody} 70000={nobody}:{nobody}"));
    // The container's own maps: what is root's on the disk is root's inside.
    assert_eq!(seen("idmap", &[]), format!("0=0:0 1000=1000:1000 70000={nobody}:{nobody}"));
    let own = "idmap=uids=70000-100005-1#0-100000-1;gids=@1000-7-1";
    assert_eq!(seen(own, &[]), format!("0=0:{nobody} 1000={nobody}:7 70000=5:{nobody}"));
    let mount = format!("type=bind,src={dir},dst=/x,idmap,readonly");
    let all = [&user[..], &["--mount", &mount]].concat();
    assert_eq!(
        ground.run(&all, &format!("{SEEN}; touch y 2>&1 | grep -c Read-only")),
        "0=0:0 1000=1000:1000 70000=65534:65534 1"
    );
    // What is made there has the owner that it seems to have.
    let volume = format!("{dir}:/x:idmap");
    ground.run(&[&user[..], &["-v", &volume]].concat(), "touch /x/made && chown 12:13 /x/made");
    let made = fs::metadata(ground.scratch.join("owned/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (12, 13));
}

#[test]
fn without_a_user_namespace_the_mount_has_maps_of_its_own() {
    let ground = Ground::new(Who::Root);
    let dir = owned(&ground);
    let volume = format!("{dir}:/x:idmap=uids=0-0-1#1000-70000-1;gids=0-0-2000");
    assert_eq!(ground.run(&["-v", &volume], SEEN), "0=0:0 1000=70000:1000 70000=65534:65534");
    ground.refused(&["-v", &format!("{dir}:/x:idmap")], &["idmap needs a user namespace"]);
    ground.refused(&["-v", &format!("{dir}:/x:idmap=uids=0-0-1")], &["without gids needs a user namespace"]);
    ground.refused(&["-v", "/proc/sys:/x:idmap=uids=0-0-1;gids=0-0-1"], &["idmapped mount", "filesystem cannot"]);
}

#[test]
fn who_is_not_the_filesystem_s_root_is_told_so() {
    for who in [Who::User, Who::Alone] {
        let ground = Ground::new(who);
        let dir = ground.dir("own").display().to_string();
        ground.refused(&["-v", &format!("{dir}:/x:idmap")], &["idmapped mount", "only the host's root"]);
    }
}
