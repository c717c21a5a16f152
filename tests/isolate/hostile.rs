//! Root directories, volumes and values made to break out: one test for each class of fault that runtimes had.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::kit::*;
use super::traps::*;

/// A descriptor that programs started from here inherit.
fn inheritable(path: &str) -> OwnedFd {
    let fd: OwnedFd = File::open(path).unwrap().into();
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
    fd
}

/// CVE-2016-9962, CVE-2024-21626
#[test]
fn no_descriptor_leads_out() {
    let leak = inheritable("/");
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let fds = ground.run(&[], "cd /proc/self/fd; for fd in *; do test -e /proc/$$/fd/$fd && test $fd -gt 2 && readlink /proc/$$/fd/$fd; done; true");
        assert!(!fds.lines().any(|line| line == "/"), "{who:?}: {fds}");
        let inherited = leak.as_raw_fd().to_string();
        for fd in ["3", "4", "5", "6", "7", "8", "9", inherited.as_str()] {
            for way in ["/proc/self/fd", "/proc/self/fd/../fd", "/proc/thread-self/fd", "/dev/fd"] {
                let place = format!("{way}/{fd}");
                let out = ground.try_run(&["-w", &place], &["sh", "-c", "pwd; ls"]);
                assert!(out.status.code() == Some(125) && out.stdout.is_empty(), "{who:?} {place}: {}", out.stdout);
                let link = ground.root().join("tmp/link");
                fs::remove_file(&link).ok();
                symlink(&place, &link).unwrap();
                let out = ground.try_run(&["-w", "/tmp/link"], &["sh", "-c", "pwd; ls"]);
                assert!(!out.success() && out.stdout.is_empty(), "{who:?} link to {place}: {}", out.stdout);
            }
        }
        ground.refused(&["-w", "/proc/self/cwd"], &["working directory"]);
        ground.refused(&["-w", "/proc/1/root"], &["working directory"]);
    }
}

/// CVE-2019-5736
#[test]
fn the_running_program_cannot_be_written() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let hash = expose_program(&ground);
        let before = hash();
        for entry in ["again", "self", "/proc/self/exe"] {
            ground.try_run(&["-i"], &[entry, "--version"]);
        }
        // By the init, which stays lamel's program; with every capability, and a descriptor taken before.
        let script = "exec 3< /proc/1/exe && (echo overwritten > /proc/self/fd/3) 2>&1; cp /bin/busybox /proc/1/exe 2>&1; sleep 0.2; true";
        for options in [&["--init"][..], &["--init", "--cap-add", "SYS_PTRACE"], &["--init", "--privileged"]] {
            ground.try_run(options, &["sh", "-c", script]);
            assert_eq!(hash(), before, "{who:?} {options:?}");
        }
        if who == Who::Root {
            let said = ground.run(&["--init", "--privileged"], script);
            assert!(said.contains("Read-only file system"), "{said}");
        }
        assert_eq!(hash(), before, "{who:?}");
    }
}

/// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642
#[test]
fn proc_and_sys_are_where_they_belong() {
    for who in EVERYBODY {
        for name in ["proc", "sys", "dev"] {
            let ground = Ground::new(who);
            fs::create_dir(ground.root().join("elsewhere")).unwrap();
            symlink("/elsewhere", ground.root().join(name)).unwrap();
            ground.give(&ground.root());
            ground.refused(&[], &[&format!("/{name}"), "symbolic links"]);
            assert_eq!(fs::read_dir(ground.root().join("elsewhere")).unwrap().count(), 0);
        }
        let ground = Ground::new(who);
        let fake = ground.dir("fake");
        fs::create_dir_all(fake.join("self/attr")).unwrap();
        ground.refused(&["--tmpfs", "/proc"], &["/proc"]);
        ground.refused(&["-v", &format!("{}:/proc", fake.display())], &["procfs"]);
        ground.refused(&["-v", &format!("{}:/proc/sys", fake.display())], &["/proc"]);
        ground.refused(&["-v", &format!("{}:/x/../proc/self/attr", fake.display())], &["/proc"]);
        ground.refused(&["--tmpfs", "/proc/self"], &["/proc"]);
        symlink("/proc/self", ground.root().join("way")).unwrap();
        ground.refused(&["-v", &format!("{}:/way/attr", fake.display())], &["/proc"]);
    }
}

/// CVE-2021-30465, CVE-2024-45310: the place of a mount is exchanged for a link while it is mounted.
#[test]
fn a_race_for_a_mount_s_place_is_lost() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let (shared, outside, data) = (ground.dir("shared"), ground.dir("outside"), ground.dir("data"));
        fs::create_dir_all(shared.join("dir/place")).unwrap();
        // As seen from the host, should a part ever be resolved there.
        fs::create_dir_all(shared.join("swap")).unwrap();
        symlink(&outside, shared.join("swap/place")).unwrap();
        symlink("../../../../../../../../../../../../outside", shared.join("swap/up")).unwrap();
        ground.give(&shared);
        let (a, b) = (shared.join("dir"), shared.join("swap"));
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, flags).unwrap();
                }
            });
            let (start, mut made) = (Instant::now(), 0);
            while start.elapsed() < Duration::from_secs(2) || made == 0 && start.elapsed() < Duration::from_secs(20) {
                let options = [
                    "-v".to_owned(),
                    format!("{}:/shared", shared.display()),
                    "-v".to_owned(),
                    format!("{}:/shared/dir/place/made", data.display()),
                ];
                made += u32::from(ground.try_run(&options.each_ref().map(String::as_str), &["true"]).success());
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(made > 0, "{who:?}: no container was made at all");
        });
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{who:?}");
        assert!(!Path::new("/outside").exists());
    }
}

