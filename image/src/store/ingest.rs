//! A layer on its way in: one pass over its blob hashes and writes the blob,
//! decompresses it, hashes and writes the tar, and indexes it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Seek as _, SeekFrom, Take, Write as _};
use std::path::{Path, PathBuf};

use super::error::{Result, StoreError, at};
use super::lock::{self, Mode};
use super::staging::{publish, publish_dir};
use super::{Store, Writer};
use crate::decompress::{Compression, Decompressed, Expansion};
use crate::digest::{Digest, Hasher, Mismatch, check};
use crate::index::{self, Built, IndexError, Limits};
use crate::manifest::{Descriptor, media};
use crate::read_ahead::read_ahead;
use crate::stack::LayerFiles;

/// A layer as a manifest and its configuration name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// Of the blob, as it is compressed.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Of the tar in it.
    pub diff_id: Digest,
}

/// A layer that is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its names.
    pub blob: LayerBlob,
    /// How the blob is compressed.
    pub compression: Compression,
}

impl Layer {
    /// How an OCI manifest names it.
    pub fn descriptor(&self) -> Descriptor {
        let suffix = self.compression.media_suffix().unwrap_or_default();
        Descriptor::new(&format!("{}{suffix}", media::LAYER), self.blob.digest, self.blob.size)
    }
}

/// Whether a layer has to come.
#[derive(Debug)]
#[must_use]
pub enum Taken {
    /// It is there already, or has been made of its blob.
    Present,
    /// Its bytes are wanted.
    Wanted(Ingest),
}

/// A layer whose bytes are wanted. No other process takes the same one in while this lives.
#[derive(Debug)]
pub struct Ingest {
    wanted: LayerBlob,
    /// The blob as far as it has come, locked.
    partial: File,
    partial_path: PathBuf,
    blob_path: PathBuf,
    received: u64,
}

impl LayerFiles {
    /// The layer in the directory `dir`.
    fn in_dir(dir: &Path, diff_id: &Digest) -> Self {
        Self { diff_id: *diff_id, tar: dir.join("tar"), index: dir.join("index") }
    }
}

impl Store {
    /// Where a layer lies, whole or not.
    pub(super) fn layer_at(&self, diff_id: &Digest) -> Option<LayerFiles> {
        let files = self.roots().map(|root| LayerFiles::in_dir(&root.layer(diff_id), diff_id));
        files.into_iter().find(|files| files.tar.exists())
    }

    /// A layer that can be served as it lies.
    pub(super) fn layer_files(&self, diff_id: &Digest) -> Option<LayerFiles> {
        let files = self.roots().map(|root| LayerFiles::in_dir(&root.layer(diff_id), diff_id));
        files.into_iter().find(is_whole)
    }
}

/// Whether both files are what was written, as far as that is seen without reading the tar.
fn is_whole(files: &LayerFiles) -> bool {
    files.index.exists() && files.layer().is_ok()
}

