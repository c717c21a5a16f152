//! Layers that nobody should have made: an error on the object at most, never a panic, a hang or a way out.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use super::kit::*;

const SECRET: &str = "TOP-SECRET";

/// A union of one lower that `top` made over one with ordinary content, and a secret outside of all layers.
fn hostile(top: &str) -> Union {
    let s = Scratch::new();
    fs::write(s.dir("outside").join("secret"), SECRET).unwrap();
    run_in(&s.lower(1), "mkdir -p a b; echo a > a/a; echo b > b/b; echo f > f; echo fine > fine");
    run_in(&s.lower(0), &top.replace("OUTSIDE", &s.join("outside").display().to_string()));
    Union::over(s, 2, &[])
}

/// Everything a visitor does; errors are fine, the secret is not.
fn visit(path: &Path, depth: usize) {
    assert!(depth < 64, "a loop at {}", path.display());
    let _ = list_ok(path);
    let Ok(meta) = fs::symlink_metadata(path) else {
        return;
    };
    if meta.is_dir() {
        if let Ok(entries) = fs::read_dir(path) {
            for entry in entries.flatten() {
                assert_ne!(entry.file_name(), "secret", "{}", path.display());
                visit(&entry.path(), depth + 1);
            }
        }
        // In directories that a mark leads to.
        let _ = fs::write(path.join("made"), "x").map(|()| fs::remove_file(path.join("made")));
    } else if meta.is_file() {
        let mut text = vec![];
        let _ = File::open(path).and_then(|f| f.take(1 << 20).read_to_end(&mut text));
        assert!(!String::from_utf8_lossy(&text).contains(SECRET), "{} gives the secret", path.display());
    }
}

fn list_ok(path: &Path) -> Option<usize> {
    let mut names = vec![0_u8; 1 << 16];
    rustix::fs::llistxattr(path, &mut names[..]).ok()
}

/// Visits, changes and removes all of it, twice; the ordinary content must be there until it is removed.
fn survives(mut u: Union) {
    let start = Instant::now();
    for round in 0..2 {
        assert_eq!(u.read("fine"), "fine\n");
        visit(u.root(), 0);
        if round == 0 {
            for name in names_ok(u.root()) {
                let path = u.root().join(&name);
                let _ = fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755));
                if path.is_file() {
                    let _ = File::options().append(true).open(&path);
                }
                let _ = fs::rename(&path, u.root().join("moved")).map(|()| fs::rename(u.root().join("moved"), &path));
            }
        }
        u.assert_alive();
        u.m.remount();
    }
    let _ = sh_outcome(u.root(), "rm -rf -- * 2>/dev/null");
    u.assert_alive();
    u.m.unmount();
    assert_eq!(fs::read_to_string(u.s.join("outside/secret")).unwrap(), SECRET);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

fn names_ok(dir: &Path) -> Vec<std::ffi::OsString> {
    fs::read_dir(dir).map(|d| d.flatten().map(|e| e.file_name()).collect()).unwrap_or_default()
}

fn redirect(path: &str, to: &str) -> String {
    format!("setfattr -n trusted.overlay.redirect -v '{to}' {path}; ")
}

#[test]
fn markers_that_are_directories() {
    let u = hostile(
        "echo fine > fine; mkdir -p .wh.f a/.wh..wh..opq .wh..wh..opq b/.wh.b/x; echo x > b/.wh.b/x/y; ln -s /etc .wh.a",
    );
    for dir in ["", "a", "b"] {
        for name in names_ok(&u.at(dir)) {
            assert!(!name.to_string_lossy().starts_with(".wh."), "{dir}/{}", name.display());
        }
    }
    survives(u);
}

