//! Uids and gids of a user namespace.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::error::Error;

/// The most lines of a map that the kernel takes.
const MAX_LINES: usize = 340;
/// Bytes of `/etc/subuid` that are read.
const MAX_FILE: u64 = 1024 * 1024;

/// The maps of a user namespace that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub(crate) uids: Vec<LinuxIdMapping>,
    pub(crate) gids: Vec<LinuxIdMapping>,
    way: Way,
    /// Whether processes in the namespace may change their supplementary groups.
    groups: bool,
}

/// Who writes the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// This process, which may map any id.
    Direct,
    /// This process, which may map its own id alone, and has to give up setgroups(2) for it.
    Single,
    /// newuidmap(1) and newgidmap(1), which may map what `/etc/subuid` and `/etc/subgid` say.
    Helpers,
}

/// A range of ids that a user may map besides his own (subuid(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first id outside.
    pub start: u32,
    /// How many.
    pub len: u32,
}

/// A line of a map: `len` ids from `inside` on are those from `outside` on.
#[must_use]
pub fn mapping(inside: u32, outside: u32, len: u32) -> LinuxIdMapping {
    LinuxIdMappingBuilder::default().container_id(inside).host_id(outside).size(len).build().unwrap_or_default()
}

/// Gives its maps to a process that has just moved into a user namespace of its own, and waits for them.
///
/// # Errors
/// The maps contradict themselves, or this user may not give them.
pub fn give(pid: i32, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<(), Error> {
    let pid = Pid::from_raw(pid).ok_or_else(|| Error::call("write uid_map", pid.to_string())(Errno::SRCH))?;
    plan(uids, gids)?.write(pid)
}

/// The first range that `/etc/subuid` or `/etc/subgid` gives a user.
#[must_use]
pub fn subordinate(file: &str, name: Option<&str>, id: u32) -> Option<Range> {
    let file = fs::File::open(file).ok()?;
    let lines = BufReader::new(file.take(MAX_FILE)).lines().map_while(Result::ok);
    find_range(lines, name, id)
}

fn find_range(lines: impl Iterator<Item = String>, name: Option<&str>, id: u32) -> Option<Range> {
    let id = id.to_string();
    lines.filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        if owner != id && Some(owner) != name {
            return None;
        }
        let range = Range { start: fields.next()?.parse().ok()?, len: fields.next()?.trim().parse().ok()? };
        (range.len > 0 && range.start.checked_add(range.len).is_some()).then_some(range)
    })
}

