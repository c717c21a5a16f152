//! The network of a container: what it is connected to, under which names and addresses, and with which ports of the host.
//!
//! A container's way: [`NetworkArgs::resolve`] reads the options, and
//! [`Request::outline`] says what the configuration needs. At each start
//! [`Request::write_files`] makes the files that are mounted;
//! [`Request::connect`] is called when the namespaces are made and the program
//! does not run yet; dropping the [`Connection`] gives everything back. What a
//! process that was killed could not give back is taken by [`sweep`], with
//! which every command begins that deals with containers.

mod bridge;
mod files;
mod firewall;
mod pool;
pub(crate) mod publish;
mod usermode;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail};
use lamel_isolate::Created;
use lamel_isolate::net::Mac;
use lamel_isolate::oci::Mount;
use serde::{Deserialize, Serialize};

use crate::launch::warn;
use crate::run::identity::{has_program, is_host_root};
use crate::run::volume::build;
use files::{Fallback, Files, Resolver};
use publish::{Port, Wish};

/// The environment variable that says which network there is if none is asked for.
const MODE_VARIABLE: &str = "LAMEL_NETWORK";

/// Characters of the container's id that make its host name, as in docker.
const SHORT_ID: usize = 12;

/// Options of the network.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArgs {
    /// bridge: a network of this store's containers (root's default); pasta, slirp4netns: through a program of that
    /// name (a plain user's default); none: loopback alone; host: the host's own; container:NAME: that container's;
    /// ns:PATH: that namespace [default: $LAMEL_NETWORK, else as said]
    #[arg(long, alias = "net", value_name = "MODE")]
    network: Option<Mode>,
    /// Publish ports: host ports, of one address or of all, lead to the container's; ranges are written FIRST-LAST
    #[arg(short, long, value_name = "[[IP:]HOST:]CONTAINER[/udp]")]
    publish: Vec<String>,
    /// Publish all exposed ports, at random ports of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Say that the container listens on a port, for -P
    #[arg(long, value_name = "PORT[/udp]")]
    expose: Vec<String>,
    /// Ask this name server
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// Look names up in this domain; . for none
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option of resolv.conf(5)
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Add a line to /etc/hosts; host-gateway is the host
    #[arg(long, value_name = "NAME:IP")]
    add_host: Vec<String>,
    /// The container's address in the bridge network
    #[arg(long, value_name = "IPV4")]
    ip: Option<Ipv4Addr>,
    /// The Ethernet address of the container's interface
    #[arg(long, value_name = "MAC")]
    mac_address: Option<String>,
    /// Another name by which containers of the bridge network reach this one
    #[arg(long, value_name = "NAME")]
    network_alias: Vec<String>,
}

/// What a container is connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum Mode {
    /// Loopback alone.
    #[default]
    None,
    /// No namespace of its own.
    Host,
    /// The store's bridge.
    Bridge,
    /// Another container's namespace.
    Container(String),
    /// A namespace by its path.
    Path(PathBuf),
    Pasta,
    Slirp4netns,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Bridge => f.write_str("bridge"),
            Self::Container(name) => write!(f, "container:{name}"),
            Self::Path(path) => write!(f, "ns:{}", path.display()),
            Self::Pasta => f.write_str("pasta"),
            Self::Slirp4netns => f.write_str("slirp4netns"),
        }
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        mode.to_string()
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.split_once(':') {
            Some(("container", name)) if !name.is_empty() => Self::Container(name.to_owned()),
            Some(("ns", path)) if path.starts_with('/') => Self::Path(path.into()),
            None if text == "none" => Self::None,
            None if text == "host" => Self::Host,
            // As podman has it for a plain user, and docker for its own.
            None if text == "bridge" || text == "default" => Self::Bridge,
            None if text == "pasta" => Self::Pasta,
            None if text == "slirp4netns" => Self::Slirp4netns,
            _ => {
                return Err(format!(
                    "network {text} not found; there are bridge, none, host, pasta, slirp4netns, container:NAME and \
                     ns:/PATH"
                ));
            }
        })
    }
}

