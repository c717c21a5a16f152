//! One exchange with one host: TLS, time limits, redirects, and answers of bounded length.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT, LOCATION, RETRY_AFTER};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use ureq::{Agent, SendBody};

use super::endpoint::is_loopback;
use super::error::{RegistryError, shown};
use super::retry::retry_after;
use super::tls::HostCertificates;

/// A body of more bytes is announced.
const LARGE: u64 = 1 << 20;
/// How often one may be sent elsewhere.
const MAX_REDIRECTS: usize = 10;
/// The longest answer that says why something failed.
const MAX_COMPLAINT: u64 = 64 << 10;

/// How long a host may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until it is connected, with TLS.
    pub connect: Duration,
    /// Until the next bytes come or go.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), silence: Duration::from_secs(60) }
    }
}

/// What is sent with a request. It can be sent again.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    Nothing,
    Bytes(&'a [u8]),
    File(Part<'a>),
}

/// Bytes of a file.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) file: &'a File,
    /// From here.
    pub(super) at: u64,
    pub(super) len: u64,
    /// Told of each byte that is on its way.
    pub(super) sent: &'a (dyn Fn(u64) + Sync),
}

/// A request. Who asks stands apart from the other headers: it goes to the first host alone.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Body<'a>,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri, authorization: None, headers: Vec::new(), body: Body::Nothing }
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn body(mut self, body: Body<'a>) -> Self {
        self.body = body;
        self
    }
}

/// An answer, its body unread.
pub(super) struct Response {
    /// What was asked.
    pub(super) method: &'static str,
    /// Who answers, after all redirects.
    pub(super) uri: Uri,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: ureq::Body,
}

/// The connections to all hosts; a clone shares them.
#[derive(Clone)]
pub(super) struct Http {
    timeouts: Timeouts,
    certificates: HostCertificates,
    /// Held while the system's certificates are read, once for all threads.
    agents: Arc<Mutex<HashMap<Kind, Agent>>>,
}

impl Http {
    pub(super) fn new(timeouts: Timeouts, certificates: HostCertificates) -> Self {
        Self { timeouts, certificates, agents: Arc::default() }
    }

    /// Sends a request, and follows where the answer sends it. Whether any certificate and http in place of https
    /// will do is the caller's word.
    pub(super) fn send(&self, request: &Request<'_>, insecure: bool) -> Result<Response, RegistryError> {
        let mut uri = request.uri.clone();
        for _ in 0..MAX_REDIRECTS {
            let authorization = request.authorization.as_ref().filter(|_| same_origin(&uri, &request.uri));
            let response = self.exchange(request, &uri, authorization, insecure)?;
            let followed = match response.status.as_u16() {
                301..=303 => matches!(request.method, Method::GET | Method::HEAD),
                307 | 308 => true,
                _ => false,
            };
            if !followed {
                return Ok(response);
            }
            let location = response.header(&LOCATION).unwrap_or_default().to_owned();
            let target = redirected(&uri, &location, insecure)?;
            // The form that asks for a token holds another.
            if request.method == Method::POST && !same_origin(&target, &request.uri) {
                return Err(refused_redirect(&uri, &location, "what is posted is for its first host alone"));
            }
            uri = target;
        }
        Err(refused_redirect(&uri, "", "it is one too many"))
    }

