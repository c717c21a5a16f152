//! The container's root directory: paths inside it, and becoming the root.
//!
//! Whatever is in the root was made by somebody who is not trusted. A path is
//! resolved by openat2 with `RESOLVE_IN_ROOT`, so that neither `..` nor a
//! symlink leads out, and what is found is used by descriptor only.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::child::State;
use crate::error::{Called as _, Error, Fault};

/// How often a walk is tried again that a rename on its way made uncertain (`EAGAIN`).
const TRIES: usize = 128;
/// Longest path in the configuration, in bytes.
const MAX_PATH: usize = 4095;
/// The mode of directories and files that are made for mounts.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// A path inside the root, without `.` and `..`, as C strings.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Inside {
    /// `a`, `a/b`, `a/b/c`; empty for the root itself.
    prefixes: Vec<CString>,
    /// `a`, `b`, `c`.
    names: Vec<CString>,
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string())
    }
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.prefixes.last().map_or("".into(), |path| path.to_string_lossy()))
    }
}

impl Inside {
    /// Reads a path of the configuration. As in runc, `..` is taken off the text.
    pub(crate) fn new(field: &str, path: &Path) -> Result<Self, Error> {
        if path.as_os_str().len() > MAX_PATH {
            return Err(Error::invalid(field, format!("a path of more than {MAX_PATH} bytes")));
        }
        let mut parts = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => parts.push(name),
                Component::ParentDir => drop(parts.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        let c_string = |bytes: &[u8]| CString::new(bytes).map_err(|_| Error::invalid(field, "a path with a NUL in it"));
        let mut inside = Self { prefixes: Vec::new(), names: Vec::new() };
        let mut whole = PathBuf::new();
        for name in parts {
            whole.push(name);
            inside.prefixes.push(c_string(whole.as_os_str().as_bytes())?);
            inside.names.push(c_string(name.as_bytes())?);
        }
        Ok(inside)
    }

    /// The path, relative to the root; `.` for the root itself.
    pub(crate) fn path(&self) -> &CStr {
        self.prefixes.last().map_or(c".", CString::as_c_str)
    }

    /// With the names `names` in front, or equal.
    pub(crate) fn is_below(&self, names: &[&str]) -> bool {
        self.names.len() >= names.len() && self.names.iter().zip(names).all(|(a, b)| a.to_bytes() == b.as_bytes())
    }

    pub(crate) fn is(&self, names: &[&str]) -> bool {
        self.names.len() == names.len() && self.is_below(names)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.names.is_empty()
    }
}

/// What a symlink on the way means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// It is followed inside the root.
    Inside,
    /// It is refused: nobody needs one there, and a mount that others rely on would be elsewhere.
    Refused,
}

impl Links {
    fn flags(self) -> ResolveFlags {
        let always = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match self {
            Self::Inside => always,
            Self::Refused => always | ResolveFlags::NO_SYMLINKS,
        }
    }
}

/// Opens what is at a path inside the root.
pub(crate) fn open(root: BorrowedFd<'_>, path: &CStr, flags: OFlags, links: Links) -> Result<OwnedFd, Errno> {
    for _ in 0..TRIES {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), links.flags()) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// The directory at a path; what is missing is made.
pub(crate) fn directory(root: BorrowedFd<'_>, inside: &Inside, links: Links) -> Result<OwnedFd, Fault> {
    match open(root, inside.path(), OFlags::PATH | OFlags::DIRECTORY, links) {
        Err(Errno::NOENT) => {}
        found => return found.called("openat2"),
    }
    let (mut at, missing) = deepest(root, inside, links)?;
    for name in missing {
        at = make(at.as_fd(), name)?;
    }
    Ok(at)
}

