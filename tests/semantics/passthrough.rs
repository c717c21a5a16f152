//! Lower files that the kernel reads by itself (`io=passthrough`): who opened one before its copy-up keeps what he
//! opened, as in kernel overlayfs; everybody else finds the upper, under the same number.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{DirEntryExt, FileExt, MetadataExt, PermissionsExt},
    },
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::{
    fs::{AtFlags, CWD, FlockOperation, OFlags, SeekFrom, copy_file_range, flock, seek, statat},
    io::Errno,
};

use super::{kit::*, sys::Mapping};

const LEN: usize = 256 << 10;

fn passing(fills: &[&str], more: &[&str]) -> Union {
    let mut opts = more.to_vec();
    if matches!(subject(), Subject::Lamel { .. }) {
        opts.push("io=passthrough");
    }
    Union::with(fills, &opts)
}

/// One lower with `f`, all of `o`, and what `more` makes of it.
fn all_old(more: &str) -> Union {
    passing(&[&format!("head -c {LEN} /dev/zero | tr '\\0' o > f; {more}")], &[])
}

fn read_all(file: &File) -> Vec<u8> {
    let (mut data, mut at) = (vec![0; 2 * LEN], 0);
    while let n @ 1.. = file.read_at(&mut data[at..], at as u64).unwrap() {
        at += n;
    }
    data.truncate(at);
    data
}

#[track_caller]
fn assert_old(file: &File) {
    assert!(read_all(file) == [b'o'; LEN], "the handle from before keeps the lower's content");
}

/// The same number whoever tells it: by path, by handle, in a listing.
#[track_caller]
fn assert_number(dir: &Path, name: &str, handles: &[&File], ino: u64) {
    assert_eq!(stat(dir.join(name)).ino(), ino, "by its path");
    for handle in handles {
        assert_eq!(handle.metadata().unwrap().ino(), ino, "by a handle");
    }
    for _ in 0..2 {
        let entry = fs::read_dir(dir).unwrap().map(Result::unwrap).find(|e| e.file_name() == name).expect("listed");
        assert_eq!(entry.ino(), ino, "in a listing");
    }
}

#[test]
fn a_reader_from_before_the_copy_up_keeps_what_it_opened() {
    let mut u = all_old("");
    let ino = stat(u.at("f")).ino();
    let reader = File::open(u.at("f")).unwrap();
    assert_number(u.root(), "f", &[&reader], ino);
    let writer = open_rw(u.at("f"));
    for letter in [b'a', b'b'] {
        writer.write_all_at(&[letter; LEN + 1], 0).unwrap();
        assert_old(&reader);
        assert!(read_all(&writer) == [letter; LEN + 1] && fs::read(u.at("f")).unwrap() == [letter; LEN + 1]);
    }
    let again = File::open(u.at("f")).unwrap();
    assert!(read_all(&again) == [b'b'; LEN + 1]);
    assert_number(u.root(), "f", &[&reader, &writer, &again], ino);
    // The attributes are the file's, through whichever handle.
    reader.set_permissions(fs::Permissions::from_mode(0o604)).unwrap();
    assert_eq!((mode(u.at("f")), again.metadata().unwrap().mode() & 0o777), (0o604, 0o604));
    fs::set_permissions(u.at("f"), fs::Permissions::from_mode(0o640)).unwrap();
    let seen = reader.metadata().unwrap();
    assert_eq!((seen.mode() & 0o777, seen.len()), (0o640, LEN as u64 + 1));
    reader.sync_all().unwrap();
    drop((reader, writer, again));
    assert_number(u.root(), "f", &[], ino);
    u.m.remount();
    assert_number(u.root(), "f", &[], ino);
    assert!(fs::read(u.at("f")).unwrap() == [b'b'; LEN + 1]);
    assert!(fs::read(u.s.join("lower0/f")).unwrap() == [b'o'; LEN]);
}

