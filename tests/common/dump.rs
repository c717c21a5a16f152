//! Full dumps of a tree, and a readable difference of two.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs::{self, File},
    io::Read,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{DirEntryExt, FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{SeekFrom, lgetxattr, llistxattr, seek},
    io::Errno,
};
use sha2::{Digest, Sha256};

/// A dump: paths relative to its root, which is the empty path.
pub type Tree = BTreeMap<PathBuf, Node>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    Char,
    Block,
}

/// All there is to know of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub nlink: u64,
    pub mtime_ns: i128,
    /// Content of a regular file: as text if short, else its sha256.
    pub content: Option<String>,
    pub target: Option<PathBuf>,
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
    /// Data segments of a regular file, as SEEK_DATA and SEEK_HOLE tell them.
    pub data: Vec<(u64, u64)>,
    pub ino: u64,
    pub dev: u64,
    /// The number that readdir gave; 0 for the root of the dump.
    pub d_ino: u64,
}

/// Dumps a tree as users see it: without the xattrs that unions keep for themselves. Panics on any error.
pub fn dump(root: &Path) -> Tree {
    dump_with(root, false, |_| false)
}

/// Dumps a tree with all xattrs, as the disk of a layer is looked at.
pub fn dump_all(root: &Path) -> Tree {
    dump_with(root, true, |_| false)
}

/// [`dump_all`] without the names that `skip` knows: a peer's listing may hold names that it cannot look up.
pub fn dump_all_but(root: &Path, skip: fn(&OsStr) -> bool) -> Tree {
    dump_with(root, true, skip)
}

fn dump_with(root: &Path, private: bool, skip: fn(&OsStr) -> bool) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![(PathBuf::new(), 0)];
    while let Some((rel, d_ino)) = todo.pop() {
        let path = if rel.as_os_str().is_empty() { root.to_owned() } else { root.join(&rel) };
        let node = Node::read(&path, d_ino, private);
        if node.kind == Kind::Dir {
            let entries = fs::read_dir(&path).unwrap_or_else(|e| panic!("readdir {}: {e}", path.display()));
            for entry in entries {
                let entry = entry.unwrap_or_else(|e| panic!("readdir {}: {e}", path.display()));
                if !skip(&entry.file_name()) {
                    todo.push((rel.join(entry.file_name()), entry.ino()));
                }
            }
        }
        if let Some(twice) = tree.insert(rel, node) {
            panic!("readdir gave {} twice, ino {}", path.display(), twice.ino);
        }
    }
    tree
}

impl Node {
    /// Reads one object; panics on any error.
    pub fn read(path: &Path, d_ino: u64, private: bool) -> Self {
        let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("stat {}: {e}", path.display()));
        let kind = Kind::of(meta.file_type());
        let (mut content, mut data) = (None, Vec::new());
        if kind == Kind::File {
            let (text, segments) = read_file(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
            content = Some(text);
            data = segments;
        }
        let target = (kind == Kind::Symlink)
            .then(|| fs::read_link(path).unwrap_or_else(|e| panic!("readlink {}: {e}", path.display())));
        let mut xattrs = read_xattrs(path).unwrap_or_else(|e| panic!("xattrs of {}: {e}", path.display()));
        if !private {
            xattrs.retain(|name, _| !is_private(name));
        }
        Self {
            kind,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            rdev: meta.rdev(),
            size: meta.size(),
            nlink: meta.nlink(),
            mtime_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
            content,
            target,
            xattrs,
            data,
            ino: meta.ino(),
            dev: meta.dev(),
            d_ino,
        }
    }
}

impl Kind {
    pub fn of(t: fs::FileType) -> Self {
        match t {
            t if t.is_file() => Self::File,
            t if t.is_dir() => Self::Dir,
            t if t.is_symlink() => Self::Symlink,
            t if t.is_fifo() => Self::Fifo,
            t if t.is_socket() => Self::Socket,
            t if t.is_char_device() => Self::Char,
            _ => Self::Block,
        }
    }
}

fn is_private(name: &OsStr) -> bool {
    let private: [&[u8]; 5] = [
        b"trusted.overlay.",
        b"user.overlay.",
        b"user.fuseoverlayfs.",
        b"security.fuseoverlayfs.",
        b"user.containers.override_",
    ];
    private.iter().any(|p| name.as_bytes().starts_with(p))
}

fn read_file(path: &Path) -> std::io::Result<(String, Vec<(u64, u64)>)> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut hash = Sha256::new();
    let mut first = Vec::new();
    let mut total = 0;
    let mut buf = vec![0; 1 << 17];
    loop {
        let n = file.read(&mut buf)?;
        if n == 0 {
            break;
        }
        hash.update(&buf[..n]);
        total += n;
        if total <= 64 {
            first.extend_from_slice(&buf[..n]);
        }
    }
    // What is allocated and not written shows as data once it was read, so it is read first.
    let mut segments = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        at = seek(&file, SeekFrom::Hole(start))?;
        segments.push((start, at));
    }
    let text = if total <= 64 && total == first.len() {
        format!("{:?}", String::from_utf8_lossy(&first))
    } else {
        let mut hex = String::from("sha256:");
        for byte in hash.finalize() {
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    };
    Ok((text, segments))
}

