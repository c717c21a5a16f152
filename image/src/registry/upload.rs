//! Blobs and manifests to a registry (OCI distribution, "Push").

use std::fs::File;

use ureq::http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use ureq::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::client::Client;
use super::error::RegistryError;
use super::http::{Body, Part, Request, Response, resolve};
use super::token::{Scope, escape};
use crate::digest::{Digest, Mismatch};
use crate::manifest::Descriptor;

/// The digest that a registry says a manifest has.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// A blob of at most this many bytes is sent with the request that ends its upload.
const SMALL: u64 = 1 << 20;
/// The parts that a blob is sent in to a registry that does not take it whole.
const CHUNK: u64 = 8 << 20;

/// How a blob came to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It was there.
    Present,
    /// It was in another repository of the same registry.
    Mounted,
    /// It was sent.
    Sent,
}

/// A blob of the store that is sent.
pub(super) struct Blob<'a> {
    pub(super) descriptor: &'a Descriptor,
    pub(super) file: &'a File,
    /// Told that it is sent from its beginning on.
    pub(super) begun: &'a (dyn Fn() + Sync),
    /// Told of each byte that is on its way.
    pub(super) sent: &'a (dyn Fn(u64) + Sync),
}

/// Where an upload stands.
struct Session {
    location: Uri,
    /// Bytes that the registry has.
    at: u64,
}

impl Client {
    fn push_scope(&self) -> Scope {
        Scope::push(self.endpoint().repository())
    }

    /// Sends a blob unless it is there; `sources` are other repositories of this registry that have it.
    pub(super) fn push_blob(
        &self,
        blob: &Blob<'_>,
        sources: &[String],
        chunk: Option<u64>,
    ) -> Result<Pushed, RegistryError> {
        if self.persist(|| self.has_blob(&blob.descriptor.digest))? {
            return Ok(Pushed::Present);
        }
        for source in sources.iter().filter(|source| *source != self.endpoint().repository()) {
            // A registry that does not mount, or not from there, is one to send to.
            match self.mount(&blob.descriptor.digest, source) {
                Ok(true) => return Ok(Pushed::Mounted),
                Ok(false) => {}
                Err(error) => tracing::debug!("mounting {} from {source}: {error}", blob.descriptor.digest),
            }
        }
        let (mut failures, mut chunk, mut session) = (0, chunk, None);
        loop {
            match self.send(blob, chunk, &mut session) {
                Ok(()) => return Ok(Pushed::Sent),
                Err(RegistryError::Status { status: StatusCode::PAYLOAD_TOO_LARGE, .. })
                    if chunk.is_none_or(|chunk| chunk > CHUNK) =>
                {
                    (chunk, session) = (Some(CHUNK), None);
                }
                Err(error) => {
                    self.pause(&mut failures, error)?;
                    session = session.take().and_then(|session| self.where_it_stands(&session));
                }
            }
        }
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let request = Request::new(Method::HEAD, self.address(&format!("blobs/{digest}"))?);
        let response = self.call(&self.push_scope(), request)?;
        match response.status {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(response.unexpected()),
        }
    }

    /// Whether the registry gave the repository a blob of another one.
    fn mount(&self, digest: &Digest, source: &str) -> Result<bool, RegistryError> {
        let uri = self.address(&format!("blobs/uploads/?mount={digest}&from={}", escape(source)))?;
        let response = self.call(&self.push_scope().and_pull(source), Request::new(Method::POST, uri))?;
        if response.status == StatusCode::ACCEPTED {
            // An upload was begun in its place; one without a word more is swept by the registry.
            let session = self.session(&response, 0)?;
            self.call(&self.push_scope(), Request::new(Method::DELETE, session.location))?;
        }
        Ok(response.status == StatusCode::CREATED)
    }

