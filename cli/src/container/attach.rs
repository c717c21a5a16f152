//! `lamel attach`, and how every command stays with a container: its output comes here, and input goes there.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use lamel_isolate::attach::Signals;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use super::control;
use super::record::Record;
use super::state::Status;
use super::terminal::{self, DetachKeys, Raw};
use super::wire::{Buffer, CHUNK, Line, Reply, Request, Stream};
use crate::image::StoreArgs;

/// Ctrl-D, which ends a terminal's input.
const END_OF_INPUT: u8 = 4;

/// See the output of a running container, and give it input
///
/// What it wrote before is told by `lamel logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    stay: StayArgs,
    /// Give no input
    #[arg(long)]
    no_stdin: bool,
    /// Its name or id
    container: String,
}

/// Options of staying with a container.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StayArgs {
    /// Keys that leave the container running and end this command
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: DetachKeys,
    /// Whether signals that this command gets go to the container
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub(crate) sig_proxy: bool,
}

/// How a stay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// With the container, which exited with this.
    Exited(i32),
    /// The container goes on.
    Detached,
}

/// Attaches.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let record = super::containers(&args.store)?.find(&args.container)?;
    match record.state()?.status {
        Status::Running => {}
        Status::Paused => bail!("You cannot attach to a paused container, unpause it first"),
        Status::Restarting => bail!("You cannot attach to a restarting container, wait until it is running"),
        Status::Created | Status::Exited => bail!("You cannot attach to a stopped container, start it first"),
    }
    let input = record.settings.interactive && !args.no_stdin;
    let stay = Stay::new(&record, input, &args.stay)?;
    let Some(line) = control::connect(&record)? else { bail!("container {} is not running", record.settings.name) };
    line.ask(&Request::Attach).context("the container's monitor")?;
    stay.ready(&line);
    Ok(match stay.stay(&line)? {
        Left::Exited(code) => super::exit_code(code),
        Left::Detached => ExitCode::SUCCESS,
    })
}

/// What a command needs to stay with a container; to be made before the container is started, so that no signal is lost.
pub(crate) struct Stay {
    signals: Option<Signals>,
    keys: DetachKeys,
    input: bool,
    tty: bool,
}

impl Stay {
    pub(crate) fn new(record: &Record, input: bool, args: &StayArgs) -> Result<Self> {
        // Of a terminal's signals, it makes its own; but its size is told by one.
        let wants_signals = args.sig_proxy || record.settings.tty;
        let signals = if wants_signals { Some(Signals::hold().context("signals")?) } else { None };
        Ok(Self { signals, keys: args.detach_keys.clone(), input, tty: record.settings.tty })
    }

    /// Tells the container's terminal the size of this one.
    pub(crate) fn ready(&self, line: &Line) {
        if let Some((columns, rows)) = terminal::size().filter(|_| self.tty) {
            line.ask(&Request::Resize(columns, rows)).ok();
        }
    }

    /// Stays until the container ends or the keys are typed.
    pub(crate) fn stay(mut self, line: &Line) -> Result<Left> {
        let raw = if self.tty && self.input { Raw::set() } else { None };
        let lost = || "the container's monitor is gone: it was killed, and the container with it";
        let mut buffer = Buffer::new();
        let mut chunk = vec![0; CHUNK];
        let (mut open, mut taken) = (self.input, true);
        let stdin = rustix::stdio::stdin();
        loop {
            let never = |fd| PollFd::from_borrowed_fd(fd, PollFlags::empty());
            let mut fds = [
                PollFd::from_borrowed_fd(line.0.as_fd(), PollFlags::IN),
                self.signals
                    .as_ref()
                    .map_or(never(line.0.as_fd()), |signals| PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)),
                PollFd::from_borrowed_fd(stdin, PollFlags::IN),
            ];
            let count = if open && taken { 3 } else { 2 };
            match poll(&mut fds[..count], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("poll"),
            }
            let ready: [bool; 3] = std::array::from_fn(|at| at < count && !fds[at].revents().is_empty());
            if ready[1] {
                self.hand_on(line);
            }
            if ready[2] {
                match read(stdin, &mut chunk).context("standard input")? {
                    None => {}
                    Some([]) => {
                        open = false;
                        // Not if a user's own terminal has gone: that is a hang-up.
                        let end = if !self.tty { Some(Request::EndOfInput) } else { None };
                        let end = end.or_else(|| raw.is_none().then(|| Request::Input(vec![END_OF_INPUT])));
                        if let Some(end) = end {
                            line.ask(&end).ok();
                        }
                    }
                    Some(input) => {
                        let (passed, leave) = if self.tty { self.keys.sift(input) } else { (input.to_vec(), false) };
                        if !passed.is_empty() {
                            taken = false;
                            line.ask(&Request::Input(passed)).ok();
                        }
                        if leave {
                            drop(raw);
                            // The cursor is where the container left it.
                            show(line, Stream::Err, b"\nlamel: left it running; `lamel attach` comes back\n")?;
                            return Ok(Left::Detached);
                        }
                    }
                }
            }
            if ready[0] {
                match line.answer(&mut buffer).context("the container's monitor")? {
                    None => bail!(lost()),
                    Some(Reply::Taken) => taken = true,
                    Some(Reply::Exited(code)) => return Ok(Left::Exited(code)),
                    Some(Reply::Output(stream, data)) => show(line, stream, &data)?,
                    Some(Reply::Done | Reply::Failed(_)) => {}
                }
            }
        }
    }

    fn hand_on(&self, line: &Line) {
        let Some(signals) = &self.signals else { return };
        while let Ok(Some(number)) = signals.next() {
            match (Signal::from_named_raw(number), self.tty) {
                (Some(Signal::WINCH), true) => self.ready(line),
                // It may just have ended.
                _ => drop(line.ask(&Request::Signal(number)).ok()),
            }
        }
    }
}

/// Reads some of the input; nothing at its end, `None` if there is none yet.
fn read<'a>(stdin: BorrowedFd<'_>, chunk: &'a mut [u8]) -> Result<Option<&'a [u8]>, Errno> {
    match rustix::io::read(stdin, &mut *chunk) {
        Ok(len) => Ok(Some(chunk.get(..len).unwrap_or_default())),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(Errno::IO) => Ok(Some(&[])),
        Err(errno) => Err(errno),
    }
}

/// Writes output where it belongs. Whoever reads it may have seen enough: then the container hears so, as by a pipe.
fn show(line: &Line, stream: Stream, mut data: &[u8]) -> Result<()> {
    let fd = match stream {
        Stream::Out => rustix::stdio::stdout(),
        Stream::Err => rustix::stdio::stderr(),
    };
    while !data.is_empty() {
        match rustix::io::write(fd, data) {
            Ok(len) => data = data.get(len..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
                poll(&mut fds, None).ok();
            }
            Err(Errno::PIPE) => {
                line.ask(&Request::Close(stream)).ok();
                return Ok(());
            }
            Err(errno) => return Err(errno).context("standard output"),
        }
    }
    Ok(())
}