/// A directory in a directory, made if it is missing.
fn make(above: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Fault> {
    match rustix::fs::mkdirat(above, name, DIRECTORY_MODE) {
        // Somebody who works in the same volume made it: it is looked at next.
        Ok(()) | Err(Errno::EXIST) => {}
        failed => failed.called("mkdirat")?,
    }
    child(above, name, OFlags::PATH | OFlags::DIRECTORY).called("openat2")
}

/// The file at a path, whatever its type; an empty one is made where it is missing.
pub(crate) fn file(root: BorrowedFd<'_>, inside: &Inside, links: Links) -> Result<OwnedFd, Fault> {
    match open(root, inside.path(), OFlags::PATH, links) {
        Err(Errno::NOENT) => {}
        found => return found.called("openat2"),
    }
    let (mut at, missing) = deepest(root, inside, links)?;
    let Some((name, above)) = missing.split_last() else {
        return Err(Fault::refused("a file cannot be mounted on the root"));
    };
    for name in above {
        at = make(at.as_fd(), name)?;
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match rustix::fs::openat(&at, name, flags, FILE_MODE) {
        Ok(_) | Err(Errno::EXIST) => {}
        failed => drop(failed.called("openat")?),
    }
    child(at.as_fd(), name, OFlags::PATH).called("openat2")
}

/// The directory that a path's last name is in, made if it is missing, and that name.
pub(crate) fn parent<'a>(root: BorrowedFd<'_>, inside: &'a Inside, links: Links) -> Result<(OwnedFd, &'a CStr), Fault> {
    let Some((name, above)) = inside.names.split_last() else {
        return Err(Fault::refused("the root has no name"));
    };
    let path = match inside.prefixes.get(above.len().wrapping_sub(1)) {
        Some(path) => path.as_c_str(),
        None => c".",
    };
    match open(root, path, OFlags::PATH | OFlags::DIRECTORY, links) {
        Ok(directory) => return Ok((directory, name)),
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno).called("openat2"),
    }
    let (mut at, missing) = deepest(root, inside, links)?;
    for name in missing.split_last().map(|(_, above)| above).unwrap_or_default() {
        at = make(at.as_fd(), name)?;
    }
    Ok((at, name))
}

/// The deepest directory of a path that exists, and the names that are missing below it.
fn deepest<'a>(root: BorrowedFd<'_>, inside: &'a Inside, links: Links) -> Result<(OwnedFd, &'a [CString]), Fault> {
    for existing in (0..inside.names.len()).rev() {
        let path = match existing.checked_sub(1) {
            Some(last) => inside.prefixes[last].as_c_str(),
            None => c".",
        };
        match open(root, path, OFlags::PATH | OFlags::DIRECTORY, links) {
            Ok(at) => return Ok((at, &inside.names[existing..])),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).called("openat2"),
        }
    }
    Err(Errno::NOENT).called("openat2")
}

/// One name in a directory, which is not followed if it is a symlink.
pub(crate) fn child(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match rustix::fs::openat2(directory, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens the root directory as the configuration names it. No part of the path
/// may be a symlink: whoever could write there would choose another root.
pub(crate) fn open_root(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS)
        .map_err(|errno| match errno {
            Errno::LOOP => Error::invalid(
                "root.path",
                format!("{} is a symlink or leads through one; name the directory itself", path.display()),
            ),
            Errno::NOTDIR => Error::invalid("root.path", format!("{} is not a directory", path.display())),
            errno => Error::Call { call: "openat2", object: path.display().to_string(), errno },
        })
}

/// A copy of the mount tree at a descriptor, attached nowhere yet.
pub(crate) fn clone_tree(at: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    rustix::mount::open_tree(at, c"", flags)
}

/// Attaches a mount on what a descriptor refers to.
pub(crate) fn attach(mount: BorrowedFd<'_>, on: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", on, c"", flags)
}

/// Whether a descriptor is of a directory.
pub(crate) fn is_directory(fd: BorrowedFd<'_>) -> Result<bool, Fault> {
    let stat = rustix::fs::fstat(fd).called("fstat")?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// The root directory, as the parent has it open, and where.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) fd: OwnedFd,
    pub(crate) path: CString,
}

/// Finds the root directory in this mount namespace.
pub(crate) fn take_root(root: &Root, state: &mut State<'_>) -> Result<(), Fault> {
    // The parent's descriptor is of a mount outside of this namespace: the same place is looked up again.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let own = rustix::fs::openat2(CWD, &root.path, flags, Mode::empty(), resolve).called("openat2")?;
    let (before, now) = (rustix::fs::fstat(&root.fd).called("fstat")?, rustix::fs::fstat(&own).called("fstat")?);
    if (before.st_dev, before.st_ino) != (now.st_dev, now.st_ino) {
        return Err(Fault::refused("the root directory was exchanged meanwhile"));
    }
    state.place = Some(own);
    Ok(())
}

/// Takes a private copy of the root directory's mount tree, which becomes the root.
pub(crate) fn clone_root(state: &mut State<'_>) -> Result<(), Fault> {
    let place = state.place.as_ref().ok_or(Fault::refused("no root"))?;
    state.root = Some(clone_tree(place.as_fd(), true).called("open_tree")?);
    Ok(())
}

/// Puts the copy over the root directory itself, for pivot_root wants a mount that is attached.
pub(crate) fn attach_root(state: &State<'_>) -> Result<(), Fault> {
    let place = state.place.as_ref().ok_or(Fault::refused("no root"))?;
    attach(state.root()?, place.as_fd()).called("move_mount")
}

/// Changes the propagation of everything that the process sees.
pub(crate) fn propagate(flags: MountPropagationFlags) -> Result<(), Fault> {
    rustix::mount::mount_change(c"/", flags).called("mount")
}

/// Makes the container's root the process's root, and lets go of the old one.
pub(crate) fn pivot(state: &State<'_>) -> Result<(), Fault> {
    let old =
        rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).called("open")?;
    rustix::process::fchdir(state.root()?).called("fchdir")?;
    // The old root comes to lie on the new one: no directory is needed for it.
    rustix::process::pivot_root(c".", c".").called("pivot_root")?;
    rustix::process::fchdir(&old).called("fchdir")?;
    // Nothing that is unmounted here may be unmounted anywhere else.
    rustix::mount::mount_change(c".", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).called("mount")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).called("umount2")?;
    rustix::process::chdir(c"/").called("chdir")
}