/// CVE-2025-31133, CVE-2025-62161, crun's of 2026: the image's own devices are links.
#[test]
fn masks_are_the_host_s_null_device() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let root = ground.root();
        fs::create_dir(root.join("dev")).unwrap();
        fs::write(root.join("etc/shadow"), "secret").unwrap();
        for name in ["null", "zero", "console", "ptmx", "fd", "stdin", "stdout", "stderr", "tty"] {
            symlink("/etc/shadow", root.join("dev").join(name)).unwrap();
        }
        ground.give(&root);
        let said = ground.run(&[], "stat -c '%t:%T' /dev/null /proc/keys /proc/timer_list; cat /proc/keys /proc/timer_list | wc -c; cat /etc/shadow");
        assert_eq!(said, "1:3\n1:3\n1:3\n0\nsecret", "{who:?}");
        assert_eq!(
            ground.run(&["-t"], "stat -c %t /dev/console; cat /etc/shadow").replace('\r', ""),
            "88\nsecret",
            "{who:?}"
        );
    }
}

/// CVE-2025-52565: with a /dev of the user's own nothing is made through its links.
#[test]
fn a_console_that_is_a_link_is_refused() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let (dev, victim) = (ground.dir("dev"), ground.scratch.join("victim"));
        symlink(&victim, dev.join("console")).unwrap();
        fs::write(ground.root().join("victim"), "").unwrap();
        ground.give(&dev);
        let out = ground.try_run(&["-t", "-v", &format!("{}:/dev", dev.display())], &["true"]);
        assert_eq!(out.status.code(), Some(125), "{}", out.stderr);
        assert!(!victim.exists());
    }
}

/// CVE-2026-41579, CVE-2026-47766: nothing is unlinked or made where an image's /dev leads to.
#[test]
fn a_dev_that_leads_out_is_refused() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let host = ground.dir("host");
        fs::write(host.join("ptmx"), "mine").unwrap();
        for target in ["../host", "../../host", host.to_str().unwrap()] {
            let dev = ground.root().join("dev");
            fs::remove_file(&dev).ok();
            symlink(target, &dev).unwrap();
            for options in [&[][..], &["-t"]] {
                ground.refused(options, &["/dev"]);
            }
            assert_eq!(fs::read_to_string(host.join("ptmx")).unwrap(), "mine");
            assert_eq!(fs::read_dir(&host).unwrap().count(), 1);
        }
    }
}

/// CVE-2025-54867
#[test]
fn a_root_that_is_a_link_is_refused() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let root = ground.root();
        fs::rename(&root, ground.scratch.join("real")).unwrap();
        symlink("/", &root).unwrap();
        ground.refused(&[], &["symbolic link"]);
        fs::remove_file(&root).unwrap();
        symlink("real", &root).unwrap();
        ground.refused(&[], &["symbolic link"]);
    }
}

/// CVE-2016-3697, CVE-2024-40635, CVE-2026-30892, CVE-2026-46680
#[test]
fn no_user_becomes_root_by_arithmetic() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        fs::write(ground.root().join("etc/passwd"), PASSWD).unwrap();
        for user in NOBODIES {
            let out = ground.try_run(&[&format!("--user={user}")], &["id", "-u"]);
            assert!(out.status.code() == Some(125) && out.stdout.is_empty(), "{who:?} {user}: {}", out.stdout);
        }
        // A number is a number, whatever name the image gives to it.
        let out = ground.try_run(&["-u", "1000"], &["id", "-u"]);
        assert!(
            out.stdout.trim() == "1000" || who == Who::Alone && out.status.code() == Some(125),
            "{who:?}: {}",
            out.stdout
        );
    }
}

