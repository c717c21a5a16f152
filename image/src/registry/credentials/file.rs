//! `auth.json` and docker's `config.json`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{Credential, CredentialsError, DOCKER_KEY, Secret};
use crate::reference::DEFAULT_REGISTRY;

/// The longest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// A file of credentials, with everything else that is in it.
pub(super) struct AuthFile {
    path: PathBuf,
    content: Map<String, Value>,
}

impl AuthFile {
    pub(super) fn empty(path: &Path) -> Self {
        Self { path: path.to_owned(), content: Map::new() }
    }

    /// Reads a file; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, CredentialsError> {
        let bytes = match crate::registry::read_bounded(path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(path)(source)),
        };
        if bytes.trim_ascii().is_empty() {
            return Ok(Some(Self::empty(path)));
        }
        let malformed = |line, column| CredentialsError::Malformed { path: path.to_owned(), line, column };
        let content: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|error| malformed(error.line(), error.column()))?;
        let file = Self { path: path.to_owned(), content };
        let tables = ["auths", "credHelpers"];
        match tables
            .iter()
            .any(|key| file.content.get(*key).is_some_and(|value| !value.is_object() && !value.is_null()))
        {
            true => Err(malformed(1, 0)),
            false => Ok(Some(file)),
        }
    }

    /// The helper that keeps a registry's credentials, if one does.
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        let own = self.table("credHelpers").and_then(|helpers| {
            helpers.iter().find(|(key, _)| host_of(key) == host_of(registry)).map(|(_, value)| value)
        });
        own.or_else(|| self.content.get("credsStore")).and_then(Value::as_str).filter(|name| !name.is_empty())
    }

    /// The entry of the longest key that the repository lies under.
    pub(super) fn find(&self, registry: &str, repository: &str) -> Result<Option<Credential>, CredentialsError> {
        let Some(auths) = self.table("auths") else { return Ok(None) };
        let mut name = format!("{registry}/{repository}");
        loop {
            let exact = auths.get(&name).map(|entry| (name.as_str(), entry));
            let spelled = || {
                let same = |key: &&String| !name.contains('/') && host_of(key) == host_of(registry) && is_host_key(key);
                auths.iter().find(|(key, _)| same(key)).map(|(key, entry)| (key.as_str(), entry))
            };
            if let Some((key, entry)) = exact.or_else(spelled) {
                let found = self.credential(key, entry)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            match name.rfind('/') {
                Some(slash) => name.truncate(slash),
                None => return Ok(None),
            }
        }
    }

    fn credential(&self, key: &str, entry: &Value) -> Result<Option<Credential>, CredentialsError> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(token) = text("registrytoken") {
            return Ok(Some(Credential::Registry(Secret::new(token))));
        }
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credential::Identity(Secret::new(token))));
        }
        if let Some(auth) = text("auth") {
            let bytes = STANDARD.decode(auth.trim()).ok();
            let pair = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = pair.as_deref().map(|pair| pair.trim_end_matches('\0')).and_then(|pair| pair.split_once(':'));
            let malformed = || CredentialsError::Entry { path: self.path.clone(), key: key.to_owned() };
            let (name, password) = pair.ok_or_else(malformed)?;
            return Ok(Some(Credential::Password { name: name.to_owned(), password: Secret::new(password) }));
        }
        let pair = text("username").zip(text("password"));
        Ok(pair.map(|(name, password)| Credential::Password { name: name.to_owned(), password: Secret::new(password) }))
    }

    /// Takes an entry in place of what there is for this registry.
    pub(super) fn set(&mut self, registry: &str, auth: &Secret) {
        self.remove(registry);
        // Docker looks for its own registry under the name of its first API alone.
        let docker = registry == DEFAULT_REGISTRY && self.path.file_name().is_some_and(|name| name == "config.json");
        let key = if docker { DOCKER_KEY } else { registry };
        let auths = self.content.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if !auths.is_object() {
            *auths = Value::Object(Map::new());
        }
        if let Value::Object(auths) = auths {
            auths.insert(key.to_owned(), serde_json::json!({ "auth": auth.reveal() }));
        }
    }

    /// Removes a registry's entry; whether there was one.
    pub(super) fn remove(&mut self, registry: &str) -> bool {
        let Some(Value::Object(auths)) = self.content.get_mut("auths") else { return false };
        let before = auths.len();
        auths.retain(|key, _| !(is_host_key(key) && host_of(key) == host_of(registry)));
        auths.len() < before
    }

    /// Writes the file beside itself and renames it, readable by its owner alone.
    pub(super) fn write(&self) -> Result<(), CredentialsError> {
        let failed = failed(&self.path);
        // A link stays, and what it names is replaced.
        let target = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let text = format!("{:#}\n", Value::Object(self.content.clone()));
        let written = (|| {
            // Such a file is made with mode 0600, and is gone again unless it gets its name.
            let mut draft = tempfile::NamedTempFile::new_in(dir_of(&target))?;
            draft.write_all(text.as_bytes())?;
            draft.as_file().sync_all()?;
            draft.persist(&target)?;
            Ok(())
        })();
        written.map_err(failed)
    }

    fn table(&self, key: &str) -> Option<&Map<String, Value>> {
        self.content.get(key).and_then(Value::as_object)
    }
}

