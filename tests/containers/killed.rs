//! Whoever is killed, whenever: nothing runs or stays mounted, it is told as it is, and it can be cleaned.

use std::time::Duration;

use super::house::*;

#[test]
fn a_killed_monitor_takes_everything_along() {
    for who in EVERYBODY {
        for init in [false, true] {
            let house = House::new(who);
            let options: &[&str] = if init { &["--init"] } else { &[] };
            house.ok(&[
                &["run", "-d", "--name", "c"],
                options,
                &["bb", "sh", "-c", "echo x > /tmp/kept; setsid sleep 77123 & sleep 77123"],
            ]
            .concat());
            let pid = house.inspect("c", ".State.Pid");
            std::thread::sleep(Duration::from_millis(200));
            sh(&format!("kill -9 {}", house.inspect("c", ".State.MonitorPid")));
            house.eventually("nothing runs", || {
                sh(&format!("test -d /proc/{pid} && ! grep -q 'State:.Z' /proc/{pid}/status && echo runs || true"))
                    .is_empty()
            });
            // The kernel takes the monitor apart in its own order: the lock may go after the container.
            house.eventually("it has ended", || house.state("c") == "exited 137");
            assert!(house.fails(1, &["kill", "c"]).contains("is not running"));
            assert_eq!(house.ok(&["stop", "c"]), "c");
            // It starts again over what it wrote.
            house.ok(&["start", "c"]);
            assert_eq!(house.state("c"), "running 0");
            sh(&format!("kill -9 {}", house.inspect("c", ".State.MonitorPid")));
            house.eventually("it has ended", || house.state("c") == "exited 137");
            assert_eq!(house.ok(&["rm", "c"]), "c");
            house.assert_empty();
        }
    }
}

#[test]
fn a_killed_create_leaves_nothing() {
    let house = House::new(Who::Root);
    for step in 0..60 {
        let mut child = house.spawn(&["create", "--name", "x", "bb", "true"]);
        std::thread::sleep(Duration::from_micros(step * 700));
        child.kill().unwrap();
        child.wait().unwrap();
        // Whether it was made or not: then it is whole.
        let state = house.state("x");
        assert!(["", "created 0"].contains(&state.as_str()), "{state}");
        if !state.is_empty() {
            house.ok(&["rm", "x"]);
        }
    }
    // The next one takes the rubbish away.
    house.ok(&["create", "--name", "x", "bb", "true"]);
    house.ok(&["rm", "x"]);
    house.assert_empty();
}

#[test]
fn a_killed_run_leaves_a_whole_container_or_none() {
    for who in [Who::Root, Who::User] {
        let house = House::new(who);
        for step in 0..40 {
            let mut child = house.spawn(&["run", "--name", "x", "bb", "sleep", "1000"]);
            std::thread::sleep(Duration::from_micros(step * 2500));
            child.kill().unwrap();
            child.wait().unwrap();
            house.ok(&["rm", "-f", "x"]);
        }
        house.ok(&["create", "--name", "x", "bb", "true"]);
        house.ok(&["rm", "x"]);
        house.assert_empty();
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let house = House::new(Who::Root);
    let small = house.ground.scratch.dir("small");
    sh(&format!("mount -t tmpfs -o size=12m small {}", small.display()));
    let root = small.join("store");
    let lamel = |words: &[&str]| house.lamel(&[&[words[0], "--root", root.to_str().unwrap()], &words[1..]].concat());
    assert!(lamel(&["import", "bb.tar", "bb"]).success());
    assert!(
        lamel(&[
            "run",
            "--name",
            "writes",
            "bb",
            "sh",
            "-c",
            "dd if=/dev/zero of=/x bs=1M 2> /dev/null; ls -l /x > /dev/null"
        ])
        .success()
    );
    sh(&format!("dd if=/dev/zero of={}/fill bs=4k 2> /dev/null || true", small.display()));
    let out = lamel(&["run", "--name", "second", "bb", "true"]);
    assert!(out.status.code() == Some(125) && out.stderr.contains("No space left on device"), "{}", out.stderr);
    let names = lamel(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]).stdout;
    assert_eq!(names, "writes exited\n");
    sh(&format!("rm {}/fill", small.display()));
    assert!(lamel(&["rm", "writes"]).success());
    assert!(lamel(&["run", "--rm", "bb", "true"]).success());
    // The last of it goes when nobody waits any more.
    house.eventually("nothing is left", || sh(&format!("ls -A {}/containers", root.display())) == "lock\nnames");
    sh(&format!("umount {}", small.display()));
}
