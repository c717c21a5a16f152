//! `lamel logs`

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::net::RecvFlags;

use super::control;
use super::log::Entry;
use super::record::Record;
use super::settings::LogDriver;
use super::wire::{self, Buffer, Line, Stream};
use crate::image::StoreArgs;

/// The longest line of the log that is read; a monitor writes none so long.
const MAX_LINE: u64 = 64 * 1024;
/// How much of the log's end is read first for its last lines.
const TAIL: u64 = 64 * 1024;

/// Show what a container wrote to its standard output and standard error
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Go on with what comes, until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only this many of the last lines, or all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all")]
    tail: String,
    /// Only what came since this time, or so long ago, as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what came before this time, or so long ago
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Its name or id
    container: String,
}

/// Shows.
pub(super) fn run(args: &Args) -> Result<()> {
    let record = super::containers(&args.store)?.find(&args.container)?;
    if record.settings.log_driver == LogDriver::None {
        bail!("container {} keeps no log (--log-driver none)", record.settings.name);
    }
    let now = Timestamp::now();
    let time = |text: &Option<String>| text.as_deref().map(|text| super::time::parse(text, now)).transpose();
    let mut printer = Printer {
        since: time(&args.since)?,
        until: time(&args.until)?,
        timestamps: args.timestamps,
        fresh: [true; 2],
        out: BufWriter::new(io::stdout()),
        err: BufWriter::new(io::stderr()),
    };
    // Reached before the first look, so that nothing is missed in between.
    let watch = if args.follow { Some(Watch::new(&record)?) } else { None };
    let mut file = match File::open(record.log()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| record.log().display().to_string()),
    };
    match args.tail.as_str() {
        "all" => {}
        text => {
            let lines = text.parse().with_context(|| format!("--tail {text}: a number, or all"))?;
            let start = tail(&mut file, lines).with_context(|| record.log().display().to_string())?;
            file.seek(SeekFrom::Start(start))?;
        }
    }
    let shown = show(file, &record.log(), &mut printer, watch);
    match shown {
        // `lamel logs … | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("the log"),
    }
}

fn show(file: File, path: &Path, printer: &mut Printer, mut watch: Option<Watch>) -> io::Result<()> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    // Another file has taken the place of the one that is read.
    let mut replaced = false;
    loop {
        // What is there when the end is seen is all there is.
        let ended = watch.as_ref().is_none_or(Watch::has_ended);
        loop {
            let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
            if line.last() == Some(&b'\n') {
                line.pop();
                if !printer.print(&line)? {
                    return Ok(());
                }
                line.clear();
            } else if read == 0 && replaced {
                line.clear();
                if let Some(watch) = &watch {
                    watch.add(path)?;
                }
                (reader, replaced) = (BufReader::new(File::open(path)?), false);
            } else if read == 0 {
                replaced = !is_at(reader.get_ref(), path)?;
                if !replaced {
                    break;
                }
                // What was written before that is still to be read.
            }
        }
        printer.flush()?;
        if ended {
            return Ok(());
        }
        if let Some(watch) = &mut watch {
            watch.wait();
        }
    }
}

/// Whether a file is still the one at its path; a log that is gone is not replaced.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let here = file.metadata()?;
    Ok(std::fs::metadata(path).map_or(true, |there| (there.dev(), there.ino()) == (here.dev(), here.ino())))
}

struct Printer {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    timestamps: bool,
    /// Whether a line begins, of either stream.
    fresh: [bool; 2],
    out: BufWriter<io::Stdout>,
    err: BufWriter<io::Stderr>,
}

