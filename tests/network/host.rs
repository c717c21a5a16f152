//! A host for a test: the test's thread, and what it starts, is in a network namespace of its own, which an uplink leads
//! out of, to another one. When the last process in them ends, the kernel takes everything in them away.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::kit::*;

/// The host's address on its uplink, and that of what is outside.
pub(crate) const HOST: &str = "198.51.100.2";
pub(crate) const OUTSIDE: &str = "198.51.100.1";

/// What serves `/etc/hostname` at a port and tells who asked.
pub(crate) const HTTPD: &str = "exec httpd -f -vv -p 80 -h /etc";

/// A host, with a container's root directory and a store.
pub(crate) struct Host {
    pub(crate) ground: Ground,
    /// `--network` of its containers.
    pub(crate) mode: &'static str,
    outside: Child,
    servers: Vec<Child>,
}

#[track_caller]
pub(crate) fn eventually(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "still not so: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Host {
    pub(crate) fn new(who: Who, mode: &'static str) -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let ground = Ground::new(who);
        let outside = Command::new("unshare").args(["-n", "sleep", "600"]).spawn().unwrap();
        let host = Self { ground, mode, outside, servers: Vec::new() };
        let pid = host.outside.id();
        eventually("there is something outside", || {
            sh(&format!("readlink /proc/{pid}/ns/net")) != sh("readlink /proc/self/ns/net")
        });
        sh(&format!(
            "ip link set lo up; ip link add up0 type veth peer name out0; ip link set out0 netns {pid}
             ip addr add {HOST}/24 dev up0; ip link set up0 up
             nsenter -t {pid} -n sh -c 'ip addr add {OUTSIDE}/24 dev out0; ip link set out0 up; ip link set lo up'
             ip route add default via {OUTSIDE}"
        ));
        host
    }

    /// Any command of lamel's.
    pub(crate) fn try_lamel(&self, words: &[&str]) -> Outcome {
        spawn_captured(self.ground.lamel(words), TIMEOUT)
    }

    /// One that succeeds; what it printed.
    #[track_caller]
    pub(crate) fn lamel(&self, words: &[&str]) -> String {
        let out = self.try_lamel(words);
        assert!(out.success(), "lamel {words:?}: {}\n{}{}", out.status, out.stdout, out.stderr);
        out.stdout.trim_end().to_owned()
    }

    /// Runs a script in a container to its end.
    pub(crate) fn try_run(&self, options: &[&str], script: &str) -> Outcome {
        self.ground.try_run(&[&["--network", self.mode], options].concat(), &["sh", "-c", script])
    }

    /// The same, with success; what it printed.
    #[track_caller]
    pub(crate) fn run(&self, options: &[&str], script: &str) -> String {
        self.ground.run(&[&["--network", self.mode], options].concat(), script)
    }

    /// Starts a container that goes on.
    #[track_caller]
    pub(crate) fn start(&self, name: &str, options: &[&str], script: &str) {
        let root = self.ground.root();
        let first = ["run", "-d", "--name", name, "--hostname", name, "--network", self.mode, "--rootfs"];
        let words = [&first, &[root.to_str().unwrap()][..], options, &["sh", "-c", script]].concat();
        self.lamel(&words);
    }

    /// A member of a container's `inspect`.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str, member: &str) -> String {
        self.lamel(&["inspect", "--format", &format!("{{{{{member}}}}}"), name])
    }

    /// Runs a script of the host's in a container's network namespace.
    #[track_caller]
    pub(crate) fn inside(&self, name: &str, script: &str) -> String {
        sh(&format!("nsenter -t {} -n {script}", self.inspect(name, ".State.Pid")))
    }

    /// What is outside runs a script.
    #[track_caller]
    pub(crate) fn outside(&self, script: &str) -> String {
        sh(&format!("nsenter -t {} -n {script}", self.outside.id()))
    }

    /// What a container has as /etc/hosts.
    #[track_caller]
    pub(crate) fn hosts(&self, name: &str) -> String {
        let store = self.ground.scratch.join("store/containers").display().to_string();
        sh(&format!("cat {store}/{}/hosts", self.inspect(name, ".Id")))
    }

    /// Kills a container's monitor.
    #[track_caller]
    pub(crate) fn kill_monitor(&self, name: &str) {
        let monitor = sh(&format!("cut -d' ' -f4 /proc/{}/stat", self.inspect(name, ".State.Pid")));
        sh(&format!("kill -9 {monitor}"));
        eventually("it is dead", || sh(&format!("cat /proc/{monitor}/cmdline 2> /dev/null | wc -c || true")) == "0");
    }

    /// Serves a directory at an address of the host until the test ends.
    #[track_caller]
    pub(crate) fn serve(&mut self, address: &str, directory: &str) {
        self.serve_by(Command::new("busybox"), address, directory);
        let port = address.rsplit(':').next().unwrap();
        eventually("it serves", || !sh(&format!("ss -ltnH sport = :{port}")).is_empty());
    }

    /// The same outside.
    #[track_caller]
    pub(crate) fn serve_outside(&mut self, address: &str, directory: &str) {
        let pid = self.outside.id();
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid.to_string(), "-n", "busybox"]);
        self.serve_by(command, address, directory);
        eventually("it serves", || !self.outside("ss -ltnH").is_empty());
    }

    /// Whoever asks is written into `log-ADDRESS` beside the store.
    fn serve_by(&mut self, mut command: Command, address: &str, directory: &str) {
        let log = std::fs::File::create(self.ground.scratch.join(format!("log-{address}"))).unwrap();
        command.args(["httpd", "-f", "-vv", "-p", address, "-h", directory]);
        self.servers.push(command.stdout(std::process::Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// What a URL leads to, from the host; `None` if there is nothing.
    pub(crate) fn fetch(&self, url: &str) -> Option<String> {
        let text = sh(&format!("timeout 3 busybox wget -q -O - http://{url} 2> /dev/null || true"));
        Some(text).filter(|text| !text.is_empty())
    }

    /// The same from outside.
    pub(crate) fn fetch_from_outside(&self, url: &str) -> Option<String> {
        let text = self.outside(&format!("timeout 3 busybox wget -q -O - http://{url} 2> /dev/null || true"));
        Some(text).filter(|text| !text.is_empty())
    }

    /// Asserts that nothing is left of the network of any container, but for what a single command takes away.
    #[track_caller]
    pub(crate) fn is_clean(&self) {
        let links = sh("ip -br link | cut -d' ' -f1 | tr '\\n' ' '");
        assert!(!links.contains("lamel") && !links.contains("veth"), "{links}");
        assert_eq!(sh("nft list ruleset"), "");
        let pool = std::fs::read_to_string(self.ground.scratch.join("store/networks/bridge.json")).unwrap_or_default();
        assert!(pool.is_empty() || pool.contains("\"leases\": []"), "{pool}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let all = self.try_lamel(&["ps", "-aq"]).stdout;
        for id in all.lines() {
            self.try_lamel(&["rm", "-f", id]);
        }
        for child in self.servers.iter_mut().chain([&mut self.outside]) {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
