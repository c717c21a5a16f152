//! What a monitor waits for, and what it does then. It sleeps while nothing happens.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use lamel_isolate::attach::Signals;
use lamel_isolate::oci::Spec;
use lamel_isolate::{Container, Options, exe};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::Signal;

use super::super::log::Log;
use super::super::record::Record;
use super::super::records::Containers;
use super::super::state::{State, Status};
use super::super::wire::{Buffer, CHUNK, Reply, Request, Stream};
use super::client::{Awaits, Client};
use super::health::Checks;
use super::stdio::{self, Read, Streams};
use super::union::Union;
use crate::network::Connection;

/// The number of the signal that ends everything.
const KILL: i32 = Signal::KILL.as_raw();

/// The container while it runs.
pub(super) struct Run {
    pub(super) container: Container,
    /// Dropped after the container: nobody sends any more.
    #[expect(dead_code, reason = "held, not read")]
    pub(super) connection: Option<Connection>,
    pub(super) streams: Streams,
    /// Input that it has not taken yet.
    pub(super) input: Vec<u8>,
    /// After that its input ends.
    pub(super) input_ends: bool,
}

/// A container's monitor.
pub(super) struct Monitor {
    pub(super) containers: Containers,
    pub(super) record: Record,
    pub(super) state: State,
    pub(super) spec: Spec,
    /// This process is in a user namespace that has the container's ids.
    pub(super) nested: bool,
    pub(super) options: Options,
    pub(super) run: Option<Run>,
    pub(super) started: Instant,
    /// When it gets SIGKILL.
    pub(super) kill_at: Option<Instant>,
    /// A command has asked it to end, and hears of the end by an event.
    pub(super) stopping: bool,
    /// This process was told to end, and so was its container: that is no command to stop it, and no boot respects it.
    pub(super) ending: bool,
    /// When it is started again.
    pub(super) start_at: Option<Instant>,
    /// It is started again as soon as it has ended.
    pub(super) again: bool,
    pub(super) backoff: Duration,
    /// When it has to be taken for one that runs long.
    pub(super) settled_at: Option<Instant>,
    /// Whether it is well, if it says how that is seen.
    pub(super) checks: Option<Checks>,
    pub(super) clients: Vec<Client>,
    pub(super) union: Option<Union>,
    pub(super) listener: OwnedFd,
    signals: Signals,
    log: Log,
    buffer: Buffer,
    chunk: Box<[u8; CHUNK]>,
}

/// What a monitor works with, apart from the container itself.
pub(super) struct Equipment {
    pub(super) signals: Signals,
    pub(super) listener: OwnedFd,
    pub(super) log: Log,
    pub(super) union: Option<Union>,
    pub(super) client: Client,
}

/// What woke the monitor up.
enum Woken {
    Ended,
    Output(Stream),
    Input,
    Signals,
    Listener,
    Client(usize),
    Checked,
}

impl Monitor {
    pub(super) fn new(
        containers: Containers,
        record: Record,
        state: State,
        (spec, nested): (Spec, bool),
        options: Options,
        equipment: Equipment,
    ) -> Self {
        let Equipment { signals, listener, log, union, client } = equipment;
        Self {
            containers,
            record,
            state,
            spec,
            nested,
            options,
            run: None,
            started: Instant::now(),
            kill_at: None,
            stopping: false,
            ending: false,
            start_at: None,
            again: false,
            backoff: Self::first_wait(),
            settled_at: None,
            checks: None,
            clients: vec![client],
            union,
            listener,
            signals,
            log,
            buffer: Buffer::new(),
            chunk: Box::new([0; CHUNK]),
        }
    }

