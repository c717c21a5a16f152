//! Version 2: one hierarchy, whose groups hold either processes or limited groups.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::{
    CgroupError, Directory, Doors, Setting, Throttled, below, counter, devices, pids_limit, refuse_unsupported, sweep,
    throttles, weights, write,
};

/// Weights of block I/O as the configuration has them, 1 to 1000.
const BFQ_WEIGHT: &str = "io.bfq.weight";

/// The group of one container.
#[derive(Debug)]
pub(super) struct Group(Option<Directory>);

impl Group {
    /// Beside lamel's own group, for one that holds processes can limit none below it; the root's can.
    pub(super) fn new(
        mount: &Path,
        own: &Path,
        name: &str,
        path: Option<&Path>,
        resources: &LinuxResources,
    ) -> Result<Self, CgroupError> {
        let settings = settings(resources)?;
        let parent = mount.join(own.parent().unwrap_or(own));
        let place = match path {
            Some(path) => mount.join(below(&path.to_string_lossy())),
            None => parent.join(name),
        };
        let above = place.parent().unwrap_or(mount).to_owned();
        sweep(&above);
        delegate(mount, &above, &settings)?;
        Ok(Self(Some(Directory::make(place)?)))
    }

    fn directory(&self) -> Result<&Directory, CgroupError> {
        self.0.as_ref().ok_or_else(|| CgroupError::Unavailable("it is removed already".to_owned()))
    }
}

/// Hands the controllers that are needed down to `to`'s children.
fn delegate(mount: &Path, to: &Path, settings: &[Setting]) -> Result<(), CgroupError> {
    let mut way: Vec<PathBuf> = to.ancestors().take_while(|path| path.starts_with(mount)).map(Path::to_owned).collect();
    way.reverse();
    let mut needed: Vec<&Setting> = settings.iter().filter(|setting| !setting.controller.is_empty()).collect();
    needed.dedup_by_key(|setting| setting.controller);
    for directory in way {
        if !directory.exists() {
            fs::create_dir(&directory).map_err(CgroupError::io("making", &directory))?;
        }
        let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
        let (available, handed) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
        for setting in &needed {
            let has = |list: &str| list.split_whitespace().any(|controller| controller == setting.controller);
            if !has(&available) {
                return Err(CgroupError::NoController {
                    limit: setting.limit.to_owned(),
                    controller: setting.controller,
                    advice: "; a user needs it delegated (systemd: Delegate=yes for user@.service)",
                });
            }
            if !has(&handed) {
                write(&directory.join("cgroup.subtree_control"), &format!("+{}", setting.controller))?;
            }
        }
    }
    Ok(())
}

impl super::Group for Group {
    fn limit(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let directory = self.directory()?;
        for Setting { file, value, .. } in settings(resources)? {
            // Which file there is depends on the scheduler of the host's disks; they count differently.
            if file == BFQ_WEIGHT && !directory.path.join(&file).exists() {
                directory.write("io.weight", &io_weight(&value))?;
            } else {
                directory.write(&file, &value)?;
            }
        }
        let rules = devices::rules(resources.devices().as_deref().unwrap_or_default())?;
        if rules.is_empty() { Ok(()) } else { devices::attach(&directory.path, &rules) }
    }

    fn doors(&self) -> Result<Doors, CgroupError> {
        let path = &self.directory()?.path;
        let group = File::open(path).map_err(CgroupError::io("opening", path))?;
        Ok(Doors { tasks: Vec::new(), group: Some(group) })
    }

    fn freeze(&mut self, frozen: bool) -> Result<(), CgroupError> {
        self.directory()?.write("cgroup.freeze", if frozen { "1" } else { "0" })
    }

    fn oom_kills(&self) -> Option<u64> {
        counter(&self.0.as_ref()?.path.join("memory.events"), "oom_kill")
    }

