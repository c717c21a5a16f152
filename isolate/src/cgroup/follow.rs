//! The groups of a container that runs, found by one of its processes: who comes later goes into the same ones.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::{CgroupError, Doors, below, open_to_write, write};

/// A group that a process is in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// Of version 1, as the mount's options name them; none of version 2.
    pub(crate) controllers: Vec<String>,
    /// From the hierarchy's root.
    path: String,
    pub(crate) directory: PathBuf,
}

impl Membership {
    /// Whether the group is one for a container, not one that it shares with who started it.
    pub(crate) fn is_container_s(&self) -> bool {
        self.path.rsplit('/').next().is_some_and(|name| name.starts_with(super::PREFIX))
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|other| other == controller)
    }
}

/// The groups that a process is in and whose hierarchies are mounted here.
pub(crate) fn memberships(pid: i32) -> Result<Vec<Membership>, CgroupError> {
    let read = |path: String| fs::read_to_string(&path).map_err(CgroupError::io("reading", Path::new(&path)));
    Ok(parse(&read("/proc/self/mountinfo".to_owned())?, &read(format!("/proc/{pid}/cgroup"))?))
}

fn parse(mountinfo: &str, groups: &str) -> Vec<Membership> {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
    groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            let controllers: Vec<String> =
                names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            let mount = mounts.iter().find(|mount| mount.holds(&controllers))?;
            // A mount in a container shows a part of the hierarchy alone.
            let shown = path.strip_prefix(mount.root.trim_end_matches('/'))?;
            Some(Membership {
                directory: Path::new(mount.place).join(below(shown)),
                path: path.to_owned(),
                controllers,
            })
        })
        .collect()
}

struct Mount<'a> {
    root: &'a str,
    place: &'a str,
    version: u8,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, filesystem) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut filesystem = filesystem.split(' ');
        let version = match filesystem.next()? {
            "cgroup" => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        Some(Self { root: place.next()?, place: place.next()?, version, options: filesystem.nth(1)? })
    }

    fn holds(&self, controllers: &[String]) -> bool {
        if controllers.is_empty() {
            return self.version == 2;
        }
        self.version == 1 && controllers.iter().all(|name| self.options.split(',').any(|option| option == name))
    }
}

/// The ways into a container's own groups of version 1, by one of its processes. Who counts processes is not among them:
/// who moves others in may do so where there is no room for one more to be made.
pub(crate) fn doors(leader: i32) -> Result<Doors, CgroupError> {
    let groups = memberships(leader)?.into_iter();
    let wanted = groups.filter(|group| group.is_container_s() && !group.controllers.is_empty() && !group.has("pids"));
    let tasks = wanted.map(|group| open_to_write(&group.directory.join("tasks")));
    Ok(Doors { tasks: tasks.collect::<Result<_, _>>()?, group: None })
}

/// Puts a process into the groups of another one, if it is not there yet. Into those that are the container's it must; into those that the
/// container shares with who started it, it goes if it may.
pub(crate) fn follow(leader: i32, pid: Pid) -> Result<(), CgroupError> {
    let own = memberships(pid.as_raw_nonzero().get())?;
    for group in memberships(leader)? {
        if own.contains(&group) {
            continue;
        }
        let entered = write(&group.directory.join("cgroup.procs"), &pid.as_raw_nonzero().to_string());
        match entered {
            Err(error) if group.is_container_s() => return Err(error),
            Err(error) => tracing::debug!("{error}"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Whether a process is stopped by a freezer, its group's or one above.
pub(crate) fn is_frozen(pid: i32) -> bool {
    let Ok(groups) = memberships(pid) else { return false };
    groups.iter().any(|group| {
        let read = |file: &str| fs::read_to_string(group.directory.join(file)).unwrap_or_default();
        match group.controllers.is_empty() {
            true => read("cgroup.events").lines().any(|line| line == "frozen 1"),
            false => group.has("freezer") && ["FROZEN", "FREEZING"].contains(&read("freezer.state").trim()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 25 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:5 - cgroup cgroup rw,cpu,cpuacct
32 30 0:29 /outer /sys/fs/cgroup/freezer rw,nosuid - cgroup cgroup rw,freezer
33 30 0:30 / /sys/fs/cgroup/systemd rw,nosuid - cgroup cgroup rw,xattr,name=systemd
34 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn groups_are_found_where_they_are_mounted() {
        let groups = "5:cpu,cpuacct:/lamel-x\n4:freezer:/outer/in\n3:pids:/lamel-x\n2:name=systemd:/a\n0::/b/lamel-x\n";
        let found = parse(MOUNTS, groups);
        let places: Vec<&str> = found.iter().map(|group| group.directory.to_str().unwrap()).collect();
        let wanted = ["cpu,cpuacct/lamel-x", "freezer/in", "systemd/a", "unified/b/lamel-x"];
        assert_eq!(places, wanted.map(|place| format!("/sys/fs/cgroup/{place}")));
        let own: Vec<bool> = found.iter().map(Membership::is_container_s).collect();
        assert_eq!(own, [true, false, false, true]);
        assert!(found[0].has("cpuacct") && !found[0].has("cp"));
        // Elsewhere than what is mounted shows.
        assert!(parse(MOUNTS, "4:freezer:/other\n").is_empty());
    }

    #[test]
    fn nobody_is_frozen_here() {
        assert!(!is_frozen(std::process::id().cast_signed()));
    }
}
