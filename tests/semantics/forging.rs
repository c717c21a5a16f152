//! What a program inside the mount may try against the union's bookkeeping, and overlays nested inside the mount.

use std::{collections::BTreeMap, fs};

use super::kit::*;

const TREE: &str = "mkdir -p d/sub secret; echo a > d/a; echo b > d/sub/b; echo s > secret/s; echo f > f";

/// Marks of every kind, with values that would do something if they were believed.
const MARKS: [(&str, &str); 12] = [
    ("opaque", "y"),
    ("opaque", "x"),
    ("redirect", "/secret"),
    ("redirect", "../../../../etc"),
    ("metacopy", ""),
    ("origin", "garbage"),
    ("whiteout", ""),
    ("nlink", "U+5"),
    ("impure", "y"),
    ("upper", "garbage"),
    ("lamel.ino", "1"),
    ("overlay.opaque", "y"),
];

/// Setting a mark inside the mount stores a user's xattr: it reads back, is listed, decides nothing.
fn marks_mean_nothing(prefix: &str) {
    let mut u = Union::new(TREE);
    let before = dump(u.root());
    let mut kept = BTreeMap::new();
    for (mark, value) in MARKS {
        let name = format!("{prefix}{mark}");
        for path in ["d", "f", "d/a", ""] {
            match set(u.at(path), &name, value) {
                Ok(()) => {
                    assert_eq!(get(u.at(path), &name).as_deref(), Ok(value.as_bytes()), "{name} of {path:?}");
                    assert!(list(u.at(path)).contains(&name), "{name} of {path:?} is not listed");
                    kept.insert((path, name.clone()), value);
                }
                // Refusing is as good.
                Err(e) => assert!(
                    matches!(e, rustix::io::Errno::PERM | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL),
                    "{name} of {path:?}: {e}"
                ),
            }
        }
    }
    let how = Compare { mtime: false, ino: true, ..Compare::CONTENT };
    assert_same("marks set inside", &before, &dump(u.root()), how);
    u.m.remount();
    assert_same("after remount", &before, &dump(u.root()), how);
    for ((path, name), value) in &kept {
        assert_eq!(get(u.at(path), name).as_deref(), Ok(value.as_bytes()), "{name} of {path:?} after remount");
    }
}

#[test]
fn trusted_overlay_marks_set_inside_are_a_users_xattrs() {
    marks_mean_nothing("trusted.overlay.");
}

#[test]
fn user_overlay_marks_set_inside_are_a_users_xattrs() {
    marks_mean_nothing("user.overlay.");
}

#[test]
fn fuse_overlayfs_marks_set_inside_are_a_users_xattrs() {
    marks_mean_nothing("user.fuseoverlayfs.");
}

#[test]
fn override_xattrs_set_inside_change_no_owner() {
    let mut u = Union::new(TREE);
    let before = dump(u.root());
    for name in
        ["user.containers.override_stat", "user.fuseoverlayfs.override_stat", "security.fuseoverlayfs.override_stat"]
    {
        for path in ["", "d", "f", "d/a"] {
            let _ = set(u.at(path), name, "1234:1234:06777");
        }
    }
    let how = Compare { mtime: false, ..Compare::CONTENT };
    assert_same("override set inside", &before, &dump(u.root()), how);
    u.m.remount();
    assert_same("after remount", &before, &dump(u.root()), how);
}

/// Kernel overlayfs: knows no override marks.
#[test]
fn an_upper_that_becomes_a_lower_carries_no_forged_owner() {
    for opts in [&["userxattr"][..], &[]] {
        let mut u = Union::with(&[TREE], opts);
        for path in ["", "f"] {
            for name in ["user.containers.override_stat", "user.fuseoverlayfs.override_stat"] {
                let _ = set(u.at(path), name, "1234:1234:06777");
            }
        }
        u.run("chmod 640 f");
        u.m.unmount();
        let stack = Stack {
            lowers: vec![u.s.upper(), u.s.lower(0)],
            upper: Some((u.s.dir("upper2"), u.s.dir("work2"))),
            mnt: u.s.mnt(),
            opts: opts.iter().map(|&o| o.to_owned()).collect(),
        };
        let m = subject().mount_stack(stack);
        for path in ["", "f"] {
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&stat(m.join(path))), 0, "{path:?} with {opts:?}");
        }
        assert_eq!(mode(m.join("f")), 0o640);
    }
}

#[test]
fn the_unions_own_marks_are_not_seen_inside() {
    let u = Union::new(TREE);
    u.run("mv d e; chmod 600 f; rm -r secret; mkdir secret");
    for path in ["", "e", "f", "secret"] {
        let shown = list(u.at(path));
        assert!(!shown.iter().any(|n| n.contains("overlay") || n.contains("lamel")), "{path:?}: {shown:?}");
    }
    for (path, name) in [("e", "redirect"), ("f", "metacopy"), ("secret", "opaque")] {
        get(u.up(path), &format!("trusted.overlay.{name}")).unwrap_or_else(|e| panic!("{name} in the upper: {e}"));
        let inside = get(u.at(path), &format!("trusted.overlay.{name}"));
        assert_eq!(inside, Err(rustix::io::Errno::NODATA), "{name} inside");
    }
}

#[test]
fn the_unions_own_marks_cannot_be_removed_inside() {
    let mut u = Union::new(TREE);
    u.run("mv d e; chmod 600 f; rm -r secret; mkdir secret");
    for (path, name) in [("e", "redirect"), ("f", "metacopy"), ("f", "origin"), ("secret", "opaque")] {
        let gone = rustix::fs::lremovexattr(u.at(path), format!("trusted.overlay.{name}"));
        assert_eq!(gone, Err(rustix::io::Errno::NODATA), "{name}");
    }
    u.m.remount();
    assert_eq!(u.read("e/sub/b"), "b\n");
    assert_eq!(u.read("f"), "f\n");
    assert_eq!(names(u.at("secret")), [""; 0]);
}

