//! `lamel doctor`

mod cgroup;
mod fuse;
mod kernel;
mod network;
mod probe;
mod store;
mod users;

use std::io::{self, IsTerminal as _};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::image::StoreArgs;
use crate::output::print;
use probe::Probe;

/// Show what this host allows, and what to do about what it does not
///
/// Where that is cheap and harmless it is found out by trying. The exit code is 1 if images cannot
/// be kept or mounted, or containers not be run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Try one thing, in a process that is used for nothing else
    #[arg(long, hide = true)]
    probe: Option<Probe>,
}

/// How far something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It works.
    Ok,
    /// It works in part, or something is slower or less comfortable without it.
    Limited,
    /// It does not work.
    Missing,
    /// It is no concern of lamel's, and is shown for those who ask.
    Unused,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    area: &'static str,
    name: &'static str,
    state: State,
    /// What was found.
    reason: String,
    /// What to do, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn new(area: &'static str, name: &'static str, state: State, reason: impl Into<String>) -> Self {
        Self { area, name, state, reason: reason.into(), fix: None }
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// What lamel is for, and whether it can be done here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Job {
    name: &'static str,
    works: bool,
}

#[derive(Debug, Serialize)]
struct Diagnosis {
    jobs: Vec<Job>,
    checks: Vec<Check>,
}

/// Each job, and the checks that none of which may be missing.
const JOBS: [(&str, &[&str]); 3] =
    [("keep images", &["writable"]), ("mount images", &["mounts"]), ("run containers", &["namespaces", "seccomp"])];

/// Looks.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(probe) = args.probe {
        return probe.run();
    }
    let diagnosis = Diagnosis::of(args)?;
    if args.json {
        print([serde_json::to_vec_pretty(&diagnosis)?])?;
    } else {
        print(diagnosis.text(io::stdout().is_terminal()))?;
    }
    let failed: Vec<&str> = diagnosis.jobs.iter().filter(|job| !job.works).map(|job| job.name).collect();
    if failed.is_empty() { Ok(()) } else { bail!("cannot {} here", failed.join(", ")) }
}

impl Diagnosis {
    fn of(args: &Args) -> Result<Self> {
        let mut checks = fuse::checks();
        checks.extend(kernel::checks());
        checks.extend(users::checks());
        checks.extend(cgroup::checks());
        checks.extend(network::checks());
        checks.extend(store::checks(&args.store.path()?));
        Ok(Self { jobs: jobs(&checks), checks })
    }

    fn text(&self, terminal: bool) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut area = "";
        let width = self.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        for check in &self.checks {
            if check.area != area {
                if !area.is_empty() {
                    lines.push(String::new());
                }
                area = check.area;
                lines.push(area.to_owned());
            }
            let (word, colour) = match check.state {
                State::Ok => ("ok", "32"),
                State::Limited => ("limited", "33"),
                State::Missing => ("missing", "31"),
                State::Unused => ("unused", "2"),
            };
            let word = if terminal { format!("\x1b[{colour}m{word:7}\x1b[0m") } else { format!("{word:7}") };
            lines.push(format!("  {word}  {:width$}  {}", check.name, check.reason).trim_end().to_owned());
            lines.extend(check.fix.iter().map(|fix| format!("  {:7}  {:width$}  → {fix}", "", "")));
        }
        lines.push(String::new());
        lines.extend(self.jobs.iter().map(|job| format!("{}: {}", job.name, if job.works { "yes" } else { "no" })));
        // A reason may hold a path, or what a program said.
        let plain = |line: String| if terminal { line } else { line.replace(char::is_control, " ") };
        lines.into_iter().map(|line| plain(line).into_bytes()).collect()
    }
}

fn jobs(checks: &[Check]) -> Vec<Job> {
    let missing = |name: &&str| checks.iter().any(|check| check.name == *name && check.state == State::Missing);
    JOBS.iter().map(|(name, needed)| Job { name, works: !needed.iter().any(missing) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_needs_what_it_needs() {
        let mut checks = vec![
            Check::new("a", "writable", State::Ok, ""),
            Check::new("a", "mounts", State::Limited, ""),
            Check::new("b", "namespaces", State::Missing, "why").fix("do"),
        ];
        let works = |checks: &[Check]| jobs(checks).iter().map(|job| job.works).collect::<Vec<_>>();
        assert_eq!(works(&checks), [true, true, false]);
        checks[1].state = State::Missing;
        assert_eq!(works(&checks), [true, false, false]);
        let text = Diagnosis { jobs: jobs(&checks), checks }.text(false);
        let text: Vec<String> = text.into_iter().map(|line| String::from_utf8(line).unwrap()).collect();
        assert!(text.contains(&"  missing  namespaces  why".to_owned()), "{text:?}");
        assert!(text.contains(&"                       → do".to_owned()), "{text:?}");
        assert_eq!(text.last().unwrap(), "run containers: no");
    }
}
