//! The checks on which FUSE unions differ where ext4 and kernel overlayfs agree.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    io::Errno,
};

use super::{kit::*, sys::Mapping};

#[test]
fn umask_077_on_touch_mkfifo_mkdir() {
    as_native("mkdir d", |dir| run_in(&dir.join("d"), "umask 077; touch f; mkfifo p; mkdir d; stat -c '%a %n' *"));
}

#[test]
fn mkdir_file_and_fifo_in_a_setgid_directory() {
    as_native("mkdir d; chgrp 77 d; chmod 2755 d", |dir| {
        run_in(&dir.join("d"), "umask 022; mkdir d; touch f; mkfifo p; stat -c '%a %g %n' *")
    });
}

#[test]
fn setuid_is_cleared_by_a_strangers_write() {
    as_native("echo x > f; chmod 4777 f", |dir| {
        as_user(STRANGER, STRANGER, &[], || {
            File::options().append(true).open(dir.join("f")).unwrap().write_all(b"y").unwrap();
        });
        assert_eq!(mode(dir.join("f")), 0o777);
    });
}

/// Kernel overlayfs: tells the links that the lower object still has.
#[test]
fn nlink_of_a_removed_directory_and_of_a_replaced_file() {
    as_native("mkdir d; echo old > f", |dir| {
        fs::create_dir(dir.join("n")).unwrap();
        let handles = [
            File::open(dir.join("d")).unwrap(),
            File::open(dir.join("f")).unwrap(),
            File::open(dir.join("n")).unwrap(),
        ];
        fs::remove_dir(dir.join("d")).unwrap();
        fs::remove_dir(dir.join("n")).unwrap();
        fs::write(dir.join("g"), "new").unwrap();
        fs::rename(dir.join("g"), dir.join("f")).unwrap();
        handles.map(|h| h.metadata().unwrap().nlink())
    });
}

#[test]
fn readdir_while_deleting_misses_nothing() {
    // One pass over an open directory that removes what it is given must empty it.
    let lower = "mkdir d; cd d; for i in $(seq 1500); do : > low-$i; done";
    let u = Union::with(&["mkdir d; cd d; for i in $(seq 500); do : > top-$i; done", lower], &[]);
    for i in 0..500 {
        fs::write(u.at(format!("d/new-{i}")), "").unwrap();
    }
    let mut gone = 0;
    for entry in fs::read_dir(u.at("d")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
        gone += 1;
    }
    assert_eq!(gone, 2500);
    fs::remove_dir(u.at("d")).unwrap();
}

#[test]
fn a_tree_of_random_operations_is_removed_by_rm() {
    let u = Union::new("for i in $(seq 20); do mkdir -p a/$i/b; for j in $(seq 20); do echo > a/$i/b/$j; done; done");
    u.run(
        "RANDOM=7; for k in $(seq 400); do i=$((RANDOM % 20 + 1)); j=$((RANDOM % 20 + 1)); o=$((RANDOM % 20 + 1)); case $((RANDOM % 6)) in \
         0) rm -f a/$i/b/$j;; 1) mv -f a/$i/b/$j a/$o/b/ 2>/dev/null || true;; 2) echo x >> a/$i/b/$j 2>/dev/null || true;; \
         3) ln -f a/$i/b/$j a/$o/l$k 2>/dev/null || true;; 4) mkdir -p a/$i/n$k;; 5) mv -T a/$i a/r$k 2>/dev/null || true;; esac; done; \
         rm -rf a; test ! -e a",
    );
}

#[test]
fn device_zero_is_refused() {
    let u = Union::new("true");
    let made = mknodat(CWD, u.at("c"), FileType::CharacterDevice, Mode::from_raw_mode(0o644), 0);
    assert_eq!(made, Err(Errno::PERM));
}

#[test]
fn a_name_too_long_is_enametoolong() {
    let u = Union::new("true");
    assert_eq!(verdict(fs::symlink_metadata(u.at("n".repeat(256)))), Err(Errno::NAMETOOLONG));
    assert_eq!(verdict(File::create(u.at("n".repeat(256)))), Err(Errno::NAMETOOLONG));
}

#[test]
fn st_ino_is_the_same_after_rename() {
    let u = Union::new("echo f > f; mkdir d; ln -s x l");
    for name in ["f", "d", "l"] {
        let before = stat(u.at(name)).ino();
        fs::rename(u.at(name), u.at("moved")).unwrap();
        assert_eq!(stat(u.at("moved")).ino(), before, "{name}");
        fs::rename(u.at("moved"), u.at(name)).unwrap();
        assert_eq!(stat(u.at(name)).ino(), before, "{name}");
    }
}

