//! Where things are made before they get their name: a directory of one
//! process below `tmp/`, with a lock in it that says that the process lives.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{Result, at};
use super::lock::{self, Mode};

/// The lock in each directory.
const LOCK: &str = "lock";

/// A directory to make things in. Dropping it removes what was not published.
#[derive(Debug)]
pub(super) struct Staging {
    dir: PathBuf,
    /// Held while the process lives.
    _lock: File,
    next: AtomicU64,
}

impl Staging {
    /// Makes one below `tmp`.
    pub(super) fn new(tmp: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            // Other hosts and pid namespaces have the same numbers: then the next one is tried.
            let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let dir = tmp.join(name);
            match DirBuilder::new().create(&dir) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                made => made.map_err(at("mkdir", &dir))?,
            }
            // The sweeper of another process may come between any two of these calls.
            if let Some(lock) = take(&dir.join(LOCK)).map_err(at("lock", &dir))? {
                return Ok(Self { dir, _lock: lock, next: AtomicU64::new(0) });
            }
        }
    }

    /// A path in it that nothing has.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Makes an empty file.
    pub(super) fn file(&self) -> Result<(PathBuf, File)> {
        let path = self.path();
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(at("create", &path))?;
        Ok((path, file))
    }

    /// Writes a small file whole, has it on the disk, and gives it its name; one that has it is replaced.
    pub(super) fn publish_bytes(&self, bytes: &[u8], place: &Path) -> Result<()> {
        let (path, mut file) = self.file()?;
        file.write_all(bytes).and_then(|()| file.sync_data()).map_err(at("write", &path))?;
        publish(&path, place)
    }
}

/// A directory of the store's that goes with its last user, at the latest when the store is opened again.
#[derive(Debug)]
pub struct Scratch(Staging);

impl Scratch {
    pub(super) fn new(tmp: &Path) -> Result<Self> {
        Staging::new(tmp).map(Self)
    }

    /// Makes an empty directory in it.
    ///
    /// # Errors
    /// Nothing can be made there.
    pub fn dir(&self) -> Result<PathBuf> {
        let path = self.0.path();
        DirBuilder::new().mode(0o755).create(&path).map_err(at("mkdir", &path))?;
        Ok(path)
    }
}

/// `None` if somebody removed the directory meanwhile.
fn take(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    Ok(if lock::try_lock(&file, Mode::Exclusive)? && lock::is_at(&file, path)? { Some(file) } else { None })
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now, the next process removes.
        remove(&self.dir).ok();
    }
}

/// Gives a file its name.
pub(super) fn publish(path: &Path, place: &Path) -> Result<()> {
    fs::rename(path, place).map_err(at("rename to", place))
}

/// Has the names in a directory on the disk.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at("fsync", dir))
}

/// Gives a directory its name, unless another process was faster; what is made there is the same.
pub(super) fn publish_dir(path: &Path, place: &Path) -> Result<()> {
    match fs::rename(path, place) {
        Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => Ok(()),
        renamed => renamed.map_err(at("rename to", place)),
    }
}

/// Removes a staging directory whose lock is held. The lock goes last: what has none is empty, or the next sweeper would
/// have to leave it.
fn remove(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        } else if entry.file_name() != LOCK {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_file(dir.join(LOCK))?;
    fs::remove_dir(dir)
}

/// Removes a directory, also where the upper layer of a mount in it has directories that its owner may not change.
///
/// # Errors
/// Those of the file system.
pub fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            open_up(dir)?;
            fs::remove_dir_all(dir)
        }
        done => done,
    }
}

fn open_up(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes what killed processes left in `tmp`. Failures are left to the next one.
pub(super) fn sweep(tmp: &Path) {
    let Ok(entries) = fs::read_dir(tmp) else { return };
    for entry in entries.flatten() {
        let dir = entry.path();
        let lock = OpenOptions::new().read(true).write(true).open(dir.join(LOCK));
        match lock {
            Ok(lock) => {
                if lock::try_lock(&lock, Mode::Exclusive).is_ok_and(|taken| taken) {
                    remove(&dir).ok();
                }
            }
            // Killed before it had a lock, or after its lock was removed; who is just making one tries again.
            Err(error) if error.kind() == ErrorKind::NotFound => drop(fs::remove_dir(&dir)),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_left_alone_and_the_dead_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let living = Staging::new(tmp.path()).unwrap();
        let (file, _) = living.file().unwrap();
        let dead = tmp.path().join("1-1");
        fs::create_dir_all(dead.join("sub")).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        fs::create_dir(tmp.path().join("1-2")).unwrap();
        sweep(tmp.path());
        assert!(file.exists());
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
        drop(living);
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }

    #[test]
    fn makers_and_sweepers_do_not_disturb_each_other() {
        let tmp = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..200).for_each(|_| sweep(tmp.path())));
                scope.spawn(|| {
                    for _ in 0..200 {
                        let staging = Staging::new(tmp.path()).unwrap();
                        let (path, _) = staging.file().unwrap();
                        assert!(path.exists());
                    }
                });
            }
        });
        sweep(tmp.path());
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }
}
