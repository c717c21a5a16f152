//! Streams told by their first bytes and decompressed within bounds.

use std::io::{self, BufReader, Read};

/// The largest zstd window, as a power of two: what `zstd` itself takes without `--long=31`.
const ZSTD_WINDOW_LOG: u32 = 27;
/// The most memory that an xz stream may ask for, in KiB: what `xz -9` takes.
const XZ_MEMORY: u32 = 128 << 10;
/// How much is read from a compressed stream at once.
const BUFFER: usize = 128 << 10;
/// As many first bytes tell what a stream is.
const MAGIC: usize = 6;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// One or several gzip members.
    Gzip,
    /// zstd frames, with skippable ones among them.
    Zstd,
    /// bzip2; in files to load, not in images.
    Bzip2,
    /// xz; in files to load, not in images.
    Xz,
}

impl Compression {
    /// Of a stream that begins with `head`.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame; the first one of zstd:chunked files of some tools.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }

    /// The ending of an OCI layer's media type; `None` where OCI has none.
    pub fn media_suffix(self) -> Option<&'static str> {
        match self {
            Self::Plain => Some(""),
            Self::Gzip => Some("+gzip"),
            Self::Zstd => Some("+zstd"),
            Self::Bzip2 | Self::Xz => None,
        }
    }
}

/// How much a compressed stream may grow. A stream over both bounds is a bomb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expansion {
    /// As much is always taken.
    pub free: u64,
    /// Beyond that, at most this many bytes for each one read.
    pub ratio: u64,
    /// And no more than this.
    pub total: u64,
}

impl Default for Expansion {
    fn default() -> Self {
        Self { free: 4 << 30, ratio: 200, total: 1 << 40 }
    }
}

/// A stream that grew beyond [`Expansion`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{read} compressed bytes became {written}: a decompression bomb (limits: {} bytes for each one beyond {}, {} in all)",
    limits.ratio, limits.free, limits.total
)]
pub struct Bomb {
    /// Bytes before decompression, so far.
    read: u64,
    /// Bytes after it, so far.
    written: u64,
    /// What would have been allowed.
    limits: Expansion,
}

/// A decompressing reader, and what it found.
pub struct Decompressed<'a> {
    /// How the stream is compressed.
    pub compression: Compression,
    decoder: Decoder<'a>,
    limits: Expansion,
    written: u64,
}

type Source<'a> = BufReader<Counted<Box<dyn Read + Send + 'a>>>;

enum Decoder<'a> {
    Plain(Source<'a>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Source<'a>>>),
    Zstd(zstd::Decoder<'static, Source<'a>>),
    Bzip2(bzip2::bufread::MultiBzDecoder<Source<'a>>),
    Xz(Box<lzma_rust2::XzReader<Source<'a>>>),
}

impl<'a> Decompressed<'a> {
    /// Looks at the first bytes of `source`.
    pub fn new(source: impl Read + Send + 'a, limits: Expansion) -> io::Result<Self> {
        let (head, source) = peek(source)?;
        let compression = Compression::of(&head);
        let source = BufReader::with_capacity(BUFFER, Counted { inner: source, count: 0 });
        let decoder = match compression {
            Compression::Plain => Decoder::Plain(source),
            Compression::Gzip => Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source))),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Decoder::Zstd(decoder)
            }
            Compression::Bzip2 => Decoder::Bzip2(bzip2::bufread::MultiBzDecoder::new(source)),
            Compression::Xz => Decoder::Xz(Box::new(lzma_rust2::XzReader::new_mem_limit(source, true, XZ_MEMORY))),
        };
        Ok(Self { compression, decoder, limits, written: 0 })
    }

    fn consumed(&self) -> u64 {
        let source = match &self.decoder {
            Decoder::Plain(source) => source,
            Decoder::Gzip(decoder) => decoder.get_ref(),
            Decoder::Zstd(decoder) => decoder.get_ref(),
            Decoder::Bzip2(decoder) => decoder.get_ref(),
            Decoder::Xz(decoder) => decoder.inner(),
        };
        source.get_ref().count
    }
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.decoder {
            Decoder::Plain(source) => source.read(buffer)?,
            Decoder::Gzip(decoder) => decoder.read(buffer)?,
            Decoder::Zstd(decoder) => decoder.read(buffer)?,
            Decoder::Bzip2(decoder) => decoder.read(buffer)?,
            Decoder::Xz(decoder) => decoder.read(buffer)?,
        };
        self.written += count as u64;
        if self.written > self.limits.free && self.compression != Compression::Plain {
            let read = self.consumed();
            let allowed =
                self.limits.total.min(self.limits.free.saturating_add(read.saturating_mul(self.limits.ratio)));
            if self.written > allowed {
                let bomb = Bomb { read, written: self.written, limits: self.limits };
                return Err(io::Error::new(io::ErrorKind::InvalidData, bomb));
            }
        }
        Ok(count)
    }
}

