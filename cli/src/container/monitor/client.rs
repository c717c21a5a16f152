//! A command that is connected to the monitor.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::super::wire::{self, Buffer, Reply, Request, Stream};

/// Bytes that may wait for a command that does not read, before the container itself has to.
const MOST_WAITING: usize = 256 * 1024;

/// What a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    Nothing,
    /// To hear that the container has ended, or is up again.
    Stopped,
    Restarted,
    /// The exit code.
    End,
}

/// A connected command.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// It gets the output.
    pub(super) attached: bool,
    /// But for these.
    pub(super) shut: Vec<Stream>,
    pub(super) awaits: Awaits,
    /// It has given input.
    pub(super) typed: bool,
    /// It is told when there is room for more of it.
    pub(super) waits_for_room: bool,
    /// It has hung up, or does not keep to the rules.
    pub(super) gone: bool,
    /// It has been told all; when that is on its way, it goes.
    pub(super) leaving: bool,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, attached: bool) -> Self {
        Self {
            socket,
            waiting: VecDeque::new(),
            bytes: 0,
            attached,
            shut: Vec::new(),
            awaits: Awaits::Nothing,
            typed: false,
            waits_for_room: false,
            gone: false,
            leaving: false,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends an answer, now or when there is room for it.
    pub(super) fn tell(&mut self, reply: &Reply) {
        self.bytes += reply.encode().len();
        self.waiting.push_back(reply.encode());
        self.flush();
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn flush(&mut self) {
        while let Some(packet) = self.waiting.front() {
            match wire::send(&self.socket, packet, SendFlags::DONTWAIT) {
                Ok(()) => {
                    self.bytes -= packet.len();
                    self.waiting.pop_front();
                }
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
        self.gone |= self.leaving;
    }

    pub(super) fn hears(&self, stream: Stream) -> bool {
        self.attached && !self.shut.contains(&stream)
    }

    pub(super) fn has_more(&self) -> bool {
        !self.waiting.is_empty() && !self.gone
    }

    /// Whether the container has to wait for it.
    pub(super) fn is_clogged(&self) -> bool {
        self.bytes > MOST_WAITING && !self.gone
    }

    /// The next thing that it asks.
    pub(super) fn next(&mut self, buffer: &mut Buffer) -> Option<Request> {
        match wire::receive(&self.socket, buffer, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => None,
            Ok(packet) => {
                let request = Request::decode(packet);
                self.gone |= request.is_none();
                request
            }
            Err(_) => {
                self.gone = true;
                None
            }
        }
    }

    /// Tells the last thing that it is told.
    pub(super) fn dismiss(&mut self, reply: &Reply) {
        self.leaving = true;
        self.tell(reply);
    }
}
