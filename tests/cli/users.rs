//! Mounts of plain users: by the setuid helper, and in a user namespace.

use super::*;
use std::os::unix::fs::{PermissionsExt, chown};

/// nobody
const USER: u32 = 65534;

/// A scratch directory that belongs to a plain user, with the binary in it.
fn user_scratch() -> Scratch {
    let s = scratch();
    let bin = s.join("lamel");
    fs::copy(Subject::lamel_bin(), &bin).unwrap();
    for path in [s.path(), bin.as_path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for path in [s.lower(0), s.lower(0).join("file"), s.upper(), s.work(), s.mnt()] {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    s
}

/// Runs a shell command in the scratch directory as the plain user; `lamel` is the binary.
fn as_user(s: &Scratch, words: &str) -> Outcome {
    let id = USER.to_string();
    let mut command = program(s, Path::new("setpriv"));
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "bash", "-euc", words]);
    command.env("PATH", format!("{}:{}", s.path().display(), std::env::var("PATH").unwrap()));
    run(command)
}

#[test]
fn a_plain_user_mounts_through_the_setuid_helper() {
    let s = user_scratch();
    let out = as_user(&s, &format!("lamel mount -o {STACK} mnt; cat mnt/file; echo changed > mnt/file; mkdir mnt/dir"));
    assert!(out.success(), "{}", out.stderr);
    assert_eq!(out.stdout, "lower\n");
    let line = mounts(&s).remove(0);
    for part in ["nosuid", "nodev", "- fuse.lamel lamel ", "user_id=65534", "default_permissions"] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    let busy = as_user(&s, "cd mnt; lamel umount ../mnt");
    assert!(!busy.success() && busy.stderr.contains("--lazy"), "{}", busy.stderr);
    let out = as_user(&s, "lamel umount mnt");
    assert!(out.success(), "{}", out.stderr);
    assert_eq!(mounts(&s), Vec::<String>::new());
    assert_eq!(fs::read_to_string(s.join("upper/file")).unwrap(), "changed\n");
    // What one daemon left the next one reads.
    let out = as_user(&s, &format!("lamel mount -o {STACK} mnt; cat mnt/file; lamel diff mnt; lamel umount mnt"));
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("changed\nA /dir\nC /file\n", ""));
}

/// Where the process may not clone a mount, the mount itself lies below its lower layer: to look into it there would be
/// to wait for oneself.
#[test]
fn a_mount_below_its_own_lower_is_not_entered() {
    let s = user_scratch();
    let place = s.path().display().to_string();
    // By the helper, and in a user namespace whose mounts are locked.
    for prefix in ["", "unshare -Urm "] {
        let script = format!(
            "lamel mount --lower / --upper upper --work work mnt
             ls mnt{place} | grep -qx mnt
             timeout 10 ls mnt{place}/mnt 2>&1 || true
             timeout 10 find mnt{place} 2> /dev/null | wc -l
             lamel umount mnt"
        );
        let out = as_user(&s, &format!("{prefix}bash -euc '{script}'"));
        assert!(out.success(), "{prefix}: {}{}", out.stdout, out.stderr);
        assert!(out.stdout.contains("Too many levels of symbolic links"), "{prefix}: {}", out.stdout);
        let found: usize = out.stdout.lines().last().unwrap().parse().unwrap();
        assert!((5..50).contains(&found), "{prefix}: {found} objects");
        assert_eq!(mounts(&s), Vec::<String>::new());
    }
}

#[test]
fn a_signal_ends_a_plain_user_s_daemon_too() {
    let s = user_scratch();
    let out = as_user(
        &s,
        &format!(
            "lamel mount -o {STACK} mnt
             kill $(getfattr --only-values -n system.lamel.pid mnt)
             for i in $(seq 100); do grep -q $PWD/mnt /proc/self/mountinfo || exit 0; sleep 0.05; done; exit 1"
        ),
    );
    assert!(out.success(), "{}", out.stderr);
}

#[test]
fn allow_other_needs_the_administrator() {
    let s = user_scratch();
    let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    let allowed = conf.lines().any(|line| line.trim() == "user_allow_other");
    let out = as_user(&s, &format!("lamel mount -o {STACK},allow_other mnt"));
    if allowed {
        assert!(out.success(), "{}", out.stderr);
        assert!(mounts(&s)[0].contains("allow_other"));
        assert!(as_user(&s, "lamel umount mnt").success());
    } else {
        assert!(!out.success());
        assert!(
            out.stderr.contains("leave allow_other out") && out.stderr.contains("/etc/fuse.conf"),
            "{}",
            out.stderr
        );
        assert_eq!(mounts(&s), Vec::<String>::new());
    }
}

#[test]
fn another_user_s_mount_is_not_unmounted() {
    let s = user_scratch();
    succeeds(&s, &format!("mount -o {STACK} mnt"));
    let out = as_user(&s, "lamel umount mnt");
    assert!(!out.success() && out.stderr.contains("mnt"), "{}", out.stderr);
    assert_eq!(mounts(&s).len(), 1);
    succeeds(&s, "umount mnt");
}

#[test]
fn root_of_a_user_namespace_mounts_directly() {
    let s = scratch();
    let bin = Subject::lamel_bin().canonicalize().unwrap().display().to_string();
    let script = format!(
        "{bin} mount -o {STACK} mnt; grep -c \"$PWD/mnt \" /proc/self/mountinfo
         echo changed > mnt/file; rm -f mnt/missing; mkdir mnt/dir; mv mnt/dir mnt/dir2
         {bin} diff mnt; {bin} umount mnt; grep -c \"$PWD/mnt \" /proc/self/mountinfo || true"
    );
    let mut command = program(&s, Path::new("unshare"));
    command.args(["-Urm", "--propagation", "private", "bash", "-euc", &script]);
    let out = run(command);
    assert!(out.success(), "{}", out.stderr);
    assert_eq!(out.stdout, "1\nA /dir2\nC /file\n0\n");
    assert_eq!(fs::read_to_string(s.join("upper/file")).unwrap(), "changed\n");
}
