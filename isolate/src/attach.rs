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

    fn next(&self) -> io::Result<Option<i32>> {
        Ok(self.0.read_signal()?.and_then(|info| i32::try_from(info.ssi_signo).ok()))
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

    fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes these in place of what is there, as far as there is room.
    fn put(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(CHUNK);
        if let (Some(to), Some(from)) = (self.buffer.get_mut(..len), bytes.get(..len)) {
            to.copy_from_slice(from);
        }
        (self.start, self.end) = (0, len);
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
struct Raw(Termios);

impl Raw {
    fn set() -> Option<Self> {
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

/// How a process was attended to.
#[derive(Debug)]
pub enum Attended {
    /// To its end.
    Ended(Exit),
    /// Until the keys were typed that leave it alone. Its terminal's master stays open as long as this does.
    Detached(OwnedFd),
}

/// The other ends of a process's standard streams, for those that go through this process.
#[derive(Debug, Default)]
pub struct Pipes {
    /// What is typed goes there.
    pub stdin: Option<OwnedFd>,
    /// Shown on standard output.
    pub stdout: Option<OwnedFd>,
    /// Shown on standard error.
    pub stderr: Option<OwnedFd>,
}

impl Process {
    /// Hands signals to the process, and its terminal's bytes to and fro, until it ends. Without `input` the
    /// terminal gets nothing of standard input.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn attend(&mut self, signals: &Signals, input: bool) -> Result<Exit, Error> {
        match self.attend_or_leave(signals, input, Pipes::default(), &[])? {
            Attended::Ended(exit) => Ok(exit),
            Attended::Detached(_) => self.wait(),
        }
    }

    /// The same, also with pipes for standard streams, and until the keys `detach` are typed, if there are any and there
    /// is a terminal. Then the process is to be left ([`Self::leave`]), or waited for.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn attend_or_leave(
        &mut self,
        signals: &Signals,
        input: bool,
        pipes: Pipes,
        detach: &[u8],
    ) -> Result<Attended, Error> {
        let failed = |errno| Error::Call { call: "poll", object: "the container".to_owned(), errno };
        let terminal = self.take_terminal();
        let (stdout, stderr) = (rustix::stdio::stdout(), rustix::stdio::stderr());
        let Pipes { stdin, stdout: out, stderr: err } = pipes;
        for fd in [&terminal, &stdin, &out, &err].into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true).map_err(failed)?;
        }
        let mut relay = match &terminal {
            Some(master) => Relay {
                input: match input {
                    true => Some(Input::new(rustix::io::fcntl_dupfd_cloexec(master, 3).map_err(failed)?, detach)),
                    false => None,
                },
                outputs: vec![Output::new(master.as_fd(), stdout)],
                terminal: Some(master.as_fd()),
            },
            None => Relay {
                input: stdin.map(|pipe| Input::new(pipe, &[])),
                outputs: [(&out, stdout), (&err, stderr)]
                    .into_iter()
                    .filter_map(|(pipe, to)| Some(Output::new(pipe.as_ref()?.as_fd(), to)))
                    .collect(),
                terminal: None,
            },
        };
        let raw = if input && terminal.is_some() { Raw::set() } else { None };
        let left = relay.run(self, signals, raw.is_some()).map_err(failed)?;
        drop(raw);
        match (left, terminal) {
            (true, Some(master)) => Ok(Attended::Detached(master)),
            _ => self.wait().map(Attended::Ended),
        }
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
}

/// Standard input, on its way to the process.
struct Input {
    /// Closed when all has been typed.
    to: Option<OwnedFd>,
    pump: Pump,
    keys: Keys,
}

/// Something that the process writes to.
struct Output<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    pump: Pump,
    open: bool,
}

impl<'a> Output<'a> {
    fn new(from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Self {
        Self { from, to, pump: Pump::new(), open: true }
    }

    /// Shows what is there; false if that is the end, or all there is for now.
    fn show(&mut self) -> Result<bool, Errno> {
        self.open = self.open && self.pump.fill(self.from)?;
        let any = !self.pump.is_empty();
        self.pump.drain(self.to)?;
        Ok(any)
    }
}

/// Everything that goes to and fro.
struct Relay<'a> {
    input: Option<Input>,
    outputs: Vec<Output<'a>>,
    terminal: Option<BorrowedFd<'a>>,
}

