//! The upper's disk is full, broken, or gone in the middle; two mounts want one upper.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    apart::{Place, apart},
    common::{Compare, Scratch, Stack, Subject, diff, dump, run_in, sh, sh_outcome},
    rig::{Rig, State, attempt},
    transaction::{ALL, Transaction},
};

/// A filesystem in a file, mounted below the scratch directory and freed on Drop.
struct Loop {
    dir: std::path::PathBuf,
}

impl Loop {
    fn new(scratch: &Scratch, mkfs: &str, mib: u64) -> Self {
        let (image, dir) = (scratch.join("disk.img"), scratch.dir("disk"));
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        sh(&format!("{mkfs} {} >/dev/null 2>&1", image.display()));
        let disk = Self { dir };
        disk.mount(&image);
        disk
    }

    fn mount(&self, image: &Path) {
        sh(&format!("mount -o loop {} {}", image.display(), self.dir.display()));
    }

    /// Takes the disk away as a power cut does, and brings it back. `flush` writes the journal first: names and
    /// sizes get to the disk, and data that nobody has synced does not.
    fn power_cut(&self, image: &Path, flush: bool, detach: impl FnOnce()) {
        let flag = if flush { "-f" } else { "" };
        sh(&format!("xfs_io -x -c 'shutdown {flag}' {}", self.dir.display()));
        detach();
        sh(&format!("umount {}", self.dir.display()));
        self.mount(image);
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The loop device goes with its last user.
        let _ = sh_outcome(Path::new("/"), &format!("umount -l {}", self.dir.display()));
    }
}

/// A tmpfs of a size, as an upper that fills up.
fn small_tmpfs(scratch: &Scratch, size: &str) -> std::path::PathBuf {
    let dir = scratch.dir("small");
    sh(&format!("mount -t tmpfs -o size={size} small {}", dir.display()));
    dir
}

#[test]
fn a_copy_up_larger_than_the_disk() {
    apart(&a_copy_up_larger_than_the_disk, Place::Root, || {
        let scratch = Scratch::new();
        let place = small_tmpfs(&scratch, "16m");
        let rig = Rig::new(scratch, Some(place.clone()));
        let large = rig.scratch().lower(1).join("large");
        run_in(rig.scratch().path(), "seq 1 100000000 | head -c 32M > lower1/large || [ $? = 141 ]");
        let free = || rustix::fs::statvfs(&place).unwrap().f_bfree;
        let mut mounted = rig.mount();
        let before = free();
        let error = OpenOptions::new()
            .append(true)
            .open(mounted.join("large"))
            .and_then(|mut f| f.write_all(b"x").and_then(|()| f.sync_all()))
            .expect_err("32 MiB do not fit into 16");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        assert_eq!(fs::read(mounted.join("large")).unwrap(), fs::read(&large).unwrap());
        rig.check_work("a copy-up that did not fit");
        assert!(!rig.upper().join("large").exists(), "a part of it is in the upper");
        assert!(before - free() <= 8, "space is lost: {before} blocks before, {} after", free());
        // Attributes alone fit, and so does what is small.
        mounted.run("chmod 600 large; echo y >> small; rm large; test ! -e large");
        mounted.remount();
        mounted.run("test ! -e large; test \"$(tail -1 small)\" = y");
        mounted.unmount();
    });
}

