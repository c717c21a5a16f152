//! Hard links stay one inode.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use super::kit::*;

const LINKS: &str = "mkdir d; echo old > a; ln a b; ln a d/c";

/// All names are one inode with `nlink` links and this content.
#[track_caller]
fn check(u: &Union, paths: &[&str], nlink: u64, content: &str) {
    let inos: Vec<u64> = paths.iter().map(|p| stat(u.at(p)).ino()).collect();
    assert!(inos.windows(2).all(|w| w[0] == w[1]), "{paths:?}: {inos:?}");
    for path in paths {
        assert_eq!(stat(u.at(path)).nlink(), nlink, "nlink of {path}");
        assert_eq!(u.read(path), content, "content of {path}");
    }
}

#[test]
fn lower_links_are_one_inode_after_copy_up_through_any_name() {
    for name in ["a", "b", "d/c"] {
        let mut u = Union::new(LINKS);
        let ino = stat(u.at("a")).ino();
        check(&u, &["a", "b", "d/c"], 3, "old\n");
        File::options().append(true).open(u.at(name)).unwrap().write_all(b"new\n").unwrap();
        check(&u, &["a", "b", "d/c"], 3, "old\nnew\n");
        assert_eq!(stat(u.at("a")).ino(), ino);
        u.m.remount();
        check(&u, &["d/c", "b", "a"], 3, "old\nnew\n");
        assert_eq!(stat(u.at("a")).ino(), ino);
    }
}

#[test]
fn attributes_change_under_every_name() {
    let mut u = Union::new(LINKS);
    fs::set_permissions(u.at("b"), fs::Permissions::from_mode(0o600)).unwrap();
    set(u.at("d/c"), "user.x", "y").unwrap();
    for _ in 0..2 {
        for path in ["a", "b", "d/c"] {
            assert_eq!(mode(u.at(path)), 0o600, "{path}");
            assert_eq!(get(u.at(path), "user.x").unwrap(), b"y", "{path}");
        }
        u.m.remount();
    }
}

#[test]
fn unlinked_names_are_counted_down() {
    let mut u = Union::new(LINKS);
    fs::remove_file(u.at("a")).unwrap();
    check(&u, &["b", "d/c"], 2, "old\n");
    u.m.remount();
    check(&u, &["b", "d/c"], 2, "old\n");
    u.run("echo new >> b; rm d/c");
    check(&u, &["b"], 1, "old\nnew\n");
    u.m.remount();
    check(&u, &["b"], 1, "old\nnew\n");
    u.run("rm b; test ! -e b; test ! -e a; echo other > a");
    u.m.remount();
    check(&u, &["a"], 1, "other\n");
}

#[test]
fn new_links_are_counted_up() {
    let mut u = Union::new(LINKS);
    fs::hard_link(u.at("b"), u.at("d/e")).unwrap();
    check(&u, &["a", "b", "d/c", "d/e"], 4, "old\n");
    u.run("echo new > d/e; rm b");
    check(&u, &["a", "d/c", "d/e"], 3, "new\n");
    u.m.remount();
    check(&u, &["a", "d/c", "d/e"], 3, "new\n");
}

#[test]
fn every_step_is_as_on_a_disk() {
    as_native(LINKS, |dir| {
        let at = |p: &str| dir.join(p);
        let mut counts = Vec::new();
        let mut step = |f: &dyn Fn()| {
            f();
            let links =
                ["a", "b", "d/c", "n", "m"].map(|p| fs::symlink_metadata(at(p)).ok().map(|m| (m.nlink(), m.size())));
            counts.push(links);
        };
        step(&|| {});
        step(&|| fs::hard_link(at("a"), at("n")).unwrap());
        step(&|| fs::rename(at("a"), at("m")).unwrap());
        step(&|| fs::rename(at("m"), at("n")).unwrap()); // same inode: both names stay
        step(&|| fs::write(at("b"), "longer content").unwrap());
        step(&|| fs::remove_file(at("b")).unwrap());
        step(&|| fs::write(at("b"), "another file").unwrap());
        step(&|| fs::rename(at("b"), at("d/c")).unwrap()); // replaces one name
        step(&|| fs::remove_file(at("n")).unwrap());
        step(&|| fs::remove_file(at("m")).unwrap());
        counts
    });
}

#[test]
fn a_link_to_a_lower_file() {
    let mut u = Union::new("echo x > f; ln -s f s; mkfifo p");
    let ino = stat(u.at("f")).ino();
    u.run("ln f g; ln -P s t; ln p q");
    check(&u, &["f", "g"], 2, "x\n");
    u.m.remount();
    check(&u, &["f", "g"], 2, "x\n");
    assert_eq!(stat(u.at("g")).ino(), ino);
    assert_eq!(stat(u.at("s")).ino(), stat(u.at("t")).ino());
    assert_eq!(stat(u.at("q")).nlink(), 2);
    assert!(stat(u.at("t")).is_symlink());
}

#[test]
fn an_open_handle_sees_writes_through_another_name() {
    let u = Union::new(LINKS);
    let mut writer = File::options().append(true).open(u.at("a")).unwrap();
    writer.write_all(b"1").unwrap();
    let mut reader = File::open(u.at("d/c")).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old\n1");
    writer.write_all(b"2").unwrap();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old\n12");
}

#[test]
fn the_last_name_gone_while_open() {
    let u = Union::new(LINKS);
    let file = open_rw(u.at("b"));
    u.run("rm a b");
    assert_eq!(file.metadata().unwrap().nlink(), 1);
    u.run("rm d/c");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    (&file).write_all(b"NEW").unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4);
}

#[test]
fn directory_link_counts_are_right_or_one() {
    let u = Union::with(&["mkdir -p m/x l; mkdir -p m/both", "mkdir -p m/y m/z m/both n/1 n/2"], &[]);
    let check = |dir: &str, subdirs: u64| {
        let nlink = stat(u.at(dir)).nlink();
        assert!(nlink == 1 || nlink == 2 + subdirs, "{dir}: {nlink} with {subdirs} subdirectories");
    };
    check("m", 4);
    check("n", 2);
    check("l", 0);
    check("", 3);
    u.run("mkdir m/new n/new fresh fresh/1; rmdir m/y n/1");
    check("m", 4);
    check("n", 2);
    check("fresh", 1);
    check("", 4);
}

#[test]
fn links_in_two_layers_are_two_inodes() {
    // The same names in two lowers: the top one's group hides the other's, but for the name it lacks.
    let u = Union::with(&["echo top > a; ln a b", "echo low > a; ln a b; ln a c"], &[]);
    assert_eq!(u.read("c"), "low\n");
    assert_eq!(stat(u.at("a")).ino(), stat(u.at("b")).ino());
    assert_ne!(stat(u.at("a")).ino(), stat(u.at("c")).ino());
    u.run("echo x >> c");
    assert_eq!(u.read("a"), "top\n");
    assert_eq!(u.read("c"), "low\nx\n");
}

/// Without metacopies no index counts the names of a lower file: the daemon does, until the unmount.
#[test]
fn a_removed_name_counts_once_without_metacopies() {
    let u = Union::with(&[LINKS], &["metacopy=off"]);
    let handle = File::open(u.at("a")).unwrap();
    fs::remove_file(u.at("a")).unwrap();
    assert_eq!(handle.metadata().unwrap().nlink(), 2);
    check(&u, &["b", "d/c"], 2, "old\n");
    u.run("rm b d/c");
    assert_eq!(handle.metadata().unwrap().nlink(), 0);
}
