//! Programs that keep credentials: `docker-credential-NAME get|store|erase`.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::{Credential, CredentialsError, Secret, TOKEN_NAME};
use crate::registry::error::shown;

/// The longest answer that is read.
const MAX_ANSWER: u64 = 64 << 10;
/// What helpers say of a registry that they know nothing of.
const NOT_FOUND: &str = "credentials not found";

/// A program of the host.
pub(super) struct Helper<'a> {
    name: &'a str,
    program: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl<'a> Helper<'a> {
    /// Looks for a helper in these directories; `file` is what names it.
    pub(super) fn find(name: &'a str, path: &[PathBuf], file: &Path) -> Result<Self, CredentialsError> {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        let file_name = format!("docker-credential-{name}");
        let is_program = |program: &PathBuf| {
            std::fs::metadata(program).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        let found = path.iter().filter(|_| plain).map(|dir| dir.join(&file_name)).find(is_program);
        let missing = || CredentialsError::NoHelper(shown(name), file.to_owned());
        found.map(|program| Self { name, program }).ok_or_else(missing)
    }

    pub(super) fn get(&self, server: &str) -> Result<Option<Credential>, CredentialsError> {
        let answer = match self.run("get", server)? {
            Ok(answer) => answer,
            Err(reason) if reason.contains(NOT_FOUND) => return Ok(None),
            Err(reason) => return Err(self.failed(&reason)),
        };
        // An answer that cannot be read may hold a secret: it is not shown.
        let answer: Answer =
            serde_json::from_slice(&answer).map_err(|_| self.failed("its answer is no JSON of a name and a secret"))?;
        let secret = Secret::new(answer.secret);
        Ok(Some(match answer.username.as_str() {
            TOKEN_NAME => Credential::Identity(secret),
            _ => Credential::Password { name: answer.username, password: secret },
        }))
    }

    pub(super) fn store(&self, server: &str, name: &str, password: &Secret) -> Result<(), CredentialsError> {
        let entry = serde_json::json!({"ServerURL": server, "Username": name, "Secret": password.reveal()});
        self.run("store", &entry.to_string())?.map(drop).map_err(|reason| self.failed(&reason))
    }

    pub(super) fn erase(&self, server: &str) -> Result<(), CredentialsError> {
        self.run("erase", server)?.map(drop).map_err(|reason| self.failed(&reason))
    }

    /// The program's output; or what it says, when it fails.
    fn run(&self, action: &str, input: &str) -> Result<Result<Vec<u8>, String>, CredentialsError> {
        let failed = |error: std::io::Error| self.failed(&error.to_string());
        let mut command = Command::new(&self.program);
        // What it says on standard error is for the user: it may ask for a passphrase.
        command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read what it is told will say why not.
            stdin.write_all(input.as_bytes()).and_then(|()| stdin.write_all(b"\n")).ok();
        }
        let mut answer = Vec::new();
        let read = match child.stdout.take() {
            Some(stdout) => stdout.take(MAX_ANSWER).read_to_end(&mut answer),
            None => Ok(0),
        };
        let status = child.wait().map_err(failed)?;
        read.map_err(failed)?;
        if status.success() {
            return Ok(Ok(answer));
        }
        // On failure the reason stands where the secret would.
        let said = shown(&String::from_utf8_lossy(&answer));
        Ok(Err(if said.is_empty() { status.to_string() } else { said }))
    }

    fn failed(&self, reason: &str) -> CredentialsError {
        CredentialsError::Helper { name: self.name.to_owned(), reason: reason.to_owned() }
    }
}
