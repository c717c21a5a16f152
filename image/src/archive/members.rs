//! An archive's members by name, wherever the archive lies.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::{ArchiveError, Result};
use crate::decompress::{Compression, Decompressed, Expansion, peek};
use crate::digest::Digest;
use crate::index::{self, Index, IndexError, Limits, ROOT};
use crate::manifest::{self, ManifestError};
use crate::store::Writer;

/// As many symlinks are followed, as the kernel does.
const MAX_LINKS: usize = 40;

/// Where an archive comes from.
pub enum Input {
    /// A file; a plain tar is read where it lies.
    File(File),
    /// A stream, of which a copy is made while it is loaded.
    Stream(Box<dyn Read + Send>),
    /// An OCI layout, or an unpacked archive.
    Directory(PathBuf),
}

/// The members of an archive.
pub(super) enum Members {
    /// In a tar file, found through an index as of a layer.
    Tar(File, Index<Vec<u8>>),
    /// In a directory, out of which no name leads.
    Directory(OwnedFd),
}

/// A part of a file, read without a position of its own.
pub(super) struct Region<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Region<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// A member that is read.
pub(super) struct Member<'a> {
    pub(super) size: u64,
    pub(super) data: Box<dyn Read + Send + 'a>,
}

impl Members {
    pub(super) fn open(input: Input, writer: &Writer<'_>) -> Result<Self> {
        match input {
            Input::Directory(path) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let dir = rustix::fs::openat(CWD, &path, flags, Mode::empty());
                dir.map(Self::Directory).map_err(|errno| ArchiveError::Read(errno.into()))
            }
            Input::Stream(stream) => Self::spool(stream, writer),
            Input::File(file) => {
                let (head, stream) = peek(file.try_clone().map_err(ArchiveError::Read)?).map_err(ArchiveError::Read)?;
                let seekable = file.metadata().map_err(ArchiveError::Read)?.is_file();
                if !seekable || Compression::of(&head) != Compression::Plain {
                    return Self::spool(stream, writer);
                }
                let left = file.metadata().map_err(ArchiveError::Read)?.len();
                let index = index_of(&mut Region { file: &file, at: 0, left })?;
                Ok(Self::Tar(file, index))
            }
        }
    }

    /// Members are wanted in another order than they come in, and the list of them often comes last.
    fn spool(stream: impl Read + Send, writer: &Writer<'_>) -> Result<Self> {
        let file = writer.scratch_file()?;
        let source = Decompressed::new(stream, Expansion::default()).map_err(ArchiveError::Read)?;
        let mut tee = Tee { source, file: &file };
        let index = index_of(&mut tee)?;
        // What follows the end of the archive: a writer to the pipe must not be left alone with it.
        io::copy(&mut tee.source, &mut io::sink()).map_err(ArchiveError::Read)?;
        Ok(Self::Tar(file, index))
    }

    /// Opens the member `name`; `None` if there is none.
    pub(super) fn get(&self, name: &str) -> Result<Option<Member<'_>>> {
        match self {
            Self::Tar(file, index) => {
                let found = find(index, name).map_err(ArchiveError::Tar)?;
                Ok(found.map(|(at, size)| Member { size, data: Box::new(Region { file, at, left: size }) }))
            }
            Self::Directory(dir) => {
                // NONBLOCK: a fifo must not keep us.
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let file = match openat2(dir, name, flags, Mode::empty(), resolve) {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::NXIO) => return Ok(None),
                    opened => File::from(opened.map_err(|errno| ArchiveError::Read(errno.into()))?),
                };
                let metadata = file.metadata().map_err(ArchiveError::Read)?;
                Ok(metadata.is_file().then(|| Member { size: metadata.len(), data: Box::new(file) }))
            }
        }
    }

    /// Opens a member that another one names.
    pub(super) fn need(&self, name: &str) -> Result<Member<'_>> {
        self.get(name)?.ok_or_else(|| ArchiveError::Missing(name.chars().take(300).collect()))
    }

    /// Reads a small member.
    pub(super) fn read(&self, what: &'static str, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(member) = self.get(name)? else { return Ok(None) };
        if member.size > limit {
            let source = ManifestError::TooLong { what, found: member.size, limit };
            return Err(ArchiveError::Document { name: name.to_owned(), source });
        }
        let mut bytes = Vec::new();
        member.data.take(limit).read_to_end(&mut bytes).map_err(ArchiveError::Read)?;
        Ok(Some(bytes))
    }

    /// Reads a small member of JSON.
    pub(super) fn json<T: for<'de> serde::Deserialize<'de>>(
        &self,
        what: &'static str,
        name: &str,
        limit: u64,
    ) -> Result<Option<T>> {
        let Some(bytes) = self.read(what, name, limit)? else { return Ok(None) };
        let value = manifest::parse(what, &bytes, limit);
        value.map(Some).map_err(|source| ArchiveError::Document { name: name.to_owned(), source })
    }
}

