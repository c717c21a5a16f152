//! What can go wrong, and what a step of the child tells of it.

use std::fmt;
use std::path::PathBuf;

use rustix::io::Errno;

/// Why there is no container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration contradicts the runtime specification or itself.
    #[error("configuration: {field}: {why}")]
    Invalid {
        /// The member of `config.json`, with dots.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// The configuration asks for something that this runtime does not have; it is never left out in silence.
    #[error("configuration: {field}: {what} is not supported{advice}")]
    Unsupported {
        /// The member of `config.json`, with dots.
        field: String,
        /// What was asked for.
        what: String,
        /// What to do instead, after `; `, or nothing.
        advice: &'static str,
    },
    /// The host lacks something that the configuration needs.
    #[error("{what} is not available here: {why}")]
    Unavailable {
        /// What was asked for.
        what: String,
        /// Why not, and the way out.
        why: String,
    },
    /// A system call on the host's side failed.
    #[error("{call} {object}: {errno}")]
    Call {
        /// The system call.
        call: &'static str,
        /// What it was about.
        object: String,
        /// What the kernel answered.
        errno: Errno,
    },
    /// A step of setting the container up failed.
    #[error("{doing}: {call}: {errno}{}", advice(.call, *.errno))]
    Step {
        /// The step.
        doing: String,
        /// The system call.
        call: String,
        /// What the kernel answered.
        errno: Errno,
    },
    /// A step found something that it does not trust.
    #[error("{doing}: refused: {why}")]
    Refused {
        /// The step.
        doing: String,
        /// What it found.
        why: String,
    },
    /// There is no such working directory, or it is not for the container's user to enter.
    #[error("entering the working directory {path}: {errno}")]
    Directory {
        /// As it was given.
        path: String,
        /// What the kernel answered.
        errno: Errno,
    },
    /// The container's program cannot be run.
    #[error("exec {program:?}: {}", program_fault(*.errno))]
    Program {
        /// As it was given.
        program: String,
        /// What the kernel answered.
        errno: Errno,
    },
    /// The child ended before it had become the container.
    #[error("the container's process ended while it was set up ({status}); its last step: {doing}")]
    Ended {
        /// How it ended.
        status: String,
        /// The last step that is known of.
        doing: String,
    },
    /// newuidmap or newgidmap refused.
    #[error("{program}: {said}; it needs a range of the user in /etc/{file} and the package uidmap")]
    IdMapHelper {
        /// The helper.
        program: &'static str,
        /// What it said.
        said: String,
        /// `subuid` or `subgid`.
        file: &'static str,
    },
    /// A control group cannot be set up.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::CgroupError),
    /// The system call filter cannot be compiled.
    #[error(transparent)]
    Seccomp(#[from] crate::seccomp::SeccompError),
    /// There is no such container any more.
    #[error("the container is not running: its first process, {pid}, has ended")]
    NotRunning {
        /// Of the first process.
        pid: i32,
    },
    /// Nothing can be started in a container whose processes are stopped.
    #[error("the container is paused, unpause it before exec")]
    Paused,
    /// A hook of the configuration failed.
    #[error("hook {path}: {why}")]
    Hook {
        /// The program.
        path: String,
        /// Its exit status, and what it said.
        why: String,
    },
    /// A file in the container's root cannot be read.
    #[error("{path} in the container's root: {why}", path = .path.display())]
    RootFile {
        /// In the container.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

fn advice(call: &str, errno: Errno) -> &'static str {
    match (call, errno) {
        ("mount_setattr", Errno::NOSYS) => "; Linux 5.12 or newer is needed",
        ("openat2", Errno::NOSYS) => "; Linux 5.6 or newer is needed",
        ("pivot_root", Errno::INVAL) => "; on a ramfs root use --no-pivot",
        ("setrlimit", Errno::PERM) => "; raising a hard limit needs CAP_SYS_RESOURCE",
        _ => "",
    }
}

fn program_fault(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "executable file not found in the container (no such file or directory)".to_owned(),
        Errno::NOEXEC => "exec format error: neither a program of this machine nor a script with #!".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}

impl Error {
    pub(crate) fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), why: why.into() }
    }

    pub(crate) fn unsupported(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), what: what.into(), advice: "" }
    }

    /// For `map_err` on a system call of the parent.
    pub(crate) fn call(call: &'static str, object: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let object = object.into();
        move |errno| Self::Call { call, object, errno }
    }
}

/// What the child tells of a failed step. It is made and sent without allocating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The system call, or what was found.
    pub(crate) what: &'static str,
    /// The kernel's answer; 0 if nothing failed but the step refuses to go on.
    pub(crate) errno: i32,
}

impl Fault {
    pub(crate) const fn refused(why: &'static str) -> Self {
        Self { what: why, errno: 0 }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            0 => f.write_str(self.what),
            errno => write!(f, "{}: {}", self.what, Errno::from_raw_os_error(errno)),
        }
    }
}

/// Names the system call of a result.
pub(crate) trait Called<T> {
    fn called(self, call: &'static str) -> Result<T, Fault>;
}

impl<T> Called<T> for Result<T, Errno> {
    fn called(self, call: &'static str) -> Result<T, Fault> {
        self.map_err(|errno| Fault { what: call, errno: errno.raw_os_error() })
    }
}
