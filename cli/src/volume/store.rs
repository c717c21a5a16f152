//! The volumes of a store.
//!
//! ```text
//! volumes/lock              shared by who makes a container, exclusive while volumes are removed
//! volumes/NAME/volume.json  what it is
//! volumes/NAME/data/        what containers see
//! volumes/NAME/lock         held while it is filled
//! volumes/.NAME-PID/        one that is being made or removed
//! ```

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::container::records::Containers;
use crate::container::remove::{Ids, remove, remove_tree};
use crate::container::settings::short;
use crate::container::state;

/// The longest name, so that it fits into one component with what is put to it.
const LONGEST: usize = 200;

/// `volume.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// It was made for one container, and has no name that anybody chose.
    #[serde(default)]
    pub(crate) anonymous: bool,
}

/// A volume.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    dir: PathBuf,
    pub(crate) about: About,
}

impl Volume {
    /// Where its content lies.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Waits for the others who would fill it.
    pub(super) fn lock(&self) -> Result<File> {
        let path = self.dir.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        flock(&file, FlockOperation::LockExclusive).with_context(|| path.display().to_string())?;
        Ok(file)
    }

    /// What `docker volume inspect` tells.
    pub(super) fn json(&self) -> Value {
        json!({
            "CreatedAt": self.about.created.to_string(),
            "Driver": "local",
            "Labels": self.about.labels,
            "Mountpoint": self.data().to_string_lossy(),
            "Name": self.about.name,
            "Options": {},
            "Scope": "local",
            "Anonymous": self.about.anonymous,
        })
    }
}

/// The volumes of a store.
#[derive(Clone, Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
}

/// While it lives, no volume is removed.
#[derive(Debug)]
pub(crate) struct Held(#[expect(dead_code, reason = "held, not read")] File);

impl Volumes {
    /// Those of the store at `root`.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        Ok(Self { root: std::path::absolute(root)?.join("volumes") })
    }

    /// Keeps volumes from being removed, from before one is looked up until the container that uses it is known.
    pub(crate) fn hold(&self) -> Result<Held> {
        self.lock(FlockOperation::LockShared)
    }

    fn lock(&self, how: FlockOperation) -> Result<Held> {
        let shown = || self.root.display().to_string();
        DirBuilder::new().recursive(true).mode(0o711).create(&self.root).with_context(shown)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(self.root.join("lock"));
        let lock = lock.with_context(shown)?;
        flock(&lock, how).with_context(shown)?;
        Ok(Held(lock))
    }

    /// The volume of a name.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Volume>> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let dir = self.root.join(name);
        if !dir.is_dir() {
            return Ok(None);
        }
        Ok(Some(Volume { about: state::read(&dir.join("volume.json"))?, dir }))
    }

    /// The volume of a name, or of the first letters of one that no other begins with.
    pub(super) fn get(&self, name: &str) -> Result<Volume> {
        let missing = || format!("no such volume: {name}");
        if let Some(volume) = self.find(name)? {
            return Ok(volume);
        }
        if name.is_empty() {
            bail!(missing());
        }
        let mut fitting = self.list()?;
        fitting.retain(|volume| volume.about.name.starts_with(name));
        match (fitting.pop(), fitting.len()) {
            (Some(volume), 0) => Ok(volume),
            (None, _) => bail!(missing()),
            (Some(_), more) => bail!("{name} are the first letters of {} volumes: give more of them", more + 1),
        }
    }

    /// All of them, by name.
    pub(super) fn list(&self) -> Result<Vec<Volume>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| self.root.display().to_string())?,
        };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        let found = |name: String| match self.find(&name) {
            Ok(volume) => volume,
            Err(error) => {
                tracing::warn!("volume {name} cannot be read: {error:#}");
                None
            }
        };
        Ok(names.into_iter().filter_map(found).collect())
    }

    /// Makes a volume; one that is there already is given as it is, and `false` with it.
    pub(crate) fn make(&self, about: &About) -> Result<(Volume, bool)> {
        check_name(&about.name)?;
        if let Some(volume) = self.find(&about.name)? {
            return Ok((volume, false));
        }
        DirBuilder::new().recursive(true).mode(0o711).create(&self.root).with_context(|| self.shown())?;
        let draft = self.root.join(format!(".{}-{}", about.name, std::process::id()));
        let made = || -> Result<bool> {
            remove(&draft)?;
            DirBuilder::new().mode(0o711).create(&draft)?;
            DirBuilder::new().mode(0o755).create(draft.join("data"))?;
            state::write(&draft.join("volume.json"), about)?;
            match fs::rename(&draft, self.root.join(&about.name)) {
                // Somebody was faster.
                Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                    remove(&draft)?;
                    Ok(false)
                }
                renamed => Ok(renamed.map(|()| true)?),
            }
        };
        let new = made().with_context(|| format!("making the volume {}", about.name))?;
        match self.find(&about.name)? {
            Some(volume) => Ok((volume, new)),
            None => bail!("volume {} was removed while it was made", about.name),
        }
    }

    /// Removes a volume that no container uses.
    pub(super) fn remove(&self, volume: &Volume, containers: &Containers) -> Result<()> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let users = users(containers, &volume.about.name)?;
        if !users.is_empty() {
            bail!("volume {} is in use by {}", volume.about.name, users.join(", "));
        }
        self.discard(volume)
    }

    /// Removes those of a container's volumes that were made for it alone; the container itself is no longer known.
    pub(crate) fn remove_anonymous(&self, names: impl IntoIterator<Item = String>, containers: &Containers) {
        for name in names {
            let removed = self.find(&name).and_then(|volume| match volume.filter(|volume| volume.about.anonymous) {
                Some(volume) => self.remove(&volume, containers),
                None => Ok(()),
            });
            // Another container may have it by --volumes-from.
            if let Err(error) = removed {
                tracing::debug!("{error:#}");
            }
        }
    }

    fn discard(&self, volume: &Volume) -> Result<()> {
        let shown = || format!("removing the volume {}", volume.about.name);
        let gone = self.root.join(format!(".{}-{}", volume.about.name, std::process::id()));
        remove_tree(&gone, Ids::of_user()?.as_ref()).with_context(shown)?;
        fs::rename(&volume.dir, &gone).with_context(shown)?;
        // What a container's other users wrote is not this user's to remove.
        remove_tree(&gone, Ids::of_user()?.as_ref()).with_context(shown)
    }

    fn shown(&self) -> String {
        self.root.display().to_string()
    }
}

