//! What a container's own groups tell that it uses.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::follow::Membership;

/// What a container uses; none of what it has no group of its own for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it began.
    pub cpu: Option<Duration>,
    /// Bytes of memory, without what the kernel would give up at once.
    pub memory: Option<u64>,
    /// The most that it may have; none without a limit.
    pub memory_limit: Option<u64>,
    /// Bytes read from and written to block devices.
    pub block: Option<(u64, u64)>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Usage {
    /// Of the groups among these that are a container's.
    pub(crate) fn of(groups: &[Membership]) -> Self {
        let mut usage = Self::default();
        for group in groups.iter().filter(|group| group.is_container_s()) {
            let directory = group.directory.as_path();
            if group.controllers.is_empty() {
                usage.add_v2(directory);
            } else {
                group.controllers.iter().for_each(|controller| usage.add_v1(controller, directory));
            }
        }
        usage
    }

    fn add_v1(&mut self, controller: &str, directory: &Path) {
        let file = |name: &str| read(directory, name);
        match controller {
            "cpuacct" => self.cpu = number(&file("cpuacct.usage")).map(Duration::from_nanos),
            "memory" => {
                let inactive = member(&file("memory.stat"), "total_inactive_file").unwrap_or(0);
                self.memory = number(&file("memory.usage_in_bytes")).map(|used| used.saturating_sub(inactive));
                // Without a limit it is the largest number of pages.
                let limit = number(&file("memory.limit_in_bytes"));
                self.memory_limit = limit.filter(|limit| i64::try_from(*limit).is_ok_and(|l| l < i64::MAX - 0xffff));
            }
            "pids" => self.pids = number(&file("pids.current")),
            "blkio" => {
                let text = file("blkio.throttle.io_service_bytes");
                let sum = |kind: &str| {
                    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
                    lines
                        .filter(|line| line.get(1) == Some(&kind))
                        .filter_map(|line| line.get(2)?.parse::<u64>().ok())
                        .sum()
                };
                self.block = (!text.is_empty()).then(|| (sum("Read"), sum("Write")));
            }
            _ => {}
        }
    }

    fn add_v2(&mut self, directory: &Path) {
        let file = |name: &str| read(directory, name);
        self.cpu = member(&file("cpu.stat"), "usage_usec").map(Duration::from_micros);
        let inactive = member(&file("memory.stat"), "inactive_file").unwrap_or(0);
        self.memory = number(&file("memory.current")).map(|used| used.saturating_sub(inactive));
        self.memory_limit = number(&file("memory.max"));
        self.pids = number(&file("pids.current"));
        let text = file("io.stat");
        let sum = |key: &str| {
            let words = text.split_whitespace();
            words.filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok()).sum()
        };
        // The file is there, and empty, before anything was read or written.
        self.block = directory.join("io.stat").exists().then(|| (sum("rbytes"), sum("wbytes")));
    }
}

fn read(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).unwrap_or_default()
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Of a file with a name and a number on each line.
fn member(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(name)?.strip_prefix(' ')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = place.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        place
    }

    #[test]
    fn version_2_has_all_in_one_group() {
        let place = tree(&[
            ("cpu.stat", "usage_usec 1500000\nuser_usec 1\n"),
            ("memory.current", "3000\n"),
            ("memory.stat", "anon 1\ninactive_file 1000\n"),
            ("memory.max", "max\n"),
            ("pids.current", "7\n"),
            ("io.stat", "254:0 rbytes=10 wbytes=20 rios=1 wios=2\n254:16 rbytes=1 wbytes=2 rios=1\n"),
        ]);
        let mut usage = Usage::default();
        usage.add_v2(place.path());
        let wanted = Usage {
            cpu: Some(Duration::from_millis(1500)),
            memory: Some(2000),
            memory_limit: None,
            block: Some((11, 22)),
            pids: Some(7),
        };
        assert_eq!(usage, wanted);
        fs::write(place.path().join("memory.max"), "4096\n").unwrap();
        usage.add_v2(place.path());
        assert_eq!(usage.memory_limit, Some(4096));
    }

    #[test]
    fn version_1_has_a_group_for_each_controller() {
        let place = tree(&[
            ("cpuacct/cpuacct.usage", "1500000000\n"),
            ("memory/memory.usage_in_bytes", "3000\n"),
            ("memory/memory.stat", "inactive_file 5\ntotal_inactive_file 1000\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("pids/pids.current", "7\n"),
            ("blkio/blkio.throttle.io_service_bytes", "254:0 Read 10\n254:0 Write 20\n254:16 Read 1\nTotal 31\n"),
        ]);
        let mut usage = Usage::default();
        for controller in ["cpuacct", "memory", "pids", "blkio", "devices"] {
            usage.add_v1(controller, &place.path().join(controller));
        }
        assert_eq!(
            (usage.cpu, usage.memory, usage.memory_limit),
            (Some(Duration::from_millis(1500)), Some(2000), None)
        );
        assert_eq!((usage.block, usage.pids), (Some((11, 20)), Some(7)));
    }

    #[test]
    fn without_a_group_of_its_own_nothing_is_told() {
        assert_eq!(Usage::of(&[]), Usage::default());
        let own = super::super::memberships(std::process::id().cast_signed()).unwrap();
        assert_eq!(Usage::of(&own), Usage::default());
    }
}
