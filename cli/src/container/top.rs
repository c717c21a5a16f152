//! `lamel top`
//!
//! All that is shown is read from the host's /proc: no program of the container's, and no `ps` either, is run for it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use lamel_isolate::exec::Target;

use super::exec::find;
use super::process::{Process, plain};
use crate::image::StoreArgs;
use crate::output::human::columns;
use crate::output::print;

/// A day, in seconds.
const DAY: i64 = 24 * 60 * 60;
/// The major numbers of pseudo-terminals.
const PTS: std::ops::Range<u32> = 136..144;

/// Show the processes of a running container
///
/// As ps(1) shows them, with the numbers that they have on the host and the names that their users
/// have in the container. Times are UTC.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Options of ps: -ef (as without any), -e, aux, -o LIST; or a list of descriptors, as podman has them, where
pid is the number inside and hpid the one on the host: user uid huser group pid hpid ppid hppid pgid sid
pcpu c stime etime tty time args comm vsz rss pmem stat state nice nlwp

Example:
  lamel top web -o pid,user,args")]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// The container's name or id
    container: String,
    /// What ps is asked for
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS-OPTIONS")]
    options: Vec<String>,
}

/// What is shown of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    User,
    Uid,
    HostUid,
    Gid,
    Pid,
    InsidePid,
    Ppid,
    InsidePpid,
    Pgid,
    Sid,
    Share,
    WholeShare,
    Start,
    Elapsed,
    Terminal,
    Time,
    Args,
    Comm,
    Size,
    Resident,
    MemoryShare,
    State,
    Nice,
    Threads,
}

/// The names of columns, each with its heading; `ps`'s own.
const NAMES: [(&str, &str, Column); 50] = [
    ("user", "USER", Column::User),
    ("uname", "USER", Column::User),
    ("euser", "EUSER", Column::User),
    ("ruser", "RUSER", Column::User),
    ("uid", "UID", Column::Uid),
    ("euid", "EUID", Column::Uid),
    ("huser", "HUSER", Column::HostUid),
    ("gid", "GID", Column::Gid),
    ("egid", "EGID", Column::Gid),
    ("group", "GROUP", Column::Gid),
    ("pid", "PID", Column::Pid),
    ("tgid", "TGID", Column::Pid),
    ("hpid", "HPID", Column::Pid),
    ("ppid", "PPID", Column::Ppid),
    ("hppid", "HPPID", Column::Ppid),
    ("pgid", "PGID", Column::Pgid),
    ("pgrp", "PGRP", Column::Pgid),
    ("sid", "SID", Column::Sid),
    ("sess", "SESS", Column::Sid),
    ("session", "SESS", Column::Sid),
    ("pcpu", "%CPU", Column::Share),
    ("%cpu", "%CPU", Column::Share),
    ("c", "C", Column::WholeShare),
    ("stime", "STIME", Column::Start),
    ("start", "STARTED", Column::Start),
    ("start_time", "START", Column::Start),
    ("bsdstart", "START", Column::Start),
    ("etime", "ELAPSED", Column::Elapsed),
    ("elapsed", "ELAPSED", Column::Elapsed),
    ("tty", "TTY", Column::Terminal),
    ("tt", "TT", Column::Terminal),
    ("tname", "TTY", Column::Terminal),
    ("time", "TIME", Column::Time),
    ("cputime", "TIME", Column::Time),
    ("args", "COMMAND", Column::Args),
    ("cmd", "CMD", Column::Args),
    ("command", "COMMAND", Column::Args),
    ("comm", "COMMAND", Column::Comm),
    ("ucmd", "CMD", Column::Comm),
    ("vsz", "VSZ", Column::Size),
    ("rss", "RSS", Column::Resident),
    ("pmem", "%MEM", Column::MemoryShare),
    ("%mem", "%MEM", Column::MemoryShare),
    ("stat", "STAT", Column::State),
    ("state", "S", Column::State),
    ("s", "S", Column::State),
    ("nice", "NI", Column::Nice),
    ("ni", "NI", Column::Nice),
    ("nlwp", "NLWP", Column::Threads),
    ("thcount", "THCNT", Column::Threads),
];

/// Columns with their headings.
type Columns = Vec<(String, Column)>;

/// `ps -ef`, whose first column is the user's name whatever it is called.
fn full() -> Columns {
    let all = [
        ("UID", Column::User),
        ("PID", Column::Pid),
        ("PPID", Column::Ppid),
        ("C", Column::WholeShare),
        ("STIME", Column::Start),
        ("TTY", Column::Terminal),
        ("TIME", Column::Time),
        ("CMD", Column::Args),
    ];
    all.map(|(heading, column)| (heading.to_owned(), column)).to_vec()
}

