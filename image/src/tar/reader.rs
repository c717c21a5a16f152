//! Members: a header block with what the extended headers before it say.

use std::io::{Read, Write};

use super::header::{Block, number};
use super::pax::{self, Extended};
use super::sparse::{self, Extent, Form};
use super::stream::{BLOCK, Stream, padding};
use crate::index::{IndexError, Limits, TarFault};

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// With its namespace.
    pub name: Box<[u8]>,
    /// Any bytes.
    pub value: Box<[u8]>,
}

/// What a member is.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Where its data begins in the archive.
        from: u64,
        /// Bytes of it.
        size: u64,
    },
    /// A regular file with holes.
    Sparse {
        /// Its data, in the order of the archive.
        map: Vec<Extent>,
        /// Bytes of the file.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symlink to this target.
    Symlink(Vec<u8>),
    /// Another name of the member of this path.
    HardLink(Vec<u8>),
    /// A character device.
    Char {
        /// Of its driver.
        major: u32,
        /// Of the device.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Of its driver.
        major: u32,
        /// Of the device.
        minor: u32,
    },
    /// A fifo.
    Fifo,
}

/// One member of an archive. Names are as they were written: nothing is resolved yet.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    /// Extended attributes.
    pub xattrs: Vec<Xattr>,
}

/// What stands before a member and belongs to it.
#[derive(Default)]
struct Before {
    extended: Option<Extended>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Before {
    fn is_empty(&self) -> bool {
        self.extended.is_none() && self.name.is_none() && self.link.is_none()
    }
}

/// Members, in the order of the archive.
pub struct Reader<'a> {
    stream: Stream<'a>,
    limits: &'a Limits,
    /// Data of the last member that was not read, and what fills its last block.
    unread: (u64, u64),
}

impl<'a> Reader<'a> {
    /// Reads an uncompressed archive.
    pub fn new(source: &'a mut dyn Read, limits: &'a Limits) -> Self {
        Self { stream: Stream::new(source), limits, unread: (0, 0) }
    }

    /// Bytes from the archive's beginning to where the reader stands.
    pub(crate) fn position(&self) -> u64 {
        self.stream.position()
    }

    /// Writes the data of the last member, without its holes. What is not written is passed over.
    ///
    /// # Errors
    /// The archive ends before it, or `out` fails.
    pub fn write_data(&mut self, out: &mut dyn Write) -> Result<(), IndexError> {
        self.stream.write(std::mem::take(&mut self.unread.0), out)
    }

    /// The next member; `None` at the end of the archive.
    ///
    /// # Errors
    /// [`IndexError`] says where the archive is malformed.
    #[allow(clippy::should_implement_trait, reason = "an iterator could not be asked for data between two steps")]
    pub fn next(&mut self) -> Result<Option<Member>, IndexError> {
        let mut before = Before::default();
        loop {
            let (data, padding) = std::mem::take(&mut self.unread);
            self.stream.skip(data, padding)?;
            let Some(bytes) = self.stream.block()? else {
                return Ok(None);
            };
            if bytes == [0; BLOCK] {
                return match self.stream.block()? {
                    Some(second) if second != [0; BLOCK] => Err(self.stream.fault(TarFault::LoneZeroBlock)),
                    _ => Ok(None),
                };
            }
            let block = Block::parse(&bytes).map_err(|fault| self.stream.fault(fault))?;
            match block.flag() {
                b'x' => {
                    let data = self.side_data(&block, self.limits.extended)?;
                    let parsed = Extended::parse(&data, self.limits).map_err(|fault| self.stream.fault(fault))?;
                    if before.extended.replace(parsed).is_some() {
                        return Err(self.stream.fault(TarFault::Twice));
                    }
                }
                b'g' => {
                    if !before.is_empty() {
                        return Err(self.stream.fault(TarFault::Twice));
                    }
                    let data = self.side_data(&block, self.limits.extended)?;
                    pax::check_global(&data).map_err(|fault| self.stream.fault(fault))?;
                }
                b'L' | b'K' => {
                    let mut data = self.side_data(&block, self.limits.path)?;
                    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
                    data.truncate(end);
                    let field = if block.flag() == b'L' { &mut before.name } else { &mut before.link };
                    if field.replace(data).is_some() {
                        return Err(self.stream.fault(TarFault::Twice));
                    }
                }
                _ => return self.member(&block, before).map(Some),
            }
        }
    }

    /// The data of a header that describes the next member.
    fn side_data(&mut self, block: &Block, most: usize) -> Result<Vec<u8>, IndexError> {
        let size = number(&block.old().size).map_err(|fault| self.stream.fault(fault))?;
        match usize::try_from(size) {
            Ok(size) if size <= most => self.stream.data(size),
            Ok(_) => Err(self.stream.fault(TarFault::Limit("bytes in an extended header", most as u64))),
            Err(_) => Err(self.stream.fault(TarFault::Number)),
        }
    }

    fn member(&mut self, block: &Block, before: Before) -> Result<Member, IndexError> {
        let mut extended = before.extended.unwrap_or_default();
        let attributes = self.attributes(block, &extended).map_err(|fault| self.stream.fault(fault))?;
        let (mode, uid, gid, mtime) = attributes;
        let names = || -> Result<_, TarFault> {
            let path = one_of(before.name, extended.path.take())?;
            let path = extended.sparse.name.take().or(path).unwrap_or_else(|| block.name());
            let link = one_of(before.link, extended.link.take())?.unwrap_or_else(|| block.link());
            Ok((path, link))
        };
        let (path, link) = names().map_err(|fault| self.stream.fault(fault))?;
        let kind = self.kind(block, &extended, &path, link)?;
        Ok(Member { path, kind, mode, uid, gid, mtime, xattrs: extended.xattrs })
    }

