//! Landlock: a container may be confined to parts of its own files, whatever their permissions and its capabilities say.
//!
//! The runtime specification has no member for it yet. The annotation [`ANNOTATION`] holds what its proposal has as
//! `process.landlock` (opencontainers/runtime-spec, pull requests 1111 and 1241):
//!
//! ```json
//! {
//!   "ruleset": { "handledAccessFS": ["write_file", "make_reg", "make_dir"] },
//!   "rules": { "pathBeneath": [{ "allowedAccess": ["write_file", "make_reg"], "paths": ["/var/lib/app"] }] },
//!   "disableBestEffort": true
//! }
//! ```
//! What is handled is forbidden everywhere but below the paths that it is allowed for. On a kernel that lacks some of it, or all,
//! what there is holds and the rest is said aloud; with `disableBestEffort` such a container is not started, and
//! neither is one that lacks a path.

use std::collections::HashMap;
use std::os::fd::AsFd as _;

use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::Deserialize;

use crate::child::State;
use crate::error::{Called as _, Error, Fault};
use crate::rootfs::{self, Inside, Links};
use crate::sys::landlock as sys;

/// The annotation that holds the profile, as JSON.
pub const ANNOTATION: &str = "lamel.landlock";

/// The most paths of a profile.
const MAX_PATHS: usize = 4096;

/// The rights by name, in the order of their bits (`LANDLOCK_ACCESS_FS_*`), and the first version of Landlock with each.
const RIGHTS: [(&str, u32); 16] = [
    ("execute", 1),
    ("write_file", 1),
    ("read_file", 1),
    ("read_dir", 1),
    ("remove_dir", 1),
    ("remove_file", 1),
    ("make_char", 1),
    ("make_dir", 1),
    ("make_reg", 1),
    ("make_sock", 1),
    ("make_fifo", 1),
    ("make_block", 1),
    ("make_sym", 1),
    ("refer", 2),
    ("truncate", 3),
    ("ioctl_dev", 5),
];

