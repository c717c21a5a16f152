//! Images and archives that attackers make (security cases, "Unpack / images" and "Digests"). What a hostile layer's tar
//! may hold is in `image_index.rs`; here is what leads to layers.

use sha2::{Digest as _, Sha256};

use crate::common::Place;

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A layout in the making, written without a look at what it says.
struct Forged<'a> {
    place: &'a Place,
}

impl Forged<'_> {
    fn blob(&self, bytes: &[u8]) -> String {
        let digest = hex(bytes);
        std::fs::write(self.place.join("forged/blobs/sha256").join(&digest), bytes).unwrap();
        digest
    }

    fn index(&self, descriptor: &str) {
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#);
        std::fs::write(self.place.join("forged/index.json"), text).unwrap();
    }
}

/// Begins an empty layout.
fn forge(place: &Place) -> Forged<'_> {
    place.run("rm -rf forged && mkdir -p forged/blobs/sha256 && echo '{\"imageLayoutVersion\": \"1.0.0\"}' > forged/oci-layout");
    Forged { place }
}

fn descriptor(kind: &str, digest: &str, size: usize) -> String {
    format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}}}"#)
}

const MANIFEST: &str = "manifest.v1+json";
const LAYER: &str = "layer.v1.tar";

/// An image of one layer as its parts say, which need not fit.
fn image(forged: &Forged<'_>, layer: &[u8], named: &str, size: usize, diff_id: &str) {
    forged.blob(layer);
    let config =
        format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#);
    let config_digest = forged.blob(config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.{MANIFEST}","config":{},"layers":[{}]}}"#,
        descriptor("config.v1+json", &format!("sha256:{config_digest}"), config.len()),
        descriptor(LAYER, named, size)
    );
    let digest = forged.blob(manifest.as_bytes());
    forged.index(&descriptor(MANIFEST, &format!("sha256:{digest}"), manifest.len()));
}

/// The load fails with `word` in what it says, and leaves nothing in the store.
#[track_caller]
fn refused(place: &Place, input: &str, word: &str) {
    let said = place.fails(&format!("lamel load -i {input}"));
    assert!(said.contains(word), "{input}: {word}: {said}");
    assert!(said.len() < 2000, "{input}: {} bytes of message", said.len());
    let left = place.run("find store -type f | grep -v lock | sort");
    assert_eq!(left, "store/index.json\nstore/oci-layout", "{input}");
}

#[test]
fn digests_bind() {
    let place = Place::new();
    place.run("mkdir tree && echo data > tree/f && tar -C tree -cf layer.tar .");
    let layer = std::fs::read(place.join("layer.tar")).unwrap();
    let (digest, size) = (format!("sha256:{}", hex(&layer)), layer.len());
    let forged = forge(&place);
    let try_image = |named: &str, size: usize, diff_id: &str, word: &str| {
        image(&forged, &layer, named, size, diff_id);
        refused(&place, "forged", word);
    };
    try_image("sha256:../../../../etc/passwd", size, &digest, "is no digest");
    try_image(&digest.to_uppercase(), size, &digest, "digest");
    try_image(&digest.replace("sha256", "sha512"), size, &digest, "not supported");
    try_image(&digest, size, "sha256:../../x", "is no digest");
    let other = format!("sha256:{}", hex(b"other"));
    try_image(&digest, size, &other, "its tar is");
    try_image(&digest, size - 512, &digest, "were promised");
    try_image(&digest, size + 512, &digest, "were promised");
    try_image(&other, size, &digest, "not in the archive");
    // A blob that is not what its name says.
    image(&forged, &layer, &digest, size, &digest);
    place
        .run(&format!("printf x | dd of=forged/blobs/sha256/{} bs=1 seek=1600 conv=notrunc status=none", &digest[7..]));
    refused(&place, "forged", "has the digest");
    // Links out of the layout: to a file that would fit, and to one that never ends.
    image(&forged, &layer, &digest, size, &digest);
    let blob = format!("forged/blobs/sha256/{}", &digest[7..]);
    place.run(&format!("ln -sf $PWD/layer.tar {blob}"));
    refused(&place, "forged", "not in the archive");
    place.run(&format!("rm {blob} && mkfifo {blob}"));
    refused(&place, "forged", "not in the archive");
    // And what all of them were made of is taken.
    place.run(&format!("rm {blob}"));
    image(&forged, &layer, &digest, size, &digest);
    place.run("lamel load -q -i forged > /dev/null && lamel verify");
}

