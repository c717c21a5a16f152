//! Many at once: nothing lost, nothing doubled, nobody waits for another's copy.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::kit::*;

const THREADS: usize = 8;

/// Runs `act` with the numbers 0 to 7 at once.
fn at_once(act: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for i in 0..THREADS {
            let act = &act;
            scope.spawn(move || act(i));
        }
    });
}

#[test]
fn one_lower_file_copied_up_by_many() {
    let mut u = Union::new("for i in $(seq 20); do head -c 200000 /dev/zero | tr '\\0' x > f$i; done");
    for i in 1..=20 {
        let path = u.at(format!("f{i}"));
        let ino = stat(&path).ino();
        at_once(|t| match t % 4 {
            0 => fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap(),
            1 => set(&path, &format!("user.t{t}"), "v").unwrap(),
            _ => {
                let mut f = File::options().append(true).open(&path).unwrap();
                writeln!(f, "thread {t}").unwrap();
            }
        });
        let meta = stat(&path);
        assert_eq!((meta.ino(), meta.mode() & 0o777), (ino, 0o640));
        assert_eq!(meta.len(), 200_000 + 4 * 9, "every appended line is there once");
        assert_eq!(list(&path), ["user.t1", "user.t5"]);
    }
    assert_eq!(names(u.s.join("work/work")), [""; 0], "nothing is left in the work directory");
    let tree = dump(u.root());
    u.m.remount();
    assert_same("remount", &tree, &dump(u.root()), Compare::CONTENT);
}

#[test]
fn of_many_renames_one_wins() {
    let u = Union::new("for i in $(seq 30); do mkdir -p d$i/sub; echo $i > d$i/f; echo f > f$i; done");
    for i in 1..=30 {
        for kind in ["d", "f"] {
            let won = AtomicUsize::new(0);
            at_once(|t| {
                if fs::rename(u.at(format!("{kind}{i}")), u.at(format!("{kind}{i}-{t}"))).is_ok() {
                    won.fetch_add(1, Ordering::Relaxed);
                }
            });
            assert_eq!(won.into_inner(), 1, "{kind}{i}");
        }
    }
    assert_eq!(names(u.root()).len(), 60);
}

#[test]
fn of_many_creators_one_wins() {
    let u = Union::new("for i in $(seq 30); do echo x > gone$i; done; mkdir goned; echo x > goned/x");
    u.run("rm -r gone*");
    for i in 1..=30 {
        let won = AtomicUsize::new(0);
        at_once(|t| {
            let path = u.at(format!("gone{i}"));
            let made = match t % 2 {
                0 => fs::create_dir(&path),
                _ => File::create_new(&path).map(drop),
            };
            won.fetch_add(usize::from(made.is_ok()), Ordering::Relaxed);
        });
        assert_eq!(won.into_inner(), 1, "gone{i}");
    }
}