/// An object that cannot be shown is an error to who asks for it, not a hole in the listing.
#[test]
fn a_broken_object_is_listed() {
    let u = hostile("echo x > broken; setfattr -n trusted.overlay.metacopy broken; echo fine > whole");
    let names = names_ok(u.root());
    assert!(names.iter().any(|name| name == "broken"), "{names:?}");
    let error = fs::symlink_metadata(u.at("broken")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
    assert!(names_ok(u.root()).iter().any(|name| name == "broken"));
    assert_eq!(u.read("whole"), "fine\n");
    u.assert_alive();
}

/// It also is while somebody has it open, so that the kernel knows it.
#[test]
fn an_object_that_breaks_while_it_is_open_is_listed() {
    let u = Union::new("mkdir d; echo broken > d/broken; echo whole > d/whole");
    let mut open = File::open(u.at("d/broken")).unwrap();
    let broken = u.s.lower(0).join("d/broken");
    set(&broken, "trusted.overlay.metacopy", "").unwrap();
    for _ in 0..3 {
        assert_eq!(names(u.at("d")), ["broken", "whole"]);
        drop_caches();
    }
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "broken\n");
    rustix::fs::lremovexattr(&broken, "trusted.overlay.metacopy").unwrap();
    drop_caches();
    assert_eq!(u.read("d/broken"), "broken\n");
    u.assert_alive();
}

#[test]
fn odd_marker_names() {
    survives(hostile(
        ": > .wh.; : > .wh..; : > .wh...; : > .wh..wh.f; : > .wh..wh..wh..opq; : > .wh..wh..plnk; : > .wh.f; mkdir a; : > a/.wh.",
    ));
}

#[test]
fn the_longest_marker_name() {
    // .wh. and 251 bytes delete a name of 251; .wh.NAME of a name with 252 and more cannot exist.
    let u = hostile(
        "n=$(printf 'n%.0s' $(seq 251)); : > .wh.$n; : > $(printf 'm%.0s' $(seq 255)); ln -s x $(printf '.%.0s' $(seq 255))",
    );
    assert!(exists(u.at("m".repeat(255))));
    survives(u);
}

#[test]
fn redirects_out_of_the_stack() {
    for to in [
        "../outside",
        "../../../../../../../../etc",
        "/../outside",
        "/../../../../../../../../../etc",
        "/a/../../outside",
        "..",
        ".",
        "/",
        "//",
        "/.",
        "/..",
        "",
        "a/b",
        "a/../b",
        "./a",
        "/a/",
        "//a",
        "/a//",
        "OUTSIDE",
        "/a/.",
        "a\\0b",
    ] {
        let fill = format!("mkdir evil; {}", redirect("evil", to).replace("-v ''", ""));
        let u = hostile(&fill);
        visit(&u.at("evil"), 0);
        for name in ["secret", "passwd", "outside"] {
            assert!(fs::symlink_metadata(u.at("evil").join(name)).is_err(), "{to}: {name}");
        }
        survives(u);
    }
}

#[test]
fn redirects_through_symlinks() {
    let fill = format!(
        "ln -s OUTSIDE link; ln -s .. up; mkdir e1 e2 e3 e4; {}{}{}{}",
        redirect("e1", "/link"),
        redirect("e2", "link"),
        redirect("e3", "/up/outside"),
        redirect("e4", "/low/secret"),
    );
    let s = Scratch::new();
    fs::write(s.dir("outside").join("secret"), SECRET).unwrap();
    let outside = s.join("outside").display().to_string();
    run_in(&s.lower(0), &fill.replace("OUTSIDE", &outside));
    run_in(&s.lower(1), &format!("ln -s {outside} link; ln -s .. up; ln -s {outside} low; echo fine > fine"));
    let u = Union::over(s, 2, &[]);
    for dir in ["e1", "e2", "e3", "e4"] {
        assert!(!exists(u.at(dir).join("secret")), "{dir}");
    }
    survives(u);
}

#[test]
fn redirect_loops() {
    survives(hostile(&format!("mkdir a b c; {}{}{}", redirect("a", "/b"), redirect("b", "/a"), redirect("c", "/c"))));
    survives(hostile(&format!("mkdir -p a/x/y; {}{}", redirect("a/x", "/a"), redirect("a/x/y", "/a/x"))));
    let chain: String = (0..200)
        .map(|i| format!("mkdir r{i}; {}", redirect(&format!("r{i}"), &format!("/r{}", (i + 1) % 200))))
        .collect();
    survives(hostile(&chain));
}

