//! What goes to and fro between the user and a command in a container that does not have the user's own streams.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use lamel_isolate::Process;
use lamel_isolate::attach::Signals;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::super::terminal::{self, DetachKeys, Raw};

/// Bytes that are read at once.
const CHUNK: usize = 16 * 1024;
/// Ctrl-D, which ends a terminal's input.
const END_OF_INPUT: u8 = 4;

/// The other ends of a command's standard streams, for those that go through this process.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

/// How a command was attended to.
#[derive(Debug)]
pub(super) enum Attended {
    /// To its end.
    Ended,
    /// Until the keys were typed that leave it alone, in the terminal that this is the master of.
    Detached(OwnedFd),
}

/// Standard input, on its way to the command.
struct Input {
    /// Closed when all has been typed.
    to: Option<OwnedFd>,
    waiting: Vec<u8>,
    keys: DetachKeys,
}

/// Something that the command writes to; closed when nobody has it open any more.
struct Output<'a> {
    from: Option<OwnedFd>,
    to: BorrowedFd<'a>,
}

/// Hands signals to the command, and bytes to and fro, until it ends or is left alone.
pub(super) fn attend(
    command: &mut Process,
    signals: &Signals,
    input: bool,
    pipes: Pipes,
    keys: &DetachKeys,
) -> Result<Attended> {
    let master = command.take_terminal();
    let dup = |fd: &OwnedFd| fd.try_clone().context("dup");
    let (stdout, stderr) = (rustix::stdio::stdout(), rustix::stdio::stderr());
    let (to, outputs) = match &master {
        Some(master) => (input.then(|| dup(master)).transpose()?, vec![(Some(dup(master)?), stdout)]),
        None => (pipes.stdin, vec![(pipes.stdout, stdout), (pipes.stderr, stderr)]),
    };
    for fd in to.iter().chain(outputs.iter().filter_map(|(from, _)| from.as_ref())) {
        rustix::io::ioctl_fionbio(fd, true).context("ioctl")?;
    }
    let raw = if input && master.is_some() { Raw::set() } else { None };
    let mut relay = Relay {
        input: Input { to, waiting: Vec::new(), keys: keys.clone() },
        outputs: outputs.into_iter().map(|(from, to)| Output { from, to }).collect(),
        // A user's own terminal that ends has hung up; of anything else the end is told by a key.
        end_key: master.is_some() && raw.is_none(),
    };
    let left = relay.run(command, signals, master.as_ref()).context("the container's command")?;
    Ok(match master {
        Some(master) if left => Attended::Detached(master),
        _ => Attended::Ended,
    })
}

struct Relay<'a> {
    input: Input,
    outputs: Vec<Output<'a>>,
    end_key: bool,
}

impl Relay<'_> {
    /// Until the command ends; true if it is to be left alone.
    fn run(&mut self, command: &Process, signals: &Signals, master: Option<&OwnedFd>) -> Result<bool, Errno> {
        let stdin = rustix::stdio::stdin();
        loop {
            let mut fds = vec![
                PollFd::from_borrowed_fd(command.pidfd(), PollFlags::IN),
                PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            ];
            fds.extend(
                self.outputs
                    .iter()
                    .filter_map(|output| Some(PollFd::from_borrowed_fd(output.from.as_ref()?.as_fd(), PollFlags::IN))),
            );
            // What was typed is handed on before more is read.
            let reads = self.input.waiting.is_empty();
            if let Some(to) = &self.input.to {
                fds.push(match reads {
                    true => PollFd::from_borrowed_fd(stdin, PollFlags::IN),
                    false => PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT),
                });
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            let is_ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
            let (ended, typed) = (is_ready(fds.first()), self.input.to.is_some() && is_ready(fds.last()));
            hand_on(command, signals, master);
            if typed && reads && self.input.take(stdin, self.end_key)? {
                return Ok(true);
            }
            self.input.hand_on()?;
            for output in &mut self.outputs {
                while output.show()? && ended {}
            }
            if ended {
                return Ok(false);
            }
        }
    }
}

fn hand_on(command: &Process, signals: &Signals, master: Option<&OwnedFd>) {
    while let Ok(Some(signal)) = signals.next() {
        match (rustix::process::Signal::from_named_raw(signal), master, terminal::size()) {
            (Some(rustix::process::Signal::WINCH), Some(master), Some(size)) => {
                terminal::resize(master, size).ok();
            }
            // It may just have ended.
            _ => drop(command.signal(signal).ok()),
        }
    }
}

impl Input {
    /// Takes what was typed; true if the keys were among it that leave the command alone.
    fn take(&mut self, stdin: BorrowedFd<'_>, end_key: bool) -> Result<bool, Errno> {
        let mut chunk = vec![0; CHUNK];
        let typed = match rustix::io::read(stdin, &mut chunk) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Ok(0) | Err(Errno::IO) => {
                if end_key && let Some(to) = &self.to {
                    rustix::io::write(to, &[END_OF_INPUT]).ok();
                }
                self.to = None;
                return Ok(false);
            }
            len => chunk.get(..len?).unwrap_or_default(),
        };
        let (passed, left) = self.keys.sift(typed);
        self.waiting = passed;
        Ok(left)
    }

    fn hand_on(&mut self) -> Result<(), Errno> {
        while let Some(to) = self.to.as_ref().filter(|_| !self.waiting.is_empty()) {
            match rustix::io::write(to, &self.waiting) {
                Ok(len) => drop(self.waiting.drain(..len)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                // Nobody reads it any more.
                Err(Errno::PIPE | Errno::IO) => self.to = None,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

impl Output<'_> {
    /// Shows a piece of what there is; false if there is no more now.
    fn show(&mut self) -> Result<bool, Errno> {
        let Some(from) = &self.from else { return Ok(false) };
        let mut chunk = vec![0; CHUNK];
        let len = match rustix::io::read(from, &mut chunk) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            // EIO: the last process with the terminal open has closed it.
            Ok(0) | Err(Errno::IO) => {
                self.from = None;
                return Ok(false);
            }
            len => len?,
        };
        let mut rest = chunk.get(..len).unwrap_or_default();
        while !rest.is_empty() {
            match rustix::io::write(self.to, rest) {
                Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::from_borrowed_fd(self.to, PollFlags::OUT)], None).ok();
                }
                // Whoever read it has seen enough: the command hears so, as by a pipe.
                Err(Errno::PIPE) => {
                    self.from = None;
                    return Ok(false);
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }
}
