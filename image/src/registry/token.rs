//! Bearer tokens (distribution spec, "Token Authentication"): asked for where the
//! registry says, kept until they expire.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::header::{CONTENT_TYPE, HeaderValue};
use ureq::http::{Method, Uri};

use super::credentials::{Credential, Secret, basic};
use super::error::{RegistryError, shown};
use super::http::{Body, Http, Request, resolve, url};

/// The longest answer of who gives tokens.
const MAX_ANSWER: u64 = 1 << 20;
/// How long a token is good for that does not say.
const DEFAULT_LIFE: u64 = 60;
/// A token is not used in its last seconds: it travels, and clocks differ.
const MARGIN: Duration = Duration::from_secs(5);
/// The name by which lamel asks.
const CLIENT: &str = "lamel";

/// What may be done with which repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope(Vec<String>);

impl Scope {
    /// Nothing but to be known.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    pub(super) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    pub(super) fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// And to read another repository besides.
    pub(super) fn and_pull(mut self, repository: &str) -> Self {
        self.0.push(format!("repository:{repository}:pull"));
        self
    }
}

/// The tokens of one registry.
#[derive(Default)]
pub(super) struct Tokens {
    known: HashMap<Scope, (HeaderValue, Instant)>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Tokens {
    /// A token for this scope that is still good.
    pub(super) fn get(&self, scope: &Scope) -> Option<HeaderValue> {
        self.known.get(scope).filter(|(_, until)| *until > Instant::now()).map(|(value, _)| value.clone())
    }

    /// Forgets the token that a registry did not take.
    pub(super) fn forget(&mut self, scope: &Scope) {
        self.known.remove(scope);
    }

    /// Asks for a token.
    pub(super) fn fetch(
        &mut self,
        http: &Http,
        realm: &Realm<'_>,
        scope: &Scope,
        credential: Option<&Credential>,
    ) -> Result<HeaderValue, RegistryError> {
        let place = url(&realm.uri);
        let failed = |reason: String| RegistryError::Token { realm: place.clone(), reason };
        let form;
        let request = match credential {
            Some(Credential::Identity(token)) => {
                let scopes = scope.0.join(" ");
                let mut fields = vec![
                    ("grant_type", "refresh_token"),
                    ("client_id", CLIENT),
                    ("refresh_token", token.reveal()),
                    ("scope", &scopes),
                ];
                fields.extend(realm.service.map(|service| ("service", service)));
                form = encode(fields);
                Request::new(Method::POST, realm.uri.clone())
                    .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
                    .body(Body::Bytes(form.as_bytes()))
            }
            other => {
                let mut fields: Vec<(&str, &str)> = Vec::new();
                fields.extend(realm.service.map(|service| ("service", service)));
                fields.extend(scope.0.iter().map(|scope| ("scope", scope.as_str())));
                let name = other.and_then(Credential::name);
                fields.extend(name.map(|name| ("account", name)));
                let joint = if realm.uri.query().is_some() { "&" } else { "?" };
                let address = format!("{}{joint}{}", realm.uri, encode(fields));
                let uri = address.parse().map_err(|_| failed("it is no address".to_owned()))?;
                let mut request = Request::new(Method::GET, uri);
                if let Some(Credential::Password { name, password }) = other {
                    request.authorization = header("Basic", &basic(name, password));
                }
                request
            }
        };
        let response = http.send(&request, realm.insecure)?;
        match response.status.as_u16() {
            200 => {}
            400 | 401 | 403 => {
                return Err(RegistryError::Unauthorized {
                    host: realm.registry.to_owned(),
                    anonymous: credential.is_none(),
                    detail: response.complaint(),
                });
            }
            _ => return Err(response.unexpected()),
        }
        let answer: Answer = serde_json::from_slice(&response.bytes(MAX_ANSWER)?)
            .map_err(|_| failed("the answer is no JSON with a token".to_owned()))?;
        let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token).map(Secret::new);
        let token = token.ok_or_else(|| failed("the answer has no token".to_owned()))?;
        let value = header("Bearer", &token).ok_or_else(|| failed("the token is no text for a header".to_owned()))?;
        let life = Duration::from_secs(answer.expires_in.unwrap_or(0).clamp(DEFAULT_LIFE, 24 * 3600));
        self.known.insert(scope.clone(), (value.clone(), Instant::now() + life - MARGIN));
        Ok(value)
    }
}

/// Who gives tokens for a registry.
pub(super) struct Realm<'a> {
    registry: &'a str,
    uri: Uri,
    service: Option<&'a str>,
    insecure: bool,
}

impl<'a> Realm<'a> {
    /// Reads an address as the registry at `base` gave it. Names and passwords go there: a registry with https must not
    /// send them over http.
    pub(super) fn new(
        registry: &'a str,
        base: &Uri,
        address: &str,
        service: Option<&'a str>,
        insecure: bool,
    ) -> Result<Self, RegistryError> {
        let refused = |reason: &str| RegistryError::Token { realm: shown(address), reason: reason.to_owned() };
        let uri = resolve(base, address).ok_or_else(|| refused("it is no address of http or https"))?;
        if base.scheme_str() == Some("https") && uri.scheme_str() != Some("https") && !insecure {
            return Err(refused("a registry with https names one without"));
        }
        Ok(Self { registry, uri, service, insecure })
    }
}

/// A value for `Authorization` that is not logged.
pub(super) fn header(scheme: &str, secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {}", secret.reveal())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Fields of a form or query.
fn encode<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = fields.into_iter().map(|(key, value)| format!("{key}={}", escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// A text in a query (RFC 3986, section 2.1).
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_escaped() {
        let scope = Scope::push("a/b").and_pull("c");
        assert_eq!(scope.0, ["repository:a/b:pull,push", "repository:c:pull"]);
        assert_eq!(
            encode([("scope", scope.0[0].as_str()), ("account", "me&you ä")]),
            "scope=repository:a/b:pull,push&account=me%26you%20%C3%A4"
        );
    }

    #[test]
    fn credentials_do_not_leave_https() {
        let base: Uri = "https://h.example/v2/".parse().unwrap();
        let realm = |address, insecure| Realm::new("h.example", &base, address, None, insecure).is_ok();
        assert!(realm("https://auth.example/token?x=y", false));
        assert!(realm("/token", false));
        assert!(!realm("http://auth.example/token", false));
        assert!(realm("http://auth.example/token", true));
        assert!(!realm("file:///etc/passwd", true));
        assert!(!realm("https://me:pw@auth.example/", true));
    }

    #[test]
    fn old_tokens_are_not_used() {
        let mut tokens = Tokens::default();
        let value = HeaderValue::from_static("Bearer x");
        tokens.known.insert(Scope::none(), (value.clone(), Instant::now() + MARGIN));
        assert_eq!(tokens.get(&Scope::none()), Some(value.clone()));
        assert_eq!(tokens.get(&Scope::pull("a")), None);
        tokens.known.insert(Scope::none(), (value, Instant::now()));
        assert_eq!(tokens.get(&Scope::none()), None);
        let value = header("Bearer", &Secret::new("hunter2")).unwrap();
        assert!(!format!("{value:?}").contains("hunter2"));
        assert_eq!(header("Bearer", &Secret::new("a\nb")), None);
    }
}
