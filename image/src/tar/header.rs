//! One header block.

use tar::{GnuHeader, Header, OldHeader, UstarHeader};

use super::stream::BLOCK;
use crate::index::TarFault;

/// A header whose checksum is right.
pub(super) struct Block(Header);

impl Block {
    /// Checks a block that is not all zeros.
    pub(super) fn parse(bytes: &[u8; BLOCK]) -> Result<Self, TarFault> {
        let block = Self(Header::from_byte_slice(bytes).clone());
        let written = number(&block.old().cksum).map_err(|_| TarFault::Checksum)?;
        // Some writers summed the bytes as signed ones: every reader takes both.
        let blank = |at: usize| (148..156).contains(&at);
        let sum = |of: fn(u8) -> i64| -> i64 {
            bytes.iter().enumerate().map(|(at, byte)| of(if blank(at) { b' ' } else { *byte })).sum()
        };
        if written != sum(i64::from) && written != sum(|byte| i64::from(byte.cast_signed())) {
            return Err(TarFault::Checksum);
        }
        if block.0.as_ustar().is_none() && block.0.as_gnu().is_none() && bytes[257..].starts_with(b"ustar") {
            return Err(TarFault::Format);
        }
        Ok(block)
    }

    pub(super) fn old(&self) -> &OldHeader {
        self.0.as_old()
    }

    pub(super) fn gnu(&self) -> Option<&GnuHeader> {
        self.0.as_gnu()
    }

    fn ustar(&self) -> Option<&UstarHeader> {
        self.0.as_ustar()
    }

    /// The type flag.
    pub(super) fn flag(&self) -> u8 {
        self.0.as_bytes()[156]
    }

    /// The name that stands in the block.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.old().name);
        let Some(ustar) = self.ustar() else {
            return name.to_vec();
        };
        // star keeps times behind a shorter prefix.
        let star = self.0.as_bytes().ends_with(b"tar\0");
        match text(if star { &ustar.prefix[..131] } else { &ustar.prefix }) {
            [] => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    /// The link target that stands in the block.
    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.old().linkname).to_vec()
    }

    /// Major and minor number of a device.
    pub(super) fn device(&self) -> Result<(i64, i64), TarFault> {
        match (self.ustar(), self.gnu()) {
            (Some(header), _) => Ok((number(&header.dev_major)?, number(&header.dev_minor)?)),
            (_, Some(header)) => Ok((number(&header.dev_major)?, number(&header.dev_minor)?)),
            _ => Ok((0, 0)),
        }
    }
}

/// A text field, which ends at its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A numeric field: octal digits, or base-256 in two's complement where the first bit is set.
pub(super) fn number(field: &[u8]) -> Result<i64, TarFault> {
    let Some((first, rest)) = field.split_first() else {
        return Ok(0);
    };
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let top = i64::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        return rest.iter().try_fold(top, |value, byte| {
            value.checked_mul(256).and_then(|value| value.checked_add(i64::from(*byte))).ok_or(TarFault::Number)
        });
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = field[start..].split(blank).next().unwrap_or_default();
    digits.iter().try_fold(0_i64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8).map(|value| value + i64::from(byte - b'0')).ok_or(TarFault::Number),
        _ => Err(TarFault::Number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"   644 \0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0"), Ok(0));
        assert_eq!(number(b"777777777777"), Ok((1 << 36) - 1));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Ok(1 << 33));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), Ok(-2));
        assert_eq!(number(b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff"), Ok(i64::MAX));
        for bad in
            [&b"12x\0"[..], b"8", b"-1", b"0x10", b"\x80\x80\0\0\0\0\0\0\0", b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff"]
        {
            assert_eq!(number(bad), Err(TarFault::Number), "{bad:?}");
        }
    }
}
