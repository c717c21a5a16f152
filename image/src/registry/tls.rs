//! Whom one believes to be a host, and how one shows who one is to it: the system's authorities, and what docker and
//! podman are told of single hosts by files in `certs.d/HOST[:PORT]/`: `*.crt` are further authorities, `*.cert`
//! with `*.key` one's own certificate.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::error::RegistryError;

/// The longest file of certificates that is read.
const MAX_FILE: u64 = 4 << 20;

/// Where the files for single hosts lie.
#[derive(Debug, Clone, Default)]
pub(super) struct HostCertificates {
    dirs: Vec<PathBuf>,
}

impl HostCertificates {
    /// The user's directory, podman's and docker's.
    pub(super) fn new(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let home = variable("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let user = home.map(|home| home.join(".config/containers/certs.d"));
        let host = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        Self { dirs: user.into_iter().chain(host).collect() }
    }

    /// The first directory that there is for a `host[:port]`.
    pub(super) fn dir(&self, host: &str) -> Option<PathBuf> {
        // A part of an address; that it is no path is not for granted here.
        let plain = !host.contains('/') && !host.starts_with('.');
        self.dirs.iter().filter(|_| plain).map(|dir| dir.join(host)).find(|dir| dir.is_dir())
    }
}

/// The configuration for hosts in general, or for the one of this directory.
pub(super) fn config(dir: Option<&Path>, verified: bool) -> Result<TlsConfig, RegistryError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    let mut authorities = Vec::new();
    for path in dir.map(files).transpose()?.unwrap_or_default() {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => authorities.extend(certificates(&path)?),
            Some("cert") => tls = tls.client_cert(Some(own_certificate(&path)?)),
            _ => {}
        }
    }
    let tls = if verified { tls.root_certs(roots(authorities)?) } else { tls.disable_verification(true) };
    Ok(tls.build())
}

/// The authorities that the system trusts, and these.
fn roots(mut certificates: Vec<Certificate<'static>>) -> Result<RootCerts, RegistryError> {
    let found = rustls_native_certs::load_native_certs();
    certificates.extend(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()));
    if certificates.is_empty() {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(RegistryError::Roots(reasons.join("; ")));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

/// In the order of their names.
fn files(dir: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let read = || std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut files = read().map_err(|error| failed(dir, error.to_string()))?;
    files.sort();
    Ok(files)
}

fn failed(path: &Path, reason: impl Into<String>) -> RegistryError {
    RegistryError::Certificate { path: path.to_owned(), reason: reason.into() }
}

fn read(path: &Path) -> Result<Vec<PemItem<'static>>, RegistryError> {
    let bytes = super::read_bounded(path, MAX_FILE).map_err(|error| failed(path, error.to_string()))?;
    // What is wrong with a file of keys is told without what is in it.
    parse_pem(&bytes).collect::<Result<_, _>>().map_err(|_| failed(path, "it is no PEM"))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let found: Vec<_> = read(path)?
        .into_iter()
        .filter_map(|item| if let PemItem::Certificate(certificate) = item { Some(certificate) } else { None })
        .collect();
    if found.is_empty() { Err(failed(path, "it has no certificate")) } else { Ok(found) }
}

/// A certificate of one's own, with the key in the file beside it.
fn own_certificate(path: &Path) -> Result<ClientCert, RegistryError> {
    let key_path = path.with_extension("key");
    let key = read(&key_path)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    let key: PrivateKey<'static> = key.ok_or_else(|| failed(&key_path, "it has no private key"))?;
    Ok(ClientCert::new_with_certs(&certificates(path)?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_directories_of_their_own() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join(".config/containers/certs.d");
        std::fs::create_dir_all(place.join("h.example:5000")).unwrap();
        std::fs::create_dir_all(place.join("x/y")).unwrap();
        let value = home.path().as_os_str().to_owned();
        let hosts = HostCertificates::new(&move |name| (name == "HOME").then(|| value.clone()));
        assert_eq!(hosts.dir("h.example:5000"), Some(place.join("h.example:5000")));
        for other in ["h.example", "h.example:443", "..", ".", "x/y"] {
            assert_eq!(hosts.dir(other), None, "{other}");
        }
    }

    #[test]
    fn a_broken_file_is_named_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        config(Some(dir.path()), false).unwrap();
        let said = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            config(Some(dir.path()), false).unwrap_err().to_string()
        };
        assert!(said("ca.crt", "hunter2").contains("ca.crt: it has no certificate"));
        std::fs::remove_file(dir.path().join("ca.crt")).unwrap();
        assert!(said("me.cert", "").contains("me.key: "));
        let text = said("me.key", "-----BEGIN PRIVATE KEY-----\nhunter2!\n-----END PRIVATE KEY-----\n");
        assert!(text.contains("me.key: ") && !text.contains("hunter2"), "{text}");
    }
}
