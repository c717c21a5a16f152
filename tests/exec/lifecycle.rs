//! However a command, its client or its container ends, nothing stays.

use std::process::Stdio;
use std::time::Duration;

use super::kit::*;
use super::running::*;

/// A command that sleeps, and the client that waits for it.
fn sleeping(running: &Running, options: &[&str], word: &str) -> std::process::Child {
    let script = format!("sleep 4{word} & exec sleep 3{word}");
    let mut command = running.command(options, &["sh", "-c", &script]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("it sleeps", || processes(&format!("sleep 3{word}")) == 1);
    child
}

#[test]
fn kill_9_of_the_client_ends_the_command_and_not_the_container() {
    for (who, word) in EVERYBODY.into_iter().zip(["5510", "5520", "5530"]) {
        for options in [&[][..], &["-t"]] {
            let running = Running::start(who, &[]);
            let mut client = sleeping(&running, options, word);
            client.kill().unwrap();
            client.wait().unwrap();
            eventually("the command has ended", || processes(&format!("sleep 3{word}")) == 0);
            assert_eq!(running.exec(&[], "cat /proc/1/comm"), "sleep", "{who:?}");
            // What it had started is the container's, and goes with it.
            drop(running);
            assert_eq!(processes(&format!("sleep 4{word}")), 0, "{who:?}");
        }
    }
}

#[test]
fn signals_of_the_client_s_reach_the_command() {
    for who in EVERYBODY {
        let running = Running::start(who, &[]);
        let script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
        let mut client =
            running.command(&[], &["sh", "-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = std::io::BufReader::new(client.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        sh(&format!("kill -TERM {}", client.id()));
        let status = client.wait().unwrap();
        std::io::Read::read_to_string(&mut out, &mut line).unwrap();
        assert_eq!((status.code(), line.as_str()), (Some(3), "ready\ngot it\n"), "{who:?}");
    }
}

#[test]
fn the_end_of_the_container_is_the_end_of_its_commands() {
    for (who, word) in EVERYBODY.into_iter().zip(["6610", "6620", "6630"]) {
        let running = Running::start(who, &[]);
        let mut client = sleeping(&running, &[], word);
        running.told("kill", &["c"]);
        assert_eq!(client.wait().unwrap().code(), Some(137), "{who:?}");
        // The monitor too, by force.
        running.told("wait", &["c"]);
        running.told("start", &["c"]);
        let mut client = sleeping(&running, &[], word);
        sh(&format!("kill -9 {}", running.state("monitor")));
        assert_eq!(client.wait().unwrap().code(), Some(137), "{who:?}");
        eventually("nothing runs", || processes(&format!("sleep 3{word}")) + processes(&format!("sleep 4{word}")) == 0);
        running.refused(&[], 1, "is not running");
    }
}

#[test]
fn twenty_at_once() {
    for who in EVERYBODY {
        let running = Running::start(who, &[]);
        let clients: Vec<_> = (0..20)
            .map(|n| {
                let mut command = running.command(&[], &["sh", "-c", &format!("sleep 0.1; exit {n}")]);
                command.stdin(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for (n, mut client) in clients.into_iter().enumerate() {
            assert_eq!(client.wait().unwrap().code(), i32::try_from(n).ok());
        }
        // Besides the first process and the one that counts nobody is there.
        assert_eq!(running.exec(&[], "set -- /proc/[0-9]*; echo $#"), "2", "{who:?}");
    }
}

/// A command that is not there yet when its client dies is never run.
#[test]
fn a_client_that_dies_on_the_way_leaves_nobody_half_inside() {
    let running = Running::start(Who::User, &[]);
    for n in 0..30 {
        let mut command = running.command(&[], &["sleep", "77770"]);
        let mut client = command.stdin(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(n));
        client.kill().unwrap();
        client.wait().unwrap();
    }
    eventually("nobody is left", || running.exec(&[], "set -- /proc/[0-9]*; echo $#") == "2");
    assert_eq!(processes("sleep 77770"), 0);
}
