//! The grammar that both dialects share: options between commas, paths between
//! colons, backslash escapes, and quotes around a value.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{MAX_LOWERS, MAX_PATH, MAX_TEXT, OptionError};

/// One option as it stands between two commas; escapes are still in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// What is left of the first `=`.
    pub(super) key: &'a [u8],
    /// What is right of it, without the quotes around it.
    pub(super) value: Option<&'a [u8]>,
}

/// Splits an option string. Empty options are dropped: `a,,b,` is `a,b`.
///
/// A value that begins with `"` extends to the next `"`, commas included, as
/// libmount has it for `context="a,b"`; a quote anywhere else is a plain byte.
pub(super) fn tokens(text: &OsStr) -> Result<Vec<Token<'_>>, OptionError> {
    let bytes = text.as_bytes();
    if bytes.len() > MAX_TEXT {
        return Err(OptionError::TooLong { len: bytes.len() });
    }
    if bytes.contains(&0) {
        return Err(OptionError::Nul);
    }
    let mut tokens = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (token, after) = next_token(rest)?;
        tokens.extend(token);
        rest = after;
    }
    Ok(tokens)
}

fn next_token(text: &[u8]) -> Result<(Option<Token<'_>>, &[u8]), OptionError> {
    let key_end = end_of(text, |byte| byte == b',' || byte == b'=');
    let (key, rest) = text.split_at(key_end);
    let Some(value) = rest.strip_prefix(b"=") else {
        let token = (!key.is_empty()).then_some(Token { key, value: None });
        return Ok((token, rest.get(1..).unwrap_or_default()));
    };
    if let Some(quoted) = value.strip_prefix(b"\"") {
        let close = quoted.iter().position(|byte| *byte == b'"');
        let (inner, after) = match close {
            Some(at) => (&quoted[..at], &quoted[at + 1..]),
            None => return Err(OptionError::UnclosedQuote { name: shown(key) }),
        };
        return match after.first() {
            None | Some(b',') => Ok((Some(Token { key, value: Some(inner) }), after.get(1..).unwrap_or_default())),
            Some(_) => Err(OptionError::UnclosedQuote { name: shown(key) }),
        };
    }
    let value_end = end_of(value, |byte| byte == b',');
    let (value, rest) = value.split_at(value_end);
    Ok((Some(Token { key, value: Some(value) }), rest.get(1..).unwrap_or_default()))
}

/// Position of the first unescaped byte that `stops`, or the length.
fn end_of(text: &[u8], stops: impl Fn(u8) -> bool) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if *byte == b'\\' {
            at += 1;
        } else if stops(*byte) {
            return at;
        }
        at += 1;
    }
    text.len()
}

/// `\x` becomes `x`; a lone backslash at the end stays.
fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(byte) = bytes.next() {
        let escaped = if *byte == b'\\' { bytes.next() } else { None };
        plain.push(*escaped.unwrap_or(byte));
    }
    plain
}

/// A value that names one path.
pub(super) fn path(key: &[u8], raw: &[u8]) -> Result<PathBuf, OptionError> {
    let plain = unescape(raw);
    if plain.is_empty() {
        return Err(OptionError::EmptyPath { name: shown(key) });
    }
    if plain.len() > MAX_PATH {
        return Err(OptionError::PathTooLong { name: shown(key), len: plain.len() });
    }
    Ok(PathBuf::from(OsString::from_vec(plain)))
}

/// A value that names several paths between unescaped colons.
pub(super) fn paths(key: &[u8], raw: &[u8]) -> Result<Vec<PathBuf>, OptionError> {
    let mut found = Vec::new();
    let mut rest = Some(raw);
    while let Some(text) = rest {
        let end = end_of(text, |byte| byte == b':');
        if found.len() == MAX_LOWERS {
            let more = text.iter().filter(|byte| **byte == b':').count();
            return Err(OptionError::TooManyLowers { count: MAX_LOWERS + 1 + more });
        }
        found.push(path(key, &text[..end])?);
        rest = text.get(end + 1..);
    }
    Ok(found)
}

