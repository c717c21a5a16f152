//! `lamel explain`

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::io::Errno;
use serde::Serialize;

use crate::image::{self, InsideArgs};
use crate::output::{OUTSIDE_ONLY, ask, is_foreign, print};

/// Tell which layer gives an object inside a mount or an image, and which ones it hides
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An object inside a mount, or a name that a layer deletes, a last link not followed; or REF:/PATH in an image.
    /// What exists, and what begins with `/` or `.`, is a path
    #[arg(value_name = "PATH|REF:PATH")]
    path: PathBuf,
    #[command(flatten)]
    inside: InsideArgs,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// The virtual xattr that answers.
const QUESTION: &str = "system.lamel.explain";

/// The daemon's answer: lines of a key and its values.
#[derive(Debug, Serialize)]
struct Answer {
    path: String,
    facts: Vec<Fact>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Fact {
    key: String,
    values: Vec<String>,
}

/// Explains.
pub(crate) fn run(args: &Args) -> Result<()> {
    let text = args.path.as_os_str();
    if text.as_encoded_bytes().windows(2).any(|pair| pair == b":/") && !image::is_path(text) {
        return image::explain::run(&args.inside, text, args.json);
    }
    let answer = match ask(&args.path, QUESTION) {
        Ok(answer) => answer,
        Err(errno @ (Errno::NOENT | Errno::IO | Errno::LOOP)) => explain_absence(&args.path, errno)?,
        Err(errno) if is_foreign(errno) => {
            bail!("{}: not inside a mount of lamel", args.path.display())
        }
        Err(Errno::PERM) => bail!("{}: {OUTSIDE_ONLY}", args.path.display()),
        Err(errno) => return Err(errno).with_context(|| args.path.display().to_string()),
    };
    let facts = parse(&String::from_utf8_lossy(&answer));
    if args.json {
        let answer = Answer { path: args.path.to_string_lossy().into_owned(), facts };
        return print([serde_json::to_vec_pretty(&answer)?]);
    }
    let mut lines = vec![args.path.display().to_string().into_bytes()];
    let width = facts.iter().map(|fact| fact.key.chars().count()).max().unwrap_or_default();
    lines.extend(facts.iter().map(|fact| format!("  {:width$}  {}", fact.key, fact.values.join("  ")).into_bytes()));
    print(lines)
}

/// Why nothing is there, or an error: its directory's daemon knows the whiteouts and the faults.
fn explain_absence(path: &Path, errno: Errno) -> Result<Vec<u8>> {
    let nothing = || Err(errno).with_context(|| path.display().to_string());
    let Some(name) = path.file_name() else { return nothing() };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut question = OsString::from(QUESTION);
    question.push("/");
    question.push(name);
    match ask(parent, &question) {
        Ok(answer) => Ok(answer),
        Err(Errno::PERM) => bail!("{}: {OUTSIDE_ONLY}", path.display()),
        Err(_) => nothing(),
    }
}

fn parse(answer: &str) -> Vec<Fact> {
    let fact = |line: &str| {
        let mut fields = line.split('\t').map(str::to_owned);
        Some(Fact { key: fields.next()?, values: fields.collect() })
    };
    answer.lines().filter(|line| !line.is_empty()).filter_map(fact).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_facts() {
        let fact = |key: &str, values: &[&str]| Fact {
            key: key.to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        assert_eq!(parse("layer\t0\t/u\nopaque\n\n"), [fact("layer", &["0", "/u"]), fact("opaque", &[])]);
        assert_eq!(parse(""), []);
    }
}
