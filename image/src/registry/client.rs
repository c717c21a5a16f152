//! One registry: how it is spoken to, and who one is there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use ureq::http::header::WWW_AUTHENTICATE;
use ureq::http::{HeaderValue, Method, StatusCode, Uri};

use super::challenge::Challenge;
use super::credentials::{Credential, Keyring, basic};
use super::endpoint::{Endpoint, Security};
use super::error::{RegistryError, shown};
use super::http::{Http, Request, Response, same_origin};
use super::retry::Retry;
use super::token::{Realm, Scope, Tokens, header};

/// A registry that is spoken to. Threads share it.
pub(super) struct Client {
    http: Http,
    endpoint: Endpoint,
    keyring: Arc<Keyring>,
    retry: Retry,
    /// Its address, once it is known which protocol it speaks. Held while that is found out, once for all threads.
    base: Mutex<Option<Uri>>,
    /// Held while a token is asked for, so that all threads use one. `base` may be taken while it is held, never the
    /// other way round.
    auth: Mutex<Auth>,
    /// Looked up when it is first asked for: a helper may want a passphrase.
    credential: OnceLock<Option<Credential>>,
    /// Whether it has ever answered: one that did may come back.
    reached: AtomicBool,
}

#[derive(Default)]
struct Auth {
    challenge: Option<Challenge>,
    tokens: Tokens,
}

