//! `lamel events`, and the file `events`: what happened to containers, a JSON object a line.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::records::Containers;
use super::settings::Settings;
use crate::image::StoreArgs;
use crate::output::print;
use crate::output::template::Template;

/// Bytes of the file, after which a new one is begun and the one before the last forgotten.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) time: Timestamp,
    /// `container`, `volume`, `network`.
    pub(crate) kind: String,
    pub(crate) action: String,
    pub(crate) id: String,
    /// Of a container: its name, image and labels, and what belongs to the action.
    pub(crate) attributes: BTreeMap<String, String>,
}

/// Writes down what happened to a container. Where that fails, it has happened all the same.
pub(crate) fn add(containers: &Containers, action: &str, settings: &Settings, more: &[(&str, String)]) {
    let mut attributes = settings.labels.clone();
    attributes.insert("name".to_owned(), settings.name.clone());
    attributes.insert("image".to_owned(), settings.image_name());
    attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let event = Event {
        time: Timestamp::now(),
        kind: "container".to_owned(),
        action: action.to_owned(),
        id: settings.id.clone(),
        attributes,
    };
    if let Err(error) = write(containers, &event) {
        tracing::warn!("the event {action} is not written down: {error:#}");
    }
}

/// Adds a line. It is whole: the file is locked meanwhile.
pub(crate) fn write(containers: &Containers, event: &Event) -> Result<()> {
    let path = containers.events();
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    loop {
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        if file.metadata()?.len() < MAX_FILE {
            return Ok(file.write_all(&line)?);
        }
        // Who waits for the lock then writes one line more into the old file, which is as well.
        fs::rename(&path, path.with_extension("old"))?;
    }
}

/// Show what happens to containers, as it happens
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Begin with what happened since this time, or so long ago, as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End with what happened before this time, or so long ago
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// type=, event=, container=, image=, label=; what is given twice need fit once, different ones all
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `json`, one object a line, or a template such as '{{.Action}} {{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Shows.
pub(super) fn run(args: &Args) -> Result<()> {
    let containers = super::containers(&args.store)?;
    let now = Timestamp::now();
    let time = |text: &Option<String>| text.as_deref().map(|text| super::time::parse(text, now)).transpose();
    let (since, until) = (time(&args.since)?, time(&args.until)?);
    let template = args.format.as_deref().filter(|format| *format != "json").map(Template::parse).transpose()?;
    let filters: Vec<(&str, &str)> = args
        .filter
        .iter()
        .map(|text| text.split_once('=').with_context(|| format!("--filter {text}: KEY=VALUE")))
        .collect::<Result<_>>()?;
    if let Some((key, _)) = filters.iter().find(|(key, _)| !KEYS.contains(key)) {
        bail!("no filter {key:?}; there are: {}", KEYS.join(" "));
    }
    let mut reader = Reader::new(containers.events(), since.is_some());
    loop {
        for event in reader.read()? {
            if until.is_some_and(|until| event.time >= until) {
                return Ok(());
            }
            if since.is_some_and(|since| event.time < since) || !event.fits(&filters) {
                continue;
            }
            let line = match (&template, args.format.is_some()) {
                (Some(template), _) => template.render(&event.fields())?,
                (None, true) => event.fields().to_string(),
                (None, false) => event.to_string(),
            };
            print([line.into_bytes()])?;
        }
        if until.is_some_and(|until| Timestamp::now() >= until) {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

const KEYS: [&str; 5] = ["type", "event", "container", "image", "label"];
/// How often it is looked whether something has happened.
const PAUSE: Duration = Duration::from_millis(100);

impl Event {
    /// Whether it passes: of each kind of filter one, but all labels.
    fn fits(&self, filters: &[(&str, &str)]) -> bool {
        let attribute = |key: &str| self.attributes.get(key).map_or("", String::as_str);
        let passes = |key: &str, value: &str| match key {
            "type" => self.kind == value,
            "event" => self.action == value,
            "container" => attribute("name") == value || self.id.starts_with(value),
            "image" => attribute("image") == value,
            _ => match value.split_once('=') {
                Some((key, value)) => self.attributes.get(key).is_some_and(|found| found == value),
                None => self.attributes.contains_key(value),
            },
        };
        KEYS.iter().all(|key| {
            let mut of_kind = filters.iter().filter(|(other, _)| other == key).peekable();
            match (of_kind.peek(), *key) {
                (None, _) => true,
                (_, "label") => of_kind.all(|(_, value)| passes(key, value)),
                _ => of_kind.any(|(_, value)| passes(key, value)),
            }
        })
    }

    fn fields(&self) -> Value {
        json!({
            "Type": self.kind,
            "Action": self.action,
            "Status": self.action,
            "ID": self.id,
            "Name": self.attributes.get("name"),
            "Image": self.attributes.get("image"),
            "Actor": { "ID": self.id, "Attributes": self.attributes },
            "Time": self.time.as_second(),
            "TimeNano": i64::try_from(self.time.as_nanosecond()).unwrap_or(i64::MAX),
        })
    }
}

/// As docker prints one.
impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.9} {} {} {} (", self.time, self.kind, self.action, self.id)?;
        for (at, (key, value)) in self.attributes.iter().enumerate() {
            write!(f, "{}{key}={value}", if at > 0 { ", " } else { "" })?;
        }
        f.write_str(")")
    }
}

/// Reads events as they come, over the end of one file and the beginning of the next.
struct Reader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// What was read of a line whose end is still to come.
    part: Vec<u8>,
    /// The files of before are still to be read.
    past: bool,
    /// What is there already does not count.
    skip: bool,
}