/// Waits for whoever else changes files beside this one. Makes the directory.
pub(super) fn lock(path: &Path) -> Result<File, CredentialsError> {
    let dir = dir_of(path);
    let locked = (|| {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let dir = File::open(dir)?;
        rustix::fs::flock(&dir, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(dir)
    })();
    locked.map_err(failed(path))
}

fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> CredentialsError {
    let path = path.to_owned();
    move |source| CredentialsError::File { path: path.clone(), source }
}

/// The registry that a key names, by one name for each: old keys are addresses of an API.
fn host_of(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match bare.split('/').next().unwrap_or(bare) {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        host => host,
    }
}

/// Whether a key is for a registry as a whole rather than for a part of its repositories.
fn is_host_key(key: &str) -> bool {
    key.contains("://") || !key.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(value: Value) -> AuthFile {
        let Value::Object(content) = value else { panic!("no object") };
        AuthFile { path: PathBuf::from("/x/config.json"), content }
    }

    fn name(file: &AuthFile, registry: &str, repository: &str) -> Option<String> {
        let found = file.find(registry, repository).unwrap()?;
        Some(found.name().unwrap_or("a token").to_owned())
    }

    #[test]
    fn the_longest_key_wins() {
        let entry = |name: &str| serde_json::json!({"auth": STANDARD.encode(format!("{name}:x"))});
        let file = file(serde_json::json!({"auths": {
            "h.example": entry("host"), "h.example/team": entry("team"), "h.example/team/app": entry("app"),
            "https://old.example/v1/": entry("old"), "https://index.docker.io/v1/": entry("hub"),
            "t.example": {"identitytoken": "t", "auth": ""}, "p.example": {"username": "u", "password": "p"},
            "empty.example": {},
        }}));
        assert_eq!(name(&file, "h.example", "team/app").as_deref(), Some("app"));
        assert_eq!(name(&file, "h.example", "team/other").as_deref(), Some("team"));
        assert_eq!(name(&file, "h.example", "teams").as_deref(), Some("host"));
        assert_eq!(name(&file, "old.example", "x").as_deref(), Some("old"));
        assert_eq!(name(&file, "docker.io", "library/x").as_deref(), Some("hub"));
        assert_eq!(name(&file, "t.example", "x").as_deref(), Some("a token"));
        assert_eq!(name(&file, "p.example", "x").as_deref(), Some("u"));
        for other in ["empty.example", "example", "h.example.org", "h.example:443"] {
            assert_eq!(name(&file, other, "team/app"), None, "{other}");
        }
    }

    #[test]
    fn dockers_own_registry_has_its_own_key() {
        let mut docker = file(serde_json::json!({"auths": {"docker.io": {"auth": "x"}}}));
        docker.set("docker.io", &Secret::new("eDp5"));
        assert_eq!(docker.table("auths").unwrap().keys().collect::<Vec<_>>(), [DOCKER_KEY]);
        assert!(docker.remove("docker.io"));
        let mut podman = AuthFile::empty(Path::new("/x/auth.json"));
        podman.set("docker.io", &Secret::new("eDp5"));
        assert_eq!(podman.table("auths").unwrap().keys().collect::<Vec<_>>(), ["docker.io"]);
    }
}
