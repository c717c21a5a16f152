//! SEMANTICS.md names tests: they exist.

use std::{collections::BTreeSet, fs, path::Path};

/// The functions of a source file.
fn functions(path: &Path, into: &mut BTreeSet<String>) {
    let text = fs::read_to_string(path).unwrap_or_default();
    into.extend(text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("fn ")?;
        Some(rest.split(['(', '<']).next()?.to_owned())
    }));
}

/// `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end),
    }
}

#[test]
fn every_test_named_here_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("unionfs/src/SEMANTICS.md")).unwrap();
    let named: BTreeSet<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|quoted| quoted.contains("::"))
        .filter(|quoted| *quoted != "module::test")
        .collect();
    assert!(named.len() > 50, "{} tests are named", named.len());
    let wrong: Vec<&str> = named
        .into_iter()
        .filter(|named| {
            let (module, test) = named.split_once("::").unwrap();
            let mut known = BTreeSet::new();
            functions(&root.join(format!("tests/semantics/{module}.rs")), &mut known);
            !known.iter().any(|name| matches(test, name))
        })
        .collect();
    assert!(wrong.is_empty(), "not in tests/semantics: {wrong:#?}");
}
