//! The child: performs the plan's steps, and becomes the container's program.
//!
//! It is a copy of a process that may have had other threads: nothing in here
//! allocates, frees, or takes a lock.

use std::convert::Infallible;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;

use crate::error::{Called as _, Fault};
use crate::hook::Hooks;
use crate::plan::{Identity, Plan, Stage, Step};
use crate::rootfs::Inside;
use crate::sync::ChildEnd;
use crate::sys::process::{self, Cloned};
use crate::sys::{bpf, exec, socket};
use crate::{caps, dev, init, mount, namespace, rootfs, tty};

/// What the steps hand on to one another.
pub(crate) struct State<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) socket: &'a ChildEnd,
    /// Number of the step that is performed.
    step: usize,
    /// The root directory, as this namespace has it.
    pub(crate) place: Option<OwnedFd>,
    /// The root of the container's mount tree.
    pub(crate) root: Option<OwnedFd>,
    /// The sources of bind mounts, in slots that were made beforehand.
    pub(crate) sources: &'a mut [Option<OwnedFd>],
    /// The empty directory that masks others.
    pub(crate) empty: Option<OwnedFd>,
    pub(crate) terminal: Option<OwnedFd>,
    /// What hooks read: of a container that is being created, and of one that is.
    hook_states: Option<[OwnedFd; 2]>,
    /// The working directory was not for the container's root to enter.
    closed_directory: bool,
}

impl State<'_> {
    pub(crate) fn root(&self) -> Result<BorrowedFd<'_>, Fault> {
        self.root.as_ref().map(|root| root.as_fd()).ok_or(Fault::refused("no root"))
    }

    /// Lets the parent say aloud that this step took its fallback.
    pub(crate) fn note(&self) {
        self.socket.note(self.step);
    }
}

/// Exit status of a child that did not become the program; the parent has its words.
const FAILED: i32 = 125;

/// Performs the plan. It never returns: the process becomes the program, or ends.
pub(crate) fn run(plan: &Plan, socket: &ChildEnd, sources: &mut [Option<OwnedFd>]) -> ! {
    let _no_return = process::NoReturn;
    let mut state = State {
        plan,
        socket,
        step: 0,
        place: None,
        root: None,
        sources,
        empty: None,
        terminal: None,
        hook_states: None,
        closed_directory: false,
    };
    let Err(fault) = perform_all(&mut state);
    socket.failed(state.step, fault);
    process::exit(FAILED)
}

/// Joins the namespaces that exist, and makes the container's process in them. It never returns.
pub(crate) fn join(plan: &Plan, socket: &ChildEnd, sources: &mut [Option<OwnedFd>]) -> ! {
    let _no_return = process::NoReturn;
    let joined = plan
        .namespaces
        .joined
        .iter()
        .try_for_each(namespace::Join::perform)
        .and_then(|()| plan.namespaces.entry.as_ref().map_or(Ok(()), |entry| entry.perform(socket.fd())));
    // Joining a pid namespace holds for children; this one has the parent's parent for its own.
    match joined.and_then(|()| process::clone_sibling(plan.namespaces.cloned).called("clone3")) {
        Ok(Cloned::Child) => run(plan, socket, sources),
        Ok(Cloned::Parent(pid)) => {
            socket.sibling(pid.as_raw_nonzero().get());
            process::exit(0)
        }
        Err(fault) => {
            socket.failed(usize::MAX, fault);
            process::exit(FAILED)
        }
    }
}

fn perform_all(state: &mut State<'_>) -> Result<Infallible, Fault> {
    process::die_with_parent().called("prctl PR_SET_PDEATHSIG")?;
    let plan = state.plan;
    for (number, step) in plan.steps.iter().enumerate() {
        state.step = number;
        perform(step, state)?;
    }
    Err(Fault::refused("the plan has no program"))
}

