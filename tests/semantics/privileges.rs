//! Bits that must be lost, masks, ACLs, setgid directories: as ext4 does.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::Path,
};

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, fallocate, mkdirat, mknodat};

use super::kit::*;

/// Files `lower_*`, and `upper_*` made by the test, of every interesting mode.
const MODES: [u32; 6] = [0o4777, 0o2777, 0o6777, 0o2767, 0o6666, 0o1777];
const FILL: &str = "for m in 4777 2777 6777 2767 6666 1777; do echo x > lower_$m; chmod $m lower_$m; done";

/// The same without those whose setgid bit lacks the group's execute bit: of these FUSE does not tell whether the writer
/// is of the group, and the bit, which means nothing there, stays.
const EXECUTABLE: [u32; 4] = [0o4777, 0o2777, 0o6777, 0o1777];

/// Applies `act` to a lower and an upper file of each mode and returns the modes after.
fn over_modes(dir: &Path, act: impl Fn(&Path)) -> Vec<(String, u32)> {
    over(&MODES, dir, act)
}

fn over(modes: &[u32], dir: &Path, act: impl Fn(&Path)) -> Vec<(String, u32)> {
    let mut out = vec![];
    for &bits in modes {
        let upper = dir.join(format!("upper_{bits:o}"));
        fs::write(&upper, "x").unwrap();
        fs::set_permissions(&upper, fs::Permissions::from_mode(bits)).unwrap();
        for path in [dir.join(format!("lower_{bits:o}")), upper] {
            act(&path);
            out.push((path.file_name().unwrap().to_string_lossy().into_owned(), mode(&path)));
        }
    }
    out
}

fn stranger<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    as_user(STRANGER, STRANGER, &[], act)
}

fn writer(path: &Path) -> File {
    File::options().write(true).open(path).unwrap()
}

#[test]
fn a_strangers_write_clears_setuid_and_setgid() {
    as_native(FILL, |dir| over(&EXECUTABLE, dir, |f| stranger(|| writer(f).write_all(b"y").unwrap())));
}

#[test]
fn a_second_write_through_one_handle_clears_what_was_set_between() {
    as_native(FILL, |dir| {
        over(&EXECUTABLE, dir, |f| {
            stranger(|| {
                let mut w = writer(f);
                w.write_all(b"y").unwrap();
                w
            })
            .set_permissions(fs::Permissions::from_mode(0o6777))
            .unwrap();
            let w = stranger(|| writer(f));
            w.write_at(b"z", 0).unwrap(); // as root
            stranger(|| w.write_at(b"z", 0).unwrap());
        })
    });
}

#[test]
fn a_strangers_truncation_clears_setuid_and_setgid() {
    as_native(FILL, |dir| over(&EXECUTABLE, dir, |f| stranger(|| writer(f).set_len(0).unwrap())));
    as_native(FILL, |dir| {
        over(&EXECUTABLE, dir, |f| stranger(|| drop(File::options().write(true).truncate(true).open(f).unwrap())))
    });
}

#[test]
fn a_strangers_fallocate_clears_setuid_and_setgid() {
    as_native(FILL, |dir| {
        over(&EXECUTABLE, dir, |f| stranger(|| fallocate(writer(f), FallocateFlags::empty(), 0, 8192).unwrap()))
    });
}

#[test]
fn roots_write_keeps_setuid() {
    as_native(FILL, |dir| over_modes(dir, |f| writer(f).write_all(b"y").unwrap()));
}

#[test]
fn chown_clears_setuid_and_setgid() {
    as_native(FILL, |dir| over_modes(dir, |f| chown(f, Some(1), None).unwrap()));
    as_native(FILL, |dir| over_modes(dir, |f| chown(f, None, Some(1)).unwrap()));
}

/// The kernel does not pass such a call on. Kernel overlayfs: as a plain filesystem, where the bits go.
#[test]
fn a_chown_to_nobody_leaves_setuid() {
    let u = Union::new("echo x > f; chmod 4755 f");
    chown(u.at("f"), None, None).unwrap();
    assert_eq!(stat(u.at("f")).mode() & 0o7777, 0o4755);
}

#[test]
fn an_owners_chgrp_clears_setuid_and_setgid() {
    as_native(&format!("{FILL}; chown {STRANGER}:{STRANGER} lower_*; chmod 6755 lower_*"), |dir| {
        over_modes(dir, |f| {
            chown(f, Some(STRANGER), Some(STRANGER)).unwrap();
            fs::set_permissions(f, fs::Permissions::from_mode(0o6755)).unwrap();
            as_user(STRANGER, STRANGER, &[777], || chown(f, None, Some(777)).unwrap());
        })
    });
}