/// The first bytes of a stream, and the whole of it.
pub(crate) fn peek<'a>(mut source: impl Read + Send + 'a) -> io::Result<(Vec<u8>, Box<dyn Read + Send + 'a>)> {
    let mut head = Vec::with_capacity(MAGIC);
    source.by_ref().take(MAGIC as u64).read_to_end(&mut head)?;
    let whole = io::Cursor::new(head.clone()).chain(source);
    Ok((head, Box::new(whole)))
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8], limits: Expansion) -> io::Result<(Compression, Vec<u8>)> {
        let mut reader = Decompressed::new(bytes, limits)?;
        let mut out = Vec::new();
        reader.read_to_end(&mut out)?;
        Ok((reader.compression, out))
    }

    #[test]
    fn every_kind_is_told_by_its_first_bytes() {
        let text = b"some text, some more text".repeat(1000);
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let zstd = zstd::encode_all(&text[..], 3).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&text).unwrap();
        // The text "hello\n", as xz(1) packs it.
        let xz = [
            0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 4, 0xe6, 0xd6, 0xb4, 0x46, 2, 0, 0x21, 1, 0x16, 0, 0, 0, 0x74, 0x2f,
            0xe5, 0xa3, 1, 0, 5, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0xa, 0, 0, 0, 0xa5, 0x60, 0x97, 0xf1, 0x94, 0xf6, 0xfd,
            0xe0, 0, 1, 0x1e, 6, 0xc1, 0x2f, 0xa4, 0x1d, 0x1f, 0xb6, 0xf3, 0x7d, 1, 0, 0, 0, 0, 4, 0x59, 0x5a,
        ];
        let twice = [text.clone(), text.clone()].concat();
        let all = Expansion::default();
        assert_eq!(read(&text, all).unwrap(), (Compression::Plain, text.clone()));
        assert_eq!(read(&[gzip(&text), gzip(&text)].concat(), all).unwrap(), (Compression::Gzip, twice.clone()));
        let frames = [&skippable[..], &zstd, &skippable, &zstd, &skippable].concat();
        assert_eq!(read(&frames, all).unwrap(), (Compression::Zstd, twice));
        assert_eq!(read(&bzip2.finish().unwrap(), all).unwrap(), (Compression::Bzip2, text));
        assert_eq!(read(b"", all).unwrap(), (Compression::Plain, Vec::new()));
        assert_eq!(read(&xz, all).unwrap(), (Compression::Xz, b"hello\n".to_vec()));
    }

    #[test]
    fn a_bomb_is_called_one() {
        let limits = Expansion { free: 1 << 16, ratio: 10, total: 1 << 22 };
        let zeros = vec![0; 1 << 20];
        let error = read(&gzip(&zeros), limits).map(drop).unwrap_err();
        assert!(error.to_string().contains("decompression bomb"), "{error}");
        let error = read(&zstd::encode_all(&zeros[..], 3).unwrap(), limits).map(drop).unwrap_err();
        assert!(error.to_string().contains("decompression bomb"), "{error}");
        read(&gzip(&zeros[..1 << 16]), limits).unwrap();
        let many: Vec<u8> = (0..5_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert!(read(&gzip(&many), limits).is_err());
    }

    #[test]
    fn a_broken_stream_is_an_error() {
        let text = b"some text".repeat(10_000);
        let packed = gzip(&text);
        for cut in [1, 5, 12, packed.len() / 2, packed.len() - 1] {
            assert_ne!(read(&packed[..cut], Expansion::default()).ok().map(|(_, bytes)| bytes), Some(text.clone()));
        }
        // A window of 2 GiB.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
        assert!(read(&frame, Expansion::default()).is_err());
    }
}
