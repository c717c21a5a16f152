//! `lamel stats`

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use lamel_isolate::exec::Target;
use serde_json::{Value, json};

use super::exec::find;
use super::process::Process;
use super::record::Record;
use super::state::Status;
use super::top::host_memory;
use crate::image::StoreArgs;
use crate::launch::warn;
use crate::output::human::{columns, size};
use crate::output::print;
use crate::output::template::Template;

/// Time between two looks at what a container uses.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same where there are two alone.
const MOMENT: Duration = Duration::from_millis(250);
/// What is not known.
const UNKNOWN: &str = "--";
/// Clears a terminal and goes to its first line.
const CLEAR: &[u8] = b"\x1b[2J\x1b[H";
const TABLE: &str =
    "table {{.ID}}\\t{{.Name}}\\t{{.CPUPerc}}\\t{{.MemUsage}}\\t{{.MemPerc}}\\t{{.NetIO}}\\t{{.BlockIO}}\\t{{.PIDs}}";
/// The headings of the fields, as docker has them.
const HEADINGS: [(&str, &str); 9] = [
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

/// Show what running containers use
///
/// Memory and block I/O are told by control groups: of a container without one of its own for them
/// (a limit, as -m, gives it one) they are shown as --.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  lamel stats --no-stream --format '{{.Name}} {{.CPUPerc}}'")]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Containers that do not run too
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Once, not again and again
    #[arg(long)]
    no_stream: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// json, table, or a template of Container, ID, Name, CPUPerc, MemUsage, MemPerc, NetIO, BlockIO, PIDs
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Their names or ids [default: all that run]
    containers: Vec<String>,
}

/// Shows.
pub(super) fn run(args: &Args) -> Result<()> {
    let containers = super::containers(&args.store)?;
    let named = args.containers.iter().map(|name| containers.find(name)).collect::<Result<Vec<_>>>()?;
    let template = match args.format.as_deref() {
        Some("json") => None,
        None | Some("table") => Some(Template::parse(TABLE)?),
        Some(text) => Some(Template::parse(text)?),
    };
    let clear = std::io::stdout().is_terminal() && !args.no_stream;
    let mut before = BTreeMap::new();
    let mut said = false;
    let mut pause = MOMENT;
    loop {
        let records = if named.is_empty() { containers.list()? } else { named.clone() };
        if before.is_empty() {
            before =
                records.iter().filter_map(|record| Some((record.id().to_owned(), Sample::take(record)?))).collect();
            std::thread::sleep(pause);
        }
        let mut now = BTreeMap::new();
        let mut rows = Vec::new();
        for record in &records {
            let sample = Sample::take(record);
            let runs = record.state().is_ok_and(|state| matches!(state.status, Status::Running | Status::Paused));
            if !(runs || args.all || !named.is_empty()) {
                continue;
            }
            rows.push(row(record, sample.as_ref(), before.get(record.id()), args.no_trunc));
            if !said && sample.as_ref().is_some_and(|sample| sample.memory.is_none()) {
                said = true;
                warn(&format!(
                    "note: {UNKNOWN}: memory and block I/O are known only of containers with a control group for them, \
                     which a limit of memory (-m) or of block I/O gives"
                ));
            }
            now.extend(sample.map(|sample| (record.id().to_owned(), sample)));
        }
        let mut lines = show(&rows, template.as_ref())?;
        if clear && let Some(first) = lines.first_mut() {
            *first = [CLEAR, first].concat();
        }
        print(lines)?;
        if args.no_stream {
            return Ok(());
        }
        before = now;
        pause = INTERVAL;
        std::thread::sleep(pause);
    }
}

fn show(rows: &[Value], template: Option<&Template>) -> Result<Vec<Vec<u8>>> {
    let Some(template) = template else { return Ok(rows.iter().map(|row| row.to_string().into_bytes()).collect()) };
    let lines = rows.iter().map(|row| template.render(row)).collect::<Result<Vec<_>>>()?;
    if !template.table {
        return Ok(lines.into_iter().map(String::into_bytes).collect());
    }
    let headings: Value = HEADINGS.iter().map(|(field, heading)| ((*field).to_owned(), json!(heading))).collect();
    let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
    let table: Vec<Vec<String>> = [template.render(&headings)?].iter().chain(&lines).map(cells).collect();
    Ok(columns(&table))
}

/// What a container had used at one moment.
struct Sample {
    at: Instant,
    cpu: Duration,
    memory: Option<u64>,
    limit: Option<u64>,
    network: Option<(u64, u64)>,
    block: Option<(u64, u64)>,
    pids: u64,
}

