//! The library's check of a container's health: bounded in time and in what it keeps.

use std::time::{Duration, Instant};

use lamel_isolate::Exit;
use lamel_isolate::exec::{Checked, Options, Target, check};
use lamel_isolate::oci::{Process, Spec};

use super::kit::*;
use super::running::*;

fn run(running: &Running, script: &str, limit: Duration, most: usize) -> Checked {
    let text = std::fs::read(running.directory().join("config.json")).unwrap();
    let spec: Spec = serde_json::from_slice(&text).unwrap();
    let mut process: Process = spec.process().clone().unwrap();
    process.set_args(Some(["sh", "-c", script].map(str::to_owned).to_vec())).set_terminal(Some(false));
    let target = Target::find(running.state("pid").try_into().unwrap(), Some(running.state("pid_started"))).unwrap();
    check(&target, &spec, &process, Options::new("check".to_owned()), limit, most).unwrap()
}

#[test]
fn a_check_tells_how_it_ended_and_what_it_wrote() {
    let running = Running::start(Who::Root, &[]);
    let long = Duration::from_secs(20);
    let checked = run(&running, "echo out; echo err >&2; exit 3", long, 100);
    assert_eq!(checked, Checked { exit: Some(Exit::Status(3)), output: "out\nerr\n".to_owned() });
    // No more is kept than asked for, and it ends all the same.
    let checked = run(&running, "head -c 1000000 /dev/zero | tr '\\0' x", long, 10);
    assert_eq!(checked, Checked { exit: Some(Exit::Status(0)), output: "xxxxxxxxxx".to_owned() });
    // Who stays behind with its output open is not waited for.
    let started = Instant::now();
    let checked = run(&running, "sleep 88880 & echo done", long, 100);
    assert_eq!((checked.exit, checked.output.as_str()), (Some(Exit::Status(0)), "done\n"));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(run(&running, "cat; echo end of input", long, 100).output, "end of input\n");
}

#[test]
fn a_check_that_takes_too_long_is_ended() {
    // What is left behind by it is reaped by the init.
    let running = Running::start(Who::Root, &["--init"]);
    let started = Instant::now();
    let checked =
        run(&running, "trap '' TERM INT; echo begun; while :; do sleep 0.05; done", Duration::from_millis(500), 100);
    assert_eq!(checked, Checked { exit: None, output: "begun\n".to_owned() });
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(
        run(&running, "yes", Duration::from_millis(200), 4),
        Checked { exit: None, output: "y\ny\n".to_owned() }
    );
    eventually("nobody is left", || running.exec(&[], "set -- /proc/[0-9]*; echo $#") == "3");
}

#[test]
fn a_container_s_own_check_is_run_on_request() {
    for who in EVERYBODY {
        let options = ["--health-cmd", "test -e /tmp/well || { echo not well; exit 1; }", "--health-timeout", "10s"];
        let running = Running::start(who, &options);
        let run = || {
            let line = running.lamel("healthcheck", &[]);
            let mut command = std::process::Command::new(line.get_program());
            let words: Vec<_> = line.get_args().collect();
            // `healthcheck run --root STORE c`
            let at = words.iter().position(|word| *word == "healthcheck").unwrap();
            command.args(&words[..=at]).arg("run").args(&words[at + 1..]).arg("c");
            spawn_captured(command, Duration::from_secs(20))
        };
        let out = run();
        assert_eq!((out.status.code(), out.stdout.as_str()), (Some(1), "unhealthy\nnot well\n"), "{}", out.stderr);
        running.exec(&[], "touch /tmp/well");
        assert_eq!(run().status.code(), Some(0));
    }
}