impl Client {
    pub(super) fn new(http: Http, endpoint: Endpoint, keyring: Arc<Keyring>, retry: Retry) -> Self {
        Self {
            http,
            endpoint,
            keyring,
            retry,
            base: Mutex::default(),
            auth: Mutex::default(),
            credential: OnceLock::new(),
            reached: AtomicBool::new(false),
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The address of something in the repository.
    pub(super) fn address(&self, rest: &str) -> Result<Uri, RegistryError> {
        self.at(&format!("/v2/{}/{rest}", self.endpoint.repository()))
    }

    fn at(&self, path: &str) -> Result<Uri, RegistryError> {
        let base = self.base()?;
        super::http::resolve(&base, path).ok_or_else(|| RegistryError::Protocol {
            method: "GET",
            url: super::http::url(&base),
            fault: format!("{:?} is no path of an address", shown(path)),
        })
    }

    fn insecure(&self) -> bool {
        self.endpoint.security() != Security::Verified
    }

    /// The registry's address, with the protocol that it speaks.
    fn base(&self) -> Result<Uri, RegistryError> {
        let mut base = self.base.lock();
        if let Some(base) = base.as_ref() {
            return Ok(base.clone());
        }
        let host = self.endpoint.host();
        let address = |scheme: &str| {
            format!("{scheme}://{host}/v2/").parse::<Uri>().map_err(|error| RegistryError::Protocol {
                method: "GET",
                url: host.to_owned(),
                fault: error.to_string(),
            })
        };
        let found = match self.endpoint.security() {
            Security::Verified => address("https")?,
            Security::Plain => address("http")?,
            Security::Insecure => self.probe(address("https")?, address("http")?)?,
        };
        Ok(base.insert(found).clone())
    }

    /// https if it is spoken, else http.
    fn probe(&self, https: Uri, http: Uri) -> Result<Uri, RegistryError> {
        let ask = |uri: &Uri| self.http.send(&Request::new(Method::GET, uri.clone()), true).map(drop);
        let Err(first) = ask(&https) else { return Ok(https) };
        match ask(&http) {
            Ok(()) => Ok(http),
            Err(second) if first.is_absent() && second.is_absent() => Err(second),
            Err(second) => Err(RegistryError::Unreachable {
                host: self.endpoint.host().to_owned(),
                https: Box::new(first),
                http: Box::new(second),
            }),
        }
    }

    /// Tries something until it succeeds or there is no use in it.
    pub(super) fn persist<T>(&self, mut action: impl FnMut() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let mut failures = 0;
        loop {
            match action() {
                Ok(value) => return Ok(value),
                Err(error) => self.pause(&mut failures, error)?,
            }
        }
    }

    /// Waits after a failure, or gives it back if there is no use in trying again.
    pub(super) fn pause(&self, failures: &mut u32, error: RegistryError) -> Result<(), RegistryError> {
        // One that restarts comes back; one that never was there is more likely misspelt.
        if error.is_absent() && !self.reached.load(Ordering::Relaxed) {
            return Err(error);
        }
        self.retry.pause(failures, error)
    }

    /// Sends a request, with what shows that one may do it. Only the registry itself is shown that, and only its own
    /// questions are answered: not those of a host that it redirects to.
    pub(super) fn call(&self, scope: &Scope, mut request: Request<'_>) -> Result<Response, RegistryError> {
        let own = same_origin(&request.uri, &self.base()?);
        request.authorization = if own { self.authorization(scope)? } else { None };
        let response = self.http.send(&request, self.insecure())?;
        self.reached.store(true, Ordering::Relaxed);
        if !own || response.status != StatusCode::UNAUTHORIZED || !same_origin(&response.uri, &request.uri) {
            return Ok(response);
        }
        let refused = request.authorization.take();
        request.authorization = self.answer(scope, &response, refused.as_ref())?;
        if request.authorization.is_none() {
            return Err(self.unauthorized(response));
        }
        let again = self.http.send(&request, self.insecure())?;
        match again.status {
            StatusCode::UNAUTHORIZED if same_origin(&again.uri, &request.uri) => Err(self.unauthorized(again)),
            _ => Ok(again),
        }
    }

    /// A request without anything that shows who asks, and to any host: for what a manifest only names.
    pub(super) fn call_stranger(&self, request: &Request<'_>) -> Result<Response, RegistryError> {
        self.http.send(request, self.insecure())
    }

    /// What shows who one is, as far as the registry has asked before.
    fn authorization(&self, scope: &Scope) -> Result<Option<HeaderValue>, RegistryError> {
        let mut auth = self.auth.lock();
        let Some(challenge) = auth.challenge.clone() else { return Ok(None) };
        self.obtain(&mut auth, &challenge, scope)
    }

    /// What the registry asks for with this answer; `None` if there is nothing but what it has `refused`.
    fn answer(
        &self,
        scope: &Scope,
        response: &Response,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let headers: Vec<&str> =
            response.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let challenge = Challenge::choose(headers.iter().copied()).ok_or_else(|| RegistryError::Challenge {
            host: self.endpoint.host().to_owned(),
            challenge: shown(&headers.join(", ")),
        })?;
        let mut auth = self.auth.lock();
        if auth.tokens.get(scope).as_ref() == refused {
            auth.tokens.forget(scope);
        }
        let value = self.obtain(&mut auth, &challenge, scope)?;
        auth.challenge = Some(challenge);
        Ok(value.filter(|value| Some(value) != refused))
    }

    fn obtain(
        &self,
        auth: &mut Auth,
        challenge: &Challenge,
        scope: &Scope,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let credential = self.credential()?;
        if let Some(Credential::Registry(token)) = credential {
            return Ok(header("Bearer", token));
        }
        match challenge {
            Challenge::Basic => Ok(match credential {
                Some(Credential::Password { name, password }) => header("Basic", &basic(name, password)),
                _ => None,
            }),
            Challenge::Bearer { realm, service } => {
                if let Some(token) = auth.tokens.get(scope) {
                    return Ok(Some(token));
                }
                let registry = self.endpoint.registry();
                let realm = Realm::new(registry, &self.base()?, realm, service.as_deref(), self.insecure())?;
                auth.tokens.fetch(&self.http, &realm, scope, credential).map(Some)
            }
        }
    }

    fn credential(&self) -> Result<Option<&Credential>, RegistryError> {
        if let Some(known) = self.credential.get() {
            return Ok(known.as_ref());
        }
        let found = self.keyring.find(self.endpoint.registry(), self.endpoint.repository())?;
        Ok(self.credential.get_or_init(|| found).as_ref())
    }

    fn unauthorized(&self, response: Response) -> RegistryError {
        let anonymous = self.credential.get().is_none_or(Option::is_none);
        let host = self.endpoint.registry().to_owned();
        RegistryError::Unauthorized { host, anonymous, detail: response.complaint() }
    }

    /// Checks that one is known to the registry.
    pub(super) fn check(&self) -> Result<(), RegistryError> {
        self.persist(|| {
            let response = self.call(&Scope::none(), Request::new(Method::GET, self.at("/v2/")?))?;
            if response.status.is_success() { Ok(()) } else { Err(response.unexpected()) }
        })
    }
}