/// Every transaction on a disk without a free block or inode: done, or refused and undone.
#[test]
fn transactions_on_a_full_disk() {
    apart(&transactions_on_a_full_disk, Place::Root, || {
        let scratch = Scratch::new();
        let disk = Loop::new(&scratch, "mkfs.ext4 -q -m 0 -N 200", 8);
        let place = disk.dir.clone();
        let rig = Rig::new(scratch, Some(place.clone()));
        let mut refused = 0;
        for transaction in ALL {
            let _ = fs::remove_file(place.join("filler"));
            let states = rig.states(transaction);
            let mut mounted = rig.start(transaction);
            states.which("before", mounted.root());
            fill(&place.join("filler"));
            let result = attempt(transaction, mounted.root());
            match (result, states.which(transaction.name, mounted.root())) {
                (Ok(()), State::New) => {}
                (Err(e), State::Old) if e.kind() == io::ErrorKind::StorageFull => refused += 1,
                (result, state) => panic!("{}: {result:?}, but the state is {state:?}", transaction.name),
            }
            rig.check_work(transaction.name);
            fs::remove_file(place.join("filler")).unwrap();
            if states.which(transaction.name, mounted.root()) == State::Old {
                attempt(transaction, mounted.root()).expect("with free space");
            }
            mounted.remount();
            assert_eq!(states.which(transaction.name, mounted.root()), State::New);
            mounted.unmount();
        }
        assert!(refused > 3, "the disk was not full: only {refused} refused");
        rig.check_lowers("a full disk");
        drop(disk);
    });
}

/// Takes all free blocks.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let mut block = vec![0xaa_u8; 1 << 16];
    while block.len() >= 512 {
        if file.write_all(&block).and_then(|()| file.sync_data()).is_err() {
            block.truncate(block.len() / 2);
        }
    }
}

fn find(name: &str) -> &'static Transaction {
    ALL.iter().find(|t| t.name == name).expect("a transaction of this name")
}

/// Content is the whole old or the whole new one, whether or not anybody has synced; what was synced is there.
#[test]
fn power_cuts() {
    apart(&power_cuts, Place::Root, || {
        let scratch = Scratch::new();
        let image = scratch.join("disk.img");
        let disk = Loop::new(&scratch, "mkfs.ext4 -q", 64);
        let rig = Rig::new(scratch, Some(disk.dir.clone()));
        for name in [
            "append to a lower file",
            "append to a sparse lower file deep in a lower directory",
            "chmod a lower file",
            "write to a metacopy",
            "rename a lower file",
            "rename a lower file over a lower file",
            "rename a lower directory",
            "exchange a lower file and a lower directory",
            "write through one of several lower hard links",
            "create a file over a whiteout",
            "make a directory over a whiteout",
            "unlink a lower file",
        ] {
            let transaction = find(name);
            for (synced, flush) in [(false, true), (false, false), (true, true), (true, false)] {
                let what = format!("{name}, synced: {synced}, journal flushed: {flush}");
                let states = rig.states(transaction);
                let mut mounted = rig.start(transaction);
                // The starting point is on the disk.
                sh(&format!("sync -f {}", disk.dir.display()));
                states.which("before", mounted.root());
                let appended = attempt_unsynced(transaction, mounted.root());
                if synced {
                    sync_all(mounted.root());
                }
                disk.power_cut(&image, flush, || mounted.kill9());
                mounted.mount_again();
                if synced {
                    assert_eq!(states.which(&what, mounted.root()), State::New, "{what}: fsync was acknowledged");
                } else if let Some(file) = appended {
                    let before = fs::read(rig.scratch().lower(1).join(file)).unwrap();
                    states.but_for_the_end_of(&what, mounted.root(), Path::new(file), &before);
                } else {
                    states.which(&what, mounted.root());
                }
                mounted.unmount();
                rig.check_work(&what);
            }
        }
        rig.check_lowers("power cuts");
    });
}

/// The change without the fsync that appending makes: whether it gets to the disk is left to chance. Returns the file
/// that was appended to.
fn attempt_unsynced(transaction: &Transaction, root: &Path) -> Option<&'static str> {
    let file = match transaction.name {
        "append to a lower file" | "write to a metacopy" => Some("big"),
        "append to a sparse lower file deep in a lower directory" => Some("sparse"),
        "write through one of several lower hard links" => Some("hard2"),
        _ => None,
    };
    match file {
        Some(file) => {
            let mut file = OpenOptions::new().append(true).open(root.join(file)).unwrap();
            file.write_all(b"appended\n").unwrap();
        }
        None => attempt(transaction, root).unwrap(),
    }
    file
}

