//! Content named by its hash: the one place where a digest's text is believed,
//! and the readers and writers that hash what passes through them.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The algorithm, as it stands before the colon and as a directory under `blobs/`.
pub const ALGORITHM: &str = "sha256";

/// Bytes of a digest.
const LEN: usize = 32;

/// A sha256 digest. Its text is `sha256:` and 64 lowercase hexadecimal digits, so a path made of it
/// cannot leave its directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; LEN]);

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Neither algorithm nor digits as they must be.
    #[error("{0:?} is no digest: sha256: and 64 lowercase hexadecimal digits are one")]
    Malformed(String),
    /// Well formed perhaps, but of another algorithm.
    #[error("digest algorithm {0:?} is not supported: lamel reads sha256 alone")]
    Unsupported(String),
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest whose bytes these are.
    pub const fn from_bytes(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    pub const fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }

    /// The 64 digits without the algorithm, as they name a file.
    pub fn hex(&self) -> String {
        const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
        let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
        self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    /// The first twelve digits, as people are shown them.
    pub fn short(&self) -> String {
        self.hex().chars().take(12).collect()
    }

    /// Reads the digits alone, as they name a file.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        let malformed = || DigestError::Malformed(shortened(text));
        let text = text.as_bytes();
        if text.len() != 2 * LEN {
            return Err(malformed());
        }
        let mut bytes = [0; LEN];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            for digit in pair {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(malformed()),
                };
                *byte = (*byte << 4) | value;
            }
        }
        Ok(Self(bytes))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text.split_once(':') {
            Some((ALGORITHM, hex)) => Self::from_hex(hex).map_err(|_| DigestError::Malformed(shortened(text))),
            Some((other, _)) if !other.is_empty() => Err(DigestError::Unsupported(shortened(other))),
            _ => Err(DigestError::Malformed(shortened(text))),
        }
    }
}

/// A hostile text may be megabytes long; an error message is not.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes what it is given, and counts it.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    state: Sha256,
    len: u64,
}

impl Hasher {
    /// Of nothing so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.len += bytes.len() as u64;
    }

    /// How many bytes it was given.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it was given nothing.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The digest of all of them.
    pub fn finish(self) -> Digest {
        Digest(self.state.finalize().into())
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that ends in an error unless what it read has the promised digest and size.
#[derive(Debug)]
pub struct Verified<R> {
    inner: R,
    hasher: Hasher,
    digest: Digest,
    size: Option<u64>,
}

/// Content that is not what was promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Another digest.
    #[error("content of {expected} has the digest {found}")]
    Digest {
        /// What was promised.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// Too short or too long; of what is too long nothing more is read.
    #[error("content of {digest} has {found} bytes where {expected} were promised")]
    Size {
        /// Of what.
        digest: Digest,
        /// What was promised.
        expected: u64,
        /// What came, or one read more than was promised.
        found: u64,
    },
}

impl From<Mismatch> for io::Error {
    fn from(mismatch: Mismatch) -> Self {
        Self::new(io::ErrorKind::InvalidData, mismatch)
    }
}

/// Compares what was hashed with what was promised.
pub fn check(hasher: Hasher, digest: &Digest, size: Option<u64>) -> Result<(), Mismatch> {
    if let Some(expected) = size.filter(|size| *size != hasher.len()) {
        return Err(Mismatch::Size { digest: *digest, expected, found: hasher.len() });
    }
    match hasher.finish() {
        found if found == *digest => Ok(()),
        found => Err(Mismatch::Digest { expected: *digest, found }),
    }
}

impl<R: Read> Verified<R> {
    /// Reads `inner`, which must be `digest` and, where it is known, of `size` bytes.
    pub fn new(inner: R, digest: Digest, size: Option<u64>) -> Self {
        Self { inner, hasher: Hasher::new(), digest, size }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            check(self.hasher.clone(), &self.digest, self.size)?;
        }
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        match self.size {
            Some(expected) if self.hasher.len() > expected => {
                Err(Mismatch::Size { digest: self.digest, expected, found: self.hasher.len() }.into())
            }
            _ => Ok(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_is_its_text() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest, Digest::of(b""));
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(Digest::from_hex(&digest.hex()).unwrap(), digest);
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("{EMPTY:?}"));
        assert_eq!(serde_json::from_str::<Digest>(&format!("{EMPTY:?}")).unwrap(), digest);
    }

    #[test]
    fn nothing_else_is_a_digest() {
        let upper = EMPTY.to_uppercase().replace("SHA256", "sha256");
        let long = format!("sha256:{}", "a".repeat(100_000));
        for text in ["", "sha256:", "sha256:../../x", &EMPTY[7..], &EMPTY[..70], &format!("{EMPTY}0"), &upper, &long] {
            let error = text.parse::<Digest>().unwrap_err();
            assert!(matches!(error, DigestError::Malformed(_)), "{error}");
            assert!(error.to_string().len() < 500);
        }
        assert!(matches!("sha512:00".parse::<Digest>(), Err(DigestError::Unsupported(_))));
        assert!(serde_json::from_str::<Digest>("\"sha256:../../x\"").is_err());
    }

    #[test]
    fn what_passes_is_what_was_promised() {
        let text = b"content";
        let read = |digest, size| {
            let mut out = Vec::new();
            Verified::new(&text[..], digest, size).read_to_end(&mut out).map(|_| out)
        };
        assert_eq!(read(Digest::of(text), Some(7)).unwrap(), text);
        assert_eq!(read(Digest::of(text), None).unwrap(), text);
        let reason = |error: io::Error| error.get_ref().and_then(|e| e.downcast_ref::<Mismatch>()).cloned().unwrap();
        assert!(matches!(reason(read(Digest::of(b"x"), Some(7)).unwrap_err()), Mismatch::Digest { .. }));
        for size in [0, 6, 8] {
            let error = read(Digest::of(text), Some(size)).unwrap_err();
            assert_eq!(reason(error), Mismatch::Size { digest: Digest::of(text), expected: size, found: 7 });
        }
    }
}
