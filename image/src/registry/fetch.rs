//! Manifests and blobs from a registry.

use std::io::{self, Read};

use ureq::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use ureq::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::client::Client;
use super::error::RegistryError;
use super::http::{Request, Response};
use super::token::Scope;
use crate::digest::{Digest, Mismatch};
use crate::manifest::{Descriptor, Document, MAX_MANIFEST, ManifestError, media};

/// The digest that a registry says a manifest has.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// So many bytes between two failures are progress, and failures before it are forgotten.
const PROGRESS: u64 = 64 << 10;

/// A manifest or index as it came.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    /// What it is.
    pub(super) descriptor: Descriptor,
    /// Its very bytes.
    pub(super) bytes: Vec<u8>,
    /// What they say.
    pub(super) document: Document,
}

impl Client {
    /// Fetches a manifest or index by tag or digest, or as a descriptor names it.
    pub(super) fn manifest(
        &self,
        name: &str,
        target: &str,
        wanted: Option<&Descriptor>,
    ) -> Result<Fetched, RegistryError> {
        let scope = Scope::pull(self.endpoint().repository());
        let (digest, kind, bytes) = self.persist(|| {
            let uri = self.address(&format!("manifests/{target}"))?;
            let accept = HeaderValue::from_str(&media::ACCEPTED.join(", ")).unwrap_or(HeaderValue::from_static("*/*"));
            let response = self.call(&scope, Request::new(Method::GET, uri).header(ACCEPT, accept))?;
            match response.status {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Err(RegistryError::NoImage(name.to_owned())),
                _ => return Err(response.unexpected()),
            }
            // Of a digest by another algorithm nothing can be said.
            let said: Option<Digest> = response.header(&CONTENT_DIGEST).and_then(|digest| digest.parse().ok());
            let kind = response.header(&CONTENT_TYPE).and_then(|kind| kind.split(';').next()).unwrap_or_default();
            let kind = kind.trim().to_owned();
            Ok((said, kind, response.bytes(MAX_MANIFEST)?))
        })?;
        let found = Digest::of(&bytes);
        let named = target.parse().ok().or(wanted.map(|wanted| wanted.digest));
        if let Some(expected) = [named, digest].into_iter().flatten().find(|expected| *expected != found) {
            let source = Mismatch::Digest { expected, found };
            return Err(RegistryError::Mismatch { name: name.to_owned(), source });
        }
        let failed = |source| RegistryError::Manifest { name: name.to_owned(), source };
        if let Some(wanted) = wanted.filter(|wanted| wanted.size != bytes.len() as u64) {
            let source = Mismatch::Size { digest: found, expected: wanted.size, found: bytes.len() as u64 };
            return Err(RegistryError::Mismatch { name: name.to_owned(), source });
        }
        let document = Document::parse(&bytes, Some(kind.as_str()).filter(|kind| !kind.is_empty())).map_err(failed)?;
        let media_type = match &document {
            Document::Manifest(manifest) => manifest.media_type.as_str(),
            Document::Index(index) => index.media_type.as_str(),
        };
        if let Some(wanted) = wanted.filter(|wanted| !wanted.media_type.is_empty() && wanted.media_type != media_type) {
            let fault = format!("the index calls it {}, and it is {media_type}", wanted.media_type);
            return Err(failed(ManifestError::Confused(fault)));
        }
        let descriptor = Descriptor::new(media_type, found, bytes.len() as u64);
        Ok(Fetched { descriptor, bytes, document })
    }

    /// A blob from an offset on. Its digest is for the reader to check.
    pub(super) fn blob<'a>(&'a self, descriptor: &Descriptor, from: u64) -> BlobReader<'a> {
        BlobReader { client: self, descriptor: descriptor.clone(), at: from, source: None, failures: 0, since: 0 }
    }
}

/// A blob as it comes. What breaks off goes on where it stopped.
pub(super) struct BlobReader<'a> {
    client: &'a Client,
    descriptor: Descriptor,
    /// How much of the blob has been read, what lay before the beginning included.
    at: u64,
    source: Option<ureq::BodyReader<'static>>,
    failures: u32,
    /// Bytes read since the last failure.
    since: u64,
}