    fn remove(&mut self) {
        if let Some(directory) = self.0.take() {
            directory.remove();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        super::Group::remove(self);
    }
}

/// The limits of version 1, which the configuration speaks of, as version 2 has them.
fn settings(resources: &LinuxResources) -> Result<Vec<Setting>, CgroupError> {
    refuse_unsupported(resources)?;
    let mut settings = Vec::new();
    let mut set = |controller, file: &str, value: Option<String>, limit| {
        settings.extend(value.map(|value| Setting::new(controller, file, value, limit)));
    };
    let max = |number: i64| if number < 0 { "max".to_owned() } else { number.to_string() };
    if let Some(memory) = resources.memory() {
        set("memory", "memory.max", memory.limit().map(max), "memory.limit");
        set("memory", "memory.swap.max", swap(memory.limit(), memory.swap())?, "memory.swap");
        set("memory", "memory.low", memory.reservation().map(max), "memory.reservation");
        if memory.swappiness().is_some() || memory.disable_oom_killer() == Some(true) {
            return Err(CgroupError::Unsupported(
                "memory.swappiness or disableOOMKiller (cgroup v2 has neither)".to_owned(),
            ));
        }
    }
    if let Some(cpu) = resources.cpu() {
        set(
            "cpu",
            "cpu.weight",
            cpu.shares().filter(|shares| *shares > 0).map(|n| weight(n).to_string()),
            "cpu.shares",
        );
        if cpu.quota().is_some() || cpu.period().is_some() {
            let quota = cpu.quota().filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
            set("cpu", "cpu.max", Some(format!("{quota} {}", cpu.period().unwrap_or(100_000))), "cpu.quota");
        }
        set("cpu", "cpu.max.burst", cpu.burst().map(|n| n.to_string()), "cpu.burst");
        set("cpu", "cpu.idle", cpu.idle().map(|n| n.to_string()), "cpu.idle");
        set("cpuset", "cpuset.cpus", cpu.cpus().clone(), "cpu.cpus");
        set("cpuset", "cpuset.mems", cpu.mems().clone(), "cpu.mems");
    }
    set("pids", "pids.max", pids_limit(resources), "pids.limit");
    if let Some(io) = resources.block_io() {
        for weight in weights(io) {
            set("io", BFQ_WEIGHT, Some(weight), "blockIO.weight");
        }
        for (what, device) in throttles(io) {
            let key = match what {
                Throttled::ReadBytes => "rbps",
                Throttled::WrittenBytes => "wbps",
                Throttled::Reads => "riops",
                Throttled::Writes => "wiops",
            };
            let line = format!("{}:{} {key}={}", device.major(), device.minor(), device.rate());
            set("io", "io.max", Some(line), "blockIO.throttle");
        }
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        if file.contains('/') || !file.contains('.') {
            return Err(CgroupError::Value { limit: format!("unified {file:?}"), why: "is no file of a group" });
        }
        set("", file, Some(value.clone()), "unified");
    }
    Ok(settings)
}

/// The configuration's swap is memory and swap together; here it is swap alone.
fn swap(limit: Option<i64>, swap: Option<i64>) -> Result<Option<String>, CgroupError> {
    let wrong = |why| Err(CgroupError::Value { limit: "memory.swap".to_owned(), why });
    match (swap, limit) {
        (None | Some(0), _) => Ok(None),
        (Some(..=-1), _) => Ok(Some("max".to_owned())),
        (Some(_), None | Some(..=0)) => wrong("needs a memory limit"),
        (Some(swap), Some(limit)) if swap < limit => wrong("is below the memory limit"),
        (Some(swap), Some(limit)) => Ok(Some((swap - limit).to_string())),
    }
}

/// A line of weights from 10 to 1000 as one from 1 to 10000 (runtime-spec, config-linux.md, "cgroup v2 mapping").
fn io_weight(line: &str) -> String {
    let (device, weight) = line.rsplit_once(' ').map_or(("default", line), |(device, weight)| (device, weight));
    let weight = weight.parse::<u64>().unwrap_or(100).clamp(10, 1000);
    format!("{device} {}", 1 + (weight - 10) * 9999 / 990)
}

/// 2…262144 shares as a weight of 1…10000 (runtime-spec, config-linux.md, "cgroup v2 mapping").
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::super::Group as _;
    use super::*;
    use oci_spec::runtime::{
        LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder,
        LinuxThrottleDeviceBuilder,
    };

