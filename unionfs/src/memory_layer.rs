//! A layer without descriptors, to hold the [`Layer`] trait to its promise: the
//! union needs nothing of a layer that a table in memory cannot give.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::attr::{Attr, SetAttr};
use crate::error::{Refusal, Result};
use crate::file::FileId;
use crate::inode::{Inode, ROOT_INO};
use crate::layer::{Content, Layer, LayerDir, LayerEntry, Listed, Lookup};
use crate::options::Options;
use crate::union::UnionFs;
use crate::whiteout::Marks;

#[derive(Clone)]
enum Node {
    File(Arc<Vec<u8>>),
    Dir(BTreeMap<OsString, u64>),
    Whiteout,
}

/// A table of nodes, number 0 being the root.
struct MemoryLayer {
    root: Arc<LayerDir>,
    nodes: Vec<Node>,
    redirected: Option<u64>,
}

impl MemoryLayer {
    fn node(&self, dir: &LayerDir, name: &OsStr) -> Result<Option<u64>> {
        if name == "." {
            return Ok(Some(dir.node));
        }
        match &self.nodes[usize::try_from(dir.node).unwrap()] {
            Node::Dir(entries) => Ok(entries.get(name).copied()),
            _ => Err(Refusal::NotDirectory.into()),
        }
    }

    fn attr_of(&self, node: u64) -> Attr {
        let (format, size) = match &self.nodes[usize::try_from(node).unwrap()] {
            Node::File(data) => (libc::S_IFREG, data.len() as u64),
            Node::Dir(_) => (libc::S_IFDIR, 0),
            Node::Whiteout => (libc::S_IFCHR, 0),
        };
        Attr {
            dev: 77,
            ino: node + 100,
            mode: format | 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size,
            blocks: 0,
            blksize: 4096,
            atime: (1, 0),
            mtime: (2, 3),
            ctime: (4, 5),
        }
    }
}

impl Layer for MemoryLayer {
    fn root(&self) -> &Arc<LayerDir> {
        &self.root
    }

    fn source(&self) -> &Path {
        Path::new("memory")
    }

    fn lookup(&self, dir: &LayerDir, name: &OsStr, _: bool) -> Result<Lookup> {
        let Some(node) = self.node(dir, name)? else { return Ok(Lookup::Absent) };
        if matches!(self.nodes[usize::try_from(node).unwrap()], Node::Whiteout) {
            return Ok(Lookup::Whiteout);
        }
        let redirect = (self.redirected == Some(node)).then(|| OsString::from("/etc"));
        let marks = Marks { metacopy: redirect.is_some(), redirect, ..Marks::default() };
        Ok(Lookup::Found { entry: LayerEntry { attr: self.attr_of(node), marks }, hides: false })
    }

    fn child(&self, dir: &Arc<LayerDir>, name: &OsStr, _: &LayerEntry) -> Arc<LayerDir> {
        let node = self.node(dir, name).unwrap().unwrap();
        LayerDir::child(dir, name, node, false)
    }

    fn attr(&self, dir: &LayerDir, name: &OsStr) -> Result<Attr> {
        Ok(self.attr_of(self.node(dir, name)?.ok_or(Refusal::NotFound)?))
    }

