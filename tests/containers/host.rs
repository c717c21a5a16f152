//! What a container has to do with its host: memory, ids, mounts, a boot, a log of a certain size.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use super::house::*;

/// The events of a container, in order.
fn events(house: &House, name: &str) -> Vec<String> {
    let filter = format!("container={name}");
    let said = house.ok(&["events", "--since", "1h", "--until", "0s", "--filter", &filter, "--format", "json"]);
    let told = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let more = ["signal", "exitCode"].into_iter().filter_map(|key| event["Actor"]["Attributes"][key].as_str());
        std::iter::once(event["Action"].as_str().unwrap()).chain(more).collect::<Vec<_>>().join(" ")
    };
    said.lines().map(told).collect()
}

#[test]
fn a_stop_is_told_as_docker_tells_it() {
    for who in EVERYBODY {
        let house = House::new(who);
        house.ok(&["run", "-d", "--name", "deaf", "--stop-timeout", "1", "bb", "sleep", "1000"]);
        house.ok(&["stop", "deaf"]);
        assert_eq!(events(&house, "deaf"), ["create", "start", "kill 15", "kill 9", "die 137", "stop"], "{who:?}");
        house.ok(&["run", "-d", "--init", "--name", "lively", "bb", "sleep", "1000"]);
        house.ok(&["restart", "lively"]);
        house.ok(&["kill", "lively"]);
        house.eventually("it has ended", || house.state("lively") == "exited 137");
        let wanted = ["create", "start", "kill 15", "die 143", "stop", "start", "restart", "kill 9", "die 137"];
        assert_eq!(events(&house, "lively"), wanted, "{who:?}");
        // One that does not run is not stopped again.
        house.ok(&["stop", "lively"]);
        assert_eq!(events(&house, "lively").len(), wanted.len());
        house.ok(&["rm", "deaf", "lively"]);
        house.assert_empty();
    }
}

/// A plain user has no control group that counts here.
#[test]
fn who_was_killed_for_memory_is_told() {
    let house = House::new(Who::Root);
    let limit = ["-m", "16m", "--memory-swap", "16m"];
    let eat = "head -c 64m /dev/zero | tail -c 60m > /dev/null";
    house.lamel(&[&["run", "--name", "hungry"][..], &limit, &["bb", "sh", "-c", &format!("{eat}; exit 5")]].concat());
    assert_eq!(house.inspect("hungry", ".State.OOMKilled"), "true");
    let told = events(&house, "hungry");
    assert_eq!(told[2..], ["oom", "die 5"], "{told:?}");
    house.ok(&[&["run", "--name", "calm"][..], &limit, &["bb", "true"]].concat());
    assert_eq!(house.inspect("calm", ".State.OOMKilled"), "false");
    house.ok(&["rm", "hungry", "calm"]);
    house.assert_empty();
}

#[test]
fn a_log_is_begun_anew_at_its_size_and_still_followed() {
    for who in EVERYBODY {
        let house = House::new(who);
        let script = "while ! test -e /tmp/go; do sleep 0.1; done; n=0; while test $n -lt 500; do echo line $n; n=$((n+1)); \
                      test $((n % 50)) = 0 && sleep 0.1; done; sleep 1";
        house.ok(&["run", "-d", "--name", "c", "--log-opt", "max-size=4kb", "bb", "sh", "-c", script]);
        let mut follow = house.command(&["logs", "-f", "c"]);
        let follow = follow.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        house.ok(&["exec", "c", "touch", "/tmp/go"]);
        let seen = String::from_utf8(follow.wait_with_output().unwrap().stdout).unwrap();
        let all: Vec<String> = (0..500).map(|n| format!("line {n}")).collect();
        assert_eq!(seen.lines().collect::<Vec<_>>(), all, "{who:?}");
        let kept = house.ok(&["logs", "c"]);
        let kept: Vec<&str> = kept.lines().collect();
        assert!(
            kept.len() < 200
                && !kept.is_empty()
                && all.ends_with(&kept.iter().map(ToString::to_string).collect::<Vec<_>>())
        );
        let log = house.inspect("c", ".LogPath");
        assert!(fs::metadata(&log).unwrap().len() <= 4096);
        assert_eq!(
            house.inspect("c", "json .HostConfig.LogConfig"),
            r#"{"Config":{"max-size":"4096"},"Type":"k8s-file"}"#
        );
        house.ok(&["rm", "-f", "c"]);
        for option in ["max-file=3", "max-size=big", "max-size"] {
            assert!(house.fails(125, &["run", "--log-opt", option, "bb", "true"]).contains("--log-opt"));
        }
        house.assert_empty();
    }
}

