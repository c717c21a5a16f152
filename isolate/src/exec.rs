//! One process more in a container that runs.
//!
//! It is planned as a container's first process is, and made by the same two processes, but that the namespaces are
//! entered: whoever is in them already would look into it, trace it and take what it has open, if he could.
//!
//! | who | step | why here |
//! |---|---|---|
//! | the one that joins | how likely it is killed | while `/proc/self` is its own to write: who hides has none |
//! | | control groups of version 1, but for that of numbers of processes | who enters by himself is not waited for |
//! | | labels of security modules | the same; the new process inherits what its program is to run under |
//! | | standard streams; all else is closed later | the program's own, set once |
//! | | lamel's own command line is overwritten | the kernel shows it to everybody who sees the process |
//! | | it hides (is not dumpable) | before anybody of the container can reach it; without that, who is root there reads its memory and opens its descriptors (CVE-2016-9962) |
//! | | all namespaces, in one call | the kernel takes the user namespace first, whose capabilities the others need, and takes all or none; a pidfd means this one process, whatever becomes of its number |
//! | | it hides again | entering a user namespace makes it what `fs.suid_dumpable` says |
//! | | every other descriptor is closed | none leads out of the container, whoever gets at them all the same |
//! | | clone | a pid namespace is for children: until here the container sees nothing of all this |
//! | the new process | it waits | the parent puts it into those of the container's control groups that it is not in: it is limited, stopped and killed with the others |
//! | | root of the user namespace, and hides once more | |
//! | | session, keyring | the container's keyring has the name |
//! | | the root is opened | `/` of the mount namespace, which is the container's |
//! | | terminal | out of the container's devpts, which is looked at; its other end goes to the parent by no path |
//! | | limits and all that follows | as for the first process (`plan`); it hides once more after its ids have changed |
//!
//! The program that does this is kept from being written through `/proc/PID/exe` by [`crate::exe::protect`].

mod check;
mod members;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use oci_spec::runtime::{Process as SpecProcess, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};
use rustix::thread::ThreadNameSpaceType as Kinds;

pub use check::{Checked, check};

use crate::cgroup::{self, Doors};
use crate::error::{Called as _, Error, Fault};
use crate::idmap::IdMaps;
use crate::label::{self, Labels};
use crate::plan;
use crate::process::Process;
use crate::seccomp::Cache;
use crate::sync::{self, ChildEnd, Message};
use crate::sys::process::{self, Cloned, CommandLine};
use crate::user::{self, Accounts, Identity};
use crate::{parent, tty};

/// The namespaces, by their names in /proc.
const NAMESPACES: [(&str, Kinds); 8] = [
    ("user", Kinds::USER),
    ("mnt", Kinds::MOUNT),
    ("pid", Kinds::PROCESS_ID),
    ("net", Kinds::NETWORK),
    ("ipc", Kinds::INTER_PROCESS_COMMUNICATION),
    ("uts", Kinds::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("cgroup", Kinds::CONTROL_GROUP),
    ("time", Kinds::TIME),
];

/// A container that runs.
#[derive(Debug)]
pub struct Target {
    /// Its first process.
    first: Pid,
    /// The process whose namespaces are entered, by its number and for certain.
    number: Pid,
    entered: OwnedFd,
    /// Those of them that this process is not in itself.
    kinds: Kinds,
    maps: IdMaps,
}

/// How a process is started in a container, apart from its configuration.
#[derive(Debug)]
pub struct Options {
    /// The container's name, as [`crate::Options`] had it.
    pub name: String,
    /// The container's session keyring.
    pub keyring: bool,
    /// Where compiled filters are kept.
    pub cache: Option<Cache>,
    /// Standard input, output and error; this process's own where there is none.
    pub streams: [Option<OwnedFd>; 3],
    /// How many of this process's descriptors after the standard streams it gets.
    pub preserved: u32,
    /// It ends with this thread.
    pub ends_with_parent: bool,
}

impl Options {
    /// With this process's standard streams, and no longer than it lives.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self { name, keyring: true, cache: None, streams: [None, None, None], preserved: 0, ends_with_parent: true }
    }
}

impl Target {
    /// Finds a container by its first process, which started at `started` (field 22 of `/proc/PID/stat`).
    ///
    /// # Errors
    /// It has ended, or is not this user's.
    pub fn find(pid: i32, started: Option<u64>) -> Result<Self, Error> {
        let gone = || Error::NotRunning { pid };
        let first = Pid::from_raw(pid).ok_or_else(gone)?;
        let open = |pid: Pid| {
            process::pidfd(pid).map_err(|errno| match errno {
                Errno::SRCH => Error::NotRunning { pid: first.as_raw_nonzero().get() },
                errno => Error::call("pidfd_open", "the container's process")(errno),
            })
        };
        let fd = open(first)?;
        if started.is_some() && start_time(first) != started {
            return Err(gone());
        }
        let maps = IdMaps::of_process(first);
        let (kinds, entered) = match kinds(first) {
            // A plain user may not look into lamel's own init, but into the program that it started.
            Err(Error::Call { errno: Errno::ACCESS, .. }) => match oldest_child(first) {
                Some(child) => {
                    let fd = open(child)?;
                    (kinds(child)?, Some((child, fd)))
                }
                None => (kinds(first)?, None),
            },
            kinds => (kinds?, None),
        };
        // All that was read was the container's, and no later process's with the same number.
        if has_ended(fd.as_fd()) || entered.as_ref().is_some_and(|(_, fd)| has_ended(fd.as_fd())) {
            return Err(gone());
        }
        if !kinds.contains(Kinds::MOUNT) {
            return Err(Error::invalid("container", format!("process {pid} is in no container")));
        }
        let (number, entered) = entered.unwrap_or((first, fd));
        Ok(Self { first, number, entered, kinds, maps: maps? })
    }