/// What is asked of the network, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) mode: Mode,
    wishes: Vec<Wish>,
    resolver: Resolver,
    added: Vec<String>,
    ip: Option<Ipv4Addr>,
    mac: Option<String>,
    aliases: Vec<String>,
}

impl NetworkArgs {
    /// Reads the options. `exposed` are the ports that the image says its programs listen on.
    pub(crate) fn resolve(&self, exposed: &[String]) -> Result<Request> {
        let mut wishes = Vec::new();
        for text in &self.publish {
            wishes.extend(publish::parse(text)?);
        }
        let mut more = Vec::new();
        for text in self.expose.iter().chain(exposed) {
            more.extend(publish::exposed(text)?);
        }
        if self.publish_all {
            for wish in more {
                if !wishes.iter().any(|other: &Wish| other.inside() == wish.inside()) {
                    wishes.push(wish);
                }
            }
        }
        for name in &self.network_alias {
            if !files::is_host_name(name) {
                bail!("--network-alias {name:?}: no host name");
            }
        }
        for word in self.dns_search.iter().chain(&self.dns_option) {
            if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control()) {
                bail!("{word:?} is no word for resolv.conf");
            }
        }
        let mode = match &self.network {
            Some(mode) => mode.clone(),
            None => default_mode(!wishes.is_empty())?,
        };
        let request = Request {
            mode,
            wishes,
            resolver: Resolver {
                servers: self.dns.clone(),
                search: self.dns_search.clone(),
                options: self.dns_option.clone(),
            },
            added: self.add_host.clone(),
            ip: self.ip,
            mac: self.mac_address.clone(),
            aliases: self.network_alias.clone(),
        };
        request.check()?;
        Ok(request)
    }
}

/// What there is if nothing is asked for: root has the bridge, others a program that carries their packets.
fn default_mode(publishes: bool) -> Result<Mode> {
    if let Some(mode) = std::env::var(MODE_VARIABLE).ok().filter(|mode| !mode.is_empty()) {
        return mode.parse().map_err(|why: String| anyhow!("${MODE_VARIABLE}: {why}"));
    }
    if is_host_root() {
        return Ok(Mode::Bridge);
    }
    match (has_program("pasta"), has_program("slirp4netns")) {
        (true, false) => Ok(Mode::Pasta),
        (true, true) if !publishes || usermode::pasta_tells_who_calls() => Ok(Mode::Pasta),
        (_, true) => Ok(Mode::Slirp4netns),
        (false, false) => bail!(
            "a plain user's container needs the program pasta or slirp4netns for its network: install the package \
             passt or slirp4netns, or use --network none or --network host"
        ),
    }
}

/// The network namespace of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// The host's.
    Host,
    Own,
    /// One that exists, with the user namespace that it belongs to if that is not this process's own.
    Joined {
        network: PathBuf,
        user: Option<PathBuf>,
    },
}

/// What the configuration of a container needs of the network.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) namespace: Namespace,
    pub(crate) hostname: String,
    /// Of `/etc/hosts` and its like.
    pub(crate) mounts: Vec<Mount>,
}

impl Request {
    fn check(&self) -> Result<()> {
        for text in &self.added {
            files::added(text)?;
        }
        self.mac()?;
        let joins = matches!(self.mode, Mode::Container(_) | Mode::Path(_));
        let conflicts = [
            ("port publishing", !self.wishes.is_empty()),
            ("dns", self.resolver != Resolver::default()),
            ("custom host-to-IP mapping", !self.added.is_empty()),
            ("mac-address", self.mac.is_some()),
            ("ip", self.ip.is_some()),
        ];
        if let Some((what, _)) = conflicts.iter().find(|(_, given)| joins && *given) {
            bail!("conflicting options: {what} and the container type network mode");
        }
        match self.mode {
            Mode::Bridge => {
                if !rustix::process::geteuid().is_root() {
                    bail!("--network bridge needs root; a plain user has --network pasta or slirp4netns");
                }
                bridge::check(self)
            }
            Mode::Pasta | Mode::Slirp4netns => {
                if is_host_root() {
                    bail!("--network {} is for plain users; root has --network bridge", self.mode);
                }
                if !has_program(&self.mode.to_string()) {
                    bail!("--network {}: there is no such program here; install it", self.mode);
                }
                usermode::check(self)
            }
            Mode::Host | Mode::None if self.ip.is_some() || self.mac.is_some() => {
                bail!("--ip and --mac-address need a network of the container's own, not --network {}", self.mode)
            }
            _ => Ok(()),
        }
    }