    /// A tree as the kernel would show it, in plain files.
    fn fake(controllers: &str) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for directory in ["", "slice", "slice/own", "slice/lamel-x"] {
            let directory = place.path().join(directory);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("cgroup.controllers"), controllers).unwrap();
            for file in ["cgroup.subtree_control", "cgroup.procs", "cgroup.freeze", "memory.max", "memory.swap.max"] {
                fs::write(directory.join(file), "").unwrap();
            }
            for file in ["cpu.max", "cpu.weight", "pids.max", "memory.oom.group"] {
                fs::write(directory.join(file), "").unwrap();
            }
        }
        place
    }

    fn resources() -> LinuxResources {
        LinuxResourcesBuilder::default()
            .memory(LinuxMemoryBuilder::default().limit(1000).swap(3000).build().unwrap())
            .cpu(LinuxCpuBuilder::default().quota(50_000).period(100_000_u64).shares(1024_u64).build().unwrap())
            .pids(LinuxPidsBuilder::default().limit(-1).build().unwrap())
            .unified([("memory.oom.group".to_owned(), "1".to_owned())])
            .build()
            .unwrap()
    }

    #[test]
    fn limits_are_written_beside_lamel_s_own_group() {
        let place = fake("cpu memory pids\n");
        let resources = resources();
        let mut group = Group::new(place.path(), Path::new("slice/own"), "lamel-x", None, &resources).unwrap();
        group.limit(&resources).unwrap();
        group.freeze(true).unwrap();
        let read = |file: &str| fs::read_to_string(place.path().join("slice").join(file)).unwrap();
        for (file, value) in [
            ("memory.max", "1000"),
            ("memory.swap.max", "2000"),
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "39"),
            ("pids.max", "max"),
            ("memory.oom.group", "1"),
            ("cgroup.freeze", "1"),
        ] {
            assert_eq!(read(&format!("lamel-x/{file}")), value, "{file}");
        }
        assert_eq!(group.oom_kills(), None);
        let events = place.path().join("slice/lamel-x/memory.events");
        fs::write(events, "low 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 1\n").unwrap();
        assert_eq!(group.oom_kills(), Some(2));
        assert!(read("cgroup.subtree_control").starts_with('+'));
        assert_eq!(read("own/cgroup.subtree_control"), "");
    }

    /// Needs root and a mounted hierarchy of version 2, with or without controllers.
    #[test]
    fn a_process_is_made_in_the_group() {
        use crate::sys::process::{Cloned, exit, start};
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup v2 is mounted");
        let name = format!("lamel-test-v2-{}", std::process::id());
        let mount = Path::new(line.split(' ').nth(4).unwrap());
        let group = Group::new(mount, Path::new(""), &name, None, &LinuxResources::default()).unwrap();
        let doors = group.doors().unwrap();
        assert!(!doors.have_steps());
        let pid = match start(0, doors.group()).unwrap() {
            Cloned::Child => loop {
                // It is killed; if its parent is gone already, it ends by itself.
                if crate::sys::process::next_signal().is_err() {
                    exit(0)
                }
            },
            Cloned::Parent(pid) => pid,
        };
        let own = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
        assert!(own.lines().any(|line| line.starts_with("0::") && line.ends_with(&name)), "{own}");
    }

    #[test]
    fn processors_and_block_devices_are_limited_in_version_2_s_words() {
        let place = fake("cpuset io\n");
        let group = place.path().join("slice/lamel-x");
        for file in ["cpuset.cpus", "cpuset.mems", "io.max", "io.weight"] {
            fs::write(group.join(file), "").unwrap();
        }
        let device = LinuxThrottleDeviceBuilder::default().major(8).minor(16).rate(1000_u64).build().unwrap();
        let io = LinuxBlockIoBuilder::default().weight(500_u16).throttle_read_bps_device(vec![device]).build();
        let resources = LinuxResourcesBuilder::default()
            .cpu(LinuxCpuBuilder::default().cpus("0-1").mems("0").build().unwrap())
            .block_io(io.unwrap())
            .build()
            .unwrap();
        let made = Group::new(place.path(), Path::new("slice/own"), "lamel-x", None, &resources).unwrap();
        made.limit(&resources).unwrap();
        let read = |file: &str| fs::read_to_string(group.join(file)).unwrap();
        assert_eq!((read("cpuset.cpus"), read("cpuset.mems")), ("0-1".to_owned(), "0".to_owned()));
        assert_eq!((read("io.max"), read("io.weight")), ("8:16 rbps=1000".to_owned(), "default 4950".to_owned()));
        // With the scheduler that has a file of its own.
        fs::write(group.join(BFQ_WEIGHT), "").unwrap();
        made.limit(&resources).unwrap();
        assert_eq!(read(BFQ_WEIGHT), "500");
        assert_eq!([io_weight("10"), io_weight("8:0 1000")], ["default 1", "8:0 10000"]);
    }

    #[test]
    fn a_controller_that_is_not_delegated_is_named() {
        let place = fake("cpu pids\n");
        let error = Group::new(place.path(), Path::new("slice/own"), "lamel-x", None, &resources()).unwrap_err();
        assert!(error.to_string().contains("memory.limit needs the cgroup controller memory"), "{error}");
    }

    #[test]
    fn swap_and_weight_are_converted() {
        assert_eq!(swap(Some(5), Some(-1)).unwrap().as_deref(), Some("max"));
        assert_eq!(swap(Some(5), Some(5)).unwrap().as_deref(), Some("0"));
        assert!(swap(Some(5), Some(4)).is_err() && swap(None, Some(4)).is_err());
        assert_eq!((weight(2), weight(262_144), weight(1024)), (1, 10_000, 39));
    }
}
