//! Names: their length, their bytes, and those that belong to the union.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::Path,
};

use rustix::{
    fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with},
    io::Errno,
};

use super::kit::*;

fn mknod(path: &Path, kind: FileType, dev: u64) -> Result<(), Errno> {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), dev)
}

/// Every call that takes a name, on `name`; `f` and `d` exist.
fn every_call(dir: &Path, name: &OsStr) -> Vec<(&'static str, Result<(), Errno>)> {
    let path = dir.join(name);
    vec![
        ("stat", verdict(fs::symlink_metadata(&path))),
        ("open", verdict(File::open(&path))),
        ("create", verdict(File::create(&path))),
        ("mkdir", verdict(fs::create_dir(&path))),
        ("symlink", verdict(symlink("x", &path))),
        ("fifo", mknod(&path, FileType::Fifo, 0)),
        ("mknod", mknod(&path, FileType::RegularFile, 0)),
        ("link", verdict(fs::hard_link(dir.join("f"), &path))),
        ("rename", verdict(fs::rename(dir.join("f"), &path))),
        ("rename dir", verdict(fs::rename(dir.join("d"), &path))),
        ("noreplace", renameat_with(CWD, dir.join("f"), CWD, &path, RenameFlags::NOREPLACE)),
        ("unlink", verdict(fs::remove_file(&path))),
        ("rmdir", verdict(fs::remove_dir(&path))),
        ("rename from", verdict(fs::rename(&path, dir.join("x")))),
    ]
}

#[test]
fn too_long_is_enametoolong() {
    as_native("echo f > f; mkdir d", |dir| {
        let out = every_call(dir, OsStr::new(&"n".repeat(256)));
        for (call, verdict) in &out {
            assert_eq!(*verdict, Err(Errno::NAMETOOLONG), "{call}");
        }
        out
    });
}

#[test]
fn the_longest_names_work_and_can_be_deleted() {
    let long = |c: &str| c.repeat(255);
    let fill = format!("echo l > {}; mkdir {}; echo m > {}", long("f"), long("d"), long("m"));
    as_native(&fill, |dir| {
        fs::write(dir.join(long("n")), "n").unwrap();
        fs::create_dir(dir.join(long("e"))).unwrap();
        fs::write(dir.join(long("m")), "changed").unwrap();
        fs::remove_file(dir.join(long("f"))).unwrap();
        fs::rename(dir.join(long("d")), dir.join(long("D"))).unwrap();
        symlink(long("t"), dir.join(long("s"))).unwrap();
        names(dir)
    });
}

#[test]
fn any_bytes_but_slash_and_nul() {
    let fill =
        "printf x > $'a\\nb'; printf y > $'\\xff\\xfe'; mkdir $'d \\t:,=\\\\'; printf z > $'d \\t:,=\\\\/'$'\\x01'";
    as_native(fill, |dir| {
        let odd = |b: &[u8]| dir.join(OsStr::from_bytes(b));
        fs::rename(odd(b"a\nb"), odd(b"\x80new\n")).unwrap();
        fs::remove_file(odd(b"\xff\xfe")).unwrap();
        fs::rename(odd(b"d \t:,=\\"), odd(b"e\n:,=\\\xc3")).unwrap();
        fs::write(odd(b"...."), "x").unwrap();
        fs::write(odd(b".wh"), "no marker").unwrap();
        fs::write(odd(b"wh.x"), "no marker").unwrap();
        names(dir)
    });
}

/// Kernel overlayfs: `.wh.` means nothing to it.
#[test]
fn marker_names_cannot_be_made() {
    let u = Union::new("echo f > f; mkdir d; echo g > d/g");
    for name in [".wh.f", ".wh.d", ".wh..wh..opq", ".wh.", ".wh..", ".wh..wh.f", ".wh..wh..plnk"] {
        for dir in ["", "d"] {
            let dir = u.at(dir);
            fs::write(dir.join("f"), "f").unwrap();
            let _ = fs::create_dir(dir.join("d"));
            for (call, verdict) in every_call(&dir, OsStr::new(name)) {
                let want = match call {
                    "stat" | "open" | "unlink" | "rmdir" | "rename from" => Errno::NOENT,
                    _ => Errno::INVAL,
                };
                assert_eq!(verdict, Err(want), "{call} of {name}");
            }
        }
    }
    u.run("test -e f; test -e d/g");
    for dir in [u.up(""), u.up("d")] {
        for name in names(dir) {
            assert!(!name.as_bytes().starts_with(b".wh."), "{}", name.display());
        }
    }
}

#[test]
fn device_zero_cannot_be_made() {
    let u = Union::new("echo f > f");
    assert_eq!(mknod(&u.at("c"), FileType::CharacterDevice, 0), Err(Errno::PERM));
    assert!(!exists(u.at("c")) && !exists(u.up("c")));
    for (name, kind, dev) in [
        ("null", FileType::CharacterDevice, makedev(1, 3)),
        ("zero-minor", FileType::CharacterDevice, makedev(1, 0)),
        ("zero-major", FileType::CharacterDevice, makedev(0, 1)),
        ("block", FileType::BlockDevice, 0),
        ("big", FileType::CharacterDevice, makedev(4095, 1_048_575)),
    ] {
        mknod(&u.at(name), kind, dev).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(std::os::unix::fs::MetadataExt::rdev(&stat(u.at(name))), dev, "{name}");
    }
}

#[test]
fn a_path_may_be_longer_than_path_max() {
    // 40 directories of 200 bytes are 8 kB, made and walked by steps.
    as_native("true", |dir| {
        run_in(
            dir,
            "n=$(printf 'x%.0s' $(seq 200)); for i in $(seq 40); do mkdir $n; cd $n; done; echo deep > f; cat f; \
             cd ..; mv $n y; cat y/f",
        );
        run_in(dir, "rm -r x*")
    });
}

#[test]
fn a_lower_path_longer_than_path_max_is_renamed_and_copied_up() {
    let mut u = Union::new(
        "n=$(printf 'x%.0s' $(seq 200)); for i in $(seq 40); do mkdir $n; cd $n; done; echo deep > f; mkdir d; echo e > d/e",
    );
    let walk = "n=$(printf 'x%.0s' $(seq 200)); for i in $(seq 40); do cd $n; done;";
    u.run(&format!("{walk} echo more >> f; mv f g; mkdir k; rm d/e; rmdir d"));
    u.m.remount();
    u.run(&format!("{walk} test \"$(cat g)\" = $'deep\\nmore'; test ! -e f; test ! -e d; test -d k"));
    u.run("rm -r x*; test -z \"$(ls)\"");
}
