//! The file `log`: what a container wrote to its standard streams, as Kubernetes has it.
//!
//! `TIME STREAM F TEXT` is a line, `TIME STREAM P TEXT` a part of one that goes on in the next part of its stream.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use jiff::Timestamp;

use super::wire::Stream;

/// Writes the log. What cannot be written is lost: the container goes on.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<File>,
    failed: bool,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Out => "stdout",
            Self::Err => "stderr",
        }
    }
}

impl Log {
    /// No log is kept.
    pub(super) fn none() -> Self {
        Self { file: None, failed: false }
    }

    /// Goes on with the log at a path.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self { file: Some(OpenOptions::new().create(true).append(true).open(path)?), failed: false })
    }

    /// Adds what was read of a stream at once.
    pub(super) fn write(&mut self, stream: Stream, data: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let lines = encode(Timestamp::now(), stream, data);
        match file.write_all(&lines) {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::error!("the container's log cannot be written, and misses what comes now: {error}");
            }
            Err(_) => {}
        }
    }
}

/// A time as every line has it: of one length, so that lines sort.
fn stamp(time: Timestamp) -> String {
    format!("{time:.9}")
}

fn encode(time: Timestamp, stream: Stream, data: &[u8]) -> Vec<u8> {
    let time = stamp(time);
    let mut lines = Vec::with_capacity(data.len() + 64);
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let (tag, text) = match line.split_last() {
            Some((b'\n', text)) => ("F", text),
            _ => ("P", line),
        };
        lines.extend_from_slice(format!("{time} {} {tag} ", stream.name()).as_bytes());
        lines.extend_from_slice(text);
        lines.push(b'\n');
    }
    lines
}

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) time: &'a str,
    pub(super) stream: Stream,
    /// Whether the line ends with it.
    pub(super) whole: bool,
    pub(super) text: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads a line without its end.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Out,
            b"stderr" => Stream::Err,
            _ => return None,
        };
        let whole = match parts.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { time, stream, whole, text: parts.next()? })
    }

    pub(super) fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_or_parts() {
        let time: Timestamp = "2026-01-02T03:04:05.5Z".parse().unwrap();
        let lines = encode(time, Stream::Err, b"one\n\ntwo");
        let wanted = "2026-01-02T03:04:05.500000000Z stderr F one\n2026-01-02T03:04:05.500000000Z stderr F \n\
                      2026-01-02T03:04:05.500000000Z stderr P two\n";
        assert_eq!(String::from_utf8(lines.clone()).unwrap(), wanted);
        let read: Vec<(bool, &[u8])> = lines
            .split(|byte| *byte == b'\n')
            .filter_map(Entry::parse)
            .map(|entry| (entry.whole, entry.text))
            .collect();
        assert_eq!(read, [(true, &b"one"[..]), (true, b""), (false, b"two")]);
        assert_eq!(
            Entry::parse(wanted.as_bytes().split(|b| *b == b'\n').next().unwrap()).unwrap().timestamp(),
            Some(time)
        );
        for junk in [&b""[..], b"x stdout F", b"x stdin F y", b"x stdout Q y"] {
            assert_eq!(Entry::parse(junk), None);
        }
    }

    #[test]
    fn a_log_that_cannot_be_written_is_no_fault() {
        let mut log = Log::open(Path::new("/dev/full")).unwrap();
        log.write(Stream::Out, b"x\n");
        assert!(log.failed);
        Log::none().write(Stream::Out, b"x\n");
    }
}
