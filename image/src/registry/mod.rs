//! Registries: where images are pulled from and pushed to (OCI distribution 1.1, Docker registry API v2).
//!
//! Reading order: `endpoint` and `conf` (where a name leads), `client` (one registry: its protocol, who one is there),
//! `fetch` and `upload` (manifests and blobs), `http` and `tls` (one exchange). `challenge`, `token` and `credentials` show who
//! asks; `retry` says when again. `pull` and `push` are what all of it is for.
//!
//! What must not happen: credentials or tokens go to the registry that they are for and to who gives its tokens,
//! never to where these redirect, nor to where a manifest says that a layer lies. No answer is read without a
//! limit, and nothing is believed but what its digest shows. No error or log line holds a secret.

mod challenge;
mod client;
mod conf;
mod credentials;
mod endpoint;
mod error;
mod fetch;
mod http;
mod pull;
mod push;
mod retry;
mod tls;
mod token;
mod transfer;
mod upload;

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use conf::{Conf, ConfError};
pub use credentials::{Credential, CredentialsError, Keeper, Keyring, Secret};
pub use endpoint::Security;
pub use error::RegistryError;
pub use http::Timeouts;
pub use pull::Wanted;
pub use retry::Retry;
pub use transfer::{Progress, Step, TransferError};

use client::Client;
use endpoint::Endpoint;
use http::Http;
use tls::HostCertificates;

use crate::reference::Reference;

/// How registries are spoken to.
#[derive(Debug, Clone)]
pub struct Options {
    /// Said of every registry, where it is not as its name and the configuration say.
    pub security: Option<Security>,
    /// Credentials for every registry in place of those that are kept.
    pub credential: Option<Credential>,
    /// The file of credentials.
    pub authfile: Option<PathBuf>,
    /// When to try again.
    pub retry: Retry,
    /// How long to wait for an answer.
    pub timeouts: Timeouts,
    /// The parts in which blobs are sent; whole if there are none, where the registry takes them so.
    pub chunk: Option<u64>,
    /// How many blobs are under way at once.
    pub jobs: usize,
}

impl Default for Options {
    /// As docker does it, where it says nothing else.
    fn default() -> Self {
        let (security, credential, authfile, chunk) = (None, None, None, None);
        let (retry, timeouts) = (Retry::default(), Timeouts::default());
        Self { security, credential, authfile, retry, timeouts, chunk, jobs: 5 }
    }
}

/// All registries, as they are spoken to by this user of this host.
pub struct Registries {
    options: Options,
    conf: Conf,
    keyring: Arc<Keyring>,
    http: Http,
}

impl Registries {
    /// Reads the configuration that `variable`s of the environment lead to.
    ///
    /// # Errors
    /// A file of it cannot be followed.
    pub fn new(options: Options, variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, RegistryError> {
        let conf = Conf::load(variable)?;
        let keyring = Keyring::new(options.authfile.as_deref(), variable).with_given(options.credential.clone());
        let http = Http::new(options.timeouts, HostCertificates::new(variable));
        Ok(Self { options, conf, keyring: Arc::new(keyring), http })
    }

    fn client(&self, endpoint: Endpoint) -> Client {
        Client::new(self.http.clone(), endpoint, Arc::clone(&self.keyring), self.options.retry)
    }

    /// Where an image is pulled from, mirrors first.
    fn sources(&self, reference: &Reference) -> Result<Vec<Client>, RegistryError> {
        let mut endpoints = self.conf.endpoints(reference, self.options.security)?;
        let last = endpoints.pop().map(|endpoint| self.client(endpoint));
        // There is somebody else to ask: a mirror is not waited for.
        let retry = Retry { retries: self.options.retry.retries.min(1), ..self.options.retry };
        let mirror = |endpoint| Client::new(self.http.clone(), endpoint, Arc::clone(&self.keyring), retry);
        Ok(endpoints.into_iter().map(mirror).chain(last).collect())
    }

    /// Where an image is pushed to: the registry itself.
    fn destination(&self, reference: &Reference) -> Result<Client, RegistryError> {
        let mut endpoints = self.conf.endpoints(reference, self.options.security)?;
        let host = reference.registry();
        let security = self.options.security.unwrap_or_else(|| self.conf.security(host));
        Ok(self.client(endpoints.pop().unwrap_or_else(|| Endpoint::new(host, reference.repository(), security))))
    }

    /// Keeps name and password for a registry, once it takes them.
    ///
    /// # Errors
    /// The registry refuses them or cannot be reached, or they cannot be kept.
    pub fn login(&self, registry: &str, name: &str, password: &Secret) -> Result<Keeper, RegistryError> {
        let security = self.options.security.unwrap_or_else(|| self.conf.security(registry));
        let credential = Credential::password(name, password)?;
        let keyring = Arc::new(Keyring::default().with_given(Some(credential)));
        let endpoint = Endpoint::new(registry, "", security);
        Client::new(self.http.clone(), endpoint, keyring, self.options.retry).check()?;
        Ok(self.keyring.store(registry, name, password)?)
    }

    /// Forgets name and password for a registry; says where they were.
    ///
    /// # Errors
    /// What keeps them fails.
    pub fn logout(&self, registry: &str) -> Result<Vec<Keeper>, RegistryError> {
        Ok(self.keyring.erase(registry)?)
    }
}

/// Reads a file of at most `limit` bytes.
fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes (the limit)")));
    }
    Ok(bytes)
}
