//! registries.conf: where an image is looked for (containers-registries.conf(5), version 2).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::endpoint::{Endpoint, Security};
use super::error::RegistryError;
use crate::reference::{DEFAULT_REGISTRY, Reference};

/// The longest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// Why a configuration is not followed.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// It cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// It is not of this form.
    #[error("{}: {source}", .path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A place that is none.
    #[error("{}: {location:?} is no place of images: host[:port][/path] is one", .path.display())]
    Location {
        /// Which file.
        path: PathBuf,
        /// What it says.
        location: String,
    },
}

/// A file as it is written. What lamel does not know in it, such as short names, is for others.
#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Entry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<MirrorEntry>,
    #[serde(skip)]
    file: PathBuf,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct MirrorEntry {
    location: String,
    insecure: bool,
    pull_from_mirror: Option<PullFrom>,
}

/// Which images a mirror is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    All,
    DigestOnly,
    TagOnly,
}

/// What the host's owner says of registries.
#[derive(Debug, Clone, Default)]
pub struct Conf {
    entries: Vec<Entry>,
}

impl Conf {
    /// The user's configuration, or else the host's.
    ///
    /// # Errors
    /// A file that is there but cannot be read or followed.
    pub fn load(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, ConfError> {
        let path = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if let Some(file) = variable("CONTAINERS_REGISTRIES_CONF").filter(|file| !file.is_empty()) {
            return Self::read(Path::new(&file), None, true);
        }
        let user = path("XDG_CONFIG_HOME").or_else(|| Some(path("HOME")?.join(".config")));
        let user = user.map(|dir| dir.join("containers/registries.conf")).filter(|file| file.exists());
        let file = user.unwrap_or_else(|| PathBuf::from("/etc/containers/registries.conf"));
        Self::read(&file, Some(&file.with_extension("conf.d")), false)
    }

    /// A file, and those in the directory of additions: of two entries for one prefix the last counts.
    fn read(file: &Path, additions: Option<&Path>, wanted: bool) -> Result<Self, ConfError> {
        let mut conf = Self::default();
        let mut files = vec![file.to_owned()];
        if let Some(Ok(dir)) = additions.map(std::fs::read_dir) {
            let mut more: Vec<PathBuf> = dir.flatten().map(|entry| entry.path()).collect();
            more.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
            more.sort();
            files.extend(more);
        }
        for path in files {
            match crate::registry::read_bounded(&path, MAX_FILE) {
                Ok(bytes) => conf.add(&path, &String::from_utf8_lossy(&bytes))?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !wanted => {}
                Err(source) => return Err(ConfError::Read { path, source }),
            }
        }
        Ok(conf)
    }

    /// Takes the text of a file.
    pub(super) fn add(&mut self, path: &Path, text: &str) -> Result<(), ConfError> {
        let malformed = |source| ConfError::Malformed { path: path.to_owned(), source: Box::new(source) };
        let file: File = toml::from_str(text).map_err(malformed)?;
        for mut entry in file.registry {
            if entry.prefix.is_empty() {
                entry.prefix.clone_from(&entry.location);
            }
            let is_place = |location: &&String| split(location).is_some();
            // An entry may name a prefix alone, to block it or to mark it insecure.
            let prefix_alone = entry.location.is_empty() && !entry.prefix.is_empty();
            let own = (!prefix_alone).then_some(&entry.location);
            let mirrors = entry.mirror.iter().map(|mirror| &mirror.location);
            if let Some(location) = own.into_iter().chain(mirrors).find(|location| !is_place(location)) {
                return Err(ConfError::Location { path: path.to_owned(), location: location.clone() });
            }
            path.clone_into(&mut entry.file);
            self.entries.retain(|other| other.prefix != entry.prefix);
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Where to look for an image, in this order; the last one is the registry itself.
    ///
    /// # Errors
    /// The registry is blocked.
    pub(super) fn endpoints(
        &self,
        reference: &Reference,
        security: Option<Security>,
    ) -> Result<Vec<Endpoint>, RegistryError> {
        let name = reference.name();
        let by_default = |host: &str, insecure: bool| {
            security.unwrap_or_else(|| if insecure { Security::Insecure } else { Security::of(host) })
        };
        let found = self.entries.iter().filter_map(|entry| Some((prefix_len(&entry.prefix, reference)?, entry)));
        let Some((len, entry)) = found.max_by_key(|(len, _)| *len) else {
            return Ok(vec![Endpoint::new(
                reference.registry(),
                reference.repository(),
                by_default(reference.registry(), false),
            )]);
        };
        if entry.blocked {
            return Err(RegistryError::Blocked { name, file: entry.file.clone() });
        }
        let rest = name.get(len..).unwrap_or_default();
        let at = |location: &str, insecure: bool| {
            let place = format!("{location}{rest}");
            let (host, repository) = split(&place)?;
            Some(Endpoint::new(host, repository, by_default(host, insecure)))
        };
        let bound = reference.digest().is_some();
        let asked = |mirror: &&MirrorEntry| match mirror.pull_from_mirror {
            Some(PullFrom::All) => true,
            Some(PullFrom::DigestOnly) => bound,
            Some(PullFrom::TagOnly) => !bound,
            None => bound || !entry.mirror_by_digest_only,
        };
        let mut endpoints: Vec<Endpoint> =
            entry.mirror.iter().filter(asked).filter_map(|mirror| at(&mirror.location, mirror.insecure)).collect();
        let itself = if entry.location.is_empty() { None } else { at(&entry.location, entry.insecure) };
        endpoints.push(itself.unwrap_or_else(|| {
            let host = reference.registry();
            Endpoint::new(host, reference.repository(), by_default(host, entry.insecure))
        }));
        Ok(endpoints)
    }

    /// How a registry is spoken to that is named alone, as `lamel login` does.
    pub(super) fn security(&self, host: &str) -> Security {
        let insecure = self.entries.iter().any(|entry| entry.prefix == host && entry.insecure);
        if insecure { Security::Insecure } else { Security::of(host) }
    }
}

/// How much of the name an entry's prefix covers; for `*.example.com`, the host.
fn prefix_len(prefix: &str, reference: &Reference) -> Option<usize> {
    let name = reference.name();
    if let Some(domain) = prefix.strip_prefix("*.") {
        let host = reference.registry();
        let host_alone = host.split(':').next().unwrap_or(host);
        return host_alone.strip_suffix(domain).filter(|head| head.ends_with('.')).map(|_| host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

/// Host and path of a place. Docker's registry has its images of one word under `library/`.
fn split(place: &str) -> Option<(&str, &str)> {
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let sample = if path.is_empty() { format!("{host}/x") } else { format!("{host}/{path}") };
    let parsed: Reference = sample.parse().ok()?;
    (parsed.registry() == host && (host != DEFAULT_REGISTRY || path.contains('/') || path.is_empty()))
        .then_some((host, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn conf(text: &str) -> Result<Conf, ConfError> {
        let mut conf = Conf::default();
        conf.add(Path::new("/etc/x.conf"), text).map(|()| conf)
    }

    fn places(conf: &Conf, name: &str) -> Vec<String> {
        let endpoints = conf.endpoints(&name.parse().unwrap(), None).unwrap();
        endpoints.iter().map(|e| format!("{}/{} {:?}", e.host(), e.repository(), e.security())).collect()
    }

    #[test]
    fn mirrors_come_first_and_insecure_hosts_are_told() {
        let conf = conf(
            r#"
            unqualified-search-registries = ["a.example"]
            short-name-mode = "enforcing"
            [[registry]]
            prefix = "docker.io"
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.example:5000/hub"
            insecure = true
            [[registry.mirror]]
            location = "digests.example"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "docker.io/library/special"
            location = "other.example/s"
            [[registry]]
            location = "h.example/team"
            insecure = true
            mirror-by-digest-only = true
            [[registry.mirror]]
            location = "m.example/team"
            [[registry]]
            prefix = "*.wild.example"
            insecure = true
            "#,
        )
        .unwrap();
        let hub = ["mirror.example:5000/hub/library/alpine Insecure", "registry-1.docker.io/library/alpine Verified"];
        assert_eq!(places(&conf, "alpine"), hub);
        let digest = Digest::of(b"x");
        assert_eq!(places(&conf, &format!("alpine@{digest}"))[1], "digests.example/library/alpine Verified");
        assert_eq!(places(&conf, "special:1"), ["other.example/s Verified"]);
        assert_eq!(places(&conf, "h.example/team/x"), ["h.example/team/x Insecure"]);
        assert_eq!(places(&conf, &format!("h.example/team/x@{digest}"))[0], "m.example/team/x Verified");
        assert_eq!(places(&conf, "h.example/teams"), ["h.example/teams Verified"]);
        assert_eq!(places(&conf, "a.wild.example:1/x"), ["a.wild.example:1/x Insecure"]);
        assert_eq!(places(&conf, "awild.example/x"), ["awild.example/x Verified"]);
        assert_eq!(places(&conf, "localhost:5000/x"), ["localhost:5000/x Insecure"]);
        let forced = conf.endpoints(&"localhost:5000/x".parse().unwrap(), Some(Security::Verified)).unwrap();
        assert_eq!(forced[0].security(), Security::Verified);
    }

    #[test]
    fn what_is_blocked_is_refused() {
        let conf = conf("[[registry]]\nprefix = \"bad.example\"\nblocked = true").unwrap();
        let error = conf.endpoints(&"bad.example/x".parse().unwrap(), None).unwrap_err();
        assert!(error.to_string().contains("/etc/x.conf blocks"), "{error}");
        assert!(conf.endpoints(&"good.example/x".parse().unwrap(), None).is_ok());
    }

    #[test]
    fn places_are_checked() {
        for location in ["http://h.example", "h example", "mirror", "h.example/../x", "h.example/UP", ""] {
            assert!(conf(&format!("[[registry]]\nlocation = {location:?}")).is_err(), "{location:?}");
        }
        let mirror = "[[registry]]\nprefix = \"h.example\"\n[[registry.mirror]]\nlocation = \"\"";
        assert!(matches!(conf(mirror), Err(ConfError::Location { .. })));
        assert!(matches!(conf("[[registry]"), Err(ConfError::Malformed { .. })));
    }

    #[test]
    fn the_users_file_comes_before_the_hosts() {
        let dir = tempfile::tempdir().unwrap();
        let containers = dir.path().join("containers");
        std::fs::create_dir_all(containers.join("registries.conf.d")).unwrap();
        let entry = |insecure: bool| format!("[[registry]]\nlocation = \"h.example\"\ninsecure = {insecure}");
        std::fs::write(containers.join("registries.conf"), entry(false)).unwrap();
        let from = |name: &str, value: PathBuf| {
            let name = name.to_owned();
            Conf::load(&move |asked| (asked == name).then(|| value.clone().into_os_string()))
        };
        let home = || from("XDG_CONFIG_HOME", dir.path().to_owned()).unwrap();
        assert_eq!(home().security("h.example"), Security::Verified);
        std::fs::write(containers.join("registries.conf.d/1.conf"), entry(true)).unwrap();
        assert_eq!(home().security("h.example"), Security::Insecure);
        assert!(from("CONTAINERS_REGISTRIES_CONF", dir.path().join("none")).is_err());
    }
}
