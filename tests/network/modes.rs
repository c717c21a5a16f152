//! Networks that are nobody else's, and those that are somebody else's.

use super::host::*;
use super::kit::*;

#[test]
fn none_has_loopback_alone() {
    for who in EVERYBODY {
        let host = Host::new(who, "none");
        assert_eq!(
            host.run(&[], "ip -o link | wc -l; ip route | wc -l; ping -c 1 -w 2 127.0.0.1 > /dev/null && echo up"),
            "1\n0\nup"
        );
        let out = host.try_run(&["-p", "8080:80"], "true");
        assert!(out.success() && out.stderr.contains("discarded"), "{}", out.stderr);
    }
}

#[test]
fn a_container_joins_another_s_network() {
    for (who, mode) in [(Who::Root, "bridge"), (Who::User, "slirp4netns"), (Who::Alone, "none")] {
        let host = Host::new(who, mode);
        host.start("web", &[], HTTPD);
        let join = |options: &[&str], script: &str| {
            host.ground.try_run(&[&["--network", "container:web"], options].concat(), &["sh", "-c", script])
        };
        let said = "timeout 3 wget -q -O - http://127.0.0.1/hostname; hostname; ip -o link | wc -l";
        let out = join(&[], said);
        let count = if mode == "none" { 1 } else { 2 };
        assert_eq!(out.stdout, format!("web\nweb\n{count}\n"), "{who:?}: {}", out.stderr);
        for (option, word) in [
            (["-p", "80:80"], "port publishing and the container type network mode"),
            (["--hostname", "x"], "hostname and the network mode"),
            (["--dns", "192.0.2.1"], "dns and the container type network mode"),
        ] {
            let out = join(&option, "true");
            assert!(out.status.code() == Some(125) && out.stderr.contains(word), "{}", out.stderr);
        }
        host.lamel(&["stop", "-t", "0", "web"]);
        assert!(join(&[], "true").stderr.contains("cannot join network of a non running container"));
        let out = host.ground.try_run(&["--network", "container:nobody"], &["true"]);
        assert!(out.stderr.contains("No such container: nobody"), "{}", out.stderr);
    }
}

#[test]
fn a_namespace_is_joined_by_its_path() {
    let host = Host::new(Who::Root, "bridge");
    host.start("web", &[], "sleep 600");
    let path = format!("ns:/proc/{}/ns/net", host.inspect("web", ".State.Pid"));
    let address = host.inspect("web", ".NetworkSettings.IPAddress");
    assert!(host.ground.run(&["--network", &path], "ip -4 addr show eth0").contains(&address));
    let out = host.ground.try_run(&["--network", "ns:/nowhere"], &["true"]);
    assert_eq!(out.status.code(), Some(125));
}

#[test]
fn who_may_not_have_a_network_is_told_which_he_may() {
    let user = Host::new(Who::User, "bridge");
    let out = user.try_run(&[], "true");
    assert!(out.stderr.contains("--network pasta or slirp4netns"), "{}", out.stderr);
    let root = Host::new(Who::Root, "pasta");
    let out = root.try_run(&[], "true");
    assert!(out.stderr.contains("root has --network bridge"), "{}", out.stderr);
    assert!(root.ground.try_run(&["--network", "nowhere"], &["true"]).stderr.contains("network nowhere not found"));
}
