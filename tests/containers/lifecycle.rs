//! Starting, stopping, pausing, restarting, removing.

use std::time::{Duration, Instant};

use super::house::*;

const LOYAL: &str = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";

#[test]
fn a_life_from_create_to_rm() {
    for who in EVERYBODY {
        let house = House::new(who);
        let id = house.ok(&["create", "--name", "c", "bb", "sh", "-c", LOYAL]);
        assert_eq!(house.state("c"), "created 0");
        assert_eq!(house.ok(&["start", "c"]), "c");
        assert_eq!(house.state("c"), "running 0");
        // Once more is no mistake.
        assert_eq!(house.ok(&["start", "c"]), "c");
        assert!(house.fails(1, &["rm", "c"]).contains("container is running"));
        house.eventually("it is ready", || house.ok(&["logs", "c"]) == "ready");
        assert_eq!(house.ok(&["stop", "c"]), "c");
        assert_eq!(house.state("c"), "exited 3");
        assert_eq!(house.ok(&["stop", "c"]), "c");
        assert_eq!(house.ok(&["wait", "c"]), "3");
        assert_eq!(house.ok(&["logs", "c"]), "ready\nbye");
        assert_eq!(house.ok(&["rm", "c"]), "c");
        assert!(house.fails(1, &["rm", "c"]).contains("No such container"));
        assert_eq!(house.lamel(&["rm", "-f", "c", &id]).status.code(), Some(0));
        house.assert_empty();
    }
}

#[test]
fn who_does_not_hear_is_killed() {
    let house = House::new(Who::User);
    house.ok(&["run", "-d", "--name", "deaf", "bb", "sleep", "1000"]);
    let start = Instant::now();
    house.ok(&["stop", "-t", "1", "deaf"]);
    assert!(start.elapsed() > Duration::from_millis(900) && start.elapsed() < Duration::from_secs(8));
    assert_eq!(house.state("deaf"), "exited 137");
    house.ok(&["run", "-d", "--name", "short", "--stop-timeout", "0", "bb", "sleep", "1000"]);
    house.ok(&["stop", "short"]);
    assert_eq!(house.state("short"), "exited 137");
    // Three at once take no longer than one.
    for name in ["a", "b", "c"] {
        house.ok(&["run", "-d", "--name", name, "bb", "sleep", "1000"]);
    }
    let start = Instant::now();
    assert_eq!(house.ok(&["stop", "-t", "5", "a", "b", "c"]), "a\nb\nc");
    assert!(start.elapsed() < Duration::from_secs(13));
}

#[test]
fn signals_by_name_and_number() {
    let house = House::new(Who::Root);
    let script = "trap 'echo one' USR1; trap 'echo bye; exit 4' USR2; echo ready; while :; do sleep 0.05; done";
    house.ok(&["run", "-d", "--name", "c", "--stop-signal", "USR2", "bb", "sh", "-c", script]);
    house.eventually("it is ready", || house.ok(&["logs", "c"]) == "ready");
    house.ok(&["kill", "-s", "USR1", "c"]);
    house.eventually("it heard", || house.ok(&["logs", "c"]) == "ready\none");
    house.ok(&["kill", "--signal", "10", "c"]);
    house.eventually("it heard again", || house.ok(&["logs", "c"]) == "ready\none\none");
    assert!(house.fails(1, &["kill", "-s", "NOTHING", "c"]).contains("Invalid signal"));
    house.ok(&["stop", "c"]);
    assert_eq!(house.state("c"), "exited 4");
    assert!(house.fails(1, &["kill", "c"]).contains("is not running"));
    house.ok(&["start", "c"]);
    house.ok(&["kill", "c"]);
    assert_eq!(house.ok(&["wait", "c"]), "137");
}

