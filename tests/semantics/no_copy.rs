//! What need not be copied is not copied. The upper is a tmpfs of a few MiB: a copy of the lower's 32 MiB would be
//! refused for want of space.

use std::{
    fs::{self, File},
    io::{Seek, Write},
    os::unix::fs::{FileExt, MetadataExt},
    time::{Duration, SystemTime},
};

use rustix::fs::{SeekFrom, seek};

use super::kit::*;

const BIG: usize = 32 << 20;

/// A big lower file `big`, its twin `big2` and a directory of both under an upper that has no room for them.
fn cramped() -> Union {
    cramped_with(&[])
}

fn cramped_with(opts: &[&str]) -> Union {
    let s = Scratch::new();
    let low = s.lower(0);
    write_pattern(low.join("big"), BIG);
    run_in(&low, "cp big big2; mkdir d; ln big d/hard; ln big2 d/big");
    let small = tmpfs(&s, "small", "4m");
    fs::create_dir(small.join("upper")).unwrap();
    fs::create_dir(small.join("work")).unwrap();
    let stack = Stack {
        lowers: vec![low],
        upper: Some((small.join("upper"), small.join("work"))),
        mnt: s.mnt(),
        opts: opts.iter().map(|&opt| opt.to_owned()).collect(),
    };
    let m = subject().mount_stack(stack);
    Union { m, s }
}

impl Union {
    fn small(&self, path: &str) -> std::path::PathBuf {
        self.s.join("small/upper").join(path)
    }

    #[track_caller]
    fn assert_nothing_copied(&self) {
        let used = disk_usage(self.s.join("small"));
        assert!(used < 200_000, "{used} bytes in the upper");
    }
}

#[test]
fn unlink_of_a_lower_file_is_a_whiteout() {
    let mut u = cramped();
    fs::remove_file(u.at("big")).unwrap();
    assert!(is_whiteout(u.small("big")));
    u.assert_nothing_copied();
    u.m.remount();
    assert!(!exists(u.at("big")));
}

#[test]
fn removal_of_a_lower_tree_is_one_whiteout() {
    let u = cramped();
    fs::remove_dir_all(u.at("d")).unwrap();
    assert!(is_whiteout(u.small("d")));
    assert_eq!(names(u.s.join("small/work/work")), [""; 0]);
    u.assert_nothing_copied();
}

#[test]
fn rename_over_a_lower_file_copies_nothing_of_it() {
    let mut u = cramped();
    fs::write(u.at("new"), "new").unwrap();
    fs::rename(u.at("new"), u.at("big")).unwrap();
    u.assert_nothing_copied();
    assert_eq!(u.read("big"), "new");
    assert!(!exists(u.small("new")), "no whiteout where no lower has the name");
    u.m.remount();
    assert_eq!(u.read("big"), "new");
}

#[test]
fn rename_of_a_lower_file_moves_no_data() {
    let mut u = cramped();
    fs::rename(u.at("big"), u.at("d/moved")).unwrap();
    fs::rename(u.at("big2"), u.at("d/big")).unwrap();
    u.assert_nothing_copied();
    u.m.remount();
    assert!(fs::read(u.at("d/moved")).unwrap() == pattern(BIG));
    assert!(fs::read(u.at("d/big")).unwrap() == pattern(BIG));
    assert!(!exists(u.at("big")));
}

#[test]
fn attribute_changes_are_metacopies() {
    let mut u = cramped();
    let mtime = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    u.run("chmod 640 big; chown 7:8 big; setfattr -n user.k -v v big");
    u.run("touch -h -d @1000000 big; ln big linked"); // -h: without opening it
    u.assert_nothing_copied();
    get(u.small("big"), "trusted.overlay.metacopy").expect("the metacopy mark");
    for _ in 0..2 {
        let meta = stat(u.at("big"));
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o640, 7, 8));
        assert_eq!(meta.modified().unwrap(), mtime);
        assert_eq!(get(u.at("big"), "user.k").unwrap(), b"v");
        assert_eq!(meta.len(), BIG as u64);
        assert!(meta.blocks() >= (BIG / 512) as u64, "blocks of the data: {}", meta.blocks());
        assert!(fs::read(u.at("big")).unwrap() == pattern(BIG));
        u.m.remount();
    }
}

#[test]
fn open_with_truncation_copies_no_data() {
    let u = cramped();
    fs::write(u.at("big"), "short").unwrap();
    assert_eq!(u.read("big"), "short");
    u.run("chmod 600 big2");
    fs::write(u.at("big2"), "short").unwrap(); // the same for a metacopy
    assert_eq!(u.read("big2"), "short");
    assert_eq!(mode(u.at("big2")), 0o600);
    u.assert_nothing_copied();
}