impl Relay<'_> {
    /// Until the process ends; true if it is to be left alone.
    fn run(&mut self, process: &Process, signals: &Signals, raw: bool) -> Result<bool, Errno> {
        let stdin = rustix::stdio::stdin();
        loop {
            let mut fds = vec![
                PollFd::from_borrowed_fd(process.pidfd(), PollFlags::IN),
                PollFd::from_borrowed_fd(signals.0.as_fd(), PollFlags::IN),
            ];
            let reads = match &self.input {
                Some(Input { to: Some(to), pump, .. }) => {
                    // Not both: what was typed is handed on before more is read.
                    fds.push(match pump.is_empty() {
                        true => PollFd::from_borrowed_fd(stdin, PollFlags::IN),
                        false => PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT),
                    });
                    pump.is_empty()
                }
                _ => false,
            };
            let outputs: Vec<_> = self.outputs.iter().filter(|output| output.open).map(|output| output.from).collect();
            fds.extend(outputs.iter().map(|from| PollFd::from_borrowed_fd(*from, PollFlags::IN)));
            retry(|| poll(&mut fds, None))?;
            let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
            let (ended, typed) = (ready(0), ready(2) && reads);
            process.hand_on(signals, self.terminal);
            if let Some(input) = &mut self.input
                && input.advance(typed, stdin, self.terminal.is_some() && !raw)?
            {
                return Ok(true);
            }
            for output in &mut self.outputs {
                output.show()?;
            }
            if ended {
                // What was written last is still to be shown.
                for output in &mut self.outputs {
                    while output.show()? {}
                }
                return Ok(false);
            }
        }
    }
}

impl Input {
    fn new(to: OwnedFd, detach: &[u8]) -> Self {
        Self { to: Some(to), pump: Pump::new(), keys: Keys::new(detach) }
    }

    /// Takes what was typed and hands it on; true if the keys were among it that leave the process alone. With
    /// `end_key` the end of the input is told by the key for it.
    fn advance(&mut self, typed: bool, stdin: BorrowedFd<'_>, end_key: bool) -> Result<bool, Errno> {
        let Some(to) = self.to.as_ref().map(OwnedFd::as_fd) else { return Ok(false) };
        if typed && !self.pump.fill(stdin)? {
            if end_key {
                self.pump.put(&[END_OF_INPUT]);
                self.pump.drain(to).ok();
            }
            // Of a user's own terminal it is a hang-up, which is a signal; a pipe is closed by its owner.
            self.to = None;
            return Ok(false);
        }
        if typed {
            match self.keys.sift(self.pump.bytes()) {
                Sifted::All => {}
                Sifted::Rest(rest) => self.pump.put(&rest),
                Sifted::Found => return Ok(true),
            }
        }
        match self.pump.drain(to) {
            // Nobody reads it any more.
            Err(Errno::PIPE | Errno::IO) => self.to = None,
            drained => drained?,
        }
        Ok(false)
    }
}

/// Looks for the keys that leave a process alone.
#[derive(Debug)]
struct Keys {
    keys: Vec<u8>,
    /// How many of them have been typed.
    typed: usize,
}

/// What is to be handed on of some bytes.
#[derive(Debug, PartialEq, Eq)]
enum Sifted {
    /// All of them.
    All,
    /// These.
    Rest(Vec<u8>),
    /// Nothing any more: the keys were there.
    Found,
}

impl Keys {
    fn new(keys: &[u8]) -> Self {
        Self { keys: keys.to_vec(), typed: 0 }
    }

    /// The beginning of the keys is held back until it is clear that it is none.
    fn sift(&mut self, bytes: &[u8]) -> Sifted {
        let Some(first) = self.keys.first() else { return Sifted::All };
        if self.typed == 0 && !bytes.contains(first) {
            return Sifted::All;
        }
        let mut rest = Vec::with_capacity(bytes.len() + self.typed);
        for byte in bytes {
            if self.keys.get(self.typed) != Some(byte) {
                rest.extend(self.keys.get(..self.typed).unwrap_or_default());
                self.typed = 0;
            }
            if self.keys.get(self.typed) == Some(byte) {
                self.typed += 1;
            } else {
                rest.push(*byte);
            }
            if self.typed == self.keys.len() {
                return Sifted::Found;
            }
        }
        Sifted::Rest(rest)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_over_several_reads_and_nothing_else_is_lost() {
        let rest = |text: &str| Sifted::Rest(text.as_bytes().to_vec());
        let mut keys = Keys::new(b"\x10\x11");
        assert_eq!(keys.sift(b"ls\n"), Sifted::All);
        assert_eq!(keys.sift(b"a\x10"), rest("a"));
        assert_eq!(keys.sift(b"b"), rest("\x10b"));
        assert_eq!(keys.sift(b"\x10\x10"), rest("\x10"));
        assert_eq!(keys.sift(b"\x11rest"), Sifted::Found);
        assert_eq!(Keys::new(&[]).sift(b"\x10\x11"), Sifted::All);
    }
}
