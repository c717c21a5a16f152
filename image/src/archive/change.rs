//! `--change`: how an image is run, in instructions of a Dockerfile.

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::manifest::RunConfig;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `CMD`
    Cmd(Vec<String>),
    /// `ENTRYPOINT`
    Entrypoint(Vec<String>),
    /// `ENV`
    Env(Vec<(String, String)>),
    /// `EXPOSE`
    Expose(Vec<String>),
    /// `LABEL`
    Label(Vec<(String, String)>),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
}

/// A text that is no such instruction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?}: give one of CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR with its value, such as \
     'CMD [\"sh\"]' or 'ENV KEY=VALUE'"
)]
pub struct ChangeError(String);

impl FromStr for Change {
    type Err = ChangeError;

    fn from_str(text: &str) -> Result<Self, ChangeError> {
        let fail = || ChangeError(text.to_owned());
        // podman takes KEY=VALUE as well as KEY VALUE.
        let (word, value) = text.trim().split_once([' ', '\t', '=']).ok_or_else(fail)?;
        let value = value.trim();
        if value.is_empty() {
            return Err(fail());
        }
        match word.to_ascii_uppercase().as_str() {
            "CMD" => Ok(Self::Cmd(command(value))),
            "ENTRYPOINT" => Ok(Self::Entrypoint(command(value))),
            "ENV" => pairs(value).map(Self::Env).ok_or_else(fail),
            "LABEL" => pairs(value).map(Self::Label).ok_or_else(fail),
            "EXPOSE" => ports(value).map(Self::Expose).ok_or_else(fail),
            "VOLUME" => list(value).or_else(|| words(value)).map(Self::Volume).ok_or_else(fail),
            "STOPSIGNAL" => Ok(Self::StopSignal(value.to_owned())),
            "USER" => Ok(Self::User(value.to_owned())),
            "WORKDIR" if value.starts_with('/') => Ok(Self::Workdir(value.to_owned())),
            "WORKDIR" => Ok(Self::Workdir(format!("/{value}"))),
            _ => Err(fail()),
        }
    }
}

impl Change {
    /// Applies it.
    pub fn apply(&self, config: &mut RunConfig) {
        match self {
            Self::Cmd(words) => config.cmd = words.clone(),
            Self::Entrypoint(words) => config.entrypoint = words.clone(),
            Self::Env(pairs) => {
                for (key, value) in pairs {
                    config.env.retain(|other| other.split_once('=').is_none_or(|(other, _)| other != key));
                    config.env.push(format!("{key}={value}"));
                }
            }
            Self::Expose(ports) => config.exposed_ports.extend(ports.iter().map(|key| empty(key))),
            Self::Label(pairs) => config.labels.extend(pairs.iter().cloned()),
            Self::StopSignal(signal) => config.stop_signal.clone_from(signal),
            Self::User(user) => config.user.clone_from(user),
            Self::Volume(paths) => config.volumes.extend(paths.iter().map(|key| empty(key))),
            Self::Workdir(path) => config.working_dir.clone_from(path),
        }
    }
}

/// Sets are maps of empty objects.
fn empty(key: &str) -> (String, Value) {
    (key.to_owned(), Value::Object(Map::new()))
}

/// A JSON array of strings.
fn list(value: &str) -> Option<Vec<String>> {
    serde_json::from_str(value).ok()
}

/// A JSON array, or a line for the shell.
fn command(value: &str) -> Vec<String> {
    list(value).unwrap_or_else(|| ["/bin/sh", "-c", value].map(str::to_owned).to_vec())
}

/// `KEY=VALUE …`, or one `KEY VALUE`.
fn pairs(value: &str) -> Option<Vec<(String, String)>> {
    let words = words(value)?;
    let first = words.first()?;
    if !first.contains('=') {
        let (key, value) = value.split_once([' ', '\t'])?;
        return Some(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    words.into_iter().map(pair).map(|pair| pair.filter(|(key, _)| !key.is_empty())).collect()
}

/// `PORT[/PROTOCOL] …`
fn ports(value: &str) -> Option<Vec<String>> {
    let port = |word: String| {
        let (port, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
        let number = port.parse::<u16>().ok().filter(|number| *number > 0)?;
        matches!(protocol, "tcp" | "udp" | "sctp").then(|| format!("{number}/{protocol}"))
    };
    words(value)?.into_iter().map(port).collect()
}

/// Words between blanks, as a Dockerfile quotes them.
fn words(value: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, ' ' | '\t') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (quote.is_none() && !words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_understood() {
        let mut config = RunConfig::default();
        for text in [
            "CMD [\"sh\", \"-c\", \"a b\"]",
            "entrypoint run it",
            "ENV A=1 B=\"x y\" C='\\'",
            "ENV=A=2",
            "ENV D some words",
            "LABEL a.b=\"c\\\"d\"",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/data\"]",
            "VOLUME /a /b",
            "USER 1000:1000",
            "WORKDIR srv",
            "STOPSIGNAL SIGINT",
        ] {
            text.parse::<Change>().unwrap().apply(&mut config);
        }
        assert_eq!(config.cmd, ["sh", "-c", "a b"]);
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "run it"]);
        assert_eq!(config.env, ["B=x y", "C=\\", "A=2", "D=some words"]);
        assert_eq!(config.labels["a.b"], "c\"d");
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/a", "/b", "/data"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("1000:1000", "/srv"));
        for text in ["", "CMD", "RUN x", "ENV", "ENV A", "ENV =x", "ENV A=\"x", "EXPOSE x", "EXPOSE 0", "EXPOSE 70000"]
        {
            assert!(text.parse::<Change>().is_err(), "{text:?}");
        }
    }
}
