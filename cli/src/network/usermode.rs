//! Networks of plain users: pasta(1) or slirp4netns(1) carries a container's packets through sockets of the user's.
//!
//! Both give the container the same addresses, so that it is the same to the container which of them is there.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use lamel_isolate::Created;
use lamel_isolate::net::{Helper, Mac};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::files::Files;
use super::publish::{self, Port, Protocol};
use super::{Endpoint, Member, Request};

/// Of the container.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
const PREFIX: u8 = 24;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Where the program answers questions of names, by asking as the host does.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The interface in the container.
const INSIDE: &str = "eth0";
const MTU: &str = "65520";
/// How long the programs may take to be ready; they take milliseconds.
const TIMEOUT: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// Bytes of what they say that are read.
const MAX_SAID: u64 = 64 * 1024;
const API_SOCKET: &str = "slirp.sock";

/// A container whose packets a program carries, as long as this is not dropped.
#[derive(Debug)]
pub(super) struct Carried {
    ports: Vec<Port>,
    /// If it was asked for.
    mac: Option<Mac>,
    /// slirp4netns ends when this is closed, by whatever ends this process.
    _exit: Option<OwnedFd>,
    _helper: Helper,
}

impl Carried {
    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint { address: ADDRESS, prefix: PREFIX, gateway: GATEWAY, mac: self.mac }
    }

    pub(super) fn ports(&self) -> &[Port] {
        &self.ports
    }
}

/// What the pasta here can do.
#[derive(Debug)]
struct Features {
    help: String,
}