#[test]
fn a_mapping_from_before_the_copy_up_keeps_what_it_maps() {
    let u = all_old("");
    let (open, closed) = (File::open(u.at("f")).unwrap(), File::open(u.at("f")).unwrap());
    let maps = [Mapping::shared(&open, LEN, false), Mapping::private(&open, LEN), Mapping::shared(&closed, LEN, false)];
    drop(closed);
    assert_eq!((maps[0].get(1), maps[0].get(LEN / 2)), (b'o', b'o'));
    let writer = open_rw(u.at("f"));
    writer.write_all_at(&[b'n'; LEN], 0).unwrap();
    for map in &maps {
        assert!(map.bytes(0, LEN) == [b'o'; LEN]);
    }
    let mut new = Mapping::shared(&writer, LEN, true);
    new.set(5000, b'N');
    assert_eq!(fs::read(u.at("f")).unwrap()[4999..5002], *b"nNn");
    assert_old(&open);
    assert!(fs::read(u.s.join("lower0/f")).unwrap() == [b'o'; LEN]);
}

#[test]
fn a_mapping_alone_needs_no_second_look() {
    let u = all_old("");
    let map = Mapping::shared(File::open(u.at("f")).unwrap(), LEN, false);
    let writer = open_rw(u.at("f"));
    writer.write_all_at(&[b'n'; LEN], 0).unwrap();
    assert!(map.bytes(0, LEN) == [b'o'; LEN]);
    assert!(fs::read(u.at("f")).unwrap() == [b'n'; LEN]);
}

#[test]
fn every_name_of_a_hard_link_finds_the_copy() {
    let mut u = all_old("mkdir d; ln f d/g; ln f h");
    let ino = stat(u.at("f")).ino();
    // All three names are known to the kernel by the number that is about to be left.
    assert_eq!((stat(u.at("d/g")).ino(), stat(u.at("h")).ino()), (ino, ino));
    let readers = [File::open(u.at("f")).unwrap(), File::open(u.at("d/g")).unwrap()];
    let writer = open_rw(u.at("h"));
    writer.write_all_at(&[b'n'; LEN + 9], 0).unwrap();
    for name in ["f", "d/g", "h"] {
        let seen = stat(u.at(name));
        assert_eq!((seen.ino(), seen.nlink(), seen.len()), (ino, 3, LEN as u64 + 9), "{name}");
    }
    fs::set_permissions(u.at("d/g"), fs::Permissions::from_mode(0o600)).unwrap();
    File::options().append(true).open(u.at("f")).unwrap().write_all(b"!").unwrap();
    fs::remove_file(u.at("h")).unwrap();
    fs::hard_link(u.at("f"), u.at("d/new")).unwrap();
    fs::rename(u.at("d/g"), u.at("d/moved")).unwrap();
    for name in ["f", "d/moved", "d/new"] {
        let seen = stat(u.at(name));
        assert_eq!((seen.ino(), seen.nlink(), seen.mode() & 0o777), (ino, 3, 0o600), "{name}");
        assert!(fs::read(u.at(name)).unwrap().ends_with(b"nn!"), "{name}");
    }
    assert_eq!(readers[0].metadata().unwrap().nlink(), 3);
    readers.iter().for_each(assert_old);
    assert_number(&u.at("d"), "moved", &[&readers[1], &writer], ino);
    drop((readers, writer));
    let before = dump(u.root());
    u.m.remount();
    assert_same("remount", &before, &dump(u.root()), Compare { ino: true, ..Compare::CONTENT });
}

