//! Redirect, metacopy and override marks are followed in the mount's own xattr namespace alone; whiteouts and opaque
//! marks are read in every encoding.

use std::fs;

use rustix::io::Errno;

use super::kit::*;

/// A lower in which `secret` and `big` are worth having, and marks in namespace `ns` that would give them away.
fn tempting(ns: &str) -> Vec<String> {
    let mark = |path: &str, name: &str, value: &str| {
        format!(
            "setfattr -n {ns}.overlay.{name} {} {path}",
            if value.is_empty() { String::new() } else { format!("-v {value}") }
        )
    };
    vec![
        [
            "mkdir d m; : > meta; : > meta2; truncate -s 100 meta2".to_owned(),
            mark("d", "redirect", "/secret"),
            mark("m", "redirect", "secret"),
            mark("meta", "metacopy", ""),
            mark("meta", "redirect", "/secret/s"),
            mark("meta2", "metacopy", ""),
        ]
        .join("; "),
        "mkdir secret; chmod 711 secret; echo s > secret/s; echo data > meta2".to_owned(),
    ]
}

fn check_ignored(u: &Union) {
    assert_eq!(names(u.at("d")), [""; 0]);
    assert_eq!(names(u.at("m")), [""; 0]);
    assert_eq!(u.read("meta"), "");
    assert_eq!(u.read("meta2"), "\0".repeat(100));
}

fn check_followed(u: &Union) {
    assert_eq!(names(u.at("d")), ["s"]);
    assert_eq!(names(u.at("m")), ["s"]);
    assert_eq!(u.read("meta2").as_bytes()[..5], *b"data\n");
}

#[test]
fn user_marks_are_ignored_by_a_privileged_mount() {
    let fills = tempting("user");
    let fills: Vec<&str> = fills.iter().map(String::as_str).collect();
    let mut u = Union::with(&fills, &[]);
    check_ignored(&u);
    // A copy-up of such an object does not turn its mark into a believed one.
    u.run("chmod 700 d m; chmod 600 meta meta2; echo x > d/x");
    u.m.remount();
    assert_eq!(names(u.at("d")), ["x"]);
    assert_eq!(u.read("meta"), "");
    assert_eq!(u.read("meta2"), "\0".repeat(100));
}

#[test]
fn trusted_marks_are_followed_by_a_privileged_mount() {
    let fills = tempting("trusted");
    let fills: Vec<&str> = fills.iter().map(String::as_str).collect();
    check_followed(&Union::with(&fills, &[]));
}

/// Kernel overlayfs: userxattr cannot be had with redirect_dir or metacopy.
#[test]
fn trusted_marks_are_ignored_with_userxattr() {
    let fills = tempting("trusted");
    let fills: Vec<&str> = fills.iter().map(String::as_str).collect();
    check_ignored(&Union::with(&fills, &["userxattr"]));
}

/// Kernel overlayfs: as above.
#[test]
fn user_marks_are_followed_with_userxattr() {
    let fills = tempting("user");
    let fills: Vec<&str> = fills.iter().map(String::as_str).collect();
    check_followed(&Union::with(&fills, &["userxattr"]));
}

/// Kernel overlayfs: as above.
#[test]
fn userxattr_writes_user_marks_alone() {
    let mut u = Union::with(&["mkdir -p d/s gone; echo a > d/s/a; echo f > f; echo g > gone/g"], &["userxattr"]);
    u.run("mv d e; chmod 600 f; rm -r gone; mkdir gone");
    let marks: Vec<String> = ["e", "f", "gone", ""].iter().flat_map(|p| list(u.up(p))).collect();
    assert!(marks.iter().any(|m| m == "user.overlay.redirect"), "{marks:?}");
    assert!(marks.iter().any(|m| m == "user.overlay.metacopy"), "{marks:?}");
    assert!(marks.iter().any(|m| m == "user.overlay.opaque"), "{marks:?}");
    assert!(!marks.iter().any(|m| m.starts_with("trusted.")), "{marks:?}");
    u.m.remount();
    u.run("test $(cat e/s/a) = a; test $(cat f) = f; test -z \"$(ls gone)\"; test ! -e d");
}

