//! The user's own terminal, and the keys that leave a container.

use std::os::fd::AsFd;

use anyhow::{Result, bail};
use rustix::io::Errno;
use rustix::termios::Winsize;

pub(crate) use lamel_isolate::attach::{Raw, terminal_size as size};

/// Tells a terminal its size.
pub(crate) fn resize(terminal: impl AsFd, (columns, rows): (u16, u16)) -> Result<(), Errno> {
    rustix::termios::tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
}

/// Keys that, one after the other, leave the container running and end the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    /// How many of them have been typed.
    typed: usize,
}

impl Default for DetachKeys {
    /// Ctrl-P Ctrl-Q, as docker has it.
    fn default() -> Self {
        Self { keys: vec![16, 17], typed: 0 }
    }
}

impl std::str::FromStr for DetachKeys {
    type Err = anyhow::Error;

    /// Reads `ctrl-p,ctrl-q`, `a`, `ctrl-@`; nothing for no keys at all.
    fn from_str(text: &str) -> Result<Self> {
        let key = |name: &str| match (name.as_bytes(), name.strip_prefix("ctrl-").map(str::as_bytes)) {
            (&[key], _) => Ok(key),
            (_, Some(&[key])) if key.is_ascii_lowercase() || b"@[\\]^_".contains(&key) => Ok(key & 0x1f),
            _ => bail!("{name:?} is no key: a character, or ctrl- and one of a-z @ [ \\ ] ^ _"),
        };
        let keys = text.split(',').filter(|name| !name.is_empty()).map(key).collect::<Result<_>>()?;
        Ok(Self { keys, typed: 0 })
    }
}

impl DetachKeys {
    /// What of the input is for the container, and whether the keys were among it. Keys that may be the beginning are
    /// held back until it is known.
    pub(crate) fn sift(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len());
        for &byte in input {
            if self.keys.get(self.typed) == Some(&byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(self.keys.get(..self.typed).unwrap_or_default());
            self.typed = usize::from(self.keys.first() == Some(&byte));
            if self.typed == 0 {
                passed.push(byte);
            } else if self.keys.len() == 1 {
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_docker_has_them() {
        assert_eq!("ctrl-p,ctrl-q".parse::<DetachKeys>().unwrap(), DetachKeys::default());
        assert_eq!("a,ctrl-@,ctrl-[".parse::<DetachKeys>().unwrap().keys, [b'a', 0, 27]);
        assert!("".parse::<DetachKeys>().unwrap().keys.is_empty());
        for text in ["ctrl-", "ctrl-1", "ctrl-ab", "ab", "shift-a"] {
            assert!(text.parse::<DetachKeys>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_the_keys_goes_through() {
        let sift = |parts: &[&[u8]]| {
            let mut keys = DetachKeys::default();
            let mut all = Vec::new();
            for part in parts {
                let (passed, found) = keys.sift(part);
                all.extend(passed);
                if found {
                    return (all, true);
                }
            }
            (all, false)
        };
        assert_eq!(sift(&[b"ab\x10", b"\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(sift(&[b"a\x10b", b"\x10\x10\x11"]), (b"a\x10b\x10".to_vec(), true));
        assert_eq!(sift(&[b"\x11\x11", b"x"]), (b"\x11\x11x".to_vec(), false));
        let mut none = "".parse::<DetachKeys>().unwrap();
        assert_eq!(none.sift(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
