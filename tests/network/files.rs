//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`.

use super::host::*;
use super::kit::*;

#[test]
fn the_files_say_what_was_asked_for() {
    let host = Host::new(Who::Root, "bridge");
    let options = [
        "--hostname",
        "here",
        "--dns",
        "192.0.2.7",
        "--dns",
        "192.0.2.8",
        "--dns-search",
        "a.example",
        "--dns-option",
        "ndots:2",
        "--add-host",
        "db:192.0.2.9",
        "--add-host",
        "up:host-gateway",
    ];
    let said =
        host.run(&options, "cat /etc/resolv.conf /etc/hostname; hostname; grep -v -e :: -e 10.88.0.2 /etc/hosts");
    let want = "nameserver 192.0.2.7\nnameserver 192.0.2.8\nsearch a.example\noptions ndots:2\nhere\nhere\n\
                127.0.0.1\tlocalhost\n192.0.2.9\tdb\n10.88.0.1\tup";
    assert_eq!(said, want);
    for option in [["--add-host", "x"], ["--dns", "x"], ["--dns-search", "a b"], ["--mac-address", "x"], ["-p", "x"]] {
        assert_ne!(host.try_run(&option, "true").status.code(), Some(0), "{option:?}");
    }
}

#[test]
fn a_restart_writes_them_anew_and_the_container_may_change_them() {
    let host = Host::new(Who::Root, "bridge");
    let script = "echo 192.0.2.1 mine >> /etc/hosts; until test -e /tmp/more; do sleep 0.1; done
        head -c 2000000 /dev/zero > /etc/hosts; echo done > /tmp/done; exec sleep 600";
    host.start("web", &[], script);
    let hosts = |name: &str| host.hosts(name);
    eventually("the script has begun", || hosts("web").contains("mine"));
    host.start("two", &[], "sleep 600");
    assert!(hosts("web").contains("192.0.2.1 mine") && hosts("web").contains("two"), "{}", hosts("web"));
    host.lamel(&["restart", "-t", "0", "web"]);
    let address = host.inspect("web", ".NetworkSettings.IPAddress");
    eventually("it is told its own address, and of the other", || {
        let hosts = hosts("web");
        hosts.matches("\tweb").count() == 1 && hosts.contains(&address) && hosts.contains("two")
    });
    assert!(hosts("two").contains(&format!("{address}\tweb")), "{}", hosts("two"));
    // One that is no text any more, and too large, is left as it is.
    let root = host.ground.root();
    std::fs::write(root.join("tmp/more"), "").unwrap();
    eventually("it is large", || root.join("tmp/done").exists());
    host.run(&["--hostname", "three"], "grep two /etc/hosts");
    assert_eq!(hosts("web").len(), 2_000_000);
}
