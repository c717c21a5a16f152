//! What a file can do, as on ext4.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink},
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use rustix::{
    fs::{
        AtFlags, CWD, FallocateFlags as F, FlockOperation, IFlags, OFlags, SeekFrom, Timespec, Timestamps, XattrFlags,
        copy_file_range, fallocate, flock, ioctl_getflags, ioctl_setflags, lremovexattr, lsetxattr, seek, statvfs,
        utimensat,
    },
    io::Errno,
};

use super::{kit::*, sys::Mapping};

const KB64: &str = "head -c 65536 /dev/zero | tr '\\0' o > f";

#[test]
fn fallocate_in_every_mode_that_fuse_carries() {
    let modes = [F::empty(), F::KEEP_SIZE, F::PUNCH_HOLE | F::KEEP_SIZE, F::ZERO_RANGE, F::ZERO_RANGE | F::KEEP_SIZE];
    as_native(KB64, |dir| {
        let mut out = vec![];
        for (i, mode) in modes.into_iter().enumerate() {
            for (from, len) in [(8192, 4096), (60_000, 10_000), (100, 50), (100_000, 5000)] {
                let path = dir.join(format!("f{i}-{from}"));
                fs::copy(dir.join("f"), &path).unwrap();
                let done = fallocate(open_rw(&path), mode, from, len);
                out.push((format!("{mode:?}"), from, done, fs::read(&path).unwrap()));
            }
        }
        fallocate(open_rw(dir.join("f")), F::PUNCH_HOLE | F::KEEP_SIZE, 4096, 8192).unwrap();
        fallocate(open_rw(dir.join("f")), F::empty(), 0, 200_000).unwrap();
        out
    });
}

/// The kernel's FUSE client refuses these by itself. Kernel overlayfs: has what its upper has.
#[test]
fn fallocate_modes_beyond_fuse_are_refused() {
    let u = Union::new(KB64);
    for mode in [F::COLLAPSE_RANGE, F::INSERT_RANGE, F::UNSHARE_RANGE] {
        let done = fallocate(open_rw(u.at("f")), mode, 4096, 4096);
        assert_eq!(done, Err(Errno::OPNOTSUPP), "{mode:?}");
    }
    assert_eq!(fs::read(u.at("f")).unwrap(), vec![b'o'; 65536]);
}

fn segments(path: &Path) -> Vec<(u64, u64)> {
    let file = File::open(path).unwrap();
    let (mut at, mut out) = (0, vec![]);
    while let Ok(start) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(start)).unwrap();
        out.push((start, at));
    }
    out
}

#[test]
fn seek_finds_data_and_holes() {
    let fill = "truncate -s 4M f; printf x | dd of=f bs=1 seek=1048576 conv=notrunc status=none; truncate -s 1M empty; cp --sparse=always f g";
    as_native(fill, |dir| {
        let lower = (segments(&dir.join("f")), segments(&dir.join("empty")));
        open_rw(dir.join("f")).write_at(b"y", 3 << 20).unwrap();
        open_rw(dir.join("g")).set_len(8 << 20).unwrap();
        fs::write(dir.join("n"), "").unwrap();
        open_rw(dir.join("n")).write_at(b"z", 1 << 20).unwrap();
        let file = File::open(dir.join("n")).unwrap();
        let past = (seek(&file, SeekFrom::Data(2 << 20)), seek(&file, SeekFrom::Hole(5)));
        let upper = ["f", "g", "n", "empty"].map(|n| {
            File::open(dir.join(n)).unwrap().sync_all().unwrap();
            segments(&dir.join(n))
        });
        (lower, past, upper)
    });
}

#[test]
fn copy_file_range_inside_the_mount() {
    as_native(&format!("{KB64}; echo small > g"), |dir| {
        let from = File::open(dir.join("f")).unwrap();
        fs::write(dir.join("n"), "").unwrap();
        let to = open_rw(dir.join("n"));
        let (mut off_in, mut off_out) = (100, 5000);
        let mut moved = 0;
        while moved < 50_000 {
            let n = copy_file_range(&from, Some(&mut off_in), &to, Some(&mut off_out), 50_000 - moved).unwrap();
            assert!(n > 0);
            moved += n;
        }
        let lower = open_rw(dir.join("g"));
        let n = copy_file_range(&to, Some(&mut 5000), &lower, Some(&mut 3), 10).unwrap();
        let end = copy_file_range(&from, Some(&mut 65536), &lower, Some(&mut 0), 10).unwrap();
        (off_in, off_out, n, end, fs::read(dir.join("g")).unwrap())
    });
}

