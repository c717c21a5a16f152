//! Names of images as Docker writes and completes them: `alpine` is
//! `docker.io/library/alpine:latest`.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

/// The registry of names without one.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The repository prefix of names of one component on the default registry.
const DEFAULT_PREFIX: &str = "library/";
/// The tag of names without one.
const DEFAULT_TAG: &str = "latest";
/// The longest name without tag and digest.
const MAX_NAME: usize = 255;
/// The longest tag.
const MAX_TAG: usize = 128;

/// A complete name of an image: registry, repository, and a tag, a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not of the form of a name.
    #[error("{text:?} is no name of an image: {reason}")]
    Malformed {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What follows the `@` is no digest.
    #[error("{text:?} is no name of an image")]
    Digest {
        /// What was given.
        text: String,
        /// Why not.
        source: DigestError,
    },
}

impl Reference {
    /// The registry as the name spells it, with its port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path of the repository on its registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; a name with a digest may have none.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the name is bound to.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What the registry is asked for: the digest if there is one, else the tag.
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| DEFAULT_TAG.to_owned()),
        }
    }

    /// Registry and repository, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name as Docker shows it: without what is implied, where that says the same.
    pub fn familiar_name(&self) -> String {
        let short = self.repository.strip_prefix(DEFAULT_PREFIX).filter(|rest| !rest.contains('/'));
        let short = short.unwrap_or(&self.repository);
        let another = short.split_once('/').is_some_and(|(first, _)| is_registry(first)) || is_id(short);
        if self.registry != DEFAULT_REGISTRY || another { self.name() } else { short.to_owned() }
    }

    /// The same repository under a digest alone.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let malformed =
            |reason| ReferenceError::Malformed { text: text.chars().take(MAX_NAME + MAX_TAG).collect(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|source| ReferenceError::Digest {
                    text: text.chars().take(MAX_NAME + MAX_TAG).collect(),
                    source,
                })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if name.is_empty() {
            return Err(malformed("it names no repository"));
        }
        if is_id(name) {
            return Err(malformed("64 hexadecimal digits are an image's id"));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest),
            _ => (DEFAULT_REGISTRY, name),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let mut repository = repository.to_owned();
        if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            repository.insert_str(0, DEFAULT_PREFIX);
        }
        if !is_host(registry) {
            return Err(malformed("its registry is no host name"));
        }
        if repository.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(malformed("a repository is written in lower case"));
        }
        if !repository.split('/').all(is_component) {
            return Err(malformed("its repository has a character or separator out of place"));
        }
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(malformed("it is longer than 255 characters"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(malformed("a tag is up to 128 letters, digits, dots, dashes and underscores"));
        }
        let default = || digest.is_none().then_some(DEFAULT_TAG);
        let tag = tag.or_else(default).map(str::to_owned);
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

fn is_id(name: &str) -> bool {
    name.len() == 64 && Digest::from_hex(name).is_ok()
}

/// Whether the first component of a name is a registry rather than a part of the repository.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase())
}

fn is_host(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        // The colons of an IPv6 address are inside its brackets.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let port_is_fine = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let host_is_fine = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    port_is_fine && host_is_fine
}

/// Lower-case letters and digits, with `.`, `_`, `__` or dashes between them.
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators = component.split(|c: char| c.is_ascii() && alphanumeric(c as u8));
    let ends = |b: Option<&u8>| b.is_some_and(|b| alphanumeric(*b));
    ends(component.as_bytes().first())
        && ends(component.as_bytes().last())
        && separators.into_iter().all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_completed_as_dockers() {
        let digest = format!("sha256:{HEX}");
        for (given, complete) in [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("alpine:3", "docker.io/library/alpine:3".to_owned()),
            ("me/tool", "docker.io/me/tool:latest".to_owned()),
            ("docker.io/alpine", "docker.io/library/alpine:latest".to_owned()),
            ("index.docker.io/me/x:1", "docker.io/me/x:1".to_owned()),
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("localhost:5000/a/b_c:V-1.0", "localhost:5000/a/b_c:V-1.0".to_owned()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            ("h.example/a__b--c.d", "h.example/a__b--c.d:latest".to_owned()),
            (&format!("a@{digest}"), format!("docker.io/library/a@{digest}")),
            (&format!("h.example:1/a:t@{digest}"), format!("h.example:1/a:t@{digest}")),
        ] {
            let reference: Reference = given.parse().unwrap();
            assert_eq!(reference.to_string(), complete);
            assert_eq!(complete.parse::<Reference>().unwrap(), reference);
        }
        let reference: Reference = "alpine".parse().unwrap();
        assert_eq!(reference.familiar_name(), "alpine");
        assert_eq!(reference.target(), "latest");
        assert_eq!(reference.with_digest(Digest::of(b"")).target(), digest);
        assert_eq!("h.example/x".parse::<Reference>().unwrap().familiar_name(), "h.example/x");
        // What would be short would be another image's name.
        let familiar = |name: &str| name.parse::<Reference>().unwrap().familiar_name();
        for whole in ["docker.io/h.example/x", &format!("docker.io/library/{HEX}")] {
            assert_eq!(familiar(whole), whole);
        }
        assert_eq!(familiar("docker.io/library/h.example/x"), "library/h.example/x");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(300);
        let long_tag = format!("a:{}", "t".repeat(129));
        for text in [
            "",
            ":",
            "a:",
            ":tag",
            "a b",
            "a//b",
            "/a",
            "a/",
            "A",
            "a/B",
            "a..b",
            "a___b",
            "a.-b",
            "-a",
            "a-",
            "../a",
            "a/../b",
            "a:t/../x",
            "a:.t",
            "a@",
            "a@sha256:../../x",
            "a@sha512:00",
            "h.example:99999/a",
            "ä",
            HEX,
            "h..example/a",
            "[::x]:1/a",
            "h.example/",
            &long,
            &long_tag,
            "a\0",
            "a\n",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