/// Reads the maps of the configuration.
pub(crate) fn plan(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<IdMaps, Error> {
    for (field, map) in [("linux.uidMappings", uids), ("linux.gidMappings", gids)] {
        check(field, map)?;
    }
    let own = |map: &[LinuxIdMapping], id: u32| matches!(map, [only] if only.size() == 1 && only.host_id() == id);
    let (euid, egid) = (rustix::process::geteuid(), rustix::process::getegid());
    // In a user namespace of a plain user's this is whoever made it, whatever his id there.
    let any = rustix::thread::CapabilitySet::SETUID | rustix::thread::CapabilitySet::SETGID;
    let way = if rustix::thread::capabilities(None).is_ok_and(|held| held.effective.contains(any)) {
        Way::Direct
    } else if own(uids, euid.as_raw()) && own(gids, egid.as_raw()) {
        Way::Single
    } else {
        Way::Helpers
    };
    // What is denied in this namespace is denied in those below it.
    let denied = fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    Ok(IdMaps { uids: uids.to_vec(), gids: gids.to_vec(), way, groups: way != Way::Single && !denied })
}

fn inside(map: &[LinuxIdMapping], outside: u32) -> Option<u32> {
    map.iter().find_map(|line| {
        let at = outside.checked_sub(line.host_id()).filter(|at| *at < line.size())?;
        line.container_id().checked_add(at)
    })
}

/// Reads a map as the kernel shows it.
fn parse(text: &str) -> Vec<LinuxIdMapping> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some(mapping(numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn check(field: &str, map: &[LinuxIdMapping]) -> Result<(), Error> {
    if map.is_empty() {
        return Err(Error::invalid(field, "a user namespace needs a mapping"));
    }
    if map.len() > MAX_LINES {
        return Err(Error::invalid(field, format!("{} lines, the kernel takes {MAX_LINES}", map.len())));
    }
    let overlap = |a: (u32, u32), b: (u32, u32)| u64::from(a.0) < end(b) && u64::from(b.0) < end(a);
    fn end((start, len): (u32, u32)) -> u64 {
        u64::from(start) + u64::from(len)
    }
    for (at, line) in map.iter().enumerate() {
        let (inside, outside) = ((line.container_id(), line.size()), (line.host_id(), line.size()));
        // The last number is no id: it means "unchanged" to the kernel.
        if line.size() == 0 || end(inside).max(end(outside)) > u64::from(u32::MAX) {
            return Err(Error::invalid(field, "an empty range, or one beyond the last id"));
        }
        if map[..at].iter().any(|other| {
            overlap((other.container_id(), other.size()), inside) || overlap((other.host_id(), other.size()), outside)
        }) {
            return Err(Error::invalid(field, "ranges overlap"));
        }
    }
    Ok(())
}

impl IdMaps {
    /// Those of the user namespace that a process is in.
    pub(crate) fn of_process(pid: Pid) -> Result<Self, Error> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
            let text = fs::read_to_string(&path);
            text.map_err(|error| Error::call("read", path)(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
        };
        let groups = read("setgroups")?.trim() != "deny";
        Ok(Self { uids: parse(&read("uid_map")?), gids: parse(&read("gid_map")?), way: Way::Direct, groups })
    }

    /// The id inside that is this one outside.
    pub(crate) fn uid_inside(&self, outside: u32) -> Option<u32> {
        inside(&self.uids, outside)
    }

    /// The same of a group.
    pub(crate) fn gid_inside(&self, outside: u32) -> Option<u32> {
        inside(&self.gids, outside)
    }

    /// Whether processes in the namespace may change their supplementary groups.
    pub(crate) fn allows_groups(&self) -> bool {
        self.groups
    }

    pub(crate) fn maps_uid(&self, id: u32) -> bool {
        maps(&self.uids, id)
    }

    pub(crate) fn maps_gid(&self, id: u32) -> bool {
        maps(&self.gids, id)
    }

    /// Gives the maps to the user namespace of a process.
    pub(crate) fn write(&self, pid: Pid) -> Result<(), Error> {
        if self.way == Way::Helpers {
            self.help("newuidmap", "subuid", pid, &self.uids)?;
            return self.help("newgidmap", "subgid", pid, &self.gids);
        }
        let pid = pid.as_raw_nonzero();
        let put = |file: &str, text: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::write(&path, text).map_err(|error| Error::Call {
                call: "write",
                object: path,
                errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
            })
        };
        put("uid_map", &text(&self.uids))?;
        if self.way == Way::Single {
            put("setgroups", "deny")?;
        }
        put("gid_map", &text(&self.gids))
    }

    fn help(&self, program: &'static str, file: &'static str, pid: Pid, map: &[LinuxIdMapping]) -> Result<(), Error> {
        let failed = |said: String| Error::IdMapHelper { program, said, file };
        let mut command = Command::new(program);
        command.arg(pid.as_raw_nonzero().to_string());
        for line in map {
            command.args([line.container_id(), line.host_id(), line.size()].map(|id| id.to_string()));
        }
        let out = command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
        if out.status.success() { Ok(()) } else { Err(failed(String::from_utf8_lossy(&out.stderr).trim().to_owned())) }
    }
}

fn maps(map: &[LinuxIdMapping], id: u32) -> bool {
    map.iter().any(|line| id.checked_sub(line.container_id()).is_some_and(|at| at < line.size()))
}

fn text(map: &[LinuxIdMapping]) -> String {
    map.iter().map(|line| format!("{} {} {}\n", line.container_id(), line.host_id(), line.size())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_checked() {
        assert!(check("x", &[mapping(0, 1000, 1), mapping(1, 100_000, 65536)]).is_ok());
        assert!(check("x", &[]).is_err());
        assert!(check("x", &[mapping(0, 0, 0)]).is_err());
        assert!(check("x", &[mapping(0, u32::MAX, 1)]).is_err() && check("x", &[mapping(0, 5, u32::MAX)]).is_err());
        assert!(check("x", &[mapping(0, 1000, 10), mapping(5, 5000, 1)]).is_err());
        assert!(check("x", &[mapping(0, 1000, 10), mapping(50, 1005, 1)]).is_err());
        let many: Vec<_> = (0..341).map(|n| mapping(n, n + 1000, 1)).collect();
        assert!(check("x", &many[..340]).is_ok() && check("x", &many).is_err());
    }

    #[test]
    fn maps_are_read_back() {
        let maps = IdMaps::of_process(rustix::process::getpid()).unwrap();
        assert!(maps.maps_uid(0) && maps.allows_groups());
        let uids = parse("         0       1000          1\n         1     200000      65536\n");
        assert_eq!(uids, [mapping(0, 1000, 1), mapping(1, 200_000, 65536)]);
        let maps = IdMaps { uids, ..maps };
        let inside = [1000, 200_999, 5].map(|outside| maps.uid_inside(outside));
        assert_eq!(inside, [Some(0), Some(1000), None]);
    }

    #[test]
    fn ranges_are_found_by_name_or_number() {
        let text = "# c\nother:1:2\nme:100000:65536\n1000:200000:10\nbad:x:y\nwide:4294967295:2\n";
        let find = |name, id| find_range(text.lines().map(str::to_owned), name, id);
        assert_eq!(find(Some("me"), 7), Some(Range { start: 100_000, len: 65536 }));
        assert_eq!(find(None, 1000), Some(Range { start: 200_000, len: 10 }));
        assert_eq!(find(Some("bad"), 7), None);
        assert_eq!(find(Some("wide"), 7), None);
        assert_eq!(find(None, 7), None);
    }
}
