//! `lamel mount`

use super::*;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn mount_works_when_it_returns_and_umount_leaves_nothing() {
    let s = scratch();
    assert_eq!(succeeds(&s, &format!("mount -o {STACK} mnt")), "");
    assert_eq!(fs::read_to_string(s.join("mnt/file")).unwrap(), "lower\n");
    fs::write(s.join("mnt/new"), "new").unwrap();
    let pid = daemon(&s.mnt());
    assert!(is_alive(pid));
    succeeds(&s, "umount mnt");
    assert!(!is_alive(pid), "umount returned before the daemon had ended");
    assert_eq!(mounts(&s), Vec::<String>::new());
    assert_eq!(fs::read_to_string(s.join("upper/new")).unwrap(), "new");
}

#[test]
fn the_daemon_keeps_nothing_of_its_caller() {
    let s = scratch();
    succeeds(&s, &format!("mount -o {STACK} mnt"));
    let proc = PathBuf::from(format!("/proc/{}", daemon(&s.mnt())));
    assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
    for stream in ["0", "1", "2"] {
        assert_eq!(fs::read_link(proc.join("fd").join(stream)).unwrap(), Path::new("/dev/null"));
    }
    let status = fs::read_to_string(proc.join("status")).unwrap();
    assert!(status.contains("Umask:\t0000"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let files: Vec<&str> =
        limits.lines().find(|l| l.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(files[3], files[4], "soft and hard limit of open files");
    succeeds(&s, "umount mnt");
}

#[test]
fn the_kernel_reads_far_ahead() {
    let s = scratch();
    succeeds(&s, &format!("mount -o {STACK} mnt"));
    let device = fs::metadata(s.join("mnt")).unwrap().dev();
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let setting = || fs::read_to_string(format!("/sys/class/bdi/{device}/read_ahead_kb")).unwrap();
    // It is set after the mount has returned.
    let start = Instant::now();
    while setting().trim() != "512" {
        assert!(start.elapsed() < Duration::from_secs(10), "{}", setting());
        thread::sleep(Duration::from_millis(1));
    }
    succeeds(&s, "umount mnt");
}

#[test]
fn the_daemon_does_not_keep_its_caller_s_locks() {
    let s = scratch();
    let bin = Subject::lamel_bin().canonicalize().unwrap().display().to_string();
    let held = format!("exec 7>lock; flock 7; {bin} mount -o lowerdir=/proc/self/fd/8:lower0 mnt 8<lower1");
    fs::write(s.lower(1).join("by-descriptor"), "").unwrap();
    common::run_in(s.path(), &held);
    common::run_in(s.path(), "flock -n lock true");
    assert!(s.join("mnt/by-descriptor").exists() && s.join("mnt/file").exists());
    succeeds(&s, "umount mnt");
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_mounted() {
    let s = scratch();
    fs::write(s.join("plain"), "").unwrap();
    fs::create_dir(s.join("upper/inner")).unwrap();
    for (words, messages) in [
        ("mount -o lowrdir=lower0 mnt", &["unknown option \"lowrdir\"", "did you mean \"lowerdir\"?"][..]),
        ("mount -o lowerdir=lower0,volatil mnt", &["did you mean \"volatile\"?"]),
        ("mount -o lowerdir=lower0,redirect_dir=yes mnt", &["redirect_dir", "on, follow, nofollow or off"]),
        ("mount -o lowerdir=lower0,nfs_export=on mnt", &["nfs_export", "not possible", "FUSE file handles"]),
        ("mount -o lowerdir=lower0,remount mnt", &["remount"]),
        ("mount -o lowerdir=lower0,upperdir=upper mnt", &["workdir"]),
        ("mount -o lowerdir=lower0,upperdir=upper,workdir=missing mnt", &["workdir", "missing", "No such file"]),
        ("mount -o lowerdir=lower0,upperdir=upper,workdir=upper/inner mnt", &["workdir", "upper"]),
        ("mount -o lowerdir=lower0,upperdir=upper,workdir=upper mnt", &["workdir", "upper"]),
        ("mount -o lowerdir=lower0,upperdir=upper,workdir=/dev mnt", &["/dev", "not on the same mount"]),
        ("mount -o lowerdir=missing mnt", &["lower layer", "missing", "No such file"]),
        ("mount -o lowerdir=plain mnt", &["lower layer", "plain", "Not a directory"]),
        ("mount -o lowerdir=lower0::lower0 mnt", &["lowerdir", "empty path"]),
        ("mount -o upperdir=upper,workdir=work mnt", &["lowerdir"]),
        ("mount mnt", &["lowerdir"]),
        ("mount -o lowerdir=lower0 nowhere", &["nowhere", "No such file", "create the directory"]),
        ("mount -o lowerdir=lower0 plain", &["plain", "Not a directory"]),
        ("mount -o lowerdir=lower0,uidmapping=0:0 mnt", &["uidmapping", "triples"]),
        ("mount -o lowerdir=lower0 --lower lower0 mnt", &["twice"]),
        ("mount -o upperdir=upper --lower lower0 --upper upper mnt", &["twice"]),
        ("mount --lower lower0 --upper missing mnt", &["upper layer", "missing"]),
        ("mount --lower lower0 --work work mnt", &["--upper"]),
        ("mount --lower lower0", &["MOUNTPOINT"]),
        ("mount --lower lower0 --log-level loud=x=y mnt", &["loud"]),
        ("mount --lower lower0 --log-level inof mnt", &["inof", "error, warn, info, debug or trace"]),
        ("mount -f --lower missing mnt", &["missing"]),
        ("mount -o lowerdir=lower0,nfsexport=on mnt", &["did you mean \"nfs_export\"?"]),
        ("mount -o lowerdir=upper,upperdir=upper,workdir=work mnt", &["upper is, or lies in, upper layer"]),
        (
            "mount -o lowerdir=lower0:upper/inner,upperdir=upper,workdir=work mnt",
            &["inner is, or lies in, upper layer"],
        ),
        ("mount -o lowerdir=work,upperdir=upper,workdir=work mnt", &["work is, or lies in, workdir"]),
    ] {
        fails(&s, words, messages);
    }
}

#[test]
fn without_proc_it_says_what_is_missing() {
    let s = scratch();
    let mut command = program(&s, Path::new("unshare"));
    let bin = Subject::lamel_bin().canonicalize().unwrap();
    let script = format!("umount -l /proc; exec {} mount --lower lower0 mnt", bin.display());
    command.args(["-m", "--propagation", "private", "bash", "-euc", &script]);
    let out = run(command);
    assert!(!out.success() && out.stderr.contains("mount /proc first"), "{}", out.stderr);
}

#[test]
fn five_hundred_layers_and_not_one_more() {
    let s = scratch();
    let list = |n: usize| (0..n).map(|i| s.dir(format!("l/{i}")).display().to_string()).collect::<Vec<_>>().join(":");
    fs::write(s.dir("l/499").join("deep"), "x").unwrap();
    succeeds(&s, &format!("mount -o lowerdir={} mnt", list(500)));
    assert_eq!(fs::read_to_string(s.join("mnt/deep")).unwrap(), "x");
    succeeds(&s, "umount mnt");
    fails(&s, &format!("mount -o lowerdir={} mnt", list(501)), &["501 lower layers", "500"]);
}

#[test]
fn paths_are_bytes() {
    let s = scratch();
    let [lower, upper, work, mnt] = ["l", "u", "w", "m"].map(odd_name).map(|name| s.dir(name));
    fs::write(lower.join("from-lower"), "").unwrap();
    let mut text = std::ffi::OsString::from("lowerdir=");
    text.push(escaped(&lower));
    text.push(":lower0,upperdir=");
    text.push(escaped(&upper));
    text.push(",workdir=");
    text.push(escaped(&work));
    let mut by_options = lamel(&s);
    by_options.arg("mount").arg("-o").arg(text).arg(&mnt);
    let mut by_flags = lamel(&s);
    by_flags.arg("mount").arg("--lower").arg(&lower).args(["--lower", "lower0", "--upper"]).arg(&upper);
    by_flags.arg("--work").arg(&work).arg(&mnt);
    for mount in [by_options, by_flags] {
        let out = run(mount);
        assert!(out.success(), "{}", out.stderr);
        assert!(mnt.join("from-lower").exists() && mnt.join("file").exists());
        fs::write(mnt.join("written"), "").unwrap();
        let mut umount = lamel(&s);
        umount.arg("umount").arg(&mnt);
        let out = run(umount);
        assert!(out.success(), "{}", out.stderr);
        fs::remove_file(upper.join("written")).unwrap();
    }
}

fn escaped(path: &Path) -> std::ffi::OsString {
    let mut out = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\' | b'"') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    OsStr::from_bytes(&out).to_owned()
}

#[test]
fn the_workdir_defaults_beside_the_upper() {
    let s = scratch();
    succeeds(&s, "mount --lower lower0 --upper upper mnt");
    fs::write(s.join("mnt/file"), "changed").unwrap();
    succeeds(&s, "umount mnt");
    assert!(s.join(".upper.work").is_dir());
    assert_eq!(fs::read_to_string(s.join("upper/file")).unwrap(), "changed");
    // It is used again, and taken away only by a failure that made it.
    succeeds(&s, "mount --lower lower0 --upper upper mnt");
    succeeds(&s, "umount mnt");
    s.dir("upper2");
    fails(&s, "mount --lower missing --upper upper2 mnt", &["missing"]);
    assert!(!s.join(".upper2.work").exists());
}

/// In a directory where everybody may make things, the name of the workdir is known beforehand.
#[test]
fn a_workdir_that_a_stranger_laid_ready_is_refused() {
    let s = scratch();
    let work = s.join(".upper.work");
    std::os::unix::fs::symlink(s.work(), &work).unwrap();
    fails(&s, "mount --lower lower0 --upper upper mnt", &[".upper.work", "no directory of yours", "--work"]);
    fs::remove_file(&work).unwrap();
    fs::create_dir(&work).unwrap();
    std::os::unix::fs::chown(&work, Some(4242), Some(4242)).unwrap();
    fails(&s, "mount --lower lower0 --upper upper mnt", &[".upper.work", "no directory of yours"]);
    assert_eq!(fs::read_dir(&work).unwrap().count(), 0);
    // Who owns both may have it both ways.
    std::os::unix::fs::chown(s.upper(), Some(4242), Some(4242)).unwrap();
    succeeds(&s, "mount --lower lower0 --upper upper mnt");
    succeeds(&s, "umount mnt");
}

#[test]
fn without_an_upper_the_mount_is_read_only() {
    let s = scratch();
    succeeds(&s, "mount --lower lower0 mnt");
    assert!(mounts(&s)[0].contains(" ro,"), "{:?}", mounts(&s));
    let refused = fs::write(s.join("mnt/x"), "").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
    succeeds(&s, "umount mnt");
}

#[test]
fn flags_reach_the_mount_table() {
    let s = scratch();
    succeeds(&s, &format!("mount -o {STACK},nodev,nosuid,noexec,relatime,fsname=some,subtype=thing mnt"));
    let line = mounts(&s).remove(0);
    for flag in ["nodev", "nosuid", "noexec", "relatime", "- fuse.thing some ", "default_permissions", "allow_other"] {
        assert!(line.contains(flag), "no {flag} in {line}");
    }
    succeeds(&s, "umount mnt");
    succeeds(&s, &format!("mount -o {STACK},noallow_other mnt"));
    let line = mounts(&s).remove(0);
    assert!(!line.contains("allow_other") && line.contains("- fuse.lamel lamel "), "{line}");
    assert!(!line.contains("nodev") && !line.contains("nosuid"), "{line}");
    succeeds(&s, "umount mnt");
}

#[test]
fn one_upper_serves_one_mount() {
    let s = scratch();
    s.dir("mnt2");
    s.dir("work2");
    succeeds(&s, &format!("mount -o {STACK} mnt"));
    for stack in [STACK, "lowerdir=lower0,upperdir=upper,workdir=work2", "lowerdir=lower0,upperdir=work2,workdir=work"]
    {
        let out = run_words(&s, &format!("mount -o {stack} mnt2"));
        assert!(!out.success(), "{stack}");
        assert!(out.stderr.contains("in use by another mount"), "{}", out.stderr);
    }
    assert_eq!(mounts(&s).len(), 1);
    fs::write(s.join("mnt/still"), "works").unwrap();
    succeeds(&s, "umount mnt");
    succeeds(&s, &format!("mount -o {STACK} mnt2"));
    assert_eq!(fs::read_to_string(s.join("mnt2/still")).unwrap(), "works");
    succeeds(&s, "umount mnt2");
}

/// umount(2) and fusermount3 return before the daemon has let go of its upper.
#[test]
fn whoever_unmounts_and_mounts_at_once_notices_nothing() {
    let s = scratch();
    for round in 0..20 {
        succeeds(&s, &format!("mount -o {STACK} mnt"));
        fs::write(s.join("mnt/round"), round.to_string()).unwrap();
        if round % 2 == 0 {
            common::sh(&format!("fusermount3 -u {}", s.mnt().display()));
        } else {
            rustix::mount::unmount(s.mnt(), rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }
    eventually("the last daemon is gone", || run_words(&s, &format!("mount -o {STACK} mnt")).success());
    assert_eq!(fs::read_to_string(s.join("mnt/round")).unwrap(), "19");
    succeeds(&s, "umount mnt");
}

#[test]
fn a_mount_may_cover_the_parent_of_its_own_layers() {
    let s = scratch();
    let place = s.dir("place");
    for name in ["lower", "upper", "work"] {
        fs::create_dir(place.join(name)).unwrap();
    }
    fs::write(place.join("lower/inside"), "x").unwrap();
    let number = fs::metadata(&place).unwrap().ino();
    succeeds(&s, "mount --lower place/lower --upper place/upper --work place/work place");
    assert_eq!(fs::read_to_string(place.join("inside")).unwrap(), "x");
    assert!(!place.join("lower").exists());
    fs::write(place.join("inside"), "changed").unwrap();
    fs::create_dir(place.join("new")).unwrap();
    // The layers are out of sight behind the mount.
    assert_eq!(succeeds(&s, "diff place"), "C /inside\nA /new\n");
    succeeds(&s, "umount place");
    assert_eq!(fs::metadata(&place).unwrap().ino(), number);
    assert_eq!(fs::read_to_string(place.join("upper/inside")).unwrap(), "changed");
    assert_eq!(fs::read_to_string(place.join("lower/inside")).unwrap(), "x");
}

/// The upper is no clone: what is mounted below it is entered, but for the mount itself.
#[test]
fn a_mount_inside_its_own_upper_is_not_entered() {
    let s = scratch();
    let place = s.dir("upper/place");
    succeeds(&s, "mount -o lowerdir=lower0,upperdir=upper,workdir=work upper/place");
    assert_eq!(common::run_in(&place, "ls"), "file\nplace");
    let refused = fs::read_dir(place.join("place")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
    fs::write(place.join("new"), "").unwrap();
    succeeds(&s, "umount upper/place");
    assert!(s.join("upper/new").exists());
}

#[test]
fn the_foreground_process_ends_with_its_mount() {
    let s = scratch();
    let mut command = lamel(&s);
    command.args(["mount", "-f", "-o", STACK, "mnt"]);
    let mut child = command.spawn().unwrap();
    eventually("mounted", || !mounts(&s).is_empty());
    eventually("answers", || s.join("mnt/file").exists());
    assert_eq!(daemon(&s.mnt()), child.id().cast_signed());
    assert!(child.try_wait().unwrap().is_none());
    succeeds(&s, "umount mnt");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_log_goes_where_it_is_asked_to() {
    let s = scratch();
    succeeds(&s, &format!("mount --log-level debug --log-json --log-file log -o {STACK} mnt"));
    fs::write(s.join("mnt/file"), "x").unwrap();
    succeeds(&s, "umount mnt");
    let log = fs::read_to_string(s.join("log")).unwrap();
    assert!(!log.is_empty());
    for line in log.lines() {
        assert!(line.starts_with("{\"timestamp\"") && line.ends_with('}'), "{line}");
    }
    fails(&s, &format!("mount --log-file missing/log -o {STACK} mnt"), &["log file", "missing/log"]);
}

#[test]
fn the_log_is_asked_for_by_the_environment() {
    let s = scratch();
    let mount = |level: &str, more: &[&str]| {
        let mut command = lamel(&s);
        command.args(["mount", "-o", STACK, "mnt"]).args(more).env("LAMEL_LOG", level).env("LAMEL_LOG_FILE", "log");
        run(command)
    };
    let logged = |level: &str, more: &[&str]| {
        assert!(mount(level, more).success());
        succeeds(&s, "umount mnt");
        let text = fs::read_to_string(s.join("log")).unwrap();
        fs::remove_file(s.join("log")).unwrap();
        text
    };
    assert!(logged("debug", &[]).contains("DEBUG lamel_unionfs::"));
    let module = logged("lamel_unionfs::mount=debug", &[]);
    assert!(module.contains("DEBUG lamel_unionfs::mount") && !module.contains("fuser"), "{module}");
    for quiet in [logged("debug", &["--log-level", "error"]), logged("", &[])] {
        assert!(!quiet.contains("lamel_unionfs"), "{quiet}");
    }
    let out = mount("quite=a=lot", &[]);
    assert!(!out.success() && out.stderr.contains("quite=a=lot"), "{}", out.stderr);
    assert_eq!(mounts(&s), Vec::<String>::new());
}

#[test]
fn a_mount_that_syncs_nothing_says_so() {
    let s = scratch();
    for option in ["volatile", "fsync=0"] {
        let out = run_words(&s, &format!("mount -o {STACK},{option} mnt"));
        assert!(out.success() && out.stderr.contains("nothing is synced"), "{option}: {}", out.stderr);
        succeeds(&s, "umount mnt");
    }
}

#[test]
fn version_and_help_are_no_errors() {
    let s = scratch();
    assert_eq!(succeeds(&s, "--version"), format!("lamel {}\n", env!("CARGO_PKG_VERSION")));
    let help = succeeds(&s, "--help");
    for command in ["mount", "umount", "explain", "diff", "fuse-overlayfs"] {
        assert!(help.contains(command), "{help}");
    }
    assert!(succeeds(&s, "mount --help").contains("lowerdir="));
    fails(&s, "monut", &["monut"]);
}

#[test]
fn an_upper_on_a_read_only_filesystem_is_refused_with_the_way_to_see_it() {
    let s = scratch();
    let disk = s.dir("disk");
    let tmpfs = |flags: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", flags, "t"]).arg(&disk);
        assert!(run(mount).success());
    };
    tmpfs("rw");
    for dir in ["upper", "work"] {
        fs::create_dir(disk.join(dir)).unwrap();
    }
    fs::write(disk.join("upper/written"), "above\n").unwrap();
    tmpfs("remount,ro");
    let out = run_words(&s, "mount -o ro,lowerdir=lower0,upperdir=disk/upper,workdir=disk/work mnt");
    assert!(!out.success() && out.stderr.contains("as the top lower layer"), "{}", out.stderr);
    succeeds(&s, "mount --lower disk/upper --lower lower0 mnt");
    assert_eq!(fs::read_to_string(s.join("mnt/written")).unwrap(), "above\n");
    succeeds(&s, "umount mnt");
    rustix::mount::unmount(&disk, rustix::mount::UnmountFlags::empty()).unwrap();
}