impl Features {
    fn ask() -> Self {
        let out = Command::new("pasta").arg("--help").stdin(Stdio::null()).output();
        let help = out.map(|out| {
            let bytes = [out.stdout, out.stderr].concat();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Self { help: help.unwrap_or_default() }
    }

    fn has(&self, option: &str) -> bool {
        self.help.contains(option)
    }

    /// Older ones hand connections from the host's loopback address on as the container's own loopback connections.
    fn tells_who_calls(&self) -> bool {
        self.has("--host-lo-to-ns-lo")
    }
}

/// Whether the pasta here shows who calls a published port.
pub(super) fn pasta_tells_who_calls() -> bool {
    Features::ask().tells_who_calls()
}

/// How the namespaces of a container are named to a program that is to enter them.
struct Target {
    network: String,
    /// None if this process is in the same one.
    user: Option<String>,
}

impl Target {
    fn of(created: &Created) -> Result<Self> {
        let inode = |path: &Path| fs::metadata(path).map(|meta| meta.ino()).with_context(|| path.display().to_string());
        let user = created.namespace("user");
        let other = inode(&user)? != inode(Path::new("/proc/self/ns/user"))?;
        Ok(Self {
            network: created.namespace("net").display().to_string(),
            user: other.then(|| user.display().to_string()),
        })
    }
}

/// Starts pasta for a container, whose first process waits for that.
pub(super) fn pasta(request: &Request, member: &Member<'_>, created: &Created) -> Result<Carried> {
    // Tried here for the sake of the message; between here and there somebody else may still take one.
    let ports = publish::hold(&request.wishes, &[])?.release();
    let features = Features::ask();
    let target = Target::of(created)?;
    let log = member.directory.join("pasta.log");
    let mut command = Command::new("pasta");
    command.args(["--quiet", "--foreground", "--config-net", "--no-map-gw"]);
    if features.has("--stderr") {
        command.arg("--stderr");
    }
    command.args([
        "--address",
        &ADDRESS.to_string(),
        "--netmask",
        &PREFIX.to_string(),
        "--gateway",
        &GATEWAY.to_string(),
    ]);
    command.args(["--dns-forward", &RESOLVER.to_string(), "--ns-ifname", INSIDE]);
    if let Some(mac) = request.mac()? {
        command.args(["--ns-mac-addr", &mac.to_string()]);
    }
    command.args(["--tcp-ns", "none", "--udp-ns", "none"]);
    for (option, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
        let mut own = ports.iter().filter(|port| port.protocol == protocol).peekable();
        if own.peek().is_none() {
            command.args([option, "none"]);
        }
        for port in own {
            let at = if port.address.is_unspecified() { String::new() } else { format!("{}/", port.address) };
            command.args([option, &format!("{at}{}:{}", port.host, port.container)]);
        }
    }
    match &target.user {
        Some(user) => command.args(["--userns", user]),
        None => command.arg("--netns-only"),
    };
    command.args(["--netns", &target.network]);
    // It writes its process id when it is ready.
    command.args(["--pid", "/dev/stdout"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(create(&log)?).current_dir("/");
    let mut helper = Helper::spawn(&mut command, None).context("pasta")?;
    // Its own end of the pipe is the only one.
    drop(command);
    let output = helper.take_output().context("no standard output")?;
    await_ready("pasta", File::from(OwnedFd::from(output)), &log)?;
    connected(request, member)?;
    Ok(Carried { ports, mac: request.mac()?, _exit: None, _helper: helper })
}

/// Starts slirp4netns for a container, whose first process waits for that.
pub(super) fn slirp4netns(request: &Request, member: &Member<'_>, created: &Created) -> Result<Carried> {
    let ports = publish::hold(&request.wishes, &[])?.release();
    let target = Target::of(created)?;
    let log = member.directory.join("slirp4netns.log");
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe");
    let ((exit, alive), (ready, tell)) = (pipe()?, pipe()?);
    let mut command = Command::new("slirp4netns");
    command.args(["--configure", "--mtu", MTU, "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"]);
    command.args(["--exit-fd", "0", "--ready-fd", &tell.as_raw_fd().to_string()]);
    command.args(["--api-socket", API_SOCKET]);
    if let Some(mac) = request.mac()? {
        command.args(["--macaddress", &mac.to_string()]);
    }
    // Only by a process does it go into the user namespace with all of itself, which its sandbox needs.
    match target.user {
        Some(_) => command.arg(created.pid().to_string()),
        None => command.args(["--netns-type", "path", &target.network]),
    };
    command.arg(INSIDE);
    // The socket's path would be too long for some.
    command.stdin(exit).stdout(Stdio::null()).stderr(create(&log)?).current_dir(member.directory);
    let helper = Helper::spawn(&mut command, Some(tell.as_fd())).context("slirp4netns")?;
    drop((command, tell));
    await_ready("slirp4netns", File::from(ready), &log)?;
    for port in &ports {
        forward(member.directory, port)?;
    }
    connected(request, member)?;
    Ok(Carried { ports, mac: request.mac()?, _exit: Some(alive), _helper: helper })
}

fn create(log: &Path) -> Result<File> {
    File::create(log).with_context(|| log.display().to_string())
}

fn connected(request: &Request, member: &Member<'_>) -> Result<()> {
    Files::of(member.directory).add(IpAddr::V4(ADDRESS), &member.own_names(request))
}

/// Waits for the byte by which a program says so. An end without one is a failure.
fn await_ready(program: &str, mut pipe: File, log: &Path) -> Result<()> {
    let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
    let ready = loop {
        match poll(&mut fds, Some(&TIMEOUT)) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.context("poll")?,
        }
    };
    let mut byte = [0; 16];
    if ready > 0 && pipe.read(&mut byte).is_ok_and(|len| len > 0) {
        return Ok(());
    }
    let mut said = String::new();
    File::open(log).and_then(|file| file.take(MAX_SAID).read_to_string(&mut said)).ok();
    // Where there is no system log, it complains of that first, line by line.
    let said = said.lines().rfind(|line| !line.trim().is_empty() && !line.contains("to syslog")).unwrap_or_default();
    let why = match said.trim() {
        "" if ready == 0 => "it does not become ready",
        "" => "it ended without a word",
        said => said,
    };
    bail!("{program}: {why}{}", advice())
}

/// What is most often missing.
fn advice() -> &'static str {
    match File::options().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => "",
        Err(_) => "; it needs /dev/net/tun, readable and writable for everybody (chmod 666 /dev/net/tun)",
    }
}

/// Has slirp4netns listen on a port.
fn forward(directory: &Path, port: &Port) -> Result<()> {
    let request = json!({"execute": "add_hostfwd", "arguments": {
        "proto": port.protocol.name(), "host_addr": port.address, "host_port": port.host, "guest_port": port.container,
    }});
    let answer = || -> Result<Value> {
        let place = rustix::fs::open(directory, rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, 0.into())?;
        let mut socket = UnixStream::connect(format!("/proc/self/fd/{}/{API_SOCKET}", place.as_raw_fd()))?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        socket.write_all(&serde_json::to_vec(&request)?)?;
        socket.shutdown(std::net::Shutdown::Write)?;
        let mut said = Vec::new();
        socket.take(MAX_SAID).read_to_end(&mut said)?;
        Ok(serde_json::from_slice(&said)?)
    };
    let answer = answer().context("slirp4netns")?;
    match answer.get("error") {
        None => Ok(()),
        Some(error) => {
            let why = error.get("desc").and_then(Value::as_str).unwrap_or("no word");
            Err(anyhow!("failed to bind host port for {}:{}/{}: {why}", port.address, port.host, port.protocol.name()))
        }
    }
}

/// What a request must not ask of these.
pub(super) fn check(request: &Request) -> Result<()> {
    if request.ip.is_some() {
        bail!("--ip: a plain user's container has the address {ADDRESS}; only the bridge gives others");
    }
    let low = publish::first_plain_port();
    if let Some(port) = request.wishes.iter().filter_map(publish::Wish::last).find(|port| *port < low) {
        bail!(
            "-p {port}: cannot expose privileged port {port}: a plain user's begin at {low}; choose a larger one, or \
             let the administrator set net.ipv4.ip_unprivileged_port_start={port}"
        );
    }
    Ok(())
}
