//! Injection into a running daemon: strace attached to it for the time of one operation.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Every call that touches a filesystem or a descriptor. Left out are the calls that carry requests (read, readv,
/// write, writev on `/dev/fuse`) and those that only concern memory and threads.
const CALLS: &[&str] = &[
    "open",
    "openat",
    "openat2",
    "creat",
    "close",
    "dup",
    "dup2",
    "dup3",
    "fcntl",
    "ioctl",
    "mknodat",
    "mkdirat",
    "symlinkat",
    "linkat",
    "unlinkat",
    "renameat",
    "renameat2",
    "readlinkat",
    "link",
    "unlink",
    "rename",
    "mkdir",
    "rmdir",
    "chmod",
    "fchmod",
    "fchmodat",
    "?fchmodat2",
    "chown",
    "lchown",
    "fchown",
    "fchownat",
    "utimensat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "getxattr",
    "lgetxattr",
    "fgetxattr",
    "listxattr",
    "llistxattr",
    "flistxattr",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "stat",
    "lstat",
    "fstat",
    "newfstatat",
    "statx",
    "statfs",
    "fstatfs",
    "getdents64",
    "lseek",
    "truncate",
    "ftruncate",
    "fallocate",
    "copy_file_range",
    "sendfile",
    "pread64",
    "pwrite64",
    "preadv",
    "pwritev",
    "preadv2",
    "pwritev2",
    "fsync",
    "fdatasync",
    "syncfs",
    "sync_file_range",
    "faccessat",
    "faccessat2",
    "name_to_handle_at",
    "open_by_handle_at",
    "flock",
    "setfsuid",
    "setfsgid",
    "setresuid",
    "setresgid",
    "setgroups",
    "capset",
    "umask",
];

/// How long strace may take to let go.
const PATIENCE: Duration = Duration::from_secs(3);

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// Nothing: the calls are only written down.
    None,
    /// The daemon dies when it enters the call.
    Kill,
    /// The call fails, undone.
    Error(&'static str),
}

/// The `nth` use of `call` by one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub call: String,
    pub nth: usize,
    /// The arguments that it had when they were written down.
    pub seen: String,
}

/// strace on a daemon, until [`Self::detach`] or Drop.
pub struct Tracer {
    strace: Child,
    pid: u32,
    log: PathBuf,
}

impl Tracer {
    /// Attaches to all threads of `pid`; what they do from now on counts.
    pub fn attach(pid: u32, log: &Path, injection: Injection, point: Option<&Point>) -> Self {
        let mut command = Command::new("strace");
        command.arg("-f").arg("-o").arg(log).arg("-p").arg(pid.to_string());
        match (injection, point) {
            (Injection::None, _) | (_, None) => {
                command.arg("-e").arg(format!("trace={}", CALLS.join(",")));
            }
            (Injection::Kill, Some(p)) => {
                let (call, n) = (number(&p.call), p.nth);
                command.arg("-e").arg(format!("trace={call}"));
                command.arg("-e").arg(format!("inject={call}:signal=KILL:when={n}"));
            }
            (Injection::Error(errno), Some(p)) => {
                let (call, n) = (number(&p.call), p.nth);
                command.arg("-e").arg(format!("trace={call}"));
                command.arg("-e").arg(format!("inject={call}:error={errno}:when={n}"));
            }
        }
        let mut strace =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start strace");
        let stderr = strace.stderr.take().expect("strace's stderr");
        let (attached, wait) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(stderr);
            let mut first = String::new();
            let _ = lines.read_line(&mut first);
            let _ = attached.send(first);
            let mut rest = Vec::new();
            let _ = lines.read_to_end(&mut rest);
        });
        let tracer = Self { strace, pid, log: log.to_owned() };
        let first = wait.recv_timeout(Duration::from_secs(20)).expect("strace to attach");
        assert!(first.contains("attached"), "strace: {first}");
        tracer
    }

    /// Lets the daemon go and returns the points that it passed, in order.
    pub fn detach(mut self) -> Vec<Point> {
        self.stop();
        points(&fs::read_to_string(&self.log).expect("read strace's log"))
    }

    /// Lets the daemon go and tells whether it was killed.
    pub fn killed(mut self) -> bool {
        self.stop();
        self.is_dead()
    }

    fn is_dead(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // `PID (NAME) STATE …`; nobody may have waited for it yet.
        status.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
    }

    fn stop(&mut self) {
        let Some(pid) = Pid::from_raw(self.strace.id().cast_signed()) else {
            return;
        };
        // It ends by itself when the daemon is gone.
        let _ = kill_process(pid, Signal::INT);
        let start = Instant::now();
        while !matches!(self.strace.try_wait(), Ok(Some(_)) | Err(_)) {
            let patience = if self.is_dead() { Duration::from_millis(20) } else { PATIENCE };
            if start.elapsed() > patience {
                // It may wait for ever for the threads of a process that was killed.
                let _ = self.strace.kill();
                let _ = self.strace.wait();
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A call as strace takes it; one that is too new for it has a number for a name.
fn number(call: &str) -> String {
    match call.strip_prefix("syscall_0x").and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
        Some(number) => number.to_string(),
        None => call.to_owned(),
    }
}

/// The points in a log of `strace -f -o`: a line is `PID call(arguments…`.
fn points(log: &str) -> Vec<Point> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut out: Vec<Point> = Vec::new();
    for line in log.lines() {
        let Some((pid, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        let Some((call, seen)) = rest.split_once('(') else {
            continue;
        };
        if rest.starts_with("<...") || !call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        let n = counts.entry((pid, call)).or_default();
        *n += 1;
        let point = Point { call: call.to_owned(), nth: *n, seen: seen.to_owned() };
        // Two threads may pass the same point: once is enough.
        if !out.iter().any(|p| p.call == point.call && p.nth == point.nth) {
            out.push(point);
        }
    }
    out
}
