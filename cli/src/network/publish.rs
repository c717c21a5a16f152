//! Published ports: what `-p`, `-P` and `--expose` say, and the host's ports that they take.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

/// The most ports that one container publishes: each is a socket and a rule.
const MAX_PORTS: usize = 4096;

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// The Transmission Control Protocol.
    Tcp,
    /// The User Datagram Protocol.
    Udp,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => bail!("invalid proto: {name}; tcp and udp are there"),
        }
    }
}

/// Ports from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    first: u16,
    last: u16,
}

impl Range {
    fn parse(text: &str) -> Result<Self> {
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port != 0 => Ok(port),
            _ => Err(anyhow!("invalid port: {text}")),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: port(first)?, last: port(last)? };
        if range.first > range.last {
            bail!("invalid port range: {text}");
        }
        Ok(range)
    }

    fn len(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    fn ports(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

/// A port of the container that is asked to be published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// Of the host; all of them if none is named.
    address: Option<IpAddr>,
    /// Of the host: one of these; any if there is none.
    host: Option<Range>,
    container: u16,
    protocol: Protocol,
}

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Port {
    /// The address of the host, 0.0.0.0 for all.
    pub(crate) address: IpAddr,
    /// Of the host.
    pub(crate) host: u16,
    pub(crate) container: u16,
    pub(crate) protocol: Protocol,
}

/// As `docker ps` shows it.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}/{}", SocketAddr::new(self.address, self.host), self.container, self.protocol.name())
    }
}

impl Port {
    /// Whether both would be heard at the same address, port and protocol.
    pub(crate) fn collides(&self, other: &Self) -> bool {
        let everywhere = self.address.is_unspecified() || other.address.is_unspecified();
        (self.host, self.protocol) == (other.host, other.protocol) && (everywhere || self.address == other.address)
    }
}

/// Reads `-p`: `[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]`, with ranges.
pub(crate) fn parse(text: &str) -> Result<Vec<Wish>> {
    let shown = || format!("invalid publish {text:?}");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = Protocol::parse(protocol).with_context(shown)?;
    let (front, container) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (address, host) = match front.rsplit_once(':') {
        Some((address, host)) => (address, host),
        None => ("", front),
    };
    let address = match address {
        "" => None,
        address => {
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
            Some(bare.parse::<IpAddr>().map_err(|_| anyhow!("invalid IP address: {address}")).with_context(shown)?)
        }
    };
    let container = Range::parse(container).with_context(shown)?;
    let host = (!host.is_empty()).then(|| Range::parse(host)).transpose().with_context(shown)?;
    let wish = |host, container| Wish { address, host, container, protocol };
    Ok(match host {
        Some(host) if host.len() == container.len() && host.len() > 1 => host
            .ports()
            .zip(container.ports())
            .map(|(host, container)| wish(Some(Range { first: host, last: host }), container))
            .collect(),
        Some(_) if container.len() > 1 => {
            return Err(anyhow!("the ranges of the host and of the container differ in length")).with_context(shown);
        }
        host => container.ports().map(|container| wish(host, container)).collect(),
    })
}

/// Reads `--expose` and an image's ExposedPorts: `PORT[-PORT][/PROTOCOL]`, each to be published at any port.
pub(crate) fn exposed(text: &str) -> Result<Vec<Wish>> {
    if text.contains(':') {
        bail!("invalid port format for --expose: {text}");
    }
    parse(text)
}

impl Wish {
    /// The port inside and its protocol.
    pub(crate) fn inside(&self) -> (u16, Protocol) {
        (self.container, self.protocol)
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The host's port as it was asked for; empty for any.
    pub(crate) fn host(&self) -> String {
        match self.host {
            None => String::new(),
            Some(Range { first, last }) if first == last => first.to_string(),
            Some(Range { first, last }) => format!("{first}-{last}"),
        }
    }

    /// The last of the host's ports that it may be, if it is not any.
    pub(crate) fn last(&self) -> Option<u16> {
        self.host.map(|range| range.last)
    }
}

/// The sockets that hold ports of the host, so that nobody else gets them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) ports: Vec<Port>,
    sockets: Vec<OwnedFd>,
}

impl Held {
    /// Gives the ports free again, for the program that is going to listen on them.
    pub(crate) fn release(self) -> Vec<Port> {
        self.ports
    }
}

