//! Stacks: many layers, none to write to, every encoding of a deletion, odd paths.

use std::fs;

use rustix::io::Errno;

use super::kit::*;

/// Kernel overlayfs: mount(2) takes a page of options only.
#[test]
fn five_hundred_lowers() {
    let s = Scratch::new();
    for i in 0..500 {
        let dir = s.dir(format!("l/{i}"));
        fs::create_dir(dir.join("both")).unwrap();
        fs::write(dir.join(format!("both/f{i}")), format!("{i}")).unwrap();
        fs::write(dir.join("top"), format!("{i}")).unwrap();
        fs::write(dir.join(format!("only{i}")), "x").unwrap();
    }
    let stack = Stack {
        lowers: (0..500).map(|i| s.join(format!("l/{i}"))).collect(),
        upper: Some((s.upper(), s.work())),
        mnt: s.mnt(),
        opts: vec![],
    };
    let m = subject().mount_stack(stack);
    let mut u = Union { m, s };
    assert_eq!(u.read("top"), "0");
    assert_eq!(names(u.at("both")).len(), 500);
    assert_eq!(u.read("both/f499"), "499");
    assert!(!exists(u.at("none")));
    u.run("rm both/f499 top; echo x >> both/f250; mv both moved");
    u.m.remount();
    assert_eq!(names(u.at("moved")).len(), 499);
    assert_eq!(u.read("moved/f250"), "250x\n");
    assert!(!exists(u.at("top")) && !exists(u.at("both")));
}

#[test]
fn without_an_upper_every_change_is_erofs() {
    let s = Scratch::new();
    run_in(&s.lower(0), "mkdir d; echo t > t");
    run_in(&s.lower(1), "mkdir -p d/e; echo f > d/f; ln -s f d/l");
    let before = [dump_all(&s.lower(0)), dump_all(&s.lower(1))];
    let m = subject().mount(&s, 2, false, &[]);
    let at = |p: &str| m.join(p);
    assert_eq!(fs::read_to_string(at("d/f")).unwrap(), "f\n");
    let verdicts = [
        verdict(fs::write(at("new"), "x")),
        verdict(fs::write(at("d/f"), "x")),
        verdict(fs::create_dir(at("n"))),
        verdict(fs::remove_file(at("t"))),
        verdict(fs::remove_dir(at("d/e"))),
        verdict(fs::rename(at("t"), at("u"))),
        verdict(fs::hard_link(at("t"), at("u"))),
        verdict(std::os::unix::fs::symlink("x", at("u"))),
        verdict(fs::set_permissions(at("t"), std::os::unix::fs::PermissionsExt::from_mode(0o600))),
        verdict(std::os::unix::fs::chown(at("t"), Some(1), None)),
        set(at("t"), "user.x", "y"),
    ];
    for (i, verdict) in verdicts.iter().enumerate() {
        assert_eq!(*verdict, Err(Errno::ROFS), "number {i}");
    }
    let tree = dump(m.root());
    assert_eq!(tree.len(), 6, "{:?}", tree.keys());
    assert_eq!(before, [dump_all(&s.lower(0)), dump_all(&s.lower(1))]);
}

/// Kernel overlayfs: `ro` is a flag of mount(2), not an option.
#[test]
fn a_read_only_mount_with_an_upper() {
    let s = Scratch::new();
    run_in(&s.lower(0), "echo f > f");
    run_in(&s.upper(), "echo u > u");
    let m = subject().mount(&s, 1, true, &["ro"]);
    assert_eq!(verdict(fs::write(m.join("f"), "x")), Err(Errno::ROFS));
    assert_eq!(fs::read_to_string(m.join("u")).unwrap(), "u\n");
    assert_eq!(names(s.upper()), ["u"]);
}

/// The three encodings that the tests below give by a command: a deletion of `$1` in the directory it runs in.
const BELOW: &str = "mkdir -p d/sub e; echo f > d/f; echo g > d/g; echo s > d/sub/s; echo e > e/e";

