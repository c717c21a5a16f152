//! The socket between parent and child while the container is made.
//!
//! ```text
//! parent                      child
//!                       ←     Sibling(pid)         from a process that only joins namespaces
//! go                    →                          ids are mapped, the network is there
//!                       ←     Mounted              with hooks: theirs comes now
//! state + fd, twice     →                          what the child's hooks read: creating, created
//!                       ←     Note(step)           something to be said aloud
//!                       ←     Terminal + fd        the pseudo-terminal's master
//!                       ←     Ready                all steps but exec are done
//!                       ←     File(which) + fd     of one that only looks into a container (exec)
//!                       ←     Failed(step, fault)  or the end: the socket is closed by exec
//! ```
//! It is a socket of packets; the child fills its packets on the stack.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::Fault;
use crate::sys::socket;

/// Longest packet; a fault's words are cut to fit.
const LONGEST: usize = 256;
const GO: u8 = b'g';
const FAILED: u8 = b'f';
const TERMINAL: u8 = b't';
const NOTE: u8 = b'n';
const READY: u8 = b'r';
const SIBLING: u8 = b's';
const FILE: u8 = b'o';
const MOUNTED: u8 = b'm';

/// The parent's end.
#[derive(Debug)]
pub(crate) struct ParentEnd(OwnedFd);

/// The child's end. It is closed by exec.
#[derive(Debug)]
pub(crate) struct ChildEnd(OwnedFd);

/// What the parent hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// The socket is closed: the container's program runs, if [`Message::Ready`] came before; else the child died.
    End,
    /// All is mounted, and the child waits for the parent's hooks.
    Mounted,
    /// The steps are done but for exec.
    Ready,
    /// A step failed; what and errno as in [`Fault`].
    Failed { step: usize, what: String, errno: i32 },
    /// The master of the container's terminal.
    Terminal(OwnedFd),
    /// A step took its stated fallback.
    Note { step: usize },
    /// A file of the container's, opened by one that entered it for that.
    File { which: usize, file: OwnedFd },
    /// The container's process, made by one that joined namespaces first.
    Sibling { pid: i32 },
}

/// Both ends.
pub(crate) fn pair() -> Result<(ParentEnd, ChildEnd), Errno> {
    let (parent, child) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((ParentEnd(parent), ChildEnd(child)))
}

impl ParentEnd {
    /// Lets the child go on.
    pub(crate) fn go(&self) -> Result<(), Errno> {
        socket::send(self.0.as_fd(), &[GO], None)
    }

    /// Lets the child go on after hooks, with a state for its own.
    pub(crate) fn state(&self, state: BorrowedFd<'_>) -> Result<(), Errno> {
        socket::send(self.0.as_fd(), &[GO], Some(state))
    }

    /// Waits for the next message. A child that died says nothing, which reads as the end.
    pub(crate) fn next(&self) -> Result<Message, Errno> {
        let mut packet = [0; LONGEST];
        let (len, fd) = match socket::receive(self.0.as_fd(), &mut packet) {
            Err(Errno::CONNRESET) => (0, None),
            other => other?,
        };
        let Some((&kind, rest)) = packet.get(..len).and_then(<[u8]>::split_first) else { return Ok(Message::End) };
        let number = |at: usize| {
            rest.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_le_bytes).ok_or(Errno::PROTO)
        };
        let step = |at| Ok(usize::try_from(number(at)?).unwrap_or(usize::MAX));
        match (kind, fd) {
            (FAILED, _) => {
                let what = String::from_utf8_lossy(rest.get(8..).unwrap_or_default()).into_owned();
                Ok(Message::Failed { step: step(0)?, what, errno: number(4)? })
            }
            (TERMINAL, Some(master)) => Ok(Message::Terminal(master)),
            (FILE, Some(file)) => Ok(Message::File { which: step(0)?, file }),
            (MOUNTED, _) => Ok(Message::Mounted),
            (READY, _) => Ok(Message::Ready),
            (NOTE, _) => Ok(Message::Note { step: step(0)? }),
            (SIBLING, _) => Ok(Message::Sibling { pid: number(0)? }),
            _ => Err(Errno::PROTO),
        }
    }
}