#[test]
fn inode_flags() {
    as_native("echo x > f; mkdir d", |dir| {
        fs::write(dir.join("u"), "x").unwrap();
        let keep = IFlags::NODUMP | IFlags::NOATIME | IFlags::IMMUTABLE | IFlags::APPEND;
        let mut out = vec![];
        for name in ["f", "u", "d"] {
            let file = File::open(dir.join(name)).unwrap();
            let before = ioctl_getflags(&file).map(|f| f & keep);
            let set = ioctl_getflags(&file).and_then(|f| ioctl_setflags(&file, f | IFlags::NODUMP | IFlags::NOATIME));
            let now = ioctl_getflags(File::open(dir.join(name)).unwrap()).map(|f| f & keep);
            out.push((name, before, set, now));
        }
        out
    });
}

#[test]
fn immutable_and_append_only_files() {
    as_native("echo x > f; echo y > g", |dir| {
        let f = File::open(dir.join("f")).unwrap();
        let flags = ioctl_getflags(&f).unwrap();
        ioctl_setflags(&f, flags | IFlags::IMMUTABLE).unwrap();
        let refused = [
            verdict(File::options().write(true).open(dir.join("f")).and_then(|f| f.write_at(b"z", 0))),
            verdict(fs::remove_file(dir.join("f"))),
            verdict(fs::rename(dir.join("f"), dir.join("h"))),
            verdict(fs::set_permissions(dir.join("f"), std::os::unix::fs::PermissionsExt::from_mode(0o600))),
        ];
        ioctl_setflags(&f, flags | IFlags::APPEND).unwrap();
        let appended = [
            verdict(File::options().append(true).open(dir.join("f")).and_then(|mut f| f.write_all(b"more"))),
            verdict(File::options().write(true).open(dir.join("f")).and_then(|f| f.write_at(b"z", 0))),
            verdict(File::options().write(true).truncate(true).open(dir.join("f"))),
        ];
        ioctl_setflags(&f, flags).unwrap();
        let content = fs::read(dir.join("f")).unwrap();
        let after = verdict(fs::write(dir.join("f"), "now"));
        (refused, appended, content, after)
    });
}

/// fuser 0.18 does not carry FUSE_TMPFILE. Kernel overlayfs: has it.
#[test]
fn o_tmpfile_is_refused() {
    let u = Union::new("mkdir d");
    for dir in ["", "d"] {
        let open = rustix::fs::open(u.at(dir), OFlags::TMPFILE | OFlags::RDWR, 0o600.into());
        assert_eq!(open.map(drop), Err(Errno::OPNOTSUPP));
    }
}

#[test]
fn flock_between_handles() {
    as_native("echo x > f", |dir| {
        let (a, b) = (File::open(dir.join("f")).unwrap(), open_rw(dir.join("f")));
        flock(&a, FlockOperation::NonBlockingLockExclusive).unwrap();
        let busy = flock(&b, FlockOperation::NonBlockingLockShared);
        // Copy-up while locked, and a handle from after it: still one file.
        b.write_at(b"y", 0).unwrap();
        let c = File::open(dir.join("f")).unwrap();
        let still = flock(&c, FlockOperation::NonBlockingLockShared);
        drop(a);
        let free = flock(&b, FlockOperation::NonBlockingLockExclusive);
        let upper = flock(&c, FlockOperation::NonBlockingLockShared);
        (busy, still, free, upper)
    });
}

