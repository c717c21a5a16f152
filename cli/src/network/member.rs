//! Containers, as the network knows them: by a directory with a lock that is held while they live.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use lamel_isolate::Created;
use serde::{Deserialize, Serialize};

use super::publish::Port;
use super::{Connection, files, pool};

/// What is written about a container.
const RECORD: &str = "network.json";
/// Bytes of it that are read.
const MAX_RECORD: u64 = 1024 * 1024;

/// A container that is to be connected.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    /// The store.
    pub(crate) root: &'a Path,
    /// The container's own.
    pub(crate) directory: &'a Path,
    pub(crate) id: &'a str,
    pub(crate) hostname: String,
    /// By which others reach it.
    pub(crate) names: Vec<String>,
}

impl Member<'_> {
    /// By which it knows itself, and is known to nobody else: its host name comes first.
    pub(super) fn own_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in std::iter::once(&self.hostname).chain(&self.names) {
            if files::is_host_name(name) && !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Writes down where its namespaces are, for who wants to join them.
    pub(super) fn record(&self, created: &Created, connection: &Connection) -> Result<()> {
        let record = Record {
            id: self.id.to_owned(),
            names: self.names.clone(),
            hostname: self.hostname.clone(),
            pid: created.pid(),
            address: connection.address(),
            ports: connection.ports().to_vec(),
            directory: PathBuf::new(),
        };
        let path = self.directory.join(RECORD);
        fs::write(&path, serde_json::to_vec_pretty(&record)?).with_context(|| path.display().to_string())
    }
}

/// `network.json`
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    id: String,
    names: Vec<String>,
    pub(super) hostname: String,
    pid: i32,
    address: Option<Ipv4Addr>,
    ports: Vec<Port>,
    #[serde(skip)]
    pub(super) directory: PathBuf,
}

impl Record {
    /// Where a namespace of it is.
    pub(super) fn namespace(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{name}", self.pid))
    }
}

/// A running container by its name, its id, or the beginning of its id.
pub(super) fn find(root: &Path, name: &str) -> Result<Record> {
    let mut found = None;
    for directory in directories(root) {
        let Some(record) = read(&directory) else { continue };
        let exact = record.id == name || record.names.iter().any(|own| own == name);
        if !exact && !record.id.starts_with(name) || !pool::is_held(&directory) {
            continue;
        }
        if exact {
            return Ok(record);
        }
        if found.replace(record).is_some() {
            bail!("{name}: several containers have an id that begins so");
        }
    }
    found.with_context(|| format!("No such container, or it does not run: {name}"))
}

fn read(directory: &Path) -> Option<Record> {
    let mut bytes = Vec::new();
    File::open(directory.join(RECORD)).ok()?.take(MAX_RECORD).read_to_end(&mut bytes).ok()?;
    let record: Record = serde_json::from_slice(&bytes).ok()?;
    Some(Record { directory: directory.to_owned(), ..record })
}

/// The directories of all containers of a store.
fn directories(root: &Path) -> Vec<PathBuf> {
    [root.join("containers"), unnamed(root)].iter().flat_map(|place| list(place)).collect()
}

fn list(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Where the directories of containers are that end with their command.
fn unnamed(root: &Path) -> PathBuf {
    root.join("networks/run")
}

/// The directory of a container that ends with its command; gone when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    _lock: File,
}

impl Place {
    /// Makes it.
    pub(crate) fn make(root: &Path, id: &str) -> Result<Self> {
        let path = unnamed(root).join(id);
        let shown = || path.display().to_string();
        // Between its making and its locking it is not taken for somebody's who has ended.
        let _all = pool::lock(root)?;
        fs::create_dir_all(&path).with_context(shown)?;
        let lock = pool::hold(&path).with_context(shown)?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!("{}: {error}", self.path.display());
        }
    }
}

/// Removes the directories of those that were killed.
pub(super) fn sweep(root: &Path) {
    let all = list(&unnamed(root));
    if all.iter().all(|directory| pool::is_held(directory)) {
        return;
    }
    let Ok(_all) = pool::lock(root) else { return };
    for directory in all.iter().filter(|directory| !pool::is_held(directory)) {
        fs::remove_dir_all(directory).ok();
    }
}
