//! Owners and modes that are not those on disk. Kernel overlayfs: has none of these options.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink},
    path::Path,
};

use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    io::Errno,
};

use super::kit::*;

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let meta = stat(path);
    (meta.uid(), meta.gid())
}

/// As container stores write them: the first id is the one on disk, the second the one shown.
const MAPS: [&str; 2] = ["uidmapping=100000:0:1000:205000:5000:10", "gidmapping=300000:0:1000"];

fn mapped() -> Union {
    let fill = "mkdir d; echo f > f; echo g > g; ln -s f l; chown 100000:300000 . d; chown 100007:300008 f; \
                chown 205003:300000 g; chown -h 100001:300001 l; echo o > other; chown 99999:99999 other";
    let s = Scratch::new();
    run_in(&s.lower(0), fill);
    chown(s.upper(), Some(100_000), Some(300_000)).unwrap();
    Union::over(s, 1, &MAPS)
}

#[test]
fn mapped_ids_are_shown_and_stored() {
    let mut u = mapped();
    assert_eq!(owner(u.at("")), (0, 0));
    assert_eq!(owner(u.at("d")), (0, 0));
    assert_eq!(owner(u.at("f")), (7, 8));
    assert_eq!(owner(u.at("g")), (5003, 0));
    assert_eq!(owner(u.at("l")), (1, 1));
    assert_eq!(owner(u.at("other")), (65534, 65534), "an id of neither side of the maps");
    chown(u.at("f"), Some(9), Some(10)).unwrap();
    fs::write(u.at("new"), "x").unwrap();
    fs::create_dir(u.at("d/sub")).unwrap();
    symlink("x", u.at("s")).unwrap();
    fs::set_permissions(u.at("g"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(owner(u.up("f")), (100_009, 300_010));
    assert_eq!(owner(u.up("new")), (100_000, 300_000));
    assert_eq!(owner(u.up("d/sub")), (100_000, 300_000));
    assert_eq!(owner(u.up("s")), (100_000, 300_000));
    assert_eq!(owner(u.up("g")), (205_003, 300_000), "kept by copy-up");
    u.m.remount();
    assert_eq!(owner(u.at("f")), (9, 10));
    assert_eq!(owner(u.at("new")), (0, 0));
    assert_eq!(owner(u.at("g")), (5003, 0));
}

/// The errno is that of idmapped mounts.
#[test]
fn an_id_without_a_mapping_cannot_be_given() {
    let u = mapped();
    assert_eq!(verdict(chown(u.at("f"), Some(4000), None)), Err(Errno::OVERFLOW));
    assert_eq!(verdict(chown(u.at("f"), None, Some(1000))), Err(Errno::OVERFLOW));
    assert_eq!(owner(u.at("f")), (7, 8));
    fs::set_permissions(u.s.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(u.at("d"), fs::Permissions::from_mode(0o777)).unwrap();
    // Whoever comes from outside of the map makes things of nobody's.
    as_user(STRANGER, STRANGER, &[], || fs::write(u.at("d/x"), "y")).unwrap();
    assert_eq!(owner(u.at("d/x")), (65534, 65534));
}

#[test]
fn squash_shows_one_owner() {
    let fill = "mkdir d; echo f > f; chown 5:6 f; chown 7:8 d";
    for (opts, want) in
        [(&["squash_to_root"][..], (0, 0)), (&["squash_to_uid=1234", "squash_to_gid=4321"][..], (1234, 4321))]
    {
        let mut u = Union::with(&[fill], opts);
        fs::write(u.at("new"), "x").unwrap();
        fs::set_permissions(u.at("f"), fs::Permissions::from_mode(0o600)).unwrap();
        for _ in 0..2 {
            for name in ["", "d", "f", "new"] {
                assert_eq!(owner(u.at(name)), want, "{name:?}");
            }
            u.m.remount();
        }
        assert_eq!(owner(u.up("f")), (5, 6), "copy-up keeps the owner on disk");
    }
}

#[test]
fn override_stat_keeps_what_the_disk_does_not() {
    let mut u =
        Union::with(&["mkdir d; echo f > f; echo s > suid; chmod 4755 suid; chown 3:4 suid"], &["xattr_permissions=2"]);
    fs::write(u.at("new"), "x").unwrap();
    for name in ["f", "new"] {
        chown(u.at(name), Some(50), Some(60)).unwrap();
        fs::set_permissions(u.at(name), fs::Permissions::from_mode(0o4710)).unwrap();
    }
    fs::create_dir(u.at("n")).unwrap();
    chown(u.at("n"), Some(70), Some(80)).unwrap();
    fs::set_permissions(u.at("n"), fs::Permissions::from_mode(0o1777)).unwrap();
    let node = |name: &str, kind, dev| mknodat(CWD, u.at(name), kind, Mode::from_raw_mode(0o640), dev);
    node("char", FileType::CharacterDevice, makedev(1, 3)).unwrap();
    node("block", FileType::BlockDevice, makedev(7, 300)).unwrap();
    node("fifo", FileType::Fifo, 0).unwrap();
    node("sock", FileType::Socket, 0).unwrap();
    assert_eq!(node("white", FileType::CharacterDevice, 0), Err(Errno::PERM));
    u.run("chmod 700 suid; chmod 4755 suid");
    for _ in 0..2 {
        for name in ["f", "new"] {
            assert_eq!((owner(u.at(name)), mode(u.at(name))), ((50, 60), 0o4710), "{name}");
        }
        assert_eq!((owner(u.at("n")), mode(u.at("n"))), ((70, 80), 0o1777));
        assert_eq!((owner(u.at("suid")), mode(u.at("suid"))), ((3, 4), 0o4755));
        let (c, b) = (stat(u.at("char")), stat(u.at("block")));
        assert!(c.file_type().is_char_device() && c.rdev() == makedev(1, 3));
        assert!(b.file_type().is_block_device() && b.rdev() == makedev(7, 300));
        assert!(stat(u.at("fifo")).file_type().is_fifo() && stat(u.at("sock")).file_type().is_socket());
        for entry in fs::read_dir(u.root()).unwrap().map(Result::unwrap) {
            assert_eq!(
                entry.file_type().unwrap(),
                stat(entry.path()).file_type(),
                "d_type of {}",
                entry.path().display()
            );
        }
        u.m.remount();
    }
    // On disk: plain files of the daemon's user, and the truth in the xattr.
    let value = |name: &str| String::from_utf8(get(u.up(name), "user.containers.override_stat").unwrap()).unwrap();
    assert!(value("f").starts_with("50:60:4710"), "{}", value("f"));
    assert!(value("n").starts_with("70:80:1777"), "{}", value("n"));
    assert_eq!(value("char"), "0:0:0640:char-1-3");
    assert_eq!(value("block"), "0:0:0640:block-7-300");
    assert_eq!(value("fifo"), "0:0:0640:pipe");
    for name in ["f", "new", "char", "fifo", "suid"] {
        let meta = stat(u.up(name));
        assert!(meta.is_file(), "{name}");
        assert_eq!((meta.uid(), meta.mode() & 0o7000), (0, 0), "{name}");
    }
    assert!(!list(u.at("f")).iter().any(|n| n.contains("override")));
}

#[test]
fn a_layer_of_containers_storage_is_read() {
    // As `podman load` leaves it with force_mask.
    let fill = "setfattr -n user.containers.override_stat -v 0:0:0755:dir .; \
        mkdir etc; setfattr -n user.containers.override_stat -v 0:42:0750:dir etc; \
        echo p > etc/shadow; setfattr -n user.containers.override_stat -v 0:42:0640 etc/shadow; \
        : > null; setfattr -n user.containers.override_stat -v 0:0:0666:char-1-3 null; \
        : > pipe; setfattr -n user.containers.override_stat -v 5:5:0600:pipe pipe; \
        ln -s etc link; echo bare > bare; chmod 700 bare; chmod 755 etc/shadow; chown -R 1000:1000 etc null pipe bare; chown -h 1000:1000 link";
    let mut u = Union::with(&[fill], &["xattr_permissions=2"]);
    for _ in 0..2 {
        assert_eq!((owner(u.at("")), mode(u.at(""))), ((0, 0), 0o755));
        assert_eq!((owner(u.at("etc")), mode(u.at("etc"))), ((0, 42), 0o750));
        assert_eq!((owner(u.at("etc/shadow")), mode(u.at("etc/shadow"))), ((0, 42), 0o640));
        let null = stat(u.at("null"));
        assert!(null.file_type().is_char_device() && null.rdev() == makedev(1, 3));
        assert!(stat(u.at("pipe")).file_type().is_fifo());
        u.run("echo x >> etc/shadow; touch -h -d @5 link");
        u.m.remount();
    }
    chown(u.at("etc/shadow"), Some(9), None).unwrap();
    lchown(u.at("bare"), Some(8), Some(8)).unwrap();
    u.m.remount();
    assert_eq!((owner(u.at("etc/shadow")), mode(u.at("etc/shadow"))), ((9, 42), 0o640));
    assert_eq!(owner(u.at("bare")), (8, 8));
}

#[test]
fn a_fresh_upper_with_overrides_shows_the_root_of_its_layers() {
    for (fill, want) in [
        ("setfattr -n user.containers.override_stat -v 3:4:0751:dir .", ((3, 4), 0o751)),
        ("setfattr -n user.fuseoverlayfs.override_stat -v 5:6:40711 .", ((5, 6), 0o711)),
        ("true", ((0, 0), 0o555)),
    ] {
        let s = Scratch::new();
        run_in(&s.lower(0), "true");
        run_in(&s.lower(1), fill);
        // As containers/storage makes it.
        fs::set_permissions(s.upper(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut u = Union::over(s, 2, &["xattr_permissions=2"]);
        assert_eq!((owner(u.root()), mode(u.root()) & 0o7777), want, "{fill}");
        fs::set_permissions(u.root(), fs::Permissions::from_mode(0o1777)).unwrap();
        u.m.remount();
        assert_eq!((owner(u.root()), mode(u.root()) & 0o7777), (want.0, 0o1777), "{fill}");
        assert_eq!(mode(u.s.upper()) & 0o7777, 0o700, "on disk it is as it was");
    }
}

/// Symlinks hold no `user.*` attributes. Whoever unpacks an archive changes their owners all the same.
#[test]
fn owners_of_symlinks_beside_overrides() {
    for opt in ["xattr_permissions=1", "xattr_permissions=2"] {
        let mut u = Union::with(&["ln -s nowhere low; chown -h 3:4 low; mkdir d"], &[opt]);
        u.run("mkdir g; chgrp 50 g; chmod 2755 g; ln -s x g/link; test $(stat -c %g g/link) = 50");
        u.run("ln -s nowhere new; chown -h 0:0 new; chown -h 5:6 new; touch -h -d @9 new");
        lchown(u.at("low"), Some(7), None).unwrap();
        fs::set_permissions(u.s.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for dir in ["", "d"] {
            fs::set_permissions(u.at(dir), fs::Permissions::from_mode(0o777)).unwrap();
        }
        as_user(STRANGER, STRANGER, &[], || std::os::unix::fs::symlink("x", u.at("d/theirs"))).unwrap();
        for _ in 0..2 {
            assert_eq!(owner(u.at("new")), (5, 6), "{opt}");
            assert_eq!(owner(u.at("low")), (7, 4), "{opt}");
            assert_eq!(owner(u.at("d/theirs")), (STRANGER, STRANGER), "{opt}");
            u.m.remount();
        }
    }
}

#[test]
fn security_xattrs_are_kept_under_an_override_name() {
    let mut u = Union::with(&["echo f > f"], &["xattr_permissions=2"]);
    set(u.at("f"), "security.capability", [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    for _ in 0..2 {
        assert_eq!(get(u.at("f"), "security.capability").unwrap().len(), 20);
        assert!(list(u.at("f")).contains(&"security.capability".to_owned()));
        u.m.remount();
    }
    assert!(list(u.up("f")).contains(&"user.containers.override_security.capability".to_owned()));
    assert!(!list(u.up("f")).contains(&"security.capability".to_owned()));
}

/// A layer that was not made for overrides has its capabilities under their own name.
#[test]
fn security_xattrs_of_a_plain_layer_beside_overrides() {
    let fill =
        "cp /bin/true f; setcap cap_net_raw+ep f; cp -a f g; cp /bin/true h; setcap cap_net_raw+ep h; chmod 755 f g h";
    let mut u = Union::with(&[fill], &["xattr_permissions=2"]);
    let lower = get(u.at("g"), "security.capability").unwrap();
    assert!(list(u.at("f")).contains(&"security.capability".to_owned()));
    u.run("chmod 700 f; setfattr -x security.capability g");
    for _ in 0..2 {
        assert_eq!(get(u.at("f"), "security.capability"), Ok(lower.clone()));
        assert_eq!(get(u.at("g"), "security.capability"), Err(Errno::NODATA));
        assert_eq!(get(u.at("h"), "security.capability"), Ok(lower.clone()));
        for name in ["f", "g", "h"] {
            let names = list(u.at(name));
            assert!(names.iter().all(|key| get(u.at(name), key).is_ok()), "{name}: {names:?}");
        }
        u.m.remount();
    }
    for name in ["f", "g"] {
        assert!(!list(u.up(name)).contains(&"security.capability".to_owned()), "on disk {name} has it for itself");
    }
}

/// They and the modes on disk go together, which are not those that are shown.
#[test]
fn there_are_no_acls_beside_overrides() {
    let u = Union::with(&["mkdir d; setfacl -m u:7:rwx,d:u:7:rwx d; echo f > f"], &["xattr_permissions=2"]);
    let said = run_fails(&u, "setfacl -m u:7:r f");
    assert!(said.contains("not supported"), "{said}");
    assert!(!list(u.at("d")).iter().any(|name| name.contains("acl")));
    u.run("umask 027; echo n > d/n; mkdir d/m; mkfifo d/p");
    assert_eq!((mode(u.at("d/n")), mode(u.at("d/m")), mode(u.at("d/p"))), (0o640, 0o750, 0o640));
}

fn run_fails(u: &Union, cmd: &str) -> String {
    let out = sh_outcome(u.root(), cmd);
    assert!(!out.success(), "`{cmd}` succeeded");
    out.stderr
}

#[test]
fn maps_and_overrides_together() {
    let maps = ["xattr_permissions=2", "uidmapping=0:1000:1:1:100000:65535", "gidmapping=0:1000:1:1:100000:65535"];
    let mut u = Union::with(&["mkdir d; echo f > f"], &maps);
    fs::set_permissions(u.s.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(u.at("d"), fs::Permissions::from_mode(0o777)).unwrap();
    chown(u.at("f"), Some(100_032), Some(100_032)).unwrap();
    as_user(1000, 1000, &[], || fs::write(u.at("d/n"), "x")).unwrap();
    for _ in 0..2 {
        assert_eq!(owner(u.at("f")), (100_032, 100_032));
        assert_eq!(owner(u.at("d/n")), (1000, 1000));
        u.m.remount();
    }
    let value = |name: &str| String::from_utf8(get(u.up(name), "user.containers.override_stat").unwrap()).unwrap();
    assert!(value("f").starts_with("33:33:"), "{}", value("f"));
    assert!(value("d/n").starts_with("0:0:"), "{}", value("d/n"));
}
