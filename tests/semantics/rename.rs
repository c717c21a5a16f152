//! Renames: redirects instead of EXDEV, over remounts, and what POSIX says of the rest.

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use std::{fs, path::Path};

use super::kit::*;

const TREE: &str = "mkdir -p d/sub/deep; echo a > d/a; echo b > d/sub/b; echo c > d/sub/deep/c; ln -s a d/link";

fn rename(u: &Union, from: &str, to: &str) {
    fs::rename(u.at(from), u.at(to)).unwrap_or_else(|e| panic!("rename {from} {to}: {e}"));
}

fn rename_flags(dir: &Path, from: &str, to: &str, flags: RenameFlags) -> Result<(), Errno> {
    renameat_with(CWD, dir.join(from), CWD, dir.join(to), flags)
}

fn redirect(u: &Union, path: &str) -> String {
    let value = get(u.up(path), "trusted.overlay.redirect").unwrap_or_else(|e| panic!("redirect of {path}: {e}"));
    String::from_utf8(value).unwrap()
}

fn check_moved(u: &Union, to: &str) {
    assert_eq!(u.read(&format!("{to}/a")), "a\n");
    assert_eq!(u.read(&format!("{to}/sub/b")), "b\n");
    assert_eq!(u.read(&format!("{to}/sub/deep/c")), "c\n");
    assert_eq!(names(u.at(to)), ["a", "link", "sub"]);
}

#[test]
fn lower_directory_is_a_redirect() {
    let mut u = Union::new(TREE);
    rename(&u, "d", "e");
    assert!(!exists(u.at("d")));
    check_moved(&u, "e");
    assert_eq!(redirect(&u, "e"), "/d");
    assert!(is_whiteout(u.up("d")));
    assert_eq!(names(u.up("e")), [""; 0], "nothing below is copied");
    u.m.remount();
    assert!(!exists(u.at("d")));
    check_moved(&u, "e");
}

#[test]
fn a_redirect_reads_the_same_in_kernel_overlayfs() {
    let mut u = Union::new(TREE);
    u.run("mkdir -p x/y");
    rename(&u, "d", "x/y/e");
    u.run("echo new > x/y/e/new; mv x/y/e/sub x/s");
    let tree = dump(u.root());
    u.m.unmount();
    let m = Subject::overlayfs_full().mount(&u.s, 1, true, &[]);
    let how = Compare { root: false, ..Compare::CONTENT };
    assert_same("kernel overlayfs", &tree, &dump(m.root()), how);
}

#[test]
fn merged_directory_keeps_both_sides() {
    let mut u = Union::with(&["mkdir d; echo top > d/a; echo t > d/t", TREE], &[]);
    u.run("echo up > d/up; rm d/link; mv d e; test ! -e d");
    let check = |u: &Union| {
        assert_eq!(names(u.at("e")), ["a", "sub", "t", "up"]);
        assert_eq!(u.read("e/a"), "top\n");
        assert_eq!(u.read("e/sub/deep/c"), "c\n");
        assert_eq!(u.read("e/up"), "up\n");
    };
    check(&u);
    u.m.remount();
    check(&u);
}

#[test]
fn to_another_parent_is_an_absolute_redirect() {
    let mut u = Union::new(&format!("{TREE}; mkdir x"));
    rename(&u, "d/sub", "x/s");
    assert_eq!(redirect(&u, "x/s"), "/d/sub");
    u.m.remount();
    assert_eq!(u.read("x/s/deep/c"), "c\n");
    assert!(!exists(u.at("d/sub")));
}

#[test]
fn repeated_renames_follow_to_the_origin() {
    let mut u = Union::new(&format!("{TREE}; mkdir x"));
    rename(&u, "d", "e");
    u.m.remount();
    rename(&u, "e", "x/f");
    check_moved(&u, "x/f");
    u.m.remount();
    rename(&u, "x/f/sub", "x/f/sub2");
    rename(&u, "x", "y");
    u.m.remount();
    assert_eq!(u.read("y/f/sub2/deep/c"), "c\n");
    rename(&u, "y/f/sub2", "y/f/sub");
    rename(&u, "y/f", "d");
    check_moved(&u, "d");
    u.m.remount();
    check_moved(&u, "d");
}