#[test]
fn redirects_to_what_is_no_directory() {
    survives(hostile(&format!(
        "mkdir d1 d2 d3; mknod d c 0 0; mkfifo p; {}{}{}",
        redirect("d1", "/f"),
        redirect("d2", "/none/none"),
        redirect("d3", "/p"),
    )));
}

#[test]
fn absurd_redirect_values() {
    let long = "x/".repeat(2000);
    for value in [
        format!("\"/{}\"", "y".repeat(300)),
        format!("\"/{}\"", &long[..3000]),
        "0xff00fe2f".to_owned(),
        "0x2f6100".to_owned(), // "/a\0"
        "0x00".to_owned(),
        "0x2e2e00".to_owned(), // "..\0"
        "0x2f".to_owned(),
    ] {
        // ext4 may refuse the longest: the test is then of what it took.
        let fill = format!("mkdir evil; setfattr -n trusted.overlay.redirect -v {value} evil || true");
        survives(hostile(&fill));
    }
}

#[test]
fn metacopies_without_data() {
    for value in ["", "garbage", "0x00", "0x0003000100", "0x0040000112121212"] {
        let v = if value.is_empty() { String::new() } else { format!("-v {value}") };
        let u = hostile(&format!(
            "truncate -s 1000 lost; setfattr -n trusted.overlay.metacopy {v} lost; mkdir d; setfattr -n trusted.overlay.metacopy {v} d; \
             ln -s x l; setfattr -h -n trusted.overlay.metacopy {v} l; mkfifo p; setfattr -n trusted.overlay.metacopy {v} p; \
             truncate -s 5 a; setfattr -n trusted.overlay.metacopy {v} a; truncate -s 5 away; setfattr -n trusted.overlay.metacopy {v} away; {}",
            redirect("away", "/../outside/secret")
        ));
        // Zeros in place of lost data would be a silent corruption.
        if value.is_empty() {
            for name in ["lost", "a", "away"] {
                assert!(fs::read(u.at(name)).is_err(), "{name}");
            }
        }
        survives(u);
    }
}

#[test]
fn a_metacopy_over_a_directory_or_a_loop_of_metacopies() {
    survives(hostile(&format!(
        "truncate -s 9 a; setfattr -n trusted.overlay.metacopy a; truncate -s 9 m1; truncate -s 9 m2; \
         setfattr -n trusted.overlay.metacopy m1 m2; {}{}",
        redirect("m1", "/m2"),
        redirect("m2", "/m1"),
    )));
}

#[test]
fn marks_on_the_root_of_a_layer() {
    for mark in
        ["opaque -v y", "redirect -v /a", "redirect -v ..", "metacopy", "whiteout", "opaque -v x", "origin -v garbage"]
    {
        let u = hostile(&format!("setfattr -n trusted.overlay.{mark} ."));
        // The root merges whatever its layer says, as in kernel overlayfs.
        survives(u);
    }
}

#[test]
fn opaque_with_garbage() {
    for value in ["n", "yes", "\"\"", "0xff", "Y", "0x00", &"z".repeat(1000)] {
        survives(hostile(&format!(
            "mkdir a; setfattr -n trusted.overlay.opaque -v {value} a; : > g; setfattr -n trusted.overlay.opaque -v {value} g"
        )));
    }
}

#[test]
fn marks_of_absurd_size() {
    let huge = "A".repeat(3500);
    for name in
        ["opaque", "redirect", "metacopy", "origin", "nlink", "upper", "whiteout", "lamel.ino", "protattr", "uuid"]
    {
        survives(hostile(&format!(
            "mkdir a; : > g; setfattr -n trusted.overlay.{name} -v {huge} a; setfattr -n trusted.overlay.{name} -v {huge} g"
        )));
    }
}

