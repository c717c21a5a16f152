//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, as files in the container's directory that are mounted.
//!
//! The container may write them. What is changed later, when other
//! containers come and go, is a block of `hosts` that is marked; the rest
//! stays as the container has it. A mounted file cannot be exchanged for
//! another by a rename, so that it is written in place.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};

use super::pool::Lease;

/// Bytes that are read of a file; a container may have made its own larger.
const MAX_FILE: u64 = 1024 * 1024;

const LOCAL: &str = "\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";
const BEGIN: &str = "# other containers of this network";
const END: &str = "# end of other containers";

/// Where systemd-resolved says which servers it asks itself.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// What docker and podman ask where the host asks itself alone.
const PUBLIC: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// The files of a container.
#[derive(Debug)]
pub(super) struct Files(PathBuf);

impl Files {
    pub(super) fn of(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// Each with its place in the container.
    pub(super) fn places(&self) -> [(PathBuf, &'static Path); 3] {
        ["hosts", "hostname", "resolv.conf"].map(|name| {
            let inside = match name {
                "hosts" => "/etc/hosts",
                "hostname" => "/etc/hostname",
                _ => "/etc/resolv.conf",
            };
            (self.0.join(name), Path::new(inside))
        })
    }

    /// Makes all of them. `owner` is the container's root, where that is another than this process's user.
    pub(super) fn write(
        &self,
        hostname: &str,
        added: &[(IpAddr, String)],
        resolver: &str,
        owner: Option<(u32, u32)>,
    ) -> Result<()> {
        let mut hosts = LOCAL.to_owned();
        for (address, name) in added {
            hosts.push_str(&format!("{address}\t{name}\n"));
        }
        for (name, text) in [("hosts", &*hosts), ("hostname", &*format!("{hostname}\n")), ("resolv.conf", resolver)] {
            let path = self.0.join(name);
            let make = || -> std::io::Result<()> {
                let mut options = OpenOptions::new();
                let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(&path)?;
                file.write_all(text.as_bytes())?;
                if let Some((uid, gid)) = owner {
                    std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
                }
                // Whatever this process's umask is, who runs inside may read it.
                file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            };
            make().with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// Tells the container an address: its own, as a rule.
    pub(super) fn add(&self, address: IpAddr, names: &[String]) -> Result<()> {
        let path = self.0.join("hosts");
        let line = format!("{address}\t{}\n", names.join(" "));
        let append = || OpenOptions::new().append(true).open(&path)?.write_all(line.as_bytes());
        append().with_context(|| path.display().to_string())
    }

    /// Tells the container of the others.
    pub(super) fn set_others(&self, own: &str, leases: &[Lease]) -> Result<()> {
        let path = self.0.join("hosts");
        let shown = || path.display().to_string();
        let mut file = OpenOptions::new().read(true).write(true).open(&path).with_context(shown)?;
        let mut text = String::new();
        (&mut file).take(MAX_FILE + 1).read_to_string(&mut text).with_context(shown)?;
        if text.len() as u64 > MAX_FILE {
            bail!("{}: larger than {MAX_FILE} bytes, left as it is", path.display());
        }
        let others = leases.iter().filter(|lease| lease.id != own);
        let lines: Vec<String> = others.map(|lease| format!("{}\t{}", lease.address, lease.names.join(" "))).collect();
        let new = with_block(&text, &lines);
        if new != text {
            file.rewind().with_context(shown)?;
            file.write_all(new.as_bytes()).with_context(shown)?;
            file.set_len(new.len() as u64).with_context(shown)?;
        }
        Ok(())
    }
}

/// The text with these lines in the marked block.
fn with_block(text: &str, lines: &[String]) -> String {
    let mut new = String::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            BEGIN => inside = true,
            END if inside => inside = false,
            _ if inside => {}
            _ => {
                new.push_str(line);
                new.push('\n');
            }
        }
    }
    if !lines.is_empty() {
        for line in std::iter::once(BEGIN).chain(lines.iter().map(String::as_str)).chain([END]) {
            new.push_str(line);
            new.push('\n');
        }
    }
    new
}

/// Whether a name may stand in a hosts file.
pub(super) fn is_host_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.len() <= 253 && name.chars().all(plain) && !name.starts_with(['-', '.'])
}

/// What is asked for of the resolver.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Resolver {
    pub(crate) servers: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
}

/// Which servers a container may ask where the host asks itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    /// The program that carries its packets hands them on.
    Forwarder(Ipv4Addr),
    Public,
}

