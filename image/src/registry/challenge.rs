//! `WWW-Authenticate` (RFC 9110, section 11.6.1).

/// How a registry wants to be told who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from somebody else.
    Bearer {
        /// The address of who gives tokens.
        realm: String,
        /// What the registry is called there.
        service: Option<String>,
    },
}

impl Challenge {
    /// The best one that is offered in any of these headers.
    pub(super) fn choose<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for (scheme, parameters) in headers.into_iter().flat_map(challenges) {
            let value = |name: &str| {
                parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = value("realm").filter(|realm| !realm.is_empty())
            {
                return Some(Self::Bearer { realm, service: value("service") });
            }
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
        }
        basic
    }
}

/// The schemes of one header, each with its parameters.
fn challenges(header: &str) -> Vec<(&str, Vec<(&str, String)>)> {
    let mut found: Vec<(&str, Vec<(&str, String)>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            return found;
        }
        let next = after.trim_start();
        // `name = value` is a parameter; any other word begins a challenge.
        match next.strip_prefix('=').map(str::trim_start) {
            Some(value) if !found.is_empty() => {
                let (value, after) = match value.strip_prefix('"') {
                    Some(inside) => quoted(inside),
                    None => {
                        let (value, after) = token(value);
                        (value.to_owned(), after)
                    }
                };
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.push((word, value));
                }
                rest = after;
            }
            Some(value) => rest = value,
            None => {
                found.push((word, Vec::new()));
                rest = next;
            }
        }
    }
}

/// The characters of a token (RFC 9110, section 5.6.2) at the start, and what follows.
fn token(text: &str) -> (&str, &str) {
    let part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c);
    text.split_at(text.find(|c| !part(c)).unwrap_or(text.len()))
}

/// The inside of a quoted string that has begun, and what follows it.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    }

    #[test]
    fn challenges_are_read_as_they_are_written() {
        let hub = r#"Bearer realm="https://auth.h.example/token",service="h.example",scope="repository:a/b:pull,push""#;
        let choose = |headers: &[&str]| Challenge::choose(headers.iter().copied());
        assert_eq!(choose(&[hub]), bearer("https://auth.h.example/token", Some("h.example")));
        assert_eq!(choose(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(choose(&["Basic realm=x", hub]), bearer("https://auth.h.example/token", Some("h.example")));
        assert_eq!(
            choose(&[r#"Basic realm="a, Bearer realm=b", bearer REALM = "c\"d" , service=e"#]),
            bearer("c\"d", Some("e"))
        );
        assert_eq!(choose(&["Negotiate, Basic"]), Some(Challenge::Basic));
        assert_eq!(choose(&["Bearer realm=https://h.example/t"]), bearer("https://h.example/t", None));
    }

    #[test]
    fn what_is_none_is_none() {
        for header in
            ["", ",,", "=", "=x", "Bearer", "Bearer service=\"x\"", "Digest realm=\"x\"", "\"", "Bearer \"", "ä"]
        {
            assert_eq!(Challenge::choose([header]), None, "{header:?}");
        }
        let long = "Bearer realm=\"".to_owned() + &"\\".repeat(100_000);
        assert!(Challenge::choose([long.as_str()]).is_some());
    }
}
