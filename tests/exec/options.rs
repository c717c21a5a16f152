//! What a command gets: the container's own, and what was asked for.

use std::fs::{self, File};
use std::process::Stdio;

use super::kit::*;
use super::running::*;

#[test]
fn a_command_is_in_all_of_the_container_s_namespaces() {
    for who in EVERYBODY {
        for options in [&[][..], &["--init"], &["--network", "host"]] {
            let running = Running::start(who, options);
            let script = "for n in cgroup ipc mnt net pid uts user time; do \
                          test \"$(readlink /proc/self/ns/$n)\" = \"$(readlink /proc/$$/ns/$n)\" && readlink /proc/$$/ns/$n; done; \
                          hostname; cat /proc/self/cgroup; ls /; awk '{print $5}' /proc/self/mountinfo";
            let own = running.exec(&[], script);
            // As a program of the container's sees it that its first process started.
            let of_first = running.0.scratch.join("of-first");
            let pid = running.state("pid");
            let pid = if options.contains(&"--init") {
                sh(&format!("cut -d' ' -f1 /proc/{pid}/task/{pid}/children"))
            } else {
                pid.to_string()
            };
            sh(&format!(
                "for n in cgroup ipc mnt net pid uts user time; do readlink /proc/{pid}/ns/$n; done > {}",
                of_first.display()
            ));
            let namespaces = fs::read_to_string(of_first).unwrap();
            assert!(own.starts_with(namespaces.trim_end()), "{who:?} {options:?}: {own}\n{namespaces}");
            let ours = fs::read_link("/proc/self/ns/mnt").unwrap();
            assert!(!own.contains(ours.to_str().unwrap()), "{own}");
        }
    }
}

/// What may be done and what may not is the same for it as for the container's own.
#[test]
fn a_command_may_what_the_first_process_may() {
    for who in EVERYBODY {
        let kinds = [&[][..], &["--security-opt", "no-new-privileges"], &["--cap-drop", "all"]];
        for options in kinds.into_iter().take(if who == Who::User { 1 } else { 3 }) {
            let look = "probe; grep -E '^(Groups|Cap|NoNewPrivs|Seccomp|Umask|Uid|Gid)' /proc/self/status; \
                        cat /proc/self/limits /proc/self/oom_score_adj /proc/self/cgroup; pwd; env | sort | grep -v SHLVL; \
                        for fd in $(ls /proc/self/fd); do test $fd -gt 2 && test -e /proc/$$/fd/$fd && echo leaked $fd; done; true";
            let limits = ["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--oom-score-adj", "500"];
            let all = [options, &limits, &["-e", "A=b", "-w", "/tmp", "--hostname", "there"]].concat();
            let script = format!("{{ {look}; }} > /tmp/first 2>&1; exec sleep 100000");
            let running = Running::over(Ground::new(who), &all, &["sh", "-c", &script]);
            eventually("the first process sleeps", || running.exec(&[], "cat /proc/1/comm") == "sleep");
            let own = running.exec(&[], look);
            let first = fs::read_to_string(running.0.root().join("tmp/first")).unwrap();
            assert!(first.lines().count() > 100, "{first}");
            similar(&own, first.trim_end());
        }
    }
}

