//! The parent: clones the child, does what only it may do for it, and waits.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};

use crate::cgroup::{Group, Layout};
use crate::error::Error;
use crate::hook::{Hooks, Poststop};
use crate::plan::{self, Options, Plan, Step};
use crate::process::{Exit, Process};
use crate::sync::{self, Message, ParentEnd};
use crate::sys::process::{self, Cloned};
use crate::{child, tty};

/// A running container. Dropping it kills everything in it and removes its control group.
#[derive(Debug)]
pub struct Container {
    // Dropped in this order: what runs in the group ends before the group does.
    process: Process,
    group: Option<Box<dyn Group>>,
    /// Hooks for the end, if it came so far that there is one to tell of.
    poststop: Option<Poststop>,
    frozen: bool,
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.frozen {
            // Of version 1, what is frozen dies only when it is let go.
            self.signal(libc::SIGKILL).ok();
            if let Err(error) = self.freeze(false) {
                tracing::warn!("letting a paused container go: {error}");
            }
        }
    }
}

/// A container whose program does not run yet.
#[derive(Debug)]
pub struct Created {
    pid: i32,
}

impl Created {
    /// The process id of the first process, as this process sees it. Nobody else gets it meanwhile.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Where a namespace of the container is, by its name in `/proc/PID/ns`.
    #[must_use]
    pub fn namespace(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{name}", self.pid))
    }
}

impl Container {
    /// Makes a container and starts its program. On return the program runs.
    ///
    /// The calling thread must live as long as the container: when it ends, the kernel kills the container.
    ///
    /// # Errors
    /// [`Error`] names the step; nothing is left behind.
    pub fn start(spec: &Spec, options: &Options) -> Result<Self, Error> {
        Self::start_with(spec, options, |_| Ok(()))
    }

    /// The same, with something to be done between the making of the namespaces and the start of the program, which
    /// waits for it: ids are mapped then, and the control groups entered.
    ///
    /// # Errors
    /// Those of [`Self::start`] and of `connect`; nothing is left behind.
    pub fn start_with<E: From<Error>>(
        spec: &Spec,
        options: &Options,
        connect: impl FnOnce(&Created) -> Result<(), E>,
    ) -> Result<Self, E> {
        tty::hold_standard_streams().map_err(Error::call("open", "/dev/null"))?;
        let layout = Layout::detect();
        let mut plan = plan::from_spec(spec, options, &layout)?;
        let group = group(spec, options, &layout)?;
        plan.enter(group.as_ref().map(|group| group.doors()).transpose().map_err(Error::from)?.unwrap_or_default());
        let (socket, process) = clone(&plan)?;
        let mut container = Self { process, group, poststop: None, frozen: false };
        let created = Created { pid: container.pid() };
        let prepared = prepare(&plan, container.process.id()).map_err(E::from).and_then(|()| {
            connect(&created)?;
            socket.go().map_err(Error::call("sendmsg", "the container's process")).map_err(E::from)
        });
        if let Err(error) = prepared {
            return Err(container.process.earlier(&plan, &socket).map_or(error, E::from));
        }
        let hooks = plan.hooks.take();
        let mut mounted = false;
        let started = container.process.await_program(&plan, &socket, &mut || {
            mounted = true;
            hooks.as_ref().map_or(Ok(()), |hooks| hooks.mounted(created.pid, &socket))
        });
        mounted |= started.is_ok();
        let started = started.and_then(|()| hooks.as_ref().map_or(Ok(()), |hooks| hooks.started(created.pid)));
        container.poststop = hooks.filter(|_| mounted).map(Hooks::at_the_end);
        started?;
        Ok(container)
    }

    /// Waits until the first process ends; all others in its pid namespace have then been killed.
    ///
    /// # Errors
    /// Somebody else has waited for it.
    pub fn wait(&mut self) -> Result<Exit, Error> {
        self.process.wait()
    }

    /// The process id of the first process, as this process sees it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Becomes readable when the first process ends.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd()
    }

    /// Whether the first process has ended, which [`Self::wait`] has yet to tell how.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.process.has_ended()
    }

    /// Sends a signal, by its number, to the first process.
    ///
    /// # Errors
    /// The kernel knows no such signal.
    pub fn signal(&self, number: i32) -> Result<(), Errno> {
        self.process.signal(number)
    }

    /// Stops all processes of the container, or lets them go on.
    ///
    /// # Errors
    /// It has no control group with a freezer.
    pub fn freeze(&mut self, frozen: bool) -> Result<(), Error> {
        match &mut self.group {
            Some(group) => {
                group.freeze(frozen)?;
                self.frozen = frozen;
                Ok(())
            }
            None => Err(Error::Unavailable {
                what: "pausing".to_owned(),
                why: "the container has no control group".to_owned(),
            }),
        }
    }

    /// Whether the kernel has killed one of its processes for want of memory, as far as its control group tells.
    #[must_use]
    pub fn was_oom_killed(&self) -> bool {
        self.group.as_ref().and_then(|group| group.oom_kills()).is_some_and(|kills| kills > 0)
    }

    /// The master of the container's terminal, if its configuration asks for one.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.process.take_terminal()
    }

    /// What was done otherwise than asked for, in a way that the documentation states; to be said aloud.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        self.process.notes()
    }

    /// The first process.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Process {
    /// Hears what the child tells until it is the program.
    ///
    /// With hooks it waits in between, as soon as all is `mounted`.
    pub(crate) fn await_program(
        &mut self,
        plan: &Plan,
        socket: &ParentEnd,
        mounted: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut ready = false;
        loop {
            match socket.next().map_err(Error::call("recvmsg", "the container's process"))? {
                Message::Mounted => mounted()?,
                Message::Ready => ready = true,
                Message::Terminal(master) => self.terminal = Some(master),
                Message::Note { step } => self.notes.push(note(plan, step)),
                Message::Failed { step, what, errno } => return Err(failure(plan, step, what, errno)),
                Message::End if ready => return Ok(()),
                Message::End => {
                    let status = self.wait()?;
                    return Err(Error::Ended { status: format!("{status:?}"), doing: doing(plan, usize::MAX) });
                }
                Message::Sibling { .. } | Message::File { .. } => {}
            }
        }
    }

    /// What the child failed at before the parent did, which is then the cause.
    pub(crate) fn earlier(&self, plan: &Plan, socket: &ParentEnd) -> Option<Error> {
        rustix::process::kill_process(self.id(), Signal::KILL).ok();
        loop {
            match socket.next().ok()? {
                Message::Failed { step, what, errno } => return Some(failure(plan, step, what, errno)),
                Message::End => return None,
                _ => {}
            }
        }
    }
}

