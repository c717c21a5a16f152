//! Hooks: programs that the configuration has run at certain points of a container's life (runtime-spec, config.md,
//! "POSIX-platform Hooks"; runtime.md, "Lifecycle").
//!
//! | hooks | run by | when | if one fails |
//! |---|---|---|---|
//! | prestart, createRuntime | the parent | all is mounted, the root not yet changed | no container |
//! | createContainer | the child, as the host's file | after these, before the root is made read-only and changed | no container |
//! | startContainer | the child, as the container's file | as the last before the program, and as who it runs as | no container |
//! | poststart | the parent | the program runs | the container is ended |
//! | poststop | the parent | nothing of the container is left | it is said |
//!
//! Each has the container's state on its standard input and nothing else of lamel's: no variable, no descriptor. All
//! are made by the same code, which neither allocates nor locks after the clone.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use oci_spec::runtime::{Hook as SpecHook, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, SeekFrom};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use serde::Serialize;

use crate::error::{Called as _, Error, Fault};
use crate::plan::{Options, c_string};
use crate::sync::ParentEnd;
use crate::sys::exec::{self, Vector};
use crate::sys::process::{self, Cloned};

/// What a [`Fault`] says of a hook that failed by itself; its number is the exit status, as a shell tells it.
const STATUS: &str = "exit status";
/// Bytes of a hook's output that its error repeats.
const MAX_OUTPUT: u64 = 1024;
/// The exit status of a hook that cannot be run.
const NOT_RUN: i32 = 127;

/// One hook.
#[derive(Debug)]
pub(crate) struct Hook {
    path: CString,
    arguments: Vector,
    environment: Vector,
    timeout: Option<Timespec>,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path.to_string_lossy())
    }
}

/// All hooks of a container; those of the child move into its steps.
#[derive(Debug)]
pub(crate) struct Hooks {
    runtime: Vec<Hook>,
    pub(crate) container: Vec<Hook>,
    pub(crate) start: Vec<Hook>,
    poststart: Vec<Hook>,
    poststop: Vec<Hook>,
    about: About,
    /// Where the output of the child's goes.
    pub(crate) null: OwnedFd,
}

/// What is said of a container that does not change.
#[derive(Clone, Debug)]
struct About {
    version: String,
    id: String,
    bundle: PathBuf,
    annotations: HashMap<String, String>,
}

/// runtime.md, "State".
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: &'a PathBuf,
    annotations: &'a HashMap<String, String>,
}

/// Reads the hooks of a configuration, if it has any.
pub(crate) fn plan(spec: &Spec, options: &Options) -> Result<Option<Hooks>, Error> {
    let Some(hooks) = spec.hooks() else { return Ok(None) };
    let list = |stage: &str, hooks: &Option<Vec<SpecHook>>| -> Result<Vec<Hook>, Error> {
        let numbered = hooks.iter().flatten().enumerate();
        numbered.map(|(at, hook)| Hook::plan(&format!("hooks.{stage}[{at}]"), hook)).collect()
    };
    let mut runtime = list("prestart", hooks.prestart())?;
    runtime.extend(list("createRuntime", hooks.create_runtime())?);
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let hooks = Hooks {
        runtime,
        container: list("createContainer", hooks.create_container())?,
        start: list("startContainer", hooks.start_container())?,
        poststart: list("poststart", hooks.poststart())?,
        poststop: list("poststop", hooks.poststop())?,
        about: About {
            version: spec.version().clone(),
            id: options.name.clone(),
            bundle: options.bundle.clone(),
            annotations: spec.annotations().clone().unwrap_or_default(),
        },
        null: rustix::fs::open(c"/dev/null", flags, Mode::empty()).map_err(Error::call("open", "/dev/null"))?,
    };
    let lists = [&hooks.runtime, &hooks.container, &hooks.start, &hooks.poststart, &hooks.poststop];
    let is_empty = lists.iter().all(|list| list.is_empty());
    Ok((!is_empty).then_some(hooks))
}

impl About {
    /// The container's state as a file, which nobody can change.
    fn state(&self, status: &str, pid: Option<i32>) -> Result<OwnedFd, Error> {
        let Self { version, id, bundle, annotations } = self;
        let state = State { oci_version: version, id, status, pid, bundle, annotations };
        let text = serde_json::to_vec(&state).map_err(|error| Error::invalid("annotations", error.to_string()))?;
        let make = || -> Result<OwnedFd, Errno> {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let file = rustix::fs::memfd_create(c"lamel-state", flags)?;
            let mut written = 0;
            while let Some(rest) = text.get(written..).filter(|rest| !rest.is_empty()) {
                written += rustix::io::write(&file, rest)?;
            }
            let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
            rustix::fs::fcntl_add_seals(&file, seals)?;
            Ok(file)
        };
        make().map_err(Error::call("memfd_create", "the container's state"))
    }
}