fn check_deletions(top: &str) {
    for in_upper in [false, true] {
        let s = Scratch::new();
        let layers = if in_upper {
            run_in(&s.upper(), top);
            run_in(&s.lower(0), BELOW);
            1
        } else {
            run_in(&s.lower(0), top);
            run_in(&s.lower(1), BELOW);
            2
        };
        let mut u = Union::over(s, layers, &[]);
        for _ in 0..2 {
            assert_eq!(names(u.at("d")), ["g"]);
            assert_eq!(names(u.at("")), ["d"]);
            for gone in ["d/f", "d/sub", "d/sub/s", "e", "e/e"] {
                assert!(!exists(u.at(gone)), "{gone}");
            }
            u.m.remount();
        }
        u.run("echo again > d/f; mkdir e d/sub; echo x > e/x");
        u.m.remount();
        assert_eq!(u.read("d/f"), "again\n");
        assert_eq!(names(u.at("e")), ["x"]);
        assert_eq!(names(u.at("d/sub")), [""; 0]);
        u.run("rm -r d e");
        u.m.remount();
        assert_eq!(names(u.at("")), [""; 0]);
    }
}

#[test]
fn device_whiteouts_are_read() {
    check_deletions("mkdir d; mknod d/f c 0 0; mknod d/sub c 0 0; mknod e c 0 0");
}

/// Kernel overlayfs: `.wh.` means nothing to it.
#[test]
fn aufs_whiteouts_are_read() {
    check_deletions("mkdir d; : > d/.wh.f; : > d/.wh.sub; : > .wh.e; chmod 0 d/.wh.f");
}

/// Kernel overlayfs: those in `user.` only with userxattr.
#[test]
fn xattr_whiteouts_are_read_in_lowers() {
    for ns in ["trusted", "user"] {
        let top = format!(
            "mkdir d; : > d/f; : > d/sub; : > e; setfattr -n {ns}.overlay.opaque -v x d .; \
             setfattr -n {ns}.overlay.whiteout d/f d/sub e"
        );
        let mut u = Union::with(&[&top, BELOW], &[]);
        for _ in 0..2 {
            assert_eq!(names(u.at("d")), ["g"]);
            assert_eq!(names(u.at("")), ["d"]);
            for gone in ["d/f", "d/sub", "d/sub/s", "e", "e/e"] {
                assert!(!exists(u.at(gone)), "{gone}");
            }
            u.m.remount();
        }
        u.run("rm -r d");
        u.m.remount();
        assert_eq!(names(u.at("")), [""; 0]);
    }
}

fn check_opaque(mark: &str) {
    let top = format!("mkdir d e; echo new > d/new; mkdir d/sub; {mark}");
    let mut u = Union::with(&[&top, BELOW], &[]);
    for _ in 0..2 {
        assert_eq!(names(u.at("d")), ["new", "sub"]);
        assert_eq!(names(u.at("d/sub")), [""; 0]);
        assert_eq!(names(u.at("e")), ["e"]);
        assert!(!exists(u.at("d/f")));
        u.run("chmod 700 d; echo x > d/f; rm d/f");
        u.m.remount();
    }
}

#[test]
fn opaque_in_trusted_is_read() {
    check_opaque("setfattr -n trusted.overlay.opaque -v y d");
}

/// Kernel overlayfs: only with userxattr.
#[test]
fn opaque_in_user_is_read() {
    check_opaque("setfattr -n user.overlay.opaque -v y d");
}

/// Kernel overlayfs: foreign to it.
#[test]
fn opaque_of_fuse_overlayfs_is_read() {
    check_opaque("setfattr -n user.fuseoverlayfs.opaque -v y d");
}

/// Kernel overlayfs: foreign to it.
#[test]
fn opaque_of_aufs_is_read() {
    check_opaque(": > d/.wh..wh..opq");
}

/// Kernel overlayfs: `.wh.` means nothing to it.
#[test]
fn a_whiteout_beside_the_object_of_its_own_layer() {
    // In one layer `.wh.f` and `f`: the marker deletes what is below, the object is the layer's own.
    let u = Union::with(&["mkdir d; : > d/.wh.f; echo top > d/f; : > .wh.e; mkdir e; echo mine > e/m", BELOW], &[]);
    assert_eq!(u.read("d/f"), "top\n");
    assert_eq!(names(u.at("e")), ["m"]);
}