/// What ps's options ask for.
fn parse(options: &[String]) -> Result<Columns> {
    let Some(first) = options.first() else { return Ok(full()) };
    let plain = |option: &str| option.trim_start_matches('-').to_owned();
    let mut wanted: Columns = Vec::new();
    // podman's way: no option at all, descriptors alone, one a word or with commas between.
    if !first.starts_with('-') && lookup(first.split(',').next().unwrap_or_default()).is_ok() && first != "c" {
        for word in options.iter().flat_map(|option| option.split(',')) {
            let (heading, column) = lookup(word)?;
            wanted.push((
                heading,
                match column {
                    Column::Pid if word == "pid" => Column::InsidePid,
                    Column::Ppid if word == "ppid" => Column::InsidePpid,
                    other => other,
                },
            ));
        }
        return Ok(wanted);
    }
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let letters = plain(word);
        match letters.as_str() {
            "ef" | "f" | "eF" => wanted.extend(full()),
            "e" | "A" | "ax" | "a" | "x" | "w" | "ww" => {}
            "aux" | "u" | "auxw" | "auxww" => {
                let list = "user,pid,%cpu,%mem,vsz,rss,tty,stat,start_time,time,command";
                wanted.extend(list.split(',').map(lookup).collect::<Result<Columns>>()?);
            }
            _ => {
                let Some(list) = letters
                    .strip_prefix("eo")
                    .or_else(|| letters.strip_prefix("axo"))
                    .or_else(|| letters.strip_prefix('o'))
                else {
                    bail!("{word}: of ps's options -e, -f, aux and -o are known");
                };
                let list = if list.is_empty() { words.next().context("-o: needs a list of columns")? } else { list };
                for name in list.split(',') {
                    // `name=heading`
                    let (name, heading) = name.split_once('=').map_or((name, None), |(name, text)| (name, Some(text)));
                    let (usual, column) = lookup(name)?;
                    wanted.push((heading.map_or(usual, str::to_owned), column));
                }
            }
        }
    }
    Ok(if wanted.is_empty() { full() } else { wanted })
}

fn lookup(name: &str) -> Result<(String, Column)> {
    let found = NAMES.iter().find(|(known, ..)| name.eq_ignore_ascii_case(known));
    let (_, heading, column) =
        found.with_context(|| format!("{name:?} is no column that is known; see lamel top --help"))?;
    Ok(((*heading).to_owned(), *column))
}

/// Lists.
pub(super) fn run(args: &Args) -> Result<()> {
    let wanted = parse(&args.options)?;
    let record = super::containers(&args.store)?.find(&args.container)?;
    let target = find(&record)?;
    let around = Around::look(&target)?;
    let mut rows = vec![wanted.iter().map(|(heading, _)| heading.clone()).collect::<Vec<_>>()];
    for process in target.processes()?.into_iter().filter_map(Process::read) {
        rows.push(wanted.iter().map(|(_, column)| around.cell(*column, &process)).collect());
    }
    print(columns(&rows))
}

/// What the columns are told with.
struct Around<'a> {
    target: &'a Target,
    /// Of the container; none if its passwd is not to be read.
    names: BTreeMap<u32, String>,
    /// How long the host has run.
    uptime: Duration,
    now: Timestamp,
    /// Bytes of memory.
    memory: u64,
    /// Numbers inside, by those on the host.
    inside: BTreeMap<i32, i32>,
}

impl<'a> Around<'a> {
    fn look(target: &'a Target) -> Result<Self> {
        let uptime = fs::read_to_string("/proc/uptime").context("/proc/uptime")?;
        let seconds: f64 = uptime.split(' ').next().unwrap_or_default().parse().context("/proc/uptime")?;
        let processes = target.processes()?.into_iter().filter_map(Process::read);
        Ok(Self {
            target,
            names: target.user_names().unwrap_or_default(),
            uptime: Duration::try_from_secs_f64(seconds).context("/proc/uptime")?,
            now: Timestamp::now(),
            memory: host_memory(),
            inside: processes.map(|process| (process.pid, process.inside)).collect(),
        })
    }

