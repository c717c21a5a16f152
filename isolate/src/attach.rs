//! The foreground: signals go to the container, its terminal's bytes come and go.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios};

use crate::error::Error;
use crate::parent::Container;
use crate::process::{Exit, Process};

/// Bytes that are read at once.
const CHUNK: usize = 16 * 1024;
/// Ctrl-D, which ends a terminal's input.
const END_OF_INPUT: u8 = 4;

/// The signals that are handed on, held back until there is somebody to hand them to.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Holds the signals back in this thread and in those that it will start.
    ///
    /// # Errors
    /// The kernel has no signalfd to give.
    pub fn hold() -> io::Result<Self> {
        let mut set = SigSet::all();
        // Stopping lamel itself is the shell's business, and faults are this process's own.
        let own = [
            Signal::SIGCHLD,
            Signal::SIGTSTP,
            Signal::SIGTTIN,
            Signal::SIGTTOU,
            Signal::SIGPIPE,
            Signal::SIGURG,
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGSYS,
        ];
        for signal in own {
            set.remove(signal);
        }
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The number of one that has come.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn next(&self) -> io::Result<Option<i32>> {
        Ok(self.0.read_signal()?.and_then(|info| i32::try_from(info.ssi_signo).ok()))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One direction of a terminal's bytes.
struct Pump {
    buffer: Box<[u8; CHUNK]>,
    start: usize,
    end: usize,
}

impl Pump {
    fn new() -> Self {
        Self { buffer: Box::new([0; CHUNK]), start: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Reads if there is room; `false` at the end.
    fn fill(&mut self, from: BorrowedFd<'_>) -> Result<bool, Errno> {
        if !self.is_empty() {
            return Ok(true);
        }
        match rustix::io::read(from, &mut self.buffer[..]) {
            // EIO: the last process with the terminal open has closed it.
            Ok(0) | Err(Errno::IO) => Ok(false),
            Ok(len) => {
                (self.start, self.end) = (0, len);
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    fn drain(&mut self, to: BorrowedFd<'_>) -> Result<(), Errno> {
        while !self.is_empty() {
            match rustix::io::write(to, &self.buffer[self.start..self.end]) {
                Ok(len) => self.start += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// The user's terminal in raw mode; as before when dropped.
#[derive(Debug)]
pub struct Raw(Termios);

impl Raw {
    /// `None` if standard input is no terminal.
    #[must_use]
    pub fn set() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        let before = rustix::termios::tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(stdin, OptionalActions::Drain, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.0).ok();
    }
}

/// The size of the user's terminal, if there is one: columns and rows.
#[must_use]
pub fn terminal_size() -> Option<(u16, u16)> {
    let of = |fd: BorrowedFd<'_>| rustix::termios::tcgetwinsize(fd).ok().map(|size| (size.ws_col, size.ws_row));
    of(rustix::stdio::stdin()).or_else(|| of(rustix::stdio::stdout()))
}

impl Container {
    /// [`Process::attend`] for the first process, which is the container.
    ///
    /// # Errors
    /// The container cannot be waited for.
    pub fn attend(&mut self, signals: &Signals, input: bool) -> Result<Exit, Error> {
        self.process().attend(signals, input)
    }
}

impl Process {
    /// Hands signals to the process, and its terminal's bytes to and fro, until it ends. Without `input` the
    /// terminal gets nothing of standard input.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn attend(&mut self, signals: &Signals, input: bool) -> Result<Exit, Error> {
        let terminal = self.take_terminal();
        let failed = |errno| Error::Call { call: "poll", object: "the container".to_owned(), errno };
        match terminal {
            Some(master) => self.relay(signals, &master, input).map_err(failed)?,
            None => self.forward(signals).map_err(failed)?,
        }
        self.wait()
    }

    fn forward(&self, signals: &Signals) -> Result<(), Errno> {
        while !self.has_ended() {
            let mut fds = [
                PollFd::from_borrowed_fd(self.pidfd(), PollFlags::IN),
                PollFd::from_borrowed_fd(signals.0.as_fd(), PollFlags::IN),
            ];
            retry(|| poll(&mut fds, None))?;
            self.hand_on(signals, None);
        }
        Ok(())
    }

    fn hand_on(&self, signals: &Signals, master: Option<BorrowedFd<'_>>) {
        while let Ok(Some(signal)) = signals.next() {
            match (signal, master, terminal_size()) {
                (libc::SIGWINCH, Some(master), Some((columns, rows))) => {
                    crate::tty::resize(master, columns, rows).ok();
                }
                // It may just have ended.
                _ => drop(self.signal(signal).ok()),
            }
        }
    }

    fn relay(&self, signals: &Signals, master: &OwnedFd, input: bool) -> Result<(), Errno> {
        let flags = rustix::fs::fcntl_getfl(master)?;
        rustix::fs::fcntl_setfl(master, flags | rustix::fs::OFlags::NONBLOCK)?;
        let raw = if input { Raw::set() } else { None };
        let (mut typed, mut shown) = (Pump::new(), Pump::new());
        let mut open = input;
        let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        loop {
            let wanted = |yes: bool, flag| if yes { flag } else { PollFlags::empty() };
            let master_flags = PollFlags::IN | wanted(!typed.is_empty(), PollFlags::OUT);
            let mut fds = [
                PollFd::from_borrowed_fd(self.pidfd(), PollFlags::IN),
                PollFd::from_borrowed_fd(signals.0.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(master.as_fd(), master_flags),
                PollFd::from_borrowed_fd(stdin, wanted(open && typed.is_empty(), PollFlags::IN)),
            ];
            // A closed standard input would wake this up for ever.
            let count = if open { fds.len() } else { fds.len() - 1 };
            retry(|| poll(&mut fds[..count], None))?;
            let ready: [bool; 4] = std::array::from_fn(|at| at < count && !fds[at].revents().is_empty());
            self.hand_on(signals, Some(master.as_fd()));
            if ready[3] && open && !typed.fill(stdin)? {
                open = false;
                // Not if a user's own terminal has gone: that is a hang-up.
                if raw.is_none() {
                    typed.buffer[0] = END_OF_INPUT;
                    (typed.start, typed.end) = (0, 1);
                }
            }
            typed.drain(master.as_fd()).ok();
            if ready[2] && !shown.fill(master.as_fd())? {
                // Nobody has the terminal any more.
                return self.forward(signals);
            }
            shown.drain(stdout)?;
            if ready[0] {
                // What was written last is still to be shown.
                while shown.fill(master.as_fd())? && !shown.is_empty() {
                    shown.drain(stdout)?;
                }
                return Ok(());
            }
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