#[test]
fn chmod_by_one_outside_the_group_drops_setgid() {
    as_native(&format!("{FILL}; chown {STRANGER}:99 lower_*"), |dir| {
        over_modes(dir, |f| {
            chown(f, Some(STRANGER), Some(99)).unwrap();
            stranger(|| fs::set_permissions(f, fs::Permissions::from_mode(0o6755)).unwrap());
        })
    });
}

/// cap_net_raw=ep
const CAPS: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const CAP: &str = "security.capability";
const CAP_FILES: &str = "for f in write cut chown chmod times link keep trunc; do echo x > $f; chmod 777 $f; setcap cap_net_raw=ep $f; done";

#[test]
fn capabilities_go_with_a_write_and_stay_with_the_rest() {
    as_native(CAP_FILES, |dir| {
        let at = |f: &str| dir.join(f);
        writer(&at("write")).write_all(b"y").unwrap();
        writer(&at("cut")).set_len(0).unwrap();
        drop(File::options().write(true).truncate(true).open(at("trunc")).unwrap());
        chown(at("chown"), Some(1), None).unwrap();
        fs::set_permissions(at("chmod"), fs::Permissions::from_mode(0o700)).unwrap();
        writer(&at("times")).set_modified(std::time::UNIX_EPOCH).unwrap();
        fs::hard_link(at("link"), at("linked")).unwrap();
        ["write", "cut", "chown", "chmod", "times", "linked", "keep", "trunc"].map(|f| get(at(f), CAP))
    });
}

#[test]
fn capabilities_on_files_of_the_upper() {
    as_native("true", |dir| {
        let make = |f: &str| {
            let path = dir.join(f);
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            set(&path, CAP, CAPS).unwrap();
            path
        };
        let (a, b, c, d) = (make("a"), make("b"), make("c"), make("d"));
        stranger(|| writer(&a).write_all(b"y").unwrap());
        writer(&b).set_len(0).unwrap();
        chown(&c, Some(3), None).unwrap();
        // Written once without, then given while open: the next write clears them again.
        let w = writer(&d);
        w.write_at(b"1", 0).unwrap();
        set(&d, CAP, CAPS).unwrap();
        w.write_at(b"2", 0).unwrap();
        [a, b, c, d].map(|f| get(f, CAP))
    });
}

/// One object of every type, made by the calls that programs use.
fn create_all(dir: &Path) {
    let bits = |m: u32| Mode::from_raw_mode(m);
    File::options().write(true).create(true).truncate(true).mode(0o666).open(dir.join("file")).unwrap();
    File::options().write(true).create(true).truncate(true).mode(0o6777).open(dir.join("suid")).unwrap();
    mkdirat(CWD, dir.join("dir"), bits(0o777)).unwrap();
    mkdirat(CWD, dir.join("dir/dir"), bits(0o1777)).unwrap();
    fs::write(dir.join("dir/file"), "x").unwrap();
    mknodat(CWD, dir.join("fifo"), FileType::Fifo, bits(0o666), 0).unwrap();
    mknodat(CWD, dir.join("plain"), FileType::RegularFile, bits(0o666), 0).unwrap();
    mknodat(CWD, dir.join("socket"), FileType::Socket, bits(0o777), 0).unwrap();
    std::os::unix::fs::symlink("x", dir.join("link")).unwrap();
}

#[test]
fn umask_applies_to_every_create() {
    for mask in [0o077, 0o022, 0o000, 0o137] {
        as_native("mkdir d", |dir| with_umask(mask, || create_all(&dir.join("d"))));
    }
}

#[test]
fn setgid_directories_give_their_group() {
    as_native("mkdir d; chown 7:50 d; chmod 2777 d", |dir| create_all(&dir.join("d")));
    as_native("mkdir d; chown 7:50 d; chmod 2777 d", |dir| stranger(|| create_all(&dir.join("d"))));
}

/// What the dumps of `as_native` compare includes system.posix_acl_access and _default.
#[test]
fn default_acls_are_inherited_by_every_create() {
    let fill = "mkdir d; setfacl -m d:u:1:rwx,d:g:2:rx,d:o::r d";
    for mask in [0o077, 0o022, 0o000] {
        as_native(fill, |dir| with_umask(mask, || create_all(&dir.join("d"))));
    }
}

#[test]
fn default_acls_with_a_narrow_mask() {
    as_native("mkdir d; setfacl -m d:u::rwx,d:u:1:rwx,d:g::rwx,d:m::r,d:o::- d", |dir| {
        create_all(&dir.join("d"));
    });
}

