//! The union's own hot paths, without a mount: `cargo bench -p lamel-unionfs`.

#![allow(clippy::unwrap_used, reason = "a benchmark says what is wrong by panicking")]

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use divan::{Bencher, black_box};
use lamel_unionfs::bench::look_up;
use lamel_unionfs::options::Dialect;
use lamel_unionfs::whiteout::aufs_name;
use lamel_unionfs::{Options, UnionFs};
use tempfile::TempDir;

fn main() {
    divan::main();
}

/// Layers that all have the directories `a/b`; the lowest has the file in them.
fn stack(layers: usize) -> (TempDir, UnionFs) {
    let place = tempfile::tempdir().unwrap();
    let mut options = Options::new(place.path().join("mnt"));
    for layer in 0..layers {
        let path = place.path().join(layer.to_string());
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b").join(format!("of-{layer}")), "").unwrap();
        options.lowers.push(path);
    }
    fs::write(place.path().join((layers - 1).to_string()).join("a/b/file"), "").unwrap();
    let union = UnionFs::open(&options).unwrap();
    (place, union)
}

/// A file of the lowest directory.
#[divan::bench(args = [1, 5, 64])]
fn look_up_in_directories(bencher: Bencher<'_, '_>, layers: usize) {
    let (_place, union) = stack(layers);
    bencher.bench_local(|| assert!(look_up(&union, black_box(Path::new("a/b/file"))).unwrap()));
}

/// A name that no directory has.
#[divan::bench(args = [1, 5, 64])]
fn miss_in_directories(bencher: Bencher<'_, '_>, layers: usize) {
    let (_place, union) = stack(layers);
    bencher.bench_local(|| assert!(!look_up(&union, black_box(Path::new("a/b/missing"))).unwrap()));
}

#[divan::bench(args = [5, 64, 500])]
fn parse_options(bencher: Bencher<'_, '_>, layers: usize) {
    let lowers: Vec<String> =
        (0..layers).map(|layer| format!("/var/lib/containers/storage/overlay/l/{layer:026}")).collect();
    let text = format!("lowerdir={},upperdir=/u,workdir=/w,redirect_dir=on,metacopy=on,xino=off", lowers.join(":"));
    bencher.bench_local(|| {
        let mut options = Options::new("/mnt");
        options.parse(Dialect::Overlay, OsStr::new(black_box(&text))).unwrap();
        options
    });
}

/// A listing's names, one whiteout among ten.
#[divan::bench]
fn names_of_whiteouts(bencher: Bencher<'_, '_>) {
    let names: Vec<String> =
        (0..1000).map(|n| if n % 10 == 0 { format!(".wh.removed-{n}") } else { format!("file-{n}.txt") }).collect();
    bencher.counter(divan::counter::ItemsCount::new(names.len())).bench_local(|| {
        for name in &names {
            black_box(aufs_name(OsStr::new(black_box(name))));
        }
    });
}
