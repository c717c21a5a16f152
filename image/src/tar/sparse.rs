//! Where the data of a sparse file belongs: GNU's own header type, and the
//! three forms that PAX records have had.

use super::header::number;
use super::pax::{decimal, name};
use super::stream::{BLOCK, Stream};
use crate::index::{IndexError, Limits, TarFault};

/// A stretch of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file.
    pub at: u64,
    /// Offset of the data, in the archive once the map is checked.
    pub from: u64,
    /// Bytes.
    pub len: u64,
}

/// `GNU.sparse.*` records.
#[derive(Debug, Default)]
pub(super) struct Records {
    major: Option<i64>,
    minor: Option<i64>,
    /// Name of the file; the member's own is made up.
    pub(super) name: Option<Vec<u8>>,
    size: Option<i64>,
    /// Offsets and lengths in turn, as forms 0.0 and 0.1 list them.
    numbers: Vec<i64>,
    mapped: bool,
}

/// How the map of a member is found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    /// In the records.
    Listed,
    /// At the beginning of the data.
    Leading,
}

fn too_many(limits: &Limits) -> TarFault {
    TarFault::Limit("stretches of data in a sparse file", limits.extents as u64)
}

impl Records {
    pub(super) fn add(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<(), TarFault> {
        match key {
            b"major" => self.major = Some(decimal(value)?),
            b"minor" => self.minor = Some(decimal(value)?),
            b"name" => self.name = Some(name(value)?).filter(|name| !name.is_empty()),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"offset" if self.numbers.len().is_multiple_of(2) => self.push(value, limits)?,
            b"numbytes" if !self.numbers.len().is_multiple_of(2) => self.push(value, limits)?,
            b"offset" | b"numbytes" => return Err(TarFault::Sparse),
            b"map" => {
                self.mapped = true;
                self.numbers.clear();
                value.split(|byte| *byte == b',').try_for_each(|value| self.push(value, limits))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, value: &[u8], limits: &Limits) -> Result<(), TarFault> {
        if self.numbers.len() >= 2 * limits.extents {
            return Err(too_many(limits));
        }
        self.numbers.push(decimal(value)?);
        Ok(())
    }

    pub(super) fn form(&self) -> Result<Form, TarFault> {
        match (self.major, self.minor) {
            (Some(1), Some(0)) => Ok(Form::Leading),
            (Some(0), Some(0 | 1)) => Ok(Form::Listed),
            (None, None) if self.mapped || !self.numbers.is_empty() => Ok(Form::Listed),
            (None, None) => Ok(Form::Plain),
            _ => Err(TarFault::Sparse),
        }
    }

    /// Length of the file; that of the data without a record of it.
    pub(super) fn size(&self, data: u64) -> u64 {
        self.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(data)
    }

    /// The map of a listed form.
    pub(super) fn map(&self) -> Result<Vec<Extent>, TarFault> {
        pairs(&self.numbers)
    }
}

/// Checks a map against the length of the file and of its data, and places it in the archive.
pub(super) fn placed(mut map: Vec<Extent>, size: u64, data: u64, base: u64) -> Result<Vec<Extent>, TarFault> {
    let (mut end, mut stored) = (0_u64, 0_u64);
    for extent in &mut map {
        let next = extent.at.checked_add(extent.len).ok_or(TarFault::Sparse)?;
        if extent.at < end || next > size {
            return Err(TarFault::Sparse);
        }
        extent.from = base.checked_add(stored).ok_or(TarFault::Sparse)?;
        stored = stored.checked_add(extent.len).ok_or(TarFault::Sparse)?;
        end = next;
    }
    if stored != data {
        return Err(TarFault::Sparse);
    }
    map.retain(|extent| extent.len > 0);
    Ok(map)
}

fn pairs(numbers: &[i64]) -> Result<Vec<Extent>, TarFault> {
    let unsigned = |number: i64| u64::try_from(number).map_err(|_| TarFault::Sparse);
    let mut map = Vec::with_capacity(numbers.len() / 2);
    for pair in numbers.chunks(2) {
        let [at, len] = pair else {
            return Err(TarFault::Sparse);
        };
        map.push(Extent { at: unsigned(*at)?, from: 0, len: unsigned(*len)? });
    }
    Ok(map)
}

/// Reads the map of form 1.0, decimal numbers a line each; returns it and the bytes that it took.
pub(super) fn leading_map(
    stream: &mut Stream<'_>,
    data: u64,
    limits: &Limits,
) -> Result<(Vec<Extent>, u64), IndexError> {
    let mut numbers: Vec<i64> = Vec::new();
    let mut wanted = None;
    let mut digits = Vec::new();
    let mut taken = 0;
    while wanted.is_none_or(|wanted| numbers.len() < wanted) {
        taken += BLOCK as u64;
        if taken > data {
            return Err(stream.fault(TarFault::Sparse));
        }
        for byte in stream.need_block()? {
            if byte != b'\n' {
                digits.push(byte);
                if digits.len() > 20 {
                    return Err(stream.fault(TarFault::Sparse));
                }
                continue;
            }
            let value = decimal(&digits).map_err(|fault| stream.fault(fault))?;
            digits.clear();
            match wanted {
                None => {
                    let count = usize::try_from(value).unwrap_or(usize::MAX);
                    if count > limits.extents {
                        return Err(stream.fault(too_many(limits)));
                    }
                    wanted = Some(count * 2);
                }
                Some(_) => numbers.push(value),
            }
            if wanted.is_some_and(|wanted| numbers.len() >= wanted) {
                break;
            }
        }
    }
    let map = pairs(&numbers).map_err(|fault| stream.fault(fault))?;
    Ok((map, taken))
}

/// Adds the entries of one of GNU's header blocks; false at the end of the map.
pub(super) fn add_gnu(
    map: &mut Vec<Extent>,
    entries: &[tar::GnuSparseHeader],
    limits: &Limits,
) -> Result<bool, TarFault> {
    for entry in entries {
        if entry.is_empty() {
            return Ok(false);
        }
        if map.len() >= limits.extents {
            return Err(too_many(limits));
        }
        map.extend(pairs(&[number(&entry.offset)?, number(&entry.numbytes)?])?);
    }
    Ok(true)
}
