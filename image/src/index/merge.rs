//! A stack of layers as one index: what whiteouts and opaque directories hide
//! is gone, and a look-up costs the same whatever the number of layers.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::error::IndexError;
use super::format::Inode;
use super::limits::Limits;
use super::node::{Attr, Data, Dir, Node, ROOT, Slot};
use super::read::{Damaged, Index};
use super::write::Built;
use crate::tar::Xattr;

/// A directory of one layer.
#[derive(Clone, Copy)]
struct Part {
    layer: u16,
    inode: u32,
}

/// What the layers seen so far, from the top, say of a name.
enum Said {
    /// Nothing, and the layers below are hidden.
    Gone,
    /// An object that is no directory.
    Object(Part),
    /// Directories, top first; `open` if those below count too.
    Dir { parts: Vec<Part>, open: bool },
}

struct Merge<'a, B> {
    layers: &'a [&'a Index<B>],
    limits: &'a Limits,
    nodes: Vec<Node>,
    /// Objects with several names in one layer.
    linked: HashMap<(u16, u32), u32>,
}

/// Merges layers, the bottom one first, as an image lists them.
///
/// # Errors
/// One of the indexes is damaged, or the whole is larger than a layer may be.
pub fn merge<B: AsRef<[u8]>>(layers: &[&Index<B>], limits: &Limits) -> Result<Built, IndexError> {
    if layers.len() > lamel_unionfs::layer::MAX_LOWERS {
        return Err(IndexError::TooManyLayers(layers.len()));
    }
    let lens = layers.iter().map(|layer| layer.tar(0).map(|(_, len)| len)).collect::<Result<Vec<_>, _>>()?;
    Built::new(Merge { layers, limits, nodes: Vec::new(), linked: HashMap::new() }.run()?, lens)
}

