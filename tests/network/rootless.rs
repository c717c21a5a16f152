//! Plain users: pasta and slirp4netns carry their containers' packets.

use super::host::*;
use super::kit::*;

const CARRIERS: [(Who, &str); 4] =
    [(Who::User, "pasta"), (Who::User, "slirp4netns"), (Who::Alone, "pasta"), (Who::Alone, "slirp4netns")];

#[test]
fn ports_lead_to_a_plain_user_s_container() {
    for (who, mode) in CARRIERS {
        let host = Host::new(who, mode);
        host.start("web", &["-p", "8080:80", "-p", "127.0.0.1:8081:80"], HTTPD);
        let web = Some("web");
        eventually("it serves", || host.fetch("127.0.0.1:8080/hostname").as_deref() == web);
        assert_eq!(host.fetch("127.0.0.1:8081/hostname").as_deref(), web, "{who:?} {mode}");
        assert_eq!(host.fetch(&format!("{HOST}:8080/hostname")).as_deref(), web, "{who:?} {mode}");
        assert_eq!(host.fetch_from_outside(&format!("{HOST}:8080/hostname")).as_deref(), web, "{who:?} {mode}");
        assert_eq!(host.fetch_from_outside(&format!("{HOST}:8081/hostname")), None, "{who:?} {mode}");
        let out = host.try_run(&["-p", "8080:80"], "true");
        assert!(
            out.stderr.contains("failed to bind host port for 0.0.0.0:8080/tcp: address already in use"),
            "{}",
            out.stderr
        );
        let out = host.try_run(&["-p", "80:80"], "true");
        assert!(out.stderr.contains("cannot expose privileged port 80"), "{}", out.stderr);
        // The end of the monitor, by whatever, is the end of the program.
        host.kill_monitor("web");
        eventually("nothing listens", || sh("ss -ltnH").is_empty());
        host.lamel(&["start", "web"]);
        eventually("it serves again", || host.fetch("127.0.0.1:8080/hostname").as_deref() == web);
        host.lamel(&["rm", "-f", "web"]);
        assert_eq!(sh("ss -ltnH"), "", "{who:?} {mode}");
    }
}

#[test]
fn nobody_calls_as_the_container_s_own_loopback() {
    // Without being told which network: one is chosen that tells who calls.
    let host = Host::new(Who::User, "none");
    let root = host.ground.root();
    let mut command = Who::User.command(std::path::Path::new("env"));
    command.args(["-u", "LAMEL_NETWORK", &format!("LAMEL_ROOT={}", host.ground.scratch.join("store").display())]);
    command.arg(host.ground.bin()).args(["run", "-d", "--name", "web", "-p", "8080:80", "--rootfs"]).arg(&root);
    command.args(["sh", "-c", HTTPD]);
    let out = spawn_captured(command, TIMEOUT);
    assert!(out.success(), "{}", out.stderr);
    eventually("it serves", || host.fetch("127.0.0.1:8080/hostname").is_some());
    let log = host.try_lamel(&["logs", "web"]);
    let log = format!("{}{}", log.stdout, log.stderr);
    assert!(log.contains("[::ffff:") && !log.contains("127.0.0.1"), "{log}");
}

#[test]
fn a_plain_user_s_container_reaches_the_host_and_what_is_outside() {
    for (who, mode) in CARRIERS {
        let mut host = Host::new(who, mode);
        let place = host.ground.scratch.path().display().to_string();
        sh(&format!("echo here > {place}/page"));
        host.serve("9001", &place);
        host.serve("127.0.0.1:9002", &place);
        host.serve_outside("9000", &place);
        assert!(host.fetch("127.0.0.1:9002/page").is_some());
        let get = |url: &str| host.try_run(&["--init"], &format!("timeout 3 wget -q -O - http://{url}/page")).stdout;
        assert_eq!(get(&format!("{OUTSIDE}:9000")), "here\n", "{who:?} {mode}");
        assert_eq!(get(&format!("{HOST}:9001")), "here\n", "{who:?} {mode}");
        // The host's loopback is its own.
        for address in ["127.0.0.1", "10.0.2.2"] {
            assert_eq!(get(&format!("{address}:9002")), "", "{who:?} {mode}");
        }
    }
}
