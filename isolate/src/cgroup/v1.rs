//! Version 1: a hierarchy for each controller, or for a few together.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::{
    CgroupError, Directory, Doors, Setting, Throttled, below, counter, devices, open_to_write, pids_limit,
    refuse_unsupported, sweep, throttles, weights, write,
};

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) controllers: Vec<String>,
    mount: PathBuf,
    /// Lamel's own group in it, below the mount.
    own: PathBuf,
}

/// The hierarchies of version 1 that have controllers, from `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(super) fn parse(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    let groups: Vec<(Vec<&str>, &str)> = own
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?.split(',').collect(), fields.next()?))
        })
        .collect();
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((place, filesystem)) = line.split_once(" - ") else { continue };
        let mut fields = filesystem.split(' ');
        if fields.next() != Some("cgroup") {
            continue;
        }
        let options: Vec<&str> = fields.nth(1).unwrap_or_default().split(',').collect();
        let Some((controllers, path)) =
            groups.iter().find(|(controllers, _)| controllers.iter().all(|c| !c.is_empty() && options.contains(c)))
        else {
            continue;
        };
        let mut place = place.split(' ').skip(3);
        let (Some(root), Some(mount)) = (place.next(), place.next()) else { continue };
        let hierarchy = Hierarchy {
            controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
            mount: mount.into(),
            // In a container the mount shows a part of the hierarchy alone.
            own: below(path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path)),
        };
        if !hierarchy.controllers.iter().any(|c| c.starts_with("name="))
            && !found.iter().any(|f| f.mount == hierarchy.mount)
        {
            found.push(hierarchy);
        }
    }
    found
}

/// Whether any limit is kept in a hierarchy.
pub(super) fn uses(hierarchy: &Hierarchy, resources: &LinuxResources) -> Result<bool, CgroupError> {
    let settings = settings(resources)?;
    Ok(settings.iter().any(|setting| hierarchy.controllers.iter().any(|c| c == setting.controller)))
}

/// The groups of one container, in those hierarchies that hold its limits.
#[derive(Debug)]
pub(super) struct Groups {
    made: Vec<(Vec<String>, Directory)>,
    /// Where a group to freeze is made when it is first needed: each one more costs the start of a container time.
    freezer: Option<PathBuf>,
}

impl Groups {
    pub(super) fn new(
        hierarchies: &[Hierarchy],
        name: &str,
        path: Option<&Path>,
        resources: &LinuxResources,
    ) -> Result<Self, CgroupError> {
        let settings = settings(resources)?;
        let (mut made, mut freezer) = (Vec::new(), None);
        for hierarchy in hierarchies {
            let has = |controller: &str| hierarchy.controllers.iter().any(|c| c == controller);
            let parent = hierarchy.mount.join(&hierarchy.own);
            sweep(&parent);
            let place = match path {
                Some(path) => hierarchy.mount.join(below(&path.to_string_lossy())),
                None => parent.join(name),
            };
            if !settings.iter().any(|setting| has(setting.controller)) {
                if has("freezer") {
                    freezer = Some(place);
                }
                continue;
            }
            let directory = Directory::make(place)?;
            if has("cpuset") {
                inherit_cpuset(&hierarchy.mount, &directory.path)?;
            }
            made.push((hierarchy.controllers.clone(), directory));
        }
        Ok(Self { made, freezer })
    }

    fn directory(&self, controller: &str) -> Option<&Directory> {
        self.made
            .iter()
            .find(|(controllers, _)| controllers.iter().any(|c| c == controller))
            .map(|(_, directory)| directory)
    }
}