    /// One request and its answer.
    fn exchange(
        &self,
        request: &Request<'_>,
        uri: &Uri,
        authorization: Option<&HeaderValue>,
        insecure: bool,
    ) -> Result<Response, RegistryError> {
        let method = name_of(&request.method);
        let failed = |source: ureq::Error| RegistryError::Transport { method, url: url(uri), cause: Box::new(source) };
        let mut head = ureq::http::Request::new(());
        *head.method_mut() = request.method.clone();
        *head.uri_mut() = uri.clone();
        head.headers_mut().extend(request.headers.iter().cloned());
        if let Some(value) = authorization {
            head.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        let agent = self.agent(uri, insecure)?;
        let bodiless = matches!(request.method, Method::GET | Method::HEAD | Method::DELETE);
        let (mut section, len) = match request.body {
            Body::Nothing => (Section::Bytes(&[]), 0),
            Body::Bytes(bytes) => (Section::Bytes(bytes), bytes.len() as u64),
            Body::File(part) => (Section::File(part), part.len),
        };
        let answer = if bodiless {
            run(&agent, head.map(|()| SendBody::none()), self.timeouts.silence)
        } else {
            head.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
            if len > LARGE {
                // Whoever does not want it says so before it is sent.
                head.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
            }
            // A registry may move a whole blob to its place before it answers.
            let patience = self.timeouts.silence.saturating_mul(5);
            run(&agent, head.map(|()| SendBody::from_reader(&mut section)), patience)
        };
        let (parts, body) = answer.map_err(failed)?.into_parts();
        Ok(Response { method, uri: uri.clone(), status: parts.status, headers: parts.headers, body })
    }

    /// Who keeps the connections to a host: one for all hosts, but for those that have certificates of their own.
    fn agent(&self, uri: &Uri, insecure: bool) -> Result<Agent, RegistryError> {
        let tls = uri.scheme_str() == Some("https");
        let kind =
            Kind { verified: tls && !insecure, dir: if tls { self.certificates.dir(&host_port(uri)) } else { None } };
        let mut agents = self.agents.lock();
        if let Some(agent) = agents.get(&kind) {
            return Ok(agent.clone());
        }
        let config = Agent::config_builder()
            .tls_config(super::tls::config(kind.dir.as_deref(), kind.verified)?)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("lamel/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(self.timeouts.connect))
            .timeout_per_read(Some(self.timeouts.silence))
            .timeout_per_write(Some(self.timeouts.silence))
            .build();
        Ok(agents.entry(kind).or_insert(config.new_agent()).clone())
    }
}

/// Which hosts an agent is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    verified: bool,
    /// Of certificates for one host.
    dir: Option<PathBuf>,
}

fn run(
    agent: &Agent,
    request: ureq::http::Request<SendBody<'_>>,
    silence: Duration,
) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    let local = request.uri().host().is_some_and(is_loopback);
    let configured = agent.configure_request(request).timeout_per_read(Some(silence));
    // No proxy leads to this machine.
    agent.run(if local { configured.proxy(None) } else { configured }.build())
}

impl Response {
    /// A header's text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A header's number.
    pub(super) fn number(&self, name: &HeaderName) -> Option<u64> {
        self.header(name)?.trim().parse().ok()
    }

    /// The whole body, if it is no longer than `limit`.
    pub(super) fn bytes(self, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let (method, place) = (self.method, url(&self.uri));
        let mut bytes = Vec::new();
        let read = self.body.into_reader().take(limit + 1).read_to_end(&mut bytes);
        let failed = |error| RegistryError::Transport { method, url: place.clone(), cause: Box::new(error) };
        read.map_err(|error| failed(ureq::Error::from(error)))?;
        if bytes.len() as u64 > limit {
            return Err(RegistryError::TooLong { url: place, limit });
        }
        Ok(bytes)
    }

    /// The body as it comes.
    pub(super) fn reader(self) -> ureq::BodyReader<'static> {
        self.body.into_reader()
    }

    /// The error that an answer is which was not expected.
    pub(super) fn unexpected(self) -> RegistryError {
        let (method, place, status) = (self.method, url(&self.uri), self.status);
        let retry_after = self.header(&RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now()));
        RegistryError::Status { method, url: place, status, retry_after, detail: self.complaint() }
    }

    /// What the registry says of its refusal (OCI distribution, "Error Codes"), after a colon; or nothing.
    pub(super) fn complaint(self) -> String {
        let bytes = self.bytes(MAX_COMPLAINT).unwrap_or_default();
        let said: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let first = said.get("errors").and_then(|errors| errors.get(0));
        let text = |key: &str| first.and_then(|error| error.get(key)).and_then(serde_json::Value::as_str);
        let said = [text("code"), text("message")].into_iter().flatten().collect::<Vec<_>>().join(", ");
        if said.is_empty() { said } else { format!(": {}", shown(&said)) }
    }

    /// The error that an answer is which breaks the protocol.
    pub(super) fn fault(&self, fault: impl Into<String>) -> RegistryError {
        RegistryError::Protocol { method: self.method, url: url(&self.uri), fault: fault.into() }
    }
}