impl Printer {
    /// `false`: what comes is later than what is wanted.
    fn print(&mut self, line: &[u8]) -> io::Result<bool> {
        // What a full disk cut off is no line.
        let Some(entry) = Entry::parse(line) else { return Ok(true) };
        if self.since.is_some() || self.until.is_some() {
            let Some(time) = entry.timestamp() else { return Ok(true) };
            if self.until.is_some_and(|until| time >= until) {
                return Ok(false);
            }
            if self.since.is_some_and(|since| time < since) {
                return Ok(true);
            }
        }
        let fresh = &mut self.fresh[usize::from(entry.stream == Stream::Err)];
        let to: &mut dyn Write = match entry.stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        if self.timestamps && *fresh {
            write!(to, "{} ", entry.time)?;
        }
        *fresh = entry.whole;
        to.write_all(entry.text)?;
        if entry.whole {
            to.write_all(b"\n")?;
        }
        Ok(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }
}

/// Where the last `wanted` lines begin.
fn tail(file: &mut File, wanted: usize) -> io::Result<u64> {
    let len = file.metadata()?.len();
    if wanted == 0 {
        return Ok(len);
    }
    let mut size = TAIL;
    loop {
        let from = len.saturating_sub(size);
        file.seek(SeekFrom::Start(from))?;
        let mut data = Vec::new();
        (&*file).take(len - from).read_to_end(&mut data)?;
        // Where lines end, the last ones; a line of several parts ends with the last.
        let mut ends: VecDeque<u64> = VecDeque::new();
        let mut at = from;
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            at += line.len() as u64;
            let whole = Entry::parse(line.strip_suffix(b"\n").unwrap_or(line)).is_none_or(|entry| entry.whole);
            if whole || at == len {
                ends.push_back(at);
            }
            if ends.len() > wanted + 1 {
                ends.pop_front();
            }
        }
        if ends.len() > wanted {
            return Ok(ends.front().copied().unwrap_or(0));
        }
        if from == 0 {
            return Ok(0);
        }
        size = size.saturating_mul(4);
    }
}

/// Tells when there is more, and when there will be no more.
struct Watch {
    changes: OwnedFd,
    monitor: Option<Line>,
    buffer: Buffer,
}

impl Watch {
    fn new(record: &Record) -> Result<Self> {
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let watch = Self { changes, monitor: control::connect(record)?, buffer: Buffer::new() };
        watch.add(&record.log()).context("inotify")?;
        Ok(watch)
    }

    fn add(&self, log: &Path) -> io::Result<()> {
        // One whose place another one takes loses its name.
        let changes = inotify::WatchFlags::MODIFY | inotify::WatchFlags::ATTRIB;
        match inotify::add_watch(&self.changes, log, changes) {
            // One that was never started has none yet.
            Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn has_ended(&self) -> bool {
        self.monitor.is_none()
    }

    fn wait(&mut self) {
        let Some(line) = &self.monitor else { return };
        let mut fds = [
            PollFd::from_borrowed_fd(self.changes.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(line.0.as_fd(), PollFlags::IN),
        ];
        poll(&mut fds, None).ok();
        let mut events = [0; 4096];
        while rustix::io::read(&self.changes, &mut events).is_ok_and(|len| len > 0) {}
        // It says nothing but by hanging up.
        if wire::receive(&line.0, &mut self.buffer, RecvFlags::DONTWAIT).is_ok_and(<[u8]>::is_empty) {
            self.monitor = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_begin_where_those_before_end() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let time = "2026-01-02T03:04:05.500000000Z";
        let lines: Vec<String> =
            (0..5000).map(|n| format!("{time} stdout {} {n}\n", if n % 3 == 0 { "P" } else { "F" })).collect();
        std::fs::write(&path, lines.concat()).unwrap();
        let mut file = File::open(&path).unwrap();
        let mut from = |wanted| {
            let at = tail(&mut file, wanted).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            text[usize::try_from(at).unwrap()..].lines().count()
        };
        // 4999 is whole, 4998 a part of it, 4997 whole, 4996 too, 4995 a part of that.
        assert_eq!((from(0), from(1), from(2), from(3)), (0, 2, 3, 5));
        assert_eq!((from(3000), from(100_000)), (4500, 5000));
    }
}