/// Bytes that a volume's content takes.
pub(super) fn size(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            bytes += size(&entry.path()).unwrap_or(0);
        }
    }
    Ok(bytes)
}

/// The containers that use a volume, running or not, by name and id.
pub(super) fn users(containers: &Containers, name: &str) -> Result<Vec<String>> {
    let uses =
        |record: &&crate::container::record::Record| record.settings.volumes.iter().any(|used| used.name == name);
    let shown =
        |record: &crate::container::record::Record| format!("{} ({})", record.settings.name, short(record.id()));
    Ok(containers.list()?.iter().filter(uses).map(shown).collect())
}

/// Docker's rule for names.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
        && (2..=LONGEST).contains(&name.len())
    {
        Ok(())
    } else {
        bail!("{name:?} includes invalid characters for a volume name, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(name: &str) -> About {
        About { name: name.to_owned(), created: Timestamp::UNIX_EPOCH, labels: BTreeMap::new(), anonymous: false }
    }

    #[test]
    fn a_volume_is_made_once_and_found() {
        let place = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(place.path()).unwrap();
        let containers = Containers::open(place.path()).unwrap();
        assert!(volumes.list().unwrap().is_empty() && volumes.find("data").unwrap().is_none());
        let (volume, new) = volumes.make(&about("data")).unwrap();
        fs::write(volume.data().join("file"), "x").unwrap();
        assert!(new && !volumes.make(&about("data")).unwrap().1);
        volumes.make(&about("date")).unwrap();
        assert_eq!(volumes.get("data").unwrap().about, about("data"));
        assert!(volumes.get("dat").unwrap_err().to_string().contains("2 volumes"));
        assert!(volumes.get("x").is_err() && volumes.get("").is_err() && volumes.get("../volumes").is_err());
        volumes.remove(&volume, &containers).unwrap();
        let names: Vec<String> = volumes.list().unwrap().into_iter().map(|volume| volume.about.name).collect();
        assert_eq!(names, ["date"]);
        assert_eq!(fs::read_dir(place.path().join("volumes")).unwrap().count(), 2);
    }

    #[test]
    fn names_as_docker_has_them() {
        assert!(check_name("a.b-c_1").is_ok());
        for name in ["", "a", ".", "..", "a/b", "-a", ".hidden", "a b", &"x".repeat(300)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