/// What a request's body is read from.
enum Section<'a> {
    Bytes(&'a [u8]),
    /// What is left of it.
    File(Part<'a>),
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bytes(bytes) => bytes.read(buffer),
            Self::File(part) => {
                let want = buffer.len().min(usize::try_from(part.len).unwrap_or(usize::MAX));
                let count = part.file.read_at(buffer.get_mut(..want).unwrap_or_default(), part.at)?;
                part.at += count as u64;
                part.len -= count as u64;
                (part.sent)(count as u64);
                Ok(count)
            }
        }
    }
}

/// An address without its query, which may hold what is secret.
pub(super) fn url(uri: &Uri) -> String {
    format!("{}://{}{}", uri.scheme_str().unwrap_or("http"), host_port(uri), uri.path())
}

fn name_of(method: &Method) -> &'static str {
    match method.as_str() {
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "GET",
    }
}

/// Host and port of an address, as it spells them.
fn host_port(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    uri.port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether two addresses are served by one server, so that what is secret for one is not for the other.
pub(super) fn same_origin(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    one.scheme_str() == other.scheme_str() && host(one) == host(other) && port(one) == port(other)
}

fn refused_redirect(from: &Uri, target: &str, reason: &'static str) -> RegistryError {
    let target = target.split('?').next().unwrap_or_default();
    RegistryError::Redirect { url: url(from), target: shown(target), reason }
}

/// Where a `Location` leads to.
fn redirected(from: &Uri, location: &str, insecure: bool) -> Result<Uri, RegistryError> {
    let refuse = |reason| refused_redirect(from, location, reason);
    let target = resolve(from, location).ok_or_else(|| refuse("it is no address"))?;
    if from.scheme_str() == Some("https") && target.scheme_str() != Some("https") && !insecure {
        return Err(refuse("it leaves https"));
    }
    Ok(target)
}

/// An address relative to another (RFC 3986, section 5.2), of http or https and without a user.
pub(super) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let text = if location.contains("://") && !location.starts_with(['/', '?']) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else if location.is_empty() {
        return None;
    } else {
        let dir = base.path().rsplit_once('/').map_or("", |(dir, _)| dir);
        format!("{scheme}://{authority}{dir}/{location}")
    };
    let uri: Uri = text.parse().ok()?;
    let sound = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty());
    (sound && !uri.authority()?.as_str().contains('@')).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn locations_are_resolved() {
        let base = uri("https://h.example:5/v2/a/blobs/uploads/?x=1");
        for (location, target) in [
            ("https://o.example/x?y=z#f", "https://o.example/x?y=z"),
            ("http://h.example/x", "http://h.example/x"),
            ("//o.example/x", "https://o.example/x"),
            ("/v2/u?_state=a://b", "https://h.example:5/v2/u?_state=a://b"),
            ("?d=1", "https://h.example:5/v2/a/blobs/uploads/?d=1"),
            ("id", "https://h.example:5/v2/a/blobs/uploads/id"),
        ] {
            assert_eq!(resolve(&base, location), Some(uri(target)), "{location}");
        }
        for location in ["", "ftp://o.example/", "https://me:pw@o.example/", "https:///x", "file:///etc/passwd", "/a b"]
        {
            assert_eq!(resolve(&base, location), None, "{location}");
        }
        assert!(redirected(&base, "http://h.example/x", false).is_err());
        assert!(redirected(&base, "http://h.example/x", true).is_ok());
        let error = redirected(&base, "http://s.example/x?signature=secret", false).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn origins_are_told_apart() {
        let one = uri("https://h.example/a");
        assert!(same_origin(&one, &uri("https://H.example:443/b?c")));
        for other in ["http://h.example/a", "https://h.example:8443/a", "https://x.h.example/", "https://example/"] {
            assert!(!same_origin(&one, &uri(other)), "{other}");
        }
        assert_eq!(url(&uri("https://u:p@h.example:1/a?sig=x")), "https://h.example:1/a");
    }
}
