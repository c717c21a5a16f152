//! Values of single options.

use std::time::Duration;

use super::OptionError;
use super::text::{Token, shown};

impl<'a> Token<'a> {
    /// The value of an option that cannot do without.
    pub(super) fn needed(&self) -> Result<&'a [u8], OptionError> {
        self.value.ok_or_else(|| OptionError::NeedsValue { name: shown(self.key) })
    }

    /// Refuses a value where none belongs.
    pub(super) fn bare(&self) -> Result<(), OptionError> {
        match self.value {
            None => Ok(()),
            Some(_) => Err(OptionError::NoValue { name: shown(self.key) }),
        }
    }

    /// The error for a value that is none of those `expected`.
    pub(super) fn bad(&self, expected: &'static str) -> OptionError {
        let value = shown(self.value.unwrap_or_default());
        OptionError::BadValue { name: shown(self.key), value, expected }
    }

    /// `on` or `off`, in any of the usual spellings; without a value: on.
    pub(super) fn switch(&self) -> Result<bool, OptionError> {
        match self.value {
            None | Some(b"on" | b"1" | b"yes" | b"true") => Ok(true),
            Some(b"off" | b"0" | b"no" | b"false") => Ok(false),
            Some(_) => Err(self.bad("on or off")),
        }
    }

    /// A whole number.
    pub(super) fn number(&self) -> Result<u32, OptionError> {
        let value = self.needed()?;
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| self.bad("a number from 0 to 4294967295"))
    }

    /// A uid or gid: a number that is not the "none" of the kernel.
    pub(super) fn id(&self) -> Result<u32, OptionError> {
        self.number().and_then(|id| if id == u32::MAX { Err(self.bad("an id below 4294967295")) } else { Ok(id) })
    }

    /// Seconds with a fraction; `None` when that is practically for ever.
    pub(super) fn seconds(&self) -> Result<Option<Duration>, OptionError> {
        const FOR_EVER: f64 = 1e9;
        let text = std::str::from_utf8(self.needed()?).ok();
        let seconds = text.and_then(|text| text.parse::<f64>().ok()).filter(|seconds| *seconds >= 0.0);
        match seconds {
            Some(seconds) if seconds < FOR_EVER => Ok(Some(Duration::from_secs_f64(seconds))),
            Some(_) => Ok(None),
            None => Err(self.bad("a number of seconds")),
        }
    }

    /// Text for the kernel, which is UTF-8 here.
    pub(super) fn text(&self) -> Result<String, OptionError> {
        let value = self.needed()?;
        let text = std::str::from_utf8(value).ok().filter(|text| !text.chars().any(char::is_control));
        text.map(str::to_owned).ok_or_else(|| self.bad("printable text"))
    }
}
