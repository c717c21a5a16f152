//! The bridge: containers among one another and with what is outside, and that it goes when nobody needs it.

use super::host::*;
use super::kit::*;

#[test]
fn containers_reach_one_another_by_address_and_by_name() {
    let host = Host::new(Who::Root, "bridge");
    host.start("web", &["--network-alias", "www"], HTTPD);
    let address = host.inspect("web", ".NetworkSettings.IPAddress");
    assert!(address.starts_with("10.88."), "{address}");
    let short = host.inspect("web", ".Id")[..12].to_owned();
    for name in [address.as_str(), "web", "www", &short] {
        assert_eq!(host.run(&[], &format!("timeout 3 wget -q -O - http://{name}/hostname")), "web", "{name}");
    }
    // Who was there first hears of the other.
    host.start("two", &[], "sleep 600");
    let two = host.inspect("two", ".NetworkSettings.IPAddress");
    assert!(host.hosts("web").contains(&format!("{two}\ttwo ")), "{}", host.hosts("web"));
    assert!(host.hosts("two").contains(&format!("{address}\tweb www {short}")), "{}", host.hosts("two"));
    host.lamel(&["rm", "-f", "two"]);
    assert!(!host.hosts("web").contains("two"), "{}", host.hosts("web"));
    host.lamel(&["rm", "-f", "web"]);
    host.is_clean();
}

#[test]
fn a_container_reaches_the_host_and_what_is_outside_under_the_host_s_address() {
    let mut host = Host::new(Who::Root, "bridge");
    let place = host.ground.scratch.path().display().to_string();
    sh(&format!("echo outside > {place}/page"));
    host.serve("9001", &place);
    host.serve_outside("9000", &place);
    let get = |url: &str| host.run(&[], &format!("timeout 3 wget -q -O - http://{url}/page"));
    assert_eq!(get(&format!("{OUTSIDE}:9000")), "outside");
    assert_eq!(get(&format!("{HOST}:9001")), "outside");
    let gateway = host.run(&[], "ip route | grep default | cut -d' ' -f3");
    assert_eq!(get(&format!("{gateway}:9001")), "outside");
    let log = sh(&format!("cat {place}/log-9000"));
    assert!(log.contains(&format!("[::ffff:{HOST}]")) && !log.contains("10.88"), "{log}");
}

#[test]
fn nothing_comes_in_but_by_published_ports() {
    let mut host = Host::new(Who::Root, "bridge");
    host.start("web", &["-p", "127.0.0.1:8080:80"], HTTPD);
    let address = host.inspect("web", ".NetworkSettings.IPAddress");
    eventually("it serves", || host.fetch("127.0.0.1:8080/hostname").as_deref() == Some("web"));
    // A neighbour that knows the way to the container, and to the host's loopback address.
    host.outside(&format!("sh -c 'ip route add 10.88.0.0/16 via {HOST}; ip route del local 127.0.0.1 table local; \
        ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via {HOST}; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet'"));
    assert_eq!(host.fetch_from_outside(&format!("{address}/hostname")), None);
    assert_eq!(host.fetch_from_outside("127.0.0.1:8080/hostname"), None);
    // Nor does a container get at what listens on the host's loopback address.
    host.serve("127.0.0.1:9001", "/etc");
    assert!(host.fetch("127.0.0.1:9001/hostname").is_some());
    let script = "ip route del local 127.0.0.1 table local; ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via \
        $(ip route | grep default | cut -d' ' -f3); timeout 2 wget -q -O - http://127.0.0.1:9001/hostname";
    let options = ["--init", "--cap-add", "NET_ADMIN", "--sysctl", "net.ipv4.conf.all.route_localnet=1"];
    let out = host.try_run(&options, script);
    assert!(!out.success() && out.stdout.is_empty(), "{}{}", out.stdout, out.stderr);
}

#[test]
fn what_a_killed_monitor_leaves_the_next_command_takes_away() {
    let host = Host::new(Who::Root, "bridge");
    host.start("web", &["-p", "8080:80"], HTTPD);
    host.start("two", &["-p", "8081:80"], HTTPD);
    eventually("both serve", || {
        host.fetch("127.0.0.1:8080/hostname").is_some() && host.fetch("127.0.0.1:8081/hostname").is_some()
    });
    host.kill_monitor("web");
    host.lamel(&["ps"]);
    // The other one stays as it is.
    assert_eq!(host.fetch("127.0.0.1:8080/hostname"), None);
    assert_eq!(host.fetch("127.0.0.1:8081/hostname").as_deref(), Some("two"));
    host.lamel(&["start", "web"]);
    eventually("it serves again", || host.fetch("127.0.0.1:8080/hostname").as_deref() == Some("web"));
    for name in ["web", "two"] {
        host.kill_monitor(name);
    }
    host.lamel(&["ps", "-a"]);
    host.is_clean();
}

#[test]
fn a_network_is_chosen_that_the_host_has_no_way_into() {
    let host = Host::new(Who::Root, "bridge");
    sh(&format!("ip route add 10.88.0.0/17 via {OUTSIDE}; ip route add 10.89.3.0/24 via {OUTSIDE}"));
    assert!(host.run(&[], "ip -4 addr show eth0").contains("inet 10.90.0."));
    let said = host.run(&["--ip", "172.25.3.4", "--mac-address", "02:42:de:ad:be:ef"], "ip addr show eth0");
    assert!(said.contains("inet 172.25.3.4/16") && said.contains("link/ether 02:42:de:ad:be:ef"), "{said}");
    host.start("one", &["--ip", "10.90.7.7"], "sleep 600");
    let error = host.try_run(&["--ip", "10.90.7.7"], "true").stderr;
    assert!(error.contains("Address already in use"), "{error}");
    let error = host.try_run(&["--ip", "172.25.3.4"], "true").stderr;
    assert!(error.contains("no address for a container in the network 10.90.0.0/16"), "{error}");
}

#[test]
fn twenty_at_once_leave_nothing() {
    let host = Host::new(Who::Root, "bridge");
    let children: Vec<_> = (0..20)
        .map(|n| {
            let port = format!("{}:80", 8000 + n);
            let script = format!("ip -4 addr show eth0 | grep -q 10.88 && exit {n}");
            let mut command = host.ground.command(&["--network", "bridge", "-p", &port], &["sh", "-c", &script]);
            command.stdin(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for (n, mut child) in children.into_iter().enumerate() {
        assert_eq!(child.wait().unwrap().code(), i32::try_from(n).ok());
    }
    host.is_clean();
}