#[test]
fn child_of_a_renamed_directory_keeps_its_redirect() {
    let mut u = Union::new(TREE);
    rename(&u, "d/sub", "d/sub2");
    rename(&u, "d", "e");
    u.run("test ! -e e/sub");
    u.m.remount();
    u.run("test ! -e e/sub");
    assert_eq!(u.read("e/sub2/deep/c"), "c\n");
}

#[test]
fn the_old_name_starts_empty() {
    let mut u = Union::new(TREE);
    rename(&u, "d", "e");
    u.run("mkdir d d/sub; echo n > d/sub/n");
    let check = |u: &Union| {
        assert_eq!(names(u.at("d")), ["sub"]);
        assert_eq!(names(u.at("d/sub")), ["n"]);
        check_moved(u, "e");
    };
    check(&u);
    u.m.remount();
    check(&u);
}

#[test]
fn renamed_upper_directory_hides_the_lower_of_its_new_name() {
    let mut u = Union::new(&format!("{TREE}; mkdir gone; echo x > gone/x"));
    u.run("mkdir n; echo 1 > n/1; rm -r gone; mv n gone");
    assert_eq!(names(u.at("gone")), ["1"]);
    u.m.remount();
    assert_eq!(names(u.at("gone")), ["1"]);
}

#[test]
fn over_an_emptied_merged_directory() {
    let fill = &format!("{TREE}; mkdir t; echo old > t/old");
    as_native(fill, |dir| {
        let full = verdict(fs::rename(dir.join("d"), dir.join("t")));
        assert_eq!(full, Err(Errno::NOTEMPTY));
        fs::remove_file(dir.join("t/old")).unwrap();
        let emptied = verdict(fs::rename(dir.join("d"), dir.join("t")));
        (emptied, names(dir), names(dir.join("t")))
    });
}

#[test]
fn onto_wrong_types_and_into_itself() {
    as_native(&format!("{TREE}; echo f > f; mkdir e"), |dir| {
        [("d", "f"), ("f", "d"), ("d", "d/sub/x"), ("d", "d/sub"), ("none", "x"), ("f", "f")]
            .map(|(from, to)| verdict(fs::rename(dir.join(from), dir.join(to))))
    });
}

#[test]
fn noreplace() {
    as_native(&format!("{TREE}; echo f > f"), |dir| {
        [("f", "d"), ("f", "d/a"), ("d", "f"), ("f", "g"), ("d", "e"), ("g", "d")]
            .map(|(from, to)| rename_flags(dir, from, to, RenameFlags::NOREPLACE))
    });
}

#[test]
fn exchange_of_everything_with_everything() {
    as_native(&format!("{TREE}; echo f > f; mkdir e; echo ee > e/e; ln -s d l; mkfifo p"), |dir| {
        fs::create_dir(dir.join("n")).unwrap();
        fs::write(dir.join("n/n"), "n").unwrap();
        fs::write(dir.join("u"), "u").unwrap();
        let pairs = [
            ("f", "d/a"),   // lower files
            ("d", "e"),     // lower directories
            ("d/e", "f"),   // of which one moved before
            ("n", "d"),     // pure upper directory with a moved one
            ("l", "u"),     // symlink with an upper file
            ("p", "n"),     // fifo with a directory
            ("e/sub", "f"), // different parents, directory with a file
            ("none", "f"),
        ];
        let outcome = pairs.map(|(a, b)| rename_flags(dir, a, b, RenameFlags::EXCHANGE));
        // A directory cannot be exchanged with its own ancestor.
        let loops = rename_flags(dir, "e", "e/sub", RenameFlags::EXCHANGE);
        (outcome, loops)
    });
}