/// All xattrs of an object, symlinks not followed.
pub fn read_xattrs(path: &Path) -> Result<BTreeMap<OsString, Vec<u8>>, Errno> {
    let mut names = vec![0_u8; 1 << 16];
    let len = match llistxattr(path, &mut names[..]) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => 0,
        Err(e) => return Err(e),
    };
    names.truncate(len);
    let mut out = BTreeMap::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0_u8; 1 << 16];
        let len = lgetxattr(path, name, &mut value[..])?;
        value.truncate(len);
        out.insert(OsString::from_vec(name.to_vec()), value);
    }
    Ok(out)
}

/// What is compared; types, modes, owners, device numbers, content, targets and hard-link groups always are.
#[derive(Debug, Clone, Copy)]
pub struct Compare {
    /// nlink of objects that are no directories.
    pub nlink: bool,
    pub dir_nlink: bool,
    pub xattrs: bool,
    /// mtime of objects that are no directories.
    pub mtime: bool,
    pub dir_mtime: bool,
    pub ino: bool,
    /// Data segments.
    pub holes: bool,
    /// The root object itself (its mtime and mode are the mountpoint's maker's).
    pub root: bool,
}

impl Compare {
    /// Two trees that ought to be equal but lie on different filesystems.
    pub const CONTENT: Self = Self {
        nlink: true,
        dir_nlink: false,
        xattrs: true,
        mtime: true,
        dir_mtime: false,
        ino: false,
        holes: false,
        root: true,
    };
    /// One directory before and after something that must not touch it.
    pub const UNTOUCHED: Self = Self {
        nlink: true,
        dir_nlink: true,
        xattrs: true,
        mtime: true,
        dir_mtime: true,
        ino: true,
        holes: true,
        root: true,
    };
}

/// The differences of two dumps, one a line; empty if there are none.
pub fn diff(want: &Tree, got: &Tree, how: Compare) -> String {
    let mut out = String::new();
    let paths: std::collections::BTreeSet<&PathBuf> = want.keys().chain(got.keys()).collect();
    let (want_links, got_links) = (link_groups(want), link_groups(got));
    for path in paths {
        if !how.root && path.as_os_str().is_empty() {
            continue;
        }
        let name = if path.as_os_str().is_empty() { ".".into() } else { path.to_string_lossy() };
        match (want.get(path), got.get(path)) {
            (Some(w), None) => {
                let _ = writeln!(out, "{name}: missing ({:?} mode {:o})", w.kind, w.mode);
            }
            (None, Some(g)) => {
                let _ = writeln!(out, "{name}: unexpected ({:?} mode {:o})", g.kind, g.mode);
            }
            (Some(w), Some(g)) => {
                node_diff(&mut out, &name, w, g, how);
                let (wl, gl) = (want_links.get(path), got_links.get(path));
                if wl != gl {
                    let _ = writeln!(out, "{name}: linked with: want {wl:?}, got {gl:?}");
                }
            }
            (None, None) => {}
        }
    }
    out
}

fn node_diff(out: &mut String, name: &str, w: &Node, g: &Node, how: Compare) {
    fn field<T: PartialEq + std::fmt::Debug>(out: &mut String, name: &str, what: &str, on: bool, w: T, g: T) {
        if on && w != g {
            let _ = writeln!(out, "{name}: {what}: want {w:?}, got {g:?}");
        }
    }
    let dir = w.kind == Kind::Dir;
    field(out, name, "type", true, w.kind, g.kind);
    if w.mode != g.mode {
        let _ = writeln!(out, "{name}: mode: want {:o}, got {:o}", w.mode, g.mode);
    }
    field(out, name, "uid", true, w.uid, g.uid);
    field(out, name, "gid", true, w.gid, g.gid);
    field(out, name, "rdev", true, w.rdev, g.rdev);
    field(out, name, "size", !dir, w.size, g.size);
    field(out, name, "content", true, &w.content, &g.content);
    field(out, name, "target", true, &w.target, &g.target);
    field(out, name, "nlink", if dir { how.dir_nlink } else { how.nlink }, w.nlink, g.nlink);
    field(out, name, "mtime", if dir { how.dir_mtime } else { how.mtime }, w.mtime_ns, g.mtime_ns);
    field(out, name, "ino", how.ino, w.ino, g.ino);
    field(out, name, "data segments", how.holes, &w.data, &g.data);
    if how.xattrs && w.xattrs != g.xattrs {
        let show = |x: &BTreeMap<OsString, Vec<u8>>| {
            let shown: Vec<_> =
                x.iter().map(|(k, v)| format!("{}={:?}", k.display(), String::from_utf8_lossy(v))).collect();
            shown.join(" ")
        };
        let _ = writeln!(out, "{name}: xattrs: want {}, got {}", show(&w.xattrs), show(&g.xattrs));
    }
}

/// For every path with several links: the first path of its group.
fn link_groups(tree: &Tree) -> BTreeMap<&PathBuf, &PathBuf> {
    let mut first: BTreeMap<(u64, u64), &PathBuf> = BTreeMap::new();
    let mut groups = BTreeMap::new();
    for (path, node) in tree.iter().filter(|(_, n)| n.kind != Kind::Dir) {
        let leader = *first.entry((node.dev, node.ino)).or_insert(path);
        if leader != path {
            groups.insert(leader, leader);
            groups.insert(path, leader);
        }
    }
    groups
}

/// Panics with all differences, if there are any.
#[track_caller]
pub fn assert_same(what: &str, want: &Tree, got: &Tree, how: Compare) {
    let differences = diff(want, got, how);
    assert!(differences.is_empty(), "{what}:\n{differences}");
}
