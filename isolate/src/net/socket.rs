//! The conversation: a request, and its acknowledgement or the messages that were asked for.

use std::os::fd::{BorrowedFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::LinkNameSpaceType;

use super::{NetError, doing};

/// The kernel sends no longer packet to who has not shown a longer buffer.
const LONGEST: usize = 32 * 1024;

/// What is said in a conversation.
pub(super) trait Message: NetlinkSerializable + NetlinkDeserializable {}

impl<T: NetlinkSerializable + NetlinkDeserializable> Message for T {}

/// A conversation with the kernel about one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// About the network namespace that this thread is in.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn here() -> Result<Self, NetError> {
        // Without a protocol's number: rtnetlink is the first.
        Self::open(None).map_err(doing("rtnetlink"))
    }

    /// A conversation with another part of the kernel, about the network namespace that this thread is in.
    pub(super) fn open(protocol: Option<Protocol>) -> Result<Self, Errno> {
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// About another network namespace. A socket stays in the namespace that it was made in, so that a thread goes
    /// there, makes one, and ends.
    ///
    /// # Errors
    /// The namespace may not be entered.
    pub fn inside(namespace: BorrowedFd<'_>) -> Result<Self, NetError> {
        let enter = || {
            rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
                .map_err(doing("entering the container's network namespace"))?;
            Self::here()
        };
        let ended = |_| NetError::Answer { doing: "rtnetlink".to_owned(), why: "a thread ended".to_owned() };
        std::thread::scope(|scope| scope.spawn(enter).join()).map_err(ended)?
    }

    /// Has something done.
    pub(super) fn request<M: Message>(&mut self, what: &str, message: M, flags: u16) -> Result<(), NetError> {
        self.send(what, message, NLM_F_ACK | flags)?;
        self.receive(what, &mut |_: M| ())
    }

    /// Asks for one thing.
    pub(super) fn get(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        mut answer: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), NetError> {
        self.send(what, message, NLM_F_ACK)?;
        self.receive(what, &mut answer)
    }

    /// Asks for everything of a kind.
    pub(super) fn dump<M: Message>(&mut self, what: &str, message: M, mut each: impl FnMut(M)) -> Result<(), NetError> {
        self.send(what, message, NLM_F_DUMP)?;
        self.receive(what, &mut each)
    }

    fn send<M: Message>(&mut self, what: &str, message: M, flags: u16) -> Result<(), NetError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty()).map_err(doing(what))?;
        Ok(())
    }

    /// Reads to the acknowledgement, or to the end of what was asked for.
    fn receive<M: Message>(&self, what: &str, each: &mut dyn FnMut(M)) -> Result<(), NetError> {
        let unreadable = |why: String| NetError::Answer { doing: what.to_owned(), why };
        let mut buffer = vec![0; LONGEST];
        loop {
            let (len, whole) = match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::TRUNC) {
                Err(Errno::INTR) => continue,
                other => other.map_err(doing(what))?,
            };
            if whole > len || len == 0 {
                return Err(unreadable(format!("a packet of {whole} bytes")));
            }
            let mut rest = &buffer[..len];
            while !rest.is_empty() {
                let length = NetlinkBuffer::new_checked(rest).map_err(|e| unreadable(e.to_string()))?.length() as usize;
                let (packet, _) = rest.split_at_checked(length).ok_or_else(|| unreadable("cut short".to_owned()))?;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                let message = NetlinkMessage::<M>::deserialize(packet);
                let message = message.map_err(|error| unreadable(error.to_string()))?;
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(()),
                            Some(code) => Err(doing(what)(Errno::from_raw_os_error(code.get().saturating_neg()))),
                        };
                    }
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::InnerMessage(message) => each(message),
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_spoken_about_from_outside() {
        // Its own is the one that everybody may enter who may make one; a plain user's test has only this.
        let mut here = Netlink::here().unwrap();
        assert_eq!(here.index("lo").unwrap(), Some(1));
        assert_eq!(here.index("not-there").unwrap(), None);
        let loopback = here.routes().unwrap();
        assert!(loopback.contains(&(std::net::Ipv4Addr::new(127, 0, 0, 0), 8)), "{loopback:?}");
    }
}