/// fsync of every file and directory, through the mount.
fn sync_all(root: &Path) {
    for (path, node) in dump(root) {
        if matches!(node.kind, crate::common::Kind::File | crate::common::Kind::Dir) {
            let path = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) };
            File::open(&path).and_then(|f| f.sync_all()).unwrap_or_else(|e| panic!("fsync {}: {e}", path.display()));
        }
    }
}

/// A disk that answers EIO to every write while a file exists: nbdkit's error filter, as a file by FUSE.
struct Failing {
    nbd: Child,
    file: std::path::PathBuf,
    trigger: std::path::PathBuf,
    dir: std::path::PathBuf,
}

impl Failing {
    fn new(scratch: &Scratch) -> Self {
        let (file, image) = (scratch.join("nbd"), scratch.join("nbd.img"));
        let (trigger, dir) = (scratch.join("trigger"), scratch.dir("disk"));
        File::create(&file).unwrap();
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let nbd = Command::new("nbdfuse")
            .arg(&file)
            .args(["--command", "nbdkit", "-s", "--filter=error", "file"])
            .arg(&image)
            .args(["error=EIO", "error-pwrite-rate=100%"])
            .arg(format!("error-file={}", trigger.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start nbdfuse");
        let failing = Self { nbd, file, trigger, dir };
        let start = Instant::now();
        while fs::metadata(&failing.file).map_or(0, |m| m.len()) == 0 {
            assert!(start.elapsed() < Duration::from_secs(20), "nbdfuse does not start");
            thread::sleep(Duration::from_millis(20));
        }
        sh(&format!("mkfs.ext4 -q {0} && mount -o loop {0} {1}", failing.file.display(), failing.dir.display()));
        failing
    }

    fn break_it(&self) {
        File::create(&self.trigger).unwrap();
    }

    fn heal(&self) {
        let _ = fs::remove_file(&self.trigger);
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.heal();
        for path in [&self.dir, &self.file] {
            let _ = sh_outcome(Path::new("/"), &format!("umount -l {}", path.display()));
        }
        let start = Instant::now();
        while !matches!(self.nbd.try_wait(), Ok(Some(_))) && start.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(50));
        }
        let _ = self.nbd.kill();
        let _ = self.nbd.wait();
    }
}

/// A failing disk under a copy-up: EIO, and the old content is served, now and later.
#[test]
fn a_copy_up_to_a_failing_disk() {
    apart(&a_copy_up_to_a_failing_disk, Place::Root, || {
        let scratch = Scratch::new();
        let disk = Failing::new(&scratch);
        let mut rig = Rig::new(scratch, Some(disk.dir.clone()));
        for (name, opts, must_fail) in [
            ("append to a lower file", "metacopy=on", true),
            ("write to a metacopy", "metacopy=on", true),
            ("chmod a lower file", "metacopy=off", true),
            ("rename a lower file", "metacopy=off", true),
            // No data, so nothing that has to be on the disk before it is seen: it fails with a later sync, as on any
            // filesystem.
            ("chmod a lower file", "metacopy=on", false),
            ("rename a lower file", "metacopy=on", false),
        ] {
            let transaction = find(name);
            rig.set_opts(&[opts]);
            let states = rig.states(transaction);
            let mut mounted = rig.start(transaction);
            states.which("before", mounted.root());
            sh(&format!("sync -f {}", disk.dir.display()));
            disk.break_it();
            match attempt(transaction, mounted.root()) {
                // ext4 gives up its journal at the first error, and is read-only from then on.
                Err(e) if matches!(e.raw_os_error(), Some(5 | 30)) => {
                    assert_eq!(states.which(name, mounted.root()), State::Old, "{name}, while the disk is broken");
                }
                Ok(()) if !must_fail => {
                    assert_eq!(states.which(name, mounted.root()), State::New, "{name}, while the disk is broken");
                }
                other => panic!("{name}, {opts}: on a broken disk: {other:?}"),
            }
            mounted.kill9();
            sh(&format!("umount {}", disk.dir.display()));
            disk.heal();
            sh(&format!(
                "e2fsck -fy {0} >/dev/null 2>&1 || [ $? -lt 4 ]; mount -o loop {0} {1}",
                disk.file.display(),
                disk.dir.display()
            ));
            mounted.mount_again();
            let healed = states.which(name, mounted.root());
            assert!(healed == State::Old || !must_fail, "{name}, healed: it was refused, and is done");
            if healed == State::Old {
                attempt(transaction, mounted.root()).expect("the disk is healed");
            }
            assert_eq!(states.which(name, mounted.root()), State::New, "{name}, done again");
            mounted.unmount();
            rig.check_work(name);
        }
        rig.check_lowers("a failing disk");
    });
}