#[test]
fn posix_locks_between_processes() {
    as_native("echo 0123456789 > f", |dir| {
        let script = r#"
import fcntl, os, subprocess, sys
f = open('f', 'r+b')
fcntl.lockf(f, fcntl.LOCK_EX, 4, 2)
probe = "import fcntl,sys\nf = open('f', 'r+b')\nfor at in (0, 3, 8):\n try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at); print('free')\n except OSError as e: print(e.errno)"
def look(): return subprocess.run([sys.executable, '-c', probe], capture_output=True, text=True, check=True).stdout.split()
print(look())
f.write(b'ab'); f.flush()
print(look())
fcntl.lockf(f, fcntl.LOCK_UN)
print(look())
"#;
        fs::write(dir.join("s.py"), script).unwrap();
        run_in(dir, "python3 s.py")
    });
}

#[test]
fn direct_io() {
    as_native("head -c 1048576 /dev/urandom > /dev/null; head -c 1048576 /dev/zero | tr '\\0' d > f", |dir| {
        run_in(
            dir,
            "dd if=f of=copy bs=64k iflag=direct oflag=direct status=none; cmp f copy; \
             head -c 8192 /dev/zero > z; dd if=z of=f bs=4096 seek=5 conv=notrunc oflag=direct status=none; \
             dd if=f bs=4096 skip=5 count=2 iflag=direct status=none | cmp - z; sha256sum < f",
        )
    });
}

#[test]
fn direct_and_cached_io_of_one_file_agree() {
    as_native("head -c 65536 /dev/zero | tr '\\0' o > f", |dir| {
        let cached = open_rw(dir.join("f"));
        let mut page = [0; 4096];
        cached.read_exact_at(&mut page, 8192).unwrap();
        run_in(
            dir,
            "head -c 4096 /dev/zero | tr '\\0' d > ../page 2>/dev/null || true; head -c 4096 /dev/zero | tr '\\0' d | dd of=f bs=4096 seek=2 conv=notrunc oflag=direct iflag=fullblock status=none",
        );
        cached.read_exact_at(&mut page, 8192).unwrap();
        cached.write_at(b"C", 8192).unwrap();
        cached.sync_all().unwrap();
        let direct = run_in(dir, "dd if=f bs=4096 skip=2 count=1 iflag=direct status=none | head -c 2");
        (page[0], page[4095], direct)
    });
}

#[test]
fn times_are_exact() {
    as_native("echo x > f; mkdir d; ln -s x l; mkfifo p", |dir| {
        fs::write(dir.join("u"), "x").unwrap();
        let set = |name: &str, sec: i64, nsec: i64| {
            let t = Timespec { tv_sec: sec, tv_nsec: nsec };
            utimensat(
                CWD,
                dir.join(name),
                &Timestamps { last_access: t, last_modification: t },
                AtFlags::SYMLINK_NOFOLLOW,
            )
        };
        let mut out = vec![];
        for name in ["f", "d", "l", "p", "u"] {
            for (sec, nsec) in [(1, 999_999_999), (0, 0), (-1, 1), (4_000_000_000, 5)] {
                let done = set(name, sec, nsec);
                let m = stat(dir.join(name));
                out.push((name, done, m.atime(), m.atime_nsec(), m.mtime(), m.mtime_nsec()));
            }
            // UTIME_OMIT leaves one of the two.
            let t = Timestamps {
                last_access: Timespec { tv_sec: 77, tv_nsec: 0 },
                last_modification: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
            };
            let done = utimensat(CWD, dir.join(name), &t, AtFlags::SYMLINK_NOFOLLOW);
            let m = stat(dir.join(name));
            out.push((name, done, m.atime(), m.atime_nsec(), m.mtime(), m.mtime_nsec()));
        }
        out
    });
}

