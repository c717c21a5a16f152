//! Where images lie on the network, and how far that place is trusted.

use std::net::IpAddr;

use crate::reference::DEFAULT_REGISTRY;

/// The host that serves the images of docker.io.
const DOCKER_HOST: &str = "registry-1.docker.io";

/// How a registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// https, with a certificate that the system trusts.
    Verified,
    /// https with any certificate, or else http.
    Insecure,
    /// http alone.
    Plain,
}

impl Security {
    /// What is right for a host without being told: this machine itself need not prove who it is.
    pub fn of(host: &str) -> Self {
        if is_loopback(host) { Self::Insecure } else { Self::Verified }
    }
}

/// A repository on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    registry: String,
    repository: String,
    security: Security,
}

impl Endpoint {
    pub(super) fn new(registry: &str, repository: &str, security: Security) -> Self {
        Self { registry: registry.to_owned(), repository: repository.to_owned(), security }
    }

    /// The registry as names and files of credentials spell it.
    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    /// The host and port to connect to.
    pub(super) fn host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY { DOCKER_HOST } else { &self.registry }
    }

    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    pub(super) fn security(&self) -> Security {
        self.security
    }
}

/// Whether a `host[:port]` is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_by_its_name() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000", "a.localhost"] {
            assert_eq!(Security::of(host), Security::Insecure, "{host}");
        }
        for host in ["127.0.0.1.example", "localhost.example:5000", "10.0.0.1", "[::2]:5000", "h.example"] {
            assert_eq!(Security::of(host), Security::Verified, "{host}");
        }
        assert_eq!(Endpoint::new("docker.io", "library/x", Security::Verified).host(), "registry-1.docker.io");
    }
}