#[test]
fn a_file_hides_a_directory_and_the_reverse() {
    let u = Union::with(
        &["echo file > d; mkdir f; echo in > f/in", "mkdir -p d/x; echo f > f", "mkdir f; echo deep > f/deep"],
        &[],
    );
    assert_eq!(u.read("d"), "file\n");
    assert_eq!(names(u.at("f")), ["in"]);
}

#[test]
fn whiteouts_stop_the_walk_at_their_layer() {
    let u = Union::with(
        &["mkdir d; echo 0 > d/a", "mknod d c 0 0; echo x > x", "mkdir d; echo 2 > d/b; mknod x c 0 0"],
        &[],
    );
    assert_eq!(names(u.at("d")), ["a"]);
    assert_eq!(u.read("x"), "x\n");
}

/// What a layer's directory was seen to have, by a listing or by many look-ups in vain, tells whom to ask and no more.
#[test]
fn names_are_found_and_hidden_after_a_listing_as_before() {
    let layers = [
        "mkdir d; : > d/.wh.file; echo 0 > d/both; echo 0 > d/é",
        "mkdir d; mknod d/device c 0 0; echo 1 > d/file; echo 1 > d/both; mkdir d/merged; echo 1 > d/merged/a",
        "mkdir d; echo 2 > d/device; echo 2 > d/bottom; mkdir d/merged; echo 2 > d/merged/b; echo 2 > d/é",
    ];
    for listed in [false, true] {
        let mut u = Union::with(&layers, &[]);
        for _ in 0..2 {
            match listed {
                true => assert_eq!(names(u.at("d")), ["both", "bottom", "merged", "é"]),
                false => (0..20).for_each(|i| assert!(!exists(u.at(format!("d/none{i}"))))),
            }
            assert_eq!(["both", "bottom", "é"].map(|name| u.read(&format!("d/{name}"))), ["0\n", "2\n", "0\n"]);
            assert!(!exists(u.at("d/file")) && !exists(u.at("d/device")) && !exists(u.at("d/Both")));
            assert_eq!(["a", "b"].map(|name| u.read(&format!("d/merged/{name}"))), ["1\n", "2\n"]);
            u.run("echo new > d/file; mkdir d/device; mv d/bottom d/moved; mv d/merged d/elsewhere");
            assert_eq!(names(u.at("d/device")), [""; 0]);
            assert_eq!(["d/file", "d/moved", "d/elsewhere/b"].map(|name| u.read(name)), ["new\n", "2\n", "2\n"]);
            assert!(!exists(u.at("d/bottom")) && !exists(u.at("d/merged")));
            u.run("rm -r d/file d/device; mv d/moved d/bottom; mv d/elsewhere d/merged");
            u.m.remount();
        }
    }
}

/// Kernel overlayfs: lists the markers of a directory that one layer alone has.
#[test]
fn markers_of_the_bottom_layer_are_hidden() {
    let u = Union::new("mkdir d; mknod d/gone c 0 0; mknod gone c 0 0");
    assert_eq!(names(u.at("")), ["d"]);
    assert_eq!(names(u.at("d")), [""; 0]);
    assert!(!exists(u.at("gone")));
    u.run("rmdir d");
}

/// Kernel overlayfs: takes no mount below its own layers' view.
#[test]
fn over_its_own_lower() {
    let s = Scratch::new();
    let dir = s.dir("lower0");
    run_in(&dir, "mkdir d; echo f > d/f");
    let stack = Stack { lowers: vec![dir.clone()], upper: Some((s.upper(), s.work())), mnt: dir, opts: vec![] };
    let mut m = subject().mount_stack(stack);
    m.run("echo x >> d/f; mv d e; echo n > n");
    m.remount();
    m.run("test \"$(cat e/f)\" = $'f\\nx'; test $(cat n) = n; test ! -e d");
    m.unmount();
    assert_eq!(names(s.lower(0)), ["d"]);
    assert_eq!(names(s.upper()), ["d", "e", "n"]);
}

