//! Images that other tools made.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::common::{debian_cache, sh_timeout};

/// How long making them may take.
const LIMIT: Duration = Duration::from_secs(240);

/// A file beside this one.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images").join(name).canonicalize().unwrap()
}

/// A small image in the OCI layout `oci` with the tag `small`, and a Debian 12 with the tags `one` and `eight`: with one
/// layer and with eight. Their layer tars are in `small/` and `debian/`, as `1.tar` to `8.tar`, the bottom one first.
pub(crate) fn images() -> PathBuf {
    let script = fs::read(beside("layers.sh")).unwrap();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
    fs::create_dir_all(&dir).unwrap();
    let lock = File::create(dir.join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let whole = dir.join("whole");
    if fs::read(whole.join("made-by")).is_ok_and(|made_by| made_by == script) {
        return whole;
    }
    let cmd = format!(
        "rm -rf whole new && mkdir -p new/base/{{bin,etc,usr/bin,usr/share/doc/x,usr/share/zoneinfo}} && cd new
         cp /bin/busybox base/bin && ln -s busybox base/bin/sh
         echo root:x:0:0::/:/bin/sh > base/etc/passwd
         echo text > base/usr/share/doc/x/copyright && echo zone > base/usr/share/zoneinfo/UTC
         echo perl > base/usr/bin/perl && ln base/usr/bin/perl base/usr/bin/perl5
         tar -C base -cf base.tar . && rm -r base
         bash {layers} $PWD/base.tar $PWD/small
         bash {layers} {debian}/debian.tar $PWD/debian
         umoci init --layout oci
         make() {{
             umoci new --image oci:$1
             for layer in \"${{@:2}}\"; do umoci raw add-layer --image oci:$1 $layer; done
             umoci config --image oci:$1 --config.cmd sh
         }}
         make small small/{{1..8}}.tar
         make eight debian/{{1..8}}.tar
         umoci new --image oci:one
         umoci raw add-layer --image oci:one debian/1.tar
         umoci gc --layout oci
         cp {layers} made-by && cd .. && mv new whole",
        layers = beside("layers.sh").display(),
        debian = debian_cache().display(),
    );
    let out = sh_timeout(&dir, &cmd, LIMIT);
    assert!(out.success(), "making the images: {}\n{}\n{}", out.status, out.stdout, out.stderr);
    whole
}