#[test]
fn ids_of_their_own_are_nobody_else_s_also_at_once() {
    let house = House::new(Who::Root);
    let making: Vec<_> = (0..8)
        .map(|n| house.spawn(&["create", "--userns", "auto", "--name", &format!("c{n}"), "bb", "true"]))
        .collect();
    for mut made in making {
        assert!(made.wait().unwrap().success());
    }
    let starts: BTreeSet<u64> = (0..8)
        .map(|n| {
            let config = fs::read_to_string(house.inspect(&format!("c{n}"), ".OCIConfigPath")).unwrap();
            let config: serde_json::Value = serde_json::from_str(&config).unwrap();
            assert_eq!(config["linux"]["uidMappings"][0]["size"], 65536);
            config["linux"]["uidMappings"][0]["hostID"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(starts.len(), 8, "{starts:?}");
    let starts: Vec<u64> = starts.into_iter().collect();
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= 65536), "{starts:?}");
}

/// A monitor that was ended leaves what a boot leaves.
#[test]
fn containers_are_started_again_after_a_boot() {
    for who in EVERYBODY {
        let house = House::new(who);
        for (name, policy) in
            [("a", "always"), ("u", "unless-stopped"), ("s", "unless-stopped"), ("n", "no"), ("as", "always")]
        {
            house.ok(&["run", "-d", "--init", "--name", name, "--restart", policy, "bb", "sleep", "1000"]);
        }
        house.ok(&["create", "--name", "new", "--restart", "unless-stopped", "--init", "bb", "sleep", "1000"]);
        house.ok(&["stop", "s", "as"]);
        // Who is told to end, as at a shutdown, or killed, was not stopped.
        for (name, signal, code) in [("a", "TERM", 143), ("u", "TERM", 143), ("n", "KILL", 137)] {
            sh(&format!("kill -s {signal} {}", house.inspect(name, ".State.MonitorPid")));
            house.eventually("it has ended", || house.state(name) == format!("exited {code}"));
        }
        let names = |filter: &str| {
            let said = house.ok(&["ps", "-a", "--filter", filter, "--format", "{{.Names}}"]);
            said.lines().map(str::to_owned).collect::<BTreeSet<String>>()
        };
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        assert_eq!(names("restart-policy=always"), set(&["a", "as"]));
        assert_eq!(names("should-start-on-boot=true"), set(&["a", "as", "u"]));
        house.ok(&["start", "--all", "--filter", "restart-policy=always"]);
        assert_eq!(names("status=running"), set(&["a", "as"]), "{who:?}");
        let started = house.ok(&["start", "--all", "--filter", "should-start-on-boot=true"]);
        assert_eq!(started.lines().count(), 1, "{started}");
        assert_eq!(names("status=running"), set(&["a", "as", "u"]), "{who:?}");
        house.ok(&["start", "--all"]);
        assert_eq!(names("status=running"), set(&["a", "as", "n", "new", "s", "u"]), "{who:?}");
        assert!(house.fails(2, &["start"]).contains("CONTAINER"));
        house.fails(2, &["start", "--all", "a"]);
        assert!(house.fails(2, &["start", "--filter", "restart-policy=often"]).contains("often"));
        house.ok(&["rm", "-f", "a", "as", "u", "s", "n", "new"]);
        house.assert_empty();
    }
}

#[test]
fn mounts_are_shared_with_the_host_on_request() {
    let house = House::new(Who::Root);
    let place = house.ground.scratch.dir("shared");
    sh(&format!("mount -t tmpfs t {0} && mount --make-shared {0} && mkdir {0}/in {0}/out", place.display()));
    let unmount =
        || sh(&format!("umount -R {0} 2> /dev/null || true; umount -R {0} 2> /dev/null || true", place.display()));
    let result = std::panic::catch_unwind(|| {
        let root = house.ground.root();
        for over in [&["bb"][..], &["--rootfs", root.to_str().unwrap()]] {
            for (option, comes, goes) in
                [("rprivate", false, false), ("rslave", true, false), ("rshared", true, true), ("shared", true, true)]
            {
                let volume = format!("{}:/x:{option}", place.display());
                let options = ["run", "-d", "--name", "c", "--cap-add", "SYS_ADMIN", "-v", &volume];
                house.ok(&[&options[..], over, &["sleep", "1000"]].concat());
                let seen =
                    || house.ok(&["exec", "c", "sh", "-c", "grep -c ' /x/in ' /proc/self/mountinfo || true"]) == "1";
                sh(&format!("mount -t tmpfs t {}/in", place.display()));
                assert_eq!(seen(), comes, "{over:?} {option}");
                sh(&format!("umount {}/in", place.display()));
                assert!(!seen(), "{over:?} {option}");
                house.ok(&["exec", "c", "mount", "-t", "tmpfs", "t", "/x/out"]);
                let out = sh(&format!("grep -c ' {}/out ' /proc/self/mountinfo || true", place.display()));
                assert_eq!(out == "1", goes, "{over:?} {option}");
                // Started again, it is as before.
                if option == "rshared" {
                    sh(&format!("umount {}/out", place.display()));
                    house.ok(&["restart", "-t", "0", "c"]);
                    house.ok(&["exec", "c", "mount", "-t", "tmpfs", "t", "/x/out"]);
                    assert_eq!(sh(&format!("grep -c ' {}/out ' /proc/self/mountinfo", place.display())), "1");
                }
                house.ok(&["rm", "-f", "c"]);
                sh(&format!("umount {}/out 2> /dev/null || true", place.display()));
            }
        }
    });
    unmount();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
    // Containers of other tests may have seen the mount.
    house.eventually("no monitor is left", || house.monitors().is_empty());
    assert_eq!(house.left(), "");
}

/// The root of a user namespace has no device control group and makes no devices: its containers need neither.
#[test]
fn the_root_of_a_user_namespace_has_containers() {
    for who in [Who::Root, Who::User] {
        let house = House::new(who);
        let root = house.ground.root().display().to_string();
        let nested = |words: &[&str]| {
            let mut command = house.command(words);
            let words: Vec<_> =
                std::iter::once(command.get_program()).chain(command.get_args()).map(ToOwned::to_owned).collect();
            let at = words.iter().position(|word| word == "env").unwrap();
            let mut line = std::process::Command::new(&words[0]);
            line.args(&words[1..at])
                .args(["unshare", "-Ur"])
                .args(&words[at..])
                .current_dir(house.ground.scratch.path());
            command = line;
            spawn_captured(command, std::time::Duration::from_secs(60))
        };
        let script = "id -u; echo x > /dev/null && test -c /dev/zero && echo devices; echo y > /file && cat /file; awk '{print $1, $3}' /proc/self/uid_map";
        for over in [&["--rootfs", root.as_str()][..], &["bb"]] {
            let out = nested(&[&["run", "--rm"][..], over, &["sh", "-c", script]].concat());
            assert_eq!(out.stdout, "0\ndevices\ny\n0 1\n", "{who:?} {over:?}: {}", out.stderr);
            sh(&format!("rm -f {root}/file"));
        }
        let out = nested(&["run", "--rm", "--device-cgroup-rule", "c 10:229 rwm", "--rootfs", &root, "true"]);
        assert_eq!(out.status.code(), Some(125), "{}", out.stderr);
        assert!(out.stderr.contains("--device-cgroup-rule: no device can be made"), "{}", out.stderr);
        if who == Who::User {
            let out = nested(&["run", "--rm", "-m", "64m", "--rootfs", &root, "true"]);
            assert_eq!(out.status.code(), Some(125), "{}", out.stderr);
            assert!(out.stderr.contains("leave the limit out"), "{}", out.stderr);
        }
        house.assert_empty();
    }
}

/// What the tests of the isolator show over a directory.
#[test]
fn hooks_landlock_and_owners_over_an_image() {
    for who in EVERYBODY {
        let house = House::new(who);
        let hooks = house.ground.scratch.dir("hooks");
        sh(&format!("chmod 777 {}", hooks.display()));
        let stages = ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
        for stage in stages {
            let log = if stage == "startContainer" { "/tmp/log".into() } else { hooks.join("log") };
            let text = format!(
                r#"{{"version": "1.0.0", "hook": {{"path": "/bin/sh", "args": ["sh", "-c", "echo {stage} >> {}"]}},
                    "when": {{"always": true}}, "stages": ["{stage}"]}}"#,
                log.display()
            );
            fs::write(hooks.join(format!("{stage}.json")), text).unwrap();
        }
        let profile = hooks.join("profile");
        let rule = r#"{"allowedAccess":["make_dir"],"paths":["/tmp"]}"#;
        let text = format!(r#"{{"ruleset":{{"handledAccessFS":["make_dir"]}},"rules":{{"pathBeneath":[{rule}]}}}}"#);
        fs::write(&profile, text).unwrap();
        let (dir, option) = (hooks.display().to_string(), format!("landlock={}", profile.display()));
        let script = "cat /tmp/log; mkdir /tmp/a && mkdir /b 2> /dev/null; ls -d /tmp/a /b 2> /dev/null; true";
        let options = ["run", "--name", "c", "--hooks-dir", &dir, "--security-opt", &option];
        let said = house.ok(&[&options[..], &["bb", "sh", "-c", script]].concat());
        assert_eq!(said, "startContainer\n/tmp/a", "{who:?}");
        // Each time that it runs.
        house.ok(&["start", "-a", "c"]);
        let log = fs::read_to_string(hooks.join("log")).unwrap();
        let outside = [stages[0], stages[1], stages[3], stages[4]];
        assert_eq!(log.lines().collect::<Vec<_>>(), [outside, outside].concat(), "{who:?}");
        house.ok(&["rm", "c"]);
        let owned = house.ground.dir("owned");
        let volume = format!("{}:/x:idmap", owned.display());
        let words = ["run", "--rm", "-v", &volume, "bb", "stat", "-c", "%u", "/x"];
        if who == Who::Root {
            let auto = [&words[..2], &["--userns", "auto"], &words[2..]].concat();
            assert_eq!(house.ok(&auto), "0");
        } else {
            assert!(house.fails(125, &words).contains("only the host's root"));
        }
        house.assert_empty();
    }
}