/// A name or value for a message: printable, and not longer than a line.
pub(super) fn shown(raw: &[u8]) -> String {
    const LONGEST: usize = 80;
    let text: String = String::from_utf8_lossy(raw)
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .take(LONGEST + 1)
        .collect();
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// Writes a path so that it stands for itself in an option string, alone or in a `lowerdir=` list.
pub fn escape_path(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes();
    let mut escaped = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if matches!(byte, b'\\' | b':' | b',' | b'"') {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    OsString::from_vec(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(text: &str) -> Vec<String> {
        let text = OsStr::new(text);
        let show = |token: Token<'_>| match token.value {
            Some(value) => format!("{}={}", shown(token.key), shown(value)),
            None => shown(token.key),
        };
        tokens(text).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn options_end_at_commas() {
        assert_eq!(split("a,b=1,,c=,"), ["a", "b=1", "c="]);
        assert_eq!(split(""), Vec::<String>::new());
        assert_eq!(split(",,"), Vec::<String>::new());
        assert_eq!(split(r"lowerdir=/a\,b:/c,ro"), [r"lowerdir=/a\,b:/c", "ro"]);
        assert_eq!(split("x=a=b"), ["x=a=b"]);
        assert_eq!(split("=v"), ["=v"]);
    }

    #[test]
    fn quotes_protect_commas() {
        assert_eq!(split(r#"context="u:r:t:s0:c1,c2",volatile"#), ["context=u:r:t:s0:c1,c2", "volatile"]);
        assert_eq!(split(r#"upperdir=/a"b,ro"#), [r#"upperdir=/a"b"#, "ro"]);
        assert_eq!(split(r#"upperdir=\"a,ro"#), [r#"upperdir=\"a"#, "ro"]);
        for bad in [r#"context="a,b"#, r#"context="a"b,c"#] {
            assert!(matches!(tokens(OsStr::new(bad)), Err(OptionError::UnclosedQuote { .. })));
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let long = "a".repeat(MAX_TEXT + 1);
        assert!(matches!(tokens(OsStr::new(&long)), Err(OptionError::TooLong { .. })));
        let many = vec!["/l"; MAX_LOWERS + 1].join(":");
        assert!(matches!(paths(b"lowerdir", many.as_bytes()), Err(OptionError::TooManyLowers { count: 501 })));
        assert_eq!(paths(b"lowerdir", &many.as_bytes()[3..]).unwrap().len(), MAX_LOWERS);
        let deep = "/d".repeat(MAX_PATH);
        assert!(matches!(path(b"upperdir", deep.as_bytes()), Err(OptionError::PathTooLong { .. })));
        assert!(matches!(tokens(OsStr::new("a\0b")), Err(OptionError::Nul)));
    }

    #[test]
    fn messages_are_printable() {
        assert_eq!(shown(b"a\x1b[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(shown(&[b'x'; 200]).chars().count(), 81);
    }

    proptest! {
        #[test]
        fn an_escaped_list_of_paths_parses_back(
            names in proptest::collection::vec(proptest::collection::vec(1u8.., 1..40), 1..8)
        ) {
            let given: Vec<PathBuf> =
                names.into_iter().map(|name| PathBuf::from(OsString::from_vec(name))).collect();
            let list: Vec<OsString> = given.iter().map(|path| escape_path(path)).collect();
            let mut text = OsString::from("lowerdir=");
            text.push(list.join(OsStr::new(":")));
            text.push(",ro");
            let tokens = tokens(&text).unwrap();
            prop_assert_eq!(tokens.len(), 2);
            prop_assert_eq!(paths(b"lowerdir", tokens[0].value.unwrap()).unwrap(), given);
            prop_assert_eq!(tokens[1], Token { key: b"ro", value: None });
        }

        #[test]
        fn no_text_makes_the_splitter_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = OsString::from_vec(bytes);
            for token in tokens(&text).unwrap_or_default() {
                paths(token.key, token.value.unwrap_or_default()).ok();
            }
        }
    }
}
