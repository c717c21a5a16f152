//! What goes wrong between here and a registry.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::StatusCode;

use super::conf::ConfError;
use super::credentials::CredentialsError;
use crate::digest::{Digest, Mismatch};
use crate::manifest::ManifestError;

/// Why a registry did not give or take what it was asked to. No message holds a password, a token
/// or the query of an address, where storage services put signatures.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No answer: the network, TLS, a time-out, or a body that ended too soon.
    #[error("{method} {url}: {}", reason(.cause))]
    Transport {
        /// What was asked.
        method: &'static str,
        /// Of whom.
        url: String,
        /// What failed; no source, for the message says it in other words.
        cause: Box<ureq::Error>,
    },
    /// Neither https nor http is spoken there.
    #[error("{host} speaks neither https ({https}) nor http ({http})")]
    Unreachable {
        /// The registry.
        host: String,
        /// What failed with the one.
        https: Box<RegistryError>,
        /// What failed with the other.
        http: Box<RegistryError>,
    },
    /// An answer that is no success.
    #[error("{method} {url}: {status}{detail}")]
    Status {
        /// What was asked.
        method: &'static str,
        /// Of whom.
        url: String,
        /// The answer.
        status: StatusCode,
        /// What the registry says of it, with a colon before it; or nothing.
        detail: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The registry knows no such name.
    #[error("{0}: the registry has no such image")]
    NoImage(String),
    /// The registry has no such blob.
    #[error("blob {digest}: {host} does not have it")]
    NoBlob {
        /// Which.
        digest: Digest,
        /// Who was asked.
        host: String,
    },
    /// It wants another user, or any.
    #[error("{host} refuses access{}{detail}: `lamel login {host}` stores a name and password for it", asker(.anonymous))]
    Unauthorized {
        /// The registry.
        host: String,
        /// Whether no credentials were given.
        anonymous: bool,
        /// What the registry says of it, with a colon before it; or nothing.
        detail: String,
    },
    /// It asks for credentials in a way that is not known.
    #[error("{host} asks for credentials in a way that lamel does not know: {challenge:?}")]
    Challenge {
        /// The registry.
        host: String,
        /// What it asked for.
        challenge: String,
    },
    /// No token was given out.
    #[error("token of {realm}: {reason}")]
    Token {
        /// Who gives tokens.
        realm: String,
        /// Why not.
        reason: String,
    },
    /// It sends elsewhere, and that is not followed.
    #[error("{url} redirects to {target:?}: {reason}")]
    Redirect {
        /// Who sends.
        url: String,
        /// Where to.
        target: String,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// An answer longer than is read.
    #[error("{url}: an answer of more than {limit} bytes (the limit) is not read")]
    TooLong {
        /// Who answers.
        url: String,
        /// How long an answer may be.
        limit: u64,
    },
    /// An answer that breaks the protocol.
    #[error("{method} {url}: {fault}")]
    Protocol {
        /// What was asked.
        method: &'static str,
        /// Of whom.
        url: String,
        /// What is wrong.
        fault: String,
    },
    /// A manifest or index that is not taken.
    #[error("{name}: {source}")]
    Manifest {
        /// Whose.
        name: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// Content that is not what its digest says.
    #[error("{name}: {source}")]
    Mismatch {
        /// Whose.
        name: String,
        /// What came.
        source: Mismatch,
    },
    /// What is to be pushed cannot be read.
    #[error("blob {digest}: {source}")]
    Local {
        /// Which.
        digest: Digest,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The configuration forbids the registry.
    #[error("{name}: {file} blocks this registry", file = .file.display())]
    Blocked {
        /// What was asked for.
        name: String,
        /// Who says so.
        file: PathBuf,
    },
    /// The system's certificates cannot be read.
    #[error("no certificate authority of the system can be read ({0}): install ca-certificates, or set SSL_CERT_FILE")]
    Roots(String),
    /// A file of certificates for one host.
    #[error("{}: {reason}", .path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of credentials or a helper.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The configuration of registries.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// No mirror and not the registry itself has the image.
    #[error("{last}; before it, mirrors failed: {}", .mirrors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Mirrors {
        /// What each mirror answered.
        mirrors: Vec<RegistryError>,
        /// What the last one asked, the registry itself, answered.
        last: Box<RegistryError>,
    },
}

impl RegistryError {
    /// Whether it may be gone when it is tried again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { cause, .. } => match cause.as_ref() {
                ureq::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
                ureq::Error::Timeout(_)
                | ureq::Error::ConnectionFailed
                | ureq::Error::HostNotFound
                | ureq::Error::Protocol(_)
                | ureq::Error::BodyStalled => true,
                _ => false,
            },
            Self::Status { status, .. } => matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether nobody listened there at all.
    pub(super) fn is_absent(&self) -> bool {
        match self {
            Self::Transport { cause, .. } => match cause.as_ref() {
                ureq::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
                ureq::Error::HostNotFound => true,
                _ => false,
            },
            _ => false,
        }
    }

    /// How long the registry asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<RegistryError> for io::Error {
    fn from(error: RegistryError) -> Self {
        Self::other(error)
    }
}

/// ureq's own words speak of its configuration.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::HostNotFound => "no host of this name is known".to_owned(),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the connection ended too soon".to_owned()
        }
        ureq::Error::Io(error) => format!("{error}{}", hint(&error.to_string())),
        ureq::Error::Rustls(error) => format!("{error}{}", hint("certificate")),
        other => other.to_string(),
    }
}

fn asker(anonymous: &bool) -> &'static str {
    if *anonymous { " without a name" } else { " with the credentials that were given" }
}

/// What helps against a certificate that is not believed.
fn hint(text: &str) -> &'static str {
    if text.contains("certificate") {
        " (--tls-verify=false trusts any; /etc/containers/certs.d/HOST/*.crt holds further authorities)"
    } else {
        ""
    }
}

/// A stranger's text, fit for a terminal: one line, no control characters, not long.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 300;
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(LONGEST).map(clean).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short.trim().to_owned()
}
