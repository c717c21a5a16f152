//! A scratch directory with the places of a union in it.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

/// Panics unless the tests may mount: root and `/dev/fuse`. Privileged tests fail on a host that lacks them.
pub fn require_privileges() {
    assert!(rustix::process::geteuid().is_root(), "these tests mount filesystems: run them as root");
    assert!(Path::new("/dev/fuse").exists(), "these tests need /dev/fuse: load the fuse module");
}

/// A directory of its own under `/var/tmp` (or `LAMEL_SCRATCH`, or a given base), removed on Drop with everything
/// mounted below it.
pub struct Scratch {
    dir: TempDir,
}

impl Scratch {
    /// Under `LAMEL_SCRATCH`, else `/var/tmp`: a real disk, not a tmpfs.
    pub fn new() -> Self {
        let base = std::env::var_os("LAMEL_SCRATCH").unwrap_or_else(|| "/var/tmp".into());
        Self::new_in(base)
    }

    /// Under `base`, for instance a small filesystem that the test has mounted.
    pub fn new_in(base: impl AsRef<Path>) -> Self {
        require_privileges();
        let dir =
            tempfile::Builder::new().prefix("lamel-test-").tempdir_in(base.as_ref()).expect("make a scratch directory");
        Self { dir }
    }

    /// The scratch directory itself.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path below the scratch directory; nothing is made.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// A directory below the scratch directory, made if missing.
    pub fn dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let dir = self.join(name);
        fs::create_dir_all(&dir).expect("make a directory in scratch");
        dir
    }

    /// Lower number `i`, 0 being the top one.
    pub fn lower(&self, i: usize) -> PathBuf {
        self.dir(format!("lower{i}"))
    }

    /// The first `n` lowers, top first.
    pub fn lowers(&self, n: usize) -> Vec<PathBuf> {
        (0..n).map(|i| self.lower(i)).collect()
    }

    pub fn upper(&self) -> PathBuf {
        self.dir("upper")
    }

    pub fn work(&self) -> PathBuf {
        self.dir("work")
    }

    pub fn mnt(&self) -> PathBuf {
        // Not create_dir_all: it would stat a dead mount, and fail.
        let mnt = self.join("mnt");
        let _ = fs::create_dir(&mnt);
        mnt
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Removing the tree through a mount that was left would destroy what is behind it: detach all first.
        for mnt in mounts_below(self.path()).iter().rev() {
            let _ = unmount(mnt, UnmountFlags::DETACH);
        }
        if std::thread::panicking() && std::env::var_os("LAMEL_KEEP").is_some() {
            self.dir.disable_cleanup(true);
            eprintln!("kept {}", self.path().display());
        }
    }
}

/// Mountpoints below `path`, in mount order.
pub(super) fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let Ok(table) = fs::read("/proc/self/mountinfo") else {
        return Vec::new();
    };
    table
        .split(|b| *b == b'\n')
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(unescape)
        .filter(|mnt| mnt.starts_with(path))
        .collect()
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(code) if byte == b'\\' => {
                out.push(code);
                rest = &tail[3..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}