/// Those that a file can have that is no directory.
const OF_FILES: [&str; 5] = ["execute", "write_file", "read_file", "truncate", "ioctl_dev"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    ruleset: Ruleset,
    #[serde(default)]
    rules: Rules,
    #[serde(default)]
    disable_best_effort: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ruleset {
    #[serde(rename = "handledAccessFS")]
    handled: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rules {
    #[serde(default)]
    path_beneath: Vec<PathBeneath>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PathBeneath {
    allowed_access: Vec<String>,
    paths: Vec<String>,
}

/// A profile, as far as this kernel has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Landlock {
    handled: u64,
    /// What is allowed below each path.
    allowed: Vec<(Inside, u64)>,
    /// The kernel lacks some of what was asked for.
    reduced: bool,
    /// A path that is not there is a fault.
    strict: bool,
}

/// The kernel's version of Landlock; 0 for none.
#[must_use]
pub fn version() -> u32 {
    sys::version()
}

/// Checks a profile.
///
/// # Errors
/// It is no profile, or one that this kernel cannot hold and that must be held.
pub fn check(profile: &str) -> Result<(), Error> {
    parse(profile, sys::version()).map(drop)
}

/// The profile of a container, if it has one.
pub(crate) fn plan(annotations: Option<&HashMap<String, String>>) -> Result<Option<Landlock>, Error> {
    let profile = annotations.and_then(|annotations| annotations.get(ANNOTATION));
    profile.map(|profile| parse(profile, sys::version())).transpose()
}

fn parse(text: &str, version: u32) -> Result<Landlock, Error> {
    let profile: Profile = serde_json::from_str(text).map_err(|error| Error::invalid(ANNOTATION, error.to_string()))?;
    let asked = bits(&profile.ruleset.handled)?;
    if asked == 0 {
        return Err(Error::invalid(ANNOTATION, "handledAccessFS is empty: it would confine nothing"));
    }
    let handled = asked & known(version);
    if handled != asked && profile.disable_best_effort {
        let why = format!("version {version} of it is there, and the profile has rights of a later one");
        return Err(Error::Unavailable { what: "Landlock".to_owned(), why });
    }
    let mut allowed = Vec::new();
    for rule in &profile.rules.path_beneath {
        let access = bits(&rule.allowed_access)?;
        if access & !asked != 0 {
            return Err(Error::invalid(ANNOTATION, "allowedAccess has what handledAccessFS has not"));
        }
        for path in &rule.paths {
            if !path.starts_with('/') {
                return Err(Error::invalid(ANNOTATION, format!("{path:?} is not absolute")));
            }
            allowed.push((Inside::new(ANNOTATION, path.as_ref())?, access & handled));
        }
    }
    if allowed.len() > MAX_PATHS {
        return Err(Error::invalid(ANNOTATION, format!("more than {MAX_PATHS} paths")));
    }
    // The kernel takes no empty rule.
    allowed.retain(|(_, access)| *access != 0);
    Ok(Landlock { handled, allowed, reduced: handled != asked, strict: profile.disable_best_effort })
}

fn bits(names: &[String]) -> Result<u64, Error> {
    names.iter().try_fold(0, |bits, name| {
        let at = RIGHTS.iter().position(|(right, _)| right == name);
        let at = at.ok_or_else(|| Error::invalid(ANNOTATION, format!("{name:?} is no right of a file")))?;
        Ok(bits | 1 << at)
    })
}

/// The rights that a version has.
fn known(version: u32) -> u64 {
    RIGHTS.iter().enumerate().filter(|(_, (_, since))| *since <= version).map(|(at, _)| 1_u64 << at).sum()
}

/// What of these rights a file can have that is no directory.
fn of_file(access: u64) -> u64 {
    let is_of_files = |at: usize| RIGHTS.get(at).is_some_and(|(name, _)| OF_FILES.contains(name));
    (0..RIGHTS.len()).filter(|at| is_of_files(*at)).map(|at| access & 1_u64 << at).sum()
}

impl Landlock {
    /// Confines this process and its children.
    pub(crate) fn perform(&self, state: &State<'_>) -> Result<(), Fault> {
        if self.reduced {
            state.note();
        }
        if self.handled == 0 {
            return Ok(());
        }
        let ruleset = sys::create(self.handled).called("landlock_create_ruleset")?;
        for (path, access) in &self.allowed {
            let place = match rootfs::open(state.root()?, path.path(), OFlags::PATH, Links::Inside) {
                // Nothing is allowed below what is not there.
                Err(Errno::NOENT | Errno::NOTDIR) if !self.strict => continue,
                found => found.called("openat2")?,
            };
            let access = if rootfs::is_directory(place.as_fd())? { *access } else { of_file(*access) };
            if access != 0 {
                sys::allow(ruleset.as_fd(), place.as_fd(), access).called("landlock_add_rule")?;
            }
        }
        sys::restrict(ruleset.as_fd()).called("landlock_restrict_self")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(handled: &str, rules: &str, strict: bool) -> String {
        format!(
            r#"{{"ruleset":{{"handledAccessFS":[{handled}]}},"rules":{{"pathBeneath":[{rules}]}},"disableBestEffort":{strict}}}"#
        )
    }

    #[test]
    fn rights_have_the_kernel_s_bits() {
        let names: Vec<String> = RIGHTS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(bits(&names).unwrap(), 0xffff);
        assert_eq!(
            (known(0), known(1), known(2), known(3), known(4), known(7)),
            (0, 0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff)
        );
        assert_eq!(of_file(0xffff), 1 | 2 | 4 | 1 << 14 | 1 << 15);
    }

    #[test]
    fn a_profile_is_as_strict_as_it_says() {
        let rule = r#"{"allowedAccess":["truncate","write_file"],"paths":["/a","/b"]}"#;
        let text = |strict| profile(r#""write_file","truncate""#, rule, strict);
        let all = parse(&text(true), 7).unwrap();
        assert_eq!((all.handled, all.allowed.len(), all.reduced), (2 | 1 << 14, 2, false));
        let some = parse(&text(false), 1).unwrap();
        assert_eq!((some.handled, some.allowed[0].1, some.reduced), (2, 2, true));
        assert_eq!(parse(&text(false), 0).unwrap().handled, 0);
        assert!(parse(&text(true), 2).unwrap_err().to_string().contains("version 2"));
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let allowed = r#"{"allowedAccess":["execute"],"paths":["/a"]}"#;
        let relative = r#"{"allowedAccess":["write_file"],"paths":["a"]}"#;
        for text in [
            String::new(),
            "{}".to_owned(),
            profile("", "", false),
            profile(r#""fly""#, "", false),
            profile(r#""write_file""#, allowed, false),
            profile(r#""write_file""#, relative, false),
            r#"{"ruleset":{"handledAccessFS":["execute"],"handledAccessNet":["bind_tcp"]}}"#.to_owned(),
        ] {
            assert!(matches!(check(&text), Err(Error::Invalid { .. })), "{text}");
        }
    }
}