    /// Whether its processes are stopped.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        cgroup::is_frozen(self.first.as_raw_nonzero().get())
    }

    /// The id inside of a user outside.
    #[must_use]
    pub fn uid_inside(&self, outside: u32) -> Option<u32> {
        self.maps.uid_inside(outside)
    }

    /// The same of a group.
    #[must_use]
    pub fn gid_inside(&self, outside: u32) -> Option<u32> {
        self.maps.gid_inside(outside)
    }

    /// Whether its processes may choose their supplementary groups.
    #[must_use]
    pub fn allows_groups(&self) -> bool {
        self.maps.allows_groups()
    }

    /// Finds who `text` and the groups `more` are in the container, as [`user::resolve`] does in a root directory.
    ///
    /// # Errors
    /// As there; or the container has ended.
    pub fn resolve_user(&self, text: &str, more: &[String]) -> Result<Identity, Error> {
        user::resolve_in(&self.accounts()?, text, more)
    }

    /// The names of the container's users, by number.
    ///
    /// # Errors
    /// Its passwd cannot be read; or it has ended.
    pub fn user_names(&self) -> Result<BTreeMap<u32, String>, Error> {
        user::names(&self.accounts()?)
    }

    /// passwd and group, opened by a process that enters the container for that: from outside its mounts may not be
    /// open to this user, and a path would be resolved here.
    fn accounts(&self) -> Result<Accounts, Error> {
        let failed = |call| Error::call(call, "the container's process");
        let (socket, child_end) = sync::pair().map_err(failed("socketpair"))?;
        let kinds = self.kinds & (Kinds::USER | Kinds::MOUNT);
        let pid = match process::start(0, None).map_err(failed("clone3"))? {
            Cloned::Child => fetch(self.entered.as_fd(), kinds, &child_end),
            Cloned::Parent(pid) => pid,
        };
        drop(child_end);
        let mut files = BTreeMap::new();
        let told = loop {
            match socket.next() {
                Ok(Message::File { which, file }) => {
                    files.extend(user::FILES.get(which).map(|(name, _)| (*name, Ok(file))));
                }
                Ok(Message::Failed { step, what, errno }) if step < user::FILES.len() => {
                    let why = if errno == 0 { what } else { format!("{what}: {}", Errno::from_raw_os_error(errno)) };
                    files.extend(user::FILES.get(step).map(|(name, _)| (*name, Err(why))));
                }
                Ok(Message::Failed { errno, .. }) => {
                    break Err(failed("setns")(Errno::from_raw_os_error(errno)));
                }
                Ok(Message::End) => break Ok(()),
                Ok(_) => {}
                Err(errno) => break Err(failed("recvmsg")(errno)),
            }
        };
        rustix::process::waitpid(Some(pid), WaitOptions::empty()).map_err(failed("waitpid"))?;
        told.map(|()| Accounts::Open(files))
    }

    /// Starts a process in the container: `process` is the process's own configuration, `spec` the container's, of which
    /// it gets the system call filter and what Landlock allows. On return the program runs.
    ///
    /// # Errors
    /// [`Error`] names the step; nothing is left behind.
    pub fn start(&self, spec: &Spec, process: &SpecProcess, options: Options) -> Result<Process, Error> {
        tty::hold_standard_streams().map_err(Error::call("open", "/dev/null"))?;
        let first = self.first.as_raw_nonzero().get();
        if self.is_paused() {
            return Err(Error::Paused);
        }
        let Options { name, keyring, cache, streams, preserved, ends_with_parent } = options;
        let entry = Entry {
            target: self.entered.try_clone().map_err(|_| Error::call("dup", "pidfd")(Errno::MFILE))?,
            kinds: self.kinds,
            oom_score_adj: process
                .oom_score_adj()
                .map(|score| plan::c_string("process.oomScoreAdj", score.to_string().as_bytes()))
                .transpose()?,
            labels: label::plan(process)?,
            streams,
            preserved,
            command_line: CommandLine::find(),
            doors: cgroup::doors(first)?,
        };
        let keyring = keyring.then_some(name.as_str());
        let plan = plan::exec(spec, process, cache.as_ref(), keyring, &self.maps, entry, ends_with_parent)?;
        let (socket, mut started) = parent::clone(&plan)?;
        let prepared = cgroup::follow(first, started.id()).map_err(Error::from);
        match prepared.and_then(|()| socket.go().map_err(Error::call("sendmsg", "the new process"))) {
            Ok(()) => started.await_program(&plan, &socket, &mut || Ok(()))?,
            Err(error) => return Err(started.earlier(&plan, &socket).unwrap_or(error)),
        }
        Ok(started)
    }
}