#[test]
fn garbage_in_the_upper() {
    // A crashed or foreign upper: marks that do not fit their objects.
    let s = Scratch::new();
    run_in(&s.lower(0), "mkdir d; echo f > f; echo fine > fine; echo x > d/x");
    run_in(
        &s.upper(),
        "echo f > f; setfattr -n trusted.overlay.lamel.ino -v 99999999999999999999999 f; \
         setfattr -n trusted.overlay.nlink -v U+999 f; setfattr -n trusted.overlay.origin -v 0xfb f; \
         mkdir d; setfattr -n trusted.overlay.lamel.ino -v 1 d; setfattr -n trusted.overlay.impure -v q d; \
         echo g > g; setfattr -n trusted.overlay.lamel.ino -v -5 g; setfattr -n trusted.overlay.nlink -v L-999 g; \
         echo h > h; setfattr -n trusted.overlay.lamel.ino -v 0 h; mkdir -p e; setfattr -n trusted.overlay.redirect -v /../.. e",
    );
    run_in(
        &s.work(),
        "mkdir -p work/x/y index/z; echo left > work/x/y/over; ln -s /etc work/link; echo junk > index/junk; mkfifo work/p",
    );
    fs::write(s.dir("outside").join("secret"), SECRET).unwrap();
    survives(Union::over(s, 1, &[]));
}

#[test]
fn override_values_that_do_not_parse() {
    for value in [
        "a:b:c",
        "1:2",
        "",
        "99999999999:0:0755",
        "-1:-1:0755",
        "0:0:99999999",
        "0:0:0755:char-1",
        "0:0:0755:char-99999-99999999",
        "0:0:0755:nonsense",
        "1:2:3:4:5:6",
        "0x00",
        "0:0:0755:char-0-0",
        "0:0:0755:dir",
        ":::",
        "4294967295:4294967295:07777",
    ] {
        let s = Scratch::new();
        fs::write(s.dir("outside").join("secret"), SECRET).unwrap();
        let v = if value.is_empty() { String::new() } else { format!("-v '{value}'") };
        run_in(
            &s.lower(0),
            &format!(
                "setfattr -n user.containers.override_stat -v 0:0:0755 .; mkdir d; echo f > f; echo fine > fine; \
             setfattr -n user.containers.override_stat {v} d f"
            ),
        );
        survives(Union::over(s, 1, &["xattr_permissions=2"]));
    }
}

const DEEP: &str = "python3 -c '
import os
for i in range(1500): os.mkdir(\"d\"); os.chdir(\"d\")
open(\"f\", \"w\").write(\"deep\")'";

#[test]
fn very_deep_directories() {
    let u = hostile(DEEP);
    u.run(
        "python3 -c '
import os
for i in range(1500): os.chdir(\"d\")
assert open(\"f\").read() == \"deep\"
open(\"f\", \"a\").write(\"x\")
os.rename(\"f\", \"g\")'",
    );
    assert_eq!(u.run("mv d e; find e -name g | wc -l; rm -r e; ls -A | grep -c e"), "1\n1");
    u.assert_alive();
}

#[test]
fn very_long_symlinks_and_odd_types() {
    survives(hostile(
        "ln -s $(printf 'x%.0s' $(seq 4000)) long; ln -s self self; mkfifo p; mknod b b 7 200; \
         python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'; mknod c c 0 0; mknod z c 0 1",
    ));
}

#[test]
fn a_lower_whose_objects_are_immutable() {
    let u = hostile("mkdir im; echo x > im/x; chattr +i im/x; chattr +a im");
    let out = sh_outcome(u.root(), "cat im/x && echo y >> im/x && mv im im2 && rm -r im2");
    let low = u.s.join("lower0").display().to_string();
    sh(&format!("chattr -a {low}/im; chattr -i {low}/im/x"));
    assert!(!out.stdout.is_empty(), "{}", out.stderr);
    u.assert_alive();
}
