//! Writing a tar that every reader takes alike: ustar headers, and PAX records for what does not fit into their fields.
//!
//! The same members give the same bytes. Sparse files are written in the form 1.0 of GNU's PAX records, which GNU tar,
//! libarchive and Go's `archive/tar` read.

use std::io::{self, Write};

use tar::{EntryType, Header};

use super::stream::BLOCK;

/// The longest name that a header's own field holds.
const NAME: usize = 100;
/// The greatest owner and time that octal digits hold in their fields.
const MAX_ID: u32 = 0o7_777_777;
const MAX_TIME: i64 = 0o77_777_777_777;
/// The greatest size in octal digits; PAX says greater ones, and base 256 in the field repeats them.
const MAX_SIZE: u64 = 0o77_777_777_777;

/// What a member has whatever it is.
#[derive(Clone, Debug, Default)]
pub struct Attributes<'a> {
    /// Permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Names and values of its extended attributes.
    pub xattrs: Vec<(&'a [u8], &'a [u8])>,
}

/// What a member without data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A directory.
    Dir,
    /// A symbolic link to this.
    Symlink(&'a [u8]),
    /// Another name of the member of this one, which was written before.
    HardLink(&'a [u8]),
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A tar in the making. Without [`Writer::finish`] it has no end.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Begins one.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Adds a member without data. Paths are relative to the archive's root, which is `.`.
    ///
    /// # Errors
    /// Those of the output.
    pub fn add(&mut self, path: &[u8], kind: Kind<'_>, attributes: &Attributes<'_>) -> io::Result<()> {
        let mut head = Head::new(attributes);
        let mut path = path.to_vec();
        let flag = match kind {
            Kind::Dir => {
                if !path.ends_with(b"/") {
                    path.push(b'/');
                }
                EntryType::Directory
            }
            Kind::Symlink(_) => EntryType::Symlink,
            Kind::HardLink(_) => EntryType::Link,
            Kind::Char(..) => EntryType::Char,
            Kind::Block(..) => EntryType::Block,
            Kind::Fifo => EntryType::Fifo,
        };
        head.header.set_entry_type(flag);
        head.path(&path);
        match kind {
            Kind::Symlink(target) | Kind::HardLink(target) => head.link(target),
            Kind::Char(major, minor) | Kind::Block(major, minor) => {
                head.header.set_device_major(major)?;
                head.header.set_device_minor(minor)?;
            }
            Kind::Dir | Kind::Fifo => {}
        }
        head.write(&mut self.out)
    }

    /// Adds a regular file of `size` bytes. `data` says where it has any: offsets and lengths, in their order; the rest
    /// are holes. `content` writes those stretches, one after the other, and nothing of the holes.
    ///
    /// # Errors
    /// Those of the output and of `content`; [`io::ErrorKind::InvalidData`] if that wrote more or less than was said.
    pub fn add_file<E: From<io::Error>>(
        &mut self,
        path: &[u8],
        size: u64,
        data: &[(u64, u64)],
        attributes: &Attributes<'_>,
        content: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut head = Head::new(attributes);
        head.header.set_entry_type(EntryType::Regular);
        let stored = data.iter().fold(0, |sum: u64, (_, len)| sum.saturating_add(*len));
        let map = if stored == size { Vec::new() } else { sparse_map(size, data) };
        if map.is_empty() {
            head.path(path);
        } else {
            head.sparse(path, size);
        }
        head.size(stored.saturating_add(map.len() as u64));
        head.write(&mut self.out)?;
        self.out.write_all(&map)?;
        let mut exact = Exact { out: &mut self.out, left: stored };
        content(&mut exact)?;
        if exact.left > 0 {
            return Err(changed().into());
        }
        Ok(pad(&mut self.out, stored)?)
    }

    /// Writes the end of the archive.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the file changed while it was read")
}

/// Takes as many bytes as a header has announced.
struct Exact<'a, W> {
    out: &'a mut W,
    left: u64,
}

impl<W: Write> Write for Exact<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(changed());
        }
        let count = self.out.write(bytes)?;
        self.left -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Fills the last block.
fn pad(out: &mut impl Write, written: u64) -> io::Result<()> {
    let over = usize::try_from(written % BLOCK as u64).unwrap_or_default();
    out.write_all([0; BLOCK].get(..(BLOCK - over) % BLOCK).unwrap_or_default())
}

