//! What a container's monitor and the commands say to each other over its socket: packets of a kind and its data.
//!
//! ```text
//! command                                   monitor
//! Attach                             →
//! Input, EndOfInput                  →
//!                                    ←      Taken                after each Input: the next one may be sent
//!                                    ←      Output
//! Resize                             →
//! Signal, Stop, Pause, Unpause, …    →
//!                                    ←      Done or Failed       once it is done
//! Wait                               →
//!                                    ←      Exited               also to who is attached
//! ```

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// The most bytes of input or output in one packet.
pub(crate) const CHUNK: usize = 16 * 1024;
/// The longest packet.
const LONGEST: usize = CHUNK + 16;

/// Where output came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// What a command asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// To get the output from now on, and to give input.
    Attach,
    Input(Vec<u8>),
    EndOfInput,
    /// Columns and rows of the terminal.
    Resize(u16, u16),
    /// To send a signal to the first process.
    Signal(i32),
    /// To end it: by its signal, and after these seconds by SIGKILL; without a number, as it was made.
    Stop(Option<u32>),
    /// The same, and to start it again.
    Restart(Option<u32>),
    Pause,
    Unpause,
    /// To hear how it ends.
    Wait,
    /// Nobody reads this output any more, as if it were a pipe.
    Close(Stream),
}

/// What a monitor answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Output(Stream, Vec<u8>),
    Taken,
    /// The exit code.
    Exited(i32),
    Done,
    Failed(String),
}

fn packet(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(1 + data.len());
    packet.push(kind);
    packet.extend_from_slice(data.get(..CHUNK).unwrap_or(data));
    packet
}

fn number(data: &[u8]) -> Option<i32> {
    Some(i32::from_le_bytes(data.try_into().ok()?))
}

/// Seconds, or nothing.
fn seconds(data: &[u8]) -> Option<Option<u32>> {
    if data.is_empty() { Some(None) } else { Some(Some(u32::from_le_bytes(data.try_into().ok()?))) }
}

fn told(seconds: Option<u32>) -> Vec<u8> {
    seconds.map_or_else(Vec::new, |seconds| seconds.to_le_bytes().to_vec())
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Attach => packet(b'a', &[]),
            Self::Input(data) => packet(b'i', data),
            Self::EndOfInput => packet(b'e', &[]),
            Self::Resize(columns, rows) => packet(b'z', &[columns.to_le_bytes(), rows.to_le_bytes()].concat()),
            Self::Signal(signal) => packet(b'k', &signal.to_le_bytes()),
            Self::Stop(seconds) => packet(b's', &told(*seconds)),
            Self::Restart(seconds) => packet(b'r', &told(*seconds)),
            Self::Pause => packet(b'p', &[]),
            Self::Unpause => packet(b'u', &[]),
            Self::Wait => packet(b'w', &[]),
            Self::Close(Stream::Out) => packet(b'c', b"o"),
            Self::Close(Stream::Err) => packet(b'c', b"e"),
        }
    }

    /// `None` for what nobody says.
    pub(crate) fn decode(packet: &[u8]) -> Option<Self> {
        let (kind, data) = packet.split_first()?;
        Some(match (kind, data.len()) {
            (b'a', 0) => Self::Attach,
            (b'i', _) => Self::Input(data.to_vec()),
            (b'e', 0) => Self::EndOfInput,
            (b'z', 4) => Self::Resize(u16::from_le_bytes([data[0], data[1]]), u16::from_le_bytes([data[2], data[3]])),
            (b'k', _) => Self::Signal(number(data)?),
            (b's', _) => Self::Stop(seconds(data)?),
            (b'r', _) => Self::Restart(seconds(data)?),
            (b'p', 0) => Self::Pause,
            (b'u', 0) => Self::Unpause,
            (b'w', 0) => Self::Wait,
            (b'c', 1) if data == b"o" => Self::Close(Stream::Out),
            (b'c', 1) if data == b"e" => Self::Close(Stream::Err),
            _ => return None,
        })
    }
}

