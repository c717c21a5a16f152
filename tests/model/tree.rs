//! A plain POSIX tree in memory: inodes, and directories of links to them.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;

pub type Id = usize;

/// How many symlinks a walk follows, as Linux does.
const MAX_LINKS: usize = 40;

#[derive(Debug, Clone)]
pub struct Tree {
    nodes: BTreeMap<Id, Inode>,
    next: Id,
    pub root: Id,
    /// Inodes that the current operation looked at or changed.
    pub touched: BTreeSet<Id>,
}

#[derive(Debug, Clone)]
pub struct Inode {
    pub body: Body,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Where it is known: set by hand and not changed since.
    pub mtime: Option<(i64, u32)>,
    /// Of everything but directories.
    pub nlink: u64,
    /// The data still lies in a lower layer: the one thing the model knows of unions, because a reader that opened
    /// such a file before a writer did may go on reading the old content.
    pub lower_data: bool,
    /// What the mount said first; it must not change.
    pub st_ino: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    File(Vec<u8>),
    Dir(BTreeMap<String, Id>),
    Symlink(String),
    Fifo,
}

impl Inode {
    pub fn new(body: Body, mode: u32, uid: u32, gid: u32) -> Self {
        Self { body, mode, uid, gid, xattrs: BTreeMap::new(), mtime: None, nlink: 1, lower_data: false, st_ino: None }
    }

    pub fn entries(&self) -> Option<&BTreeMap<String, Id>> {
        match &self.body {
            Body::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir(_))
    }
}

/// Where a path leads: the directory of its last component, that component, and what is there.
#[derive(Debug, Clone)]
pub struct Place {
    pub dir: Id,
    pub name: String,
    pub found: Option<Id>,
}

impl Tree {
    pub fn new() -> Self {
        let root = Inode::new(Body::Dir(BTreeMap::new()), 0o755, 0, 0);
        Self { nodes: BTreeMap::from([(0, root)]), next: 1, root: 0, touched: BTreeSet::new() }
    }

    pub fn add(&mut self, inode: Inode) -> Id {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, inode);
        id
    }

    pub fn node(&self, id: Id) -> &Inode {
        &self.nodes[&id]
    }

    pub fn node_mut(&mut self, id: Id) -> &mut Inode {
        self.touched.insert(id);
        self.nodes.get_mut(&id).expect("an id of this tree")
    }

    /// Notes the number that the mount gave, without touching the inode.
    pub fn set_ino(&mut self, id: Id, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.st_ino = Some(ino);
        }
    }

    /// All inodes, those without a name included.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Inode> {
        self.nodes.values_mut()
    }

    pub fn entries_mut(&mut self, dir: Id) -> &mut BTreeMap<String, Id> {
        let node = self.node_mut(dir);
        node.mtime = None;
        match &mut node.body {
            Body::Dir(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    /// Gives a directory of a layer an entry, which is no change that its mtime would show.
    pub fn put(&mut self, dir: Id, name: &str, id: Id) {
        let mtime = self.node(dir).mtime;
        self.entries_mut(dir).insert(name.to_owned(), id);
        self.node_mut(dir).mtime = mtime;
    }

    /// Takes such an entry away.
    pub fn hide(&mut self, dir: Id, name: &str) {
        let mtime = self.node(dir).mtime;
        self.entries_mut(dir).remove(name);
        self.node_mut(dir).mtime = mtime;
    }

    pub fn child(&self, dir: Id, name: &str) -> Option<Id> {
        self.node(dir).entries()?.get(name).copied()
    }

    /// Every path, the root's being empty.
    pub fn paths(&self) -> Vec<(String, Id)> {
        let mut out = vec![(String::new(), self.root)];
        let mut at = 0;
        while at < out.len() {
            let (path, id) = out[at].clone();
            for (name, child) in self.node(id).entries().into_iter().flatten() {
                let sep = if path.is_empty() { "" } else { "/" };
                out.push((format!("{path}{sep}{name}"), *child));
            }
            at += 1;
        }
        out
    }

    /// Whether `id` is `top` or below it.
    pub fn is_below(&self, id: Id, top: Id) -> bool {
        let entries = self.node(top).entries();
        id == top || entries.is_some_and(|e| e.values().any(|&child| self.is_below(id, child)))
    }

    /// Walks to the last component. `follow`: a symlink there is followed too, a dangling one to where it points.
    pub fn place(&mut self, path: &str, follow: bool) -> Result<Place, Errno> {
        let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut dir = self.root;
        let mut links = 0;
        while let Some(name) = rest.pop() {
            self.touched.insert(dir);
            if !self.node(dir).is_dir() {
                return Err(Errno::NOTDIR);
            }
            let found = self.child(dir, &name);
            self.touched.extend(found);
            let last = rest.is_empty();
            match found.map(|id| &self.node(id).body) {
                Some(Body::Symlink(target)) if !last || follow => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    rest.extend(target.split('/').rev().map(str::to_owned));
                }
                _ if last => return Ok(Place { dir, name, found }),
                Some(_) => dir = found.expect("matched above"),
                None => return Err(Errno::NOENT),
            }
        }
        unreachable!("a path has at least one component")
    }

    /// The object at a path.
    pub fn lookup(&mut self, path: &str, follow: bool) -> Result<Id, Errno> {
        self.place(path, follow)?.found.ok_or(Errno::NOENT)
    }

    /// Makes `inode` at a free place, with the group and setgid bit that its directory passes on.
    pub fn create(&mut self, place: &Place, mut inode: Inode) -> Id {
        let parent = self.node(place.dir);
        if parent.mode & 0o2000 != 0 {
            inode.gid = parent.gid;
            if inode.is_dir() {
                inode.mode |= 0o2000;
            }
        }
        let id = self.add(inode);
        self.entries_mut(place.dir).insert(place.name.clone(), id);
        self.touched.insert(id);
        id
    }

    /// Takes a name away.
    pub fn unlink(&mut self, dir: Id, name: &str) {
        if let Some(id) = self.entries_mut(dir).remove(name) {
            let node = self.node_mut(id);
            node.nlink = node.nlink.saturating_sub(1);
        }
    }
}
