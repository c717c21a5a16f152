//! What a layer holds, read through the trait that the union reads it by.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use lamel_image::index::{self, IndexError, Limits};
use lamel_image::stack::{self, LayerFiles};
use lamel_image::{Digest, IndexedLayer};
use lamel_unionfs::layer::{Content, Layer, LayerDir, Listed, Lookup};

/// Indexes an archive and opens it.
pub(crate) fn open(tar: &[u8], limits: &Limits) -> Result<IndexedLayer, IndexError> {
    let diff_id = Digest::of(tar);
    let built = index::build(&mut &*tar, limits)?;
    let mut index = tempfile::tempfile().unwrap();
    let mut bytes = Vec::new();
    built.write(&diff_id, &mut bytes).unwrap();
    index.write_all(&bytes).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(tar).unwrap();
    IndexedLayer::open(Path::new("test"), file.into(), &index.into(), &diff_id)
}

/// A line an entry: path, type, mode, owner, link count, and content, target or device.
pub(crate) fn listing(layer: &dyn Layer) -> String {
    let mut text = String::new();
    walk(layer, &Arc::clone(layer.root()), &mut text);
    text
}

fn walk(layer: &dyn Layer, dir: &Arc<LayerDir>, text: &mut String) {
    let mut names = Vec::new();
    layer
        .list(dir, &mut |listed| {
            names.push(match listed {
                Listed::Entry(name, ..) => (name.to_owned(), false),
                Listed::Whiteout(name) => (name.to_owned(), true),
            });
            Ok(())
        })
        .unwrap();
    for (name, whiteout) in names {
        let path = dir.path_of(&name);
        match layer.lookup(dir, &name, false).unwrap() {
            Lookup::Absent => panic!("{} is listed, but not found", path.display()),
            Lookup::Whiteout => {
                assert!(whiteout);
                writeln!(text, "{} whiteout", path.display()).unwrap();
            }
            Lookup::Found { entry, hides } => {
                assert_eq!(layer.attr(dir, &name).unwrap(), entry.attr);
                let attr = &entry.attr;
                write!(text, "{} {:o} {}:{}", path.display(), attr.mode, attr.uid, attr.gid).unwrap();
                if !attr.is_dir() && attr.nlink != 1 {
                    write!(text, " links={} ino={}", attr.nlink, attr.ino).unwrap();
                }
                if hides {
                    text.push_str(" hides");
                }
                if entry.marks.opaque {
                    text.push_str(" opaque");
                }
                text.push_str(&what(layer, dir, &name, attr));
                for key in layer.xattr_names(dir, &name).unwrap().split(|byte| *byte == 0).filter(|key| !key.is_empty())
                {
                    let key = OsStr::from_bytes(key);
                    let value = layer.xattr(dir, &name, key).unwrap().unwrap();
                    write!(text, " {}={}", key.display(), value.escape_ascii()).unwrap();
                }
                text.push('\n');
                if attr.is_dir() {
                    walk(layer, &layer.child(dir, &name, &entry), text);
                }
            }
        }
    }
}

fn what(layer: &dyn Layer, dir: &Arc<LayerDir>, name: &OsStr, attr: &lamel_unionfs::Attr) -> String {
    match attr.mode & 0o170_000 {
        0o100_000 => match layer.open(dir, name).unwrap() {
            Content::Bytes(bytes) => format!(" {:?}", String::from_utf8_lossy((*bytes).as_ref())),
            Content::Sparse(_) => format!(" sparse {} of {}", attr.blocks, attr.size),
            Content::File(_) => panic!("an indexed layer has no files"),
        },
        0o120_000 => format!(" -> {}", String::from_utf8_lossy(&layer.readlink(dir, name).unwrap())),
        0o020_000 | 0o060_000 => format!(" device {:x}", attr.rdev),
        _ => String::new(),
    }
}

/// Indexes archives into files below `dir`, the bottom one first.
pub(crate) fn store(dir: &Path, tars: &[&[u8]]) -> Vec<LayerFiles> {
    let keep = |(number, tar): (usize, &&[u8])| {
        let diff_id = Digest::of(tar);
        let (tar_path, index) = (dir.join(format!("{number}.tar")), dir.join(format!("{number}.index")));
        std::fs::write(&tar_path, tar).unwrap();
        let built = index::build(&mut &**tar, &Limits::default()).unwrap();
        built.write(&diff_id, &mut File::create(&index).unwrap()).unwrap();
        LayerFiles { diff_id, tar: tar_path, index }
    };
    tars.iter().enumerate().map(keep).collect()
}

/// The stack of archives, the bottom one first.
pub(crate) fn stacked(tars: &[&[u8]]) -> IndexedLayer {
    let dir = tempfile::tempdir().unwrap();
    stack::open_merging(Path::new("test"), &store(dir.path(), tars)).unwrap()
}
