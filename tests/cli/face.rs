//! The fuse-overlayfs face, called as its users call it.

use super::*;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// A call with podman's working directory, streams and umask.
fn podman(s: &Scratch, options: &str, mountpoint: &str) -> Outcome {
    let mut command = named(s, "fuse-overlayfs");
    command.arg("-o").arg(options).arg(mountpoint);
    run(command)
}

#[test]
fn podman_gets_what_it_expects() {
    let s = scratch();
    let home = s.path().display().to_string();
    fs::create_dir(s.join("l")).unwrap();
    std::os::unix::fs::symlink("../lower0", s.join("l/AAA")).unwrap();
    let options = format!("lowerdir={home}/l/AAA,upperdir={home}/upper,workdir={home}/work,,volatile,");
    let out = podman(&s, &options, &s.mnt().display().to_string());
    assert!(out.success(), "{}", out.stderr);
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    let line = mounts(&s).remove(0);
    for part in [" rw,", "noatime", "- fuse.fuse-overlayfs fuse-overlayfs ", "default_permissions", "allow_other"] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    assert!(!line.contains("nosuid"), "{line}");
    assert_eq!(rustix::fs::statfs(s.mnt()).unwrap().f_type, 0x6573_5546);
    fs::remove_file(s.join("mnt/file")).unwrap();
    assert!(fs::symlink_metadata(s.join("upper/file")).unwrap().file_type().is_char_device());
    common::sh(&format!("fusermount3 -u {}", s.mnt().display()));
    assert_eq!(mounts(&s), Vec::<String>::new());
}

#[test]
fn odd_options_are_passed_over_with_a_warning() {
    let s = scratch();
    let options = "foo=1,,lowerdir=lower0,upperdir=upper,workdir=work,fast_ino=1,bar,\
                   context=\"system_u:object_r:container_file_t:s0:c1,c2\",splice_write,max_write=131072";
    let out = podman(&s, options, "mnt");
    assert!(out.success(), "{}", out.stderr);
    for argument in ["foo=1", "bar"] {
        assert!(out.stderr.contains(&format!("unknown argument ignored: {argument}\n")), "{}", out.stderr);
    }
    assert!(!out.stderr.contains("fast_ino") && !out.stderr.contains("splice"), "{}", out.stderr);
    succeeds(&s, "umount mnt");
}

#[test]
fn a_failure_is_said_on_the_pipe() {
    let s = scratch();
    for (options, message) in [
        ("lowerdir=missing", "missing"),
        ("upperdir=upper,workdir=work", "no lower layers"),
        ("lowerdir=lower0,upperdir=upper", "workdir"),
        ("lowerdir=lower0,xattr_permissions=9", "xattr_permissions"),
        ("lowerdir=//plugin/data/path", "plugins"),
    ] {
        let out = podman(&s, options, "mnt");
        assert!(!out.success(), "{options}");
        assert!(out.stderr.contains(message) && out.stderr.starts_with("fuse-overlayfs: "), "{}", out.stderr);
        assert_eq!(mounts(&s), Vec::<String>::new());
    }
}

#[test]
fn the_other_ways_to_call_it() {
    let s = scratch();
    let options = format!("{STACK},dev,suid");
    // containerd and mount(8): the source comes first.
    let mut containerd = named(&s, "fuse-overlayfs");
    containerd.args(["overlay", "mnt", "-o", &options]);
    // By subcommand, with options in one word and in two.
    let mut subcommand = lamel(&s);
    subcommand.args(["fuse-overlayfs", "-olowerdir=lower0", "-o", "upperdir=upper,workdir=work", "mnt"]);
    for command in [containerd, subcommand] {
        let out = run(command);
        assert!(out.success(), "{}", out.stderr);
        assert!(s.join("mnt/file").exists());
        succeeds(&s, "umount mnt");
    }
    // enroot: in the foreground, over the parent of its layers.
    let mut enroot = named(&s, "fuse-overlayfs");
    enroot.args(["-f", "-o", STACK]).arg(s.path());
    let mut child = enroot.spawn().unwrap();
    eventually("mounted", || s.join("file").exists());
    let mut umount = lamel(&s);
    umount.current_dir("/").arg("umount").arg(s.path());
    let out = run(umount);
    assert!(out.success(), "{}", out.stderr);
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_environment_turns_device_whiteouts_off() {
    let s = scratch();
    let mut command = named(&s, "fuse-overlayfs");
    command.args(["-o", STACK, "mnt"]).env("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1");
    assert!(run(command).success());
    fs::remove_file(s.join("mnt/file")).unwrap();
    succeeds(&s, "umount mnt");
    assert!(fs::symlink_metadata(s.join("upper/.wh.file")).unwrap().is_file());
    assert!(!s.join("upper/file").exists());
}

#[test]
fn redirects_are_off_unless_turned_on() {
    let s = scratch();
    fs::create_dir(s.join("lower0/dir")).unwrap();
    assert!(podman(&s, STACK, "mnt").success());
    let refused = fs::rename(s.join("mnt/dir"), s.join("mnt/moved")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::XDEV.raw_os_error()));
    succeeds(&s, "umount mnt");
    assert!(podman(&s, &format!("{STACK},redirect_dir=on,metacopy=on"), "mnt").success());
    fs::rename(s.join("mnt/dir"), s.join("mnt/moved")).unwrap();
    succeeds(&s, "umount mnt");
}

#[test]
fn ids_are_mapped() {
    let s = scratch();
    let out = podman(&s, &format!("{STACK},uidmapping=:0:1000:1,gidmapping=:0:1000:1"), "mnt");
    assert!(out.success(), "{}", out.stderr);
    let meta = fs::metadata(s.join("mnt/file")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1000, 1000));
    succeeds(&s, "umount mnt");
}

#[test]
fn its_version_is_one_that_callers_accept() {
    let s = scratch();
    let mut by_name = named(&s, "fuse-overlayfs");
    by_name.arg("--version");
    let mut by_word = lamel(&s);
    by_word.args(["fuse-overlayfs", "-V"]);
    for command in [by_name, by_word] {
        let out = run(command);
        assert!(out.success());
        let first = out.stdout.lines().next().unwrap();
        let number = first.strip_prefix("fuse-overlayfs: version ").unwrap();
        let (major, rest) = number.split_once('.').unwrap();
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        assert!((major.parse::<u32>().unwrap(), minor.parse::<u32>().unwrap()) >= (1, 10), "{first}");
    }
}