#[test]
fn xattrs_of_a_symlink_are_its_own() {
    as_native("echo t > target; ln -s target lower", |dir| {
        symlink("target", dir.join("upper")).unwrap();
        let mut out = vec![];
        for link in ["lower", "upper"] {
            set(dir.join(link), "trusted.link", link).unwrap();
            out.push((get(dir.join(link), "trusted.link"), set(dir.join(link), "user.x", "y"), list(dir.join(link))));
        }
        (out, list(dir.join("target")))
    });
}

#[test]
fn default_acls_and_the_mode_mask() {
    as_native("mkdir d; setfacl -m d:u:7:rwx,d:m::rx d", |dir| {
        run_in(&dir.join("d"), "umask 077; touch f; mkdir d; mkfifo p; stat -c '%a %n' *; getfacl -n f d p")
    });
}

#[test]
fn a_mapped_store_moves_mtime() {
    let u = Union::new("head -c 4096 /dev/zero > f; touch -d @1000 f");
    let file = open_rw(u.at("f"));
    let mut map = Mapping::shared(&file, 4096, true);
    map.set(0, 1);
    map.sync();
    drop((map, file));
    assert!(stat(u.at("f")).modified().unwrap() > SystemTime::now() - Duration::from_secs(600));
}

#[test]
fn atime_as_the_mount_says() {
    let old = "mkdir d; echo x > f; touch -a -d @1000 f; echo x > d/g; touch -a -d @1000 d/g";
    // The default, noatime: reading moves nothing, and copies nothing.
    let u = Union::with(&[old], &["noatime"]);
    u.run("cat f d/g > /dev/null");
    assert_eq!((stat(u.at("f")).atime(), stat(u.at("d/g")).atime()), (1000, 1000));
    assert_eq!(stat(u.s.join("lower0/f")).atime(), 1000);
    // Through passthrough the upper's own filesystem keeps atime, as its mount says.
    let u = Union::with(&[old], &["noatime", "io=cached"]);
    u.run("echo y >> f; touch -a -d @2000 f; cat f > /dev/null");
    assert_eq!(stat(u.at("f")).atime(), 2000);
}

#[test]
fn an_error_in_the_middle_leaves_the_old_state() {
    // An upper without a free inode: every step that would need one fails, and changes nothing.
    let s = Scratch::new();
    let base = s.dir("small");
    sh(&format!("mount -t tmpfs -o size=8m,nr_inodes=12 tmpfs {}", base.display()));
    run_in(&s.lower(0), "mkdir -p d/sub e; echo a > d/a; echo f > f; ln f h; ln -s x l");
    for name in ["upper", "work"] {
        fs::create_dir(base.join(name)).unwrap();
    }
    let stack = Stack {
        lowers: vec![s.lower(0)],
        upper: Some((base.join("upper"), base.join("work"))),
        mnt: s.mnt(),
        opts: vec![],
    };
    let m = subject().mount_stack(stack);
    let mut u = Union { m, s };
    let mut filler = 0;
    while File::create(base.join(format!("filler{filler}"))).is_ok() {
        filler += 1;
    }
    let before = dump(u.root());
    let at = |p: &str| u.at(p);
    let failed = [
        verdict(fs::set_permissions(at("f"), fs::Permissions::from_mode(0o600))),
        verdict(fs::rename(at("d"), at("moved"))),
        verdict(fs::rename(at("d/a"), at("e/a"))),
        verdict(fs::rename(at("f"), at("l"))),
        verdict(fs::write(at("d/a"), "x")),
        verdict(fs::write(at("d/new"), "x")),
        verdict(fs::create_dir(at("n"))),
        verdict(fs::hard_link(at("f"), at("d/f"))),
        verdict(fs::remove_file(at("d/a"))),
        set(at("d"), "user.x", "y"),
    ];
    for (i, verdict) in failed.iter().enumerate() {
        assert_eq!(*verdict, Err(Errno::NOSPC), "step {i}");
    }
    let how = Compare { dir_mtime: true, ino: true, ..Compare::CONTENT };
    assert_same("after the failures", &before, &dump(u.root()), how);
    for i in 0..filler {
        fs::remove_file(base.join(format!("filler{i}"))).unwrap();
    }
    u.m.remount();
    assert_same("after a remount", &before, &dump(u.root()), how);
    assert_eq!(names(base.join("work/work")), [""; 0]);
    u.run("chmod 600 f; mv d moved; rm moved/a");
}
