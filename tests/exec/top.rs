//! `top` and `stats`: what the host knows of a container.

use super::kit::*;
use super::running::*;

#[test]
fn processes_are_shown_as_ps_shows_them() {
    for who in EVERYBODY {
        let running = Running::start(who, &["--init"]);
        let user = if who == Who::Alone { "root" } else { "me" };
        running.exec(&["-d", "-u", user], "exec sleep 90901");
        eventually("it sleeps", || processes("sleep 90901") == 1);
        let full = running.told("top", &["c"]);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(full.lines().next().unwrap()).join(" "), "UID PID PPID C STIME TTY TIME CMD", "{who:?}");
        let row = full.lines().map(words).find(|row| row[7..].join(" ") == "sleep 90901").unwrap();
        assert_eq!(row[0], user, "{who:?}: {full}");
        // The number is the host's.
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", row[1])).unwrap();
        assert_eq!(line, "sleep\090901\0");
        assert_eq!(full.lines().count(), 4, "{who:?}: {full}");
        let picked = running.told("top", &["c", "-o", "user=WHO,comm"]);
        assert_eq!(words(picked.lines().next().unwrap()), ["WHO", "COMMAND"]);
        assert!(picked.contains("lamel-init"), "{picked}");
        // podman's way: the number inside.
        let inside = running.told("top", &["c", "pid", "ppid", "comm"]);
        assert!(inside.lines().map(words).any(|row| row == ["1", "0", "lamel-init"]), "{inside}");
        assert!(inside.lines().map(words).any(|row| row == ["2", "1", "sleep"]), "{inside}");
    }
}

#[test]
fn a_process_s_name_is_no_order_to_the_terminal() {
    for who in EVERYBODY {
        let running = Running::start(who, &[]);
        let script = "printf '\\033[2Jx' > /proc/self/comm; while :; do sleep 1; done";
        let out = running.try_exec(&["-d"], &["sh", "-c", script, "90902", "\u{1b}]0;title\u{7}"]);
        assert!(out.success(), "{}", out.stderr);
        eventually("it is named", || running.told("top", &["c", "-o", "comm,args"]).contains("?[2Jx"));
        assert!(running.told("top", &["c"]).contains("90902 ?]0;title?"));
        for options in [&["c"][..], &["c", "-o", "comm,args"]] {
            let shown = running.told("top", options);
            assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{who:?}: {shown:?}");
        }
    }
}

#[test]
fn what_is_used_is_told_and_what_is_not_known_is_said() {
    for who in EVERYBODY {
        let running = Running::start(who, &[]);
        running.exec(&["-d"], "while :; do :; done");
        let json = running.told("stats", &["--no-stream", "--format", "json"]);
        let row: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&row["Name"], &row["PIDs"]), (&"c".into(), &"2".into()), "{who:?}: {json}");
        let cpu: f64 = row["CPUPerc"].as_str().unwrap().trim_end_matches('%').parse().unwrap();
        assert!(cpu > 5.0 && cpu < 150.0, "{who:?}: {json}");
        assert_eq!(row["NetIO"], "0B / 0B");
        // A container without a limit of memory has no group that counts it.
        assert_eq!((&row["MemPerc"], &row["BlockIO"]), (&"--".into(), &"--".into()), "{who:?}: {json}");
        let out = spawn_captured(running.lamel("stats", &["--no-stream"]), std::time::Duration::from_secs(20));
        assert!(out.stderr.contains("control group"), "{}", out.stderr);
        let heading = out.stdout.lines().next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty());
        let wanted = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
        assert!(heading.eq(wanted), "{}", out.stdout);
    }
    let running = Running::start(Who::Root, &["-m", "64m", "--pids-limit", "10"]);
    let shown = running.told("stats", &["--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}"]);
    assert!(shown.starts_with("c ") && shown.ends_with("iB / 64MiB 1"), "{shown}");
    running.told("kill", &["c"]);
    running.told("wait", &["c"]);
    assert_eq!(running.told("stats", &["--no-stream", "--format", "{{.Name}}"]), "");
    assert_eq!(running.told("stats", &["-a", "--no-stream", "--format", "{{.Name}} {{.PIDs}}"]), "c --");
}
