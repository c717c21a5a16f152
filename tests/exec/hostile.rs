//! Containers that wait for somebody to come in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use super::kit::*;
use super::running::*;
use super::traps::*;

/// CVE-2016-9962, CVE-2024-21626
#[test]
fn no_working_directory_leads_out() {
    for who in EVERYBODY {
        let running = Running::start(who, &[]);
        for fd in 3..10 {
            for way in ["/proc/self/fd", "/dev/fd"] {
                let out = running.try_exec(&["-w", &format!("{way}/{fd}")], &["sh", "-c", "pwd; ls"]);
                let refused = matches!(out.status.code(), Some(126 | 127)) && out.stdout.is_empty();
                assert!(refused, "{who:?} {way}/{fd}: {}{}", out.stdout, out.stderr);
            }
        }
        for place in ["/proc/self/cwd", "/proc/1/root", "/proc/self/root"] {
            running.refused(&["-w", place], 126, "working directory");
        }
        let root = running.0.root();
        symlink("/proc/self/fd/7", root.join("tmp/link")).unwrap();
        let out = running.try_exec(&["-w", "/tmp/link"], &["sh", "-c", "pwd; ls"]);
        assert!(!out.success() && out.stdout.is_empty(), "{who:?}: {}{}", out.stdout, out.stderr);
        symlink("../../../../../../../..", root.join("tmp/up")).unwrap();
        assert_eq!(running.exec(&["-w", "/tmp/up"], "pwd"), "/");
        running.refused(&["-w", &running.0.scratch.path().display().to_string()], 127, "");
    }
}

/// CVE-2016-3697, CVE-2024-40635, CVE-2026-30892, CVE-2026-46680
#[test]
fn no_user_becomes_root_by_arithmetic() {
    for who in EVERYBODY {
        let running = Running::start(who, &[]);
        fs::write(running.0.root().join("etc/passwd"), PASSWD).unwrap();
        for user in NOBODIES {
            running.refused(&[&format!("--user={user}")], 126, "");
        }
        if who != Who::Alone {
            assert_eq!(running.exec(&["-u", "1000"], "id -u"), "1000", "{who:?}");
        }
    }
}

/// CVE-2024-9676, CVE-2026-47262
#[test]
fn passwd_and_group_may_be_anything() {
    for who in EVERYBODY {
        let running = Running::start(who, &[]);
        let started = Instant::now();
        for_every_list_that_is_none(&running.0, |user, what| {
            let out = running.try_exec(&["-u", user], &["true"]);
            assert_eq!(out.status.code(), Some(126), "{who:?} {what}: {}", out.stderr);
            assert!(!out.stderr.contains('*') && !out.stderr.contains('$'), "{}", out.stderr);
        });
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

/// CVE-2019-5736: what is executed is the program that executes; and the container tries to write it meanwhile.
#[test]
fn the_running_program_cannot_be_written() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let hash = expose_program(&ground);
        let before = hash();
        let script = "while :; do for p in /proc/[0-9]*; do test $p = /proc/1 && continue; \
                      (exec 3< $p/exe && echo overwritten > /proc/self/fd/3) 2> /dev/null; done; done";
        let options = if who == Who::Root { &["--cap-add", "SYS_PTRACE"][..] } else { &["--privileged"] };
        let running = Running::over(ground, options, &["sh", "-c", script]);
        for entry in ["again", "self", "/proc/self/exe", "true"] {
            for _ in 0..3 {
                running.try_exec(&["-i"], &[entry, "--version"]);
            }
        }
        assert_eq!(hash(), before, "{who:?}");
    }
}

/// CVE-2016-9962: while it comes in, nobody inside reads its variables, its words or what it has open.
#[test]
fn who_comes_in_is_not_looked_into() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        // In files, so that who watches does not see himself.
        fs::write(ground.root().join("etc/wanted"), "xyzzy-[a-z]*\n").unwrap();
        fs::write(ground.root().join("etc/places"), "/store\nlamel-test\nsocket\nanon_inode\n").unwrap();
        let script = "while :; do for p in /proc/[0-9]*; do grep -a -H -o -f /etc/wanted $p/environ $p/cmdline; \
                      ls -l $p/fd | grep -f /etc/places; done; done >> /tmp/seen 2> /dev/null";
        let running = Running::over(ground, &["--cap-add", "DAC_READ_SEARCH"], &["sh", "-c", script]);
        for _ in 0..12 {
            // In its environment, and among its words.
            let line = running.command(&["-e", "A=xyzzy-word"], &["sleep", "0.1"]);
            let mut command = std::process::Command::new(line.get_program());
            let words: Vec<_> = line.get_args().collect();
            let at = words.iter().position(|word| *word == "-i").unwrap();
            command.args(&words[..=at]).arg("SECRET=xyzzy-variable").args(&words[at + 1..]);
            // The command itself has the variable A, in its own environment.
            let out = spawn_captured(command, Duration::from_secs(20));
            assert!(out.success(), "{}", out.stderr);
        }
        let seen = fs::read_to_string(running.0.root().join("tmp/seen")).unwrap_or_default();
        let wrong: Vec<&str> = seen.lines().filter(|line| !line.ends_with("/environ:xyzzy-word")).collect();
        assert!(wrong.is_empty(), "{who:?}: {wrong:#?}");
        // Who has come in is seen.
        assert!(seen.contains("/environ:xyzzy-word"), "{who:?}: {seen}");
    }
}

/// Nothing inside is run by the host's side: neither for a command, nor to show processes (CVE-2022-1227).
#[test]
fn nothing_inside_is_executed_outside() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let trap = ground.root().join("bin/trap");
        fs::write(&trap, "#!/bin/sh\nreadlink /proc/self/ns/mnt >> /tmp/trapped\n").unwrap();
        fs::set_permissions(&trap, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["ps", "nsenter", "newuidmap", "id", "getent"] {
            let place = ground.root().join("bin").join(name);
            fs::remove_file(&place).ok();
            symlink("trap", place).unwrap();
        }
        ground.give(&ground.root());
        let running = Running::over(ground, &[], &["sleep", "100000"]);
        running.told("top", &["c"]);
        running.told("top", &["c", "aux"]);
        running.told("stats", &["--no-stream"]);
        running.exec(&["-u", "root"], "true");
        assert!(!running.0.root().join("tmp/trapped").exists(), "{who:?}");
    }
}

/// CVE-2020-15257: a socket without a place in the filesystem is open to every container with the host's network.
#[test]
fn no_socket_of_lamel_s_is_without_a_place() {
    let running = Running::start(Who::Root, &["--network", "host"]);
    let monitor = running.state("monitor");
    let sockets = sh(&format!(
        "for fd in /proc/{monitor}/fd/*; do readlink $fd || true; done | sed -n 's/^socket:.\\([0-9]*\\).$/\\1/p'"
    ));
    assert!(!sockets.is_empty());
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let named = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (sockets.lines().any(|inode| fields.get(6) == Some(&inode)))
            .then(|| fields.get(7).map(|name| (*name).to_owned()))?
    });
    let without: Vec<String> = named.filter(|name| name.starts_with('@')).collect();
    assert!(without.is_empty(), "{without:?}");
}