/// The namespaces of a process that this one is not in.
fn kinds(pid: Pid) -> Result<Kinds, Error> {
    let mut kinds = Kinds::empty();
    for (name, kind) in NAMESPACES {
        // Of this thread, for it is what the process that joins is cloned from.
        let (here, there) =
            (format!("/proc/thread-self/ns/{name}"), format!("/proc/{}/ns/{name}", pid.as_raw_nonzero()));
        let Ok(here) = fs::metadata(here) else { continue };
        let meta = fs::metadata(&there)
            .map_err(|error| Error::call("stat", there)(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        kinds.set(kind, (here.dev(), here.ino()) != (meta.dev(), meta.ino()));
    }
    Ok(kinds)
}

/// Field 22 of `/proc/PID/stat`.
fn start_time(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The second field is a name in parentheses, which may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The first one that a process started and that is still there.
fn oldest_child(pid: Pid) -> Option<Pid> {
    let pid = pid.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let pids = children.split_whitespace().filter_map(|word| word.parse().ok()).filter_map(Pid::from_raw);
    pids.min_by_key(|pid| start_time(*pid).unwrap_or(u64::MAX))
}

fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)) != Ok(0)
}

/// What the process does that joins.
#[derive(Debug)]
pub(crate) struct Entry {
    target: OwnedFd,
    kinds: Kinds,
    oom_score_adj: Option<CString>,
    labels: Option<Labels>,
    streams: [Option<OwnedFd>; 3],
    pub(crate) preserved: u32,
    command_line: Option<CommandLine>,
    doors: Doors,
}

impl Entry {
    pub(crate) fn enters_user(&self) -> bool {
        self.kinds.contains(Kinds::USER)
    }

    pub(crate) fn perform(&self, socket: BorrowedFd<'_>) -> Result<(), Fault> {
        if let Some(score) = &self.oom_score_adj {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let file =
                rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty()).called("open oom_score_adj")?;
            rustix::io::write(&file, score.to_bytes()).called("write oom_score_adj")?;
        }
        self.doors.enter().called("write tasks")?;
        if let Some(labels) = &self.labels {
            labels.perform()?;
        }
        let [stdin, stdout, stderr] = &self.streams;
        if let Some(stream) = stdin {
            rustix::stdio::dup2_stdin(stream).called("dup2")?;
        }
        if let Some(stream) = stdout {
            rustix::stdio::dup2_stdout(stream).called("dup2")?;
        }
        if let Some(stream) = stderr {
            rustix::stdio::dup2_stderr(stream).called("dup2")?;
        }
        if let Some(command_line) = self.command_line {
            command_line.replace(b"lamel-exec");
        }
        enter(self.target.as_fd(), self.kinds)?;
        process::close_others([socket], self.preserved).called("close_range")
    }
}

fn enter(target: BorrowedFd<'_>, kinds: Kinds) -> Result<(), Fault> {
    let hide = || process::hide().called("prctl PR_SET_DUMPABLE");
    hide()?;
    rustix::thread::move_into_thread_name_spaces(target, kinds).called("setns")?;
    hide()
}

/// A child that enters the container's user and mount namespaces, opens its passwd and group, and ends.
fn fetch(target: BorrowedFd<'_>, kinds: Kinds, socket: &ChildEnd) -> ! {
    let _no_return = process::NoReturn;
    let Err(fault) = try_fetch(target, kinds, socket);
    if fault != FETCHED {
        socket.failed(usize::MAX, fault);
    }
    process::exit(0)
}

/// What ends it when all is done.
const FETCHED: Fault = Fault::refused("");

fn try_fetch(target: BorrowedFd<'_>, kinds: Kinds, socket: &ChildEnd) -> Result<Infallible, Fault> {
    process::die_with_parent().called("prctl PR_SET_PDEATHSIG")?;
    enter(target, kinds)?;
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.called("open")?;
    for (which, (_, path)) in (0..).zip(user::FILES) {
        match user::open(root.as_fd(), path) {
            Ok(None) => {}
            Ok(Some(file)) => socket.file(which, file.as_fd()).called("sendmsg")?,
            Err(fault) => socket.failed(which.into(), fault),
        }
    }
    Err(FETCHED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_container_is_not_entered() {
        let own = std::process::id().cast_signed();
        assert!(matches!(Target::find(own, None), Err(Error::Invalid { .. })));
        assert!(matches!(Target::find(own, Some(1)), Err(Error::NotRunning { .. })));
        assert!(matches!(Target::find(i32::MAX, None), Err(Error::NotRunning { .. })));
        assert!(matches!(Target::find(0, None), Err(Error::NotRunning { .. })));
    }
}
