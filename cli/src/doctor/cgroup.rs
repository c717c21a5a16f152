//! Control groups: how a container's memory, processes and processors are bounded.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::{Check, State};

const AREA: &str = "cgroups";

/// Where the hierarchies are mounted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mounts {
    v2: Option<PathBuf>,
    /// Controllers of version 1.
    v1: Vec<String>,
}

/// Looks at them.
pub(super) fn checks() -> Vec<Check> {
    let mounts = Mounts::parse(&read_to_string("/proc/self/mountinfo").unwrap_or_default());
    vec![mounts.layout(), mounts.controllers(), mounts.delegation()]
}

impl Mounts {
    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let mut after = after.split(' ');
            match after.next() {
                Some("cgroup2") => {
                    let place = before.split(' ').nth(4).map(PathBuf::from);
                    found.v2 = found.v2.or(place);
                }
                Some("cgroup") => {
                    let options = after.nth(1).unwrap_or_default().split(',');
                    let no_controller = ["rw", "ro", "xattr", "clone_children"];
                    let controllers = options.filter(|option| !no_controller.contains(option) && !option.contains('='));
                    found.v1.extend(controllers.map(str::to_owned));
                }
                _ => {}
            }
        }
        found.v1.sort();
        found.v1.dedup();
        found
    }

    fn layout(&self) -> Check {
        let (state, reason) = match (&self.v2, self.v1.is_empty()) {
            (Some(_), true) => (State::Ok, "version 2"),
            (Some(_), false) => (State::Ok, "hybrid: versions 1 and 2"),
            (None, false) => (State::Ok, "version 1"),
            (None, true) => (State::Limited, "none mounted: containers have no limits"),
        };
        let check = Check::new(AREA, "layout", state, reason);
        if state == State::Limited { check.fix("as root: mount -t cgroup2 none /sys/fs/cgroup") } else { check }
    }

    fn controllers(&self) -> Check {
        let v2 = self.v2.as_ref().and_then(|place| read_to_string(place.join("cgroup.controllers")).ok());
        let mut all: Vec<String> = v2.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        all.extend(self.v1.iter().cloned());
        let missing: Vec<&str> =
            ["cpu", "memory", "pids"].into_iter().filter(|name| !all.iter().any(|found| found == name)).collect();
        if missing.is_empty() {
            return Check::new(AREA, "controllers", State::Ok, all.join(" "));
        }
        let found = if all.is_empty() { "none".to_owned() } else { all.join(" ") };
        Check::new(AREA, "controllers", State::Limited, format!("{found}; no {}", missing.join(", ")))
            .fix(format!("boot with cgroup_enable={}, or mount their hierarchies", missing.join(",")))
    }

    fn delegation(&self) -> Check {
        let name = "delegation";
        let own = read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path = |line: &str| line.strip_prefix("0::/").map(|path| path.trim().to_owned());
        let own = self.v2.as_ref().zip(own.lines().find_map(path));
        let own = own.map(|(place, path)| if path.is_empty() { place.clone() } else { place.join(path) });
        let root = rustix::process::geteuid().is_root();
        let writable = |path: &Path| access(path, Access::WRITE_OK).is_ok();
        match own {
            Some(own) if writable(&own) && (root || writable(&own.join("cgroup.procs"))) => {
                Check::new(AREA, name, State::Ok, format!("{} can be divided", own.display()))
            }
            _ if root && !self.v1.is_empty() => {
                Check::new(AREA, name, State::Ok, "root divides the hierarchies of version 1")
            }
            Some(own) => Check::new(
                AREA,
                name,
                State::Limited,
                format!("{} is not this user's to divide: containers have no limits", own.display()),
            )
            .fix(if root {
                "mount /sys/fs/cgroup writable"
            } else {
                "log in through systemd, or: systemd-run --user --scope -p Delegate=yes lamel …"
            }),
            None => {
                Check::new(AREA, name, State::Limited, "no cgroup of version 2 to divide: containers have no limits")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_told_apart() {
        let hybrid = "30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro\n\
            31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
            32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n\
            33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        let mounts = Mounts::parse(hybrid);
        assert_eq!(mounts.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(mounts.v1, ["cpu", "cpuacct"]);
        assert!(mounts.layout().reason.starts_with("hybrid"));
        assert_eq!(Mounts::parse("").layout().state, State::Limited);
    }
}
