use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::manifest::{Descriptor, ImageConfig, Manifest, media};
use crate::platform::Platform;
use crate::reference::Reference;

struct Place {
    dir: tempfile::TempDir,
    store: Store,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), &[]).unwrap();
    Place { dir, store }
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// A layer, compressed, and its names.
fn layer(seed: &str) -> (Vec<u8>, LayerBlob) {
    let tar = tar_of(&[("a", seed.as_bytes()), ("noise", &noise(300_000))]);
    let blob = gzip(&tar);
    let names = LayerBlob { digest: Digest::of(&blob), size: blob.len() as u64, diff_id: Digest::of(&tar) };
    (blob, names)
}

fn take(store: &Store, names: &LayerBlob, bytes: &[u8]) -> Result<Layer> {
    let writer = store.writer()?;
    match writer.layer(names)? {
        Taken::Wanted(ingest) => {
            let from = usize::try_from(ingest.received()).unwrap();
            ingest.run(&writer, bytes.get(from..).unwrap_or_default())
        }
        Taken::Present => panic!("present"),
    }
}

fn is_present(store: &Store, names: &LayerBlob) -> bool {
    matches!(store.writer().unwrap().layer(names).unwrap(), Taken::Present)
}

/// Every file of a store but its locks.
fn files(store: &Store) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![store.root().to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if !path.to_str().unwrap().ends_with("lock") {
                found.push(path.strip_prefix(store.root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// An image of one layer under a name.
fn add_image(store: &Store, name: &str, seed: &str) -> (Descriptor, LayerBlob) {
    let (bytes, names) = layer(seed);
    let writer = store.writer().unwrap();
    let taken = match writer.layer(&names).unwrap() {
        Taken::Wanted(ingest) => ingest.run(&writer, &bytes[..]).unwrap(),
        Taken::Present => Layer { blob: names, compression: crate::decompress::Compression::Gzip },
    };
    let config = ImageConfig::new(&Platform::host(), vec![names.diff_id]);
    let config = writer.put(media::CONFIG, &serde_json::to_vec(&config).unwrap()).unwrap();
    let manifest = Manifest::new(config, vec![taken.descriptor()]);
    let manifest = writer.put(media::MANIFEST, &serde_json::to_vec(&manifest).unwrap()).unwrap();
    writer.tag(&name.parse().unwrap(), &manifest).unwrap();
    (manifest, names)
}

#[test]
fn a_layer_is_taken_in_in_one_pass() {
    let place = place();
    let (bytes, names) = layer("x");
    let taken = take(&place.store, &names, &bytes).unwrap();
    assert_eq!(taken.descriptor().media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
    assert!(is_present(&place.store, &names));
    let mut blob = Vec::new();
    place.store.open_blob(&names.digest).unwrap().read_to_end(&mut blob).unwrap();
    assert_eq!(blob, bytes);
    let tar = fs::read(place.store.own.layer(&names.diff_id).join("tar")).unwrap();
    assert_eq!(Digest::of(&tar), names.diff_id);
    assert_eq!(files(&place.store).len(), 5, "{:?}", files(&place.store));
}

#[test]
fn a_plain_layer_lies_there_once() {
    use std::os::unix::fs::MetadataExt as _;
    let place = place();
    let tar = tar_of(&[("a", b"b")]);
    let writer = place.store.writer().unwrap();
    let layer = writer.new_layer(&tar[..]).unwrap();
    assert_eq!((layer.blob.digest, layer.blob.size), (layer.blob.diff_id, tar.len() as u64));
    let [blob, tar] =
        [place.store.own.blob(&layer.blob.digest), place.store.own.layer(&layer.blob.diff_id).join("tar")]
            .map(|path| fs::metadata(path).unwrap().ino());
    assert_eq!(blob, tar);
    assert!(matches!(writer.layer(&layer.blob).unwrap(), Taken::Present));
}

#[test]
fn what_is_not_as_promised_leaves_nothing_behind() {
    let place = place();
    let before = files(&place.store);
    let (bytes, names) = layer("x");
    let (other, other_names) = layer("y");
    let mut broken = bytes.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 0x55;
    let no_tar = gzip(&noise(5000));
    let no_tar_names =
        LayerBlob { digest: Digest::of(&no_tar), size: no_tar.len() as u64, diff_id: Digest::of(&noise(5000)) };
    let longer = [&bytes[..], b"x"].concat();
    let cases: [(&str, LayerBlob, &[u8]); 5] = [
        ("has the digest", LayerBlob { size: other.len() as u64, ..names }, &other),
        ("has the digest", names, &broken),
        ("its tar is", LayerBlob { diff_id: other_names.diff_id, ..names }, &bytes),
        ("were promised", names, &longer),
        ("checksum", no_tar_names, &no_tar),
    ];
    for (word, names, bytes) in cases {
        let error = take(&place.store, &names, bytes).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
        assert_eq!(files(&place.store), before, "{word}");
        assert!(!is_present(&place.store, &names));
    }
}

#[test]
fn an_interrupted_layer_goes_on_where_it_ended() {
    struct Failing<'a>(&'a [u8]);
    impl Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::ErrorKind::ConnectionReset.into()) } else { self.0.read(buffer) }
        }
    }
    let place = place();
    let (bytes, names) = layer("x");
    let some = bytes.len() / 3;
    let error = take(&place.store, &names, &bytes[..some]).unwrap_err();
    assert!(matches!(error, StoreError::Interrupted { received, .. } if received == some as u64), "{error}");
    let writer = place.store.writer().unwrap();
    let Taken::Wanted(ingest) = writer.layer(&names).unwrap() else { panic!("present") };
    assert_eq!(ingest.received(), some as u64);
    let error = ingest.run(&writer, Failing(&bytes[some..2 * some])).unwrap_err();
    assert!(matches!(error, StoreError::Interrupted { received, .. } if received == 2 * some as u64), "{error}");
    drop(writer);
    // Another process, later.
    let store = Store::open(place.store.root(), &[]).unwrap();
    take(&store, &names, &bytes).unwrap();
    assert!(is_present(&store, &names));
    assert!(fs::read_dir(store.root().join("partial")).unwrap().next().is_none());
    // All of it came, but the process was killed before it saw that.
    let (bytes, names) = layer("y");
    fs::write(store.own.partial(&names.digest), &bytes).unwrap();
    take(&store, &names, &bytes).unwrap();
    // What was kept is wrong: it is seen, and does not stay.
    let (bytes, names) = layer("z");
    fs::write(store.own.partial(&names.digest), noise(500)).unwrap();
    assert!(take(&store, &names, &bytes).is_err());
    fs::write(store.own.partial(&names.digest), noise(5000)).unwrap();
    let writer = store.writer().unwrap();
    let Taken::Wanted(mut ingest) = writer.layer(&names).unwrap() else { panic!("present") };
    ingest.restart().unwrap();
    ingest.run(&writer, &bytes[..]).unwrap();
}

