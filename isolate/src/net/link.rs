//! Bridges, and pairs of virtual Ethernet devices between one and a container.

use std::fmt;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::str::FromStr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use rustix::io::Errno;

use super::{NetError, Netlink};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2);
            *byte = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(|| Self::wrong(text))?;
        }
        // A group's address belongs to no interface, and neither does the empty one.
        if parts.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(Self::wrong(text));
        }
        Ok(Self(bytes))
    }
}

impl Mac {
    fn wrong(text: &str) -> String {
        format!("{text} is not a valid mac address")
    }
}

/// The container's end of a pair.
#[derive(Debug)]
pub struct Peer<'a> {
    /// The container's network namespace.
    pub namespace: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a str,
    /// Its address.
    pub mac: Mac,
}

fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes = attributes;
    link
}

fn up(mut link: LinkMessage) -> LinkMessage {
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn at(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}

impl Netlink {
    /// The index of an interface, if there is one of this name.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn index(&mut self, name: &str) -> Result<Option<u32>, NetError> {
        let what = format!("looking for the interface {name}");
        let message = link(vec![LinkAttribute::IfName(name.to_owned())]);
        let mut found = None;
        let asked = self.get(&what, RouteNetlinkMessage::GetLink(message), |message| {
            if let RouteNetlinkMessage::NewLink(link) = message {
                found = Some(link.header.index);
            }
        });
        if asked.as_ref().is_err_and(|error| error.errno() != Some(Errno::NODEV)) {
            asked?;
        }
        Ok(found)
    }

    /// Makes a bridge. Its address is given, or it would be that of one of its ports, and change with them.
    ///
    /// # Errors
    /// There is an interface of this name, or the kernel has no bridges.
    pub fn make_bridge(&mut self, name: &str, mac: Mac) -> Result<(), NetError> {
        let what = format!("making the bridge {name}");
        let message = link(vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ]);
        self.request(&what, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a pair: the end `name` on a bridge, the other in a container. Neither can be up before both are there.
    ///
    /// # Errors
    /// One of them exists already, or the kernel has no such pairs.
    pub fn make_pair(&mut self, name: &str, bridge: u32, peer: &Peer<'_>) -> Result<(), NetError> {
        let what = format!("making the interfaces {name} and, in the container, {}", peer.name);
        let other = link(vec![
            LinkAttribute::IfName(peer.name.to_owned()),
            LinkAttribute::Address(peer.mac.0.to_vec()),
            LinkAttribute::NetNsFd(peer.namespace.as_raw_fd()),
        ]);
        let message = link(vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Controller(bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
            ]),
        ]);
        self.request(&what, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Switches a port of a bridge on, and lets it have back what came from it, for a container that calls itself by a
    /// published port.
    ///
    /// # Errors
    /// It is no port of a bridge.
    pub fn set_port_up(&mut self, name: &str) -> Result<(), NetError> {
        let what = format!("switching the bridge's port {name} on");
        let message = up(link(vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
            ]),
        ]));
        self.request(&what, RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Switches an interface on.
    ///
    /// # Errors
    /// It is gone.
    pub fn set_up(&mut self, index: u32) -> Result<(), NetError> {
        self.request("switching an interface on", RouteNetlinkMessage::SetLink(up(at(index))), 0)
    }

    /// Removes an interface, and with an end of a pair the other one; one that is not there is as well.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(&mut self, name: &str) -> Result<(), NetError> {
        let message = link(vec![LinkAttribute::IfName(name.to_owned())]);
        let what = format!("removing the interface {name}");
        match self.request(&what, RouteNetlinkMessage::DelLink(message), 0) {
            Err(NetError::Kernel { errno: Errno::NODEV, .. }) => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let mac: Mac = "02:42:0A:00:fe:1".parse().unwrap_or(Mac([0; 6]));
        assert_eq!(mac, Mac([0; 6]), "five digits");
        let text = "02:42:0a:00:fe:01";
        assert_eq!(text.parse::<Mac>().unwrap().to_string(), text);
        assert_eq!("02-42-0A-00-FE-01".parse::<Mac>().unwrap().to_string(), text);
        for wrong in ["", "02:42:0a:00:fe", "02:42:0a:00:fe:01:02", "01:00:5e:00:00:01", "00:00:00:00:00:00", "x"] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}