#[test]
fn creators_renamers_removers_and_readers() {
    let mut u = Union::new(
        "for i in $(seq 0 7); do mkdir -p d$i/s; for j in $(seq 50); do echo $j > d$i/f$j; done; done; mkdir shared",
    );
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (u, stop) = (&u, &stop);
        for _ in 0..2 {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // What is listed may be gone when it is looked at; nothing else may fail.
                    let mut todo = vec![u.root().to_owned()];
                    while let Some(dir) = todo.pop() {
                        for entry in fs::read_dir(&dir).into_iter().flatten().map_while(Result::ok) {
                            match fs::symlink_metadata(entry.path()) {
                                Ok(m) if m.is_dir() => todo.push(entry.path()),
                                Ok(_) => drop(fs::read(entry.path())),
                                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::NotFound, "{e}"),
                            }
                        }
                    }
                }
            });
        }
        let workers: Vec<_> = (0..THREADS)
            .map(|t| {
                scope.spawn(move || {
                    let at = |p: &str| u.at(format!("d{t}")).join(p);
                    for j in 1..=50 {
                        let f = at(&format!("f{j}"));
                        match j % 5 {
                            0 => fs::remove_file(&f).unwrap(),
                            1 => fs::rename(&f, u.at(format!("shared/{t}-{j}"))).unwrap(),
                            2 => writeln!(File::options().append(true).open(&f).unwrap(), "more").unwrap(),
                            3 => fs::rename(&f, at(&format!("s/g{j}"))).unwrap(),
                            _ => fs::hard_link(&f, at(&format!("l{j}"))).unwrap(),
                        }
                    }
                    fs::rename(u.at(format!("d{t}")), u.at(format!("shared/d{t}"))).unwrap();
                })
            })
            .collect();
        // The readers end in any case, before a worker's failure is told.
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, Ordering::Relaxed);
        for worker in ended {
            worker.unwrap();
        }
    });
    let check = |u: &Union| {
        assert_eq!(names(u.root()), ["shared"]);
        for t in 0..THREADS {
            let at = |p: &str| u.at(format!("shared/d{t}")).join(p);
            assert_eq!(names(at("")).len(), 10 + 20 + 1, "appended, linked twice, and s");
            assert_eq!(names(at("s")).len(), 10);
            assert_eq!(fs::read_to_string(at("f2")).unwrap(), "2\nmore\n");
            assert_eq!(fs::read_to_string(at("l4")).unwrap(), "4\n");
            assert_eq!(stat(at("l4")).nlink(), 2);
            assert_eq!(u.read(&format!("shared/{t}-1")), "1\n");
        }
        assert_eq!(names(u.at("shared")).len(), THREADS * 11);
    };
    check(&u);
    u.m.remount();
    check(&u);
}

/// In memory, where the copy is a pure copy: its time is what others must not wait for.
#[test]
fn the_copy_up_of_a_gigabyte_stalls_no_other_file() {
    let s = Scratch::new();
    let base = tmpfs(&s, "mem", "3g");
    fs::create_dir(base.join("lower0")).unwrap();
    let mut big = File::create(base.join("lower0/big")).unwrap();
    for _ in 0..1024 {
        big.write_all(&[b'x'; 1 << 20]).unwrap();
    }
    fs::create_dir(base.join("lower0/d")).unwrap();
    for i in 0..200 {
        fs::write(base.join(format!("lower0/d/f{i}")), "small").unwrap();
    }
    let u = union_in(s, &base, &[]);
    let done = AtomicBool::new(false);
    let (copy, worst, rounds) = thread::scope(|scope| {
        let copier = scope.spawn(|| {
            let start = Instant::now();
            open_rw(u.at("big")).write_at(b"!", 512 << 20).unwrap();
            done.store(true, Ordering::Relaxed);
            start.elapsed()
        });
        // Everything else of a life, beside it: in the same directory, and with the file's own attributes.
        let (mut worst, mut rounds) = (Duration::ZERO, 0);
        thread::sleep(Duration::from_millis(20));
        while !done.load(Ordering::Relaxed) && rounds < 200 {
            let start = Instant::now();
            let f: PathBuf = u.at(format!("d/f{rounds}"));
            assert_eq!(fs::read(&f).unwrap(), b"small");
            open_rw(&f).write_at(b"S", 0).unwrap();
            fs::write(u.at(format!("new{rounds}")), "n").unwrap();
            fs::remove_file(u.at(format!("new{rounds}"))).unwrap();
            assert!(stat(u.at("big")).len() == 1 << 30);
            names(u.at("d"));
            worst = worst.max(start.elapsed());
            rounds += 1;
        }
        (copier.join().unwrap(), worst, rounds)
    });
    println!("copy-up {copy:?}, {rounds} rounds beside it, the slowest {worst:?}");
    assert!(rounds > 3, "only {rounds} rounds beside a copy-up of {copy:?}");
    assert!(worst < copy / 2, "a round of {worst:?} beside a copy-up of {copy:?}");
    assert_eq!(fs::metadata(u.at("big")).unwrap().len(), 1 << 30);
}