impl Hooks {
    /// Whether the child has to stop for some of them.
    pub(crate) fn interrupt(&self) -> bool {
        !(self.runtime.is_empty() && self.container.is_empty() && self.start.is_empty())
    }

    /// Those that come before the child goes on, and then lets it.
    pub(crate) fn mounted(&self, pid: i32, socket: &ParentEnd) -> Result<(), Error> {
        let creating = self.about.state("creating", Some(pid))?;
        self.runtime.iter().try_for_each(|hook| hook.run_here(creating.as_fd()))?;
        let created = self.about.state("created", Some(pid))?;
        let failed = |errno| Error::call("sendmsg", "the container's process")(errno);
        socket.state(creating.as_fd()).and_then(|()| socket.state(created.as_fd())).map_err(failed)
    }

    /// Those that come when the program runs.
    pub(crate) fn started(&self, pid: i32) -> Result<(), Error> {
        if self.poststart.is_empty() {
            return Ok(());
        }
        let state = self.about.state("running", Some(pid))?;
        self.poststart.iter().try_for_each(|hook| hook.run_here(state.as_fd()))
    }

    /// Those that come when the container is gone: when that value is dropped.
    pub(crate) fn at_the_end(self) -> Poststop {
        Poststop { hooks: self.poststop, about: self.about }
    }
}

/// The hooks for the end of a container.
#[derive(Debug)]
pub(crate) struct Poststop {
    hooks: Vec<Hook>,
    about: About,
}

impl Drop for Poststop {
    fn drop(&mut self) {
        let ran = |hook: &Hook| self.about.state("stopped", None).and_then(|state| hook.run_here(state.as_fd()));
        for error in self.hooks.iter().filter_map(|hook| ran(hook).err()) {
            tracing::warn!("{error}");
        }
    }
}

impl Hook {
    fn plan(field: &str, hook: &SpecHook) -> Result<Self, Error> {
        if !hook.path().is_absolute() {
            return Err(Error::invalid(field, "path must be absolute"));
        }
        let timeout = match hook.timeout() {
            None => None,
            Some(seconds @ 1..) => Some(Timespec { tv_sec: seconds, tv_nsec: 0 }),
            Some(_) => return Err(Error::invalid(field, "timeout must be greater than zero")),
        };
        let words = |words: &[String]| -> Result<Vector, Error> {
            let words: Result<Vec<CString>, Error> =
                words.iter().map(|word| c_string(field, word.as_bytes())).collect();
            Ok(Vector::new(words?))
        };
        let own = [hook.path().to_string_lossy().into_owned()];
        Ok(Self {
            path: c_string(field, hook.path().as_os_str().as_bytes())?,
            arguments: words(hook.args().as_deref().filter(|args| !args.is_empty()).unwrap_or(&own))?,
            environment: words(hook.env().as_deref().unwrap_or_default())?,
            timeout,
        })
    }

    /// Runs it as a child of the parent.
    fn run_here(&self, state: BorrowedFd<'_>) -> Result<(), Error> {
        let output = rustix::fs::memfd_create(c"lamel-hook", MemfdFlags::CLOEXEC);
        let output = output.map_err(Error::call("memfd_create", "a hook's output"))?;
        self.run(|| process::start(0, None), state, output.as_fd()).map_err(|fault| {
            let mut said = String::new();
            let mut output = std::fs::File::from(output);
            // What cannot be read was not said.
            output.rewind().and_then(|()| output.take(MAX_OUTPUT).read_to_string(&mut said)).ok();
            self.failure(fault.what, fault.errno, said.trim())
        })
    }

    /// Runs it as a child of the container's.
    pub(crate) fn run_inside(&self, state: BorrowedFd<'_>, null: BorrowedFd<'_>) -> Result<(), Fault> {
        self.run(process::fork_in_child, state, null)
    }

    fn run(
        &self,
        fork: impl FnOnce() -> Result<Cloned, Errno>,
        state: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
    ) -> Result<(), Fault> {
        rustix::fs::seek(state, SeekFrom::Start(0)).called("lseek")?;
        match fork().called("clone")? {
            Cloned::Child => self.become_program(state, output),
            Cloned::Parent(pid) => self.await_end(pid),
        }
    }

    fn become_program(&self, state: BorrowedFd<'_>, output: BorrowedFd<'_>) -> ! {
        let _no_return = process::NoReturn;
        let prepare = || -> Result<(), Errno> {
            process::die_with_parent()?;
            rustix::stdio::dup2_stdin(state)?;
            rustix::stdio::dup2_stdout(output)?;
            rustix::stdio::dup2_stderr(output)?;
            process::reset_signals()?;
            process::close_on_exec_after(0)
        };
        if prepare().is_ok() {
            exec::execve(&self.path, &self.arguments, &self.environment);
        }
        process::exit(NOT_RUN)
    }

