//! `-e` and `--env-file`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Bytes of an --env-file that are read.
const MAX_FILE: u64 = 4 * 1024 * 1024;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What docker says of a terminal that it makes.
pub(crate) const TERM: &str = "xterm";

/// Options of the environment.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct EnvironmentArgs {
    /// Set a variable; without =VALUE, as it is here, if it is
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

impl EnvironmentArgs {
    /// Everything that is set here; what is no text cannot be handed on.
    pub(crate) fn inherited() -> Self {
        let pairs = std::env::vars_os().filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            (!name.is_empty() && !name.starts_with("LAMEL_")).then(|| format!("{name}={value}"))
        });
        Self { env: pairs.collect(), env_file: Vec::new() }
    }

    /// The container's variables: those of docker, over them the image's, and over these what was asked for. HOME is
    /// left to who knows the user, unless it is among them.
    pub(crate) fn resolve(&self, hostname: &str, image: &[String], tty: bool) -> Result<Vec<String>> {
        let mut variables =
            BTreeMap::from([("PATH".to_owned(), PATH.to_owned()), ("HOSTNAME".to_owned(), hostname.to_owned())]);
        if tty {
            variables.insert("TERM".to_owned(), TERM.to_owned());
        }
        // An image says what it says: nothing of this environment goes in by its words.
        for (name, value) in
            image.iter().filter_map(|variable| variable.split_once('=')).filter(|pair| !pair.0.is_empty())
        {
            variables.insert(name.to_owned(), value.to_owned());
        }
        self.over(variables)
    }

    /// What was asked for, on top of these.
    pub(crate) fn over(&self, mut variables: BTreeMap<String, String>) -> Result<Vec<String>> {
        for path in &self.env_file {
            let text = read(path).with_context(|| format!("--env-file {}", path.display()))?;
            for (number, line) in text.lines().enumerate() {
                let line = line.trim_start();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let name = line.split('=').next().unwrap_or_default();
                if name.contains(char::is_whitespace) {
                    bail!("--env-file {}: line {}: white space in the name {name:?}", path.display(), number + 1);
                }
                set(&mut variables, line).with_context(|| format!("--env-file {}", path.display()))?;
            }
        }
        for variable in &self.env {
            set(&mut variables, variable).context("-e")?;
        }
        Ok(variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
    }
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        bail!("more than {MAX_FILE} bytes");
    }
    Ok(text)
}

fn set(variables: &mut BTreeMap<String, String>, text: &str) -> Result<()> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, std::env::var(text).ok()),
    };
    if name.is_empty() {
        bail!("a variable without a name: {text:?}");
    }
    match value {
        Some(value) => drop(variables.insert(name.to_owned(), value)),
        None => drop(variables.remove(name)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_after_files_and_files_after_defaults() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("env");
        std::fs::write(&file, "# comment\n\nA=file\n  B=2 3\nPATH=/mine\nLAMEL_NOT_SET\n").unwrap();
        let args = EnvironmentArgs {
            env: vec!["A=option=x".to_owned(), "CARGO_PKG_NAME".to_owned()],
            env_file: vec![file.clone()],
        };
        let image = ["B=image", "PATH=/image", "TERM=image", "=x", "CARGO_PKG_NAME"].map(str::to_owned);
        let environment = args.resolve("h", &image, true).unwrap();
        let wanted = ["A=option=x", "B=2 3", "HOSTNAME=h", "PATH=/mine", "TERM=image"];
        let got: Vec<&str> = environment.iter().map(String::as_str).filter(|v| !v.starts_with("CARGO")).collect();
        assert_eq!(got, wanted);
        std::fs::write(&file, "A B=1\n").unwrap();
        assert!(args.resolve("h", &[], false).is_err());
        assert!(EnvironmentArgs { env: vec!["=x".to_owned()], ..Default::default() }.resolve("h", &[], false).is_err());
    }
}