fn index_of(tar: &mut dyn Read) -> Result<Index<Vec<u8>>> {
    let built = index::build(tar, &Limits::default()).map_err(|error| match error {
        IndexError::Read(error) => ArchiveError::Read(error),
        other => ArchiveError::Tar(other),
    })?;
    // Nobody asks for the digest of an archive.
    let digest = Digest::of(b"");
    let mut bytes = Vec::new();
    built.write(&digest, &mut bytes).map_err(ArchiveError::Read)?;
    Index::check(bytes, &[digest]).map_err(ArchiveError::Tar)
}

/// Where the data of a regular file lies in the tar; symlinks are followed inside the archive, whose root is above all.
fn find(index: &Index<Vec<u8>>, name: &str) -> Result<Option<(u64, u64)>, IndexError> {
    let mut above = vec![ROOT];
    let mut todo: Vec<Vec<u8>> = components(name.as_bytes());
    let mut links = 0;
    while let Some(component) = todo.pop() {
        if component == b".." {
            if above.len() > 1 {
                above.pop();
            }
            continue;
        }
        let here = above.last().copied().unwrap_or(ROOT);
        if !index.inode(here)?.is_dir() {
            return Ok(None);
        }
        let Some(number) = index.find(here, &component)?.and_then(|entry| entry.inode) else { return Ok(None) };
        let inode = index.child(here, number)?;
        if inode.format() != libc::S_IFLNK {
            above.push(number);
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Ok(None);
        }
        let target = index.target(&inode)?;
        if target.starts_with(b"/") {
            above.truncate(1);
        }
        todo.extend(components(target));
    }
    let found = index.inode(above.last().copied().unwrap_or(ROOT))?;
    if found.format() == libc::S_IFREG && !found.is_sparse() {
        index.data(&found).map(Some).map_err(Into::into)
    } else {
        Ok(None)
    }
}

/// The components of a path, the first one last.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.rev().map(<[u8]>::to_vec).collect()
}

/// Keeps what is read.
struct Tee<'a, R> {
    source: R,
    file: &'a File,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        let mut file = self.file;
        io::Write::write_all(&mut file, buffer.get(..count).unwrap_or_default())
            .map_err(|error| io::Error::other(format!("keeping a copy of the archive: {error}")))?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |kind, name: &str, target: &str, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(data.len() as u64);
            if target.is_empty() {
                builder.append_data(&mut header, name, data).unwrap();
            } else {
                builder.append_link(&mut header, name, target).unwrap();
            }
        };
        add(tar::EntryType::Regular, "top.tar", "", b"top");
        add(tar::EntryType::Symlink, "a/layer.tar", "../top.tar", b"");
        add(tar::EntryType::Symlink, "out", "../../../etc/passwd", b"");
        add(tar::EntryType::Symlink, "loop", "loop", b"");
        add(tar::EntryType::Symlink, "abs", "/a/layer.tar", b"");
        add(tar::EntryType::Fifo, "fifo", "", b"");
        builder.into_inner().unwrap()
    }

    #[test]
    fn names_are_found_inside_the_archive_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("archive");
        std::fs::write(&path, archive()).unwrap();
        let store = crate::Store::open(&dir.path().join("store"), &[]).unwrap();
        let writer = store.writer().unwrap();
        let unpacked = dir.path().join("unpacked");
        tar::Archive::new(&archive()[..]).unpack(&unpacked).unwrap();
        // The crate makes a plain file of it.
        std::fs::remove_file(unpacked.join("fifo")).unwrap();
        rustix::fs::mknodat(CWD, unpacked.join("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        std::fs::write(dir.path().join("outside"), "").unwrap();
        let inputs = [
            (Input::File(File::open(&path).unwrap()), true),
            (Input::Stream(Box::new(File::open(&path).unwrap())), true),
            (Input::Directory(unpacked), false),
        ];
        for (input, is_tar) in inputs {
            let members = Members::open(input, &writer).unwrap();
            let read =
                |name: &str| members.read("test", name, 10).unwrap().map(|bytes| String::from_utf8(bytes).unwrap());
            for name in ["top.tar", "a/layer.tar", "./a//../top.tar"] {
                assert_eq!(read(name).as_deref(), Some("top"), "{name}");
            }
            assert_eq!(read("abs").is_some(), is_tar);
            for name in ["out", "loop", "fifo", "a", "top.tar/x", "../outside", "../../outside", "missing", ""] {
                assert_eq!(read(name), None, "{name}");
            }
            assert!(matches!(members.read("test", "top.tar", 2), Err(ArchiveError::Document { .. })));
            assert!(matches!(members.need("missing"), Err(ArchiveError::Missing(_))));
        }
        let text = Members::open(Input::Stream(Box::new(&b"some text that is no archive"[..])), &writer);
        assert!(matches!(text, Err(ArchiveError::Tar(_))));
    }
}
