//! Layers: written to disk, and united in memory by applying them bottom to top.

use std::{
    collections::BTreeMap,
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::lchown,
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags},
    fs::{lsetxattr, mknodat, utimensat},
};

use super::{
    case::{Data, Entry, Meta, Opaque, What},
    runner::Quirks,
    tree::{Body, Id, Inode, Tree},
};

/// A path as its components, so that directories sort before what is in them.
type Parts = Vec<String>;

/// What a layer holds, free of contradictions.
type Layer = BTreeMap<Parts, What>;

fn parts(path: &str) -> Parts {
    path.split('/').map(str::to_owned).collect()
}

/// The objects of a layer that can be, in the order in which they were asked for: an object whose parent is no
/// directory, or whose name is taken, is left out, and missing parents are made.
fn settle(entries: &[Entry], below: &Tree, quirks: &Quirks) -> Layer {
    let mut layer = Layer::new();
    for entry in entries {
        settle_one(&mut layer, entry, below, quirks);
    }
    layer
}

/// Adds an object to a layer if it can be there.
fn settle_one(layer: &mut Layer, Entry { path, what }: &Entry, below: &Tree, quirks: &Quirks) -> bool {
    let path = parts(path);
    let parents: Vec<Parts> = (1..path.len()).map(|n| path[..n].to_vec()).collect();
    let blocked = parents.iter().any(|p| layer.get(p).is_some_and(|w| !matches!(w, What::Dir { .. })));
    if blocked || layer.contains_key(&path) || !sensible(what, &path, layer, below, quirks) {
        return false;
    }
    for parent in parents {
        let meta = Meta { mode: 0o755, uid: 0, gid: 0, xattr: None };
        layer.entry(parent).or_insert(What::Dir { meta, opaque: Opaque::No });
    }
    layer.insert(path, what.clone());
    true
}

/// Takes from the layers what has no meaning, or none to a subject with these quirks.
pub fn retain_sensible(layers: &mut [Vec<Entry>], quirks: &Quirks) {
    let mut tree = Tree::new();
    for (n, entries) in layers.iter_mut().enumerate().rev() {
        let mut layer = Layer::new();
        entries.retain(|entry| settle_one(&mut layer, entry, &tree, quirks));
        lay_over(&mut tree, &layer, n);
    }
}

fn sensible(what: &What, path: &Parts, layer: &Layer, below: &Tree, quirks: &Quirks) -> bool {
    match what {
        What::Link { old } => match layer.get(&parts(old)) {
            Some(What::File { .. }) => true,
            // Their links cannot be kept together without a mark on the copy.
            Some(What::Symlink { .. } | What::Fifo { .. }) => quirks.special_inos,
            _ => false,
        },
        What::WhFile => quirks.aufs_marks,
        What::Dir { opaque: Opaque::WhFile, .. } => quirks.aufs_marks,
        What::Whiteout if !quirks.idle_whiteouts => {
            // Only where it hides something: its directory is merged with one below.
            let mut dir = below.root;
            path[..path.len() - 1].iter().enumerate().all(|(n, name)| {
                let opaque = match layer.get(&path[..=n]) {
                    Some(What::Dir { opaque, .. }) => *opaque != Opaque::No,
                    _ => false,
                };
                let child = below.child(dir, name).filter(|&c| below.node(c).is_dir() && !opaque);
                dir = child.unwrap_or(dir);
                child.is_some()
            })
        }
        _ => true,
    }
}

/// The union of `layers` (top first).
pub fn unite(layers: &[Vec<Entry>], quirks: &Quirks) -> Tree {
    let mut tree = Tree::new();
    for (n, entries) in layers.iter().enumerate().rev() {
        let layer = settle(entries, &tree, quirks);
        lay_over(&mut tree, &layer, n);
    }
    finish(tree)
}

/// [`unite`], and each layer written to its directory.
pub fn write(layers: &[Vec<Entry>], dirs: &[impl AsRef<Path>], quirks: &Quirks) -> Tree {
    let mut tree = Tree::new();
    for (n, (entries, dir)) in layers.iter().zip(dirs).enumerate().rev() {
        let layer = settle(entries, &tree, quirks);
        write_layer(&layer, dir.as_ref(), n);
        lay_over(&mut tree, &layer, n);
    }
    finish(tree)
}

fn finish(mut tree: Tree) -> Tree {
    for node in tree.all_mut() {
        node.lower_data = matches!(node.body, Body::File(_));
    }
    tree
}

/// The mtime of the object number `i` in layer `n`.
fn mtime(n: usize, i: usize) -> (i64, u32) {
    (1_500_000_000 + n as i64 * 10_000 + i as i64, 123_456_000 + i as u32)
}

