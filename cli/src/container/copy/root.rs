//! Where paths are resolved: on the host, or in a root that none leads out of.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;

/// Attempts to resolve a path while somebody renames directories on its way.
const ATTEMPTS: u32 = 64;

/// A root.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    /// Absolute paths, links and `..` stay in it.
    confined: bool,
}

impl Root {
    /// The host's, relative paths from the current directory.
    pub(crate) fn host() -> rustix::io::Result<Self> {
        let fd = rustix::fs::openat(CWD, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd, confined: false })
    }

    /// A directory whose content is not trusted.
    pub(crate) fn confined(fd: OwnedFd) -> Self {
        Self { fd, confined: true }
    }

    pub(super) fn is_confined(&self) -> bool {
        self.confined
    }

    /// The object of a path, as `O_PATH`; a last symlink is followed if `follow` says so or a slash comes after it.
    pub(crate) fn find(&self, path: &Path, follow: bool) -> rustix::io::Result<OwnedFd> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        self.open(path, flags)
    }

    /// The directory of a path, as `O_PATH`.
    pub(crate) fn directory(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// The object of a path that something is mounted on; what is missing is made, as the isolator makes it: by names that
    /// are no links.
    pub(super) fn place(&self, path: &Path, is_directory: bool) -> rustix::io::Result<OwnedFd> {
        match self.find(path, true) {
            Err(Errno::NOENT) => {}
            found => return found,
        }
        let names: Vec<&OsStr> = path.iter().filter(|name| *name != "/").collect();
        let mut missing = names.len();
        let mut at = loop {
            missing = missing.checked_sub(1).ok_or(Errno::NOENT)?;
            let above: PathBuf = names.iter().take(missing).collect();
            match self.directory(&above) {
                Err(Errno::NOENT) => {}
                found => break found?,
            }
        };
        for (number, name) in names.iter().enumerate().skip(missing) {
            let made = if is_directory || number + 1 < names.len() {
                mkdirat(&at, *name, Mode::from_raw_mode(0o755))
            } else {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(&at, *name, flags, Mode::from_raw_mode(0o644)).map(drop)
            };
            match made {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            at = openat2(&at, *name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        }
        Ok(at)
    }

    fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = if self.confined { ResolveFlags::IN_ROOT } else { ResolveFlags::empty() };
        for _ in 0..ATTEMPTS {
            match openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // The way changed while it was walked: no answer can be trusted then.
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
        Err(Errno::AGAIN)
    }
}

/// Whether a path names a directory by its end: `/`, `/.` or `/..`.
pub(crate) fn asks_for_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.ends_with(b"/") || wants_content(path) || matches!(path.components().next_back(), Some(Component::ParentDir))
}

/// Whether a path names what is in a directory: it ends in `/.`, or is `.`.
pub(crate) fn wants_content(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes == b"." || bytes.ends_with(b"/.")
}

/// The last component of a path; `None` of a root, `.` and `..`.
pub(crate) fn base(path: &Path) -> Option<&OsStr> {
    path.file_name()
}

/// The path without its last component.
pub(crate) fn above(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => ".".into(),
    }
}

/// The components of a member's name; `None` if it leads upwards, which none of a tree does.
pub(super) fn components(path: &[u8]) -> Option<Vec<OsString>> {
    use std::os::unix::ffi::OsStrExt as _;
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.map(|name| (name != b"..").then(|| OsStr::from_bytes(name).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_paths_say_what_is_meant() {
        for (path, directory, content) in [
            ("/a", false, false),
            ("/a/", true, false),
            ("/a/.", true, true),
            (".", true, true),
            ("/a/..", true, false),
        ] {
            assert_eq!(
                (asks_for_directory(Path::new(path)), wants_content(Path::new(path))),
                (directory, content),
                "{path}"
            );
        }
        assert_eq!((base(Path::new("/a/b/")), base(Path::new("/"))), (Some(OsStr::new("b")), None));
        assert_eq!((above(Path::new("a")), above(Path::new("/a"))), (".".into(), PathBuf::from("/")));
        assert_eq!(components(b"./a//b/"), Some(vec!["a".into(), "b".into()]));
        assert_eq!(components(b"a/../../b"), None);
    }

    #[test]
    fn nothing_leads_out_of_a_confined_root() {
        let place = tempfile::tempdir().unwrap();
        let inner = place.path().join("root");
        std::fs::create_dir_all(inner.join("etc")).unwrap();
        std::fs::write(inner.join("etc/hostname"), "inside").unwrap();
        std::fs::write(place.path().join("outside"), "").unwrap();
        std::os::unix::fs::symlink("/etc", inner.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../..", inner.join("up")).unwrap();
        let fd = rustix::fs::open(&inner, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let root = Root::confined(fd);
        for path in ["/etc/hostname", "absolute/hostname", "up/up/etc/hostname", "../../etc/hostname"] {
            let found = std::fs::read_to_string(super::super::proc_path(&root.find(Path::new(path), true).unwrap()));
            assert_eq!(found.unwrap(), "inside", "{path}");
        }
        assert_eq!(root.find(Path::new("up/outside"), true).unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn a_place_is_made_where_it_is_missing_and_not_through_links() {
        let place = tempfile::tempdir().unwrap();
        let inner = place.path().join("root");
        std::fs::create_dir_all(inner.join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc", inner.join("to-etc")).unwrap();
        std::os::unix::fs::symlink("../../made", inner.join("dangling")).unwrap();
        let fd = rustix::fs::open(&inner, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let root = Root::confined(fd);
        root.place(Path::new("/to-etc/a/b"), true).unwrap();
        root.place(Path::new("/etc/a/file"), false).unwrap();
        assert!(inner.join("etc/a/b").is_dir() && inner.join("etc/a/file").is_file());
        assert_eq!(root.place(Path::new("/dangling/x"), true).unwrap_err(), Errno::LOOP);
        assert_eq!(root.place(Path::new("/etc/a/file/x"), true).unwrap_err(), Errno::NOTDIR);
        assert!(!place.path().join("made").exists() && !inner.join("made").exists());
    }
}
