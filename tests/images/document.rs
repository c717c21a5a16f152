//! SEMANTICS.md names tests: they exist.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn every_test_named_here_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("image/src/SEMANTICS.md")).unwrap();
    let quoted = text.split('`').skip(1).step_by(2);
    let named: BTreeSet<&str> = quoted.filter(|quoted| quoted.contains("::") && *quoted != "module::test").collect();
    assert!(named.len() > 20, "{} tests are named", named.len());
    let wrong: Vec<&str> = named
        .into_iter()
        .filter(|named| {
            let (module, test) = named.split_once("::").unwrap();
            let places = [
                format!("tests/images/{module}.rs"),
                format!("tests/registry/{module}.rs"),
                format!("tests/{module}.rs"),
            ];
            let sources = places.map(|place| fs::read_to_string(root.join(place)).unwrap_or_default());
            !sources.iter().any(|source| source.contains(&format!("fn {test}()")))
        })
        .collect();
    assert!(wrong.is_empty(), "not in the tests: {wrong:#?}");
}