impl ChildEnd {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Waits until the parent is done with its part. Without a parent there is no container.
    pub(crate) fn await_go(&self) -> Result<(), Errno> {
        let mut packet = [0; 1];
        match socket::receive(self.fd(), &mut packet)? {
            (1, _) if packet[0] == GO => Ok(()),
            _ => Err(Errno::PIPE),
        }
    }

    /// Says that all is mounted, and waits for the states that hooks get.
    pub(crate) fn await_states(&self) -> Result<[OwnedFd; 2], Errno> {
        socket::send(self.fd(), &[MOUNTED], None)?;
        let next = || match socket::receive(self.fd(), &mut [0; 1])? {
            (1, Some(state)) => Ok(state),
            _ => Err(Errno::PIPE),
        };
        Ok([next()?, next()?])
    }

    pub(crate) fn failed(&self, step: usize, fault: Fault) {
        let words = fault.what.as_bytes();
        self.say(FAILED, step, Some(fault.errno), words.get(..words.len().min(LONGEST - 9)).unwrap_or_default());
    }

    pub(crate) fn note(&self, step: usize) {
        self.say(NOTE, step, None, &[]);
    }

    pub(crate) fn sibling(&self, pid: i32) {
        self.say(SIBLING, pid.unsigned_abs() as usize, None, &[]);
    }

    /// Fails if the parent is gone.
    pub(crate) fn ready(&self) -> Result<(), Errno> {
        socket::send(self.fd(), &[READY], None)
    }

    pub(crate) fn terminal(&self, master: BorrowedFd<'_>) -> Result<(), Errno> {
        socket::send(self.fd(), &[TERMINAL], Some(master))
    }

    pub(crate) fn file(&self, which: u8, file: BorrowedFd<'_>) -> Result<(), Errno> {
        socket::send(self.fd(), &[FILE, which, 0, 0, 0], Some(file))
    }

    /// If the parent is gone there is nobody to tell.
    fn say(&self, kind: u8, number: usize, errno: Option<i32>, words: &[u8]) {
        let mut packet = [0; LONGEST];
        packet[0] = kind;
        packet[1..5].copy_from_slice(&i32::try_from(number).unwrap_or(i32::MAX).to_le_bytes());
        let mut len = 5;
        if let Some(errno) = errno {
            packet[5..9].copy_from_slice(&errno.to_le_bytes());
            len = 9 + words.len();
            packet[9..len].copy_from_slice(words);
        }
        socket::send(self.fd(), &packet[..len], None).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_child_says_arrives() {
        let (parent, child) = pair().unwrap();
        parent.go().unwrap();
        child.await_go().unwrap();
        child.note(3);
        child.failed(70_000, Fault { what: "openat2", errno: 2 });
        child.sibling(77);
        child.terminal(child.fd()).unwrap();
        assert!(matches!(parent.next().unwrap(), Message::Note { step: 3 }));
        let failed = parent.next().unwrap();
        assert!(matches!(failed, Message::Failed { step: 70_000, what, errno: 2 } if what == "openat2"));
        assert!(matches!(parent.next().unwrap(), Message::Sibling { pid: 77 }));
        assert!(matches!(parent.next().unwrap(), Message::Terminal(_)));
        drop(child);
        assert!(matches!(parent.next().unwrap(), Message::End));
    }

    #[test]
    fn a_long_fault_is_cut_and_a_child_without_parent_does_not_go() {
        let (parent, child) = pair().unwrap();
        let what: &'static str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
            xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
            xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
        child.failed(0, Fault { what, errno: 0 });
        assert!(matches!(parent.next().unwrap(), Message::Failed { what, .. } if what.len() == LONGEST - 9));
        drop(parent);
        assert_eq!(child.await_go(), Err(Errno::PIPE));
    }
}