impl Reply {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Output(Stream::Out, data) => packet(b'o', data),
            Self::Output(Stream::Err, data) => packet(b'e', data),
            Self::Taken => packet(b't', &[]),
            Self::Exited(code) => packet(b'x', &code.to_le_bytes()),
            Self::Done => packet(b'd', &[]),
            Self::Failed(text) => packet(b'f', text.as_bytes()),
        }
    }

    fn decode(packet: &[u8]) -> Option<Self> {
        let (kind, data) = packet.split_first()?;
        Some(match kind {
            b'o' => Self::Output(Stream::Out, data.to_vec()),
            b'e' => Self::Output(Stream::Err, data.to_vec()),
            b't' => Self::Taken,
            b'x' => Self::Exited(number(data)?),
            b'd' => Self::Done,
            b'f' => Self::Failed(String::from_utf8_lossy(data).into_owned()),
            _ => return None,
        })
    }
}

/// Sends one packet; [`Errno::AGAIN`] if it has to wait and `flags` say not to.
pub(crate) fn send(socket: impl AsFd, packet: &[u8], flags: SendFlags) -> Result<(), Errno> {
    loop {
        match rustix::net::send(&socket, packet, flags | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Receives one packet into `buffer`; an empty one is the end.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut Buffer, flags: RecvFlags) -> Result<&[u8], Errno> {
    let len = loop {
        match rustix::net::recv(&socket, &mut buffer.0[..], flags) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => break 0,
            other => break other?.0,
        }
    };
    Ok(buffer.0.get(..len).unwrap_or_default())
}

/// Room for a packet.
pub(crate) struct Buffer(Box<[u8; LONGEST]>);

impl Buffer {
    pub(crate) fn new() -> Self {
        Self(Box::new([0; LONGEST]))
    }
}

/// A command's end of the socket.
#[derive(Debug)]
pub(crate) struct Line(pub(crate) OwnedFd);

impl Line {
    pub(crate) fn ask(&self, request: &Request) -> Result<(), Errno> {
        send(&self.0, &request.encode(), SendFlags::empty())
    }

    /// Waits for the next answer; `None` if the monitor is gone.
    pub(crate) fn answer(&self, buffer: &mut Buffer) -> Result<Option<Reply>, Errno> {
        loop {
            let packet = receive(&self.0, buffer, RecvFlags::empty())?;
            if packet.is_empty() {
                return Ok(None);
            }
            if let Some(reply) = Reply::decode(packet) {
                return Ok(Some(reply));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for request in [
            Request::Attach,
            Request::Input(vec![0, 255]),
            Request::EndOfInput,
            Request::Resize(90, 30),
            Request::Signal(15),
            Request::Stop(None),
            Request::Stop(Some(0)),
            Request::Restart(Some(7)),
            Request::Pause,
            Request::Unpause,
            Request::Wait,
            Request::Close(Stream::Out),
            Request::Close(Stream::Err),
        ] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        for reply in [
            Reply::Output(Stream::Out, b"x".to_vec()),
            Reply::Output(Stream::Err, Vec::new()),
            Reply::Taken,
            Reply::Exited(137),
            Reply::Done,
            Reply::Failed("no".to_owned()),
        ] {
            assert_eq!(Reply::decode(&reply.encode()), Some(reply));
        }
        for junk in [&b""[..], b"?", b"z12", b"k", b"s1", b"aa", b"cx"] {
            assert_eq!(Request::decode(junk), None, "{junk:?}");
        }
    }

    #[test]
    fn no_packet_is_longer_than_there_is_room() {
        assert!(Request::Input(vec![1; 2 * CHUNK]).encode().len() <= LONGEST);
        assert!(Reply::Failed("x".repeat(2 * CHUNK)).encode().len() <= LONGEST);
    }
}
