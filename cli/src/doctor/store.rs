//! Where images are kept, and what that filesystem can do.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, XattrFlags};

use super::{Check, State};
use crate::output::human::size;

const AREA: &str = "store";
/// Less is hardly enough for an image.
const LITTLE: u64 = 2_000_000_000;

/// Tries things in it, or in the directory that it would be made in.
pub(super) fn checks(root: &Path) -> Vec<Check> {
    let Some(dir) = root.ancestors().find(|dir| dir.is_dir()) else {
        return vec![Check::new(AREA, "writable", State::Missing, format!("{}: not there", root.display()))];
    };
    let mut checks = vec![writable(root, dir)];
    if checks.iter().any(|check| check.state == State::Missing) {
        return checks;
    }
    checks.extend([space(dir), locks(dir), unnamed(dir), attributes(dir), reflink(dir)]);
    checks
}

/// A file that goes when it is no longer needed.
struct Tried {
    path: PathBuf,
    file: File,
}

impl Tried {
    fn new(dir: &Path) -> io::Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(".lamel-doctor-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = dir.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Self { path, file })
    }
}

impl Drop for Tried {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

fn writable(root: &Path, dir: &Path) -> Check {
    let place = if dir == root { format!("{}", root.display()) } else { format!("{}, to be made", root.display()) };
    let kind = filesystem(dir).map(|kind| format!(" on {kind}")).unwrap_or_default();
    match Tried::new(dir) {
        Ok(_) => Check::new(AREA, "writable", State::Ok, format!("{place}{kind}")),
        Err(error) => Check::new(AREA, "writable", State::Missing, format!("{place}{kind}: {error}"))
            .fix("name a place of yours: --root DIR, or LAMEL_ROOT=DIR"),
    }
}

/// The type of the filesystem that a directory lies on: that of the last mount above it.
fn filesystem(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    kind_of(&dir, &mounts)
}

fn kind_of(dir: &Path, mountinfo: &str) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        // Blanks in a path are written in octal; a store under such a one is of no type that is told.
        let place = before.split(' ').nth(4)?;
        dir.starts_with(place).then_some((place.len(), after.split(' ').next()?))
    });
    mounts.max_by_key(|(len, _)| *len).map(|(_, kind)| kind.to_owned())
}

fn space(dir: &Path) -> Check {
    let Ok(found) = rustix::fs::statvfs(dir) else {
        return Check::new(AREA, "free space", State::Limited, "not told");
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let reason = format!("{}, {} files", size(free), found.f_favail);
    if free < LITTLE || (found.f_files > 0 && found.f_favail < 10_000) {
        Check::new(AREA, "free space", State::Limited, reason).fix("lamel prune --all, or another place: --root DIR")
    } else {
        Check::new(AREA, "free space", State::Ok, reason)
    }
}

fn locks(dir: &Path) -> Check {
    let tried =
        Tried::new(dir).and_then(|tried| Ok(rustix::fs::flock(&tried.file, FlockOperation::NonBlockingLockExclusive)?));
    match tried {
        Ok(()) => Check::new(AREA, "locks", State::Ok, "tried"),
        Err(error) => {
            Check::new(AREA, "locks", State::Missing, format!("{error}: two processes at once may spoil the store"))
                .fix("mount NFS with -o local_lock=flock or version 4; Lustre with -o flock")
        }
    }
}

fn unnamed(dir: &Path) -> Check {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(_) => Check::new(AREA, "O_TMPFILE", State::Ok, "tried"),
        Err(errno) => Check::new(AREA, "O_TMPFILE", State::Unused, format!("{errno}; the store does without it")),
    }
}

fn attributes(dir: &Path) -> Check {
    let set = |name: &str| {
        let tried = Tried::new(dir)?;
        Ok::<(), io::Error>(rustix::fs::fsetxattr(&tried.file, name, b"x", XattrFlags::empty())?)
    };
    let name = "xattrs";
    if let Err(error) = set("user.lamel") {
        return Check::new(
            AREA,
            name,
            State::Limited,
            format!("user.*: {error}: owners of a plain user's changes are not kept"),
        )
        .fix("put upper layers on ext4, xfs, btrfs, or tmpfs of Linux 6.6");
    }
    match set("trusted.lamel") {
        Ok(()) => Check::new(AREA, name, State::Ok, "user.*, trusted.*"),
        Err(_) => Check::new(AREA, name, State::Ok, "user.*; trusted.* is root's"),
    }
}

fn reflink(dir: &Path) -> Check {
    let tried = || {
        let (mut from, to) = (Tried::new(dir)?, Tried::new(dir)?);
        from.file.write_all(&[1; 4096])?;
        Ok::<(), io::Error>(rustix::fs::ioctl_ficlone(&to.file, &from.file)?)
    };
    match tried() {
        Ok(()) => Check::new(AREA, "reflinks", State::Ok, "tried: what is copied up shares its blocks"),
        Err(_) => Check::new(AREA, "reflinks", State::Limited, "not on this filesystem: what is copied up is copied")
            .fix("btrfs, or xfs made with reflink=1, shares blocks"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_above_counts() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /var rw shared:1 - xfs /dev/b rw\n3 1 0:3 / /var rw - tmpfs t rw\n";
        assert_eq!(kind_of(Path::new("/var/lib"), mounts).as_deref(), Some("tmpfs"));
        assert_eq!(kind_of(Path::new("/variable"), mounts).as_deref(), Some("ext4"));
        assert_eq!(kind_of(Path::new("/"), ""), None);
    }
}