#[test]
fn default_acls_in_a_setgid_directory_for_a_stranger() {
    as_native("mkdir d; chown 7:50 d; chmod 2777 d; setfacl -m d:u:1:rwx,d:o::rwx d", |dir| {
        stranger(|| create_all(&dir.join("d")));
    });
}

#[test]
fn acls_set_inside_the_mount_are_inherited() {
    as_native("mkdir d", |dir| {
        run_in(dir, "setfacl -m d:u:3:rw,u:4:rwx d; mkdir n; setfacl -m d:g:5:rwx n");
        create_all(&dir.join("d"));
        create_all(&dir.join("n"));
    });
}

#[test]
fn chmod_and_acl_mask_move_together() {
    as_native("echo x > f; setfacl -m u:1:rwx,g:2:rw f; echo y > g", |dir| {
        fs::set_permissions(dir.join("f"), fs::Permissions::from_mode(0o640)).unwrap();
        run_in(dir, "setfacl -m u:9:r,m::rwx g");
        let first = (mode(dir.join("f")), mode(dir.join("g")));
        run_in(dir, "chmod 604 g; setfacl -b f");
        (first, run_in(dir, "getfacl -n f g"))
    });
}

#[test]
fn acls_are_enforced_and_kept_over_copy_up() {
    as_native(&format!("echo x > f; chmod 600 f; setfacl -m u:{STRANGER}:rw f; echo y > n; chmod 600 n"), |dir| {
        let first = stranger(|| {
            let deny = verdict(File::open(dir.join("n")));
            let allow = verdict(writer(&dir.join("f")).write_all(b"z"));
            (deny, allow)
        });
        run_in(dir, "setfacl -x u:4242 f");
        (first, stranger(|| verdict(File::open(dir.join("f")))))
    });
}

#[test]
fn permissions_are_checked() {
    let fill = "mkdir -m 700 secret; echo s > secret/f; mkdir -m 1777 sticky; echo t > sticky/f; mkdir -m 755 ro; echo r > ro/f; \
                echo g > group; chmod 060 group; chown 0:777 group; mkdir -m 311 blind; echo b > blind/f";
    as_native(fill, |dir| {
        let at = |p: &str| dir.join(p);
        as_user(STRANGER, STRANGER, &[777], || {
            vec![
                verdict(File::open(at("secret/f"))),
                verdict(fs::read_dir(at("secret"))),
                verdict(fs::remove_file(at("sticky/f"))),
                verdict(fs::rename(at("sticky/f"), at("sticky/g"))),
                verdict(fs::write(at("sticky/mine"), "x")),
                verdict(fs::remove_file(at("sticky/mine"))),
                verdict(fs::write(at("ro/new"), "x")),
                verdict(fs::remove_file(at("ro/f"))),
                verdict(fs::hard_link(at("ro/f"), at("sticky/l"))),
                verdict(fs::set_permissions(at("ro/f"), fs::Permissions::from_mode(0o777))),
                verdict(chown(at("ro/f"), Some(STRANGER), None)),
                verdict(File::open(at("group"))),
                verdict(fs::read_dir(at("blind"))),
                verdict(File::open(at("blind/f"))),
                verdict(fs::write(at("ro/f"), "x")),
                set(at("ro/f"), "user.x", "y"),
                set(at("ro/f"), "trusted.x", "y"),
                set(at("ro/f"), "security.x", "y"),
            ]
        })
    });
}

#[test]
fn a_denied_change_copies_nothing() {
    let u = Union::new("echo x > f; mkdir d; echo y > d/f");
    sh(&format!("chmod 755 {}", u.s.path().display()));
    stranger(|| {
        verdict(fs::write(u.at("f"), "z")).unwrap_err();
        verdict(fs::remove_file(u.at("d/f"))).unwrap_err();
        verdict(fs::set_permissions(u.at("f"), fs::Permissions::from_mode(0o666))).unwrap_err();
    });
    assert_eq!(names(u.up("")), [""; 0]);
}

#[test]
fn owners_of_new_objects_are_their_makers() {
    as_native("mkdir -m 777 d", |dir| {
        stranger(|| create_all(&dir.join("d")));
        let meta = stat(dir.join("d/file"));
        assert_eq!((meta.uid(), meta.gid()), (STRANGER, STRANGER));
    });
}

/// ext4 and kernel overlayfs clear it of a writer outside the group. It gives no one anything.
#[test]
fn setgid_without_group_execute_stays() {
    let u = Union::new("echo x > f; chmod 2766 f");
    fs::set_permissions(u.s.path(), fs::Permissions::from_mode(0o755)).unwrap();
    stranger(|| writer(&u.at("f")).write_all(b"y").unwrap());
    assert_eq!(mode(u.at("f")), 0o2766);
}