impl Reader {
    fn new(path: PathBuf, past: bool) -> Self {
        let mut reader = Self { path, file: None, part: Vec::new(), past, skip: !past };
        reader.open();
        reader
    }

    fn open(&mut self) {
        let old = self.path.with_extension("old");
        let file = if std::mem::take(&mut self.past) {
            File::open(old).or_else(|_| File::open(&self.path))
        } else {
            File::open(&self.path)
        };
        self.file = file.ok().map(|mut file| {
            if std::mem::take(&mut self.skip) {
                file.seek(SeekFrom::End(0)).ok();
            }
            BufReader::new(file)
        });
        // A file that is made later is new from its first line.
        self.skip = false;
    }

    /// What has come since the last time.
    fn read(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        loop {
            let Some(file) = &mut self.file else {
                self.open();
                if self.file.is_none() {
                    return Ok(events);
                }
                continue;
            };
            let read = file.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.part)?;
            if self.part.last() == Some(&b'\n') {
                events.extend(serde_json::from_slice::<Event>(&self.part).ok());
                self.part.clear();
            } else if read == 0 {
                let here = file.get_ref().metadata()?;
                match fs::metadata(&self.path) {
                    // Another one was begun.
                    Ok(now) if (now.dev(), now.ino()) != (here.dev(), here.ino()) => {
                        self.file = None;
                        self.part.clear();
                    }
                    _ => return Ok(events),
                }
            }
        }
    }
}

/// The longest line that is read at once.
const MAX_LINE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::super::settings::tests::plain;
    use super::*;

    #[test]
    fn what_is_written_is_read_also_over_a_change_of_files() {
        let place = tempfile::tempdir().unwrap();
        let containers = Containers::open(place.path()).unwrap();
        let mut settings = plain(&"ab".repeat(32), "x");
        settings.labels.insert("k".to_owned(), "v".to_owned());
        add(&containers, "create", &settings, &[]);
        let mut reader = Reader::new(containers.events(), true);
        let mut later = Reader::new(containers.events(), false);
        add(&containers, "die", &settings, &[("exitCode", "3".to_owned())]);
        let actions = |events: Vec<Event>| events.into_iter().map(|event| event.action).collect::<Vec<_>>();
        assert_eq!(actions(reader.read().unwrap()), ["create", "die"]);
        OpenOptions::new().write(true).open(containers.events()).unwrap().set_len(MAX_FILE).unwrap();
        add(&containers, "start", &settings, &[]);
        assert!(containers.events().with_extension("old").exists());
        assert_eq!(actions(later.read().unwrap()), ["die", "start"]);
        assert_eq!(actions(reader.read().unwrap()), ["start"]);
    }

    #[test]
    fn filters_of_a_kind_are_alternatives() {
        let attributes =
            BTreeMap::from([("name", "x"), ("image", "bb"), ("k", "v")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        let event = Event {
            time: Timestamp::UNIX_EPOCH,
            kind: "container".to_owned(),
            action: "die".to_owned(),
            id: "ab".repeat(32),
            attributes,
        };
        assert!(event.fits(&[]) && event.fits(&[("event", "start"), ("event", "die")]));
        assert!(event.fits(&[("container", "x"), ("label", "k=v")]) && event.fits(&[("container", "abab")]));
        assert!(!event.fits(&[("event", "die"), ("image", "other")]) && !event.fits(&[("label", "k"), ("label", "l")]));
        assert!(event.to_string().ends_with("(image=bb, k=v, name=x)"), "{event}");
    }
}