/// kill -9 at any time during a copy-up that takes long.
#[test]
fn killed_during_a_large_copy_up() {
    apart(&killed_during_a_large_copy_up, Place::Root, || {
        let scratch = Scratch::new();
        // Lower and upper on two filesystems: nothing can be shared, all has to be copied.
        let place = small_tmpfs(&scratch, "400m");
        let rig = Rig::new(scratch, Some(place));
        run_in(rig.scratch().path(), "seq 1 100000000 | head -c 128M > lower1/large || [ $? = 141 ]");
        let large = rig.scratch().lower(1).join("large");
        let size = fs::metadata(&large).unwrap().len();
        let same = |path: &Path| {
            let cmd = format!("cmp -n {size} {} {}", large.display(), path.display());
            assert!(sh_outcome(Path::new("/"), &cmd).success(), "the content is damaged");
            fs::metadata(path).unwrap().len()
        };
        let mut undone = 0;
        for number in 0..12 {
            rig.reset();
            let mut mounted = rig.mount();
            let path = mounted.join("large");
            let writer =
                thread::spawn(move || OpenOptions::new().append(true).open(path).and_then(|mut f| f.write_all(b"x")));
            thread::sleep(Duration::from_millis(2 + 4 * number));
            mounted.kill9();
            let result = writer.join().unwrap();
            mounted.mount_again();
            let now = same(&mounted.join("large"));
            assert!(now == size || now == size + 1, "{now} bytes of {size}");
            if result.is_err() {
                undone += 1;
            }
            rig.check_work("killed during a copy-up");
            let staged = sh(&format!("du -sm {} | cut -f1", rig.work().display()));
            assert!(staged.parse::<u64>().unwrap() < 2, "{staged} MiB are left in the work directory");
            mounted.unmount();
        }
        assert!(undone > 0, "no copy-up was interrupted: the file is too small for this machine");
    });
}

/// The second mount of an upper, or of a work directory, is refused, and the first goes on.
#[test]
fn two_mounts_on_one_upper() {
    apart(&two_mounts_on_one_upper, Place::Root, || {
        let rig = Rig::in_memory();
        let mut first = rig.mount();
        first.run("echo first > file");
        let other = |name: &str| rig.scratch().dir(name);
        let tries = [
            (rig.upper(), rig.work(), "the same upper and work"),
            (rig.upper(), other("work2"), "the same upper"),
            (other("upper2"), rig.work(), "the same work"),
        ];
        for (upper, work, what) in tries {
            let mnt = other("mnt2");
            let refused =
                Subject::lamel().try_mount_stack(Stack { upper: Some((upper, work)), mnt: mnt.clone(), ..rig.stack() });
            let Err(out) = refused else {
                panic!("{what}: mounted twice");
            };
            let taken = if what.ends_with("upper") || what.contains("upper and") { rig.upper() } else { rig.work() };
            assert!(
                out.stderr.contains(taken.to_str().unwrap()) && out.stderr.contains("use"),
                "{what}: the message does not say what is in use: {:?}",
                out.stderr
            );
            assert_eq!(fs::read_dir(&mnt).unwrap().count(), 0, "{what}: something is mounted");
            first.run("echo again >> file; chmod 600 big");
        }
        let before = dump(first.root());
        first.remount();
        let differences = diff(&before, &dump(first.root()), Compare { ino: true, ..Compare::CONTENT });
        assert!(differences.is_empty(), "{differences}");
        first.unmount();
        // A lower may be shared by all.
        rig.check_lowers("two mounts");
    });
}