/// Kernel overlayfs: copies the data, then truncates the copy (`ENOSPC` here).
#[test]
fn truncate_to_nothing_copies_no_data() {
    let u = cramped();
    // truncate(2) by path: opening for writing would copy first.
    u.run("python3 -c 'import os; os.truncate(\"big\", 0)'");
    assert_eq!(stat(u.at("big")).len(), 0);
    u.assert_nothing_copied();
}

#[test]
fn reading_copies_nothing() {
    let u = cramped();
    u.run("cat big d/* > /dev/null; find . -type f -exec stat {} + > /dev/null; getfattr -d -R . > /dev/null");
    drop(File::options().read(true).open(u.at("big")).unwrap());
    assert_eq!(names(u.small("")), [""; 0]);
}

#[test]
fn a_copy_that_does_not_fit_changes_nothing() {
    let mut u = cramped_with(&["writeback=0"]);
    let e = File::options().write(true).open(u.at("big")).and_then(|f| f.write_at(b"x", 0)).unwrap_err();
    assert_eq!(errno(e), rustix::io::Errno::NOSPC);
    u.assert_nothing_copied();
    assert_eq!(names(u.s.join("small/work/work")), [""; 0]);
    assert!(fs::read(u.at("big")).unwrap() == pattern(BIG));
    u.assert_alive();
    u.m.remount();
    assert!(fs::read(u.at("big")).unwrap() == pattern(BIG));
}

/// Kernel overlayfs: holes smaller than its copy chunk are filled.
#[test]
fn a_sparse_lower_file_keeps_its_holes() {
    let u = Union::new(
        "truncate -s 1G f; for at in 0 1000000 500000000; do printf data | dd of=f bs=1 seek=$at conv=notrunc status=none; done",
    );
    let f = open_rw(u.at("f"));
    f.write_at(b"D", 1_000_000).unwrap();
    drop(f);
    assert!(disk_usage(u.up("f")) < 200_000, "{}", disk_usage(u.up("f")));
    let f = File::open(u.at("f")).unwrap();
    let mut segments = vec![];
    let mut at = 0;
    while let Ok(start) = seek(&f, SeekFrom::Data(at)) {
        at = seek(&f, SeekFrom::Hole(start)).unwrap();
        segments.push((start, at));
    }
    assert_eq!(segments, [(0, 4096), (999_424, 1_003_520), (499_998_720, 500_002_816)]);
    let mut data = [0; 5];
    f.read_exact_at(&mut data, 1_000_000).unwrap();
    assert_eq!(&data, b"Data\0");
}

/// Whether btrfs or xfs share the data of a file's copy: what the filesystem reports as shared.
fn reflinked(mkfs: &str) {
    let s = Scratch::new();
    let base = loop_fs(&s, "fs", mkfs, "600M");
    fs::create_dir(base.join("lower0")).unwrap();
    write_pattern(base.join("lower0/f"), 100 << 20);
    let mut u = union_in(s, &base, &[]);
    sh(&format!("sync -f {}", base.display()));
    let free = || rustix::fs::statvfs(&base).map(|s| s.f_bfree * s.f_frsize).unwrap();
    let before = free();
    open_rw(u.at("f")).write_at(b"!", 50 << 20).unwrap();
    u.m.unmount();
    sh(&format!("sync -f {}", base.display()));
    let used = before.saturating_sub(free());
    assert!(used < 20 << 20, "{used} bytes for one byte");
    let extents = sh(&format!("filefrag -v {}", base.join("upper/f").display()));
    assert!(extents.contains("shared"), "{extents}");
    let mut want = pattern(100 << 20);
    want[50 << 20] = b'!';
    assert!(fs::read(base.join("upper/f")).unwrap() == want);
}

#[test]
fn one_byte_of_a_lower_file_is_a_reflink_on_btrfs() {
    reflinked("mkfs.btrfs -q");
}

#[test]
fn one_byte_of_a_lower_file_is_a_reflink_on_xfs() {
    reflinked("mkfs.xfs -q");
}

#[test]
fn whiteouts_only_where_a_lower_has_the_name() {
    let u = Union::new("mkdir d; echo x > d/x");
    u.run("echo a > a; rm a; mkdir n; rmdir n; echo y > d/y; rm d/y; echo b > b; mv b c; rm c; ln -s x d/s; mv d/s t");
    assert_eq!(names(u.up("")), ["d", "t"]);
    assert_eq!(names(u.up("d")), [""; 0]);
}

#[test]
fn a_new_file_costs_no_copy_of_its_siblings() {
    let mut u = cramped();
    let mut f = File::create(u.at("d/new")).unwrap();
    f.write_all(b"x").unwrap();
    f.rewind().unwrap();
    drop(f);
    u.assert_nothing_copied();
    assert_eq!(names(u.small("d")), ["new"]);
    u.m.remount();
    assert_eq!(names(u.at("d")), ["big", "hard", "new"]);
}
