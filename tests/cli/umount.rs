//! `lamel umount`

use super::*;
use std::fs::File;
use std::io::Write;

#[test]
fn only_mounts_of_lamel_are_unmounted() {
    let s = scratch();
    fails(&s, "umount mnt", &["mnt", "not a mountpoint"]);
    fails(&s, "umount missing", &["missing", "No such file"]);
    fails(&s, "umount /proc", &["/proc", "another kind", "use umount"]);
    succeeds(&s, &format!("mount -o {STACK} mnt"));
    fs::create_dir(s.join("mnt/dir")).unwrap();
    let out = run_words(&s, "umount mnt/dir");
    assert!(!out.success() && out.stderr.contains("not a mountpoint"), "{}", out.stderr);
    assert_eq!(mounts(&s).len(), 1);
    succeeds(&s, "umount mnt");
}

#[test]
fn a_mount_in_use_is_left_alone_unless_lazy() {
    let s = scratch();
    succeeds(&s, &format!("mount -o {STACK} mnt"));
    let pid = daemon(&s.mnt());
    let mut file = File::create(s.join("mnt/open")).unwrap();
    file.write_all(b"before").unwrap();
    let out = run_words(&s, "umount mnt");
    assert!(!out.success());
    assert!(out.stderr.contains("EBUSY") && out.stderr.contains("--lazy"), "{}", out.stderr);
    assert_eq!(mounts(&s).len(), 1);
    succeeds(&s, "umount --lazy mnt");
    assert_eq!(mounts(&s), Vec::<String>::new());
    // What was written is on disk, and who was inside works on.
    assert_eq!(fs::read_to_string(s.join("upper/open")).unwrap(), "before");
    assert!(is_alive(pid));
    file.write_all(b" after").unwrap();
    drop(file);
    eventually("the daemon ends with its last user", || !is_alive(pid));
    assert_eq!(fs::read_to_string(s.join("upper/open")).unwrap(), "before after");
}

#[test]
fn a_lazy_unmount_without_users_waits_for_the_daemon() {
    let s = scratch();
    succeeds(&s, &format!("mount -o {STACK} mnt"));
    let pid = daemon(&s.mnt());
    succeeds(&s, "umount --lazy mnt");
    assert!(!is_alive(pid));
}

#[test]
fn what_a_dead_daemon_left_is_cleaned_up() {
    let s = scratch();
    succeeds(&s, &format!("mount -o {STACK} mnt"));
    let pid = rustix::process::Pid::from_raw(daemon(&s.mnt())).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("the mount is dead", || fs::metadata(s.join("mnt")).is_err());
    let out = run_words(&s, "mount --lower lower0 mnt");
    assert!(!out.success() && out.stderr.contains("lamel umount"), "{}", out.stderr);
    succeeds(&s, "umount mnt");
    succeeds(&s, &format!("mount -o {STACK} mnt"));
    succeeds(&s, "umount mnt");
}

/// The kernel takes what is written into its cache, and the upper's filesystem refuses it later.
#[test]
fn what_could_not_be_written_is_told() {
    use std::os::unix::fs::FileExt;
    let s = scratch();
    succeeds(&s, &format!("mount -o {STACK},writeback=1 mnt"));
    let file = File::create(s.join("mnt/far")).unwrap();
    file.write_all_at(b"x", 1 << 62).unwrap();
    drop(file);
    let out = run_words(&s, "umount mnt");
    assert!(!out.success() && out.stderr.contains("something written to it got lost"), "{}", out.stderr);
    assert_eq!(mounts(&s), Vec::<String>::new());
}

#[test]
fn a_link_leads_to_the_mountpoint() {
    let s = scratch();
    std::os::unix::fs::symlink("mnt", s.join("link")).unwrap();
    succeeds(&s, &format!("mount -o {STACK} link"));
    succeeds(&s, "umount link");
    assert_eq!(mounts(&s), Vec::<String>::new());
}