fn write_layer(layer: &Layer, dir: &Path, number: usize) {
    for (path, what) in layer {
        let at = dir.join(path.join("/"));
        match what {
            What::File { meta, data, hole } => {
                let mut file = fs::File::create(&at).unwrap();
                file.seek(SeekFrom::Start(*hole as u64)).unwrap();
                file.write_all(&data.bytes()).unwrap();
                set_meta(&at, meta);
            }
            What::Dir { meta, opaque } => {
                fs::create_dir(&at).unwrap();
                set_meta(&at, meta);
                match opaque {
                    Opaque::No => {}
                    Opaque::Xattr => {
                        lsetxattr(&at, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
                    }
                    Opaque::WhFile => fs::write(at.join(".wh..wh..opq"), "").unwrap(),
                }
            }
            What::Symlink { target } => {
                std::os::unix::fs::symlink(target, &at).unwrap();
                // A setgid directory would pass its group on.
                lchown(&at, Some(0), Some(0)).unwrap();
            }
            What::Fifo { meta } => {
                mknodat(CWD, &at, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
                let plain = Meta { xattr: None, ..*meta };
                set_meta(&at, &plain);
            }
            What::Whiteout => mknodat(CWD, &at, FileType::CharacterDevice, Mode::empty(), 0).unwrap(),
            What::WhFile => {
                let (name, parent) = path.split_last().expect("a path has a component");
                fs::write(dir.join(parent.join("/")).join(format!(".wh.{name}")), "").unwrap();
            }
            // Needs its other name, which may sort after it.
            What::Link { .. } => {}
        }
    }
    for (path, what) in layer {
        if let What::Link { old } = what {
            fs::hard_link(dir.join(old), dir.join(path.join("/"))).unwrap();
        }
    }
    // Last, and what is inside a directory before the directory.
    for (i, (path, what)) in layer.iter().enumerate().rev() {
        if !matches!(what, What::Link { .. } | What::Whiteout | What::WhFile) {
            let (secs, nanos) = mtime(number, i);
            set_mtime(&dir.join(path.join("/")), secs, nanos);
        }
    }
}

fn set_meta(at: &Path, meta: &Meta) {
    lchown(at, Some(meta.uid), Some(meta.gid)).unwrap();
    fs::set_permissions(at, std::os::unix::fs::PermissionsExt::from_mode(meta.mode)).unwrap();
    if let Some(x) = meta.xattr {
        lsetxattr(at, "user.k", &Data { tag: x, len: 5 }.bytes(), XattrFlags::empty()).unwrap();
    }
}

fn set_mtime(at: &Path, secs: i64, nanos: u32) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: secs, tv_nsec: nanos.into() },
    };
    utimensat(CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Lays `layer` over `tree`.
fn lay_over(tree: &mut Tree, layer: &Layer, number: usize) {
    for (i, (path, what)) in layer.iter().enumerate() {
        let (name, parent) = path.split_last().expect("a path has a component");
        let parent = parent.iter().fold(tree.root, |at, name| tree.child(at, name).expect("its parent is there"));
        let below = tree.child(parent, name);
        let mut inode = match what {
            What::Whiteout | What::WhFile => {
                tree.hide(parent, name);
                continue;
            }
            // After the others: its first name may sort after it.
            What::Link { .. } => continue,
            What::File { meta, data, hole } => {
                let mut content = vec![0; *hole];
                content.extend(data.bytes());
                if data.len == 0 {
                    content.clear();
                }
                with_meta(Body::File(content), meta)
            }
            What::Dir { meta, opaque } => {
                let merged = below.filter(|_| *opaque == Opaque::No).and_then(|id| tree.node(id).entries());
                with_meta(Body::Dir(merged.cloned().unwrap_or_default()), meta)
            }
            What::Symlink { target } => Inode::new(Body::Symlink(target.clone()), 0o777, 0, 0),
            What::Fifo { meta } => with_meta(Body::Fifo, &Meta { xattr: None, ..*meta }),
        };
        inode.mtime = Some(mtime(number, i));
        let id = tree.add(inode);
        tree.put(parent, name, id);
    }
    for (path, what) in layer {
        if let What::Link { old } = what {
            let id = walk(tree, &parts(old));
            let (name, parent) = path.split_last().expect("a path has a component");
            let parent = walk(tree, parent);
            tree.put(parent, name, id);
            // Names that a higher layer hides go on counting, because no union can know of them without reading
            // whole layers.
            tree.node_mut(id).nlink += 1;
        }
    }
}

fn walk(tree: &Tree, path: &[String]) -> Id {
    path.iter().fold(tree.root, |at, name| tree.child(at, name).expect("the layer has it"))
}

fn with_meta(body: Body, meta: &Meta) -> Inode {
    let mut inode = Inode::new(body, meta.mode, meta.uid, meta.gid);
    if let Some(x) = meta.xattr {
        inode.xattrs.insert("user.k".to_owned(), Data { tag: x, len: 5 }.bytes());
    }
    inode
}

/// Whether two subjects see the same in these layers.
pub fn same_for(layers: &[Vec<Entry>], a: &Quirks, b: &Quirks) -> bool {
    let mut tree = Tree::new();
    layers.iter().enumerate().rev().all(|(n, entries)| {
        let layer = settle(entries, &tree, a);
        let same = layer == settle(entries, &tree, b);
        lay_over(&mut tree, &layer, n);
        same
    })
}

/// Whether a layer holds hard links.
pub fn has_links(layers: &[Vec<Entry>]) -> bool {
    layers.iter().flatten().any(|e| matches!(e.what, What::Link { .. }))
}