impl BlobReader<'_> {
    /// Asks for what is missing.
    fn open(&self) -> Result<ureq::BodyReader<'static>, RegistryError> {
        let own = self.client.address(&format!("blobs/{}", self.descriptor.digest))?;
        let scope = Scope::pull(self.client.endpoint().repository());
        let response = self.client.call(&scope, self.request(own))?;
        if response.status != StatusCode::NOT_FOUND {
            return self.accept(response);
        }
        let mut elsewhere = Err(RegistryError::NoBlob {
            digest: self.descriptor.digest,
            host: self.client.endpoint().host().to_owned(),
        });
        // What must not be distributed lies where the manifest says. Whoever wrote that gets no credentials.
        for uri in foreign(&self.descriptor) {
            elsewhere = self.client.call_stranger(&self.request(uri)).and_then(|response| self.accept(response));
            if elsewhere.is_ok() {
                break;
            }
        }
        elsewhere
    }

    fn request(&self, uri: Uri) -> Request<'static> {
        let request = Request::new(Method::GET, uri);
        match self.at {
            0 => request,
            at => request.header(RANGE, range(at)),
        }
    }

    /// The body, from where it is needed.
    fn accept(&self, response: Response) -> Result<ureq::BodyReader<'static>, RegistryError> {
        let size = self.descriptor.size;
        let (start, total) = match response.status {
            // The range was ignored: what is known already comes again.
            StatusCode::OK => (0, response.number(&CONTENT_LENGTH)),
            StatusCode::PARTIAL_CONTENT if self.at > 0 => {
                let told = response.header(&CONTENT_RANGE).and_then(content_range);
                let (start, total) = told.ok_or_else(|| response.fault("a part without Content-Range"))?;
                if start > self.at {
                    return Err(response.fault(format!("the part from {start} on, where {} was asked for", self.at)));
                }
                (start, total)
            }
            StatusCode::RANGE_NOT_SATISFIABLE => (0, Some(self.at)),
            _ => return Err(response.unexpected()),
        };
        if let Some(found) = total.filter(|total| *total != size) {
            let source = Mismatch::Size { digest: self.descriptor.digest, expected: size, found };
            return Err(RegistryError::Mismatch { name: self.client.endpoint().repository().to_owned(), source });
        }
        let (method, url) = (response.method, super::http::url(&response.uri));
        let failed = |source| RegistryError::Transport { method, url, cause: Box::new(source) };
        let mut reader = response.reader();
        let skipped = io::copy(&mut reader.by_ref().take(self.at - start), &mut io::sink());
        match skipped {
            Ok(skipped) if skipped == self.at - start => Ok(reader),
            Ok(_) => Err(failed(ureq::Error::Io(io::ErrorKind::UnexpectedEof.into()))),
            Err(error) => Err(failed(ureq::Error::from(error))),
        }
    }

    /// What a failure of the running answer is called.
    fn broken(&self, error: io::Error) -> RegistryError {
        RegistryError::Transport {
            method: "GET",
            url: format!("blob {} of {}", self.descriptor.digest, self.client.endpoint().host()),
            cause: Box::new(ureq::Error::from(error)),
        }
    }

    fn pause(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if self.since >= PROGRESS {
            self.failures = 0;
        }
        self.since = 0;
        self.client.pause(&mut self.failures, error)
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let source = match &mut self.source {
                Some(source) => source,
                None if self.at >= self.descriptor.size => return Ok(0),
                None => match self.open() {
                    Ok(source) => self.source.insert(source),
                    Err(error) => {
                        self.pause(error)?;
                        continue;
                    }
                },
            };
            let left = self.descriptor.size.saturating_sub(self.at);
            match source.read(buffer) {
                // What came is whole; how the answer ended is of no matter.
                Ok(0) | Err(_) if left == 0 => {
                    self.source = None;
                    return Ok(0);
                }
                Ok(0) => {
                    self.source = None;
                    self.pause(self.broken(io::ErrorKind::UnexpectedEof.into()))?;
                }
                Ok(count) => {
                    self.at += count as u64;
                    self.since += count as u64;
                    return Ok(count);
                }
                Err(error) => {
                    self.source = None;
                    self.pause(self.broken(error))?;
                }
            }
        }
    }
}

fn range(from: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("bytes={from}-")).unwrap_or(HeaderValue::from_static("bytes=0-"))
}

/// Where a part begins, and how long the whole is, if that is told (RFC 9110, section 14.4).
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (part, whole) = value.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (start, _) = part.split_once('-')?;
    Some((start.trim().parse().ok()?, whole.trim().parse().ok()))
}

/// Whether a layer is one that registries do not keep.
pub(super) fn is_foreign(descriptor: &Descriptor) -> bool {
    let kind = &descriptor.media_type;
    kind.contains(".nondistributable.") || kind.contains("rootfs.foreign.")
}

/// Where else a layer lies that registries do not keep; by https alone, for nothing else protects who asks.
fn foreign(descriptor: &Descriptor) -> Vec<Uri> {
    if !is_foreign(descriptor) {
        return Vec::new();
    }
    let urls = descriptor.other.get("urls").and_then(serde_json::Value::as_array);
    let uris = urls.into_iter().flatten().filter_map(|url| url.as_str()?.parse::<Uri>().ok());
    uris.filter(|uri| {
        uri.scheme_str() == Some("https") && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes", "bytes */10", "bytes x-9/10", "5-9/10", "bytes 5/10"] {
            assert_eq!(content_range(bad), None, "{bad:?}");
        }
        assert_eq!(range(7), "bytes=7-");
    }

    #[test]
    fn foreign_layers_lie_at_https_alone() {
        let mut layer =
            Descriptor::new("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest::of(b""), 0);
        let urls = ["http://a.example/x", "https://b.example/x", "https://me:pw@c.example/x", "file:///etc/passwd"];
        layer.other.insert("urls".to_owned(), urls.to_vec().into());
        assert_eq!(foreign(&layer), ["https://b.example/x".parse::<Uri>().unwrap()]);
        layer.media_type = format!("{}+gzip", media::LAYER);
        assert!(foreign(&layer).is_empty(), "an ordinary layer lies in its registry");
    }
}
