//! Hooks of the configuration, given by `--hooks-dir`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::kit::*;

/// Adds a hook that runs a script at these stages.
fn add(ground: &Ground, name: &str, stages: &[&str], script: &str) {
    let dir = ground.dir("hooks");
    let stages: Vec<String> = stages.iter().map(|stage| format!("{stage:?}")).collect();
    let script = script.replace('"', "\\\"");
    let text = format!(
        r#"{{"version": "1.0.0", "hook": {{"path": "/bin/sh", "args": ["sh", "-c", "{script}"], "env": ["PATH=/bin:/usr/bin"], "timeout": 20}},
            "when": {{"always": true}}, "stages": [{}]}}"#,
        stages.join(",")
    );
    fs::write(dir.join(format!("{name}.json")), text).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    ground.give(&dir);
}

fn options(ground: &Ground) -> [String; 2] {
    ["--hooks-dir".to_owned(), ground.scratch.join("hooks").display().to_string()]
}

const STAGES: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

#[test]
fn hooks_run_in_order_where_they_belong() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let log = ground.scratch.join("hooks/log").display().to_string();
        for (at, stage) in STAGES.iter().enumerate() {
            // The host's files are not there any more for the one that comes after the root has changed.
            let log = if *stage == "startContainer" { "/tmp/log" } else { &log };
            let look = "echo $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/uts) $(id -u); hostname";
            let script = format!("{{ echo {stage}; cat; echo; {look}; }} >> {log}");
            add(&ground, &format!("{at}"), &[stage], &script);
        }
        let [option, dir] = options(&ground);
        let said = ground
            .run(&[&option, &dir, "--hostname", "inside", "--annotation", "a=b"], "cat /tmp/log; echo ran; id -u");
        let log = fs::read_to_string(&log).unwrap();
        let outside: Vec<&str> = log.lines().collect();
        let inside: Vec<&str> = said.lines().collect();
        let names = |lines: &[&str]| lines.iter().step_by(4).map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&outside), ["prestart", "createRuntime", "createContainer", "poststart", "poststop"], "{log}");
        assert_eq!((inside[0], inside[4]), ("startContainer", "ran"), "{said}");
        for (lines, status) in [
            (&outside[..4], "creating"),
            (&outside[4..8], "creating"),
            (&outside[8..12], "creating"),
            (&inside[..4], "created"),
            (&outside[12..16], "running"),
            (&outside[16..], "stopped"),
        ] {
            let state: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
            assert_eq!((state["status"].as_str(), state["annotations"]["a"].as_str()), (Some(status), Some("b")));
            assert_eq!(state["pid"].is_i64(), status != "stopped");
            let bundle = state["bundle"].as_str().unwrap();
            assert!(bundle.ends_with(state["id"].as_str().unwrap()), "{bundle}");
            let is_inside = ["createContainer", "startContainer"].contains(&lines[0]);
            assert_eq!(lines[3] == "inside", is_inside, "{lines:?}");
        }
        // Those of the container are in its namespaces.
        assert_eq!(outside[10], inside[2], "{log}{said}");
        assert_ne!(outside[2], outside[10]);
        assert!(inside[2].ends_with(" 0") && inside[5] == "0", "{said}");
    }
}

#[test]
fn a_hook_that_fails_ends_the_container() {
    for who in EVERYBODY {
        for stage in &STAGES[..5] {
            let ground = Ground::new(who);
            let end = ground.scratch.join("hooks/end");
            add(&ground, "1", &[stage], "echo not today >&2; exit 3");
            add(&ground, "2", &["poststop"], &format!("echo end > {}", end.display()));
            let [option, dir] = options(&ground);
            let out = ground.try_run(&[&option, &dir], &["sleep", "1000"]);
            assert_eq!(out.status.code(), Some(125), "{who:?} {stage}: {}", out.stderr);
            assert!(out.stderr.contains("hook /bin/sh: exit status 3"), "{stage}: {}", out.stderr);
            let by_parent = ["prestart", "createRuntime", "poststart"].contains(stage);
            assert_eq!(out.stderr.contains("not today"), by_parent, "{stage}: {}", out.stderr);
            assert_eq!(fs::read_to_string(end).unwrap(), "end\n", "{stage}");
        }
    }
}

#[test]
fn a_hook_that_fails_at_the_end_changes_nothing() {
    let ground = Ground::new(Who::Root);
    add(&ground, "1", &["poststop"], "exit 3");
    let end = ground.scratch.join("hooks/end");
    add(&ground, "2", &["poststop"], &format!("echo end > {}", end.display()));
    let [option, dir] = options(&ground);
    assert_eq!(ground.try_run(&[&option, &dir], &["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(fs::read_to_string(end).unwrap(), "end\n");
}

/// What runs there is a file of the image's: it has no more than the container has.
#[test]
fn a_hook_inside_has_what_the_container_has() {
    for who in EVERYBODY {
        let ground = Ground::new(who);
        let look = "grep -E '^(Cap|Seccomp:|NoNewPrivs|Uid|Gid)' /proc/self/status; ls /proc/self/fd | wc -l";
        let script = format!(
            "{{ {look}; for fd in 0 1 2 17 19 20; do readlink /proc/1/fd/$fd; done; cat /proc/1/environ 2>&1; }} > /tmp/hook; true"
        );
        add(&ground, "1", &["startContainer"], &script);
        let [option, dir] = options(&ground);
        let user = if who == Who::Alone { "0" } else { "1000" };
        sh(&format!("chmod 777 {}/tmp", ground.root().display()));
        for options in [["-u", user], ["--security-opt", "no-new-privileges"]] {
            let all = [&[option.as_str(), &dir][..], &options].concat();
            let own = ground.run(&all, &format!("{look}; cat /tmp/hook; rm /tmp/hook"));
            let lines: Vec<&str> = own.lines().collect();
            let (own, hook) = lines.split_at(10);
            assert_eq!(own, &hook[..10], "{who:?}: {lines:#?}");
            let seen = hook[10..].join("\n");
            assert_eq!(seen, "cat: can't open '/proc/1/environ': Permission denied", "{who:?}");
        }
    }
}
