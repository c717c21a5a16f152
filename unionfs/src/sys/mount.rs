//! mount(2), umount2(2), and the setuid helper that does them for plain users.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// The device that FUSE servers read.
pub(crate) const DEVICE: &str = "/dev/fuse";

/// The setuid helpers, in the order in which they are tried.
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];

/// `st_dev` of a mounted filesystem, in two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// Writes everything of the filesystem that `directory` lies on to disk.
pub(crate) fn sync_filesystem(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::syncfs(rustix::fs::openat(directory, c".", flags, Mode::empty())?)
}

/// Sets how far the kernel reads ahead in the files of a mounted filesystem, after its handshake, which sets it too.
pub(crate) fn read_ahead(device: Device, kib: u32) -> io::Result<()> {
    let Device { major, minor } = device;
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    File::options().write(true).open(setting)?.write_all(kib.to_string().as_bytes())
}

/// A new FUSE connection.
pub(crate) fn open_device() -> Result<OwnedFd, Errno> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Whether the filesystem at the other end of a connection exists.
pub(crate) fn is_connected(connection: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(connection, PollFlags::IN)];
    let now = Timespec::default();
    poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().intersects(PollFlags::ERR)
}

/// The directory that a mount will cover, as it is before.
pub(crate) fn open_mountpoint(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Whether `directory` belongs to a FUSE mount that nobody serves any more.
pub(crate) fn is_dead(directory: BorrowedFd<'_>) -> bool {
    // What the kernel remembers of it would look well.
    let ask = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    rustix::fs::statx(directory, c"", ask, StatxFlags::TYPE).is_err_and(|errno| errno == Errno::NOTCONN)
}

/// Where `directory` lies, without links.
pub(crate) fn real_path(directory: BorrowedFd<'_>) -> Result<PathBuf, Errno> {
    let path = rustix::fs::readlink(magic_link(directory), Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
}

fn magic_link(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Covers `directory`, by its descriptor: its path may lie in a layer and mean something else by now.
pub(crate) fn mount_on(
    directory: BorrowedFd<'_>,
    source: &str,
    kind: &str,
    flags: MountFlags,
    data: &str,
) -> Result<(), Errno> {
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(source, magic_link(directory), kind, flags, data.as_c_str())
}

/// Takes away what covers `directory`, at once for those who come and later for those who are inside.
pub(crate) fn uncover(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    // umount2 goes on from the link to the mount on top of what it points to.
    rustix::mount::unmount(magic_link(directory), UnmountFlags::DETACH)
}

/// Unmounts what `path` names. `lazy`: also if it is in use.
///
/// A plain user has it done by the helper; the helper's own words are the error then.
pub fn unmount(path: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM) => helper_unmount(path, lazy),
        other => Ok(other?),
    }
}

/// The filesystem that `path` names, without asking its server for anything.
pub(crate) fn device_of(path: &Path) -> Result<Device, Errno> {
    let object = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let sync = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = rustix::fs::statx(object, c"", sync, StatxFlags::empty())?;
    Ok(Device { major: found.stx_dev_major, minor: found.stx_dev_minor })
}

/// One line of the mount table.
#[derive(Debug)]
struct Entry {
    device: Vec<u8>,
    path: PathBuf,
    kind: String,
}

/// The mounts that this process can see, oldest first.
fn table() -> io::Result<Vec<Entry>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(entry).collect())
}

fn entry(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ').skip(2);
    let device = fields.next()?.to_vec();
    let path = PathBuf::from(decode(fields.nth(1)?));
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Entry { device, path, kind: String::from_utf8_lossy(kind).into_owned() })
}

/// Where a filesystem is mounted, as far as this process can see.
pub(crate) fn places_of(device: Device) -> io::Result<Vec<PathBuf>> {
    let wanted = format!("{}:{}", device.major, device.minor);
    let ours = |entry: Entry| (entry.device == wanted.as_bytes()).then_some(entry.path);
    Ok(table()?.into_iter().filter_map(ours).collect())
}

/// The filesystem type (`fuse.lamel`, …) of what is mounted right at `path`, which has no links in it.
pub fn kind_at(path: &Path) -> io::Result<Option<String>> {
    // The youngest one covers the others.
    Ok(table()?.into_iter().rev().find(|entry| entry.path == path).map(|entry| entry.kind))
}

/// Undoes the kernel's `\ooo` escapes of a mountinfo field.
fn decode(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let byte = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(plain)
}

/// What the helper did not do.
#[derive(Debug)]
pub(crate) enum HelperError {
    /// None is installed.
    Missing,
    /// It ended with this message.
    Said(String),
    /// It could not be talked to.
    Io(io::Error),
}

impl From<io::Error> for HelperError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Has the helper mount on `path`; it sends the connection over a socket.
pub(crate) fn helper_mount(path: &Path, options: &str) -> Result<OwnedFd, HelperError> {
    for helper in HELPERS {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(helper);
        command.arg("-o").arg(options).arg("--").arg(path);
        // The socket is the helper's standard input: inherited without
        // being leaked to anything else that is started meanwhile.
        command.env("_FUSE_COMMFD", "0").stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        // The command holds a copy of the helper's end: without dropping it,
        // a helper that fails would be waited for for ever.
        drop(command);
        let connection = receive_descriptor(&ours);
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        let status = child.wait()?;
        return match connection? {
            Some(connection) if status.success() => Ok(connection),
            _ if said.trim().is_empty() => Err(HelperError::Said(format!("{helper}: {status}"))),
            _ => Err(HelperError::Said(said.trim().to_owned())),
        };
    }
    Err(HelperError::Missing)
}

fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8];
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(descriptor)
}

/// Has the helper unmount `path`.
pub(crate) fn helper_unmount(path: &Path, lazy: bool) -> io::Result<()> {
    for helper in HELPERS {
        let mut command = Command::new(helper);
        command.arg("-u");
        if lazy {
            command.arg("-z");
        }
        command.arg("--").arg(path).stdin(Stdio::null());
        let output = match command.output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        // Its messages end in strerror's text and nothing else tells the kinds apart.
        return Err(if said.contains("busy") { Errno::BUSY.into() } else { io::Error::other(said) });
    }
    Err(Errno::PERM.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn mountinfo_fields_are_decoded() {
        assert_eq!(decode(br"/a\040b\134\011c"), OsStr::new("/a b\\\tc"));
        assert_eq!(decode(br"/a\9\04"), OsStr::new(r"/a\9\04"));
    }

    #[test]
    fn lines_of_the_mount_table() {
        let line = br"42 27 0:39 / /a\040b rw,nodev shared:1 master:2 - fuse.lamel src rw,user_id=0";
        let entry = entry(line).unwrap();
        assert_eq!((entry.device.as_slice(), entry.kind.as_str()), (&b"0:39"[..], "fuse.lamel"));
        assert_eq!(entry.path, Path::new("/a b"));
        assert!(super::entry(b"").is_none());
        assert_eq!(kind_at(Path::new("/proc")).unwrap().as_deref(), Some("proc"));
    }

    #[test]
    fn this_root_is_in_the_table() {
        let device = device_of(Path::new("/proc")).unwrap();
        assert!(places_of(device).unwrap().contains(&PathBuf::from("/proc")));
    }
}
