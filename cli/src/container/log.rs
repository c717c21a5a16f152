//! The file `log`: what a container wrote to its standard streams, as Kubernetes has it.
//!
//! `TIME STREAM F TEXT` is a line, `TIME STREAM P TEXT` a part of one that goes on in the next part of its stream.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::wire::Stream;

/// Writes the log. What cannot be written is lost: the container goes on.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<File>,
    path: PathBuf,
    /// Bytes in it.
    len: u64,
    /// Bytes that it may have; then it is begun anew, as podman does.
    most: Option<u64>,
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
        Self { file: None, path: PathBuf::new(), len: 0, most: None, failed: false }
    }

    /// Goes on with the log at a path.
    pub(super) fn open(path: &Path, most: Option<u64>) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file: Some(file), path: path.to_owned(), len, most, failed: false })
    }

    /// Begins anew. Who reads the old file goes on in it to its end, and finds the new one in its place.
    fn begin_anew(&mut self) -> std::io::Result<()> {
        let draft = self.path.with_extension("new");
        let file = OpenOptions::new().create(true).append(true).open(&draft)?;
        file.set_len(0)?;
        fs::rename(&draft, &self.path)?;
        (self.file, self.len) = (Some(file), 0);
        Ok(())
    }

    /// Adds what was read of a stream at once.
    pub(super) fn write(&mut self, stream: Stream, data: &[u8]) {
        if self.file.is_none() {
            return;
        }
        let lines = encode(Timestamp::now(), stream, data);
        let is_full = self.most.is_some_and(|most| self.len > 0 && self.len + lines.len() as u64 > most);
        if is_full && let Err(error) = self.begin_anew() {
            tracing::error!("the container's log grows beyond its size: {error}");
        }
        let Some(file) = &mut self.file else { return };
        self.len += lines.len() as u64;
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
    fn a_log_has_its_size_and_what_came_last() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let mut log = Log::open(&path, Some(200)).unwrap();
        for n in 0..100 {
            log.write(Stream::Out, format!("{n}\n").as_bytes());
            assert!(fs::metadata(&path).unwrap().len() <= 200);
        }
        assert!(fs::read_to_string(&path).unwrap().ends_with("stdout F 99\n"));
        // Gone on with, it is as long as it is; one piece may be longer than all.
        let before = fs::metadata(&path).unwrap().len();
        let mut log = Log::open(&path, Some(before)).unwrap();
        log.write(Stream::Err, &[b'x'; 500]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() > 500 && text.lines().count() == 1, "{text}");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_no_fault() {
        let mut log = Log::open(Path::new("/dev/full"), None).unwrap();
        log.write(Stream::Out, b"x\n");
        assert!(log.failed);
        Log::none().write(Stream::Out, b"x\n");
    }
}