    fn list(&self, dir: &LayerDir, each: &mut dyn FnMut(Listed<'_>) -> Result<()>) -> Result<()> {
        let Node::Dir(entries) = &self.nodes[usize::try_from(dir.node).unwrap()] else { return Ok(()) };
        entries.iter().try_for_each(|(name, node)| match &self.nodes[usize::try_from(*node).unwrap()] {
            Node::Whiteout => each(Listed::Whiteout(name)),
            _ => each(Listed::Entry(name, node + 100, self.attr_of(*node).format())),
        })
    }

    fn readlink(&self, _: &LayerDir, _: &OsStr) -> Result<Vec<u8>> {
        Err(Refusal::Invalid.into())
    }

    fn xattr(&self, _: &LayerDir, _: &OsStr, key: &OsStr) -> Result<Option<Vec<u8>>> {
        Ok((key == "user.colour").then(|| b"red".to_vec()))
    }

    fn xattr_names(&self, _: &LayerDir, _: &OsStr) -> Result<Vec<u8>> {
        Ok(b"user.colour\0".to_vec())
    }

    fn open(&self, dir: &LayerDir, name: &OsStr) -> Result<Content> {
        let node = self.node(dir, name)?.ok_or(Refusal::NotFound)?;
        match &self.nodes[usize::try_from(node).unwrap()] {
            Node::File(data) => {
                let data: Arc<Vec<u8>> = Arc::clone(data);
                Ok(Content::Bytes(data))
            }
            _ => Err(Refusal::IsDirectory.into()),
        }
    }

    fn origin(&self, _: &LayerDir, _: &OsStr) -> Option<Vec<u8>> {
        None
    }

    fn statfs(&self) -> Result<rustix::fs::StatVfs> {
        Err(Refusal::Unsupported.into())
    }
}

/// `/etc/{conf,gone}` in a table, under a directory that deletes `gone`.
struct Fixture {
    _scratch: tempfile::TempDir,
    fs: UnionFs,
}

fn fixture(redirected: Option<u64>) -> Fixture {
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| scratch.path().join(name);
    for name in ["top", "upper", "work"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    std::fs::create_dir(path("top/etc")).unwrap();
    std::fs::write(path("top/etc/.wh.gone"), b"").unwrap();
    let entries =
        |list: &[(&str, u64)]| Node::Dir(list.iter().map(|(name, node)| (OsString::from(name), *node)).collect());
    let layer = MemoryLayer {
        root: LayerDir::root(0, false),
        nodes: vec![
            entries(&[("etc", 1), ("other", 5)]),
            entries(&[("conf", 2), ("gone", 3), ("white", 4)]),
            Node::File(Arc::new(b"from the table".to_vec())),
            Node::File(Arc::new(b"hidden".to_vec())),
            Node::Whiteout,
            entries(&[]),
        ],
        redirected,
    };
    let mut options = Options::new("/nowhere");
    options.lowers = vec![path("top")];
    options.upper = Some(path("upper"));
    options.work = Some(path("work"));
    let fs = UnionFs::open_over(&options, &[Arc::new(layer)]).unwrap();
    Fixture { _scratch: scratch, fs }
}

impl Fixture {
    fn find(&self, path: &str) -> Option<Arc<Inode>> {
        let root = self.fs.inodes.get(ROOT_INO).unwrap();
        path.split('/').try_fold(root, |dir, name| Some(self.fs.lookup(&dir, OsStr::new(name)).unwrap()?.0))
    }

    fn read(&self, inode: &Arc<Inode>) -> Vec<u8> {
        let refuse = |_: std::os::fd::BorrowedFd<'_>| Err(std::io::ErrorKind::Unsupported.into());
        let opened = self.fs.open_file(inode.ino, OFlags::RDONLY, false, &refuse).unwrap();
        let file = FileId { ino: inode.ino, handle: opened.number };
        self.fs.read(file, 0, 100, <[u8]>::to_vec).unwrap()
    }
}

#[test]
fn a_table_serves_lookups_listings_and_data() {
    let f = fixture(None);
    let conf = f.find("etc/conf").unwrap();
    assert_eq!(f.read(&conf), b"from the table");
    assert_eq!(f.fs.getxattr(&conf, OsStr::new("user.colour"), 0).unwrap(), b"red");
    assert!(f.find("etc/gone").is_none() && f.find("etc/white").is_none());
    let mut names = Vec::new();
    let etc = f.find("etc").unwrap();
    f.fs.merge(&etc, &mut |entry| {
        names.push(entry.name);
        Ok(())
    })
    .unwrap();
    assert_eq!(names, ["conf"]);
}

#[test]
fn a_file_of_a_table_is_copied_up() {
    let f = fixture(None);
    let conf = f.find("etc/conf").unwrap();
    let change = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let attr = f.fs.setattr(&conf, &change).unwrap();
    assert_eq!((attr.mode & 0o777, attr.size, attr.mtime), (0o600, 14, (2, 3)));
    assert_eq!(f.read(&conf), b"from the table");
    f.fs.truncate(&conf, 4).unwrap();
    assert_eq!(f.read(&conf), b"from");
    assert_eq!(f.fs.getxattr(&conf, OsStr::new("user.colour"), 0).unwrap(), b"red");
}

#[test]
fn marks_of_an_untrusted_layer_are_not_followed() {
    let f = fixture(Some(5));
    let other = f.find("other").unwrap();
    assert!(f.fs.is_empty_dir(&other).unwrap());
    let f = fixture(Some(2));
    assert_eq!(f.read(&f.find("etc/conf").unwrap()), b"from the table");
}