    fn await_end(&self, pid: Pid) -> Result<(), Fault> {
        let in_time = process::pidfd(pid).and_then(|fd| {
            loop {
                let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
                match poll(&mut fds, self.timeout.as_ref()) {
                    Err(Errno::INTR) => {}
                    ready => break ready.map(|ready| ready > 0),
                }
            }
        });
        if !matches!(in_time, Ok(true)) {
            rustix::process::kill_process(pid, Signal::KILL).ok();
        }
        let ended = loop {
            match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
                Ok(Some((_, status))) => break status,
                Ok(None) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).called("waitpid"),
            }
        };
        match (in_time.called("poll")?, ended.exit_status(), ended.terminating_signal()) {
            (false, ..) => Err(Fault::refused("it took longer than its timeout")),
            (true, Some(0), _) => Ok(()),
            (true, Some(status), _) => Err(Fault { what: STATUS, errno: status }),
            (true, None, signal) => Err(Fault { what: STATUS, errno: 128 + signal.unwrap_or(libc::SIGKILL) }),
        }
    }

    /// A fault of this hook in words; `said` is what it wrote.
    pub(crate) fn failure(&self, what: &str, errno: i32, said: &str) -> Error {
        let mut why = match (what, errno) {
            (what, 0) => what.to_owned(),
            (STATUS, NOT_RUN) => format!("{STATUS} {NOT_RUN}: it cannot be run, or says so"),
            (STATUS, status) => format!("{STATUS} {status}"),
            (call, errno) => format!("{call}: {}", Errno::from_raw_os_error(errno)),
        };
        if !said.is_empty() {
            why.push_str(": ");
            why.push_str(said);
        }
        Error::Hook { path: self.to_string(), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::HookBuilder;

    fn hook(script: &str) -> SpecHook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        HookBuilder::default().path("/bin/sh").args(args).build().unwrap()
    }

    fn about() -> About {
        let annotations = HashMap::from([("k".to_owned(), "v".to_owned())]);
        About { version: "1.2.0".to_owned(), id: "c".to_owned(), bundle: "/b".into(), annotations }
    }

    #[test]
    fn a_hook_has_the_state_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let seen = place.path().join("seen");
        let script =
            format!("{{ cat; echo; env | grep -v -e ^PWD= -e ^_=; ls /proc/self/fd | wc -l; }} > {}", seen.display());
        let mut spec = hook(&script);
        spec.set_env(Some(vec!["A=b".to_owned(), "PATH=/bin:/usr/bin".to_owned()]));
        let hook = Hook::plan("hooks.x[0]", &spec).unwrap();
        // Each reads it from its beginning, and cannot change it.
        let state = about().state("creating", Some(7)).unwrap();
        for _ in 0..2 {
            hook.run_here(state.as_fd()).unwrap();
            let said = std::fs::read_to_string(&seen).unwrap();
            let mut lines: Vec<&str> = said.lines().collect();
            lines[1..].sort_unstable();
            let state: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
            let wanted = serde_json::json!({
                "ociVersion": "1.2.0", "id": "c", "status": "creating", "pid": 7, "bundle": "/b", "annotations": {"k": "v"},
            });
            assert_eq!(state, wanted);
            // The three, and that of the directory.
            assert_eq!(lines[1..], ["4", "A=b", "PATH=/bin:/usr/bin"]);
        }
        assert_eq!(rustix::io::write(&state, b"x"), Err(Errno::PERM));
    }

    #[test]
    fn how_a_hook_failed_is_told() {
        let state = about().state("stopped", None).unwrap();
        let said = |spec: &SpecHook| {
            let hook = Hook::plan("hooks.x[0]", spec).unwrap();
            hook.run_here(state.as_fd()).map_err(|error| error.to_string())
        };
        assert_eq!(said(&hook("exit 0")), Ok(()));
        assert_eq!(
            said(&hook("echo no, >&2; echo never; exit 3")),
            Err("hook /bin/sh: exit status 3: no,\nnever".to_owned())
        );
        assert_eq!(said(&hook("kill -9 $$")), Err("hook /bin/sh: exit status 137".to_owned()));
        let nowhere = HookBuilder::default().path("/nowhere").build().unwrap();
        assert!(said(&nowhere).unwrap_err().contains("exit status 127: it cannot be run"));
        let mut slow = hook("exec sleep 100");
        slow.set_timeout(Some(1));
        let begun = std::time::Instant::now();
        assert_eq!(said(&slow), Err("hook /bin/sh: it took longer than its timeout".to_owned()));
        assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    }

    #[test]
    fn what_is_no_hook_is_refused() {
        let plan = |hook: &SpecHook| Hook::plan("hooks.x[0]", hook).unwrap_err().to_string();
        assert!(plan(&HookBuilder::default().path("relative").build().unwrap()).contains("absolute"));
        for timeout in [0, -1] {
            assert!(plan(hook("").set_timeout(Some(timeout))).contains("greater than zero"));
        }
        assert!(plan(hook("").set_env(Some(vec!["a\0b".to_owned()]))).contains("NUL"));
    }
}
