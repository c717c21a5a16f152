//! Who a container runs as: `-u`, `--group-add`, `--userns` and the maps of ids.

use std::cell::OnceCell;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use lamel_isolate::idmap::{Range, mapping, subordinate};
use lamel_isolate::oci::LinuxIdMapping;
use lamel_isolate::user::{self, Identity};

/// Options of users and groups.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct IdentityArgs {
    /// User and group inside, by name or number [default: root]
    #[arg(short, long, value_name = "USER[:GROUP]", default_value = "")]
    pub(crate) user: String,
    /// A group more
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// host: as root none, as a plain user the ids that he has; keep-id: the same, with his own id inside too; auto: ids
    /// that no other container has, of those of the user containers in /etc/subuid (root alone)
    #[arg(long, value_name = "MODE")]
    userns: Option<UserNamespace>,
    /// Map ids in a user namespace of its own (root alone)
    #[arg(long, value_name = "INSIDE:OUTSIDE:COUNT", conflicts_with = "userns")]
    uidmap: Vec<String>,
    /// The same for groups [default: as --uidmap]
    #[arg(long, value_name = "INSIDE:OUTSIDE:COUNT", requires = "uidmap")]
    gidmap: Vec<String>,
    /// The first of the ids that were found for auto.
    #[arg(skip)]
    found: OnceCell<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum UserNamespace {
    Host,
    KeepId,
    Auto,
}

/// How many ids a container has that gets them automatically.
const AUTO_COUNT: u32 = 65536;
/// Whose ids they are, as podman has it.
const AUTO_OWNER: &str = "containers";

/// The maps of a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Maps {
    pub(crate) uids: Vec<LinuxIdMapping>,
    pub(crate) gids: Vec<LinuxIdMapping>,
}

impl Maps {
    /// Those of a user namespace that has the same ids as the one that lamel is in.
    fn surrounding() -> Self {
        let own = |file: &str| -> Vec<LinuxIdMapping> {
            let map = std::fs::read_to_string(file).unwrap_or_default();
            let line = |line: &str| {
                let mut numbers = line.split_whitespace().map(str::parse::<u32>);
                let (inside, _, len) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
                Some(mapping(inside, inside, len))
            };
            map.lines().filter_map(line).collect()
        };
        Self { uids: own("/proc/self/uid_map"), gids: own("/proc/self/gid_map") }
    }

    /// What the host calls a user and a group of the container; who has no name there keeps his own.
    pub(crate) fn outside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let through = |maps: &[LinuxIdMapping], id: u32| {
            let place = |map: &LinuxIdMapping| {
                let at = id.checked_sub(map.container_id()).filter(|at| *at < map.size())?;
                map.host_id().checked_add(at)
            };
            maps.iter().find_map(place).unwrap_or(id)
        };
        (through(&self.uids, uid), through(&self.gids, gid))
    }
}

impl IdentityArgs {
    /// The user and group `inside`, who are this process's own outside.
    pub(crate) fn one(inside: (u32, u32), user_namespace: bool) -> Self {
        let map = |inside: u32| user_namespace.then(|| format!("{inside}:0:1")).into_iter().collect();
        Self {
            user: format!("{}:{}", inside.0, inside.1),
            uidmap: map(inside.0),
            gidmap: map(inside.1),
            ..Self::default()
        }
    }

    /// Whether ids have to be found.
    pub(crate) fn finds_own(&self) -> bool {
        self.userns == Some(UserNamespace::Auto)
    }