impl Writer<'_> {
    /// Begins to take in a layer, unless it is there; waits for another process that takes in the same one.
    ///
    /// # Errors
    /// The store cannot be written, or holds a blob of that name that is none.
    pub fn layer(&self, wanted: &LayerBlob) -> Result<Taken> {
        let own = &self.store.own;
        let (partial_path, blob_path) = (own.partial(&wanted.digest), own.blob(&wanted.digest));
        loop {
            match self.is_present(wanted) {
                Ok(true) => return Ok(Taken::Present),
                Ok(false) => {}
                // What a power failure left of it, or a bad disk: it comes again. A manifest that lies about its size is no
                // reason to remove what another image needs.
                Err(StoreError::Mismatch(_))
                    if blob_path.exists() && self.store.check_blob(&wanted.digest).is_err() =>
                {
                    fs::remove_file(&blob_path).map_err(at("unlink", &blob_path))?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let partial = lock::open(&partial_path).map_err(at("open", &partial_path))?;
            lock::lock(&partial, Mode::Exclusive).map_err(at("lock", &partial_path))?;
            // Whoever had it may have finished it, or given it up.
            if !lock::is_at(&partial, &partial_path).map_err(at("stat", &partial_path))? || blob_path.exists() {
                continue;
            }
            let received = partial.metadata().map_err(at("stat", &partial_path))?.len();
            let mut ingest = Ingest { wanted: *wanted, partial, partial_path, blob_path, received };
            if received > wanted.size {
                ingest.restart()?;
            }
            return Ok(Taken::Wanted(ingest));
        }
    }

    /// Whether blob and layer are there; a layer that is missing is made of its blob.
    pub(super) fn is_present(&self, wanted: &LayerBlob) -> Result<bool> {
        let blob = match self.store.open_blob(&wanted.digest) {
            Err(StoreError::NoBlob(_)) => return Ok(false),
            other => other?,
        };
        let path = self.store.own.blob(&wanted.digest);
        let found = blob.metadata().map_err(at("stat", &path))?.len();
        if found != wanted.size {
            return Err(Mismatch::Size { digest: wanted.digest, expected: wanted.size, found }.into());
        }
        if self.store.layer_files(&wanted.diff_id).is_some() {
            return Ok(true);
        }
        // One process does the work, where it may lock the blob.
        let own = OpenOptions::new().read(true).write(true).open(&path);
        if let Ok(own) = &own {
            lock::lock(own, Mode::Exclusive).map_err(at("lock", &path))?;
        }
        match self.store.layer_files(&wanted.diff_id) {
            Some(_) => Ok(true),
            None => self.unpack(wanted, blob).map(|()| true),
        }
    }

    /// Makes a layer of a blob of the store.
    fn unpack(&self, wanted: &LayerBlob, blob: File) -> Result<()> {
        let mut feed = Feed::new(None, blob, Some(wanted), None);
        match feed.take_in(self) {
            // No source that may have more another time.
            Err(StoreError::Interrupted { received: found, source, .. })
                if source.kind() == ErrorKind::UnexpectedEof =>
            {
                Err(Mismatch::Size { digest: wanted.digest, expected: wanted.size, found }.into())
            }
            other => other?.publish(self, wanted, &self.store.own.blob(&wanted.digest)),
        }
    }

    /// Takes in a layer whose digests nobody has named.
    ///
    /// # Errors
    /// It cannot be read, decompressed, indexed or written; nothing is left behind.
    pub fn new_layer(&self, source: impl Read + Send) -> Result<Layer> {
        let (path, file) = self.staging.file()?;
        let mut feed = Feed::new(None, source, None, Some((&file, &path)));
        let made = feed.take_in(self)?;
        let blob = LayerBlob { digest: made.digest, size: feed.hasher.len(), diff_id: made.diff_id };
        let layer = Layer { blob, compression: made.compression };
        file.sync_data().map_err(at("fsync", &path))?;
        made.publish(self, &blob, &path)?;
        publish(&path, &self.store.own.blob(&blob.digest))?;
        Ok(layer)
    }
}

impl Ingest {
    /// Bytes of the blob that an earlier attempt has left: what [`Ingest::run`] is given must begin behind them.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Forgets them, where the source cannot begin in the middle.
    ///
    /// # Errors
    /// The file cannot be changed.
    pub fn restart(&mut self) -> Result<()> {
        self.partial.set_len(0).map_err(at("truncate", &self.partial_path))?;
        self.received = 0;
        Ok(())
    }

    /// Takes in the rest of the blob.
    ///
    /// A stream that fails or ends early should go on by itself where it can; if it does not, what came is kept for
    /// the next attempt. `rest` is not read beyond the blob's size but for one byte, to see that it has no more.
    ///
    /// # Errors
    /// [`StoreError::Interrupted`] if `rest` failed or ended early. After any other error nothing is left behind.
    pub fn run(mut self, writer: &Writer<'_>, rest: impl Read + Send) -> Result<Layer> {
        let done = self.fill(writer, rest);
        match done {
            Err(StoreError::Interrupted { .. }) => {}
            Err(_) => drop(fs::remove_file(&self.partial_path)),
            Ok(_) => {}
        }
        done
    }

    fn fill(&mut self, writer: &Writer<'_>, rest: impl Read + Send) -> Result<Layer> {
        self.partial.seek(SeekFrom::Start(0)).map_err(at("seek", &self.partial_path))?;
        let kept = (&self.partial).take(self.received);
        let mut feed = Feed::new(Some(kept), rest, Some(&self.wanted), Some((&self.partial, &self.partial_path)));
        let made = feed.take_in(writer)?;
        let layer = Layer { blob: self.wanted, compression: made.compression };
        // A name on the disk for data that is not there would outlive a power failure.
        self.partial.sync_data().map_err(at("fsync", &self.partial_path))?;
        // The layer first: where a blob is, its layer is, unless somebody else put the blob there.
        made.publish(writer, &self.wanted, &self.partial_path)?;
        publish(&self.partial_path, &self.blob_path)?;
        Ok(layer)
    }
}

/// Of a blob that never began to come, nothing is kept.
impl Drop for Ingest {
    fn drop(&mut self) {
        let empty = self.partial.metadata().is_ok_and(|metadata| metadata.len() == 0);
        if empty && lock::is_at(&self.partial, &self.partial_path).is_ok_and(|here| here) {
            fs::remove_file(&self.partial_path).ok();
        }
    }
}

/// A blob as it is read: first what is kept of it, then the rest, which is kept on the way.
struct Feed<'a, R> {
    kept: Option<Take<&'a File>>,
    rest: R,
    /// What the blob must be.
    wanted: Option<&'a LayerBlob>,
    keep: Option<(&'a File, &'a Path)>,
    hasher: Hasher,
    /// Why there is no more, if it did not end as it should: an error that has passed a decompressor says less.
    fault: Option<StoreError>,
}

