//! The filesystems under test: lamel, and its peers mounted in the same way.

use std::{
    env,
    ffi::{CString, OsString},
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    mount::{MountFlags, UnmountFlags, unmount},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

use super::{Outcome, Scratch, TIMEOUT, run_in, spawn_captured};

/// How long a daemon may take to end after its mount is gone.
/// Another test of this process may hold our mount in a namespace of its own for as long as it runs.
const DAEMON_END: Duration = Duration::from_secs(90);

/// A union filesystem that can be mounted.
#[derive(Debug, Clone)]
pub enum Subject {
    /// `lamel mount`, the binary of this build or `LAMEL_BIN`, with these options on every mount.
    Lamel { opts: Vec<String> },
    /// The kernel's overlayfs.
    Overlayfs { opts: Vec<String> },
    /// The fuse-overlayfs found in PATH.
    FuseOverlayfs { opts: Vec<String> },
}

impl Subject {
    /// lamel with its defaults.
    pub fn lamel() -> Self {
        Self::Lamel { opts: Vec::new() }
    }

    /// Kernel overlayfs with its defaults.
    pub fn overlayfs() -> Self {
        Self::Overlayfs { opts: Vec::new() }
    }

    /// Kernel overlayfs with everything on that lamel has on.
    pub fn overlayfs_full() -> Self {
        let opts = ["redirect_dir=on", "metacopy=on", "index=on"];
        Self::Overlayfs { opts: opts.map(str::to_owned).to_vec() }
    }

    /// fuse-overlayfs with its defaults.
    pub fn fuse_overlayfs() -> Self {
        Self::FuseOverlayfs { opts: Vec::new() }
    }

    /// The binary under test.
    pub fn lamel_bin() -> PathBuf {
        env::var_os("LAMEL_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_lamel")), PathBuf::from)
    }

    /// Mounts the scratch directory's first `n_lowers` lowers, with its upper and work if `rw`, on its `mnt`.
    pub fn mount(&self, scratch: &Scratch, n_lowers: usize, rw: bool, extra: &[&str]) -> Mounted {
        self.try_mount(scratch, n_lowers, rw, extra)
            .unwrap_or_else(|out| panic!("{self:?}: mount: {}\n{}{}", out.status, out.stdout, out.stderr))
    }

    /// [`Self::mount`] for mounts that may be refused: the error is what the mount command printed.
    pub fn try_mount(&self, scratch: &Scratch, n_lowers: usize, rw: bool, extra: &[&str]) -> Result<Mounted, Outcome> {
        let mut lowers = scratch.lowers(n_lowers);
        if matches!(self, Self::Overlayfs { .. }) && !rw && n_lowers == 1 {
            // Kernel overlayfs wants two lowers when there is no upper.
            lowers.insert(0, scratch.dir("empty-lower"));
        }
        self.try_mount_stack(Stack {
            lowers,
            upper: rw.then(|| (scratch.upper(), scratch.work())),
            mnt: scratch.mnt(),
            opts: extra.iter().map(|&o| o.to_owned()).collect(),
        })
    }

    /// Mounts a stack of any directories.
    pub fn mount_stack(&self, stack: Stack) -> Mounted {
        self.try_mount_stack(stack)
            .unwrap_or_else(|out| panic!("{self:?}: mount: {}\n{}{}", out.status, out.stdout, out.stderr))
    }

    /// Mounts a stack of any directories, or tells why not.
    pub fn try_mount_stack(&self, stack: Stack) -> Result<Mounted, Outcome> {
        super::require_privileges();
        self.perform(&stack)?;
        Ok(Mounted { subject: self.clone(), daemon: self.daemon(&stack.mnt), stack, up: true })
    }

    fn perform(&self, stack: &Stack) -> Result<(), Outcome> {
        let mut command = match self {
            Self::Lamel { opts } => {
                let mut c = Command::new(Self::lamel_bin());
                c.arg("mount").arg("-o").arg(stack.options(opts)).arg(&stack.mnt);
                c
            }
            Self::FuseOverlayfs { opts } => {
                let mut c = Command::new("fuse-overlayfs");
                c.arg("-o").arg(stack.options(opts)).arg(&stack.mnt);
                c
            }
            Self::Overlayfs { opts } => return mount_overlay(stack, opts),
        };
        command.current_dir("/");
        let out = spawn_captured(command, TIMEOUT);
        if out.success() { Ok(()) } else { Err(out) }
    }

    /// The pid of the process that serves `mnt`: lamel tells, others are found by their command line.
    fn daemon(&self, mnt: &Path) -> Option<Pid> {
        match self {
            Self::Overlayfs { .. } => None,
            Self::Lamel { .. } => lamel_pid(mnt).or_else(|| pid_by_argument(mnt)),
            Self::FuseOverlayfs { .. } => pid_by_argument(mnt),
        }
    }
}