    /// Finds ids for a container that is to have some of its own; `taken` tells the maps of the others.
    pub(crate) fn find_own(&self, taken: impl FnOnce() -> Result<Vec<LinuxIdMapping>>) -> Result<()> {
        if !self.finds_own() {
            return Ok(());
        }
        if !rustix::process::geteuid().is_root() {
            bail!("--userns auto is for root; a plain user's containers have all of his ids");
        }
        let range = |file| {
            // Root may map any; the files say which are nobody else's.
            subordinate(file, Some(AUTO_OWNER), u32::MAX).with_context(|| {
                format!("--userns auto: {file} has no ids for {AUTO_OWNER}; add a line such as {AUTO_OWNER}:2147483647:2147483648")
            })
        };
        let (uids, gids) = (range("/etc/subuid")?, range("/etc/subgid")?);
        let start = free(common(uids, gids), &taken()?).with_context(|| {
            format!("--userns auto: all ids of {AUTO_OWNER} in /etc/subuid and /etc/subgid are in use")
        })?;
        // It is asked for once.
        self.found.set(start).ok();
        Ok(())
    }

    /// The user as the command line has him; empty if it does not say.
    pub(crate) fn user(&self) -> String {
        if self.user.is_empty() && self.userns == Some(UserNamespace::KeepId) {
            return format!("{}:{}", rustix::process::geteuid(), rustix::process::getegid());
        }
        self.user.clone()
    }

    /// The user in the container's own files.
    pub(crate) fn resolve(&self, root: &Path) -> Result<Identity> {
        Ok(user::resolve(root, &self.user(), &self.group_add)?)
    }

    /// The maps of the user namespace, if there is to be one.
    pub(crate) fn maps(&self) -> Result<Option<Maps>> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if uid.is_root() {
            if self.userns == Some(UserNamespace::KeepId) {
                bail!("--userns keep-id is for plain users; root keeps its id in any case");
            }
            if let Some(start) = self.found.get() {
                let map = vec![mapping(0, *start, AUTO_COUNT)];
                return Ok(Some(Maps { uids: map.clone(), gids: map }));
            }
            if self.userns == Some(UserNamespace::Auto) {
                bail!("--userns auto is for containers that are kept");
            }
            if self.uidmap.is_empty() {
                // The root of a user namespace may not do what the host's may: its containers are in one below.
                return Ok(is_in_user_namespace().then(Maps::surrounding));
            }
            let uids = parse_all("--uidmap", &self.uidmap)?;
            let gids = if self.gidmap.is_empty() { uids.clone() } else { parse_all("--gidmap", &self.gidmap)? };
            return Ok(Some(Maps { uids, gids }));
        }
        if !self.uidmap.is_empty() {
            bail!("--uidmap is for root; a plain user's ids are those of /etc/subuid");
        }
        let (name, keep) = (user_name(uid.as_raw()), self.userns == Some(UserNamespace::KeepId));
        // The helpers are setuid programs, which do nothing for who may gain no privileges.
        let helpers = has_program("newuidmap") && !rustix::thread::no_new_privs().unwrap_or(false);
        let range = |file| subordinate(file, name.as_deref(), uid.as_raw()).filter(|_| helpers);
        Ok(Some(match (range("/etc/subuid"), range("/etc/subgid")) {
            (Some(uids), Some(gids)) => {
                Maps { uids: with_range(uid.as_raw(), uids, keep), gids: with_range(gid.as_raw(), gids, keep) }
            }
            _ if keep => Maps { uids: vec![same(uid.as_raw())], gids: vec![same(gid.as_raw())] },
            _ => Maps { uids: vec![mapping(0, uid.as_raw(), 1)], gids: vec![mapping(0, gid.as_raw(), 1)] },
        }))
    }
}

/// Whether ids here are not those of the machine.
pub(crate) fn is_in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map");
    map.is_ok_and(|map| map.split_whitespace().nth(2) != Some("4294967295"))
}

/// Whether this is the machine's root, and not that of a user namespace.
pub(crate) fn is_host_root() -> bool {
    rustix::process::geteuid().is_root() && !is_in_user_namespace()
}

/// The ids that are in both.
fn common(a: Range, b: Range) -> Range {
    let (start, end) = (a.start.max(b.start), a.start.saturating_add(a.len).min(b.start.saturating_add(b.len)));
    Range { start, len: end.saturating_sub(start) }
}

