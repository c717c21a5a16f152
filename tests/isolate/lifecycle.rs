//! However a container ends, nothing of it stays.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::kit::*;

#[track_caller]
fn eventually(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "still not so: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes on the host with this word in their arguments.
fn processes(word: &str) -> usize {
    sh(&format!(
        "grep -zl '{word}' /proc/[0-9]*/cmdline 2> /dev/null | xargs -r -n1 dirname | xargs -r -n1 sh -c \
                 'grep -q \"State:.Z\" $0/status || echo $0' | wc -l || true"
    ))
    .parse()
    .unwrap()
}

/// No control group is left that nobody holds. Tests beside this one kill lamel: what such a one left, the next takes away.
#[track_caller]
fn no_groups(ground: &Ground) {
    let limits = ["-m", "64m", "--pids-limit", "50", "--cpus", "1", "--cpuset-cpus", "0", "--blkio-weight", "100"];
    eventually("no control group is left", || {
        // The weight is not on every kernel; the group is made, and others swept, in any case.
        ground.try_run(&limits, &["true"]);
        groups().is_empty()
    });
}

fn groups() -> String {
    sh(
        "for g in $(find /sys/fs/cgroup -maxdepth 6 -type d -name 'lamel-*'); do flock -n $g true && echo $g; done; true",
    )
}

/// A container that runs two processes, with `word` in their arguments, until it is ended.
fn start(ground: &Ground, options: &[&str], word: &str) -> std::process::Child {
    let mut command = ground.command(options, &["sh", "-c", &format!("sleep 3{word} & setsid sleep 4{word} & wait")]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("two processes sleep", || {
        sh(&format!("grep -zl '^[34]{word}' /proc/[0-9]*/cmdline 2> /dev/null | wc -l || true"))
            .parse::<usize>()
            .unwrap()
            >= 2
    });
    child
}

#[test]
fn kill_9_of_the_monitor_ends_everything() {
    for (who, word) in EVERYBODY.into_iter().zip(["110", "120", "130"]) {
        let kinds = [&[][..], &["--init"], &["-u", "me"], &["-u", "me", "--init"]];
        // Who has one id alone cannot choose a user.
        for (kind, options) in kinds.into_iter().enumerate().take(if who == Who::Alone { 2 } else { 4 }) {
            let word = format!("{word}{kind}");
            let ground = Ground::new(who);
            let mut child = start(&ground, options, &word);
            sh(&format!("kill -9 {}", ground.monitor()));
            // The command has lost its container, and says so.
            assert_eq!(child.wait().unwrap().code(), Some(125));
            eventually("nothing runs", || processes(&format!("^[34]{word}")) == 0);
            let listed =
                spawn_captured(ground.lamel(&["ps", "-a", "--format", "{{.ID}} {{.State}} {{.ExitCode}}"]), TIMEOUT);
            let (id, state) = listed.stdout.trim_end().split_once(' ').unwrap();
            assert_eq!(state, "exited 137");
            assert!(spawn_captured(ground.lamel(&["rm", id]), TIMEOUT).success());
            let left = sh(&format!(
                "find {}/containers -mindepth 1 | sort | xargs -n1 basename",
                ground.scratch.join("store").display()
            ));
            assert_eq!(left, "lock\nnames");
            assert_eq!(sh(&format!("grep -c {} /proc/self/mountinfo || true", ground.scratch.path().display())), "0");
        }
    }
    no_groups(&Ground::new(Who::Root));
}

#[test]
fn signals_reach_the_program() {
    for who in EVERYBODY {
        for options in [&["-i"][..], &["-i", "--init"]] {
            let ground = Ground::new(who);
            let script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
            let mut command = ground.command(options, &["sh", "-c", script]);
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            std::io::BufRead::read_line(&mut out, &mut line).unwrap();
            sh(&format!("kill -TERM {}", child.id()));
            let status = child.wait().unwrap();
            std::io::Read::read_to_string(&mut out, &mut line).unwrap();
            assert_eq!((status.code(), line.as_str()), (Some(3), "ready\ngot it\n"), "{who:?} {options:?}");
        }
    }
}

#[test]
fn the_end_of_the_first_process_is_the_end_of_all() {
    for (who, word) in EVERYBODY.into_iter().zip(["1511", "1512", "1513"]) {
        let ground = Ground::new(who);
        ground.run(&[], &format!("setsid sleep 3{word} & sleep 0.1"));
        eventually("nothing runs", || processes(&format!("^3{word}")) == 0);
        ground.run(&["--init"], &format!("setsid sleep 4{word} & sleep 0.1"));
        eventually("nothing runs", || processes(&format!("^4{word}")) == 0);
    }
    no_groups(&Ground::new(Who::Root));
}

#[test]
fn failures_leave_nothing() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        for options in
            [&["-w", "/etc/passwd"][..], &["--ulimit", "nofile=99999999:99999999"], &["-v", "/etc/passwd:/tmp"]]
        {
            ground.refused(options, &[]);
        }
        assert_eq!(ground.try_run(&[], &["not-there"]).status.code(), Some(127));
        assert_eq!(sh(&format!("grep -c {} /proc/self/mountinfo || true", ground.scratch.path().display())), "0");
        // A pattern that is not its own match.
        assert_eq!(processes(&ground.root().to_str().unwrap().replacen('/', "[/]", 1)), 0);
    }
    no_groups(&Ground::new(Who::Root));
}

#[test]
fn twenty_at_once() {
    let ground = Ground::new(Who::Root);
    let children: Vec<_> = (0..20)
        .map(|n| {
            let mut command = ground.command(&["-m", "64m"], &["sh", "-c", &format!("exit {n}")]);
            command.stdin(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for (n, mut child) in children.into_iter().enumerate() {
        assert_eq!(child.wait().unwrap().code(), i32::try_from(n).ok());
    }
    no_groups(&ground);
}
