//! All containers of a store: looking one up, adding, renaming, removing.
//!
//! ```text
//! containers/lock           held while names and directories come and go
//! ids.lock                  held while ids are found that no other container has; taken before the other one
//! containers/names/NAME     the id of the container of this name
//! containers/ID/            a container
//! containers/.ID/           one that is being made or removed; whose lock is free, is rubbish
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};

use super::names;
use super::record::{Hold, Record};
use super::remove::{Ids, remove, remove_tree};
use super::settings::Settings;
use super::state::State;

/// The containers of a store.
#[derive(Clone, Debug)]
pub(crate) struct Containers {
    root: PathBuf,
}

impl Containers {
    /// Those of the store at `root`, which is made if need be.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root)?.join("containers");
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(root.join("names")).with_context(|| format!("making {}", root.display()))?;
        Ok(Self { root })
    }

    /// The root of the store that they are in.
    pub(crate) fn store(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    /// Where it is written down what happened.
    pub(crate) fn events(&self) -> PathBuf {
        self.root.with_file_name("events")
    }

    /// The container of a name, an id, or an id's first digits that no other has.
    pub(crate) fn find(&self, text: &str) -> Result<Record> {
        let missing = || format!("No such container: {text}");
        if !names::is_valid(text) {
            bail!(missing());
        }
        if is_id(text) && self.root.join(text).is_dir() {
            return Record::open(&self.root.join(text)).with_context(missing);
        }
        if let Some(record) = self.named(text)? {
            return Ok(record);
        }
        let fitting: Vec<String> = self.ids()?.into_iter().filter(|id| id.starts_with(text)).collect();
        match fitting.as_slice() {
            [] => bail!(missing()),
            [id] => Record::open(&self.root.join(id)).with_context(missing),
            several => bail!("{text} are the first digits of {} containers' ids: give more of them", several.len()),
        }
    }

    fn named(&self, name: &str) -> Result<Option<Record>> {
        let id = match fs::read_to_string(self.name_file(name)) {
            Ok(id) => id,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| self.name_file(name).display().to_string()),
        };
        // What a killed command left of a name leads nowhere.
        Ok(Some(id)
            .filter(|id| is_id(id))
            .and_then(|id| self.record(&id))
            .filter(|record| record.settings.name == name))
    }

    /// All of them, the newest first. One that is removed meanwhile is left out.
    pub(crate) fn list(&self) -> Result<Vec<Record>> {
        let mut records: Vec<Record> = self.ids()?.iter().filter_map(|id| self.record(id)).collect();
        records.sort_by(|a, b| (b.settings.created, b.id()).cmp(&(a.settings.created, a.id())));
        Ok(records)
    }

    fn record(&self, id: &str) -> Option<Record> {
        let dir = self.root.join(id);
        match Record::open(&dir) {
            Ok(record) => Some(record),
            Err(_) if !dir.exists() => None,
            Err(error) => {
                tracing::warn!("container {id} cannot be read: {error:#}");
                None
            }
        }
    }

    fn ids(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.root).with_context(|| self.root.display().to_string())?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|n| is_id(n)).collect())
    }

    /// Begins a container: a directory that nobody sees yet, and goes again unless it is published.
    pub(crate) fn draft(&self, settings: Settings) -> Result<Draft<'_>> {
        let _lock = self.lock()?;
        self.sweep();
        let dir = self.hidden(&settings.id);
        DirBuilder::new().mode(0o700).create(&dir).with_context(|| format!("making {}", dir.display()))?;
        let record = Record::new(dir, settings);
        let hold = record.make_lock()?;
        Ok(Draft { containers: self, record, hold: Some(hold) })
    }

    /// Gives a container another name.
    pub(crate) fn rename(&self, record: &Record, name: &str) -> Result<()> {
        names::check(name)?;
        let _lock = self.lock()?;
        // As it is now: somebody else may have been faster.
        let mut record = Record::open(record.dir()).with_context(|| format!("No such container: {}", record.id()))?;
        if record.settings.name == name {
            bail!("Renaming a container with the same name as its current name");
        }
        self.take_name(name, record.id())?;
        let before = std::mem::replace(&mut record.settings.name, name.to_owned());
        if let Err(error) = record.write_settings() {
            fs::remove_file(self.name_file(name)).ok();
            return Err(error);
        }
        fs::remove_file(self.name_file(&before)).ok();
        Ok(())
    }

    /// Removes a container, whose lock the caller holds, with everything in its directory.
    pub(crate) fn remove(&self, record: &Record, hold: Hold) -> Result<()> {
        let ids = record.spec().ok().as_ref().and_then(Ids::of);
        let hidden = self.conceal(record)?;
        let removed = remove_tree(&hidden, ids.as_ref()).with_context(|| format!("removing {}", hidden.display()));
        drop(hold);
        removed
    }

    /// Takes a container, whose lock the caller holds, out of everybody's sight; its name is free. Where it lies now,
    /// to be removed.
    pub(crate) fn conceal(&self, record: &Record) -> Result<PathBuf> {
        let hidden = self.hidden(record.id());
        let _lock = self.lock()?;
        let name = Record::open(record.dir()).map_or_else(|_| record.settings.name.clone(), |now| now.settings.name);
        fs::rename(record.dir(), &hidden).with_context(|| format!("removing {}", record.dir().display()))?;
        if fs::read_to_string(self.name_file(&name)).is_ok_and(|id| id == record.id()) {
            fs::remove_file(self.name_file(&name)).ok();
        }
        Ok(hidden)
    }

    /// Removes what killed commands left half made or half removed. The caller holds the lock.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if !entry.file_name().to_str().and_then(|name| name.strip_prefix('.')).is_some_and(is_id) {
                continue;
            }
            let lock = OpenOptions::new().read(true).write(true).open(entry.path().join("lock"));
            let is_free = match &lock {
                Ok(lock) => flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
                // The lock is removed with the rest, in any order.
                Err(error) => error.kind() == ErrorKind::NotFound,
            };
            let ids = || Ids::of(&super::state::read(&entry.path().join("config.json")).ok()?);
            if is_free && let Err(error) = remove_tree(&entry.path(), ids().as_ref()) {
                tracing::warn!("removing {}: {error:#}", entry.path().display());
            }
        }
    }

    /// Writes the file of a name, which must be free. The caller holds the lock.
    fn take_name(&self, name: &str, id: &str) -> Result<()> {
        let path = self.name_file(name);
        let shown = || path.display().to_string();
        match self.named(name)? {
            Some(other) => bail!(
                "Conflict. The container name {name:?} is already in use by container {:?}. You have to remove (or \
                 rename) that container to be able to reuse that name.",
                other.id()
            ),
            None if path.symlink_metadata().is_ok() => fs::remove_file(&path).with_context(shown)?,
            None => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).with_context(shown)?;
        if let Err(error) = file.write_all(id.as_bytes()) {
            fs::remove_file(&path).ok();
            return Err(error).with_context(shown);
        }
        Ok(())
    }

    /// Held by who looks for ids that no other container has.
    pub(crate) fn lock_ids(&self) -> Result<File> {
        lock_file(&self.root.with_file_name("ids.lock"))
    }

    fn lock(&self) -> Result<File> {
        lock_file(&self.root.join("lock"))
    }

    fn hidden(&self, id: &str) -> PathBuf {
        self.root.join(format!(".{id}"))
    }

    fn name_file(&self, name: &str) -> PathBuf {
        self.root.join("names").join(name)
    }
}

