//! One container on the disk: its directory, its files, its lock.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lamel_isolate::oci::Spec;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::settings::Settings;
use super::state::{self, State};

/// How long a command that works on a stopped container is waited for, or a monitor that has still to write what it
/// wrote to the disk; and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// A container on the disk, as it was when it was looked up.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    dir: PathBuf,
    pub(crate) settings: Settings,
}

/// The lock of a container that does not run. A monitor inherits it and holds it for life; for a command it goes with
/// this value.
#[derive(Debug)]
pub(crate) struct Hold(#[expect(dead_code, reason = "held, not read")] File);

/// Who has a lock.
enum Lock {
    Taken(Hold),
    Held,
}

impl Record {
    /// Reads the container in a directory.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        Ok(Self { dir: dir.to_owned(), settings: state::read(&dir.join("container.json"))? })
    }

    /// One whose files are still to be written.
    pub(crate) fn new(dir: PathBuf, settings: Settings) -> Self {
        Self { dir, settings }
    }

    pub(crate) fn id(&self) -> &str {
        &self.settings.id
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The layer that holds what it wrote; a container of a directory has none.
    pub(crate) fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Its root directory: of an image, where its monitor, and nobody else, sees it mounted.
    pub(crate) fn root(&self) -> PathBuf {
        self.settings.rootfs.clone().unwrap_or_else(|| self.dir.join("rootfs"))
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Where the monitor listens; see [`super::control`].
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The OCI configuration.
    pub(crate) fn spec(&self) -> Result<Spec> {
        state::read(&self.dir.join("config.json"))
    }

    pub(crate) fn write_spec(&self, spec: &Spec) -> Result<()> {
        state::write(&self.dir.join("config.json"), spec)
    }

    pub(crate) fn write_settings(&self) -> Result<()> {
        state::write(&self.dir.join("container.json"), &self.settings)
    }

    /// The state as it is. A container whose monitor was killed has ended, whatever its file says.
    pub(crate) fn state(&self) -> Result<State> {
        let state = self.written_state()?;
        if !state.status.is_alive() || self.has_monitor()? {
            return Ok(state);
        }
        // It may have ended in good order between the two looks.
        let again = self.written_state()?;
        Ok(if again.status.is_alive() { again.bereft() } else { again })
    }

    fn written_state(&self) -> Result<State> {
        state::read(&self.dir.join("state.json"))
    }

    /// For who holds the lock: its monitor, or a command while there is none.
    pub(crate) fn write_state(&self, state: &State) -> Result<()> {
        state::write(&self.dir.join("state.json"), state)
    }

    /// Whether somebody has its lock: a monitor, or for a moment a command.
    pub(crate) fn has_monitor(&self) -> Result<bool> {
        Ok(match self.open_lock()? {
            None => false,
            Some(file) => !try_flock(&file, FlockOperation::NonBlockingLockShared).with_context(|| self.shown())?,
        })
    }

    /// Takes the lock, so that nobody starts or removes it; `None` if it runs.
    ///
    /// A command that works on it is waited for.
    pub(crate) fn hold(&self) -> Result<Option<Hold>> {
        let start = Instant::now();
        loop {
            let Some(file) = self.open_lock()? else { bail!("No such container: {}", self.settings.name) };
            match try_hold(file).with_context(|| self.shown())? {
                // Removed while it was waited for.
                Lock::Taken(_) if !self.dir.exists() => bail!("No such container: {}", self.settings.name),
                Lock::Taken(hold) => return Ok(Some(hold)),
                Lock::Held if self.written_state()?.status.is_alive() => return Ok(None),
                Lock::Held if start.elapsed() > PATIENCE => {
                    bail!("container {} is in use by another command", self.settings.name)
                }
                Lock::Held => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Makes its lock, taken.
    pub(crate) fn make_lock(&self) -> Result<Hold> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.lock());
        match file.map_err(anyhow::Error::from).and_then(|file| Ok(try_hold(file)?)).with_context(|| self.shown())? {
            Lock::Taken(hold) => Ok(hold),
            Lock::Held => bail!("{} is held by somebody else", self.shown()),
        }
    }

    fn open_lock(&self) -> Result<Option<File>> {
        match OpenOptions::new().read(true).write(true).open(self.lock()) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| self.shown()),
        }
    }

    fn shown(&self) -> String {
        self.lock().display().to_string()
    }
}

/// Takes a lock for this process alone. Those who only look hold it together for a moment, which does not count.
fn try_hold(file: File) -> io::Result<Lock> {
    loop {
        if try_flock(&file, FlockOperation::NonBlockingLockExclusive)? {
            return Ok(Lock::Taken(Hold(file)));
        }
        if !try_flock(&file, FlockOperation::NonBlockingLockShared)? {
            return Ok(Lock::Held);
        }
        flock(&file, FlockOperation::Unlock)?;
        std::thread::yield_now();
    }
}

fn try_flock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::tests::plain;
    use super::super::state::Status;
    use super::*;

    fn record(place: &Path) -> Record {
        let record = Record::new(place.to_owned(), plain(&"0".repeat(64), "x"));
        record.write_settings().unwrap();
        record.write_state(&State { status: Status::Running, pid: 7, ..State::default() }).unwrap();
        record
    }

    #[test]
    fn the_lock_tells_whether_it_runs() {
        let place = tempfile::tempdir().unwrap();
        let record = record(place.path());
        let hold = record.make_lock().unwrap();
        assert_eq!(record.state().unwrap().pid, 7);
        assert!(record.hold().unwrap().is_none());
        drop(hold);
        let ended = record.state().unwrap();
        assert_eq!((ended.status, ended.exit_code, ended.pid), (Status::Exited, state::KILLED, 0));
        assert!(record.hold().unwrap().is_some());
        assert_eq!(Record::open(place.path()).unwrap().settings, record.settings);
    }

    #[test]
    fn who_looks_does_not_disturb_who_takes() {
        let place = tempfile::tempdir().unwrap();
        let record = record(place.path());
        drop(record.make_lock().unwrap());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..500).for_each(|_| assert!(record.has_monitor().is_ok())));
            }
            for _ in 0..500 {
                assert!(record.hold().unwrap().is_some());
            }
        });
    }

    #[test]
    fn what_was_removed_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("c");
        std::fs::create_dir(&dir).unwrap();
        let record = record(&dir);
        drop(record.make_lock().unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(record.hold().unwrap_err().to_string().contains("No such container"));
        assert!(!record.has_monitor().unwrap());
    }
}
