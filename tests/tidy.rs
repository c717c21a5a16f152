//! The rules that the whole source tree keeps, read off its text: lengths, where unsafe code and raw system calls,
//! FUSE replies and marker names may stand, that nothing unwraps, and which crate may know which.
//!
//! Needs neither root nor a mount.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

#[path = "tidy/source.rs"]
mod source;

use std::{collections::BTreeMap, fs};

use source::{Source, root, sources};

/// Code lines (neither blank nor comment) that a file may have; the aim is 600.
const MAX_CODE_LINES: usize = 700;

/// Panics with all offending lines, if there are any.
#[track_caller]
fn none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

/// Lines of `files` whose text, as `view` gives it, `offends`.
fn lines_where<'a>(
    files: impl Iterator<Item = &'a Source>,
    view: fn(&Source) -> &str,
    offends: impl Fn(&str) -> bool,
) -> Vec<String> {
    files
        .flat_map(|file| {
            view(file)
                .lines()
                .enumerate()
                .filter(|(_, line)| offends(line))
                .map(|(n, line)| format!("{}:{}: {}", file.path, n + 1, line.trim()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Whether `word` stands in `line` with no letter, digit or underscore beside it.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = sources()
        .iter()
        .map(|file| (file.code_lines(), &file.path))
        .filter(|(lines, _)| *lines > MAX_CODE_LINES)
        .map(|(lines, path)| format!("{path}: {lines} lines of code"))
        .collect();
    none(&format!("files of more than {MAX_CODE_LINES} lines of code"), &long);
}

#[test]
fn main_is_thin() {
    for file in sources().iter().filter(|f| f.path.ends_with("src/main.rs")) {
        let lines = file.text.lines().count();
        assert!(lines <= 20, "{}: {lines} lines", file.path);
    }
}

#[test]
fn unsafe_code_and_raw_system_calls_only_in_sys() {
    let all = sources();
    let outside = || all.iter().filter(|f| !f.path.contains("/sys/") && !f.path.ends_with("/sys.rs"));
    none("unsafe code outside sys/", &lines_where(outside(), |f| &f.code, |l| has_word(l, "unsafe")));
    // Types and constants of libc are data; its functions are system calls.
    let calls_libc = |line: &str| {
        line.match_indices("libc::").any(|(at, found)| {
            let rest = &line[at + found.len()..];
            let name = rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            name.len() < rest.len() && name.starts_with('(')
        })
    };
    none(
        "raw system calls outside sys/",
        &lines_where(outside(), |f| &f.code, |l| calls_libc(l) || has_word(l, "syscall!")),
    );
    none(
        "shell-outs in library code",
        &lines_where(
            all.iter().filter(|f| f.is_library() && !f.path.contains("/sys/")),
            |f| &f.product,
            |l| l.contains("Command::new(\"sh\")") || l.contains("Command::new(\"bash\")"),
        ),
    );
}

#[test]
fn replies_only_in_fuse_rs() {
    let all = sources();
    let rest = all.iter().filter(|f| f.is_library() && f.path != "unionfs/src/fuse.rs");
    let replies = |line: &str| {
        line.match_indices("Reply").any(|(at, found)| {
            !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
                && line[at + found.len()..].starts_with(|c: char| c.is_ascii_uppercase())
        })
    };
    none("fuser's Reply types outside unionfs/src/fuse.rs", &lines_where(rest, |f| &f.product, replies));
}

#[test]
fn marker_names_only_in_their_files() {
    let all = sources();
    let owners = ["unionfs/src/whiteout.rs", "unionfs/src/xattr.rs"];
    let rest = all.iter().filter(|f| {
        f.path.starts_with("unionfs/src/")
            && f.is_library()
            && !owners.contains(&f.path.as_str())
            // Beside it, where it has become a directory.
            && !f.path.starts_with("unionfs/src/whiteout/")
            && !f.path.starts_with("unionfs/src/xattr/")
    });
    none(
        "on-disk marker names outside whiteout.rs and xattr.rs",
        &lines_where(rest, |f| &f.product, |l| l.contains(".wh.") || l.contains("overlay.") && l.contains('"')),
    );
}

#[test]
fn nothing_unwraps_outside_tests() {
    let all = sources();
    none(
        "unwrap or expect outside tests",
        &lines_where(
            all.iter().filter(|f| f.is_library()),
            |f| &f.product,
            |l| l.contains(".unwrap()") || l.contains(".expect(") || l.contains(".unwrap_err()"),
        ),
    );
    none(
        "unfinished code",
        &lines_where(
            all.iter(),
            |f| &f.code,
            |l| has_word(l, "todo!") || has_word(l, "unimplemented!") || l.contains("#[ignore"),
        ),
    );
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("unionfs", &[][..]),
        ("isolate", &[][..]),
        ("image", &["lamel-unionfs"][..]),
        ("cli", &["lamel-unionfs", "lamel-image", "lamel-isolate"][..]),
    ]);
    let mut wrong = Vec::new();
    for (krate, may) in allowed {
        let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
        for line in manifest.lines() {
            let name = line.split(['.', ' ', '=']).next().filter(|n| n.starts_with("lamel-"));
            if let Some(name) = name.filter(|n| !may.contains(n)) {
                wrong.push(format!("{krate} depends on {name}"));
            }
        }
    }
    none("dependencies against the grain", &wrong);
}

#[test]
fn the_reader_of_sources_sees_what_is_code() {
    let text = r##"fn a() { "unsafe // no"; 'x'; '\''; b'"'; r#"un"safe"#; } // unsafe
/* unsafe /* nested */ unsafe */ fn b<'a>() {} // .wh.
#[cfg(test)]
mod tests { fn c() { x.unwrap() } }
fn d() { unsafe { ".wh." } }
"##;
    let source = Source::parse("x/src/y.rs".to_owned(), text.to_owned());
    assert_eq!(source.code.lines().count(), text.lines().count());
    assert_eq!(source.code.matches("unsafe").count(), 1);
    assert!(source.code.contains("unwrap"));
    assert!(!source.product.contains("unwrap"));
    assert_eq!(source.product.matches(".wh.").count(), 1);
    assert!(source.product.contains("\"unsafe // no\""));
    assert_eq!(source.code_lines(), 5);
}