fn lock_file(path: &Path) -> Result<File> {
    let open = || -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    };
    open().with_context(|| path.display().to_string())
}

/// 64 hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A container that is being made.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    containers: &'a Containers,
    pub(crate) record: Record,
    hold: Option<Hold>,
}

impl Draft<'_> {
    /// Shows the container to everybody, under its name, or one that is made up if it has none yet. Its lock stays
    /// the caller's.
    pub(crate) fn publish(mut self) -> Result<(Record, Hold)> {
        let containers = self.containers;
        let record = &mut self.record;
        let _lock = containers.lock()?;
        if record.settings.name.is_empty() {
            record.settings.name = names::make_up(|name| Ok(containers.named(name)?.is_none()))?;
        }
        record.write_state(&State::default())?;
        record.write_settings()?;
        containers.take_name(&record.settings.name, record.id())?;
        let dir = containers.root.join(record.id());
        let moved = fs::rename(record.dir(), &dir).with_context(|| format!("making {}", dir.display()));
        if moved.is_err() {
            fs::remove_file(containers.name_file(&record.settings.name)).ok();
        }
        moved?;
        let record = Record::new(dir, record.settings.clone());
        let hold = self.hold.take().context("published twice")?;
        Ok((record, hold))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.hold.is_some()
            && let Err(error) = remove(self.record.dir())
        {
            tracing::warn!("removing {}: {error}", self.record.dir().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::tests::plain;
    use super::super::state::Status;
    use super::*;

    fn add(containers: &Containers, id: &str, name: &str) -> Result<Record> {
        let (record, _) = containers.draft(plain(id, name))?.publish()?;
        Ok(record)
    }

    #[test]
    fn a_container_is_found_by_name_id_and_first_digits() {
        let place = tempfile::tempdir().unwrap();
        let containers = Containers::open(place.path()).unwrap();
        let ids = [format!("{:064x}", 1), format!("ab{:062x}", 2), format!("ab{:062x}", 3)];
        for (id, name) in ids.iter().zip(["one", "two", "ab"]) {
            add(&containers, id, name).unwrap();
        }
        for (text, id) in [("one", &ids[0]), (ids[1].as_str(), &ids[1]), ("ab", &ids[2]), ("000", &ids[0])] {
            assert_eq!(containers.find(text).unwrap().id(), id, "{text}");
        }
        for text in ["ab0", "nothing", "", "../names", "lock", "."] {
            assert!(containers.find(text).is_err(), "{text}");
        }
        assert_eq!(containers.list().unwrap().len(), 3);
        assert_eq!(containers.find("one").unwrap().state().unwrap().status, Status::Created);
    }

    #[test]
    fn a_name_is_one_container_s() {
        let place = tempfile::tempdir().unwrap();
        let containers = Containers::open(place.path()).unwrap();
        let (one, two, three) = (format!("{:064x}", 1), format!("{:064x}", 2), format!("{:064x}", 3));
        let first = add(&containers, &one, "x").unwrap();
        assert!(add(&containers, &two, "x").unwrap_err().to_string().contains("is already in use by container"));
        assert_eq!(containers.list().unwrap().len(), 1);
        containers.rename(&first, "y").unwrap();
        add(&containers, &two, "x").unwrap();
        assert_eq!((containers.find("y").unwrap().id(), containers.find("x").unwrap().id()), (&*one, &*two));
        assert!(containers.rename(&first, "x").is_err() && containers.rename(&first, "/").is_err());
        let hold = first.hold().unwrap().unwrap();
        containers.remove(&first, hold).unwrap();
        assert!(containers.find("y").is_err());
        // What a command left that was killed while it made a container.
        fs::write(containers.name_file("z"), &three).unwrap();
        assert!(!add(&containers, &three, "z").unwrap().settings.name.is_empty());
        let made_up = add(&containers, &format!("{:064x}", 4), "").unwrap().settings.name;
        assert_eq!(containers.find(&made_up).unwrap().settings.name, made_up);
    }

    #[test]
    fn what_is_not_published_goes_and_the_dead_are_swept() {
        let place = tempfile::tempdir().unwrap();
        let containers = Containers::open(place.path()).unwrap();
        let living = containers.draft(plain(&format!("{:064x}", 1), "")).unwrap();
        let dead = containers.hidden(&format!("{:064x}", 2));
        fs::create_dir_all(dead.join("upper/x")).unwrap();
        drop(containers.draft(plain(&format!("{:064x}", 3), "")).unwrap());
        assert!(!dead.exists() && living.record.dir().exists());
        drop(living);
        let mut left: Vec<_> = fs::read_dir(&containers.root).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["lock", "names"]);
    }
}