impl Sample {
    /// None if it does not run.
    fn take(record: &Record) -> Option<Self> {
        let state = record.state().ok()?;
        let target = match state.status {
            // A paused one is looked at as well.
            Status::Paused => Target::find(state.pid, Some(state.pid_started)).ok()?,
            _ => find(record).ok()?,
        };
        let usage = target.usage();
        // Without a group that counts, the processes are counted that are there now.
        let (mut cpu, mut pids) = (Duration::ZERO, 0);
        if usage.cpu.is_none() || usage.pids.is_none() {
            for process in target.processes().ok()?.into_iter().filter_map(Process::read) {
                cpu += process.cpu;
                pids += process.threads;
            }
        }
        Some(Self {
            at: Instant::now(),
            cpu: usage.cpu.unwrap_or(cpu),
            memory: usage.memory,
            limit: usage.memory_limit,
            network: target.traffic(),
            block: usage.block,
            pids: usage.pids.unwrap_or(pids),
        })
    }
}

#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
fn row(record: &Record, sample: Option<&Sample>, before: Option<&Sample>, whole: bool) -> Value {
    let settings = &record.settings;
    let id = if whole { record.id() } else { settings.short_id() };
    let percent = |part: f64, of: f64| format!("{:.2}%", if of > 0.0 { 100.0 * part / of } else { 0.0 });
    let pair = |pair: Option<(u64, u64)>, size: fn(u64) -> String| match pair {
        Some((a, b)) => format!("{} / {}", size(a), size(b)),
        None => UNKNOWN.to_owned(),
    };
    let unknown = || UNKNOWN.to_owned();
    let limit = sample.map(|sample| match sample.limit {
        Some(limit) => limit.min(host_memory()),
        None => host_memory(),
    });
    let memory = sample.and_then(|sample| Some((sample.memory?, limit?)));
    let cpu = sample.zip(before).map(|(now, before)| {
        let used = now.cpu.saturating_sub(before.cpu).as_secs_f64();
        percent(used, now.at.saturating_duration_since(before.at).as_secs_f64())
    });
    json!({
        "Container": id,
        "ID": id,
        "Name": settings.name,
        "CPUPerc": cpu.unwrap_or_else(unknown),
        "MemUsage": memory.map_or_else(|| format!("{UNKNOWN} / {UNKNOWN}"), |memory| pair(Some(memory), binary)),
        "MemPerc": memory.map_or_else(unknown, |(used, limit)| percent(used as f64, limit as f64)),
        "NetIO": pair(sample.and_then(|sample| sample.network), size),
        "BlockIO": pair(sample.and_then(|sample| sample.block), size),
        "PIDs": sample.map_or_else(unknown, |sample| sample.pids.to_string()),
    })
}

/// Bytes in units of 1024, with four digits, as docker shows memory.
fn binary(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    #[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        v if v < 9.9995 => 3,
        v if v < 99.995 => 2,
        v if v < 999.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::settings::tests::plain;
    use super::*;

    #[test]
    fn memory_as_docker_shows_it() {
        let shown = [0, 500, 1024, 1_572_864, 10 << 20, 16_777_216_000].map(binary);
        assert_eq!(shown, ["0B", "500B", "1KiB", "1.5MiB", "10MiB", "15.62GiB"]);
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        let record = Record::new("/nowhere".into(), plain(&"ab".repeat(32), "x"));
        let at = Instant::now();
        let sample = |at, cpu| Sample {
            at,
            cpu: Duration::from_millis(cpu),
            memory: Some(1 << 20),
            limit: Some(4 << 20),
            network: Some((0, 1000)),
            block: None,
            pids: 3,
        };
        let (before, now) = (sample(at, 500), sample(at + Duration::from_secs(2), 1500));
        let row = row(&record, Some(&now), Some(&before), false);
        for (field, text) in [
            ("ID", "abababababab"),
            ("CPUPerc", "50.00%"),
            ("MemUsage", "1MiB / 4MiB"),
            ("MemPerc", "25.00%"),
            ("NetIO", "0B / 1kB"),
            ("BlockIO", "--"),
            ("PIDs", "3"),
        ] {
            assert_eq!(row[field], text, "{field}");
        }
        let stopped = super::row(&record, None, None, true);
        assert_eq!(
            (&stopped["CPUPerc"], &stopped["MemUsage"], &stopped["ID"]),
            (&json!("--"), &json!("-- / --"), &json!("ab".repeat(32)))
        );
        let table = show(&[stopped], Some(&Template::parse(TABLE).unwrap())).unwrap();
        assert!(table[0].starts_with(b"CONTAINER ID"), "{:?}", String::from_utf8_lossy(&table[0]));
    }
}
