//! Standard input and output: nothing is lost, and whoever has seen enough is believed.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use super::house::*;

#[test]
fn a_lot_goes_in_and_comes_out() {
    for who in EVERYBODY {
        let house = House::new(who);
        let mut command = house.command(&["run", "--rm", "-i", "bb", "cat"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let data: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let (mut stdin, sent) = (child.stdin.take().unwrap(), data.clone());
        let feeder = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
        let mut got = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut got).unwrap();
        feeder.join().unwrap();
        assert!(child.wait().unwrap().success());
        assert!(got == data, "{who:?}: {} of {} bytes", got.len(), data.len());
    }
}

#[test]
fn output_and_errors_are_two() {
    let house = House::new(Who::User);
    let out = house.lamel(&["run", "--rm", "bb", "sh", "-c", "echo out; echo err >&2; echo again > /dev/stdout"]);
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\nagain\n", "err\n"));
    let out = house.lamel(&["run", "--rm", "-u", "me", "bb", "sh", "-c", "echo out > /dev/stdout"]);
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\n", ""));
}

#[test]
fn who_has_seen_enough_ends_it() {
    let house = House::new(Who::Root);
    let line = house.command(&["run", "--rm", "--log-driver", "none", "bb", "yes"]);
    let words: Vec<&str> =
        std::iter::once(line.get_program()).chain(line.get_args()).map(|w| w.to_str().unwrap()).collect();
    assert_eq!(sh(&format!("set +o pipefail; timeout 20 {} | head -n 2", words.join(" "))), "y\ny");
    house.eventually("it has ended", || house.ok(&["ps", "-aq"]).is_empty());
    house.assert_empty();
}

#[test]
fn a_slow_reader_loses_nothing() {
    let house = House::new(Who::User);
    let mut command = house.command(&["run", "--rm", "bb", "sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let mut got = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(got.len(), 5_000_000);
}

#[test]
fn a_stay_passes_signals_on_and_ends_with_the_container() {
    let house = House::new(Who::User);
    let script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    house.ok(&["run", "-d", "--name", "c", "bb", "sh", "-c", script]);
    house.eventually("it is ready", || house.ok(&["logs", "c"]) == "ready");
    let mut command = house.command(&["attach", "c"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    sh(&format!("kill -TERM {}", child.id()));
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(3), &b"got it\n"[..]));
    assert!(house.fails(1, &["attach", "c"]).contains("stopped container"));
    // A command that is killed leaves the container as it is.
    house.ok(&["start", "c"]);
    let mut command = house.command(&["attach", "--sig-proxy=false", "c"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    sh(&format!("kill -TERM {}", child.id()));
    child.wait().unwrap();
    assert_eq!(house.state("c"), "running 0");
    house.ok(&["rm", "-f", "c"]);
}

#[test]
fn two_see_the_same() {
    let house = House::new(Who::Root);
    house.ok(&["run", "-d", "-i", "--name", "c", "bb", "cat"]);
    let attach = |stdin: Stdio| house.command(&["attach", "c"]).stdin(stdin).stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = house.command(&["attach", "--no-stdin", "c"]);
    let reader = reader.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let mut writer = attach(Stdio::piped());
    writer.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    assert_eq!(writer.wait_with_output().unwrap().stdout, b"hello\n");
    assert_eq!(reader.wait_with_output().unwrap().stdout, b"hello\n");
    assert_eq!(house.ok(&["logs", "c"]), "hello");
}