/// The same where the old root cannot be pivoted away, as an initramfs: it stays below, covered.
pub(crate) fn cover(state: &State<'_>) -> Result<(), Fault> {
    let root = state.root()?;
    rustix::process::fchdir(root).called("fchdir")?;
    let slash = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    attach(root, slash.called("open")?.as_fd()).called("move_mount")?;
    rustix::process::chroot(c".").called("chroot")?;
    rustix::process::chdir(c"/").called("chdir")
}

/// The root of a mount namespace that was entered.
pub(crate) fn open_entered(state: &mut State<'_>) -> Result<(), Fault> {
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    state.root = Some(root.called("open")?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(path: &str) -> Inside {
        Inside::new("x", Path::new(path)).unwrap()
    }

    #[test]
    fn paths_are_cleaned() {
        assert_eq!(inside("/a/./b//../c/").to_string(), "/a/c");
        assert_eq!(inside("../../..").path(), c".");
        assert!(
            inside("/").is_root() && inside("/proc/sys").is_below(&["proc"]) && !inside("/procs").is_below(&["proc"])
        );
        assert!(Inside::new("x", Path::new("a\0b")).is_err());
        assert!(Inside::new("x", Path::new(&"a/".repeat(3000))).is_err());
    }

    #[test]
    fn neither_dots_nor_links_lead_out() {
        let place = tempfile::tempdir().unwrap();
        let (root, outside) = (place.path().join("root"), place.path().join("outside"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink("../outside", root.join("link")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("absolute")).unwrap();
        std::os::unix::fs::symlink("/nowhere", root.join("dangling")).unwrap();
        let fd = open_root(&root.canonicalize().unwrap()).unwrap();
        let none = || std::fs::read_dir(&outside).unwrap().count() == 0;
        // `../outside` is /outside in the root, which is not there.
        assert!(directory(fd.as_fd(), &inside("/link/made"), Links::Inside).is_err());
        assert!(directory(fd.as_fd(), &inside("/dangling"), Links::Inside).is_err());
        assert!(file(fd.as_fd(), &inside("/absolute/file"), Links::Inside).is_err());
        assert!(none());
        std::fs::create_dir(root.join("outside")).unwrap();
        directory(fd.as_fd(), &inside("/link/made/deep"), Links::Inside).unwrap();
        file(fd.as_fd(), &inside("/link/x/y/file"), Links::Inside).unwrap();
        assert!(root.join("outside/made/deep").is_dir() && root.join("outside/x/y/file").is_file() && none());
        let refused = directory(fd.as_fd(), &inside("/link/made"), Links::Refused).unwrap_err();
        assert_eq!(refused.errno, libc::ELOOP);
        file(fd.as_fd(), &inside("/top"), Links::Inside).unwrap();
        assert!(root.join("top").is_file());
        assert!(open_root(&root.join("link")).is_err());
    }
}