/// Which of mtime and ctime each operation moves, for a file and its directory.
#[test]
fn operations_move_the_times_that_they_should() {
    as_native("mkdir -p d/gone d/e; for i in 0 1 2 3 4 5 6 7; do echo x > d/f$i; done", |dir| {
        let d = dir.join("d");
        let mut out = vec![];
        let mut step = |what: &str, file: &str, act: &dyn Fn(&Path)| {
            let (path, old) = (d.join(file), UNIX_EPOCH + Duration::from_secs(1000));
            if let Ok(f) = File::open(&path) {
                f.set_modified(old).unwrap();
            }
            File::open(&d).unwrap().set_modified(old).unwrap();
            let before = (fs::symlink_metadata(&path).ok(), stat(&d));
            std::thread::sleep(Duration::from_millis(15));
            act(&path);
            let after = (fs::symlink_metadata(&path).ok(), stat(&d));
            let times = |m: &fs::Metadata| (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
            let moved = |a: &fs::Metadata, b: &fs::Metadata| {
                let (a, b) = (times(a), times(b));
                ((a.0, a.1) != (b.0, b.1), (a.2, a.3) != (b.2, b.3))
            };
            let file_moved = before.0.as_ref().zip(after.0.as_ref()).map(|(a, b)| moved(a, b));
            // A copy-up, which an open for writing makes, is a change of the file on disk: ctime tells.
            let file_moved = file_moved.map(|(m, c)| (m, c && what != "open"));
            out.push((what.to_owned(), file_moved, moved(&before.1, &after.1).0));
        };
        step("write", "f0", &|p| File::options().append(true).open(p).unwrap().write_all(b"y").unwrap());
        step("write again", "f0", &|p| File::options().append(true).open(p).unwrap().write_all(b"y").unwrap());
        step("open", "f1", &|p| drop(open_rw(p)));
        step("truncate", "f1", &|p| File::options().write(true).open(p).unwrap().set_len(0).unwrap());
        step("chmod", "f2", &|p| fs::set_permissions(p, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap());
        step("setxattr", "f3", &|p| set(p, "user.a", "b").unwrap());
        step("link", "f4", &|p| fs::hard_link(p, p.with_extension("l")).unwrap());
        step("rename", "f5", &|p| fs::rename(p, p.with_extension("r")).unwrap());
        step("unlink", "f6", &|p| fs::remove_file(p).unwrap());
        step("create", "new", &|p| drop(File::create(p).unwrap()));
        step("mkdir", "newd", &|p| fs::create_dir(p).unwrap());
        step("symlink", "news", &|p| symlink("x", p).unwrap());
        step("rmdir", "gone", &|p| fs::remove_dir(p).unwrap());
        step("rename dir", "e", &|p| fs::rename(p, p.with_extension("r")).unwrap());
        step("read", "f7", &|p| drop(fs::read(p).unwrap()));
        out
    });
}

#[test]
fn a_read_only_touch_of_a_lower_keeps_its_mtime_over_copy_up() {
    as_native("mkdir -p d; echo x > d/f; touch -d '2001-02-03 04:05:06.789' d/f d", |dir| {
        fs::set_permissions(dir.join("d/f"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let f = stat(dir.join("d/f"));
        let d = stat(dir.join("d"));
        (f.mtime(), f.mtime_nsec(), d.mtime(), d.mtime_nsec())
    });
}

#[test]
fn open_flags_are_honoured() {
    as_native("echo x > f; mkdir d; ln -s f l; ln -s none dangling; ln -s loop loop", |dir| {
        let open = |name: &str, flags: OFlags| rustix::fs::open(dir.join(name), flags, 0o600.into()).map(drop);
        [
            open("f", OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY),
            open("l", OFlags::NOFOLLOW | OFlags::RDONLY),
            open("l", OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY),
            open("f", OFlags::DIRECTORY | OFlags::RDONLY),
            open("d", OFlags::DIRECTORY | OFlags::RDONLY),
            open("d", OFlags::WRONLY),
            open("d", OFlags::CREATE | OFlags::RDWR),
            open("loop", OFlags::RDONLY),
            open("f/x", OFlags::RDONLY),
            open("dangling", OFlags::CREATE | OFlags::WRONLY),
            open("n", OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY),
            open("n", OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY),
            open("f", OFlags::PATH),
            open("l", OFlags::TRUNC | OFlags::WRONLY),
        ]
    });
}

#[test]
fn extended_attributes() {
    as_native("echo x > f; setfattr -n user.low -v 1 f; mkdir d; ln -s f l; mkfifo p", |dir| {
        let mut out = vec![];
        for name in ["f", "d", "l", "p"] {
            let path = dir.join(name);
            let put = |key: &str, value: &[u8], flags| lsetxattr(&path, key, value, flags);
            out.push((
                name,
                vec![
                    put("user.a", b"1", XattrFlags::CREATE),
                    put("user.a", b"2", XattrFlags::CREATE),
                    put("user.a", b"3", XattrFlags::REPLACE),
                    put("user.none", b"3", XattrFlags::REPLACE),
                    put("user.empty", b"", XattrFlags::empty()),
                    put("trusted.t", b"\0\xff", XattrFlags::empty()),
                    put("security.s", b"s", XattrFlags::empty()),
                    put("nonsense.x", b"s", XattrFlags::empty()),
                    put("user.big", &[7; 2000], XattrFlags::empty()),
                    put("user.huge", &[7; 65537], XattrFlags::empty()),
                    put(&format!("user.{}", "n".repeat(251)), b"x", XattrFlags::empty()),
                    lremovexattr(&path, "user.none"),
                    lremovexattr(&path, "user.low"),
                    rustix::fs::lgetxattr(&path, "user.big", &mut [0_u8; 10]).map(drop),
                ],
                list(&path),
            ));
        }
        out
    });
}

#[test]
fn fifos_sockets_and_programs_work() {
    let u = Union::new("mkfifo p; cp /bin/true prog; printf '#!/bin/sh\\necho script\\n' > s; chmod 755 s");
    u.run("cat p > out & echo through > p; wait; test $(cat out) = through");
    u.run("mkfifo q; cat q > out & echo new > q; wait; test $(cat out) = new");
    u.run("./prog; test $(./s) = script; chmod 700 s; test $(./s) = script");
    u.run(
        "python3 -c '
import socket
s = socket.socket(socket.AF_UNIX); s.bind(\"sock\"); s.listen()
c = socket.socket(socket.AF_UNIX); c.connect(\"sock\"); a, _ = s.accept()
a.send(b\"hi\"); assert c.recv(2) == b\"hi\"'",
    );
}

#[test]
fn device_nodes_work_for_root() {
    let u = Union::new("mknod zero c 1 5");
    u.run("test $(head -c 10 zero | wc -c) = 10; mknod null c 1 3; echo x > null; mv null dev; cat dev");
}

#[test]
fn statfs_is_the_uppers() {
    let u = Union::new("echo x > f");
    let (mount, upper) = (statvfs(u.root()).unwrap(), statvfs(u.up("")).unwrap());
    assert_eq!((mount.f_blocks * mount.f_frsize, mount.f_files), (upper.f_blocks * upper.f_frsize, upper.f_files));
    assert_eq!(mount.f_namemax, 255);
}

#[test]
fn symlinks_of_every_length() {
    let fill = "ln -s $(printf 'x%.0s' $(seq 4000)) long; ln -s a short; ln -s '' empty 2>/dev/null || true";
    as_native(fill, |dir| {
        symlink("y".repeat(4095), dir.join("new")).unwrap();
        let empty = verdict(symlink("", dir.join("none")));
        let long = verdict(symlink("y".repeat(4096), dir.join("none")));
        fs::rename(dir.join("long"), dir.join("moved")).unwrap();
        (empty, long, fs::read_link(dir.join("moved")).unwrap(), stat(dir.join("new")).len())
    });
}

#[test]
fn truncation_to_any_length() {
    as_native(&format!("{KB64}; cp f g; cp f h; cp f i"), |dir| {
        open_rw(dir.join("f")).set_len(10).unwrap();
        open_rw(dir.join("g")).set_len(100_000).unwrap();
        open_rw(dir.join("h")).set_len(0).unwrap();
        let f = open_rw(dir.join("i"));
        f.set_len(5000).unwrap();
        f.set_len(9000).unwrap();
        let limit = verdict(f.set_len(i64::MAX as u64));
        limit.unwrap_err();
        fs::read(dir.join("i")).unwrap()
    });
}

#[test]
fn mapped_stores_move_mtime_and_reach_the_disk() {
    let mut u = Union::new("head -c 8192 /dev/zero > f; touch -d @1000 f");
    let file = open_rw(u.at("f"));
    let mut map = Mapping::shared(&file, 8192, true);
    map.set(4096, b'm');
    map.sync();
    drop((map, file));
    assert!(stat(u.at("f")).mtime() > 1_000_000, "mtime after msync and close");
    assert_eq!(fs::read(u.up("f")).unwrap()[4096], b'm');
    u.m.remount();
    assert!(stat(u.at("f")).mtime() > 1_000_000);
}

#[test]
fn writes_of_every_alignment() {
    as_native(KB64, |dir| {
        let f = open_rw(dir.join("f"));
        let mut x = 12345_u64;
        for i in 0..300_u64 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (at, len) = ((x >> 33) % 70_000, (x >> 50) as usize % 9000);
            f.write_all_at(&vec![i as u8; len], at).unwrap();
        }
        let mut text = vec![];
        File::open(dir.join("f")).unwrap().read_to_end(&mut text).unwrap();
        text
    });
}

#[test]
fn directories_sync() {
    let u = Union::new("mkdir d");
    for dir in ["", "d"] {
        File::open(u.at(dir)).unwrap().sync_all().unwrap();
    }
    let f = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(OFlags::SYNC.bits() as i32)
        .open(u.at("d/n"))
        .unwrap();
    (&f).write_all(b"synced").unwrap();
    assert_eq!(fs::read_to_string(u.up("d/n")).unwrap(), "synced", "O_SYNC is on disk at once");
}

#[test]
fn mtime_does_not_move_after_the_write() {
    // With the kernel's writeback cache a page reaches the daemon later than the write that made it.
    let mut u = Union::with(&["echo x > low"], &["writeback=1"]);
    for i in 0..20 {
        fs::write(u.at(format!("f{i}")), "new").unwrap();
    }
    File::options().append(true).open(u.at("low")).unwrap().write_all(b"y").unwrap();
    let mtimes = |u: &Union| -> Vec<_> {
        names(u.root()).iter().map(|n| (n.clone(), stat(u.at(n)).modified().unwrap())).collect()
    };
    let before = mtimes(&u);
    u.m.remount();
    assert_eq!(mtimes(&u), before);
}

/// Kernel overlayfs: keeps immutable, append-only, noatime and sync in an xattr of its own.
#[test]
fn inode_flags_are_not_copied_up() {
    let u = Union::new("echo x > f; chattr +A +d f");
    let flags = |path: &Path| ioctl_getflags(File::open(path).unwrap()).unwrap() & (IFlags::NOATIME | IFlags::NODUMP);
    assert_eq!(flags(&u.at("f")), IFlags::NOATIME | IFlags::NODUMP);
    u.run("echo y >> f");
    assert_eq!(flags(&u.at("f")), IFlags::empty());
}

#[test]
fn copy_up_keeps_owner_mode_times_and_xattrs() {
    let fill = "echo data > f; chown 5:6 f; chmod 4751 f; setfattr -n user.a -v b f; setfattr -n trusted.t -v u f; \
                setfacl -m u:9:rwx f; setcap cap_net_raw=ep f; touch -d '2001-02-03 04:05:06.789' f; \
                mkdir -m 1733 d; chown 7:8 d; setfacl -m d:u:3:r d; setfattr -n security.x -v y d; touch -d @77 d; \
                ln -s there l; chown -h 9:9 l; touch -h -d @78 l; mkfifo -m 604 p; touch -d @79 p; mknod -m 640 c c 1 3";
    let s = Scratch::new();
    run_in(&s.lower(0), fill);
    let before = dump(&s.lower(0));
    let mut u = Union::over(s, 1, &["io=handles"]);
    // Each is copied up with data or without, and nothing of it changed: opened for writing, linked, renamed to and fro.
    drop(open_rw(u.at("f")));
    u.run("for i in d l p c; do mv $i x; mv x $i; done");
    let how = Compare { dir_mtime: true, root: false, ..Compare::CONTENT };
    assert_same("copied up", &before, &dump(u.root()), how);
    assert!(["c", "d", "f", "l", "p"].iter().all(|n| exists(u.up(n))));
    u.m.remount();
    assert_same("after remount", &before, &dump(u.root()), how);
}
