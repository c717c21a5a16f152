//! The image store's hot paths: `cargo bench -p lamel-image`.

#![allow(clippy::unwrap_used, reason = "a benchmark says what is wrong by panicking")]

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use lamel_image::index::{Limits, build};
use lamel_image::stack::{LayerFiles, open_merging};
use lamel_image::{Digest, IndexedLayer};
use lamel_unionfs::layer::{Layer as _, Lookup};
use tempfile::TempDir;

fn main() {
    divan::main();
}

/// An archive of files with so many bytes each, in directories of a hundred.
fn archive(prefix: &str, files: usize, bytes: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let content = vec![b'x'; bytes];
    for file in 0..files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("dir{}/{prefix}-{file}", file / 100), content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A layer with its index, as a store has them.
fn layer(place: &Path, number: usize, files: usize) -> LayerFiles {
    let bytes = archive(&format!("layer{number}"), files, 100);
    let diff_id = Digest::of(&bytes);
    let (tar, index) = (place.join(format!("{number}.tar")), place.join(format!("{number}.index")));
    File::create(&tar).unwrap().write_all(&bytes).unwrap();
    let built = build(&mut bytes.as_slice(), &Limits::default()).unwrap();
    built.write(&diff_id, &mut File::create(&index).unwrap()).unwrap();
    LayerFiles { diff_id, tar, index }
}

fn find(layer: &IndexedLayer, directory: &str, name: &str) -> bool {
    let root = layer.root();
    let Lookup::Found { entry, .. } = layer.lookup(root, OsStr::new(directory), true).unwrap() else { return false };
    let directory = layer.child(root, OsStr::new(directory), &entry);
    matches!(layer.lookup(&directory, OsStr::new(name), true).unwrap(), Lookup::Found { .. })
}

/// A file of 36,000 entries, two names deep.
#[divan::bench]
fn look_up_in_an_index(bencher: Bencher<'_, '_>) {
    let place = TempDir::new().unwrap();
    let files = layer(place.path(), 0, 36_000);
    let (tar, index) = (File::open(&files.tar).unwrap(), OwnedFd::from(File::open(&files.index).unwrap()));
    let layer = IndexedLayer::open(&files.tar, tar.into(), &index, &files.diff_id).unwrap();
    bencher.bench_local(|| assert!(find(&layer, black_box("dir123"), black_box("layer0-12345"))));
}

/// The same number of entries in so many layers, over their merged index.
fn merged(layers: usize) -> (TempDir, IndexedLayer) {
    let place = TempDir::new().unwrap();
    let each = 36_000 / layers;
    let files: Vec<LayerFiles> = (0..layers).map(|number| layer(place.path(), number, each)).collect();
    let layer = open_merging(place.path(), &files).unwrap();
    (place, layer)
}

/// A file of the lowest layer.
#[divan::bench(args = [5, 64, 500])]
fn look_up_in_merged_indexes(bencher: Bencher<'_, '_>, layers: usize) {
    let (_place, layer) = merged(layers);
    bencher.bench_local(|| assert!(find(&layer, black_box("dir0"), black_box("layer0-42"))));
}

#[divan::bench(args = [5, 64, 500], sample_count = 10)]
fn merge_indexes(bencher: Bencher<'_, '_>, layers: usize) {
    let place = TempDir::new().unwrap();
    let files: Vec<LayerFiles> = (0..layers).map(|number| layer(place.path(), number, 36_000 / layers)).collect();
    bencher.bench_local(|| lamel_image::stack::merged(black_box(&files)).unwrap());
}

/// Files of 4 KiB: as a distribution's.
#[divan::bench(sample_count = 10)]
fn index_a_tar(bencher: Bencher<'_, '_>) {
    let bytes = archive("file", 16_000, 4096);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| build(&mut black_box(bytes.as_slice()), &Limits::default()).unwrap());
}

/// What the index comes beside.
#[divan::bench(sample_count = 10)]
fn hash_a_tar(bencher: Bencher<'_, '_>) {
    let bytes = archive("file", 16_000, 4096);
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| Digest::of(black_box(&bytes)));
}