    /// Sends what the registry does not have yet of a blob.
    fn send(&self, blob: &Blob<'_>, chunk: Option<u64>, open: &mut Option<Session>) -> Result<(), RegistryError> {
        let (size, digest) = (blob.descriptor.size, blob.descriptor.digest);
        let session = match open {
            Some(session) => session,
            None => {
                (blob.begun)();
                open.insert(self.begin()?)
            }
        };
        let whole = size <= SMALL && session.at == 0;
        while !whole && session.at < size {
            let len = (size - session.at).min(chunk.unwrap_or(u64::MAX));
            let mut request = Request::new(Method::PATCH, session.location.clone())
                .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
                .body(Body::File(Part { file: blob.file, at: session.at, len, sent: blob.sent }));
            if len < size {
                let range = format!("{}-{}", session.at, session.at + len - 1);
                request = request.header(CONTENT_RANGE, text(&range));
            }
            let response = self.call(&self.push_scope(), request)?;
            match response.status {
                StatusCode::ACCEPTED | StatusCode::CREATED | StatusCode::NO_CONTENT => {
                    *session = self.session(&response, session.at + len)?;
                }
                _ => return Err(response.unexpected()),
            }
        }
        let joint = if session.location.query().is_some() { '&' } else { '?' };
        let end = format!("{}{joint}digest={digest}", session.location);
        let end = resolve(&session.location, &end).ok_or_else(|| self.no_location(&session.location))?;
        let mut request = Request::new(Method::PUT, end);
        if whole {
            request = request
                .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
                .body(Body::File(Part { file: blob.file, at: 0, len: size, sent: blob.sent }));
        }
        let response = self.call(&self.push_scope(), request)?;
        match response.status {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            _ => Err(response.unexpected()),
        }
    }

    fn begin(&self) -> Result<Session, RegistryError> {
        let request = Request::new(Method::POST, self.address("blobs/uploads/")?);
        let response = self.call(&self.push_scope(), request)?;
        match response.status {
            StatusCode::ACCEPTED => self.session(&response, 0),
            _ => Err(response.unexpected()),
        }
    }

    /// Where to go on, as an answer says.
    fn session(&self, response: &Response, at: u64) -> Result<Session, RegistryError> {
        let location = response.header(&LOCATION).unwrap_or_default();
        let location =
            resolve(&response.uri, location).ok_or_else(|| response.fault("an upload without a Location"))?;
        let secure = response.uri.scheme_str() == Some("https");
        if secure && location.scheme_str() != Some("https") {
            return Err(response.fault("an upload that leaves https"));
        }
        Ok(Session { location, at })
    }

    /// Asks how much of an upload has come; `None` if it is lost and has to begin again.
    fn where_it_stands(&self, session: &Session) -> Option<Session> {
        let response = self.call(&self.push_scope(), Request::new(Method::GET, session.location.clone())).ok()?;
        let known = matches!(response.status, StatusCode::NO_CONTENT | StatusCode::ACCEPTED);
        let last =
            response.header(&RANGE)?.trim().trim_start_matches("bytes=").strip_prefix("0-")?.parse::<u64>().ok()?;
        // Of nothing, the last byte is 0, as it is of one byte.
        let at = if last == 0 { 0 } else { last + 1 };
        if known && at > 0 { self.session(&response, at).ok() } else { None }
    }

    fn no_location(&self, uri: &Uri) -> RegistryError {
        RegistryError::Protocol {
            method: "PUT",
            url: super::http::url(uri),
            fault: "an upload whose Location is no address".to_owned(),
        }
    }

    /// Gives a manifest or index a name there: a tag, or its digest.
    pub(super) fn push_manifest(&self, target: &str, media_type: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        let kind = HeaderValue::from_str(media_type).unwrap_or(HeaderValue::from_static("application/json"));
        self.persist(|| {
            let request = Request::new(Method::PUT, self.address(&format!("manifests/{target}"))?)
                .header(CONTENT_TYPE, kind.clone())
                .body(Body::Bytes(bytes));
            let response = self.call(&self.push_scope(), request)?;
            match response.status {
                StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => {}
                _ => return Err(response.unexpected()),
            }
            let expected = Digest::of(bytes);
            let said: Option<Digest> = response.header(&CONTENT_DIGEST).and_then(|digest| digest.parse().ok());
            match said.filter(|found| *found != expected) {
                Some(found) => Err(RegistryError::Mismatch {
                    name: self.endpoint().repository().to_owned(),
                    source: Mismatch::Digest { expected, found },
                }),
                None => Ok(()),
            }
        })
    }
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static("0-0"))
}
