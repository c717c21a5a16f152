//! Which bytes of an image's layers are wasted: a case that is counted by hand, as dive counts it.

use std::sync::Arc;

use lamel_image::survey::{Fate, LayerSurvey, Survey, Waste, survey};
use lamel_image::view::View;

use crate::forge::Forge;
use crate::open;

fn count(tars: &[Vec<u8>]) -> (Survey, Vec<String>) {
    let layers: Vec<View> =
        tars.iter().map(|tar| View::new(Arc::new(open(tar, &Default::default()).unwrap()))).collect();
    let mut seen = Vec::new();
    let found = survey(&layers, &mut |object| {
        if object.fate != Fate::Passed {
            let tree = object.tree.map_or("merged".to_owned(), |tree| tree.to_string());
            let path = String::from_utf8_lossy(object.path);
            seen.push(format!("{tree} {path} {:?} {} of {}", object.fate, object.bytes, object.layer));
        }
    });
    (found.unwrap(), seen)
}

#[test]
fn wasted_bytes_are_counted_as_dive_does() {
    let of = |len: usize| "x".repeat(len);
    let bottom = Forge::new()
        .dir("a")
        .file("a/big", &of(1000))
        .file("a/small", &of(10))
        .dir("b")
        .file("b/one", &of(100))
        .file("b/two", &of(200))
        .file("c", &of(50))
        .dir("empty")
        .symlink("l", "somewhere")
        .end();
    let middle =
        Forge::new().dir("a").file("a/big", &of(900)).file("b/.wh.one", "").file("n", &of(5)).dir("empty").end();
    let top = Forge::new().file(".wh.b", "").file(".wh.c", "").file("a/big", &of(700)).file("o/.wh..wh..opq", "").end();
    let (found, seen) = count(&[bottom.clone(), middle, top]);
    let layer = |entries, bytes, added, changed, removed| LayerSurvey { entries, bytes, added, changed, removed };
    assert_eq!(found.layers, [layer(9, 1360, 1360, 0, 0), layer(6, 905, 5, 900, 100), layer(5, 700, 0, 700, 250)]);
    let waste = |path: &str, count, bytes| Waste { path: path.into(), count, bytes };
    let wanted = [waste("/a/big", 3, 2600), waste("/b/one", 2, 100), waste("/c", 2, 50), waste("/empty", 2, 0)];
    assert_eq!(found.waste, wanted);
    assert_eq!((found.wasted, found.bytes()), (2750, 2965));
    // The whiteout of /b is a leaf of what it deletes: /b/two.
    assert!((found.efficiency - 1115.0 / 3165.0).abs() < 1e-9, "{}", found.efficiency);
    assert!((found.user_wasted() - 2750.0 / 1605.0).abs() < 1e-9, "{}", found.user_wasted());
    for line in
        ["2 /b Removed 200 of 2", "1 /a/big Changed 900 of 1", "merged /a/big Added 700 of 2", "merged /n Added 5 of 1"]
    {
        assert!(seen.iter().any(|seen| seen == line), "{line}: {seen:#?}");
    }
    assert!(!seen.iter().any(|line| line.starts_with("merged /b") || line.starts_with("merged /c")), "{seen:#?}");
    let (one, _) = count(&[bottom]);
    assert!((one.efficiency - 1.0).abs() < 1e-9 && one.user_wasted() == 0.0 && one.waste.is_empty());
    let (none, _) = count(&[]);
    assert!((none.efficiency - 1.0).abs() < 1e-9 && none.bytes() == 0);
}

#[test]
fn what_hides_other_objects_removes_them() {
    let bottom = Forge::new().file("d/f", "12345").file("o/f", "123").file("t", "12").hard("u", "t").end();
    let top = Forge::new()
        .file("d", "1")
        .dir("o")
        .file("o/.wh..wh..opq", "")
        .file("o/g", "1234")
        .dir("t")
        .file(".wh.never", "")
        .end();
    let again = Forge::new().file("d/f", "1").file(".wh.o", "").file("o", "").end();
    let (found, seen) = count(&[bottom, top, again]);
    // Of the names of one file the first has its bytes.
    assert_eq!(found.layers[0], LayerSurvey { entries: 6, bytes: 10, added: 10, changed: 0, removed: 0 });
    assert_eq!(found.layers[1], LayerSurvey { entries: 5, bytes: 5, added: 5, changed: 0, removed: 10 });
    assert_eq!(found.layers[2], LayerSurvey { entries: 3, bytes: 1, added: 1, changed: 0, removed: 5 });
    assert!(seen.iter().any(|line| line == "2 /o Removed 4 of 2"), "{seen:#?}");
}