    /// Does what comes up, until the container has ended for good.
    pub(super) fn serve(&mut self) {
        loop {
            let now = Instant::now();
            if self.kill_at.is_some_and(|at| at <= now) {
                self.kill_at = None;
                self.kill();
            }
            if self.start_at.is_some_and(|at| at <= now) && !self.start_again() {
                return;
            }
            if self.settled_at.is_some_and(|at| at <= now) {
                self.settled_at = None;
                exe::give_back();
            }
            self.make_check();
            for woken in self.wait() {
                match woken {
                    Woken::Ended => {
                        if !self.ended() {
                            return;
                        }
                        // What else was ready is of a run that is over.
                        break;
                    }
                    Woken::Output(stream) => {
                        if let Some(mut run) = self.run.take() {
                            self.pass_on(&mut run.streams, stream);
                            self.run = Some(run);
                        }
                    }
                    Woken::Input => self.feed(),
                    Woken::Signals => self.obey_signals(),
                    Woken::Listener => self.welcome(),
                    Woken::Checked => self.checked(),
                    Woken::Client(at) => {
                        if !self.attend(at) {
                            return;
                        }
                    }
                }
            }
            self.clients.retain(|client| !client.gone);
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) -> Vec<Woken> {
        let mut fds = vec![
            watch(self.listener.as_fd(), PollFlags::IN, Woken::Listener),
            watch(self.signals.as_fd(), PollFlags::IN, Woken::Signals),
        ];
        for (at, client) in self.clients.iter().enumerate() {
            let out = if client.has_more() { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(watch(client.fd(), PollFlags::IN | out, Woken::Client(at)));
        }
        if let Some(run) = &self.run {
            // Who looks at the output decides how fast it comes.
            if !self.clients.iter().any(Client::is_clogged) {
                for (stream, fd) in run.streams.outputs() {
                    fds.push(watch(fd.as_fd(), PollFlags::IN, Woken::Output(stream)));
                }
            }
            if let Some(fd) = run.streams.input().filter(|_| !run.input.is_empty()) {
                fds.push(watch(fd.as_fd(), PollFlags::OUT, Woken::Input));
            }
            fds.push(watch(run.container.pidfd(), PollFlags::IN, Woken::Ended));
            fds.extend(self.checks.as_ref().map(|checks| watch(checks.fd(), PollFlags::IN, Woken::Checked)));
        }
        let (mut polled, woken): (Vec<PollFd<'_>>, Vec<Woken>) = fds.into_iter().unzip();
        let check_at = self.checks.as_ref().and_then(Checks::due);
        let due = [self.kill_at, self.start_at, self.settled_at, check_at].into_iter().flatten().min();
        let timeout = due.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                tracing::error!("poll: {errno}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let ready = polled.iter().map(|fd| !fd.revents().is_empty());
        woken.into_iter().zip(ready).filter(|(_, ready)| *ready).map(|(woken, _)| woken).collect()
    }

    /// Waits until a command takes more, at the end.
    pub(super) fn await_room(&mut self) {
        let wanted = self.clients.iter().filter(|client| client.has_more());
        let mut fds: Vec<PollFd<'_>> =
            wanted.map(|client| PollFd::from_borrowed_fd(client.fd(), PollFlags::OUT)).collect();
        let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
        poll(&mut fds, Some(&timeout)).ok();
        self.clients.iter_mut().for_each(Client::flush);
    }

    /// Logs and passes on what the container has written. `false`: there is nothing more for now.
    pub(super) fn pass_on(&mut self, streams: &mut Streams, stream: Stream) -> bool {
        let Some((_, fd)) = streams.outputs().find(|(which, _)| *which == stream) else { return false };
        match stdio::read(fd, &mut self.chunk[..]) {
            Read::Some(len) => {
                let data = self.chunk.get(..len).unwrap_or_default();
                self.log.write(stream, data);
                let mut attached = self.clients.iter_mut().filter(|client| client.hears(stream)).peekable();
                if attached.peek().is_some() {
                    let reply = Reply::Output(stream, data.to_vec());
                    attached.for_each(|client| client.tell(&reply));
                }
                true
            }
            Read::Nothing => false,
            Read::End => {
                streams.close(stream);
                false
            }
        }
    }

    /// Gives the container its input, as much as it takes.
    fn feed(&mut self) {
        let Some(run) = &mut self.run else { return };
        if !run.input.is_empty() {
            match run.streams.input().map_or(Err(Errno::PIPE), |fd| rustix::io::write(fd, &run.input)) {
                Ok(len) => drop(run.input.drain(..len)),
                Err(Errno::AGAIN | Errno::INTR) => return,
                // It does not read any more.
                Err(_) => {
                    run.input.clear();
                    run.input_ends = true;
                }
            }
        }
        if run.input.is_empty() {
            if run.input_ends {
                run.streams.input = None;
            }
            for client in &mut self.clients {
                if std::mem::take(&mut client.waits_for_room) {
                    client.tell(&Reply::Taken);
                }
            }
        }
    }

    fn obey_signals(&mut self) {
        while let Ok(Some(number)) = self.signals.next() {
            match Signal::from_named_raw(number) {
                // Who ends the monitor means the container.
                Some(Signal::TERM | Signal::INT | Signal::HUP | Signal::QUIT) => {
                    self.ending = true;
                    self.stop(None);
                }
                _ => tracing::debug!("signal {number}"),
            }
        }
    }

    fn welcome(&mut self) {
        while let Ok(socket) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            self.clients.push(Client::new(socket, false));
        }
    }

    /// Does what a command asks. `false`: the monitor's work is done.
    fn attend(&mut self, at: usize) -> bool {
        loop {
            let Some(client) = self.clients.get_mut(at) else { return true };
            client.flush();
            let Some(request) = client.next(&mut self.buffer) else {
                // Who was there to type is gone, and nobody else will.
                if client.gone && client.attached && client.typed && !self.record.settings.tty {
                    self.end_input();
                }
                return true;
            };
            let mut goes_on = true;
            let answer = match request {
                Request::Attach => {
                    client.attached = true;
                    None
                }
                Request::Input(data) => {
                    client.typed = true;
                    client.waits_for_room = true;
                    if let Some(run) = &mut self.run {
                        run.input.extend_from_slice(&data);
                    }
                    self.feed();
                    None
                }
                Request::EndOfInput => {
                    self.end_input();
                    None
                }
                Request::Resize(columns, rows) => {
                    let terminal = self.run.as_ref().and_then(|run| run.streams.terminal.as_ref());
                    if let Some(terminal) = terminal
                        && let Err(errno) = crate::container::terminal::resize(terminal, (columns, rows))
                    {
                        tracing::debug!("resizing: {errno}");
                    }
                    None
                }
                Request::Signal(number) => Some(self.signal(number)),
                Request::Stop(seconds) => {
                    client.awaits = Awaits::Stopped;
                    goes_on = self.stop(seconds);
                    None
                }
                Request::Restart(seconds) => {
                    client.awaits = Awaits::Restarted;
                    self.again = true;
                    goes_on = self.stop(seconds) || self.start_again();
                    None
                }
                Request::Pause => Some(self.freeze(true)),
                Request::Unpause => Some(self.freeze(false)),
                Request::Wait => {
                    client.awaits = Awaits::End;
                    None
                }
                Request::Close(stream) => {
                    client.shut.push(stream);
                    // The log alone is no reason to go on for a program that writes without end.
                    let others = self.clients.iter().any(|client| client.hears(stream));
                    if let Some(run) = self.run.as_mut().filter(|run| !others && run.streams.terminal.is_none()) {
                        run.streams.close(stream);
                    }
                    None
                }
            };
            if let (Some(answer), Some(client)) = (answer, self.clients.get_mut(at)) {
                client.tell(&answer);
            }
            if !goes_on {
                return false;
            }
        }
    }

    fn end_input(&mut self) {
        if let Some(run) = &mut self.run {
            run.input_ends = true;
        }
        self.feed();
    }

    fn signal(&mut self, number: i32) -> Reply {
        let Some(run) = &mut self.run else { return self.not_running() };
        match run.container.signal(number) {
            Ok(()) => {
                // As docker has it: who kills it, has stopped it.
                if number == KILL || number == self.record.settings.stop_signal {
                    self.state.stopped = true;
                    self.save();
                }
                if number == KILL {
                    self.thaw();
                }
                self.tell_event("kill", &[("signal", number.to_string())]);
                Reply::Done
            }
            Err(errno) => Reply::Failed(format!("signal {number}: {errno}")),
        }
    }

    fn not_running(&self) -> Reply {
        Reply::Failed(format!("container {} is not running", self.record.settings.name))
    }

    /// Begins to stop the container. `false`: it does not run, and will not.
    fn stop(&mut self, seconds: Option<u32>) -> bool {
        if !self.ending {
            self.state.stopped = !self.again;
        }
        let Some(run) = &self.run else {
            self.start_at = None;
            return false;
        };
        let seconds = seconds.unwrap_or(self.record.settings.stop_timeout);
        let signal = self.record.settings.stop_signal;
        if let Err(errno) = run.container.signal(signal) {
            tracing::warn!("signal {signal}: {errno}");
        }
        self.stopping = true;
        self.tell_event("kill", &[("signal", signal.to_string())]);
        let at = Instant::now() + Duration::from_secs(seconds.into());
        self.kill_at = Some(self.kill_at.map_or(at, |before| before.min(at)));
        self.thaw();
        self.save();
        true
    }

    fn kill(&mut self) {
        if let Some(run) = &self.run
            && let Err(errno) = run.container.signal(KILL)
        {
            tracing::error!("SIGKILL: {errno}");
        }
        self.tell_event("kill", &[("signal", KILL.to_string())]);
        self.thaw();
    }

    /// What is frozen does not die.
    fn thaw(&mut self) {
        if self.state.status == Status::Paused {
            self.freeze(false);
        }
    }

    fn freeze(&mut self, frozen: bool) -> Reply {
        let name = &self.record.settings.name;
        let wanted = if frozen { Status::Running } else { Status::Paused };
        let Some(run) = self.run.as_mut().filter(|_| self.state.status == wanted) else {
            return Reply::Failed(match self.state.status {
                Status::Paused => format!("container {name} is already paused"),
                Status::Running => format!("container {name} is not paused"),
                _ => format!("container {name} is not running"),
            });
        };
        if let Err(error) = run.container.freeze(frozen) {
            return Reply::Failed(error.to_string());
        }
        self.state.status = if frozen { Status::Paused } else { Status::Running };
        self.save();
        self.tell_event(if frozen { "pause" } else { "unpause" }, &[]);
        Reply::Done
    }
}

fn watch(fd: BorrowedFd<'_>, flags: PollFlags, woken: Woken) -> (PollFd<'_>, Woken) {
    (PollFd::from_borrowed_fd(fd, flags), woken)
}
