//! The commands that speak to registries, and what they share: their options, and how they tell of blobs on their way.

pub(crate) mod login;
pub(crate) mod pull;
pub(crate) mod push;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lamel_image::digest::Digest;
use lamel_image::reference::Reference;
use lamel_image::registry::{Credential, Options, Registries, Retry, Secret, Security, Step};

use crate::output::human::size;

/// How the registry is spoken to.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Registry")]
struct HostArgs {
    /// Speak http alone
    #[arg(long, conflicts_with = "tls_verify")]
    plain_http: bool,
    /// Whether only https with a certificate that the system trusts will do; if not, http will too
    /// [default: true, but false for localhost and where registries.conf says insecure]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
    /// The file of credentials [default: $REGISTRY_AUTH_FILE, else those of podman and docker]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

/// How images are transferred.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Registry")]
struct TransferArgs {
    #[command(flatten)]
    host: HostArgs,
    /// Name and password for this time alone; without the password, it is asked for
    #[arg(long, value_name = "NAME[:PASSWORD]")]
    creds: Option<Creds>,
    /// How often what fails for a moment is tried again
    #[arg(long, value_name = "N", default_value_t = Retry::default().retries)]
    retry: u32,
    /// The wait before it is tried again for the first time, which then doubles
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "500ms")]
    retry_delay: Duration,
    /// Print the digest alone
    #[arg(short, long)]
    quiet: bool,
}

/// Credentials of the command line, which are not shown.
#[derive(Debug, Clone)]
enum Creds {
    Whole(Credential),
    Name(String),
}

/// Any text will do: of one that will not, clap would show all.
impl From<&str> for Creds {
    fn from(text: &str) -> Self {
        match text.contains(':') {
            true => Self::Whole(Credential::parse(text)),
            false => Self::Name(text.to_owned()),
        }
    }
}

/// Reads `10`, `1.5s`, `500ms` or `2m`; a bare number is of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("the units are ms, s, m and h"),
    };
    let number: f64 = number.parse().map_err(|_| "give a number with a unit, such as 500ms or 2s")?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| "no length of time")
}

impl HostArgs {
    /// The registries as these options want them.
    fn registries(&self) -> Result<Registries> {
        open(self.options())
    }

    fn options(&self) -> Options {
        let security = match (self.plain_http, self.tls_verify) {
            (true, _) => Some(Security::Plain),
            (false, Some(true)) => Some(Security::Verified),
            (false, Some(false)) => Some(Security::Insecure),
            (false, None) => None,
        };
        Options { security, authfile: self.authfile.clone(), ..Options::default() }
    }
}

impl TransferArgs {
    /// The registries as these options want them.
    fn registries(&self) -> Result<Registries> {
        let credential = match &self.creds {
            None => None,
            Some(Creds::Whole(credential)) => Some(credential.clone()),
            Some(Creds::Name(name)) => Some(Credential::password(name, &ask_password()?)?),
        };
        let retry = Retry { retries: self.retry, delay: self.retry_delay, ..Retry::default() };
        open(Options { credential, retry, ..self.host.options() })
    }
}

fn open(options: Options) -> Result<Registries> {
    Ok(Registries::new(options, &|name| std::env::var_os(name))?)
}

/// A name as it is given; podman's way to say that it is one on a registry may stand before it.
fn reference(text: &str) -> Result<Reference> {
    Ok(text.strip_prefix("docker://").unwrap_or(text).parse()?)
}

/// Asks the terminal for a password, which it does not show.
fn ask_password() -> Result<Secret> {
    let password = rpassword::prompt_password("Password: ");
    Ok(Secret::new(password.context("there is no terminal to ask for the password: give it by --password-stdin")?))
}

/// Tells of blobs on standard error: by bars on a terminal, by lines elsewhere, or not at all.
struct Teller {
    how: How,
    /// Held for as long as one step takes; nothing else is locked meanwhile.
    blobs: Mutex<BTreeMap<Digest, Blob>>,
}

enum How {
    Quietly,
    Lines,
    Bars(MultiProgress),
}

#[derive(Default)]
struct Blob {
    size: u64,
    /// What came or went this time.
    moved: u64,
    bar: Option<ProgressBar>,
}

impl Teller {
    fn new(quiet: bool) -> Self {
        let how = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => How::Quietly,
            (false, true) => How::Bars(MultiProgress::new()),
            (false, false) => How::Lines,
        };
        Self { how, blobs: Mutex::default() }
    }

    /// A line for people.
    fn say(&self, line: &str) {
        use std::io::Write as _;
        match &self.how {
            How::Quietly => {}
            How::Lines => drop(writeln!(std::io::stderr(), "{line}")),
            How::Bars(bars) => drop(bars.println(line)),
        }
    }

    /// One step of one blob; `done` is the word for one that was transferred.
    fn step(&self, digest: &Digest, step: Step, done: &str) {
        let mut blobs = self.blobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let blob = blobs.entry(*digest).or_default();
        let name = digest.short();
        match step {
            Step::Needed(bytes) => blob.size = bytes,
            Step::Present => self.say(&format!("{name}: already there")),
            Step::Mounted => self.say(&format!("{name}: mounted from another repository")),
            Step::Begun(at) => {
                blob.moved = 0;
                if at > 0 {
                    self.say(&format!("{name}: goes on after {} of {}", size(at), size(blob.size)));
                }
                if let How::Bars(bars) = &self.how {
                    let bar = blob.bar.take().unwrap_or_else(|| bars.add(new_bar(blob.size, &name)));
                    bar.set_position(at);
                    bar.reset_eta();
                    blob.bar = Some(bar);
                }
            }
            Step::Moved(count) => {
                blob.moved += count;
                if let Some(bar) = &blob.bar {
                    bar.inc(count);
                }
            }
            Step::Done => {
                if let Some(bar) = blob.bar.take() {
                    bar.finish_and_clear();
                }
                self.say(&format!("{name}: {done}, {}", size(blob.moved)));
            }
        }
    }
}

fn new_bar(len: u64, name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(len).with_prefix(name.to_owned());
    match style {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "1d", "-1s", "1e300h", "x"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let shown = format!("{:?}", Creds::from("me:hunter2"));
        assert!(shown.contains("me") && !shown.contains("hunter2"), "{shown}");
    }
}