/// Kernel overlayfs: knows no override marks.
#[test]
fn override_marks_of_a_layer_are_ignored_by_a_plain_mount() {
    let set = |name: &str| format!("setfattr -n {name} -v 1234:1234:06777 . d f; ");
    let fill = format!(
        "mkdir d; echo f > f; chmod 640 f; {} {}",
        set("user.containers.override_stat"),
        set("user.fuseoverlayfs.override_stat"),
    );
    let u = Union::new(&fill);
    for path in ["", "d", "f"] {
        let meta = stat(u.at(path));
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&meta), 0, "{path:?}");
        assert_ne!(mode(u.at(path)), 0o6777, "{path:?}");
    }
}

#[test]
fn an_origin_mark_leads_to_no_other_object() {
    // Kernel overlayfs's origin is a file handle: a layer that names a file outside must gain nothing by it.
    let s = Scratch::new();
    run_in(&s.lower(1), "echo low > f");
    run_in(
        &s.lower(0),
        "echo top > f; setfattr -n trusted.overlay.origin -v 0sAPsdAAEAAAAAAAAAAAAAAAAAAAAA0MCYAF64aR4= f",
    );
    let mut u = Union::over(s, 2, &[]);
    assert_eq!(u.read("f"), "top\n");
    u.run("echo x >> f");
    u.m.remount();
    assert_eq!(u.read("f"), "top\nx\n");
}

/// Kernel overlayfs: the module's redirect_always_follow, on by default, overrules.
#[test]
fn redirects_are_not_followed_when_off() {
    let fills = tempting("trusted");
    let fills: Vec<&str> = fills.iter().map(String::as_str).collect();
    let u = Union::with(&fills, &["redirect_dir=off", "metacopy=off"]);
    // Such an object is refused or bare, never followed.
    for dir in ["d", "m"] {
        if let Ok(mut entries) = std::fs::read_dir(u.at(dir)) {
            assert!(entries.next().is_none(), "{dir}");
        }
    }
    assert!(std::fs::read(u.at("meta2")).is_ok_and(|d| d == [0; 100]) || std::fs::read(u.at("meta2")).is_err());
    u.assert_alive();
}

/// The upper of a `userxattr` mount of lamel, in a `userxattr` mount of kernel overlayfs.
fn user_upper_in_the_kernel(opts: &[&str]) -> (Union, Mounted) {
    let fill = "mkdir -p d/s gone plain; echo a > d/s/a; echo f > f; echo g > gone/g; echo p > plain/p; echo w > w";
    let mut u = Union::with(&[fill], &[&["userxattr"], opts].concat());
    u.run("mv d e; chmod 600 f; rm -r gone; mkdir gone; echo n > gone/n; echo q > plain/q; echo more >> w; rm plain/p");
    u.m.unmount();
    let stack = Stack { mnt: u.s.dir("kernel"), opts: vec![], ..u.m.stack().clone() };
    let m = Subject::Overlayfs { opts: vec!["userxattr".to_owned()] }.mount_stack(stack);
    (u, m)
}

#[test]
fn a_kernel_mount_with_userxattr_refuses_what_was_redirected() {
    let (u, m) = user_upper_in_the_kernel(&[]);
    assert_eq!(verdict(fs::read_dir(m.join("e"))), Err(Errno::PERM));
    assert_eq!(verdict(fs::read(m.join("f"))), Err(Errno::PERM));
    // The rest is right.
    m.run("test \"$(ls gone)\" = n; test \"$(ls plain)\" = q; test \"$(cat w)\" = $'w\\nmore'; test ! -e d");
    drop((m, u));
}

#[test]
fn an_upper_without_redirects_and_metacopies_reads_everywhere() {
    let (u, m) = user_upper_in_the_kernel(&["redirect_dir=off", "metacopy=off"]);
    m.run(
        "test $(cat e/s/a) = a; test $(stat -c %a f) = 600; test $(cat f) = f; test \"$(ls gone)\" = n; \
         test \"$(ls plain)\" = q; test \"$(cat w)\" = $'w\\nmore'; test ! -e d",
    );
    drop((m, u));
}

/// Why its face of lamel has both off.
#[test]
fn fuse_overlayfs_shows_zeros_for_a_metacopy() {
    let mut u = Union::new("mkdir d; echo a > d/a; echo content > f");
    u.run("mv d e; echo n > e/n; chmod 600 f");
    u.m.unmount();
    let m = Subject::fuse_overlayfs().mount(&u.s, 1, true, &[]);
    assert_eq!(names(m.join("e")), ["n"]);
    assert_eq!(fs::read(m.join("f")).unwrap(), [0; 8]);
}