/// CVE-2024-9676, CVE-2026-47262
#[test]
fn passwd_and_group_may_be_anything() {
    for who in [Who::Root, Who::User] {
        let ground = Ground::new(who);
        let started = Instant::now();
        for_every_list_that_is_none(&ground, |user, what| {
            let out = ground.try_run(&["-u", user], &["true"]);
            assert_eq!(out.status.code(), Some(125), "{who:?} {what}");
            assert!(!out.stderr.contains('*') && !out.stderr.contains('$'), "{}", out.stderr);
        });
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

/// CVE-2022-0492, CVE-2023-25809
#[test]
fn no_control_group_can_be_written() {
    for who in EVERYBODY {
        for options in [&[][..], &["--network", "host"], &["--cap-add", "DAC_OVERRIDE"]] {
            let ground = Ground::new(who);
            let script = "awk '$5 ~ /cgroup/ && $6 !~ /^ro/' /proc/self/mountinfo; find /sys/fs/cgroup -maxdepth 2 | while read f; do \
                          test -f $f && (: >> $f) 2> /dev/null && echo writable $f; done; mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x 2> /dev/null && echo made; \
                          find /sys/fs/cgroup -name release_agent -writable; true";
            assert_eq!(ground.run(options, script), "", "{who:?} {options:?}");
        }
    }
}

/// CVE-2022-0811
#[test]
fn kernel_parameters_are_no_way_out() {
    let before = sh("cat /proc/sys/kernel/core_pattern");
    for who in EVERYBODY {
        let ground = Ground::new(who);
        for sysctl in [
            "kernel.core_pattern=|/bin/sh",
            "kernel.shm_rmid_forced=1+kernel.core_pattern=|/bin/sh",
            "kernel.shm_rmid_forced=1\nkernel.core_pattern=|/bin/sh",
            "net/../kernel/core_pattern=|/bin/sh",
            "net.ipv4.conf/../../../kernel/core_pattern=x",
            "vm.overcommit_memory=1",
        ] {
            ground.refused(&["--sysctl", sysctl], &["sysctl"]);
        }
    }
    assert_eq!(sh("cat /proc/sys/kernel/core_pattern"), before);
}

/// CVE-2021-43784
#[test]
fn too_many_mappings_are_refused() {
    let ground = Ground::new(Who::Root);
    let maps: Vec<String> = (0..5000).map(|n| format!("--uidmap={n}:{}:1", 100_000 + n)).collect();
    let options: Vec<&str> = maps.iter().map(String::as_str).collect();
    ground.refused(&options, &["340"]);
    ground.refused(&["--uidmap", "0:4294967295:2"], &["last id"]);
    ground.refused(&["--uidmap", "0:100000:10", "--uidmap", "5:200000:10"], &["overlap"]);
}

/// CVE-2026-55686: the working directory is made inside of the root or not at all.
#[test]
fn no_working_directory_is_made_outside() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let outside = ground.dir("outside");
        for (name, target) in [
            ("up", "../outside"),
            ("away", outside.to_str().unwrap()),
            ("far", "../../../../../../../../../../outside"),
        ] {
            symlink(target, ground.root().join(name)).unwrap();
            ground.try_run(&["-w", &format!("/{name}/made/deep")], &["true"]);
            ground.try_run(&["-v", &format!("{}:/{name}/volume", ground.dir("data").display())], &["true"]);
            ground.try_run(&["--tmpfs", &format!("/{name}/memory")], &["true"]);
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{who:?}");
        assert!(!Path::new("/outside").exists());
    }
}

/// No program, library or name service of the container is used by the host's side.
#[test]
fn nothing_inside_is_executed_outside() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let mark = ground.scratch.join("ran");
        for name in ["newuidmap", "newgidmap", "fusermount3", "mount", "nsenter", "sh", "lamel"] {
            let program = ground.root().join("usr/bin").join(name);
            fs::create_dir_all(program.parent().unwrap()).unwrap();
            fs::write(&program, format!("#!/bin/busybox sh\necho $$ $0 >> {}\n", mark.display())).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        ground.give(&ground.root());
        ground.run(&["-e", "LD_PRELOAD=/evil.so", "-e", "PATH=/bin", "-e", "LAMEL_PROTECTED=1"], "true");
        assert!(!mark.exists(), "{who:?}");
    }
}

/// "Too revealing": where /proc has something mounted in it, a user namespace gets no new one; it is said aloud.
#[test]
fn a_masked_proc_stays_masked() {
    let ground = Ground::new(Who::User);
    let line = ground
        .command(&[], &["sh", "-c", "ls /proc/acpi /proc/scsi 2> /dev/null | wc -l; test -d /proc/self && echo self"]);
    let words: Vec<&str> =
        std::iter::once(line.get_program()).chain(line.get_args()).map(|w| w.to_str().unwrap()).collect();
    let mut command = std::process::Command::new("unshare");
    command
        .args(["-m", "--propagation", "private", "sh", "-c", "mount -t tmpfs masked /proc/fs && exec \"$@\"", "sh"])
        .args(words);
    let out = spawn_captured(command, Duration::from_secs(60));
    assert!(out.success(), "{}", out.stderr);
    assert!(out.stderr.contains("note:") && out.stderr.contains("/proc"), "{}", out.stderr);
    assert!(out.stdout.contains("self"), "{}", out.stdout);
}

/// A keyring of the caller's is not the container's (keyctl itself is filtered; here it is not).
#[test]
fn keys_stay_outside() {
    let ground = Ground::new(Who::Root);
    let mut command = ground.command(&["--security-opt", "seccomp=unconfined", "--privileged"], &["cat", "/proc/keys"]);
    let out = command.stdin(Stdio::null()).output().unwrap();
    let keys = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(!keys.is_empty() && keys.contains("_ses."), "{keys}");
}