#[test]
fn documents_are_what_they_say() {
    let place = Place::new();
    let forged = forge(&place);
    let load = |document: &[u8], kind: &str, word: &str| {
        let digest = forged.blob(document);
        forged.index(&descriptor(kind, &format!("sha256:{digest}"), document.len()));
        refused(&place, "forged", word);
    };
    load(br#"{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}"#, MANIFEST, "not what it says");
    load(br#"{"schemaVersion":2,"manifests":[]}"#, MANIFEST, "malformed");
    load(br#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#, MANIFEST, "schema 1");
    load(&vec![b' '; 5 << 20], MANIFEST, "more than 4194304");
    load("[".repeat(100_000).as_bytes(), MANIFEST, "malformed");
    let layers = vec![descriptor(LAYER, &format!("sha256:{}", hex(b"x")), 1); 10_000].join(",");
    let config = descriptor("config.v1+json", &format!("sha256:{}", hex(b"x")), 1);
    let many = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#);
    load(many.as_bytes(), MANIFEST, "10000 layers");
    // An index that names indexes without end.
    let mut inner = descriptor("index.v1+json", &format!("sha256:{}", hex(b"x")), 1);
    for _ in 0..6 {
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{inner}]}}"#);
        inner = descriptor("index.v1+json", &format!("sha256:{}", forged.blob(index.as_bytes())), index.len());
    }
    forged.index(&inner);
    refused(&place, "forged", "deeper than");
    // Names that are none, in an archive of Docker's: no path leads out of it.
    for (config, layer, tag, word) in [
        ("../../etc/passwd", "l.tar", "a:1", "not in the archive"),
        ("/etc/passwd", "l.tar", "a:1", "not in the archive"),
        ("c.json", "../../../../../etc/passwd", "a:1", "not in the archive"),
        ("c.json", "link.tar", "a:1", "not in the archive"),
        ("c.json", "l.tar", "../../a:1", "no name of an image"),
        ("c.json", "l.tar", "a:1\\u0000", "no name of an image"),
        ("l.tar", "l.tar", "a:1", "malformed configuration"),
    ] {
        place.run(&format!(
            "rm -rf docker && mkdir -p docker/d && echo x > docker/d/f && tar -C docker/d -cf docker/l.tar . && rm -r docker/d
             ln -s /etc/passwd docker/link.tar
             id=sha256:$(sha256sum < docker/l.tar | cut -d' ' -f1)
             echo '{{\"os\":\"linux\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"'$id'\"]}}}}' > docker/c.json
             echo '[{{\"Config\":\"{config}\",\"RepoTags\":[\"{tag}\"],\"Layers\":[\"{layer}\"]}}]' > docker/manifest.json
             tar -C docker -cf docker.tar ."
        ));
        refused(&place, "docker.tar", word);
        refused(&place, "docker", word);
    }
    // Images that are their own ancestors.
    place.run(
        "mkdir -p circle/a && echo '{\"r\":{\"t\":\"a\"}}' > circle/repositories && echo '{\"parent\":\"a\"}' > circle/a/json
         touch circle/a/layer.tar && tar -C circle -cf circle.tar .",
    );
    refused(&place, "circle.tar", "its own ancestor");
    refused(&place, "circle", "its own ancestor");
    refused(&place, "/etc/passwd", "archive");
    refused(&place, "/usr/share", "no image");
    refused(&place, "/dev/null", "no image");
}

#[test]
fn bombs_are_refused_and_helpers_never_called() {
    let place = Place::new();
    // Programs of these names in reach of whoever would call one.
    place.run(
        "for program in xz gzip unpigz zstd bzip2 tar; do printf '#!/bin/sh\\ntouch %s/called\\n' $PWD > bin/$program; chmod +x bin/$program; done
         mkdir tree && echo data > tree/f && PATH=/usr/bin:/bin && tar -C tree -cf l.tar . && xz -k l.tar && gzip -k l.tar && zstd -qk l.tar && bzip2 -k l.tar",
    );
    for kind in ["xz", "gz", "zst", "bz2"] {
        place.run(&format!("lamel import l.tar.{kind} x:{kind} > /dev/null"));
    }
    assert_eq!(place.run("ls called 2>/dev/null || true"), "");
    place.run("lamel prune --all > /dev/null; rm bin/[!l]*");
    // Broken in the middle: an error, and not for ever.
    for kind in ["xz", "gz", "zst", "bz2"] {
        place.run(&format!("head -c 100 l.tar.{kind} > cut.{kind}; head -c 60 l.tar.{kind} > bad.{kind}; head -c 200 /dev/urandom >> bad.{kind}"));
        for file in ["cut", "bad"] {
            assert!(!place.fails(&format!("timeout 20 lamel import {file}.{kind}")).is_empty());
            assert!(!place.fails(&format!("timeout 20 lamel load -i {file}.{kind}")).is_empty());
        }
    }
    // A layer of zeros, 1000:1, beyond what is taken of such; and a window of 2 GiB.
    let bomb = place.outcome("head -c 5G /dev/zero | zstd -q -19 --long=27 -T0 | timeout 200 lamel import -");
    assert!(!bomb.success(), "{bomb:?}");
    place.run("head -c 1M /dev/urandom > noise && (tar -cf - noise noise noise | zstd -q --ultra -22 --long=31 --no-content-size -o long.zst || true)");
    let said = place.outcome("timeout 60 lamel import long.zst");
    assert!(!said.success() && said.stderr.contains("memory"), "{said:?}");
    assert_eq!(place.run("find store -type f | grep -v lock | sort"), "store/index.json\nstore/oci-layout");
}
