//! st_ino: stable, unique, the same in readdir.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::kit::*;

const EVERY_TYPE: &str = "echo f > f; ln f h; mkdir -p d/e; echo g > d/e/g; ln -s f l; mkfifo p; mknod c c 1 3";
const NAMES: [&str; 8] = ["f", "h", "d", "d/e", "d/e/g", "l", "p", "c"];

fn inos(u: &Union) -> Vec<(String, u64)> {
    NAMES.iter().map(|n| ((*n).to_owned(), stat(u.at(n)).ino())).collect()
}

#[test]
fn st_ino_survives_copy_up_and_remount_for_every_type() {
    let mut u = Union::new(EVERY_TYPE);
    let before = inos(&u);
    u.run("chmod 700 d; touch -h -d @1 l; touch -d @1 p c; echo x >> f; echo y >> d/e/g; echo n > d/n");
    assert_eq!(inos(&u), before, "after copy-up");
    u.m.remount();
    assert_eq!(inos(&u), before, "after remount");
    u.run("echo z >> f; chmod 755 d");
    assert_eq!(inos(&u), before, "after the second change");
}

#[test]
fn st_ino_survives_metacopy_then_copy_up() {
    let mut u = Union::new("echo f > f");
    let ino = stat(u.at("f")).ino();
    u.run("chmod 600 f");
    assert_eq!(stat(u.at("f")).ino(), ino);
    u.m.remount();
    assert_eq!(stat(u.at("f")).ino(), ino);
    u.run("echo more >> f");
    assert_eq!(stat(u.at("f")).ino(), ino);
    u.m.remount();
    assert_eq!(stat(u.at("f")).ino(), ino);
}

#[test]
fn st_ino_survives_rename() {
    let mut u = Union::new(EVERY_TYPE);
    let before = inos(&u);
    u.run("mkdir x; mv f x/f; mv h x/h; mv d x/d; mv l x/l; mv p x/p; mv c x/c");
    let moved = |u: &Union| -> Vec<(String, u64)> {
        let ino = |n: &str| stat(u.at("x").join(n)).ino();
        NAMES.iter().map(|n| ((*n).to_owned(), ino(n))).collect()
    };
    assert_eq!(moved(&u), before);
    u.m.remount();
    assert_eq!(moved(&u), before);
}

#[test]
fn st_ino_of_new_objects_survives_remount() {
    let mut u = Union::new("true");
    u.run(EVERY_TYPE);
    let before = inos(&u);
    u.m.remount();
    assert_eq!(inos(&u), before);
}

fn walk(root: &Path) -> Vec<(PathBuf, fs::Metadata, u64)> {
    let mut out = vec![];
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let meta = stat(entry.path());
            if meta.is_dir() {
                todo.push(entry.path());
            }
            out.push((entry.path(), meta, entry.ino()));
        }
    }
    out
}

fn check_unique(u: &Union) {
    let dev = stat(u.root()).dev();
    let mut seen: HashMap<u64, PathBuf> = HashMap::new();
    seen.insert(stat(u.root()).ino(), u.root().to_owned());
    for (path, meta, d_ino) in walk(u.root()) {
        assert_eq!(meta.dev(), dev, "st_dev of {}", path.display());
        assert_eq!(meta.ino(), d_ino, "d_ino of {}", path.display());
        if (meta.is_dir() || meta.nlink() == 1)
            && let Some(other) = seen.insert(meta.ino(), path.clone())
        {
            panic!("{} and {} are both {}", path.display(), other.display(), meta.ino());
        }
    }
}

/// Kernel overlayfs: directories over several filesystems have other st_ino and st_dev without xino.
#[test]
fn st_ino_is_unique_over_filesystems() {
    // Three fresh tmpfs number their objects alike, and ext4's numbers are small too.
    let s = Scratch::new();
    let mut lowers = vec![];
    for i in 0..3 {
        let dir = tmpfs(&s, &format!("fs{i}"), "1m");
        run_in(&dir, &format!("mkdir -p d{i} both; echo > d{i}/f; echo > f{i}; echo > both/b{i}; ln -s x l{i}"));
        lowers.push(dir);
    }
    lowers.push(s.lower(0));
    run_in(&s.lower(0), "mkdir -p d both; for i in $(seq 50); do echo > both/x$i; done");
    let stack = Stack { lowers, upper: Some((s.upper(), s.work())), mnt: s.mnt(), opts: vec![] };
    let m = subject().mount_stack(stack);
    let mut u = Union { m, s };
    check_unique(&u);
    let before: HashMap<_, _> = walk(u.root()).into_iter().map(|(p, _, i)| (p, i)).collect();
    u.run("for i in 0 1 2; do echo x >> f$i; chmod 600 both/b$i; done; echo n > n; mkdir dn; mv d1 moved; mv moved d1");
    check_unique(&u);
    u.m.remount();
    check_unique(&u);
    for (path, meta, _) in walk(u.root()) {
        if let Some(&ino) = before.get(&path) {
            assert_eq!(meta.ino(), ino, "{}", path.display());
        }
    }
}

#[test]
fn d_ino_is_st_ino() {
    let mut u = Union::with(&["mkdir m; echo 1 > m/1; echo > t", EVERY_TYPE, "mkdir m; echo 2 > m/2"], &[]);
    check_unique(&u);
    u.run("echo x >> m/2; chmod 600 f; mv d m/d; echo new > m/new; rm t; ln m/1 m/11");
    check_unique(&u);
    u.m.remount();
    check_unique(&u);
}

/// Kernel overlayfs: `..` of a directory of one layer has the number of that layer's parent.
#[test]
fn dot_and_dotdot_have_the_numbers_of_their_directories() {
    let u = Union::with(&["mkdir -p d/e", "mkdir -p d/e/f"], &[]);
    for dir in ["d", "d/e", "d/e/f"] {
        let fd = fs::File::open(u.at(dir)).unwrap();
        let mut stream = rustix::fs::Dir::read_from(&fd).unwrap();
        let mut found = 0;
        while let Some(entry) = stream.read() {
            let entry = entry.unwrap();
            let want = match entry.file_name().to_bytes() {
                b"." => stat(u.at(dir)).ino(),
                b".." => stat(u.at(dir).parent().unwrap()).ino(),
                _ => continue,
            };
            assert_eq!(entry.ino(), want, "{:?} of {dir}", entry.file_name());
            found += 1;
        }
        assert_eq!(found, 2, "{dir}");
    }
}

#[test]
fn d_type_is_the_type() {
    let u = Union::with(&["echo > t; chmod 600 t", EVERY_TYPE], &[]);
    u.run("chmod 600 f; mv p q; ln -s x y");
    for entry in fs::read_dir(u.root()).unwrap() {
        let entry = entry.unwrap();
        let (fast, slow) = (entry.file_type().unwrap(), stat(entry.path()).file_type());
        assert_eq!(fast, slow, "{}", entry.path().display());
    }
}

#[test]
fn st_ino_survives_eviction_from_the_caches() {
    let u = Union::new(EVERY_TYPE);
    u.run("echo n > n; mkdir dn; chmod 600 f; mv d e; mv e d");
    let before = inos(&u);
    drop_caches();
    assert_eq!(inos(&u), before);
}

#[test]
fn numbers_are_not_reused_for_a_copied_up_object() {
    // ext4 gives the number of a removed file to the next new one: none may collide with a living lower's number.
    let u = Union::new("for i in $(seq 100); do echo $i > f$i; done");
    u.run("for i in $(seq 100); do echo x >> f$i; done; for i in $(seq 50); do rm f$i; echo n > n$i; done");
    check_unique(&u);
}
