//! SEMANTICS.md names tests: they exist.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn every_test_named_here_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("isolate/src/SEMANTICS.md")).unwrap();
    let named: BTreeSet<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|quoted| quoted.contains("::") && !quoted.ends_with("module::test"))
        .collect();
    assert!(named.len() > 30, "{} tests are named", named.len());
    let wrong: Vec<&str> = named
        .into_iter()
        .filter(|named| {
            let (module, test) = named.split_once("::").unwrap();
            let place =
                if module.contains('/') { format!("tests/{module}.rs") } else { format!("tests/isolate/{module}.rs") };
            let source = fs::read_to_string(root.join(place)).unwrap_or_default();
            !source.contains(&format!("fn {test}()"))
        })
        .collect();
    assert!(wrong.is_empty(), "no such tests: {wrong:#?}");
}