/// A new group has neither cpus nor memory nodes, and takes no process until it has.
fn inherit_cpuset(mount: &Path, group: &Path) -> Result<(), CgroupError> {
    let mut way: Vec<&Path> = group.ancestors().take_while(|path| *path != mount).collect();
    way.reverse();
    for directory in way {
        let Some(above) = directory.parent() else { continue };
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let read = |path: PathBuf| fs::read_to_string(&path).map_err(CgroupError::io("reading", &path));
            if read(directory.join(file))?.trim().is_empty() {
                write(&directory.join(file), read(above.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}

impl super::Group for Groups {
    fn limit(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        for Setting { controller, file, value, limit } in settings(resources)? {
            let directory = self.directory(controller).ok_or_else(|| CgroupError::NoController {
                limit: limit.to_owned(),
                controller,
                advice: "; mount it below /sys/fs/cgroup",
            })?;
            directory.write(&file, &value)?;
        }
        Ok(())
    }

    fn doors(&self) -> Result<Doors, CgroupError> {
        let tasks = self.made.iter().map(|(_, directory)| open_to_write(&directory.path.join("tasks")));
        Ok(Doors { tasks: tasks.collect::<Result<_, _>>()?, group: None })
    }

    fn freeze(&mut self, frozen: bool) -> Result<(), CgroupError> {
        if let Some(place) = self.freezer.take() {
            let directory = Directory::make(place)?;
            // All are in the same groups.
            if let Some((_, other)) = self.made.first() {
                move_all(&other.path, &directory)?;
            }
            self.made.push((vec!["freezer".to_owned()], directory));
        }
        let freezer = self.directory("freezer").ok_or_else(|| CgroupError::NoController {
            limit: "pausing".to_owned(),
            controller: "freezer",
            advice: "",
        })?;
        freezer.write("freezer.state", if frozen { "FROZEN" } else { "THAWED" })
    }

    fn oom_kills(&self) -> Option<u64> {
        counter(&self.directory("memory")?.path.join("memory.oom_control"), "oom_kill")
    }

    fn remove(&mut self) {
        for (_, directory) in self.made.drain(..) {
            directory.remove();
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        super::Group::remove(self);
    }
}

/// How often it is looked for processes that were made while the others were moved.
const MOVES: usize = 1000;

/// Moves the processes of one group into another one, which those that they make from then on are in too.
fn move_all(from: &Path, to: &Directory) -> Result<(), CgroupError> {
    let read = |group: &Path| {
        let path = group.join("cgroup.procs");
        fs::read_to_string(&path).map_err(CgroupError::io("reading", &path))
    };
    for _ in 0..MOVES {
        let there = read(&to.path)?;
        let there: HashSet<&str> = there.lines().collect();
        let all = read(from)?;
        let mut others = all.lines().filter(|pid| !there.contains(pid)).peekable();
        if others.peek().is_none() {
            return Ok(());
        }
        for pid in others {
            match to.write("cgroup.procs", pid) {
                // It has ended meanwhile.
                Err(CgroupError::Io { error, .. }) if error.raw_os_error() == Some(libc::ESRCH) => {}
                moved => moved?,
            }
        }
    }
    Err(CgroupError::Unavailable("the container makes processes faster than they can be moved".to_owned()))
}

/// What is written where, in an order that the kernel takes: a limit before the one that may not be below it.
fn settings(resources: &LinuxResources) -> Result<Vec<Setting>, CgroupError> {
    refuse_unsupported(resources)?;
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(CgroupError::Unsupported("unified (this host has cgroup v1)".to_owned()));
    }
    let mut settings = Vec::new();
    let mut set = |controller, file: &str, value: Option<String>, limit| {
        settings.extend(value.map(|value| Setting::new(controller, file, value, limit)));
    };
    let text = |number: Option<i64>| number.map(|n| n.to_string());
    if let Some(memory) = resources.memory() {
        set("memory", "memory.limit_in_bytes", text(memory.limit()), "memory.limit");
        set("memory", "memory.memsw.limit_in_bytes", text(memory.swap()), "memory.swap");
        set("memory", "memory.soft_limit_in_bytes", text(memory.reservation()), "memory.reservation");
        set("memory", "memory.swappiness", memory.swappiness().map(|n| n.to_string()), "memory.swappiness");
        let disable = memory.disable_oom_killer().filter(|disable| *disable).map(|_| "1".to_owned());
        set("memory", "memory.oom_control", disable, "memory.disableOOMKiller");
    }
    if let Some(cpu) = resources.cpu() {
        set("cpu", "cpu.shares", cpu.shares().map(|n| n.to_string()), "cpu.shares");
        set("cpu", "cpu.cfs_period_us", cpu.period().map(|n| n.to_string()), "cpu.period");
        set("cpu", "cpu.cfs_quota_us", text(cpu.quota()), "cpu.quota");
        set("cpu", "cpu.cfs_burst_us", cpu.burst().map(|n| n.to_string()), "cpu.burst");
        set("cpu", "cpu.idle", text(cpu.idle()), "cpu.idle");
        set("cpuset", "cpuset.cpus", cpu.cpus().clone(), "cpu.cpus");
        set("cpuset", "cpuset.mems", cpu.mems().clone(), "cpu.mems");
    }
    set("pids", "pids.max", pids_limit(resources), "pids.limit");
    if let Some(io) = resources.block_io() {
        for weight in weights(io) {
            let file = if weight.contains(':') { "blkio.bfq.weight_device" } else { "blkio.bfq.weight" };
            set("blkio", file, Some(weight), "blockIO.weight");
        }
        for (what, device) in throttles(io) {
            let file = match what {
                Throttled::ReadBytes => "blkio.throttle.read_bps_device",
                Throttled::WrittenBytes => "blkio.throttle.write_bps_device",
                Throttled::Reads => "blkio.throttle.read_iops_device",
                Throttled::Writes => "blkio.throttle.write_iops_device",
            };
            let line = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            set("blkio", file, Some(line), "blockIO.throttle");
        }
    }
    for rule in devices::rules(resources.devices().as_deref().unwrap_or_default())? {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        set("devices", file, Some(rule.to_string()), "devices");
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::super::Group as _;
    use super::*;
    use oci_spec::runtime::{LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder};

    const MOUNTS: &str = "\
32 31 0:29 / /c/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 /outer /c/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /c/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /c/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hierarchies_are_read() {
        let found = parse(MOUNTS, "9:name=systemd:/\n4:memory:/outer/inner\n1:cpu:/\n0::/\n");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].mount.clone(), found[0].own.clone()), ("/c/cpu".into(), "".into()));
        assert_eq!((found[1].mount.clone(), found[1].own.clone()), ("/c/memory".into(), "inner".into()));
    }

    #[test]
    fn limits_go_into_the_hierarchies_that_hold_them() {
        let place = tempfile::tempdir().unwrap();
        let hierarchy = |name: &str| {
            let mount = place.path().join(name);
            fs::create_dir_all(mount.join("own/lamel-x")).unwrap();
            fs::write(mount.join("own/lamel-x/tasks"), "").unwrap();
            Hierarchy { controllers: vec![name.to_owned()], mount, own: "own".into() }
        };
        let hierarchies = [hierarchy("memory"), hierarchy("cpu"), hierarchy("pids")];
        let read = |file: &str| fs::read_to_string(place.path().join(file)).unwrap();
        for file in ["memory/own/lamel-x/memory.limit_in_bytes", "pids/own/lamel-x/pids.max"] {
            fs::write(place.path().join(file), "").unwrap();
        }
        let resources = LinuxResourcesBuilder::default()
            .memory(LinuxMemoryBuilder::default().limit(1 << 20).build().unwrap())
            .pids(LinuxPidsBuilder::default().limit(7).build().unwrap())
            .build()
            .unwrap();
        let groups = Groups::new(&hierarchies, "lamel-x", None, &resources).unwrap();
        groups.limit(&resources).unwrap();
        groups.doors().unwrap().enter().unwrap();
        assert_eq!(read("memory/own/lamel-x/memory.limit_in_bytes"), "1048576");
        assert_eq!(read("pids/own/lamel-x/pids.max"), "7");
        assert_eq!((read("pids/own/lamel-x/tasks"), read("memory/own/lamel-x/tasks")), ("0".into(), "0".into()));
        assert_eq!(read("cpu/own/lamel-x/tasks"), "");
        let cpuset = LinuxResourcesBuilder::default()
            .cpu(LinuxCpuBuilder::default().cpus("0").build().unwrap())
            .build()
            .unwrap();
        assert!(matches!(groups.limit(&cpuset), Err(CgroupError::NoController { controller: "cpuset", .. })));
    }
}
