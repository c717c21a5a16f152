//! What the host's /proc tells of one process, whoever it belongs to.

use std::fs;
use std::io::Read as _;
use std::time::Duration;

/// Bytes that are read of a command line; the kernel allows megabytes.
const MAX_LINE: u64 = 4096;

/// A process, as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) ppid: i32,
    pub(super) pgid: i32,
    pub(super) sid: i32,
    /// Its number in the innermost pid namespace that it is in.
    pub(super) inside: i32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// One letter.
    pub(super) state: String,
    /// 0 if it has none.
    pub(super) terminal: u32,
    pub(super) nice: i64,
    pub(super) threads: u64,
    pub(super) cpu: Duration,
    /// Since the host began.
    pub(super) start: Duration,
    /// Bytes.
    pub(super) size: u64,
    pub(super) resident: u64,
    pub(super) comm: String,
    pub(super) args: String,
}

impl Process {
    /// None if it has ended.
    pub(super) fn read(pid: i32) -> Option<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let mut args = Vec::new();
        let line = fs::File::open(format!("/proc/{pid}/cmdline")).ok()?;
        line.take(MAX_LINE).read_to_end(&mut args).ok()?;
        let ticks = rustix::param::clock_ticks_per_second();
        let page = u64::try_from(rustix::param::page_size()).ok()?;
        Self::parse(pid, &lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?), &read("status")?, &args, ticks, page)
    }

    fn parse(pid: i32, stat: &str, status: &str, args: &[u8], ticks: u64, page: u64) -> Option<Self> {
        // The name may hold anything, also parentheses.
        let (before, after) = stat.rsplit_once(')')?;
        let comm = before.split_once('(')?.1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        // Numbered from 1 in proc_pid_stat(5), of which these are the third and following.
        let field = |number: usize| fields.get(number - 3).copied();
        let number = |at: usize| field(at)?.parse::<u64>().ok();
        let signed = |at: usize| field(at)?.parse::<i64>().ok();
        let id = |at: usize| field(at)?.parse::<i32>().ok();
        let time = |ticked: u64| Duration::from_millis(ticked.saturating_mul(1000) / ticks.max(1));
        let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let effective = |name: &str| of(name)?.split_whitespace().nth(1)?.parse::<u32>().ok();
        let words = args.split(|byte| *byte == 0).map(lossy).collect::<Vec<_>>().join(" ");
        let args = match words.trim_end() {
            // The kernel's own, and those that have ended.
            "" => format!("[{}]", plain(comm)),
            words => plain(words),
        };
        Some(Self {
            pid,
            ppid: id(4)?,
            pgid: id(5)?,
            sid: id(6)?,
            inside: of("NSpid").and_then(|pids| pids.split_whitespace().last()?.parse().ok()).unwrap_or(pid),
            uid: effective("Uid")?,
            gid: effective("Gid")?,
            state: field(3)?.to_owned(),
            terminal: u32::try_from(signed(7)?).unwrap_or(0),
            nice: signed(19)?,
            threads: number(20)?,
            cpu: time(number(14)?.saturating_add(number(15)?)),
            start: time(number(22)?),
            size: number(23)?,
            resident: number(24)?.saturating_mul(page),
            comm: plain(comm),
            args,
        })
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Without what a terminal would take for an order: a container's process chooses its name.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) R 1 (\x1b[2J) S 3 4 5 34817 0 0 0 0 0 0 150 50 0 0 20 5 2 0 1000 8192 2 0";
        let status = "Name:\tx\nUid:\t1\t1000\t1\t1\nGid:\t2\t100\t2\t2\nNSpid:\t7\t3\n";
        let process = Process::parse(7, stat, status, b"sh\0-c\0x\x1b[2J\0", 100, 4096).unwrap();
        assert_eq!((process.comm.as_str(), process.args.as_str()), ("a) R 1 (?[2J", "sh -c x?[2J"));
        assert_eq!((process.ppid, process.inside, process.uid, process.gid), (3, 3, 1000, 100));
        assert_eq!((process.cpu, process.start), (Duration::from_secs(2), Duration::from_secs(10)));
        assert_eq!((process.nice, process.threads, process.resident, process.terminal), (5, 2, 8192, 34817));
        assert_eq!(Process::parse(7, stat, status, b"", 100, 4096).unwrap().args, "[a) R 1 (?[2J]");
        for broken in ["", "7 (a", "7 (a) S", "7 a S 3 4"] {
            assert_eq!(Process::parse(7, broken, status, b"", 100, 4096), None, "{broken:?}");
        }
    }

    #[test]
    fn this_process_is_told_of() {
        let own = i32::try_from(std::process::id()).unwrap();
        let process = Process::read(own).unwrap();
        assert!(process.pid == own && process.threads >= 1 && process.start > Duration::ZERO);
        assert_eq!(Process::read(i32::MAX), None);
    }
}
