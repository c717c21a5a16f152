//! `--detach-keys`: the keys that leave a container alone that one is attached to.

use anyhow::{Result, bail};

/// As docker has them.
pub(crate) const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Reads keys as docker writes them: characters and `ctrl-X`, with commas between; none at all for no way out.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',').map(key).collect()
}

fn key(text: &str) -> Result<u8> {
    Ok(match (text.strip_prefix("ctrl-").map(str::as_bytes), text.as_bytes()) {
        (Some([letter @ b'a'..=b'z']), _) => letter - b'a' + 1,
        (Some([letter @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]), _) => letter - b'@',
        (None, [byte]) if byte.is_ascii() => *byte,
        _ => bail!("--detach-keys: {text:?} is neither a character nor ctrl- with one of a-z, @, [, \\, ], ^ and _"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_docker_writes_them() {
        assert_eq!(parse(DEFAULT).unwrap(), [16, 17]);
        assert_eq!(parse("ctrl-@,a,ctrl-_,ctrl-\\").unwrap(), [0, b'a', 31, 28]);
        assert_eq!(parse("").unwrap(), []);
        for text in ["ctrl-", "ctrl-A", "ctrl-ab", "ab", "a,", "é"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