/// Takes the ports of the host that are wished for. `taken` are those of other containers.
pub(crate) fn hold(wishes: &[Wish], taken: &[Port]) -> Result<Held> {
    let mut held = Held::default();
    if wishes.len() > MAX_PORTS {
        bail!("{} published ports; at most {MAX_PORTS} can be", wishes.len());
    }
    for wish in wishes {
        let address = wish.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let mut first = None;
        let candidates: Box<dyn Iterator<Item = u16>> = match wish.host {
            Some(range) => Box::new(range.ports()),
            // The kernel chooses.
            None => Box::new(std::iter::once(0)),
        };
        let mut found = false;
        for host in candidates {
            let mut port = Port { address, host, container: wish.container, protocol: wish.protocol };
            let own = &held.ports;
            match take(&mut port, |port| taken.iter().chain(own).any(|other| other.collides(port))) {
                Ok(socket) => {
                    held.sockets.push(socket);
                    held.ports.push(port);
                    found = true;
                    break;
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        if !found {
            return Err(first.unwrap_or_else(|| anyhow!("all ports are allocated")));
        }
    }
    Ok(held)
}

/// Takes one port, in the words of docker if it cannot be had.
fn take(port: &mut Port, is_taken: impl Fn(&Port) -> bool) -> Result<OwnedFd> {
    let at = SocketAddr::new(port.address, port.host);
    if port.host != 0 && is_taken(port) {
        bail!("Bind for {at} failed: port is already allocated");
    }
    let (socket, bound) = bind(at, port.protocol).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => "address already in use".to_owned(),
            io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
            io::ErrorKind::PermissionDenied => format!(
                "permission denied; ports below {} are root's (sysctl net.ipv4.ip_unprivileged_port_start)",
                first_plain_port()
            ),
            _ => error.to_string(),
        };
        anyhow!("failed to bind host port for {at}/{}: {why}", port.protocol.name())
    })?;
    port.host = bound;
    Ok(socket)
}

/// A socket at an address, and the port that it got.
fn bind(at: SocketAddr, protocol: Protocol) -> io::Result<(OwnedFd, u16)> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if protocol == Protocol::Tcp {
        // Connections of the one before that linger are no reason to wait.
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &at)?;
    if protocol == Protocol::Tcp {
        // Only who listens has it for himself. Nothing arrives here: it is translated before.
        rustix::net::listen(&socket, 1)?;
    }
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}

/// Ports below it are root's.
pub(crate) fn first_plain_port() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let one = |wish: &Wish| {
            let host = wish.host.map_or("any".to_owned(), |range| format!("{}-{}", range.first, range.last));
            let address = wish.address.map_or("all".to_owned(), |address| address.to_string());
            format!("{address} {host} {}/{}", wish.container, wish.protocol.name())
        };
        parse(text).unwrap().iter().map(one).collect()
    }

    #[test]
    fn ports_as_docker_writes_them() {
        assert_eq!(shown("80"), ["all any 80/tcp"]);
        assert_eq!(shown("8080:80/udp"), ["all 8080-8080 80/udp"]);
        assert_eq!(shown("127.0.0.1:8080:80"), ["127.0.0.1 8080-8080 80/tcp"]);
        assert_eq!(shown("127.0.0.1::80"), ["127.0.0.1 any 80/tcp"]);
        assert_eq!(shown("[::1]:8080:80"), ["::1 8080-8080 80/tcp"]);
        assert_eq!(shown("::1:8080:80"), ["::1 8080-8080 80/tcp"]);
        assert_eq!(shown("8000-8001:90-91"), ["all 8000-8000 90/tcp", "all 8001-8001 91/tcp"]);
        assert_eq!(shown("8000-8010:80"), ["all 8000-8010 80/tcp"]);
        assert_eq!(shown("90-91"), ["all any 90/tcp", "all any 91/tcp"]);
        let wrong = ["", "0", "65536", "x", "8080:", "a.b:1:2", "2-1", "1-3:5-6", "80/sctp", "1:2:3:4", "-1", "80/"];
        for text in wrong {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(exposed("80-82/udp").unwrap().len() == 3 && exposed("1:2").is_err());
    }

    #[test]
    fn a_port_is_held_once() {
        let held = hold(&parse("127.0.0.1::80").unwrap(), &[]).unwrap();
        let port = held.ports[0];
        assert_ne!(port.host, 0);
        let again = parse(&format!("{}:80", port.host)).unwrap();
        let error = hold(&again, &held.ports).unwrap_err().to_string();
        assert_eq!(error, format!("Bind for 0.0.0.0:{} failed: port is already allocated", port.host));
        let error = hold(&again, &[]).unwrap_err().to_string();
        assert_eq!(error, format!("failed to bind host port for 0.0.0.0:{}/tcp: address already in use", port.host));
        // The other protocol has ports of its own, and a range goes on to the next.
        let from = port.host.min(65_500);
        let range = parse(&format!("{from}-{}:80", from + 30)).unwrap();
        assert_ne!(hold(&range, &held.ports).unwrap().ports[0].host, port.host);
        assert_eq!(port.to_string(), format!("127.0.0.1:{}->80/tcp", port.host));
    }
}