fn note(plan: &Plan, step: usize) -> String {
    match plan.steps.get(step) {
        Some(Step::Mount(_)) => "the kernel gives no new procfs here (something is mounted in /proc): the container \
             sees the /proc of its surroundings, processes included"
            .to_owned(),
        Some(Step::Keyring(_)) => {
            "a session keyring cannot be made here (keyctl is not permitted): the container has its surroundings'"
                .to_owned()
        }
        Some(Step::Landlock(_)) => {
            "this kernel's Landlock lacks some of what the profile asks for, or is not there: the container is confined \
             by the rest alone"
                .to_owned()
        }
        _ => doing(plan, step),
    }
}

fn doing(plan: &Plan, step: usize) -> String {
    plan.steps.get(step).map_or_else(|| "joining namespaces".to_owned(), ToString::to_string)
}

fn failure(plan: &Plan, step: usize, what: String, errno: i32) -> Error {
    if let Some(Step::Hook(hook, _)) = plan.steps.get(step) {
        return hook.failure(&what, errno, "");
    }
    if errno == 0 {
        return Error::Refused { doing: doing(plan, step), why: what };
    }
    let errno = Errno::from_raw_os_error(errno);
    match plan.steps.get(step) {
        Some(Step::Exec) if what == "execve" => Error::Program { program: plan.program.name.clone(), errno },
        Some(Step::Enter(path)) => Error::Directory { path: path.to_string_lossy().into_owned(), errno },
        _ => Error::Step { doing: doing(plan, step), call: what, errno },
    }
}

/// Makes the child. When this returns the child is at work, until it waits for the parent.
pub(crate) fn clone(plan: &Plan) -> Result<(ParentEnd, Process), Error> {
    let failed = |call| Error::call(call, "the container's process");
    let (socket, child_end) = sync::pair().map_err(failed("socketpair"))?;
    let mut sources = Vec::new();
    sources.resize_with(plan.slots, || None);
    for mapped in &plan.mapped {
        if let Some(slot) = sources.get_mut(mapped.host.slot) {
            *slot = Some(mapped.make()?);
        }
    }
    let joins = plan.namespaces.joins_any();
    let flags = if joins { 0 } else { plan.namespaces.cloned };
    let started = process::start(flags, plan.doors.group()).map_err(|errno| match errno {
        Errno::PERM | Errno::NOSPC | Errno::USERS if plan.id_maps.is_some() => Error::Unavailable {
            what: "a user namespace".to_owned(),
            why: format!(
                "{errno}; the administrator can permit it (sysctl user.max_user_namespaces, \
                 kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
            ),
        },
        errno => failed("clone3")(errno),
    })?;
    let mut pid = match started {
        Cloned::Child if joins => child::join(plan, &child_end, &mut sources),
        Cloned::Child => child::run(plan, &child_end, &mut sources),
        Cloned::Parent(pid) => pid,
    };
    drop(child_end);
    if joins {
        let message = socket.next();
        rustix::process::waitpid(Some(pid), WaitOptions::empty()).map_err(failed("waitpid"))?;
        pid = match message.map_err(failed("recvmsg"))? {
            Message::Sibling { pid } => Pid::from_raw(pid).ok_or(Errno::SRCH).map_err(failed("clone3"))?,
            Message::Failed { step, what, errno } => return Err(failure(plan, step, what, errno)),
            _ => return Err(Error::Ended { status: "no word".to_owned(), doing: doing(plan, usize::MAX) }),
        };
    }
    Ok((socket, Process::of_child(pid).map_err(failed("pidfd_open"))?))
}

/// The control group that the container is to have.
fn group(spec: &Spec, options: &Options, layout: &Layout) -> Result<Option<Box<dyn Group>>, Error> {
    let Some(linux) = spec.linux() else { return Ok(None) };
    let name = format!("{}{}", crate::cgroup::PREFIX, options.name);
    Ok(layout.open(&name, linux.cgroups_path().as_deref(), linux.resources().as_ref())?)
}

/// The parent's part: ids, and what is written into the host's /proc.
fn prepare(plan: &Plan, pid: Pid) -> Result<(), Error> {
    if let Some(maps) = &plan.id_maps {
        maps.write(pid)?;
    }
    if let Some(adjustment) = plan.oom_score_adj {
        let path = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
        fs::write(&path, adjustment.to_string())
            .map_err(|error| Error::call("write", path)(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    }
    Ok(())
}
