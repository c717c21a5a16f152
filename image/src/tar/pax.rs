//! PAX extended headers. Values hold any byte, newlines too: records are cut by
//! their lengths alone.

use super::reader::Xattr;
use super::sparse::Records;
use crate::index::{Limits, TarFault};

/// What an extended header says of the member after it.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<i64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: Records,
}

/// One `LENGTH KEY=VALUE\n`.
struct Record<'a> {
    key: &'a [u8],
    value: &'a [u8],
}

fn records(mut data: &[u8]) -> impl Iterator<Item = Result<Record<'_>, TarFault>> {
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let record = cut(&mut data);
        if record.is_none() {
            data = &[];
        }
        Some(record.ok_or(TarFault::Pax))
    })
}

fn cut<'a>(data: &mut &'a [u8]) -> Option<Record<'a>> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let len = usize::try_from(decimal(&data[..space]).ok()?).ok()?;
    let record = data.get(space + 1..len)?;
    *data = &data[len..];
    let record = record.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    Some(Record { key: &record[..equals], value: &record[equals + 1..] })
}

/// Refuses a global header that would change how members are framed or named; of the rest, engines make nothing.
pub(super) fn check_global(data: &[u8]) -> Result<(), TarFault> {
    for record in records(data) {
        let key = record?.key;
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            return Err(TarFault::Global);
        }
    }
    Ok(())
}

impl Extended {
    /// Reads the records of a local header.
    pub(super) fn parse(data: &[u8], limits: &Limits) -> Result<Self, TarFault> {
        let mut extended = Self::default();
        for record in records(data) {
            let Record { key, value } = record?;
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                extended.add_xattr(name, value.to_vec(), true, limits)?;
            } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                extended.add_xattr(&unescape(name)?, unbase64(value)?, false, limits)?;
            } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                extended.sparse.add(key, value, limits)?;
            } else if !value.is_empty() {
                // An empty value takes a record back: the block's own counts.
                extended.add(key, value)?;
            } else {
                extended.clear(key);
            }
        }
        Ok(extended)
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarFault> {
        match key {
            b"path" => self.path = Some(name(value)?),
            b"linkpath" => self.link = Some(name(value)?),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            _ => {}
        }
        Ok(())
    }

    fn clear(&mut self, key: &[u8]) {
        match key {
            b"path" => self.path = None,
            b"linkpath" => self.link = None,
            b"size" => self.size = None,
            b"uid" => self.uid = None,
            b"gid" => self.gid = None,
            b"mtime" => self.mtime = None,
            _ => {}
        }
    }

    /// libarchive writes each attribute in both forms: the plain one counts.
    fn add_xattr(&mut self, name: &[u8], value: Vec<u8>, plain: bool, limits: &Limits) -> Result<(), TarFault> {
        if name.is_empty() || name.contains(&0) {
            return Err(TarFault::Pax);
        }
        if name.len() > limits.xattr_name {
            return Err(TarFault::Limit("bytes in the name of an xattr", limits.xattr_name as u64));
        }
        if value.len() > limits.xattr_value {
            return Err(TarFault::Limit("bytes in an xattr", limits.xattr_value as u64));
        }
        if let Some(known) = self.xattrs.iter_mut().find(|known| *known.name == *name) {
            if plain {
                known.value = value.into();
            }
            return Ok(());
        }
        if self.xattrs.len() >= limits.xattrs {
            return Err(TarFault::Limit("xattrs of one member", limits.xattrs as u64));
        }
        self.xattrs.push(Xattr { name: name.into(), value: value.into() });
        Ok(())
    }
}

/// The value of a name, which ends at no NUL.
pub(super) fn name(value: &[u8]) -> Result<Vec<u8>, TarFault> {
    if value.contains(&0) { Err(TarFault::Nul) } else { Ok(value.to_vec()) }
}

/// A number without sign.
pub(super) fn decimal(value: &[u8]) -> Result<i64, TarFault> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(TarFault::Number);
    }
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(TarFault::Number)
}

/// Seconds with an optional sign and fraction; digits finer than a nanosecond are cut off.
fn time(value: &[u8]) -> Result<(i64, u32), TarFault> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds = decimal(parts.next().unwrap_or_default())?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(TarFault::Number);
    }
    let digit = |at: usize| fraction.get(at).map_or(0, |digit| u32::from(digit - b'0'));
    let nanos = (0..9).fold(0, |nanos, at| nanos * 10 + digit(at));
    Ok(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// `%XX` as bytes.
fn unescape(name: &[u8]) -> Result<Vec<u8>, TarFault> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            plain.push(*byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(*digit).to_digit(16)).ok_or(TarFault::Pax);
        let value = digit()? * 16 + digit()?;
        plain.push(u8::try_from(value).map_err(|_| TarFault::Pax)?);
    }
    Ok(plain)
}

/// Base64 with or without its padding, as libarchive writes it.
fn unbase64(value: &[u8]) -> Result<Vec<u8>, TarFault> {
    let mut bytes = Vec::with_capacity(value.len() / 4 * 3 + 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in value.iter().take_while(|byte| **byte != b'=') {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(TarFault::Pax),
        };
        bits = (bits << 6) | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let len = (1..).find(|len: &usize| len.to_string().len() + body.len() == *len).unwrap();
        [len.to_string().as_bytes(), &body].concat()
    }

    fn parse(data: &[u8]) -> Result<Extended, TarFault> {
        Extended::parse(data, &Limits::default())
    }

    #[test]
    fn values_hold_newlines_and_equal_signs() {
        let data = [record("SCHILY.xattr.user.x", b"a\n7 b=c\n\0"), record("path", b"d\ne=f")].concat();
        let extended = parse(&data).unwrap();
        assert_eq!(&*extended.xattrs[0].value, b"a\n7 b=c\n\0");
        assert_eq!(extended.path.as_deref(), Some(&b"d\ne=f"[..]));
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"x"[..],
            b"9 a=b\n",
            b"5 a=b\n",
            b"6 a=b\nx",
            b"6 aab\n",
            b"5 =b\n",
            b"0 ",
            b"99999999999999999999 a=b\n",
        ] {
            assert_eq!(parse(bad).err(), Some(TarFault::Pax), "{bad:?}");
        }
        assert_eq!(parse(&record("path", b"a\0b")).err(), Some(TarFault::Nul));
        assert_eq!(parse(&record("size", b"-1")).err(), Some(TarFault::Number));
    }

    #[test]
    fn times_have_signs_and_fractions() {
        assert_eq!(time(b"12.5"), Ok((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Ok((-2, 750_000_000)));
        assert_eq!(time(b"-3"), Ok((-3, 0)));
        assert_eq!(time(b"1.1234567899"), Ok((1, 123_456_789)));
        assert!(time(b"1.x").is_err() && time(b"").is_err() && time(b"--1").is_err());
    }

    #[test]
    fn libarchives_form_of_an_attribute_is_read() {
        let extended = parse(&record("LIBARCHIVE.xattr.user.a%25b", b"aGkK")).unwrap();
        assert_eq!((&*extended.xattrs[0].name, &*extended.xattrs[0].value), (&b"user.a%b"[..], &b"hi\n"[..]));
        let both = [record("LIBARCHIVE.xattr.user.a", b"aGk"), record("SCHILY.xattr.user.a", b"ho")].concat();
        let extended = parse(&both).unwrap();
        assert_eq!((extended.xattrs.len(), &*extended.xattrs[0].value), (1, &b"ho"[..]));
    }
}
