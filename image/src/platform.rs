//! What an image runs on, and which image of several is for this host.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Operating system, architecture and its variant, by Go's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, for one.
    #[serde(default)]
    pub os: String,
    /// `amd64`, for one.
    #[serde(default)]
    pub architecture: String,
    /// `v8`, for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What else a descriptor says of it.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no platform: give os/architecture[/variant], such as linux/arm64/v8")]
pub struct PlatformError(String);

impl Platform {
    /// This host's.
    pub fn host() -> Self {
        let variant = match std::env::consts::ARCH {
            "arm" => Some("v7".to_owned()),
            _ => None,
        };
        Self::new("linux", std::env::consts::ARCH, variant)
    }

    /// By any of the usual words for the architecture.
    fn new(os: &str, architecture: &str, variant: Option<String>) -> Self {
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "x86" | "i386" | "i686" => ("386", None),
            "armhf" | "armv7" | "armv7l" => ("arm", Some("v7")),
            "armel" | "armv6l" => ("arm", Some("v6")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        let variant = variant.or_else(|| implied.map(str::to_owned)).filter(|variant| {
            // The variants that are their architecture's only or first one.
            !matches!((architecture, variant.as_str()), ("arm64", "v8" | "8") | ("amd64", "v1") | (_, ""))
        });
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant, other: Map::new() }
    }

    /// How well an image of platform `self` serves one who asks for `wanted`; `None` is not at all,
    /// and less is better.
    pub fn distance(&self, wanted: &Self) -> Option<u8> {
        let offered = Self::new(&self.os, &self.architecture, self.variant.clone());
        if offered.os != wanted.os || offered.architecture != wanted.architecture {
            return None;
        }
        match (level(offered.variant.as_deref()), level(wanted.variant.as_deref())) {
            _ if offered.variant == wanted.variant => Some(0),
            // An older one runs on a newer processor, never the other way round.
            (Some(offered), Some(wanted)) => wanted.checked_sub(offered),
            (None, _) if offered.variant.is_none() => Some(u8::MAX),
            // Asked for no variant, the plain one is best, then the oldest.
            (Some(offered), None) if wanted.variant.is_none() && wanted.architecture != "amd64" => Some(offered),
            _ => None,
        }
    }
}

/// The number of a variant such as `v7`.
fn level(variant: Option<&str>) -> Option<u8> {
    variant?.strip_prefix('v')?.parse().ok()
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(word) {
            return Err(PlatformError(text.to_owned()));
        }
        match parts.as_slice() {
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some((*variant).to_owned()))),
            _ => Err(PlatformError(text.to_owned())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn words_for_one_thing_are_one() {
        assert_eq!(platform("linux/x86_64").to_string(), "linux/amd64");
        assert_eq!(platform("Linux/aarch64/v8"), platform("linux/arm64"));
        assert_eq!(platform("linux/armhf").to_string(), "linux/arm/v7");
        for text in ["", "linux", "a/b/c/d", "linux/", "linux//x", "l x/a"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_nearest_one_that_runs_is_best() {
        let distance = |offered: &str, wanted: &str| platform(offered).distance(&platform(wanted));
        assert_eq!(distance("linux/amd64", "linux/amd64"), Some(0));
        assert_eq!(distance("linux/arm/v6", "linux/arm/v7"), Some(1));
        assert_eq!(distance("linux/arm/v7", "linux/arm/v6"), None);
        assert!(distance("linux/arm", "linux/arm/v7") > distance("linux/arm/v5", "linux/arm/v7"));
        assert_eq!(distance("linux/amd64/v3", "linux/amd64"), None);
        assert_eq!(distance("linux/arm/v7", "linux/arm64"), None);
        assert_eq!(distance("windows/amd64", "linux/amd64"), None);
        assert_eq!(distance("unknown/unknown", "linux/amd64"), None);
    }
}