#[test]
fn what_is_paused_does_nothing() {
    let house = House::new(Who::Root);
    house.ok(&["run", "-d", "--name", "c", "bb", "sh", "-c", "while :; do echo tick; sleep 0.05; done"]);
    house.eventually("it ticks", || house.ok(&["logs", "c"]).contains("tick"));
    house.ok(&["pause", "c"]);
    assert_eq!(house.state("c"), "paused 0");
    let before = house.ok(&["logs", "c"]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(house.ok(&["logs", "c"]), before);
    assert!(house.fails(1, &["pause", "c"]).contains("already paused"));
    house.ok(&["unpause", "c"]);
    house.eventually("it ticks again", || house.ok(&["logs", "c"]).len() > before.len());
    assert!(house.fails(1, &["unpause", "c"]).contains("is not paused"));
    house.ok(&["pause", "c"]);
    house.ok(&["stop", "-t", "1", "c"]);
    assert_eq!(house.state("c"), "exited 137");
    house.ok(&["start", "c"]);
    house.ok(&["pause", "c"]);
    house.ok(&["rm", "-f", "c"]);
    house.assert_empty();
    // Who has no control group is told.
    let user = House::new(Who::User);
    user.ok(&["run", "-d", "--name", "c", "bb", "sleep", "1000"]);
    assert!(user.fails(1, &["pause", "c"]).contains("no control group"));
    user.ok(&["rm", "-f", "c"]);
}

#[test]
fn policies_start_it_again() {
    for who in [Who::Root, Who::Alone] {
        let house = House::new(who);
        house.ok(&["run", "-d", "--name", "fails", "--restart", "on-failure:2", "bb", "sh", "-c", "echo run; exit 5"]);
        house.eventually("it has given up", || house.state("fails") == "exited 5");
        assert_eq!(house.inspect("fails", ".RestartCount"), "2");
        assert_eq!(house.ok(&["logs", "fails"]), "run\nrun\nrun");
        house.ok(&["run", "-d", "--name", "well", "--restart", "on-failure", "bb", "true"]);
        house.eventually("it has ended", || house.state("well") == "exited 0");
        assert_eq!(house.inspect("well", ".RestartCount"), "0");
        house.ok(&["run", "-d", "--name", "always", "--restart", "always", "bb", "sh", "-c", "echo run; sleep 0.1"]);
        house.eventually("it runs again", || house.ok(&["logs", "always"]).lines().count() >= 3);
        house.ok(&["stop", "always"]);
        let runs = house.ok(&["logs", "always"]);
        assert!(house.state("always").starts_with("exited"));
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(house.ok(&["logs", "always"]), runs);
        // Killed by a command, it stays so.
        house.ok(&["run", "-d", "--name", "kept", "--restart", "unless-stopped", "bb", "sleep", "1000"]);
        house.ok(&["kill", "kept"]);
        house.eventually("it has ended", || house.state("kept") == "exited 137");
        // By somebody else, it does not.
        house.ok(&["start", "kept"]);
        let pid = house.inspect("kept", ".State.Pid");
        sh(&format!("kill -9 {pid}"));
        house.eventually("it runs again", || {
            house.state("kept") == "running 0" && house.inspect("kept", ".State.Pid") != pid
        });
        house.ok(&["rm", "-f", "kept", "always", "fails", "well"]);
        house.assert_empty();
    }
}

#[test]
fn restart_is_stop_and_start() {
    let house = House::new(Who::Root);
    house.ok(&["run", "-d", "--name", "c", "bb", "sh", "-c", LOYAL]);
    house.eventually("it is ready", || house.ok(&["logs", "c"]) == "ready");
    let pid = house.inspect("c", ".State.Pid");
    house.ok(&["restart", "c"]);
    assert_eq!(house.state("c"), "running 0");
    assert_ne!(house.inspect("c", ".State.Pid"), pid);
    house.eventually("it is ready again", || house.ok(&["logs", "c"]) == "ready\nbye\nready");
    house.ok(&["stop", "c"]);
    house.ok(&["restart", "c"]);
    assert_eq!(house.state("c"), "running 0");
    // One that goes when it ends is not gone by this.
    house.ok(&["run", "-d", "--rm", "--name", "passing", "--stop-timeout", "0", "bb", "sleep", "1000"]);
    house.ok(&["restart", "passing"]);
    assert_eq!(house.state("passing"), "running 0");
    house.ok(&["stop", "passing"]);
    house.eventually("it is gone", || house.state("passing").is_empty());
}

#[test]
fn commands_at_the_same_time_do_no_harm() {
    let house = House::new(Who::Root);
    house.ok(&["create", "--name", "c", "bb", "sleep", "1000"]);
    let mut children: Vec<_> = (0..10).map(|_| house.spawn(&["start", "c"])).collect();
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    assert_eq!(house.state("c"), "running 0");
    assert_eq!(house.monitors().len(), 1);
    let mut children: Vec<_> = (0..10)
        .map(|n| house.spawn(if n % 2 == 0 { &["restart", "-t", "0", "c"][..] } else { &["stop", "-t", "0", "c"] }))
        .collect();
    children.iter_mut().for_each(|child| assert!(child.wait().unwrap().success()));
    house.ok(&["start", "c"]);
    let mut children: Vec<_> = (0..10).map(|_| house.spawn(&["rm", "-f", "c"])).collect();
    children.iter_mut().for_each(|child| assert!(child.wait().unwrap().success()));
    house.assert_empty();
}

#[test]
fn prune_takes_what_has_ended() {
    let house = House::new(Who::User);
    house.ok(&["run", "-d", "--name", "lives", "bb", "sleep", "1000"]);
    house.ok(&["run", "--name", "ended", "bb", "dd", "if=/dev/zero", "of=/tmp/x", "bs=1k", "count=100"]);
    house.ok(&["create", "--name", "kept", "--label", "keep=1", "bb", "true"]);
    let said = house.ok(&["container", "prune", "-f", "--filter", "status=exited"]);
    assert!(said.starts_with("Deleted Containers:\n") && said.ends_with("Total reclaimed space: 102kB"), "{said}");
    assert_eq!(house.ok(&["container", "ls", "-a", "--format", "{{.Names}}"]), "kept\nlives");
    house.ok(&["container", "prune", "-f"]);
    assert_eq!(house.ok(&["ps", "-a", "--format", "{{.Names}}"]), "lives");
    house.ok(&["rm", "-f", "lives"]);
    house.assert_empty();
}

#[test]
fn health_is_seen_by_a_command() {
    for who in [Who::Root, Who::User] {
        let house = House::new(who);
        let check = ["--health-cmd", "cat /tmp/well", "--health-interval", "200ms", "--health-retries", "2"];
        let words =
            [&["run", "-d", "--name", "c"], &check[..], &["bb", "sh", "-c", "echo fine > /tmp/well; sleep 1000"]];
        house.ok(&words.concat());
        house.eventually("it is well", || house.inspect("c", ".State.Health.Status") == "healthy");
        assert!(house.ok(&["ps", "--format", "{{.Status}}"]).ends_with("(healthy)"));
        assert_eq!(house.ok(&["ps", "--filter", "health=healthy", "--format", "{{.Names}}"]), "c");
        assert!(house.inspect("c", "json .State.Health.Log").contains(r#""Output":"fine\n""#));
        house.ok(&["exec", "c", "rm", "/tmp/well"]);
        house.eventually("it is not", || house.inspect("c", ".State.Health.Status") == "unhealthy");
        house.ok(&["rm", "-f", "c"]);
        let words = ["events", "--since", "1h", "--until", "0s", "--filter", "container=c", "--format", "{{.Action}}"];
        let said = house.ok(&words);
        assert!(said.contains("health_status: healthy\nhealth_status: unhealthy"), "{said}");
        house.assert_empty();
    }
}

#[test]
fn who_serves_the_image_has_what_that_takes_and_nothing_else() {
    for who in EVERYBODY {
        let house = House::new(who);
        house.ok(&["run", "-d", "--name", "c", "bb", "sleep", "1000"]);
        let monitor = house.inspect("c", ".State.MonitorPid");
        let of = |thread: &str, field: &str| {
            let found = sh(&format!(
                "cd /proc/{monitor}/task; for t in $(grep -l '{thread}' */comm); do grep '^{field}:' ${{t%comm}}status; done | \
                 sort -u"
            ));
            found.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(of("fuser", "NoNewPrivs"), ["1"], "{who:?}");
        let capabilities = |thread: &str| match of(thread, "CapPrm").as_slice() {
            [one] => u64::from_str_radix(one, 16).unwrap(),
            other => panic!("{thread} of {who:?}: {other:?}"),
        };
        // CAP_DAC_OVERRIDE, CAP_SYS_ADMIN; CAP_NET_ADMIN, CAP_SYS_MODULE, CAP_SYS_PTRACE.
        let (taken, left) = (1 << 1 | 1 << 21, 1 << 12 | 1 << 16 | 1 << 19);
        assert_eq!(capabilities("fuser") & (taken | left), taken, "{who:?}");
        assert_ne!(capabilities("lamel-monitor") & left, 0, "{who:?}");
        house.ok(&["rm", "-f", "c"]);
    }
}
