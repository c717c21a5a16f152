//! Addresses and routes, of version 4 of the protocol.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{NetError, Netlink};

impl Netlink {
    /// Gives an interface an address in a network whose addresses share the first `prefix` bits.
    ///
    /// # Errors
    /// It has the address already, or is gone.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<(), NetError> {
        let what = format!("giving an interface the address {address}");
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.index = index;
        let mask = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        message.attributes = vec![
            AddressAttribute::Local(IpAddr::V4(address)),
            AddressAttribute::Address(IpAddr::V4(address)),
            AddressAttribute::Broadcast(Ipv4Addr::from(u32::from(address) | mask)),
        ];
        self.request(&what, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Sends what has no other way to a gateway.
    ///
    /// # Errors
    /// The gateway is not in the network of any interface that is up.
    pub fn add_default_route(&mut self, gateway: Ipv4Addr) -> Result<(), NetError> {
        let what = format!("making the default route by {gateway}");
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway))];
        self.request(&what, RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// The destinations of all routes of all tables but the default ones, with the lengths of their prefixes.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn routes(&mut self) -> Result<Vec<(Ipv4Addr, u8)>, NetError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let mut routes = Vec::new();
        self.dump("listing the routes", RouteNetlinkMessage::GetRoute(message), |message| {
            let RouteNetlinkMessage::NewRoute(route) = message else { return };
            let prefix = route.header.destination_prefix_length;
            routes.extend(route.attributes.iter().filter_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => Some((*address, prefix)),
                _ => None,
            }));
        })?;
        Ok(routes)
    }
}