/// The map that stands before a sparse file's data: how many stretches, then offset and length of each, a line each.
fn sparse_map(size: u64, data: &[(u64, u64)]) -> Vec<u8> {
    let mut stretches: Vec<(u64, u64)> = data.iter().copied().filter(|(_, len)| *len > 0).collect();
    // GNU tar makes a hole at the end by a stretch of no length.
    if stretches.last().is_none_or(|(at, len)| at.saturating_add(*len) < size) {
        stretches.push((size, 0));
    }
    let mut map = format!("{}\n", stretches.len()).into_bytes();
    for (at, len) in stretches {
        map.extend_from_slice(format!("{at}\n{len}\n").as_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// A member's header, and what does not fit into it.
struct Head {
    header: Header,
    records: Vec<u8>,
    /// The bytes of its path that its last component has.
    base: Vec<u8>,
}

impl Head {
    fn new(attributes: &Attributes<'_>) -> Self {
        let mut head = Self { header: Header::new_ustar(), records: Vec::new(), base: Vec::new() };
        head.header.set_mode(attributes.mode & 0o7777);
        head.header.set_size(0);
        for (key, id) in [("uid", attributes.uid), ("gid", attributes.gid)] {
            if id > MAX_ID {
                head.record(key.as_bytes(), id.to_string().as_bytes());
            }
        }
        head.header.set_uid(attributes.uid.into());
        head.header.set_gid(attributes.gid.into());
        let (seconds, nanos) = attributes.mtime;
        if nanos != 0 || !(0..=MAX_TIME).contains(&seconds) {
            head.record(b"mtime", time(seconds, nanos).as_bytes());
        }
        head.header.set_mtime(u64::try_from(seconds.min(MAX_TIME)).unwrap_or_default());
        let mut xattrs = attributes.xattrs.clone();
        xattrs.sort_unstable();
        for (name, value) in xattrs {
            // A key ends at its first equal sign, and GNU tar takes `%` for an escape.
            if name.contains(&b'=') || name.contains(&b'%') {
                head.record(&[b"LIBARCHIVE.xattr.".as_slice(), &escape(name)].concat(), base64(value).as_bytes());
            } else {
                head.record(&[b"SCHILY.xattr.".as_slice(), name].concat(), value);
            }
        }
        head
    }

    /// `LENGTH KEY=VALUE\n`, where the length counts its own digits too.
    fn record(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut digits = 1;
        while (rest + digits).to_string().len() > digits {
            digits += 1;
        }
        self.records.extend_from_slice((rest + digits).to_string().as_bytes());
        for part in [b" ".as_slice(), key, b"=", value, b"\n"] {
            self.records.extend_from_slice(part);
        }
    }

    fn path(&mut self, path: &[u8]) {
        self.base = base(path).to_vec();
        fill(&mut self.header.as_old_mut().name, path);
        if path.len() > NAME {
            self.text(b"path", path);
        }
    }

    fn link(&mut self, target: &[u8]) {
        fill(&mut self.header.as_old_mut().linkname, target);
        if target.len() > NAME {
            self.text(b"linkpath", target);
        }
    }

    /// A name in a record, which is UTF-8 unless said otherwise. What stands in a header's field is bytes.
    fn text(&mut self, key: &[u8], name: &[u8]) {
        if std::str::from_utf8(name).is_err() {
            self.record(b"hdrcharset", b"BINARY");
        }
        self.record(key, name);
    }

    fn sparse(&mut self, path: &[u8], size: u64) {
        self.record(b"GNU.sparse.major", b"1");
        self.record(b"GNU.sparse.minor", b"0");
        self.text(b"GNU.sparse.name", path);
        self.record(b"GNU.sparse.realsize", size.to_string().as_bytes());
        // Under this name comes out, where nobody knows of such files, what is stored.
        self.base = base(path).to_vec();
        let name = [b"GNUSparseFile.0/".as_slice(), &self.base].concat();
        fill(&mut self.header.as_old_mut().name, &name);
    }

    fn size(&mut self, size: u64) {
        if size > MAX_SIZE {
            self.record(b"size", size.to_string().as_bytes());
        }
        self.header.set_size(size);
    }

    fn write(mut self, out: &mut impl Write) -> io::Result<()> {
        if !self.records.is_empty() {
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            fill(&mut extended.as_old_mut().name, &[b"PaxHeaders/".as_slice(), &self.base].concat());
            extended.set_mode(0o644);
            for id in [Header::set_uid, Header::set_gid, Header::set_mtime, Header::set_size] {
                id(&mut extended, 0);
            }
            extended.set_size(self.records.len() as u64);
            extended.set_cksum();
            out.write_all(extended.as_bytes())?;
            out.write_all(&self.records)?;
            pad(out, self.records.len() as u64)?;
        }
        self.header.set_cksum();
        out.write_all(self.header.as_bytes())
    }
}

/// The last component of a path.
fn base(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Fills a field with a name, as far as it goes.
fn fill(field: &mut [u8; NAME], name: &[u8]) {
    field.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
}

/// Seconds with their fraction; of a time before 1970, the distance to it.
fn time(seconds: i64, nanos: u32) -> String {
    let (sign, whole, part) = match (seconds, nanos) {
        (0.., _) => ("", seconds.unsigned_abs(), nanos),
        (_, 0) => ("-", seconds.unsigned_abs(), 0),
        _ => ("-", seconds.unsigned_abs() - 1, 1_000_000_000_u32.saturating_sub(nanos)),
    };
    let text = format!("{sign}{whole}.{part:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name {
        if byte.is_ascii_graphic() && !matches!(byte, b'=' | b'%') {
            escaped.push(*byte);
        } else {
            escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    escaped
}

fn base64(value: &[u8]) -> String {
    use base64::Engine as _;
    // As libarchive writes it.
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(value)
}

#[cfg(test)]
mod tests {
    use super::super::{Kind as Read, Member, Reader};
    use super::*;
    use crate::index::Limits;

    /// What lamel's own reader makes of it.
    fn read(tar: &[u8]) -> Vec<Member> {
        let mut source = tar;
        let limits = Limits::default();
        let mut reader = Reader::new(&mut source, &limits);
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut writer = Writer::new(Vec::new());
        let long = [b"d/".as_slice(), &[b'\xff'; 250]].concat();
        let xattrs: Vec<(&[u8], &[u8])> = vec![(b"user.b", b"x\n=\0"), (b"user.a=%", b"hi\n")];
        let attributes = Attributes { mode: 0o4755, uid: u32::MAX - 1, gid: 5, mtime: (-2, 750_000_000), xattrs };
        writer.add(b".", Kind::Dir, &Attributes::default()).unwrap();
        writer.add(&long, Kind::Symlink(&long), &attributes).unwrap();
        writer.add(b"null", Kind::Char(4095, 0xf_ffff), &attributes).unwrap();
        writer.add_file(b"f", 5, &[(0, 5)], &attributes, |out| out.write_all(b"hello")).unwrap();
        writer.add(b"g", Kind::HardLink(b"f"), &attributes).unwrap();
        let sparse = [(512, 3), (1 << 40, 2)];
        writer.add_file(b"d/s", 1 << 41, &sparse, &attributes, |out| out.write_all(b"abcde")).unwrap();
        writer.add_file(b"hole", 7, &[], &attributes, |_| Ok::<(), io::Error>(())).unwrap();
        let tar = writer.finish().unwrap();
        let found = read(&tar);
        let paths: Vec<&[u8]> = found.iter().map(|member| member.path.as_slice()).collect();
        assert_eq!(paths, [b"./".as_slice(), &long, b"null", b"f", b"g", b"d/s", b"hole"]);
        for member in &found[1..] {
            assert_eq!((member.uid, member.mtime), (u32::MAX - 1, (-2, 750_000_000)));
            for (name, value) in [(b"user.a=%".as_slice(), b"hi\n".as_slice()), (b"user.b", b"x\n=\0")] {
                assert!(member.xattrs.iter().any(|xattr| *xattr.name == *name && *xattr.value == *value), "{member:?}");
            }
        }
        assert_eq!(found[1].kind, Read::Symlink(long));
        assert_eq!(found[2].kind, Read::Char { major: 4095, minor: 0xf_ffff });
        assert!(
            matches!(found[3].kind, Read::File { from, size: 5 } if tar[usize::try_from(from).unwrap()..].starts_with(b"hello"))
        );
        assert_eq!(found[4].kind, Read::HardLink(b"f".to_vec()));
        let Read::Sparse { map, size } = &found[5].kind else { panic!("{:?}", found[5]) };
        let stretches: Vec<(u64, u64)> =
            map.iter().map(|extent| (extent.at, extent.len)).filter(|(_, len)| *len > 0).collect();
        assert_eq!((stretches.as_slice(), *size), (sparse.as_slice(), 1 << 41));
        assert!(matches!(&found[6].kind, Read::Sparse { size: 7, .. }));
    }

    #[test]
    fn a_file_that_changes_is_refused() {
        for written in [&b"abc"[..], b"abcdefg"] {
            let mut writer = Writer::new(Vec::new());
            let done = writer.add_file(b"f", 5, &[(0, 5)], &Attributes::default(), |out| out.write_all(written));
            assert_eq!(done.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn times_have_signs_and_fractions() {
        let all = [(12, 500_000_000), (-2, 750_000_000), (-3, 0), (0, 0), (-1, 1), (1, 1)].map(|(s, n)| time(s, n));
        assert_eq!(all, ["12.5", "-1.25", "-3", "0", "-0.999999999", "1.000000001"]);
    }
}