/// Kernel overlayfs: allows it, but the layers below are then reached through the mount.
#[test]
fn over_the_parent_of_its_layers() {
    let s = Scratch::new();
    let parent = s.dir("all");
    for name in ["lower", "upper", "work"] {
        fs::create_dir(parent.join(name)).unwrap();
    }
    run_in(&parent.join("lower"), "mkdir d; echo f > d/f");
    let stack = Stack {
        lowers: vec![parent.join("lower")],
        upper: Some((parent.join("upper"), parent.join("work"))),
        mnt: parent.clone(),
        opts: vec![],
    };
    let mut m = subject().mount_stack(stack);
    m.run("test $(cat d/f) = f; echo x >> d/f; test ! -e lower; rm -r d; echo n > n");
    m.unmount();
    assert!(is_whiteout(parent.join("upper/d")));
    m.mount_again();
    m.run("test $(cat n) = n; test ! -e d");
}

#[test]
fn a_layer_path_may_be_a_symlink() {
    let s = Scratch::new();
    run_in(&s.lower(0), "echo f > f");
    std::os::unix::fs::symlink("lower0", s.join("link")).unwrap();
    std::os::unix::fs::symlink(s.upper(), s.join("ulink")).unwrap();
    let stack =
        Stack { lowers: vec![s.join("link")], upper: Some((s.join("ulink"), s.work())), mnt: s.mnt(), opts: vec![] };
    let m = subject().mount_stack(stack);
    m.run("test $(cat f) = f; echo n > n");
    assert_eq!(names(s.upper()), ["n"]);
}

#[test]
fn layer_paths_with_odd_characters() {
    let s = Scratch::new();
    let odd = s.dir("a:b,c\\d=e f");
    run_in(&odd, "echo f > f");
    let stack =
        Stack { lowers: vec![odd], upper: Some((s.dir("u,p"), s.dir("w,k"))), mnt: s.dir("m n t"), opts: vec![] };
    let m = subject().mount_stack(stack);
    m.run("test $(cat f) = f; echo n > n");
    assert_eq!(names(s.join("u,p")), ["n"]);
}

#[test]
fn the_same_upper_twice_is_refused() {
    let u = Union::new("echo f > f");
    let second = Stack { mnt: u.s.dir("second"), ..u.m.stack().clone() };
    let refused = subject().try_mount_stack(second);
    let out = refused.err().expect("a second mount of one upper");
    assert!(!out.stderr.is_empty(), "a message");
    u.assert_alive();
}

#[test]
fn lowers_are_never_written() {
    let s = Scratch::new();
    run_in(&s.lower(0), "mkdir -p d/sub; echo a > d/a; ln d/a d/b; ln -s a d/l; mkfifo p; echo f > f");
    run_in(&s.lower(1), "mkdir d; echo c > d/c");
    let before = [dump_all(&s.lower(0)), dump_all(&s.lower(1))];
    let mut u = Union::over(s, 2, &[]);
    u.run(
        "echo x >> d/a; chmod 700 d d/sub; mv d e; rm f; touch e/c; setfattr -n user.x -v y e/c; ln e/c g; \
         truncate -s 0 e/b; rm p; mkfifo p; chown -h 5 e/l; cat e/a e/b g > /dev/null",
    );
    u.m.unmount();
    assert_eq!(before, [dump_all(&u.s.lower(0)), dump_all(&u.s.lower(1))]);
}

#[test]
fn mounts_below_a_layer_are_not_entered() {
    let s = Scratch::new();
    run_in(&s.lower(0), "mkdir d other; echo under > d/under");
    let below = s.join("lower0/d");
    sh(&format!("mount -t tmpfs tmpfs {0}; echo over > {0}/over", below.display()));
    let mut u = Union::over(s, 1, &[]);
    assert_eq!(names(u.at("d")), ["under"]);
    u.run("echo x >> d/under");
    u.m.unmount();
    assert_eq!(names(&below), ["over"]);
}