/// What copies data up without opening for writing.
#[test]
fn every_way_to_the_upper_keeps_the_reader() {
    type Way = fn(&Path, &File);
    let ways: &[(&str, &[&str], usize, Way)] = &[
        ("truncate by path", &[], 100, |dir, _| nix::unistd::truncate(&dir.join("f"), 100).unwrap()),
        ("truncate to more", &[], LEN + 5, |dir, _| nix::unistd::truncate(&dir.join("f"), LEN as i64 + 5).unwrap()),
        ("open to truncate", &[], 0, |dir, _| drop(File::create(dir.join("f")).unwrap())),
        ("read and truncate", &[], 0, |dir, _| {
            rustix::fs::open(dir.join("f"), OFlags::RDONLY | OFlags::TRUNC, 0.into()).map(drop).unwrap();
        }),
        ("inode flags", &[], LEN, |dir, _| drop(run_in(dir, "chattr +d f; lsattr f | grep -q -- d"))),
        ("a link without index", &["index=off"], LEN, |dir, _| fs::hard_link(dir.join("f"), dir.join("l")).unwrap()),
        ("rename without metacopy", &["metacopy=off"], LEN, |dir, _| {
            fs::rename(dir.join("f"), dir.join("x")).unwrap();
            fs::rename(dir.join("x"), dir.join("f")).unwrap();
        }),
        ("chmod without metacopy", &["metacopy=off"], LEN, |dir, _| {
            fs::set_permissions(dir.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("fchmod without metacopy", &["metacopy=off"], LEN, |_, reader| {
            reader.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("copy_file_range from the handle", &[], LEN, |dir, reader| {
            let to = open_rw(dir.join("f"));
            to.write_all_at(b"new", 0).unwrap();
            assert_eq!(copy_file_range(reader, Some(&mut 0), &to, Some(&mut 0), 3), Ok(3));
        }),
    ];
    for (way, opts, len, go) in ways {
        let u = passing(&[&format!("head -c {LEN} /dev/zero | tr '\\0' o > f")], opts);
        let ino = stat(u.at("f")).ino();
        let reader = File::open(u.at("f")).unwrap();
        go(u.root(), &reader);
        assert_old(&reader);
        assert_eq!(stat(u.at("f")).len(), *len as u64, "{way}");
        let now = fs::read(u.at("f")).unwrap();
        let same = now.len().min(LEN);
        assert!(now.len() == *len && now[..same] == [b'o'; LEN][..same], "{way}");
        open_rw(u.at("f")).write_all_at(&[b'n'; LEN], 0).unwrap();
        assert_old(&reader);
        assert!(fs::read(u.at("f")).unwrap()[..LEN] == [b'n'; LEN], "{way}");
        assert_number(u.root(), "f", &[&reader], ino);
        assert!(fs::read(u.s.join("lower0/f")).unwrap() == [b'o'; LEN], "{way}");
    }
}

#[test]
fn attributes_alone_leave_the_data_shared() {
    let u = all_old("setfattr -n user.k -v v f");
    let ino = stat(u.at("f")).ino();
    let reader = File::open(u.at("f")).unwrap();
    fs::set_permissions(u.at("f"), fs::Permissions::from_mode(0o600)).unwrap();
    set(u.at("f"), "user.k", "w").unwrap();
    let meta_reader = File::open(u.at("f")).unwrap();
    assert!(read_all(&meta_reader) == [b'o'; LEN]);
    assert!(fs::metadata(u.up("f")).unwrap().blocks() < 64, "no data was copied");
    open_rw(u.at("f")).write_all_at(&[b'n'; LEN], 0).unwrap();
    assert_old(&reader);
    assert_old(&meta_reader);
    assert!(fs::read(u.at("f")).unwrap() == [b'n'; LEN]);
    assert_eq!((mode(u.at("f")), get(u.at("f"), "user.k").unwrap()), (0o600, b"w".to_vec()));
    assert_number(u.root(), "f", &[&reader, &meta_reader], ino);
}

#[test]
fn removed_and_replaced_files_read_on() {
    let u = all_old("cp f g; cp f h");
    let readers = ["f", "g", "h"].map(|name| File::open(u.at(name)).unwrap());
    open_rw(u.at("h")).write_all_at(b"new", 0).unwrap();
    fs::remove_file(u.at("f")).unwrap();
    fs::write(u.at("new"), "new").unwrap();
    fs::rename(u.at("new"), u.at("g")).unwrap();
    fs::remove_file(u.at("h")).unwrap();
    fs::write(u.at("f"), "another").unwrap();
    for reader in &readers {
        assert_old(reader);
        assert_eq!(reader.metadata().unwrap().nlink(), 0);
    }
    assert_eq!((u.read("f"), u.read("g")), ("another".to_owned(), "new".to_owned()));
}

/// A number that was left is used again once nobody has anything of the file open: no second one is needed then.
#[test]
fn what_nobody_has_open_is_copied_up_as_ever() {
    let u = all_old("");
    for letter in [b'a', b'b'] {
        assert!(read_all(&File::open(u.at("f")).unwrap()).len() == LEN);
        let path = u.at("f");
        open_rw(&path).write_all_at(&[letter; LEN], 0).unwrap();
        assert!(fs::read(path).unwrap() == [letter; LEN]);
    }
}

#[test]
fn holes_and_ends_are_those_of_the_file_that_the_handle_has() {
    let u = passing(&["truncate -s 1m f; printf x | dd of=f conv=notrunc status=none"], &[]);
    let reader = File::open(u.at("f")).unwrap();
    fs::write(u.at("f"), vec![b'n'; 1 << 20]).unwrap();
    let hole = seek(&reader, SeekFrom::Hole(0)).unwrap();
    assert!(hole < 1 << 20, "a hole at {hole}");
    assert_eq!(seek(&reader, SeekFrom::Data(1 << 19)), Err(Errno::NXIO));
}

/// Kernel overlayfs: opens the upper's.
#[test]
fn a_handle_from_before_is_not_opened_again() {
    let u = all_old("");
    let reader = File::open(u.at("f")).unwrap();
    let again = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let copy = File::open(&again).unwrap();
    assert_old(&copy);
    let refused = File::options().write(true).open(&again).unwrap_err();
    assert_eq!(errno(refused), Errno::STALE);
    assert_eq!(errno(File::open(&again).unwrap_err()), Errno::STALE);
    assert_old(&reader);
    // What nobody reads is.
    let u = all_old("");
    let path = rustix::fs::open(u.at("f"), OFlags::PATH, 0.into()).unwrap();
    open_rw(format!("/proc/self/fd/{}", path.as_raw_fd())).write_all_at(b"new", 0).unwrap();
    assert!(fs::read(u.at("f")).unwrap().starts_with(b"newo"));
}

/// Locks belong to the kernel's inode, of which there are two then. Kernel overlayfs: has one.
#[test]
fn locks_of_a_handle_from_before_are_apart() {
    let u = all_old("");
    let reader = File::open(u.at("f")).unwrap();
    flock(&reader, FlockOperation::NonBlockingLockExclusive).unwrap();
    let (writer, other) = (open_rw(u.at("f")), File::open(u.at("f")).unwrap());
    flock(&writer, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(flock(&other, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK));
}

/// Small ones gain nothing by it.
#[test]
fn small_lower_files_are_followed() {
    let u = passing(&["head -c 60000 /dev/zero | tr '\\0' o > f"], &[]);
    let reader = File::open(u.at("f")).unwrap();
    open_rw(u.at("f")).write_all_at(b"new", 0).unwrap();
    let mut seen = [0; 4];
    reader.read_exact_at(&mut seen, 0).unwrap();
    let lamel = matches!(subject(), Subject::Lamel { .. });
    assert_eq!(&seen, if lamel { b"newo" } else { b"oooo" });
}

#[test]
fn running_programs_are_busy_and_replaced_ones_run_on() {
    let u = passing(&["cp $(command -v bash) s; head -c 100000 /dev/zero >> s; chmod 755 s"], &[]);
    let mut command = std::process::Command::new(u.at("s"));
    let mut child = command.args(["-c", "read; exit 7"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    assert_eq!(verdict(File::options().write(true).open(u.at("s"))), Err(Errno::TXTBSY));
    assert_eq!(verdict(nix::unistd::truncate(&u.at("s"), 0).map_err(std::io::Error::from)), Err(Errno::TXTBSY));
    let cut = rustix::fs::open(u.at("s"), OFlags::RDONLY | OFlags::TRUNC, 0.into());
    assert_eq!(cut.map(drop), Err(Errno::TXTBSY));
    fs::set_permissions(u.at("s"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(verdict(File::options().write(true).open(u.at("s"))), Err(Errno::TXTBSY));
    fs::write(u.at("new"), "new").unwrap();
    fs::rename(u.at("new"), u.at("s")).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

/// Nobody is told of the numbers that change under him, and each finds the old content or the new.
#[test]
fn many_open_while_many_copy_up() {
    const FILES: usize = 40;
    let mut u = passing(
        &[&format!(
            "head -c {LEN} /dev/zero | tr '\\0' o > f0; for i in $(seq {FILES}); do cp f0 f$i; ln f$i l$i; done"
        )],
        &[],
    );
    let line = |t: usize| format!("line of {t}\n");
    for i in 1..=FILES {
        let (path, link) = (u.at(format!("f{i}")), u.at(format!("l{i}")));
        let ino = stat(&path).ino();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for t in 0..4 {
                let path = if t % 2 == 0 { &path } else { &link };
                let done = &done;
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let file = File::open(path).unwrap();
                        let data = read_all(&file);
                        assert!(data[..LEN] == [b'o'; LEN] && data[LEN..].len().is_multiple_of(line(0).len()));
                        assert_eq!(file.metadata().unwrap().ino(), ino);
                    }
                });
            }
            let writers: Vec<_> = (0..4)
                .map(|t| {
                    let path = if t < 2 { &path } else { &link };
                    scope.spawn(move || {
                        let mut file = File::options().append(true).open(path).unwrap();
                        file.write_all(line(t).as_bytes()).unwrap();
                    })
                })
                .collect();
            let written: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
            // Also when one failed: the readers go on until they are told.
            done.store(true, Ordering::Relaxed);
            written.into_iter().for_each(Result::unwrap);
        });
        for path in [&path, &link] {
            let seen = stat(path);
            assert_eq!((seen.ino(), seen.len(), seen.nlink()), (ino, (LEN + 4 * line(0).len()) as u64, 2));
        }
    }
    let before = dump(u.root());
    u.m.remount();
    assert_same("remount", &before, &dump(u.root()), Compare { ino: true, ..Compare::CONTENT });
}

/// A mount on a renumbered file stays when its directory is listed, which would look the file up by the wrong number.
#[test]
fn a_listing_leaves_a_mount_on_a_renumbered_file_alone() {
    let u = all_old("mkdir d; mv f d/f");
    let reader = File::open(u.at("d/f")).unwrap();
    let ino = stat(u.at("d/f")).ino();
    open_rw(u.at("d/f")).write_all_at(b"new", 0).unwrap();
    let bound = u.s.join("bound");
    fs::write(&bound, "bound").unwrap();
    u.run(&format!("mount --bind {} d/f", bound.display()));
    for name in ["x", "y"] {
        // The kernel's own listing is old from here on.
        fs::write(u.at("d").join(name), "").unwrap();
        let entry = fs::read_dir(u.at("d")).unwrap().map(Result::unwrap).find(|e| e.file_name() == "f").unwrap();
        assert_eq!(entry.ino(), ino);
        assert_eq!(u.read("d/f"), "bound");
    }
    u.run("umount d/f");
    assert!(fs::read(u.at("d/f")).unwrap().starts_with(b"newo"));
    assert_old(&reader);
}

/// Kernel overlayfs: has no daemon.
#[test]
fn numbers_that_were_left_are_forgotten() {
    const FILES: usize = 100;
    let s = Scratch::new();
    let fill = "for i in $(seq 100); do head -c 100000 /dev/zero > f$i; ln f$i l$i; done";
    run_in(&s.lower(0), fill);
    let (upper, work, log) = (s.upper(), s.work(), s.join("log"));
    let opts = format!("lowerdir={},upperdir={},workdir={}", s.lower(0).display(), upper.display(), work.display());
    let (lamel, mnt) = (Subject::lamel_bin().display().to_string(), s.mnt());
    sh(&format!("{lamel} mount --log-file {} -o {opts},io=passthrough {}", log.display(), mnt.display()));
    let at = |name: &str, i: usize| mnt.join(format!("{name}{i}"));
    for i in 1..=FILES {
        assert_eq!(stat(at("l", i)).nlink(), 2);
        let reader = File::open(at("f", i)).unwrap();
        open_rw(at("f", i)).write_all_at(b"new", 0).unwrap();
        assert_eq!(read_all(&reader)[0], 0);
        assert_eq!(File::open(at("l", i)).unwrap().metadata().unwrap().ino(), stat(at("f", i)).ino());
    }
    fs::write(mnt.join("new"), "").unwrap();
    assert_eq!(names(&mnt).len(), 2 * FILES + 1);
    let pid = get(&mnt, "system.lamel.pid").unwrap();
    let counted = || {
        drop_caches();
        sh(&format!("kill -USR1 {}", String::from_utf8_lossy(&pid)));
        thread::sleep(std::time::Duration::from_millis(100));
        fs::read_to_string(&log).unwrap().lines().last().unwrap_or_default().to_owned()
    };
    // The root alone is left.
    assert!((0..100).any(|_| counted().contains(" inodes=1 handles=0 ")), "{}", counted());
    for i in 1..=FILES {
        assert!(fs::read(at("l", i)).unwrap().starts_with(b"new"));
    }
    sh(&format!("{lamel} umount {}", mnt.display()));
}

#[test]
fn reading_leaves_no_trace_in_the_lower() {
    let u = all_old("touch -a -d @1000 f");
    let mut data = Vec::new();
    File::open(u.at("f")).unwrap().read_to_end(&mut data).unwrap();
    assert_eq!(Mapping::shared(File::open(u.at("f")).unwrap(), LEN, false).get(LEN - 1), b'o');
    assert_eq!((stat(u.at("f")).atime(), stat(u.s.join("lower0/f")).atime()), (1000, 1000));
}

/// A lower on a filesystem that the kernel passes nothing through to, under an upper and beside a lower that it does.
#[test]
fn layers_that_cannot_be_passed_through_to_are_read_as_ever() {
    let s = Scratch::new();
    run_in(&s.lower(0), &format!("head -c {LEN} /dev/zero | tr '\\0' o > f"));
    let stacked = s.dir("stacked");
    let (a, b) = (s.dir("a"), s.dir("b"));
    run_in(&a, &format!("head -c {LEN} /dev/zero | tr '\\0' s > stacked"));
    sh(&format!("mount -t overlay -o lowerdir={}:{} none {}", a.display(), b.display(), stacked.display()));
    let stack = Stack {
        lowers: vec![stacked, s.lower(0)],
        upper: Some((s.upper(), s.work())),
        mnt: s.mnt(),
        opts: if matches!(subject(), Subject::Lamel { .. }) { vec!["io=passthrough".to_owned()] } else { vec![] },
    };
    let u = Union { m: subject().mount_stack(stack), s };
    for (name, letter) in [("stacked", b's'), ("f", b'o')] {
        let reader = File::open(u.at(name)).unwrap();
        assert!(read_all(&reader) == [letter; LEN]);
        let writer = open_rw(u.at(name));
        writer.write_all_at(&[b'n'; LEN], 0).unwrap();
        assert!(fs::read(u.at(name)).unwrap() == [b'n'; LEN]);
    }
}

#[test]
fn without_an_upper_too() {
    let s = Scratch::new();
    run_in(&s.lower(0), &format!("head -c {LEN} /dev/zero | tr '\\0' o > f"));
    let opts: &[&str] = if matches!(subject(), Subject::Lamel { .. }) { &["io=passthrough"] } else { &[] };
    let m = subject().mount(&s, 1, false, opts);
    assert_old(&File::open(m.join("f")).unwrap());
    let refused = File::options().write(true).open(m.join("f")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    assert!(statat(CWD, m.join("f"), AtFlags::empty()).is_ok());
    drop((m, s));
}