    /// The names of `--add-host NAME:host-gateway`.
    fn gateway_names(&self) -> Result<Vec<String>> {
        let added = self.added.iter().map(|text| files::added(text)).collect::<Result<Vec<_>>>()?;
        Ok(added.into_iter().filter(|(address, _)| address.is_none()).map(|(_, name)| name).collect())
    }

    fn mac(&self) -> Result<Option<Mac>> {
        self.mac.as_deref().map(|text| text.parse().map_err(|why: String| anyhow!(why))).transpose()
    }

    /// The name of the container's host: the one asked for, else one made of its id as in docker, and with the host's
    /// network the host's.
    pub(crate) fn hostname(&self, asked: Option<&str>, id: &str) -> String {
        match (asked, &self.mode) {
            (Some(name), _) => name.to_owned(),
            (None, Mode::Host) => host_name(),
            (None, _) => id.get(..SHORT_ID).unwrap_or(id).to_owned(),
        }
    }

    /// The namespace of a container that joins no other's.
    pub(crate) fn namespace(&self) -> Namespace {
        match &self.mode {
            Mode::Host => Namespace::Host,
            Mode::Path(path) => Namespace::Joined { network: path.clone(), user: None },
            _ => Namespace::Own,
        }
    }

    /// The ports that are to be published, as docker's `inspect` has them.
    pub(crate) fn bindings(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut bindings = serde_json::Map::new();
        for wish in &self.wishes {
            let (port, protocol) = wish.inside();
            let address = wish.address().map(|address| address.to_string()).unwrap_or_default();
            let binding = serde_json::json!({ "HostIp": address, "HostPort": wish.host() });
            let list = bindings.entry(format!("{port}/{}", protocol.name())).or_insert_with(|| serde_json::json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(binding);
            }
        }
        bindings
    }

    /// The name of the container whose network is to be joined.
    pub(crate) fn joins(&self) -> Option<&str> {
        if let Mode::Container(name) = &self.mode { Some(name) } else { None }
    }

    /// What the configuration of a container needs. What it is to have of another container is known when it starts.
    pub(crate) fn outline(&self, asked: Option<&str>, id: &str) -> Result<Prepared> {
        if self.joins().is_some() && asked.is_some() {
            bail!("conflicting options: hostname and the network mode");
        }
        if matches!(self.mode, Mode::Host | Mode::None) && !self.wishes.is_empty() {
            warn(&format!("published ports are discarded when using {} network mode", self.mode));
        }
        // In the bundle, so that it may lie anywhere.
        let mounts = mounts(Path::new(""))?;
        Ok(Prepared { namespace: self.namespace(), hostname: self.hostname(asked, id), mounts })
    }

    /// Makes the files that are mounted. `owner` is who the container's root is outside.
    pub(crate) fn write_files(&self, member: &Member<'_>, owner: Option<(u32, u32)>) -> Result<()> {
        let fallback = match self.mode {
            Mode::Bridge => Some(Fallback::Public),
            Mode::Pasta | Mode::Slirp4netns => Some(Fallback::Forwarder(usermode::RESOLVER)),
            _ => None,
        };
        let gateway = match self.mode {
            Mode::Host => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            // Known when the container is connected.
            Mode::Bridge => None,
            _ => host_address(),
        };
        let added = self.added.iter().map(|text| files::added(text)).collect::<Result<Vec<_>>>()?;
        let added: Vec<(IpAddr, String)> =
            added.into_iter().filter_map(|(address, name)| Some((address.or(gateway)?, name))).collect();
        let hostname = files::is_host_name(member.hostname).then_some(member.hostname);
        Files::of(member.directory).write(hostname.unwrap_or("localhost"), &added, &self.resolver.text(fallback), owner)
    }