impl Resolver {
    /// The text of a resolv.conf(5).
    pub(super) fn text(&self, fallback: Option<Fallback>) -> String {
        let read = |path: &str| {
            let mut text = String::new();
            File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)).ok();
            text
        };
        self.text_from(fallback, &read("/etc/resolv.conf"), &read(RESOLVED))
    }

    /// `fallback` is none where the container is in the host's network, or in none at all: loopback is what it is.
    fn text_from(&self, fallback: Option<Fallback>, host: &str, resolved: &str) -> String {
        let host = HostResolver::parse(host);
        let mut servers: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        if servers.is_empty() {
            servers = match fallback {
                None => host.servers.clone(),
                Some(fallback) => {
                    let outside = |servers: &[String]| -> Vec<String> {
                        servers.iter().filter(|server| !is_loopback(server)).cloned().collect()
                    };
                    let mut found = outside(&host.servers);
                    if found.is_empty() {
                        found = match fallback {
                            Fallback::Forwarder(address) => vec![address.to_string()],
                            Fallback::Public => outside(&HostResolver::parse(resolved).servers),
                        };
                    }
                    if found.is_empty() { PUBLIC.map(str::to_owned).to_vec() } else { found }
                }
            };
        }
        let search = if self.search.is_empty() { &host.search } else { &self.search };
        let options = if self.options.is_empty() { &host.options } else { &self.options };
        let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        // As docker has it: a lone dot means none.
        if !search.is_empty() && search.iter().all(|domain| domain != ".") {
            text.push_str(&format!("search {}\n", search.join(" ")));
        }
        if !options.is_empty() {
            text.push_str(&format!("options {}\n", options.join(" ")));
        }
        text
    }
}

fn is_loopback(server: &str) -> bool {
    // An address of a link is one of the host's links.
    server.parse::<IpAddr>().map_or(true, |address| address.is_loopback())
}

/// What matters of the host's resolv.conf.
#[derive(Debug, Default)]
struct HostResolver {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl HostResolver {
    fn parse(text: &str) -> Self {
        let mut host = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => host.servers.extend(words.next()),
                // The last one counts.
                Some("search" | "domain") => host.search = words.collect(),
                Some("options") => host.options.extend(words),
                _ => {}
            }
        }
        host
    }
}

/// Reads `--add-host`: `NAME:ADDRESS`, or `NAME=ADDRESS`. Without an address it is `host-gateway`: the host, as the
/// container sees it.
pub(super) fn added(text: &str) -> Result<(Option<IpAddr>, String)> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .filter(|(name, address)| is_host_name(name) && !address.is_empty())
        .ok_or_else(|| anyhow!("bad format for add-host: {text:?}; must be NAME:ADDRESS"))?;
    if address == "host-gateway" {
        return Ok((None, name.to_owned()));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address = bare.parse().map_err(|_| anyhow!("invalid IP address in add-host: {address:?}"))?;
    Ok((Some(address), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# made by hand\nnameserver 127.0.0.53 # local\nsearch a.example b.example\noptions edns0\n";

    #[test]
    fn a_loopback_resolver_is_not_for_containers() {
        let none = Resolver::default();
        let rest = "search a.example b.example\noptions edns0\n";
        let text = |fallback, host, resolved| none.text_from(fallback, host, resolved);
        assert_eq!(text(None, HOST, ""), format!("nameserver 127.0.0.53\n{rest}"));
        let public = Some(Fallback::Public);
        assert_eq!(text(public, HOST, "nameserver 192.0.2.9\n"), format!("nameserver 192.0.2.9\n{rest}"));
        assert_eq!(text(public, HOST, ""), format!("nameserver 8.8.8.8\nnameserver 8.8.4.4\n{rest}"));
        let forwarder = Some(Fallback::Forwarder(Ipv4Addr::new(10, 0, 2, 3)));
        assert_eq!(text(forwarder, HOST, "nameserver 192.0.2.9\n"), format!("nameserver 10.0.2.3\n{rest}"));
        let both = "nameserver ::1\nnameserver 192.0.2.1\n";
        assert_eq!(text(public, both, ""), "nameserver 192.0.2.1\n");
        let asked = Resolver {
            servers: vec!["192.0.2.7".parse().unwrap()],
            search: vec![".".to_owned()],
            options: vec!["ndots:2".to_owned()],
        };
        assert_eq!(asked.text_from(public, HOST, ""), "nameserver 192.0.2.7\noptions ndots:2\n");
    }

    #[test]
    fn what_the_container_wrote_stays() {
        let lines = ["10.88.0.3\tother abc".to_owned()];
        let one = with_block("127.0.0.1\tlocalhost\n", &lines);
        assert_eq!(one, format!("127.0.0.1\tlocalhost\n{BEGIN}\n10.88.0.3\tother abc\n{END}\n"));
        let own = format!("{one}192.0.2.1\tmine\n");
        assert_eq!(with_block(&own, &[]), "127.0.0.1\tlocalhost\n192.0.2.1\tmine\n");
        assert_eq!(with_block(&own, &lines).matches(BEGIN).count(), 1);
    }

    #[test]
    fn hosts_are_added_as_docker_writes_them() {
        let address = |text| added(text).unwrap().0.map(|address| address.to_string());
        assert_eq!(added("a:192.0.2.1").unwrap().1, "a");
        assert_eq!(address("a:fd00::1").as_deref(), Some("fd00::1"));
        assert_eq!(address("a=[fd00::1]").as_deref(), Some("fd00::1"));
        assert_eq!(address("host.docker.internal:host-gateway"), None);
        for text in ["a", "a:", ":1.2.3.4", "a b:1.2.3.4", "a\n:1.2.3.4", "a:x"] {
            assert!(added(text).is_err(), "{text:?}");
        }
        assert!(is_host_name("a-b_c.d") && !is_host_name("-a") && !is_host_name("a\nb") && !is_host_name(""));
    }
}