#[test]
fn escaped_on_disk_as_kernel_overlayfs_escapes() {
    let mut u = Union::new(TREE);
    set(u.at("d"), "trusted.overlay.opaque", "y").unwrap();
    set(u.at("d"), "trusted.overlay.overlay.opaque", "twice").unwrap();
    assert_eq!(get(u.up("d"), "trusted.overlay.overlay.opaque").unwrap(), b"y");
    assert_eq!(get(u.up("d"), "trusted.overlay.overlay.overlay.opaque").unwrap(), b"twice");
    let tree = dump_all(u.root());
    u.m.unmount();
    // Kernel overlayfs shows the same xattrs to its users.
    let m = Subject::overlayfs_full().mount(&u.s, 1, true, &[]);
    let how = Compare { root: false, ..Compare::CONTENT };
    assert_same("in kernel overlayfs", &tree, &dump_all(m.root()), how);
}

#[test]
fn a_nested_kernel_overlay_reads_its_marks_through_the_mount() {
    // The layers of the inner overlay are made inside the outer mount, with marks that the outer one escapes.
    let mut u = Union::new("mkdir -p low/d low/r low/gone; echo l > low/d/l; echo r > low/r/r; echo g > low/gone/g");
    u.run("mkdir -p top/d top/moved top/gone; echo t > top/d/t; echo n > top/gone/n");
    set(u.at("top/d"), "trusted.overlay.opaque", "y").unwrap();
    set(u.at("top/moved"), "trusted.overlay.redirect", "/r").unwrap();
    set(u.at("low/gone"), "trusted.overlay.opaque", "y").unwrap();
    for _ in 0..2 {
        let inner = Stack { lowers: vec![u.at("top"), u.at("low")], upper: None, mnt: u.s.dir("inner"), opts: vec![] };
        let opts = vec!["redirect_dir=follow".to_owned()];
        let m = Subject::Overlayfs { opts }.mount_stack(inner);
        assert_eq!(names(m.join("d")), ["t"], "opaque");
        assert_eq!(names(m.join("moved")), ["r"], "redirect");
        assert_eq!(names(m.join("gone")), ["g", "n"]);
        drop(m);
        u.m.remount();
    }
}

#[test]
fn a_nested_kernel_overlay_with_userxattr() {
    let u = Union::new("mkdir -p low/d; echo l > low/d/l");
    u.run("mkdir -p top/d; echo t > top/d/t");
    set(u.at("top/d"), "user.overlay.opaque", "y").unwrap();
    let inner = Stack { lowers: vec![u.at("top"), u.at("low")], upper: None, mnt: u.s.dir("inner"), opts: vec![] };
    let m = Subject::Overlayfs { opts: vec!["userxattr".to_owned()] }.mount_stack(inner);
    assert_eq!(names(m.join("d")), ["t"]);
}

#[test]
fn a_nested_mount_over_lowers_in_the_mount() {
    let mut u = Union::new("mkdir -p low/d; echo l > low/d/l; echo f > low/f");
    u.run("mkdir top; echo t > top/t");
    let inner = Stack {
        lowers: vec![u.at("top"), u.at("low")],
        upper: Some((u.s.dir("upper2"), u.s.dir("work2"))),
        mnt: u.s.dir("inner"),
        opts: vec![],
    };
    let mut m = subject().mount_stack(inner);
    m.run("rm f; mv d e; echo x >> e/l; echo n > n");
    m.remount();
    m.run("test ! -e f; test \"$(cat e/l)\" = $'l\\nx'; test $(cat t n | tr -d '\\n') = tn");
    assert_eq!(names(u.at("low")), ["d", "f"]);
    m.unmount();
    u.m.unmount();
}

/// No upper lies inside another union: neither kind of whiteout can be made there. Kernel overlayfs: FUSE filesystems
/// are no uppers for it.
#[test]
fn a_nested_mount_with_its_upper_in_the_mount_is_refused() {
    let u = Union::new("mkdir low; echo f > low/f");
    u.run("mkdir up work");
    let inner = Stack {
        lowers: vec![u.at("low")],
        upper: Some((u.at("up"), u.at("work"))),
        mnt: u.s.dir("inner"),
        opts: vec![],
    };
    let out = subject().try_mount_stack(inner).err().expect("an upper inside a union");
    assert!(out.stderr.contains("work"), "{}", out.stderr);
    u.assert_alive();
}

/// Kernel overlayfs: `.wh.` means nothing to it.
#[test]
fn symlinks_and_rename_cannot_smuggle_a_marker() {
    // A marker that is made where no rule looks, then moved to where one would.
    let mut u = Union::new(TREE);
    u.run("mkdir n; echo x > n/x; mv n d/n; ln -s /etc d/etc");
    fs::create_dir(u.at("d/opq")).unwrap();
    for to in [".wh.a", ".wh..wh..opq"] {
        assert!(fs::rename(u.at("d/n/x"), u.at("d").join(to)).is_err(), "{to}");
        assert!(fs::rename(u.at("d/opq"), u.at("d").join(to)).is_err(), "{to}");
        let swap = rustix::fs::RenameFlags::EXCHANGE;
        let cwd = rustix::fs::CWD;
        assert!(rustix::fs::renameat_with(cwd, u.at("d/n/x"), cwd, u.at("d").join(to), swap).is_err());
    }
    u.m.remount();
    assert_eq!(names(u.at("d")), ["a", "etc", "n", "opq", "sub"]);
}