    fn cell(&self, column: Column, process: &Process) -> String {
        let elapsed = self.uptime.saturating_sub(process.start);
        let share = |part: f64, whole: f64| if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
        let cpu = share(process.cpu.as_secs_f64(), elapsed.as_secs_f64());
        let inside = self.target.uid_inside(process.uid);
        match column {
            Column::User => {
                match inside.map(|uid| self.names.get(&uid).map_or_else(|| uid.to_string(), |n| plain(n))) {
                    Some(name) => name,
                    None => "?".to_owned(),
                }
            }
            Column::Uid => inside.map_or_else(|| "?".to_owned(), |uid| uid.to_string()),
            Column::HostUid => process.uid.to_string(),
            Column::Gid => self.target.gid_inside(process.gid).map_or_else(|| "?".to_owned(), |gid| gid.to_string()),
            Column::Pid => process.pid.to_string(),
            Column::InsidePid => process.inside.to_string(),
            Column::Ppid => process.ppid.to_string(),
            Column::InsidePpid => self.inside.get(&process.ppid).copied().unwrap_or(0).to_string(),
            Column::Pgid => process.pgid.to_string(),
            Column::Sid => process.sid.to_string(),
            Column::Share => format!("{cpu:.1}"),
            Column::WholeShare => format!("{:.0}", cpu.floor().min(99.0)),
            Column::Start => self.start(elapsed),
            Column::Elapsed => clock(elapsed.as_secs(), false),
            Column::Terminal => terminal(process.terminal),
            Column::Time => clock(process.cpu.as_secs(), true),
            Column::Args => process.args.clone(),
            Column::Comm => process.comm.clone(),
            Column::Size => (process.size / 1024).to_string(),
            Column::Resident => (process.resident / 1024).to_string(),
            #[allow(clippy::cast_precision_loss, reason = "one digit is shown")]
            Column::MemoryShare => format!("{:.1}", share(process.resident as f64, self.memory as f64)),
            Column::State => process.state.clone(),
            Column::Nice => process.nice.to_string(),
            Column::Threads => process.threads.to_string(),
        }
    }

    /// The time of the day, or for what is older the day.
    fn start(&self, elapsed: Duration) -> String {
        let then = self.now.as_second().saturating_sub(i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX));
        let today = then.div_euclid(DAY) == self.now.as_second().div_euclid(DAY);
        let stamp = Timestamp::from_second(then).unwrap_or(Timestamp::UNIX_EPOCH);
        stamp.strftime(if today { "%H:%M" } else { "%b%d" }).to_string()
    }
}

/// Bytes of the host's memory; 0 if nobody says.
pub(super) fn host_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
}

/// `[DD-]HH:MM:SS`; short, without hours that are none.
fn clock(seconds: u64, long: bool) -> String {
    let (days, hours, minutes, seconds) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) if !long => format!("{minutes:02}:{seconds:02}"),
        (0, _) => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        _ => format!("{days}-{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// A device number as `/proc/PID/stat` has it, by the name that ps gives to it.
fn terminal(number: u32) -> String {
    // The minor number is in two parts around the major one.
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match major {
        0 => "?".to_owned(),
        4 => format!("tty{minor}"),
        major if PTS.contains(&major) => format!("pts/{}", minor + (major - PTS.start) * 256),
        _ => format!("{major}:{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headings(words: &str) -> Result<String> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        Ok(parse(&words)?.into_iter().map(|(heading, _)| heading).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn options_of_ps_and_descriptors_of_podman() {
        let full = "UID PID PPID C STIME TTY TIME CMD";
        for words in ["", "-ef", "ef", "-e", "-e -f"] {
            assert_eq!(headings(words).unwrap(), full, "{words}");
        }
        assert_eq!(headings("-o pid,comm").unwrap(), "PID COMMAND");
        assert_eq!(headings("-opid=P -o user").unwrap(), "P USER");
        assert_eq!(headings("-eo pid,args").unwrap(), "PID COMMAND");
        assert!(headings("aux").unwrap().starts_with("USER PID %CPU %MEM"));
        assert_eq!(headings("user pid hpid").unwrap(), "USER PID HPID");
        assert_eq!(parse(&["pid".to_owned()]).unwrap()[0].1, Column::InsidePid);
        assert_eq!(parse(&["-o".to_owned(), "pid".to_owned()]).unwrap()[0].1, Column::Pid);
        for wrong in ["-o", "-o nothing", "--forest", "-x -y", "pid nothing"] {
            assert!(headings(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_and_terminals_as_ps_shows_them() {
        assert_eq!(
            [0, 61, 3661, 90_061].map(|seconds| clock(seconds, false)),
            ["00:00", "01:01", "01:01:01", "1-01:01:01"]
        );
        assert_eq!(clock(61, true), "00:01:01");
        assert_eq!([0, 34816, 34817, 1025, 1281].map(terminal), ["?", "pts/0", "pts/1", "tty1", "5:1"]);
    }
}
