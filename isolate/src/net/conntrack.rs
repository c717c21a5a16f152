//! The kernel's memory of connections (nf_conntrack), in which datagrams that once went somewhere go there for ever,
//! as long as they do not pause.

use std::net::Ipv4Addr;

use netlink_packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlaBuffer, NlasIterator,
};
use rustix::io::Errno;
use rustix::net::netlink;

use super::socket::Netlink;
use super::{NetError, doing};

/// `NFNL_SUBSYS_CTNETLINK`, in its place in a message's type.
const CONNTRACK: u16 = 1 << 8;
const GET: u16 = CONNTRACK | 1;
const DELETE: u16 = CONNTRACK | 2;
/// An `nfgenmsg` of version 4 of the protocol: family, version, and two bytes of nothing.
const HEADER: [u8; 4] = [libc::AF_INET as u8, 0, 0, 0];
/// The length of an attribute's own header, and a flag in its kind.
const ATTRIBUTE: usize = 4;
const NESTED: u16 = 1 << 15;

/// `CTA_TUPLE_ORIG`: how a connection looked when it came; in it the addresses and the protocol.
const ORIGINAL: u16 = 1;
const ADDRESSES: u16 = 1;
const DESTINATION: u16 = 2;
const PROTOCOL: u16 = 2;
const NUMBER: u16 = 1;
const PORT: u16 = 3;

/// A message, but for its header.
struct Raw {
    kind: u16,
    body: Vec<u8>,
}

impl NetlinkSerializable for Raw {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Raw {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { kind: header.message_type, body: payload.to_vec() })
    }
}

/// Makes the kernel forget where datagrams went that came to a port: of the address, or of all.
///
/// # Errors
/// The kernel does not say what it remembers, or does not forget.
pub fn forget_datagrams(address: Option<Ipv4Addr>, port: u16) -> Result<(), NetError> {
    let what = "forgetting where datagrams went";
    let mut netlink = Netlink::open(Some(netlink::NETFILTER)).map_err(doing(what))?;
    let mut found = Vec::new();
    netlink.dump(what, Raw { kind: GET, body: HEADER.to_vec() }, |message: Raw| {
        let tuple = message.body.get(HEADER.len()..).and_then(|attributes| attribute(attributes, ORIGINAL));
        found.extend(tuple.filter(|tuple| comes_to(tuple, address, port)).map(<[u8]>::to_vec));
    })?;
    for tuple in found {
        let mut body = HEADER.to_vec();
        let length = u16::try_from(ATTRIBUTE + tuple.len()).unwrap_or(u16::MAX);
        body.extend(length.to_ne_bytes());
        body.extend((ORIGINAL | NESTED).to_ne_bytes());
        body.extend(tuple);
        match netlink.request(what, Raw { kind: DELETE, body }, 0) {
            // It has been forgotten meanwhile.
            Err(NetError::Kernel { errno: Errno::NOENT, .. }) => {}
            other => other?,
        }
    }
    Ok(())
}

/// The value of an attribute.
fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut all = NlasIterator::new(attributes).map_while(Result::ok);
    let found = all.find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == kind)?;
    let length = usize::from(found.length());
    found.into_inner().get(ATTRIBUTE..length)
}

fn comes_to(tuple: &[u8], address: Option<Ipv4Addr>, port: u16) -> bool {
    let of = |outer, inner| attribute(tuple, outer).and_then(|attributes| attribute(attributes, inner));
    of(PROTOCOL, NUMBER) == Some(&[libc::IPPROTO_UDP as u8])
        && of(PROTOCOL, PORT) == Some(&port.to_be_bytes())
        && address.is_none_or(|address| of(ADDRESSES, DESTINATION) == Some(&address.octets()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_s_way_is_told_by_protocol_port_and_address() {
        let nla = |kind: u16, value: &[u8]| {
            let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let tuple = |number: u8| {
            let addresses = [nla(1, &[192, 0, 2, 1]), nla(DESTINATION, &[192, 0, 2, 2])].concat();
            let protocol = [nla(NUMBER, &[number]), nla(2, &[0, 7]), nla(PORT, &[0, 53])].concat();
            [nla(ADDRESSES | NESTED, &addresses), nla(PROTOCOL | NESTED, &protocol)].concat()
        };
        let here = Some(Ipv4Addr::new(192, 0, 2, 2));
        assert!(comes_to(&tuple(17), None, 53) && comes_to(&tuple(17), here, 53));
        assert!(!comes_to(&tuple(6), None, 53) && !comes_to(&tuple(17), None, 7));
        assert!(!comes_to(&tuple(17), Some(Ipv4Addr::new(192, 0, 2, 1)), 53));
        assert!(!comes_to(&[1, 2, 3], None, 53) && !comes_to(&[], None, 53));
    }
}
