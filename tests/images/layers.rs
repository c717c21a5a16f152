//! What each layer did, in numbers and on a page, which a browser opens.

use crate::common::Place;
use crate::common::rendered;

/// An image of three layers: `bottom`, one that wastes space, and one with hostile names.
fn wasteful() -> Place {
    let place = Place::new();
    place.run(
        "pack() { tar -C $1 --sort=name --owner=0 --group=0 --mtime=@1700000000 -cf $1.tar . && umoci raw add-layer --image oci:w --history.created_by \"$2\" $1.tar; }
         umoci init --layout oci && umoci new --image oci:w
         mkdir -p one/usr/lib one/usr/share one/var/cache && head -c 600000 /dev/urandom > one/usr/lib/large
         head -c 300000 /dev/urandom > one/var/cache/package && head -c 1000 /dev/urandom > one/usr/share/small
         mkdir -p two/usr/lib two/var && head -c 500000 /dev/urandom > two/usr/lib/large && touch two/var/.wh.cache
         mkdir -p 'three/<img src=x onerror=document.title=1>' && cd three
         printf 'x%.0s' $(seq 2000) > '<img src=x onerror=document.title=1>/<!--<script><b id=injected>'
         printf 'y%.0s' $(seq 9000) > \"$(printf 'bad\\xff\\nname&amp;')\"
         cd .. && pack one 'COPY base /' && pack two 'RUN make <large> && rm -r /var/cache' && pack three 'RUN evil'
         lamel load -q -i oci",
    );
    place
}

#[test]
fn wasted_space_is_counted_and_limited() {
    let place = wasteful();
    let text = place.run("lamel layers w");
    let row = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows: Vec<String> = text.lines().map(row).collect();
    for wanted in [
        "LAYER SIZE ENTRIES ADDED CHANGED REMOVED INSTRUCTION",
        "1 901kB 8 901kB 0B 0B COPY base /",
        "2 500kB 5 0B 500kB 300kB RUN make <large> && rm -r /var/cache",
        "3 11kB 3 11kB 0B 0B RUN evil",
        "WASTED TIMES PATH",
        "1.1MB 2 /usr/lib/large",
    ] {
        assert!(rows.iter().any(|row| row == wanted), "{wanted}:\n{text}");
    }
    let value: serde_json::Value = serde_json::from_str(&place.run("lamel layers w --json")).unwrap();
    let image = &value["image"];
    // The whiteout of /var/cache is a leaf of the 300,000 bytes that it deletes.
    let (least, all) = (500_000.0 + 300_000.0 + 1000.0 + 300_000.0 + 11_000.0, 600_000.0 + 500_000.0 + 612_000.0);
    assert!((image["efficiencyScore"].as_f64().unwrap() - least / all).abs() < 1e-9, "{image}");
    assert_eq!((image["wastedBytes"].as_u64(), image["sizeBytes"].as_u64()), (Some(1_100_000), Some(1_412_000)));
    assert_eq!(image["wasted"][0]["path"], "/usr/lib/large");
    assert_eq!(value["layers"][1]["removedBytes"], 300_000);
    assert_eq!(value["layers"].as_array().unwrap().len(), 3);
    for (limits, good) in [
        ("--lowest-efficiency 0.6", true),
        ("--lowest-efficiency 66%", false),
        ("--highest-wasted-bytes 1.1MB", true),
        ("--highest-wasted-bytes 1100kB", true),
        ("--highest-wasted-bytes 1099999", false),
        ("--highest-user-wasted-percent 0.9", false),
        ("--highest-user-wasted-percent 1 --lowest-efficiency 0.1", false),
    ] {
        let said = place.outcome(&format!("lamel layers w {limits}"));
        assert_eq!(said.success(), good, "{limits}: {said:?}");
        assert_eq!(said.status.code(), Some(i32::from(!good)), "{limits}: {said:?}");
    }
    let said = place.fails("lamel layers w --lowest-efficiency 0.99 --highest-wasted-bytes 5");
    assert!(said.contains("the efficiency is") && said.contains("1100000 bytes are wasted, more than 5"), "{said}");
    assert!(place.fails("lamel layers missing").contains("no image"));
}

#[test]
fn the_page_is_drawn_by_a_browser() {
    let place = wasteful();
    place.run("lamel layers w --html page.html && test \"$(lamel layers w --html - | cmp - page.html)\" = ''");
    // Nothing is fetched: no address stands in it, and its own policy forbids it.
    let page = std::fs::read_to_string(place.join("page.html")).unwrap();
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains(" src=\""), "{page}");
    assert!(page.contains("default-src 'none'") && page.contains("prefers-color-scheme:dark"));
    assert!(page.contains("RUN make &lt;large&gt; &amp;&amp; rm"));

    let merged = rendered(&place.join("page.html"), "");
    let tiles = |page: &str| page.matches("class=\"tile").count();
    assert!(tiles(&merged) >= 6, "{merged}");
    assert!(merged.contains(">large 500kB</div>") && merged.contains("/usr/lib/large\n500kB, layer 2"), "{merged}");
    assert!(merged.contains("<span>usr 501kB</span>"), "{merged}");
    assert!(!merged.contains(">package"), "what is deleted is not in the merged image");
    let trail = |page: &str| {
        let trail = page.split("id=\"trail\">").nth(1).unwrap().split("</p>").next().unwrap().to_owned();
        trail.replace("<button>", "").replace("</button>", "")
    };
    assert_eq!(trail(&merged), "merged image — 512kB");

    let second = rendered(&place.join("page.html"), "#2");
    assert_eq!(trail(&second), "layer 2 — 800kB");
    assert!(second.contains(">cache 300kB</div>") && second.contains("class=\"tile removed\""), "{second}");
    assert!(
        second.contains("class=\"tile changed\"") && second.contains("<tr data-tree=\"1\" class=\"chosen\">"),
        "{second}"
    );

    // Into a directory; what the address says beyond that is left out.
    let inside = rendered(&place.join("page.html"), "#1/usr/lib/nothing");
    assert_eq!(trail(&inside), "layer 1 / usr / lib — 600kB");
    assert_eq!(tiles(&inside), 1, "{inside}");

    // Names of an image are text, wherever they stand.
    let third = rendered(&place.join("page.html"), "#3");
    assert!(third.contains("&lt;img src=x onerror=document.title=1&gt; 2kB"), "{third}");
    assert!(
        !third.contains("<img")
            && !third.contains("<b id=\"injected\"")
            && third.contains("<title>Layers of w</title>")
    );
}
