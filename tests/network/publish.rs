//! Published ports of the bridge.

use super::host::*;
use super::kit::*;

/// An echo server for datagrams, which puts the sender's address before what it got.
const ECHO: &str = "python3 -c \"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 5000))
for _ in range(3):
    data, peer = s.recvfrom(100)
    s.sendto(peer[0].encode() + b' ' + data, peer)
\" > /dev/null 2>&1 &";

/// Asks, always from the same port.
fn ask(to: &str) -> String {
    format!(
        "python3 -c \"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.bind(('0.0.0.0', 6001))
s.sendto(b'hello', ('{to}', 5001))
print(s.recv(100).decode())
\""
    )
}

#[test]
fn ports_lead_to_containers_from_everywhere() {
    let host = Host::new(Who::Root, "bridge");
    host.start("web", &["-p", "8080:80", "-p", &format!("{HOST}:8081:80"), "-p", "127.0.0.1:8082:80"], HTTPD);
    let web = Some("web");
    eventually("it serves", || host.fetch("127.0.0.1:8080/hostname").as_deref() == web);
    assert_eq!(host.fetch(&format!("{HOST}:8080/hostname")).as_deref(), web);
    assert_eq!(host.fetch_from_outside(&format!("{HOST}:8080/hostname")).as_deref(), web);
    assert_eq!(host.fetch(&format!("{HOST}:8081/hostname")).as_deref(), web);
    assert_eq!(host.fetch("127.0.0.1:8081/hostname"), None);
    assert_eq!(host.fetch("127.0.0.1:8082/hostname").as_deref(), web);
    assert_eq!(host.fetch(&format!("{HOST}:8082/hostname")), None);
    // From a container, this one too.
    assert_eq!(host.run(&[], &format!("timeout 3 wget -q -O - http://{HOST}:8080/hostname")), "web");
    assert_eq!(host.inside("web", &format!("timeout 3 busybox wget -q -O - http://{HOST}:8080/hostname")), "web");
    // Whoever asked, asked under his own name, or the host's; nobody as the container's own loopback.
    let log = host.try_lamel(&["logs", "web"]);
    let log = format!("{}{}", log.stdout, log.stderr);
    assert!(log.contains(&format!("[::ffff:{OUTSIDE}]")) && log.contains("[::ffff:10.88.0.1]"), "{log}");
    assert!(!log.contains("127.0.0.1"), "{log}");
    let ports = host.lamel(&["port", "web"]);
    let mut lines: Vec<&str> = ports.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["80/tcp -> 0.0.0.0:8080", "80/tcp -> 127.0.0.1:8082", "80/tcp -> 198.51.100.2:8081"]);
    // Of its own it ends, and the ports are free again.
    host.lamel(&["stop", "-t", "0", "web"]);
    assert_eq!(host.fetch("127.0.0.1:8080/hostname"), None);
    host.is_clean();
    host.lamel(&["start", "web"]);
    eventually("it serves again", || host.fetch("127.0.0.1:8080/hostname").as_deref() == web);
}

#[test]
fn datagrams_come_and_go() {
    let host = Host::new(Who::Root, "bridge");
    host.start("echo", &["-p", "5001:5000/udp"], "sleep 600");
    host.inside("echo", ECHO);
    eventually("it listens", || host.inside("echo", "ss -lun").contains(":5000"));
    assert_eq!(sh(&ask("127.0.0.1")), "10.88.0.1 hello");
    assert_eq!(sh(&ask(HOST)), format!("{HOST} hello"));
    assert_eq!(host.outside(&ask(HOST)), format!("{OUTSIDE} hello"));
    assert_eq!(host.lamel(&["port", "echo"]), "5000/udp -> 0.0.0.0:5001");
    // Another container at the same port gets what comes next, also of who goes on from before.
    host.lamel(&["rm", "-f", "echo"]);
    sh(&format!("{} 2> /dev/null || true", ask(HOST)));
    host.outside(&format!("{} 2> /dev/null || true", ask(HOST)));
    host.start("other", &["-p", "5001:5000/udp"], "sleep 600");
    host.inside("other", ECHO);
    eventually("it listens", || host.inside("other", "ss -lun").contains(":5000"));
    assert_eq!(host.outside(&ask(HOST)), format!("{OUTSIDE} hello"));
    assert_eq!(sh(&ask(HOST)), format!("{HOST} hello"));
}

#[test]
fn a_port_is_published_once() {
    let mut host = Host::new(Who::Root, "bridge");
    host.start("web", &["-p", "8080:80"], HTTPD);
    for (option, port) in [("8080:80", "0.0.0.0:8080"), ("127.0.0.1:8080:81", "127.0.0.1:8080")] {
        let out = host.try_run(&["-p", option], "true");
        assert_eq!(out.status.code(), Some(125));
        assert!(out.stderr.contains(&format!("Bind for {port} failed: port is already allocated")), "{}", out.stderr);
    }
    // Twice by one container.
    let error = host.try_run(&["-p", "8090:80", "-p", "8090:81"], "true").stderr;
    assert!(error.contains("Bind for 0.0.0.0:8090 failed: port is already allocated"), "{error}");
    // By another program, which gets none of ours either.
    host.serve("9001", "/etc");
    let error = host.try_run(&["-p", "9001:80"], "true").stderr;
    assert!(error.contains("failed to bind host port for 0.0.0.0:9001/tcp: address already in use"), "{error}");
    assert!(sh("timeout 1 busybox httpd -f -p 8080 -h /etc 2>&1 || true").contains("in use"));
    // The other protocol's ports are others, and so are others of a range.
    host.run(&["-p", "8080:80/udp"], "true");
    host.start("range", &["-p", "8080-8082:80", "-p", "80", "--expose", "81"], HTTPD);
    let ports = host.lamel(&["port", "range"]);
    assert!(
        ports.contains("80/tcp -> 0.0.0.0:8081") && ports.lines().count() == 2 && !ports.contains("81/tcp"),
        "{ports}"
    );
    host.start("all", &["-P", "--expose", "80", "--expose", "81/udp"], HTTPD);
    let port = host.lamel(&["port", "all", "80"]);
    let url = format!("{}/hostname", port.replace("0.0.0.0", "127.0.0.1"));
    eventually("it serves", || host.fetch(&url).as_deref() == Some("all"));
    assert_eq!(host.lamel(&["port", "all"]).lines().count(), 2);
}