/// Where as many ids begin as a container gets, none of them in a map of another's.
fn free(range: Range, taken: &[LinuxIdMapping]) -> Option<u32> {
    let starts = (0..range.len / AUTO_COUNT).map(|number| range.start + number * AUTO_COUNT);
    let is_free = |start: &u32| {
        let overlaps = |map: &LinuxIdMapping| {
            let (a, b) = (u64::from(*start), u64::from(map.host_id()));
            a < b + u64::from(map.size()) && b < a + u64::from(AUTO_COUNT)
        };
        !taken.iter().any(overlaps)
    };
    starts.into_iter().find(is_free)
}

fn same(id: u32) -> LinuxIdMapping {
    mapping(id, id, 1)
}

/// The user's own id as root and the range after it; or, kept, in its own place with the range around it.
fn with_range(own: u32, range: Range, keep: bool) -> Vec<LinuxIdMapping> {
    if !keep {
        return vec![mapping(0, own, 1), mapping(1, range.start, range.len)];
    }
    let below = own.min(range.len);
    let mut map = vec![mapping(0, range.start, below), same(own)];
    if range.len > below {
        map.push(mapping(own + 1, range.start + below, range.len - below));
    }
    map
}

fn parse_all(option: &str, texts: &[String]) -> Result<Vec<LinuxIdMapping>> {
    texts
        .iter()
        .map(|text| parse(text).ok_or_else(|| anyhow!("{option} {text}: must be INSIDE:OUTSIDE:COUNT")))
        .collect()
}

fn parse(text: &str) -> Option<LinuxIdMapping> {
    let mut numbers = text.split(':').map(str::parse);
    let map = mapping(numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    numbers.next().is_none().then_some(map)
}

/// The name of a user in the host's passwd; who is known by another service has his number in subuid(5).
fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(uid.as_str())).then(|| name.to_owned())
    })
}

/// Whether there is a program of this name.
pub(crate) fn has_program(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// 64 hexadecimal digits.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("getrandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_lies_after_the_user_or_around_him() {
        let range = Range { start: 100_000, len: 65536 };
        assert_eq!(with_range(1000, range, false), [mapping(0, 1000, 1), mapping(1, 100_000, 65536)]);
        let kept = [mapping(0, 100_000, 1000), mapping(1000, 1000, 1), mapping(1001, 101_000, 64536)];
        assert_eq!(with_range(1000, range, true), kept);
        let short = Range { start: 100_000, len: 10 };
        assert_eq!(with_range(1000, short, true), [mapping(0, 100_000, 10), mapping(1000, 1000, 1)]);
    }

    #[test]
    fn ids_of_the_container_have_others_on_the_host() {
        let maps = Maps { uids: vec![mapping(0, 100_000, 10)], gids: Vec::new() };
        assert_eq!((maps.outside(3, 3), maps.outside(10, 0)), ((100_003, 3), (10, 0)));
    }

    #[test]
    fn a_container_s_own_ids_are_no_other_s() {
        let range = Range { start: 1_000_000, len: 3 * AUTO_COUNT + 5 };
        assert_eq!(free(range, &[]), Some(1_000_000));
        let second = 1_000_000 + AUTO_COUNT;
        assert_eq!(free(range, &[mapping(0, 1_000_000, AUTO_COUNT)]), Some(second));
        assert_eq!(free(range, &[mapping(0, 999_990, 20), mapping(5, second + 7, 1)]), Some(second + AUTO_COUNT));
        assert_eq!(free(range, &[mapping(0, 0, u32::MAX)]), None);
        let shared = common(range, Range { start: second, len: AUTO_COUNT });
        assert_eq!(shared, Range { start: second, len: AUTO_COUNT });
        assert_eq!(free(common(range, Range { start: 5, len: 7 }), &[]), None);
    }

    #[test]
    fn maps_are_three_numbers() {
        assert_eq!(parse("0:100000:65536"), Some(mapping(0, 100_000, 65536)));
        for text in ["", "0:1", "0:1:2:3", "a:1:2", "-1:1:2"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
