//! Shell patterns over bytes, as find(1) uses them.

/// Whether `text` is what `pattern` says: `*` and `?` stand for anything, slashes and leading dots too, `[…]` and `[!…]`
/// for a set, a backslash takes the next byte as it is. Takes time of the product of both lengths at most.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if what comes after the last `*` does not fit.
    let mut again: Option<(usize, usize)> = None;
    loop {
        let star = pattern.get(p) == Some(&b'*');
        if star {
            again = Some((p + 1, t));
            p += 1;
            continue;
        }
        match (pattern.get(p..).filter(|rest| !rest.is_empty()), text.get(t)) {
            (None, None) => return true,
            (Some(rest), Some(byte)) => {
                if let Some(len) = one(rest, *byte) {
                    (p, t) = (p + len, t + 1);
                    continue;
                }
            }
            _ => {}
        }
        match again {
            Some((after, from)) if from < text.len() => {
                again = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// The length of the pattern's first element if it stands for `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', ..] => match set(pattern, byte) {
            Some((found, len)) => found.then_some(len),
            // An open bracket that nothing closes is itself.
            None => (byte == b'[').then_some(1),
        },
        [b'\\', next, ..] => (*next == byte).then_some(2),
        [first, ..] => (*first == byte).then_some(1),
        [] => None,
    }
}

/// Whether `byte` is in the set that `pattern` begins with, and the set's length.
fn set(pattern: &[u8], byte: u8) -> Option<(bool, usize)> {
    let mut at = 1;
    let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    at += usize::from(negated);
    let first = at;
    let mut found = false;
    loop {
        let low = *pattern.get(at)?;
        if low == b']' && at > first {
            return Some((found != negated, at + 1));
        }
        let high = match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(b'-'), Some(high)) if *high != b']' => {
                at += 2;
                *high
            }
            _ => low,
        };
        found |= (low..=high).contains(&byte);
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_are_those_of_find() {
        for (pattern, text) in [
            ("*", ""),
            ("*", ".a/b"),
            ("*.so*", "libc.so.6"),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]", "]"),
            ("\\*", "*"),
            ("[", "["),
            ("*a*b*c", "xxaxxbxxc"),
            ("/usr/*/x", "/usr/a/b/x"),
        ] {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in
            [("", "a"), ("a", ""), ("a?", "a"), ("[!a]", "a"), ("\\*", "a"), ("*b", "abc"), ("[a-c", "a")]
        {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        assert!(matches(b"*\xff", b"a\xff"));
        // In no time, whatever it is.
        assert!(!matches("*a".repeat(2000).as_bytes(), &[b'a'; 1500]));
    }
}
