//! The container's terminal: made from its own devpts, its master handed to the parent.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::termios::Winsize;

use crate::child::State;
use crate::error::{Called as _, Fault};
use crate::rootfs::{self, Links};

/// statfs's name of devpts.
const DEVPTS_MAGIC: rustix::fs::FsWord = libc::DEVPTS_SUPER_MAGIC as rustix::fs::FsWord;

/// Makes a terminal, with `console` puts it at `/dev/console`, and sends its master to the parent.
pub(crate) fn open(size: Option<(u16, u16)>, owner: u32, console: bool, state: &mut State<'_>) -> Result<(), Fault> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = rootfs::open(state.root()?, c"dev/pts/ptmx", flags, Links::Refused).called("openat2 /dev/pts/ptmx")?;
    if rustix::fs::fstatfs(&master).called("fstatfs")?.f_type != DEVPTS_MAGIC {
        return Err(Fault::refused("/dev/pts/ptmx is not of a devpts"));
    }
    let slave = crate::sys::tty::open_peer(master.as_fd()).called("TIOCGPTPEER")?;
    if let Some((columns, rows)) = size {
        resize(master.as_fd(), columns, rows).called("TIOCSWINSZ")?;
    }
    if owner != 0 {
        // Its user may open it again by its name.
        rustix::fs::fchown(&slave, Some(Uid::from_raw(owner)), None).called("fchown")?;
    }
    if console {
        put_console(slave.as_fd(), state)?;
    }
    state.socket.terminal(master.as_fd()).called("sendmsg")?;
    state.terminal = Some(slave);
    Ok(())
}

fn put_console(slave: BorrowedFd<'_>, state: &State<'_>) -> Result<(), Fault> {
    let dev =
        rootfs::open(state.root()?, c"dev", OFlags::PATH | OFlags::DIRECTORY, Links::Refused).called("openat2 /dev")?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match rustix::fs::openat(&dev, c"console", flags, Mode::from_raw_mode(0o600)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).called("openat /dev/console"),
    }
    let place =
        rootfs::child(dev.as_fd(), c"console", OFlags::PATH | OFlags::NOFOLLOW).called("openat2 /dev/console")?;
    let stat = rustix::fs::fstat(&place).called("fstat")?;
    if !matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::CharacterDevice) {
        return Err(Fault::refused("/dev/console is neither a file nor a device"));
    }
    let tree = rootfs::clone_tree(slave, false).called("open_tree")?;
    rootfs::attach(tree.as_fd(), place.as_fd()).called("move_mount")
}

/// Makes the terminal the process's own, and its standard streams.
pub(crate) fn take(state: &State<'_>) -> Result<(), Fault> {
    let Some(slave) = &state.terminal else { return Ok(()) };
    rustix::process::ioctl_tiocsctty(slave).called("TIOCSCTTY")?;
    rustix::stdio::dup2_stdin(slave).called("dup2")?;
    rustix::stdio::dup2_stdout(slave).called("dup2")?;
    rustix::stdio::dup2_stderr(slave).called("dup2")
}

/// Tells a terminal its size.
pub(crate) fn resize(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> Result<(), Errno> {
    rustix::termios::tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
}

/// Whether the standard streams are open, as they have to be: a container's first file would take their numbers.
pub(crate) fn hold_standard_streams() -> Result<(), Errno> {
    loop {
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        // It fills the hole, and stays over exec.
        rustix::io::fcntl_setfd(&null, rustix::io::FdFlags::empty())?;
        std::mem::forget(null);
    }
}