#[test]
fn the_work_is_done_once() {
    let place = place();
    let (bytes, names) = layer("x");
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let writer = place.store.writer().unwrap();
                if let Taken::Wanted(ingest) = writer.layer(&names).unwrap() {
                    ingest.run(&writer, &bytes[..]).unwrap();
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(done.into_inner(), 1);
}

#[test]
fn layers_are_made_of_blobs_where_they_are_missing() {
    let place = place();
    let (manifest, names) = add_image(&place.store, "a", "x");
    let image = place.store.image(&manifest, &Platform::host()).unwrap();
    for spoil in [
        |dir: &Path| fs::remove_dir_all(dir),
        |dir: &Path| fs::remove_file(dir.join("tar")),
        |dir: &Path| fs::write(dir.join("tar"), "short"),
    ] {
        place.store.open_image(&image).unwrap();
        spoil(&place.store.own.layer(&names.diff_id)).unwrap();
        place.store.open_image(&image).unwrap();
        assert!(place.store.layer_files(&names.diff_id).is_some());
    }
    fs::write(place.store.own.stack(&image.chain_id()), "x").unwrap();
    place.store.open_image(&image).unwrap();
    // The index of another image in its place.
    let (other, _) = add_image(&place.store, "other", "y");
    let other = place.store.image(&other, &Platform::host()).unwrap();
    place.store.open_image(&other).unwrap();
    let stacks = [&image, &other].map(|image| place.store.own.stack(&image.chain_id()));
    fs::copy(&stacks[1], &stacks[0]).unwrap();
    let opened = place.store.open_image(&image).unwrap();
    assert_eq!(opened.layer.index().objects(), 3);
    assert_ne!(fs::read(&stacks[0]).unwrap(), fs::read(&stacks[1]).unwrap());
    // And from a store that is only read.
    let store = Store::open(&place.dir.path().join("other"), &[place.store.root().to_owned()]).unwrap();
    assert!(store.find("a").unwrap().additional);
    store.open_image(&image).unwrap();
    assert_eq!(files(&store).len(), 2);
    fs::remove_dir_all(place.store.own.layer(&names.diff_id)).unwrap();
    store.open_image(&image).unwrap();
    assert!(!place.store.own.layer(&names.diff_id).exists());
}

#[test]
fn names_are_given_moved_and_taken() {
    let place = place();
    let store = &place.store;
    let (x, _) = add_image(store, "repo/x:1", "x");
    let (y, _) = add_image(store, "localhost/y", "y");
    let name = |text: &str| text.parse::<Reference>().unwrap();
    assert_eq!(store.find("repo/x:1").unwrap().descriptor.digest, x.digest);
    assert_eq!(store.find("docker.io/repo/x:1").unwrap().descriptor.digest, x.digest);
    assert_eq!(store.find("y").unwrap().descriptor.digest, y.digest);
    assert_eq!(store.find(&format!("repo/x@{}", x.digest)).unwrap().descriptor.digest, x.digest);
    assert_eq!(store.find(&x.digest.hex()[..10]).unwrap().descriptor.digest, x.digest);
    let id = store.image(&y, &Platform::host()).unwrap().id();
    assert_eq!(store.find(&id.short()).unwrap().descriptor.digest, y.digest);
    for unknown in ["repo/x", "", "x", "../x", "sha256:", "ffffffffffff"] {
        assert!(matches!(store.find(unknown), Err(StoreError::NoImage(_))), "{unknown:?}");
    }
    let writer = store.writer().unwrap();
    writer.tag(&name("repo/x:1"), &y).unwrap();
    writer.tag(&name("repo/x:1"), &y).unwrap();
    let names = |store: &Store| {
        let mut names: Vec<_> =
            store.images().unwrap().into_iter().map(|i| (i.name.map(|n| n.to_string()), i.descriptor.digest)).collect();
        names.sort();
        names
    };
    let listed = names(store);
    assert_eq!(listed.len(), 3);
    assert_eq!(listed[0], (None, x.digest));
    assert!(writer.untag(&name("localhost/y")).unwrap());
    assert!(!writer.untag(&name("localhost/y")).unwrap());
    assert!(writer.untag(&name("repo/x:1")).unwrap());
    assert_eq!(names(store), [(None, x.digest.min(y.digest)), (None, x.digest.max(y.digest))]);
    writer.tag(&name("z"), &store.images().unwrap()[0].descriptor).unwrap();
    assert_eq!(names(store).len(), 2);
    assert!(writer.tag(&name(&format!("z@{}", x.digest)), &x).is_err());
    assert_eq!(writer.remove(&x.digest).unwrap().len() + writer.remove(&y.digest).unwrap().len(), 1);
    assert!(names(store).is_empty());
}

#[test]
fn garbage_goes_and_what_is_used_stays() {
    let place = place();
    let store = &place.store;
    let before = files(store);
    let (x, _) = add_image(store, "x", "x");
    let one = files(store);
    let (y, _) = add_image(store, "y", "y");
    let image = store.image(&y, &Platform::host()).unwrap();
    let opened = store.open_image(&image).unwrap();
    fs::write(store.own.partial(&Digest::of(b"gone")), noise(100)).unwrap();
    fs::write(store.root().join("blobs/sha256/junk"), "junk").unwrap();
    assert!(store.prune(Prune::Unnamed, true).unwrap().unwrap().images.is_empty());
    let writer = store.writer().unwrap();
    assert!(store.prune(Prune::Garbage, false).unwrap().is_none());
    writer.untag(&"y".parse().unwrap()).unwrap();
    drop(writer);
    // Mounted: kept, but for a prune that asks for its name alone.
    let pruned = store.prune(Prune::Unused, true).unwrap().unwrap();
    assert_eq!(pruned.images.iter().map(|image| image.descriptor.digest).collect::<Vec<_>>(), [x.digest]);
    assert_eq!(pruned.blobs.len(), 3);
    assert!(pruned.bytes > 0);
    store.open_image(&image).unwrap();
    drop(opened);
    assert_eq!(store.prune(Prune::Unnamed, true).unwrap().unwrap().images.len(), 1);
    assert_eq!(files(store), before);
    add_image(store, "x", "x");
    assert_eq!(files(store), one);
}

#[test]
fn a_damaged_blob_comes_again() {
    let place = place();
    let store = &place.store;
    let (manifest, names) = add_image(store, "x", "x");
    let bytes = layer("x").0;
    let blob = store.own.blob(&names.digest);
    fs::write(&blob, &bytes[..100]).unwrap();
    take(store, &names, &bytes).unwrap();
    // Of the right length, and its layer gone.
    let mut wrong = bytes.clone();
    wrong[500] ^= 1;
    fs::write(&blob, &wrong).unwrap();
    fs::remove_dir_all(store.own.layer(&names.diff_id)).unwrap();
    let image = store.image(&manifest, &Platform::host()).unwrap();
    assert!(matches!(store.open_image(&image), Err(StoreError::Mismatch(_))));
    take(store, &names, &bytes).unwrap();
    // A lie about it is none of its faults.
    let lie = LayerBlob { size: names.size - 1, ..names };
    assert!(matches!(store.writer().unwrap().layer(&lie), Err(StoreError::Mismatch(_))));
    assert!(is_present(store, &names));
    fs::write(store.own.blob(&manifest.digest), "").unwrap();
    assert!(store.open_image(&image).is_ok());
    add_image(store, "x", "x");
    assert!(store.verify(None, false).unwrap().faults.is_empty());
}

#[test]
fn everything_is_read_again() {
    let place = place();
    let store = &place.store;
    let (x, names) = add_image(store, "x", "x");
    let image = store.image(&x, &Platform::host()).unwrap();
    store.open_image(&image).unwrap();
    let verify = || {
        let verdict = store.verify(None, false).unwrap();
        verdict.faults.iter().map(|fault| (fault.object, fault.repaired)).collect::<Vec<_>>()
    };
    assert_eq!(verify(), []);
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let dir = store.own.layer(&names.diff_id);
    for (path, object) in [
        (dir.join("tar"), Object::Layer(names.diff_id)),
        (dir.join("index"), Object::Layer(names.diff_id)),
        (store.own.stack(&image.chain_id()), Object::Stack(image.chain_id())),
    ] {
        flip(&path, 300);
        assert_eq!(verify(), [(object, true)]);
        assert_eq!(verify(), []);
    }
    flip(&store.own.blob(&names.digest), 700);
    assert_eq!(verify(), [(Object::Blob(names.digest), false)]);
    assert_eq!(store.verify(Some(&store.images().unwrap()), true).unwrap().faults.len(), 1);
    assert_eq!(verify(), [(Object::Blob(names.digest), false)]);
    take(store, &names, &layer("x").0).unwrap();
    assert_eq!(verify(), []);
}

#[test]
fn only_a_store_is_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine"), "").unwrap();
    assert!(matches!(Store::open(dir.path(), &[]), Err(StoreError::NotAStore(_))));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let root = dir.path().join("a/b");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| Store::open(&root, &[]).unwrap().images().unwrap());
        }
    });
    assert!(Store::open(&root, &[dir.path().join("missing")]).is_err());
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion": "2.0.0"}"#).unwrap();
    assert!(matches!(Store::open(&root, &[]), Err(StoreError::LayoutVersion { .. })));
}
