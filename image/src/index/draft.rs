//! A layer while it is read: the tree that an extraction of the archive would
//! leave behind, with no file system to leave it in.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use lamel_unionfs::whiteout::{AufsName, aufs_name};

use super::error::{IndexError, MemberFault};
use super::limits::Limits;
use super::node::{Attr, Data, Dir, Node, ROOT, Slot};
use crate::tar::{Kind, Member};

/// Symlinks on the way to one member, as many as the kernel follows.
const MAX_HOPS: usize = 40;
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;

/// A tree in the making.
pub(crate) struct Draft<'a> {
    limits: &'a Limits,
    nodes: Vec<Node>,
    /// Bytes that the index will have, roughly.
    bytes: usize,
    /// Symlinks followed so far.
    hops: usize,
    /// The directory part of the last member, and where it led.
    last: Option<(Vec<u8>, u32)>,
}

/// A fault, before the member's name is put to it.
enum Refused {
    Fault(MemberFault),
    Limit(&'static str, usize),
    /// No fault: there is nothing to be done.
    Nothing,
}

impl From<MemberFault> for Refused {
    fn from(fault: MemberFault) -> Self {
        Self::Fault(fault)
    }
}

type Result<T, E = Refused> = std::result::Result<T, E>;

/// What becomes of directories that the archive does not list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// They are made.
    Make,
    /// They are made, but not under a whiteout: what it hides is gone already.
    MakeUnlessDeleted,
    /// A hard link's target must be there.
    Refuse,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        let root = Node { attr: Attr::implied(), links: 1, data: Data::Dir(Dir { implied: true, ..Dir::default() }) };
        Self { limits, nodes: vec![root], bytes: 0, hops: 0, last: None }
    }

    pub(crate) fn into_nodes(self) -> Vec<Node> {
        self.nodes
    }

    /// Puts a member in its place.
    pub(crate) fn add(&mut self, mut member: Member) -> Result<(), IndexError> {
        let path = std::mem::take(&mut member.path);
        self.place(&path, member).or_else(|refused| {
            let shown = || String::from_utf8_lossy(&path[..path.len().min(256)]).into();
            match refused {
                Refused::Nothing => Ok(()),
                Refused::Fault(fault) => Err(IndexError::Member { path: shown(), fault }),
                Refused::Limit(limit, most) => Err(IndexError::Limit { path: shown(), limit, most: most as u64 }),
            }
        })
    }

    fn place(&mut self, path: &[u8], member: Member) -> Result<()> {
        if path.len() > self.limits.path {
            return Err(Refused::Limit("bytes in a name", self.limits.path));
        }
        let names = names_of(path)?;
        let Some((name, parents)) = names.split_last() else {
            return self.place_root(member);
        };
        let mut bookkeeping = false;
        for name in parents {
            match aufs_name(OsStr::from_bytes(name)) {
                AufsName::Plain => {}
                AufsName::Bookkeeping => bookkeeping = true,
                _ => return Err(MemberFault::UnderWhiteout.into()),
            }
        }
        if bookkeeping {
            return Ok(());
        }
        match aufs_name(OsStr::from_bytes(name)) {
            AufsName::Bookkeeping => Ok(()),
            AufsName::Opaque => {
                let dir = self.directory(parents, Missing::MakeUnlessDeleted)?;
                self.dir_mut(dir)?.opaque = true;
                Ok(())
            }
            AufsName::Whiteout(hidden) => {
                let hidden = hidden.as_bytes();
                if matches!(hidden, b"" | b"." | b"..") {
                    return Err(MemberFault::BadWhiteout.into());
                }
                let dir = self.directory(parents, Missing::MakeUnlessDeleted)?;
                self.slot(dir, hidden)?.whiteout = true;
                Ok(())
            }
            AufsName::Plain => {
                // A hard link's target is found first: an extraction that fails leaves no parents behind.
                let target = match &member.kind {
                    Kind::HardLink(target) => Some(self.link_target(target)?),
                    _ => None,
                };
                let dir = self.directory(parents, Missing::Make)?;
                match target {
                    Some(target) => self.link(dir, name, target),
                    None => self.insert(dir, name, member),
                }
            }
        }
    }

    fn place_root(&mut self, member: Member) -> Result<()> {
        if member.kind != Kind::Dir {
            return Err(MemberFault::Root.into());
        }
        self.update_dir(ROOT, member)
    }

    /// The directory that the parents of a member lead to.
    fn directory(&mut self, names: &[&[u8]], missing: Missing) -> Result<u32> {
        let parent = names.join(&b'/');
        if let Some((known, dir)) = &self.last
            && *known == parent
        {
            return Ok(*dir);
        }
        let dir = self.walk(names, missing)?;
        self.last = Some((parent, dir));
        Ok(dir)
    }

    /// Walks from the root, following symlinks inside the layer.
    fn walk(&mut self, names: &[&[u8]], missing: Missing) -> Result<u32> {
        let mut above = vec![ROOT];
        let mut hops = 0;
        let mut todo: Vec<Box<[u8]>> = names.iter().rev().map(|name| (*name).into()).collect();
        while let Some(name) = todo.pop() {
            if *name == *b".." {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            let here = above.last().copied().unwrap_or(ROOT);
            let slot = self.dir_mut(here)?.children.get(&name);
            let deleted = slot.is_some_and(|slot| slot.whiteout);
            let next = match slot.and_then(|slot| slot.node) {
                Some(next) => next,
                None if missing == Missing::Refuse => return Err(MemberFault::NoTarget.into()),
                None if deleted && missing == Missing::MakeUnlessDeleted => return Err(Refused::Nothing),
                None => self.make_implied(here, &name)?,
            };
            match &self.nodes[next as usize].data {
                Data::Dir(_) => above.push(next),
                Data::Symlink(target) => {
                    hops += 1;
                    self.hops += 1;
                    if hops > MAX_HOPS {
                        return Err(MemberFault::Loop.into());
                    }
                    if self.hops > self.limits.symlinks {
                        return Err(Refused::Limit("steps through symlinks", self.limits.symlinks));
                    }
                    if target.starts_with(b"/") {
                        above.truncate(1);
                    }
                    let names = target.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
                    let names: Vec<Box<[u8]>> = names.map(Box::from).collect();
                    if names.iter().any(|name| name.len() > NAME_MAX) {
                        return Err(MemberFault::NameTooLong.into());
                    }
                    todo.extend(names.into_iter().rev());
                }
                _ => return Err(MemberFault::NotDirectory.into()),
            }
            if above.len() > self.limits.depth {
                return Err(Refused::Limit("directories above one another", self.limits.depth));
            }
        }
        Ok(above.last().copied().unwrap_or(ROOT))
    }

    fn make_implied(&mut self, parent: u32, name: &[u8]) -> Result<u32> {
        let node = Node { attr: Attr::implied(), links: 0, data: Data::Dir(Dir { implied: true, ..Dir::default() }) };
        let made = self.push(node)?;
        self.attach(parent, name, made)?;
        Ok(made)
    }

    fn link_target(&mut self, target: &[u8]) -> Result<u32> {
        if target.len() > self.limits.path {
            return Err(Refused::Limit("bytes in a name", self.limits.path));
        }
        let names = names_of(target)?;
        let Some((name, parents)) = names.split_last() else {
            return Err(MemberFault::LinkToDirectory.into());
        };
        let dir = self.walk(parents, Missing::Refuse)?;
        let node = self.dir_mut(dir)?.children.get(*name).and_then(|slot| slot.node);
        match node {
            None => Err(MemberFault::NoTarget.into()),
            Some(node) if matches!(self.node(node).data, Data::Dir(_)) => Err(MemberFault::LinkToDirectory.into()),
            Some(node) => Ok(node),
        }
    }

    fn link(&mut self, dir: u32, name: &[u8], target: u32) -> Result<()> {
        let old = self.slot(dir, name)?.node;
        if old == Some(target) {
            return Ok(());
        }
        self.attach(dir, name, target)
    }

    fn insert(&mut self, dir: u32, name: &[u8], member: Member) -> Result<()> {
        let old = self.slot(dir, name)?.node;
        if let (Some(old), Kind::Dir) = (old, &member.kind)
            && matches!(self.node(old).data, Data::Dir(_))
        {
            return self.update_dir(old, member);
        }
        let data = match member.kind {
            // How image tools write a whiteout of the kernel's kind, and what an extraction makes one of.
            Kind::Char { major: 0, minor: 0 } => {
                if old.is_some() {
                    self.detach(dir, name)?;
                }
                self.slot(dir, name)?.whiteout = true;
                return Ok(());
            }
            Kind::File { from, size } => Data::File { tar: 0, from, size },
            Kind::Sparse { map, size } => {
                self.charge(map.len() * super::format::EXTENT)?;
                Data::Sparse { tar: 0, map: map.into(), size }
            }
            Kind::Dir => Data::Dir(Dir::default()),
            Kind::Symlink(target) => {
                if target.is_empty() || target.len() >= PATH_MAX {
                    return Err(MemberFault::BadTarget.into());
                }
                self.charge(target.len())?;
                Data::Symlink(target.into())
            }
            Kind::Char { major, minor } => Data::special(libc::S_IFCHR, major, minor),
            Kind::Block { major, minor } => Data::special(libc::S_IFBLK, major, minor),
            Kind::Fifo => Data::special(libc::S_IFIFO, 0, 0),
            // Told apart by the caller.
            Kind::HardLink(_) => return Err(MemberFault::NoTarget.into()),
        };
        self.charge(
            member.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + super::format::XATTR).sum(),
        )?;
        let attr = Attr {
            // The kernel makes every symlink so.
            mode: if matches!(data, Data::Symlink(_)) { 0o777 } else { member.mode },
            uid: member.uid,
            gid: member.gid,
            mtime: member.mtime,
            xattrs: member.xattrs.into(),
        };
        let node = self.push(Node { attr, links: 0, data })?;
        self.attach(dir, name, node)
    }

    /// A directory over a directory gives it other attributes.
    fn update_dir(&mut self, dir: u32, member: Member) -> Result<()> {
        self.charge(
            member.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + super::format::XATTR).sum(),
        )?;
        let most = self.limits.xattrs;
        self.dir_mut(dir)?.implied = false;
        let node = self.node_mut(dir);
        let mut xattrs = member.xattrs;
        // As in an extraction: what is not set anew stays.
        let kept: Vec<_> =
            node.attr.xattrs.iter().filter(|old| !xattrs.iter().any(|new| new.name == old.name)).cloned().collect();
        xattrs.extend(kept);
        if xattrs.len() > most {
            return Err(Refused::Limit("xattrs of one member", most));
        }
        node.attr =
            Attr { mode: member.mode, uid: member.uid, gid: member.gid, mtime: member.mtime, xattrs: xattrs.into() };
        Ok(())
    }

    /// Gives a node the name, in place of what had it.
    fn attach(&mut self, dir: u32, name: &[u8], node: u32) -> Result<()> {
        self.node_mut(node).links += 1;
        let old = self.slot(dir, name)?.node.replace(node);
        self.release(old);
        Ok(())
    }

    fn detach(&mut self, dir: u32, name: &[u8]) -> Result<()> {
        let old = self.slot(dir, name)?.node.take();
        self.release(old);
        Ok(())
    }

    /// A name of a node went away; a directory takes along what is in it.
    fn release(&mut self, node: Option<u32>) {
        let Some(node) = node else { return };
        // Where the last member led may be gone.
        self.last = None;
        let mut gone = vec![node];
        while let Some(node) = gone.pop() {
            let node = self.node_mut(node);
            node.links -= 1;
            if node.links == 0
                && let Data::Dir(dir) = &mut node.data
            {
                gone.extend(std::mem::take(&mut dir.children).into_values().filter_map(|slot| slot.node));
            }
        }
    }

    fn push(&mut self, node: Node) -> Result<u32> {
        self.charge(super::format::INODE)?;
        let number = self.nodes.len();
        match u32::try_from(number) {
            Ok(at) if number < self.limits.entries => {
                self.nodes.push(node);
                Ok(at)
            }
            _ => Err(Refused::Limit("entries", self.limits.entries)),
        }
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.index {
            Err(Refused::Limit("bytes in the index", self.limits.index))
        } else {
            Ok(())
        }
    }

    /// The place of a name, made if there is none.
    fn slot(&mut self, dir: u32, name: &[u8]) -> Result<&mut Slot> {
        if !self.dir_mut(dir)?.children.contains_key(name) {
            self.charge(super::format::ENTRY + name.len())?;
        }
        let children: &mut BTreeMap<Box<[u8]>, Slot> = &mut self.dir_mut(dir)?.children;
        Ok(children.entry(name.into()).or_default())
    }

    fn node(&self, number: u32) -> &Node {
        &self.nodes[number as usize]
    }

    fn node_mut(&mut self, number: u32) -> &mut Node {
        &mut self.nodes[number as usize]
    }

    fn dir_mut(&mut self, number: u32) -> Result<&mut Dir> {
        match &mut self.node_mut(number).data {
            Data::Dir(dir) => Ok(dir),
            _ => Err(MemberFault::NotDirectory.into()),
        }
    }
}

/// The components of a name from the archive, `..` resolved as text, as the engines do.
fn names_of(path: &[u8]) -> Result<Vec<&[u8]>> {
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop().ok_or(MemberFault::Escapes)?;
            }
            name if name.len() > NAME_MAX => return Err(MemberFault::NameTooLong.into()),
            name => names.push(name),
        }
    }
    Ok(names)
}