    #[allow(clippy::type_complexity, reason = "taken apart where it is called")]
    fn attributes(&self, block: &Block, extended: &Extended) -> Result<(u32, u32, u32, (i64, u32)), TarFault> {
        let old = block.old();
        // The number -1 means "leave it" to chown(2): nobody can own a file by it.
        let id = |record: Option<i64>, field: &[u8]| match u32::try_from(record.map_or_else(|| number(field), Ok)?) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(TarFault::Owner),
        };
        let mode = u32::try_from(number(&old.mode)? & 0o7777).unwrap_or_default();
        let mtime = match extended.mtime {
            Some(time) => time,
            None => (number(&old.mtime)?, 0),
        };
        Ok((mode, id(extended.uid, &old.uid)?, id(extended.gid, &old.gid)?, mtime))
    }

    fn kind(&mut self, block: &Block, extended: &Extended, path: &[u8], link: Vec<u8>) -> Result<Kind, IndexError> {
        let simple = match block.flag() {
            b'0' | b'7' if path.ends_with(b"/") => Err(TarFault::Slash),
            // The oldest writers had no type of its own for directories.
            0 if path.ends_with(b"/") => {
                let size = self.size(block, extended)?;
                self.unread = (size, padding(size));
                return Ok(Kind::Dir);
            }
            0 | b'0' | b'7' | b'S' => return self.file(block, extended),
            b'1' => Ok(Kind::HardLink(link)),
            b'2' => Ok(Kind::Symlink(link)),
            b'3' => device(block).map(|(major, minor)| Kind::Char { major, minor }),
            b'4' => device(block).map(|(major, minor)| Kind::Block { major, minor }),
            b'5' => Ok(Kind::Dir),
            b'6' => Ok(Kind::Fifo),
            other => Err(TarFault::Type(other)),
        };
        // The others have no data, whatever their size says: so POSIX, and so the engines read them.
        simple.map_err(|fault| self.stream.fault(fault))
    }

    /// Bytes of data behind the header.
    fn size(&self, block: &Block, extended: &Extended) -> Result<u64, IndexError> {
        let size = match extended.size {
            Some(size) => Ok(size),
            None => number(&block.old().size),
        };
        let size = size.and_then(|size| u64::try_from(size).map_err(|_| TarFault::Number));
        size.map_err(|fault| self.stream.fault(fault))
    }

    fn file(&mut self, block: &Block, extended: &Extended) -> Result<Kind, IndexError> {
        let stored = self.size(block, extended)?;
        let form = extended.sparse.form().map_err(|fault| self.stream.fault(fault))?;
        let (map, taken, size) = match (block.flag(), form) {
            (b'S', Form::Plain) => {
                let (map, size) = self.gnu_map(block)?;
                (map, 0, size)
            }
            (b'S', _) => return Err(self.stream.fault(TarFault::Sparse)),
            (_, Form::Plain) => {
                let from = self.stream.position();
                self.unread = (stored, padding(stored));
                return Ok(Kind::File { from, size: stored });
            }
            (_, Form::Listed) => {
                let map = extended.sparse.map().map_err(|fault| self.stream.fault(fault))?;
                (map, 0, extended.sparse.size(stored))
            }
            (_, Form::Leading) => {
                let (map, taken) = sparse::leading_map(&mut self.stream, stored, self.limits)?;
                (map, taken, extended.sparse.size(stored))
            }
        };
        // The map is a part of the data and fills whole blocks.
        let data = stored - taken;
        self.unread = (data, padding(data));
        let from = self.stream.position();
        let map = sparse::placed(map, size, data, from).map_err(|fault| self.stream.fault(fault))?;
        if i64::try_from(size).is_err() {
            return Err(self.stream.fault(TarFault::Number));
        }
        Ok(Kind::Sparse { map, size })
    }

    /// The map of GNU's own header type, and the file's length.
    fn gnu_map(&mut self, block: &Block) -> Result<(Vec<Extent>, u64), IndexError> {
        let Some(header) = block.gnu() else {
            return Err(self.stream.fault(TarFault::Sparse));
        };
        let mut map = Vec::new();
        let mut read = || -> Result<_, TarFault> {
            sparse::add_gnu(&mut map, &header.sparse, self.limits)?;
            u64::try_from(number(&header.realsize)?).map_err(|_| TarFault::Number)
        };
        let size = read().map_err(|fault| self.stream.fault(fault))?;
        let mut more = header.is_extended();
        while more {
            let mut extension = tar::GnuExtSparseHeader::new();
            extension.as_mut_bytes().copy_from_slice(&self.stream.need_block()?);
            sparse::add_gnu(&mut map, extension.sparse(), self.limits).map_err(|fault| self.stream.fault(fault))?;
            more = extension.is_extended();
        }
        Ok((map, size))
    }
}

/// A name that two extended headers may give: readers differ in which one counts.
fn one_of(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, TarFault> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err(TarFault::TwoNames),
        (gnu, pax) => Ok(gnu.or(pax)),
    }
}

fn device(block: &Block) -> Result<(u32, u32), TarFault> {
    let (major, minor) = block.device()?;
    let within = |number: i64, bits: u32| u32::try_from(number).ok().filter(|number| number >> bits == 0);
    within(major, 12).zip(within(minor, 20)).ok_or(TarFault::Device)
}