/// What is to be mounted where.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Top first.
    pub lowers: Vec<PathBuf>,
    /// Upper and work directory; read-only without.
    pub upper: Option<(PathBuf, PathBuf)>,
    pub mnt: PathBuf,
    /// More options of this mount.
    pub opts: Vec<String>,
}

impl Stack {
    /// The argument of `-o`, in overlay syntax with `\:` and `\,` escapes.
    pub fn options(&self, opts: &[String]) -> OsString {
        let mut out = b"lowerdir=".to_vec();
        for (i, lower) in self.lowers.iter().enumerate() {
            if i > 0 {
                out.push(b':');
            }
            escape(&mut out, lower);
        }
        if let Some((upper, work)) = &self.upper {
            out.extend(b",upperdir=");
            escape(&mut out, upper);
            out.extend(b",workdir=");
            escape(&mut out, work);
        }
        for opt in opts.iter().chain(&self.opts) {
            out.push(b',');
            out.extend(opt.as_bytes());
        }
        OsString::from_vec(out)
    }
}

fn escape(out: &mut Vec<u8>, path: &Path) {
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

fn mount_overlay(stack: &Stack, opts: &[String]) -> Result<(), Outcome> {
    let data = CString::new(stack.options(opts).into_vec()).unwrap();
    let flags = if stack.upper.is_some() { MountFlags::empty() } else { MountFlags::RDONLY };
    let mount = || rustix::mount::mount("overlay", &stack.mnt, "overlay", flags, Some(data.as_c_str()));
    // EBUSY: a mount namespace made meanwhile elsewhere still holds the upper, for as long as its maker lives.
    let patient = || {
        (0..20).find_map(|_| match mount() {
            Err(rustix::io::Errno::BUSY) => {
                std::thread::sleep(Duration::from_millis(100));
                None
            }
            other => Some(other),
        })
    };
    patient().unwrap_or(Err(rustix::io::Errno::BUSY)).map_err(|e| {
        use std::os::unix::process::ExitStatusExt;
        Outcome {
            status: std::process::ExitStatus::from_raw(32 << 8),
            stdout: String::new(),
            stderr: format!("mount overlay: {e} ({data:?})\n"),
        }
    })
}

/// A mount under test. Drop unmounts it and ends its daemon, however it is.
pub struct Mounted {
    subject: Subject,
    stack: Stack,
    daemon: Option<Pid>,
    up: bool,
}

impl Mounted {
    /// The mountpoint.
    pub fn root(&self) -> &Path {
        &self.stack.mnt
    }

    /// A path inside the mount.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root().join(path)
    }

    /// What is mounted.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The daemon's pid.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.map(|p| p.as_raw_nonzero().get().cast_unsigned())
    }

    /// Runs a shell command in the mount's root; panics unless it succeeds.
    pub fn run(&self, cmd: &str) -> String {
        run_in(self.root(), cmd)
    }

    /// Unmounts as a user would; panics if that fails or the daemon survives it.
    pub fn unmount(&mut self) {
        assert!(self.up, "{} is not mounted", self.root().display());
        // A command that another thread of this process is starting holds all our files until its exec.
        let patient = (0..20).find_map(|_| match self.try_unmount() {
            Err(e) if e.to_lowercase().contains("busy") => {
                std::thread::sleep(Duration::from_millis(50));
                None
            }
            other => Some(other),
        });
        match patient {
            Some(Ok(())) => self.up = false,
            Some(Err(e)) => panic!("{e}"),
            None => panic!("umount {}: busy", self.root().display()),
        }
        assert!(self.wait_for_daemon(), "{:?}: the daemon outlives its mount", self.subject);
    }

    fn try_unmount(&self) -> Result<(), String> {
        match self.subject {
            Subject::Lamel { .. } => {
                let mut command = Command::new(Subject::lamel_bin());
                command.arg("umount").arg(&self.stack.mnt).current_dir("/");
                let out = spawn_captured(command, TIMEOUT);
                if out.success() {
                    return Ok(());
                }
                Err(format!("lamel umount: {}\n{}{}", out.status, out.stdout, out.stderr))
            }
            Subject::Overlayfs { .. } | Subject::FuseOverlayfs { .. } => {
                unmount(&self.stack.mnt, UnmountFlags::empty()).map_err(|e| format!("umount: {e}"))
            }
        }
    }

    /// Mounts the same stack again after [`Self::unmount`] or [`Self::kill9`].
    pub fn mount_again(&mut self) {
        assert!(!self.up, "{} is mounted already", self.root().display());
        self.subject.perform(&self.stack).unwrap_or_else(|out| {
            panic!("{:?}: mount again: {}\n{}{}", self.subject, out.status, out.stdout, out.stderr)
        });
        self.up = true;
        self.daemon = self.subject.daemon(&self.stack.mnt);
    }

    /// Unmounts and mounts again.
    pub fn remount(&mut self) {
        self.unmount();
        self.mount_again();
    }

    /// Kills the daemon as a crash would and detaches the dead mount; [`Self::mount_again`] brings it back.
    pub fn kill9(&mut self) {
        let pid = self.daemon.expect("a mount without a daemon cannot be killed");
        kill_process(pid, Signal::KILL).expect("kill the daemon");
        assert!(wait_for_end(pid, DAEMON_END), "the daemon survives SIGKILL");
        self.daemon = None;
        // The dead mount answers ENOTCONN; it may be gone already where the daemon was its only holder.
        let _ = unmount(&self.stack.mnt, UnmountFlags::DETACH);
        self.up = false;
    }

    fn wait_for_daemon(&mut self) -> bool {
        match self.daemon {
            Some(pid) if !wait_for_end(pid, DAEMON_END) => false,
            _ => {
                self.daemon = None;
                true
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.up {
            let plain = matches!(self.subject, Subject::Lamel { .. }).then(|| {
                Command::new("timeout")
                    .args(["-s", "KILL", "20"])
                    .arg(Subject::lamel_bin())
                    .arg("umount")
                    .arg(&self.stack.mnt)
                    .current_dir("/")
                    .output()
            });
            if !matches!(plain, Some(Ok(out)) if out.status.success()) {
                let _ = unmount(&self.stack.mnt, UnmountFlags::DETACH);
            }
        }
        if let Some(pid) = self.daemon
            && !wait_for_end(pid, Duration::from_secs(5))
        {
            eprintln!("killing the hanging daemon {pid:?} of {}", self.stack.mnt.display());
            let _ = kill_process(pid, Signal::KILL);
            wait_for_end(pid, Duration::from_secs(5));
        }
    }
}

/// Waits until a process, not necessarily a child, is gone.
fn wait_for_end(pid: Pid, limit: Duration) -> bool {
    let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return true;
    };
    let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&limit)), Ok(1))
}

fn lamel_pid(mnt: &Path) -> Option<Pid> {
    let mut buf = [0_u8; 32];
    let len = rustix::fs::getxattr(mnt, "system.lamel.pid", &mut buf[..]).ok()?;
    let text = std::str::from_utf8(buf.get(..len)?).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// The process that has `mnt` as an argument of its command line.
fn pid_by_argument(mnt: &Path) -> Option<Pid> {
    let me = std::process::id();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let found = line.split(|b| *b == 0).any(|arg| arg == mnt.as_os_str().as_bytes());
        if found && pid != me { Pid::from_raw(pid.cast_signed()) } else { None }
    })
}