impl<B: AsRef<[u8]>> Merge<'_, B> {
    fn run(mut self) -> Result<Vec<Node>, IndexError> {
        let mut parts = Vec::new();
        // Opaque or not, nothing lies below the root of the bottom layer; above it, an opaque root hides the rest.
        for layer in (0..self.layers.len()).rev() {
            let part = Part { layer: u16::try_from(layer).unwrap_or(u16::MAX), inode: ROOT };
            parts.push(part);
            if self.inode(part)?.is_opaque() {
                break;
            }
        }
        self.make_dir(&parts)?;
        let mut todo = VecDeque::from([(ROOT, parts)]);
        while let Some((dir, parts)) = todo.pop_front() {
            let children = children(self.layers, &parts)?;
            let mut slots = BTreeMap::new();
            for (name, said) in children {
                let node = match said {
                    Said::Gone => continue,
                    Said::Object(part) => self.make_object(part)?,
                    Said::Dir { parts, .. } => {
                        let node = self.make_dir(&parts)?;
                        todo.push_back((node, parts));
                        node
                    }
                };
                slots.insert(Box::from(name), Slot { node: Some(node), whiteout: false });
            }
            if let Some(Node { data: Data::Dir(dir), .. }) = self.nodes.get_mut(dir as usize) {
                dir.children = slots;
            }
        }
        Ok(self.nodes)
    }

    fn index(&self, layer: u16) -> Result<&Index<B>, Damaged> {
        self.layers.get(usize::from(layer)).copied().ok_or(Damaged("layers"))
    }

    fn inode(&self, part: Part) -> Result<Inode, Damaged> {
        self.index(part.layer)?.inode(part.inode)
    }

    /// A directory has the attributes of the topmost layer that lists it.
    fn make_dir(&mut self, parts: &[Part]) -> Result<u32, IndexError> {
        let mut chosen = None;
        for part in parts {
            let inode = self.inode(*part)?;
            if !inode.is_implied() {
                chosen = Some((*part, inode));
                break;
            }
        }
        let attr = match &chosen {
            Some((part, inode)) => self.attr(*part, inode)?,
            None => Attr::implied(),
        };
        let dir = Dir { implied: chosen.is_none(), ..Dir::default() };
        self.push(Node { attr, links: 0, data: Data::Dir(dir) })
    }

    fn make_object(&mut self, part: Part) -> Result<u32, IndexError> {
        let inode = self.inode(part)?;
        if inode.nlink > 1
            && let Some(known) = self.linked.get(&(part.layer, part.inode))
        {
            let known = *known;
            if let Some(node) = self.nodes.get_mut(known as usize) {
                node.links += 1;
            }
            return Ok(known);
        }
        let index = self.index(part.layer)?;
        let tar = part.layer;
        let data = match inode.format() {
            libc::S_IFREG if inode.is_sparse() => {
                Data::Sparse { tar, map: index.extents(&inode)?.into(), size: inode.size }
            }
            libc::S_IFREG => {
                let (from, size) = index.data(&inode)?;
                Data::File { tar, from, size }
            }
            libc::S_IFLNK => Data::Symlink(index.target(&inode)?.into()),
            libc::S_IFCHR | libc::S_IFBLK | libc::S_IFIFO => {
                Data::Special { format: inode.format(), rdev: inode.rdev() }
            }
            _ => return Err(Damaged("type").into()),
        };
        let node = Node { attr: self.attr(part, &inode)?, links: 1, data };
        let number = self.push(node)?;
        if inode.nlink > 1 {
            self.linked.insert((part.layer, part.inode), number);
        }
        Ok(number)
    }

    fn attr(&self, part: Part, inode: &Inode) -> Result<Attr, IndexError> {
        let mut xattrs = Vec::new();
        for xattr in self.index(part.layer)?.xattrs(inode) {
            let (name, value) = xattr?;
            if xattrs.len() >= self.limits.xattrs {
                return Err(Damaged("xattrs").into());
            }
            xattrs.push(Xattr { name: name.into(), value: value.into() });
        }
        let mode = inode.mode & 0o7777;
        Ok(Attr { mode, uid: inode.uid, gid: inode.gid, mtime: inode.mtime, xattrs: xattrs.into() })
    }

    fn push(&mut self, node: Node) -> Result<u32, IndexError> {
        let most = self.limits.entries;
        match u32::try_from(self.nodes.len()) {
            Ok(number) if self.nodes.len() < most => {
                self.nodes.push(node);
                Ok(number)
            }
            _ => Err(IndexError::Limit { path: ".".into(), limit: "entries", most: most as u64 }),
        }
    }
}

/// What the parts of a directory hold together.
fn children<'a, B: AsRef<[u8]>>(
    layers: &'a [&'a Index<B>],
    parts: &[Part],
) -> Result<BTreeMap<&'a [u8], Said>, IndexError> {
    let mut children: BTreeMap<&'a [u8], Said> = BTreeMap::new();
    for part in parts {
        let index = layers.get(usize::from(part.layer)).copied().ok_or(Damaged("layers"))?;
        for entry in index.entries(part.inode)? {
            let entry = entry?;
            let said = children.get_mut(entry.name);
            if matches!(said, Some(Said::Gone | Said::Object(_) | Said::Dir { open: false, .. })) {
                continue;
            }
            let object = match entry.inode {
                None if entry.whiteout => None,
                None => continue,
                Some(number) => Some((Part { layer: part.layer, inode: number }, index.child(part.inode, number)?)),
            };
            match (said, object) {
                (None, None) => drop(children.insert(entry.name, Said::Gone)),
                (None, Some((found, inode))) if inode.is_dir() => {
                    let open = !entry.whiteout && !inode.is_opaque();
                    children.insert(entry.name, Said::Dir { parts: vec![found], open });
                }
                (None, Some((found, _))) => drop(children.insert(entry.name, Said::Object(found))),
                (Some(Said::Dir { parts, open }), Some((found, inode))) if inode.is_dir() => {
                    parts.push(found);
                    *open = !entry.whiteout && !inode.is_opaque();
                }
                (Some(Said::Dir { open, .. }), _) => *open = false,
                (Some(_), _) => {}
            }
        }
    }
    Ok(children)
}