#[test]
fn exchange_of_lower_directories_survives_remount() {
    let mut u = Union::new(&format!("{TREE}; mkdir e; echo ee > e/e"));
    rename_flags(u.root(), "d", "e", RenameFlags::EXCHANGE).unwrap();
    for _ in 0..2 {
        check_moved(&u, "e");
        assert_eq!(names(u.at("d")), ["e"]);
        u.m.remount();
    }
    rename_flags(u.root(), "d", "e", RenameFlags::EXCHANGE).unwrap();
    u.m.remount();
    check_moved(&u, "d");
    assert_eq!(names(u.at("e")), ["e"]);
}

#[test]
fn objects_of_every_type() {
    as_native("echo f > f; ln -s t l; mkfifo p; mknod c c 1 3; mknod b b 7 0; mkdir d; ln f h", |dir| {
        fs::create_dir(dir.join("new")).unwrap();
        for name in ["f", "l", "p", "c", "b", "d", "h"] {
            fs::rename(dir.join(name), dir.join("new").join(name)).unwrap();
        }
        names(dir)
    });
}

#[test]
fn of_a_lower_file_copies_no_data_and_reads_after_remount() {
    let mut u = Union::new("mkdir d e; head -c 1000000 /dev/zero | tr '\\0' x > d/f");
    rename(&u, "d/f", "e/g");
    assert!(disk_usage(u.up("")) < 200_000);
    u.m.remount();
    assert_eq!(fs::read(u.at("e/g")).unwrap(), vec![b'x'; 1_000_000]);
    u.run("echo y >> e/g; mv e/g f");
    u.m.remount();
    assert_eq!(stat(u.at("f")).len(), 1_000_002);
}

#[test]
fn redirects_of_a_lower_layer_are_followed() {
    // The upper of one mount is the lower of the next, as container stores stack them.
    let mut first = Union::new(TREE);
    first.run("mv d e; echo 2 > e/two");
    first.m.unmount();
    let (s, upper) = (&first.s, first.s.upper());
    let stack = Stack {
        lowers: vec![upper, s.lower(0)],
        upper: Some((s.dir("upper2"), s.dir("work2"))),
        mnt: s.mnt(),
        opts: vec![],
    };
    let mut m = subject().mount_stack(stack);
    m.run("test ! -e d; test $(cat e/sub/deep/c) = c; test $(cat e/two) = 2; mv e f");
    m.remount();
    m.run("test ! -e d; test ! -e e; test $(cat f/sub/deep/c) = c; test $(cat f/two) = 2");
}

/// Kernel overlayfs: metacopy=on conflicts with redirect_dir=off.
#[test]
fn without_redirects_only_pure_directories_move() {
    let s = Scratch::new();
    run_in(&s.lower(0), TREE);
    let m = subject().mount(&s, 1, true, &["redirect_dir=off"]);
    let lower = verdict(fs::rename(m.join("d"), m.join("e")));
    assert_eq!(lower, Err(Errno::XDEV));
    m.run("mkdir n; echo n > n/n; mv n m; test $(cat m/n) = n");
    // mv falls back to a copy, and what it leaves is whole.
    m.run("mv d e; test $(cat e/sub/deep/c) = c; test ! -e d");
}

#[test]
fn a_working_directory_moves_along() {
    let u = Union::new(TREE);
    u.run("cd d/sub; mv ../../d ../../e 2>/dev/null || mv ../../d $OLDPWD/e; cat b; echo n > n; cat ../../e/sub/n");
    check_moved(&u, "e");
}

/// Kernel overlayfs: refuses it too.
#[test]
fn whiteout_is_refused() {
    let u = Union::new("echo f > f; mkdir d");
    fs::write(u.at("n"), "n").unwrap();
    for name in ["f", "d", "n"] {
        assert_eq!(rename_flags(u.root(), name, "to", RenameFlags::WHITEOUT), Err(Errno::INVAL), "{name}");
        assert!(exists(u.at(name)) && !exists(u.at("to")));
    }
}