fn perform(step: &Step, state: &mut State<'_>) -> Result<(), Fault> {
    let plan = state.plan;
    match step {
        Step::EnterGroups => plan.doors.enter().called("write tasks"),
        Step::AwaitParent => state.socket.await_go().called("recvmsg"),
        Step::TimeNamespace(offsets) => namespace::unshare_time(offsets),
        Step::BecomeRoot { groups } => namespace::become_root(*groups, joins_user(plan)),
        Step::Session => {
            rustix::process::umask(Mode::empty());
            // It is the first of its process group only where it was started as such.
            match rustix::process::setsid() {
                Ok(_) | Err(Errno::PERM) => Ok(()),
                Err(errno) => Err(errno).called("setsid"),
            }
        }
        Step::Keyring(name) => match process::join_session_keyring(name) {
            // A kernel without keyrings has none to leave.
            Ok(()) | Err(Errno::NOSYS) => Ok(()),
            // In a container whose filter forbids it.
            Err(Errno::PERM) => {
                state.note();
                Ok(())
            }
            Err(errno) => Err(errno).called("keyctl"),
        },
        Step::HostName(name) => rustix::system::sethostname(name.to_bytes()).called("sethostname"),
        Step::DomainName(name) => rustix::system::setdomainname(name.to_bytes()).called("setdomainname"),
        Step::Loopback => socket::loopback_up().called("SIOCSIFFLAGS"),
        Step::TakeRoot(root) => rootfs::take_root(root, state),
        Step::CloneSource(host) => mount::clone_source(host, state),
        Step::Propagation(flags) => rootfs::propagate(*flags),
        Step::CloneRoot => rootfs::clone_root(state),
        Step::AttachRoot => rootfs::attach_root(state),
        Step::CgroupNamespace => namespace::unshare_cgroup(),
        Step::Mount(mount) => mount.perform(state),
        Step::Device(device, bind) => device.perform(state, *bind),
        Step::Link(name, to) => dev::link(name, to, state),
        Step::Terminal { size, owner, console } => tty::open(*size, *owner, *console, state),
        Step::Sysctls(sysctls) => sysctls.perform(),
        Step::MakeDirectory(path) => make_directory(path, state),
        Step::ReadOnly(path) => mount::read_only_path(path, state),
        Step::Remount(path) => mount::remount_read_only(path, state),
        Step::Mask(path) => mount::mask(path, state),
        Step::RootReadOnly => mount::make_read_only(state.root()?, false),
        Step::Pivot => rootfs::pivot(state),
        Step::Cover => rootfs::cover(state),
        Step::OpenRoot => rootfs::open_entered(state),
        Step::Hide => process::hide().called("prctl PR_SET_DUMPABLE"),
        Step::AwaitHooks => {
            state.hook_states = Some(state.socket.await_states().called("recvmsg")?);
            Ok(())
        }
        Step::HideForHooks => hide_for_hooks(state),
        Step::Hook(hook, stage) => {
            let (hooks, states) = hook_files(state)?;
            let [creating, created] = states;
            let file = if *stage == Stage::Creating { creating } else { created };
            hook.run_inside(file.as_fd(), hooks.null.as_fd())
        }
        Step::Limit(limit) => limit.perform(),
        Step::Enter(path) => match enter(path) {
            Err(Fault { errno: libc::EACCES, .. }) => {
                state.closed_directory = true;
                Ok(())
            }
            entered => entered,
        },
        Step::Bound(sets) => caps::bound(*sets),
        Step::Label(labels) => labels.perform(),
        Step::Landlock(landlock) => landlock.perform(state),
        Step::Filter => bpf::load_filter(&plan.filter, 0).called("seccomp"),
        Step::Identity(identity) => become_user(identity, joins_user(plan)),
        Step::Capabilities(sets) => {
            if state.closed_directory {
                plan.steps.iter().try_for_each(|step| match step {
                    Step::Enter(path) => enter(path),
                    _ => Ok(()),
                })?;
            }
            caps::set(*sets)
        }
        Step::NoNewPrivileges => rustix::thread::set_no_new_privs(true).called("prctl PR_SET_NO_NEW_PRIVS"),
        Step::TakeTerminal => tty::take(state),
        Step::Umask(mask) => {
            rustix::process::umask(Mode::from_raw_mode(*mask));
            Ok(())
        }
        Step::Init => init::fork(plan.command_line, process::close_all).called("clone"),
        Step::Exec => start(state),
    }
}