impl<'a, R: Read + Send> Feed<'a, R> {
    fn new(
        kept: Option<Take<&'a File>>,
        rest: R,
        wanted: Option<&'a LayerBlob>,
        keep: Option<(&'a File, &'a Path)>,
    ) -> Self {
        Self { kept, rest, wanted, keep, hasher: Hasher::new(), fault: None }
    }

    /// Reads to the end, and checks everything.
    fn take_in(&mut self, writer: &Writer<'_>) -> Result<Unpacked> {
        let made = Unpacked::make(self, writer);
        // A wrong blob is called that also where its content was found wanting first.
        if self.fault.is_none() {
            io::copy(self, &mut io::sink()).ok();
        }
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        if let Some(wanted) = self.wanted {
            check(self.hasher.clone(), &wanted.digest, Some(wanted.size))?;
        }
        let made = made.map_err(|error| match (error, self.wanted) {
            (StoreError::Index(source), Some(wanted)) => StoreError::Layer { blob: wanted.digest, source },
            (error, _) => error,
        })?;
        match self.wanted {
            Some(LayerBlob { digest: blob, diff_id, .. }) if made.diff_id != *diff_id => {
                Err(StoreError::DiffId { blob: *blob, expected: *diff_id, found: made.diff_id })
            }
            _ => Ok(made),
        }
    }

    fn end(&mut self, fault: StoreError) -> io::Error {
        self.fault.get_or_insert(fault);
        io::Error::other("the source ended")
    }

    fn interrupted(&mut self, source: io::Error) -> io::Error {
        let fault = match self.wanted {
            Some(LayerBlob { digest, size, .. }) => {
                StoreError::Interrupted { blob: *digest, received: self.hasher.len(), size: *size, source }
            }
            None => StoreError::Stream { what: "archive".to_owned(), source },
        };
        self.end(fault)
    }
}

impl<R: Read + Send> Read for Feed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(kept) = &mut self.kept {
            let count = kept.read(buffer)?;
            if count > 0 {
                self.hasher.update(buffer.get(..count).unwrap_or_default());
                return Ok(count);
            }
            self.kept = None;
        }
        if self.fault.is_some() {
            return Err(io::Error::other("the source ended"));
        }
        let count = loop {
            match self.rest.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.interrupted(error)),
                Ok(count) => break count,
            }
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        let found = self.hasher.len() + count as u64;
        match self.wanted {
            Some(wanted) if count == 0 && !buffer.is_empty() && found < wanted.size => {
                return Err(self.interrupted(ErrorKind::UnexpectedEof.into()));
            }
            Some(wanted) if found > wanted.size => {
                let mismatch = Mismatch::Size { digest: wanted.digest, expected: wanted.size, found };
                return Err(self.end(mismatch.into()));
            }
            _ => {}
        }
        if let Some((mut file, path)) = self.keep
            && let Err(error) = file.write_all(bytes)
        {
            return Err(self.end(at("write", path)(error)));
        }
        self.hasher.update(bytes);
        Ok(count)
    }
}