    /// Connects a container whose namespaces are made and whose program does not run yet.
    pub(crate) fn connect(&self, member: &Member<'_>, created: &Created) -> Result<Connection> {
        let kind = match self.mode {
            Mode::Bridge => Kind::Bridge(bridge::attach(self, member, created)?),
            Mode::Pasta => Kind::Carried(usermode::pasta(self, member, created)?),
            Mode::Slirp4netns => Kind::Carried(usermode::slirp4netns(self, member, created)?),
            Mode::None | Mode::Host | Mode::Container(_) | Mode::Path(_) => Kind::Unconnected,
        };
        Ok(Connection { kind })
    }
}

/// What a container has that joins the network of another, whose first process is `pid`: its namespaces, as far as
/// this process is not in them, its files and its name.
pub(crate) fn joined(pid: i32, directory: &Path, hostname: String) -> Result<Prepared> {
    use std::os::unix::fs::MetadataExt as _;
    let inode = |path: &Path| path.metadata().map(|meta| meta.ino()).with_context(|| path.display().to_string());
    let (network, user) = (PathBuf::from(format!("/proc/{pid}/ns/net")), PathBuf::from(format!("/proc/{pid}/ns/user")));
    let own = inode(Path::new("/proc/self/ns/user"))? == inode(&user)?;
    let namespace = Namespace::Joined { network, user: (!own).then_some(user) };
    Ok(Prepared { namespace, hostname, mounts: mounts(directory)? })
}

fn mounts(directory: &Path) -> Result<Vec<Mount>> {
    let places = Files::of(directory).places();
    places.iter().map(|(file, inside)| build(inside, "bind", file, &["bind", "rprivate", "rw"])).collect()
}

/// A container that is to be connected.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    /// The store.
    pub(crate) root: &'a Path,
    /// The container's own, whose lock is held while it lives.
    pub(crate) directory: &'a Path,
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) hostname: &'a str,
}

impl Member<'_> {
    /// By which others reach it: its name, its aliases, and the beginning of its id.
    fn names(&self, request: &Request) -> Vec<String> {
        let mut names = vec![self.name.to_owned()];
        names.extend(request.aliases.iter().cloned());
        names.push(self.id.get(..SHORT_ID).unwrap_or(self.id).to_owned());
        names.retain(|name| files::is_host_name(name));
        names
    }

    /// By which it knows itself: its host name comes first.
    fn own_names(&self, request: &Request) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in std::iter::once(self.hostname.to_owned()).chain(self.names(request)) {
            if files::is_host_name(&name) && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// The host's name.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The address that the host has where its default route leads.
fn host_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Connecting such a socket sends nothing. The address is one for documentation.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|own| own.ip())
}

/// A container's connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Unconnected,
    Bridge(bridge::Attached),
    Carried(usermode::Carried),
}

impl Connection {
    /// What the container has of the network, if it has something of its own.
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        match &self.kind {
            Kind::Unconnected => None,
            Kind::Bridge(attached) => Some(attached.endpoint()),
            Kind::Carried(carried) => Some(carried.endpoint()),
        }
    }

    /// Its published ports.
    pub(crate) fn ports(&self) -> &[Port] {
        match &self.kind {
            Kind::Unconnected => &[],
            Kind::Bridge(attached) => attached.ports(),
            Kind::Carried(carried) => carried.ports(),
        }
    }
}

/// A container's place in a network.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) mac: Option<Mac>,
}

/// Takes away what containers of a store have left whose process was killed. Where that fails it is said, and nothing
/// more: what is asked for may not need it.
pub(crate) fn sweep(root: &Path) {
    if let Err(error) = bridge::sweep(root) {
        tracing::warn!("what is left of ended containers in the network: {error:#}");
    }
}