#[track_caller]
fn similar(own: &str, first: &str) {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let (own, first) = (lines(own), lines(first));
    let differ: Vec<_> = own.symmetric_difference(&first).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

#[test]
fn exit_statuses_are_those_of_docker() {
    for who in EVERYBODY {
        let running = Running::start(who, &[]);
        let code = |options: &[&str], command: &[&str]| running.try_exec(options, command).status.code();
        assert_eq!(code(&[], &["true"]), Some(0));
        assert_eq!(code(&[], &["sh", "-c", "exit 7"]), Some(7));
        assert_eq!(code(&[], &["sh", "-c", "kill -9 $$"]), Some(137));
        assert_eq!(code(&[], &["not-there"]), Some(127));
        assert_eq!(code(&[], &["/etc/passwd"]), Some(126));
        assert_eq!(code(&[], &["/tmp"]), Some(126));
        running.refused(&["-w", "/not-there"], 127, "No such file");
        running.refused(&["-w", "/etc/passwd"], 126, "");
        running.refused(&["-w", "relative"], 1, "must be absolute");
        let none = spawn_captured(running.lamel("exec", &["nobody", "true"]), std::time::Duration::from_secs(20));
        assert!(none.status.code() == Some(1) && none.stderr.contains("No such container: nobody"), "{}", none.stderr);
        running.told("kill", &["c"]);
        running.told("wait", &["c"]);
        running.refused(&[], 1, "is not running");
    }
}

#[test]
fn variables_directory_and_user_are_as_asked_for() {
    for who in EVERYBODY {
        let running = Running::start(who, &["-e", "A=container", "-e", "B=container", "-w", "/tmp"]);
        fs::write(running.0.scratch.join("env"), "# no\nB=file\nC=file\n").unwrap();
        let said = running.exec(
            &["--env-file", "env", "-e", "C=option", "-e", "HOSTNAME=h"],
            "env | sort | grep -v -e SHLVL -e ^_=; pwd",
        );
        let want = "A=container\nB=file\nC=option\nHOME=/root\nHOSTNAME=h\n\
                    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/tmp\n/tmp";
        assert_eq!(said, want, "{who:?}");
        assert_eq!(running.exec(&["-w", "/etc"], "pwd"), "/etc");
        if who == Who::Alone {
            running.refused(&["-u", "me"], 126, "is not mapped");
            continue;
        }
        let look =
            "id -u; id -g; grep -E '^(Groups|CapInh|CapEff|CapBnd)' /proc/self/status | tr -s '\\t ' ' '; echo $HOME";
        let me = "1000\n100\nGroups: 10 100 \nCapInh: 0000000000000000\nCapEff: 0000000000000000\n\
                  CapBnd: 00000000a80425fb\n/home/me";
        assert_eq!(running.exec(&["-u", "me"], look), me, "{who:?}");
        assert_eq!(running.exec(&["-u", "77:users"], "id -u; id -g; echo $HOME"), "77\n100\n/");
    }
}

/// CVE-2022-29162: also with all of them, none is inheritable.
#[test]
fn privileged_gives_capabilities_and_nothing_else() {
    for who in EVERYBODY {
        let running = Running::start(who, &["--cap-drop", "all"]);
        let look = "grep -E '^(CapInh|CapEff|CapAmb|Seccomp):' /proc/self/status | cut -f2 | tr '\\n' ' '";
        assert_eq!(running.exec(&[], look), "0000000000000000 0000000000000000 0000000000000000 2");
        let all = running.exec(&["--privileged"], look);
        let sets: Vec<&str> = all.split(' ').collect();
        assert!(u64::from_str_radix(sets[1], 16).unwrap().count_ones() > 30, "{all}");
        assert_eq!((sets[0], sets[2], sets[3]), ("0000000000000000", "0000000000000000", "2"), "{all}");
    }
}

#[test]
fn streams_are_given_as_asked_for() {
    let running = Running::start(Who::User, &[]);
    let feed = |options: &[&str]| {
        let mut child =
            running.command(options, &["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"fed").ok();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    assert_eq!(feed(&["-i"]), "fed");
    assert_eq!(feed(&[]), "");
    let out = running.try_exec(&[], &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\n", "err\n"));
    let out = running.try_exec(&["-it"], &["true"]);
    assert!(out.status.code() == Some(1) && out.stderr.contains("TTY"), "{}", out.stderr);
}

#[test]
fn a_detached_command_goes_on_and_ends_with_the_container() {
    for who in EVERYBODY {
        let word = format!("3331{}", who.id() % 1000);
        let running = Running::start(who, &[]);
        assert_eq!(running.exec(&["-d"], &format!("exec sleep {word}")), "");
        eventually("it sleeps", || processes(&format!("sleep {word}")) == 1);
        running.refused(&["-d", "-i"], 2, "cannot be used with");
        drop(running);
        assert_eq!(processes(&format!("sleep {word}")), 0);
    }
}

#[test]
fn descriptors_are_handed_on_on_request() {
    for who in EVERYBODY {
        let running = Running::start(who, &[]);
        let file = running.0.scratch.join("file");
        fs::write(&file, "handed on\n").unwrap();
        let line = |options: &str, script: &str| {
            let words: Vec<String> = std::iter::once(running.command(&[], &[]).get_program().to_owned())
                .chain(running.command(&[options], &["sh", "-c", script]).get_args().map(std::ffi::OsStr::to_owned))
                .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''")))
                .collect();
            format!("cd {}; {} 3< file 4< file", running.0.scratch.path().display(), words.join(" "))
        };
        let list = "for fd in 3 4 5 6 7 8 9; do test -e /proc/$$/fd/$fd && echo $fd; done; true";
        assert_eq!(sh(&line("--preserve-fds=0", list)), "", "{who:?}");
        assert_eq!(sh(&line("--preserve-fds=1", list)), "3", "{who:?}");
        assert_eq!(sh(&line("--preserve-fds=2", "cat <&4; cat <&3 | wc -c")), "handed on\n10", "{who:?}");
        let mut inherit = running.command(&["--preserve-fds", "3"], &["true"]);
        let out = spawn_captured(
            std::mem::replace(&mut inherit, std::process::Command::new("true")),
            std::time::Duration::from_secs(20),
        );
        assert!(out.status.code() == Some(1) && out.stderr.contains("is not open"), "{}", out.stderr);
    }
}

#[test]
fn a_limit_of_the_container_s_is_the_command_s_too() {
    let running = Running::start(Who::Root, &["-m", "32m", "--memory-swap", "32m", "--pids-limit", "20"]);
    assert_eq!(running.exec(&[], "cat /sys/fs/cgroup/memory/cgroup.procs | grep -c ^$$"), "1");
    let eaten = running.try_exec(&[], &["sh", "-c", "head -c 64m /dev/zero | tail -c 60m | wc -c"]);
    assert!(!eaten.stdout.contains("62914560"), "{}", eaten.stdout);
    // The group's file is locked by nobody and goes with the container.
    let group = format!("/sys/fs/cgroup/memory/lamel-{}", running.directory().file_name().unwrap().to_str().unwrap());
    let found = sh(&format!("find /sys/fs/cgroup/memory -type d -name {} | wc -l", group.rsplit('/').next().unwrap()));
    assert_eq!(found, "1");
    drop(running);
    assert_eq!(sh(&format!("find /sys/fs/cgroup -type d -name {} | wc -l", group.rsplit('/').next().unwrap())), "0");
}

#[test]
fn a_stuck_first_process_is_in_nobody_s_way_and_a_paused_container_takes_nothing() {
    for who in EVERYBODY {
        let running = Running::start(who, &[]);
        sh(&format!("kill -STOP {}", running.state("pid")));
        assert_eq!(running.exec(&[], "echo $((6 * 7))"), "42", "{who:?}");
    }
    let running = Running::start(Who::Root, &[]);
    running.told("pause", &["c"]);
    running.refused(&[], 1, "is paused, unpause the container before exec");
    assert_eq!(processes("sh -c echo it ran"), 0);
    running.told("unpause", &["c"]);
    assert_eq!(running.exec(&[], "echo on"), "on");
    drop(File::open(running.directory()).unwrap());
}

/// Over an image the container's root is in a mount namespace of its monitor's, and for a plain user in a user namespace.
#[test]
fn a_command_in_a_container_of_an_image() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let store = ground.dir("store");
        let tar = ground.scratch.join("root.tar");
        sh(&format!(
            "tar -C {} --owner=0 --group=0 -cf {} . && chmod 644 {}",
            ground.root().display(),
            tar.display(),
            tar.display()
        ));
        let mut import = ground.who.command(&ground.bin());
        import.arg("import").arg("--root").arg(&store).arg(&tar).arg("img");
        let out = spawn_captured(import, std::time::Duration::from_secs(30));
        assert!(out.success(), "{}", out.stderr);
        let running = Running(ground);
        running.told("run", &["-d", "--name", "c", "img", "sleep", "100000"]);
        assert_eq!(
            running.exec(&["-w", "/tmp"], "echo written > /tmp/file; cat file; pwd"),
            "written\n/tmp",
            "{who:?}"
        );
        if who != Who::Alone {
            assert_eq!(running.exec(&["-u", "me"], "id -un; cat /tmp/file"), "me\nwritten", "{who:?}");
        }
        assert_eq!(running.told("top", &["c", "-o", "user,comm"]).lines().count(), 2);
    }
}

#[test]
fn landlock_confines_a_command_too() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let profile = ground.scratch.join("profile.json");
        let rule = r#"{"allowedAccess":["make_dir"],"paths":["/tmp"]}"#;
        let text = format!(r#"{{"ruleset":{{"handledAccessFS":["make_dir"]}},"rules":{{"pathBeneath":[{rule}]}}}}"#);
        fs::write(&profile, text).unwrap();
        let option = format!("landlock={}", profile.display());
        let running = Running::over(ground, &["--security-opt", &option], &["sleep", "100000"]);
        let script = "mkdir /tmp/a && mkdir /b 2> /dev/null; ls -d /tmp/a /b 2> /dev/null; true";
        for options in [&[][..], &["--privileged"]] {
            assert_eq!(running.exec(options, script), "/tmp/a", "{who:?}");
            running.exec(&[], "rmdir /tmp/a");
        }
    }
}