/// What hooks get, from the plan and from the parent.
fn hook_files<'a>(state: &'a State<'_>) -> Result<(&'a Hooks, &'a [OwnedFd; 2]), Fault> {
    let missing = Fault::refused("no state for hooks");
    Ok((state.plan.hooks.as_ref().ok_or(missing)?, state.hook_states.as_ref().ok_or(missing)?))
}

fn hide_for_hooks(state: &State<'_>) -> Result<(), Fault> {
    process::hide().called("prctl PR_SET_DUMPABLE")?;
    let (hooks, [creating, created]) = hook_files(state)?;
    let kept = [state.socket.fd(), hooks.null.as_fd(), creating.as_fd(), created.as_fd()];
    process::close_others(kept, state.plan.preserved).called("close_range")
}

fn make_directory(path: &Inside, state: &State<'_>) -> Result<(), Fault> {
    match rootfs::directory(state.root()?, path, rootfs::Links::Inside) {
        // A link to nowhere, or a root that cannot be written: entering it says so in the container's words.
        Err(Fault { errno: libc::ENOENT | libc::EEXIST | libc::EROFS | libc::ELOOP, .. }) => Ok(()),
        made => made.map(drop),
    }
}

/// Enters a directory of the container, by no link of /proc's, and sees that it is inside of the root.
fn enter(path: &std::ffi::CStr) -> Result<(), Fault> {
    use rustix::fs::OFlags;
    let root =
        rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).called("open")?;
    let directory =
        rootfs::open(root.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY, rootfs::Links::Inside).called("openat2")?;
    rustix::process::fchdir(&directory).called("fchdir")?;
    let mut name = [0; libc::PATH_MAX as usize];
    process::current_dir(&mut name).called("getcwd")?;
    if name.first() == Some(&b'/') { Ok(()) } else { Err(Fault::refused("it is outside of the container's root")) }
}

fn joins_user(plan: &Plan) -> bool {
    plan.namespaces.joins(oci_spec::runtime::LinuxNamespaceType::User)
}

fn become_user(identity: &Identity, joined: bool) -> Result<(), Fault> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_keep_capabilities(true).called("prctl PR_SET_KEEPCAPS")?;
    if let Some(groups) = &identity.groups {
        match rustix::thread::set_thread_groups(groups) {
            // As in `namespace::become_root`.
            Err(Errno::PERM) if joined && groups.is_empty() => {}
            other => other.called("setgroups")?,
        }
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid).called("setresgid")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).called("setresuid")?;
    rustix::thread::set_keep_capabilities(false).called("prctl PR_SET_KEEPCAPS")
}

/// Becomes the program; returns only with a fault.
fn start(state: &State<'_>) -> Result<(), Fault> {
    let program = &state.plan.program;
    if state.plan.ends_with_parent {
        // Changing ids has taken it away.
        process::die_with_parent().called("prctl PR_SET_PDEATHSIG")?;
    } else {
        rustix::process::set_parent_process_death_signal(None).called("prctl PR_SET_PDEATHSIG")?;
    }
    process::reset_signals().called("sigprocmask")?;
    process::close_on_exec_after(state.plan.preserved).called("close_range")?;
    // A parent that died before that sent no signal, and hears no word.
    state.socket.ready().called("sendmsg")?;
    let mut worst = Errno::NOENT;
    for place in &program.places {
        match exec::execve(place, &program.arguments, &program.environment) {
            Errno::NOENT | Errno::NOTDIR if program.places.len() > 1 => {}
            // Another directory of the PATH may have one that may be run.
            Errno::ACCESS => worst = Errno::ACCESS,
            errno => {
                worst = errno;
                break;
            }
        }
    }
    Err(worst).called("execve")
}
