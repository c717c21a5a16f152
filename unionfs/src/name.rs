//! A file name in two words: there is one for each inode, and another for where a layer has it.

use std::ffi::OsStr;
use std::fmt;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;

use triomphe::ThinArc;

/// Most names of a filesystem are no longer: they need no memory elsewhere.
const SHORT: usize = 15;

/// A name, or `.` for the object itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Name(Bytes);

#[derive(Clone, PartialEq, Eq)]
enum Bytes {
    /// With NULs behind it, and none in it.
    Short([u8; SHORT]),
    /// A clone shares it.
    Long(ThinArc<(), u8>),
}

impl From<&OsStr> for Name {
    fn from(name: &OsStr) -> Self {
        let name = name.as_bytes();
        let mut short = [0; SHORT];
        match short.get_mut(..name.len()) {
            // A redirect may hold a NUL, which must stay as it is for the kernel to refuse.
            Some(start) if !name.contains(&0) => {
                start.copy_from_slice(name);
                Self(Bytes::Short(short))
            }
            _ => Self(Bytes::Long(ThinArc::from_header_and_slice((), name))),
        }
    }
}

impl Deref for Name {
    type Target = OsStr;

    fn deref(&self) -> &OsStr {
        OsStr::from_bytes(match &self.0 {
            Bytes::Short(bytes) => bytes.split(|byte| *byte == 0).next().unwrap_or_default(),
            Bytes::Long(bytes) => &bytes.slice,
        })
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_length_and_byte_is_kept() {
        for text in ["", ".", "a", "fifteen letters", "sixteen  letters", "\u{e9}", "nul\0nul", "\0", "nul\0"] {
            let name = Name::from(OsStr::new(text));
            assert_eq!(&*name, text);
            assert!(name == name.clone() && name != Name::from(OsStr::new("other")));
        }
        assert!(Name::from(OsStr::new("nul")) != Name::from(OsStr::new("nul\0")));
        let bytes = OsStr::from_bytes(&[0xff; 255]);
        assert_eq!(&*Name::from(bytes), bytes);
    }

    /// The allocator's smallest piece is twice as large.
    #[test]
    fn a_name_is_small() {
        assert_eq!(size_of::<Name>(), 16);
    }
}