/// A layer made in staging.
struct Unpacked {
    dir: PathBuf,
    compression: Compression,
    digest: Digest,
    diff_id: Digest,
}

impl Unpacked {
    /// Reads the tar in a blob to its end.
    fn make<R: Read + Send>(feed: &mut Feed<'_, R>, writer: &Writer<'_>) -> Result<Self> {
        let dir = writer.staging.path();
        fs::create_dir(&dir).map_err(at("mkdir", &dir))?;
        // What comes is hashed and kept in one thread, decompressed in a second one, and what that gives is hashed, kept
        // and indexed in this one: decompression, which takes longest, is in nobody's way.
        let (compression, built, unpacked) = read_ahead(&mut *feed, |blob| {
            let mut source = Decompressed::new(blob, Expansion::default()).map_err(IndexError::Read)?;
            let compression = source.compression;
            let mut tar = Tar::new(compression, &dir)?;
            let built = match compression {
                Compression::Plain => tar.index(&mut source)?,
                _ => read_ahead(source, |source| tar.index(source))?,
            };
            Ok::<_, StoreError>((compression, built, tar.hasher.take().map(Hasher::finish)))
        })?;
        // Nothing is left of it but for compressed streams that end before their source.
        io::copy(feed, &mut io::sink()).map_err(IndexError::Read)?;
        let digest = feed.hasher.clone().finish();
        let diff_id = unpacked.unwrap_or(digest);
        write_index(&built, &diff_id, &dir.join("index"))?;
        Ok(Self { dir, compression, digest, diff_id })
    }

    /// Gives the layer its name; `blob` is where its blob lies.
    fn publish(self, writer: &Writer<'_>, names: &LayerBlob, blob: &Path) -> Result<()> {
        let place = writer.store.own.layer(&names.diff_id);
        let tar = self.dir.join("tar");
        if self.compression == Compression::Plain && fs::hard_link(blob, &tar).is_err() {
            fs::copy(blob, &tar).map_err(at("copy to", &tar))?;
        }
        if place.exists() && !is_whole(&LayerFiles::in_dir(&place, &names.diff_id)) {
            publish(&place, &writer.staging.path())?;
        }
        publish_dir(&self.dir, &place)
    }
}

/// Writes an index beside its tar.
pub(super) fn write_index(built: &Built, diff_id: &Digest, path: &Path) -> Result<()> {
    let mut file = BufWriter::new(File::create_new(path).map_err(at("create", path))?);
    built.write(diff_id, &mut file).and_then(|()| file.flush()).map_err(at("write", path))
}

/// The tar as it is hashed and written; a plain one is its blob and needs neither.
struct Tar {
    hasher: Option<Hasher>,
    file: Option<File>,
    path: PathBuf,
    fault: Option<StoreError>,
}

impl Tar {
    fn new(compression: Compression, dir: &Path) -> Result<Self> {
        let path = dir.join("tar");
        let plain = compression == Compression::Plain;
        let file = if plain { None } else { Some(File::create_new(&path).map_err(at("create", &path))?) };
        Ok(Self { hasher: (!plain).then(Hasher::new), file, path, fault: None })
    }

    fn index(&mut self, source: &mut dyn Read) -> Result<Built> {
        let mut kept = Kept { tar: self, source };
        let built = index::build(&mut kept, &Limits::default());
        let built = built.and_then(|built| match io::copy(&mut kept, &mut io::sink()) {
            Ok(_) => Ok(built),
            Err(error) => Err(IndexError::Read(error)),
        });
        match self.fault.take() {
            Some(fault) => Err(fault),
            None => Ok(built?),
        }
    }
}

/// A tar that is kept as it is read.
struct Kept<'a> {
    tar: &'a mut Tar,
    source: &'a mut dyn Read,
}

impl Read for Kept<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if let Some(hasher) = &mut self.tar.hasher {
            hasher.update(bytes);
        }
        if let Some(file) = &mut self.tar.file
            && let Err(error) = file.write_all(bytes)
        {
            self.tar.fault = Some(at("write", &self.tar.path)(error));
            return Err(ErrorKind::Other.into());
        }
        Ok(count)
    }
}
