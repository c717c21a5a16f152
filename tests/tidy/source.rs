//! Source files, read as far as the rules need: what is comment, string and test in them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One Rust file. All views of it have the same lines.
pub(crate) struct Source {
    /// Relative to the workspace.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// Without comments, and with empty strings.
    pub(crate) code: String,
    /// Without comments and without the blocks under `#[cfg(test)]`.
    pub(crate) product: String,
    /// Whether it is compiled for tests alone: a `#[cfg(test)] mod NAME;` of another file.
    pub(crate) test: bool,
}

/// The workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file of the workspace; at least the known ones.
pub(crate) fn sources() -> Vec<Source> {
    let mut files: Vec<Source> = paths()
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(root().join(&path)).unwrap();
            Source::parse(path, text)
        })
        .collect();
    let tests: Vec<String> = files.iter().flat_map(Source::test_modules).collect();
    for file in &mut files {
        file.test = tests.contains(&file.path);
    }
    for known in ["cli/src/main.rs", "unionfs/src/lib.rs", "tests/tidy.rs"] {
        assert!(files.iter().any(|f| f.path == known), "{known} was not found");
    }
    files
}

/// Every Rust file's path in the workspace.
fn paths() -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(root().join(&dir)).unwrap() {
            let entry = entry.unwrap();
            let path = dir.join(entry.file_name());
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                if !["target", ".git"].contains(&name.as_str()) {
                    todo.push(path);
                }
            } else if name.ends_with(".rs") {
                found.push(path.into_os_string().into_string().unwrap());
            }
        }
    }
    found.sort();
    found
}

/// What a stretch of a source file is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Code,
    Comment,
    /// The inside of a string or character literal.
    Literal,
}

impl Source {
    /// Reads a file's text.
    pub(crate) fn parse(path: String, text: String) -> Self {
        let pieces = pieces(&text);
        let view = |blank: &dyn Fn(Piece) -> bool| -> String {
            text.char_indices().map(|(at, c)| if c != '\n' && blank(pieces[at]) { ' ' } else { c }).collect()
        };
        let code = view(&|p| p != Piece::Code);
        let product = view(&|p| p == Piece::Comment);
        // Blank characters are one byte: where a comment was not ASCII, offsets differ between the views; lines do not.
        let product = blank_lines(&product, &test_lines(&code));
        Self { path, text, code, product, test: false }
    }

    /// Lines with more on them than comment.
    pub(crate) fn code_lines(&self) -> usize {
        self.code.lines().filter(|l| !l.trim().is_empty()).count()
    }

    /// Paths of the modules that it declares for tests alone.
    fn test_modules(&self) -> Vec<String> {
        let path = Path::new(&self.path);
        let owner = ["lib.rs", "main.rs", "mod.rs"].iter().any(|name| path.ends_with(name));
        let dir = if owner { path.parent().unwrap().to_owned() } else { path.with_extension("") };
        let lines: Vec<&str> = self.code.lines().map(str::trim).collect();
        lines
            .windows(2)
            .filter(|pair| pair[0] == "#[cfg(test)]")
            .filter_map(|pair| pair[1].strip_prefix("mod ")?.strip_suffix(';'))
            .map(|name| dir.join(name).with_extension("rs").to_str().unwrap().to_owned())
            .collect()
    }

    /// Whether it ends up in a library or the binary.
    pub(crate) fn is_library(&self) -> bool {
        self.path.contains("/src/") && !self.test
    }
}

fn blank_lines(text: &str, blank: &[bool]) -> String {
    let lines = text.lines().zip(blank);
    lines.flat_map(|(line, &blank)| [if blank { "" } else { line }, "\n"]).collect()
}

/// For each line of `code`, whether it belongs to an item under `#[cfg(test)]`.
fn test_lines(code: &str) -> Vec<bool> {
    let mut marked = Vec::new();
    // Inside such an item: how many braces are open, and whether there was one.
    let mut item: Option<(usize, bool)> = None;
    for line in code.lines() {
        if item.is_none() && line.contains("#[cfg(test)]") {
            item = Some((0, false));
        }
        marked.push(item.is_some());
        for c in line.chars() {
            item = match (item, c) {
                (Some((open, _)), '{') => Some((open + 1, true)),
                (Some((open, seen)), '}') => Some((open.saturating_sub(1), seen)),
                (Some((0, false)), ';') => None,
                (other, _) => other,
            };
        }
        if item == Some((0, true)) {
            item = None;
        }
    }
    marked
}

/// What each byte of `text` is. Quotes count as code.
fn pieces(text: &str) -> Vec<Piece> {
    let bytes = text.as_bytes();
    let mut out = vec![Piece::Code; bytes.len()];
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (piece, skip, len) = if rest.starts_with(b"//") {
            let end = rest.iter().position(|b| *b == b'\n');
            (Piece::Comment, 0, end.unwrap_or(rest.len()))
        } else if rest.starts_with(b"/*") {
            (Piece::Comment, 0, block_comment(rest))
        } else if let Some((open, inside)) = raw_string(bytes, at) {
            (Piece::Literal, open, inside)
        } else if rest[0] == b'"' {
            (Piece::Literal, 1, quoted(&rest[1..], b'"'))
        } else if rest[0] == b'\'' && is_char(rest) {
            (Piece::Literal, 1, quoted(&rest[1..], b'\''))
        } else {
            at += 1;
            continue;
        };
        let end = (at + skip + len).min(bytes.len());
        out[(at + skip).min(end)..end].fill(piece);
        // Past the closing quote, too.
        at = end + usize::from(piece == Piece::Literal);
    }
    out
}

/// Length of a block comment; they nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Length of the inside of a literal up to its closing quote.
fn quoted(inside: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < inside.len() && inside[at] != quote {
        at += if inside[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// For a raw string at `at`: the lengths of its opening and of its inside.
fn raw_string(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let before = at.checked_sub(1).and_then(|b| bytes.get(b));
    if bytes[at] != b'r' || before.is_some_and(|b| *b != b'b' && (b.is_ascii_alphanumeric() || *b == b'_')) {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    let open = at + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let inside = &bytes[open + 1..];
    let end = inside.windows(close.len()).position(|w| w == close)?;
    Some((hashes + 2, end))
}

/// Whether the quote at the start of `rest` opens a character, not a lifetime.
fn is_char(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(b) if b.is_ascii() => rest.get(2) == Some(&b'\''),
        _ => true,
    }
}
