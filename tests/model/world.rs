//! The model plays operations: a plain POSIX filesystem in memory, with Linux's errors.

use rustix::io::Errno;

use super::{
    case::{FallocateHow, Op, OpenHow, RenameHow, SLOTS, XattrHow},
    runner::Quirks,
    tree::{Body, Id, Inode, Place, Tree},
};

/// The umask that the tests run under.
pub const UMASK: u32 = 0o022;

pub struct World {
    pub tree: Tree,
    pub slots: [Option<Handle>; SLOTS],
    /// Of the subject that is mounted.
    pub quirks: Quirks,
}

#[derive(Debug, Clone)]
pub struct Handle {
    pub inode: Id,
    pub how: OpenHow,
    /// The content of a lower file opened for reading: what this handle may go on reading after a copy-up.
    pub lower_content: Option<Vec<u8>>,
}

/// What an operation gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Done,
    /// Either of these contents.
    Data(Vec<Vec<u8>>),
    Names(Vec<String>),
    /// The model has no opinion: the operation is not to be played.
    Skip,
}

impl World {
    pub fn new(tree: Tree, quirks: Quirks) -> Self {
        Self { tree, slots: [const { None }; SLOTS], quirks }
    }

    pub fn apply(&mut self, op: &Op) -> Result<Reply, Errno> {
        self.tree.touched.clear();
        match op {
            Op::Create { path, mode, excl, trunc, data } => {
                let Some(id) = self.open(path, true, *excl, Some(*mode), *trunc)? else {
                    return Ok(Reply::Skip);
                };
                self.write(id, Some(0), &data.bytes());
                Ok(Reply::Done)
            }
            Op::Mkdir { path, mode } => self.make(path, Body::Dir(Default::default()), mode & !UMASK),
            Op::Mkfifo { path, mode } => self.make(path, Body::Fifo, mode & !UMASK),
            Op::Symlink { path, target } => self.make(path, Body::Symlink(target.clone()), 0o777),
            Op::Link { old, new } => self.link(old, new),
            Op::Unlink { path } => self.unlink(path),
            Op::Rmdir { path } => self.rmdir(path),
            Op::Rename { old, new, how } => self.rename(old, new, *how),
            Op::Write { path, at, data } => {
                let Some(id) = self.open(path, true, false, None, false)? else {
                    return Ok(Reply::Skip);
                };
                self.write(id, Some(*at), &data.bytes());
                Ok(Reply::Done)
            }
            Op::Append { path, data } => {
                let Some(id) = self.open(path, true, false, None, false)? else {
                    return Ok(Reply::Skip);
                };
                self.write(id, None, &data.bytes());
                Ok(Reply::Done)
            }
            Op::Truncate { path, len } => {
                let id = self.tree.lookup(path, true)?;
                match self.tree.node(id).body {
                    Body::Dir(_) => return Err(Errno::ISDIR),
                    Body::File(_) => self.truncate(id, *len),
                    Body::Symlink(_) | Body::Fifo => return Err(Errno::INVAL),
                }
                Ok(Reply::Done)
            }
            Op::Chmod { path, mode } => {
                let id = self.tree.lookup(path, true)?;
                self.tree.node_mut(id).mode = *mode;
                Ok(Reply::Done)
            }
            Op::Chown { path, uid, gid } => {
                let id = self.tree.lookup(path, false)?;
                let node = self.tree.node_mut(id);
                node.uid = *uid;
                node.gid = gid.unwrap_or(node.gid);
                if !node.is_dir() {
                    // Even for root; setgid without group execution is not "setgid" and stays.
                    node.mode &= !0o4000;
                    if node.mode & 0o010 != 0 {
                        node.mode &= !0o2000;
                    }
                }
                Ok(Reply::Done)
            }
            Op::Utimens { path, secs, nanos } => {
                let id = self.tree.lookup(path, false)?;
                self.tree.node_mut(id).mtime = Some((*secs, *nanos));
                Ok(Reply::Done)
            }
            Op::SetXattr { path, name, value, how } => {
                let id = self.xattr_target(path)?;
                let xattrs = &mut self.tree.node_mut(id).xattrs;
                match (how, xattrs.contains_key(name)) {
                    (XattrHow::Create, true) => return Err(Errno::EXIST),
                    (XattrHow::Replace, false) => return Err(Errno::NODATA),
                    _ => xattrs.insert(name.clone(), value.bytes()),
                };
                Ok(Reply::Done)
            }
            Op::RemoveXattr { path, name } => {
                let id = self.xattr_target(path)?;
                self.tree.node_mut(id).xattrs.remove(name).map_or(Err(Errno::NODATA), |_| Ok(Reply::Done))
            }
            Op::Readdir { path } => {
                let id = self.tree.lookup(path, true)?;
                let entries = self.tree.node(id).entries().ok_or(Errno::NOTDIR)?;
                Ok(Reply::Names(entries.keys().cloned().collect()))
            }
            Op::Open { slot, path, how } => self.open_slot(*slot, path, *how),
            Op::HWrite { .. }
            | Op::HRead { .. }
            | Op::HTruncate { .. }
            | Op::HChmod { .. }
            | Op::HFsync { .. }
            | Op::HClose { .. }
            | Op::HFallocate { .. } => self.apply_to_handle(op),
            Op::HCopy { from, to, from_at, to_at, len } => self.copy(*from, *to, *from_at, *to_at, *len),
            Op::DropCaches | Op::Kill | Op::Kernel | Op::Remount | Op::PushDown => Ok(Reply::Done),
        }
    }

    fn apply_to_handle(&mut self, op: &Op) -> Result<Reply, Errno> {
        let slot = match op {
            Op::HWrite { slot, .. }
            | Op::HRead { slot }
            | Op::HTruncate { slot, .. }
            | Op::HChmod { slot, .. }
            | Op::HFsync { slot }
            | Op::HClose { slot }
            | Op::HFallocate { slot, .. } => *slot,
            _ => return Ok(Reply::Skip),
        };
        let Some(handle) = self.slots[slot].clone() else {
            return Ok(Reply::Skip);
        };
        match op {
            Op::HWrite { .. } if !handle.how.writes() => return Err(Errno::BADF),
            Op::HWrite { at, data, .. } => {
                let at = (handle.how != OpenHow::Append).then_some(*at);
                self.write(handle.inode, at, &data.bytes());
            }
            Op::HRead { .. } => {
                if !handle.how.reads() {
                    return Err(Errno::BADF);
                }
                let Body::File(content) = &self.tree.node(handle.inode).body else {
                    return Ok(Reply::Skip);
                };
                let contents = std::iter::once(content.clone()).chain(handle.lower_content);
                return Ok(Reply::Data(contents.collect()));
            }
            Op::HTruncate { .. } if !handle.how.writes() => return Err(Errno::INVAL),
            Op::HTruncate { len, .. } => self.truncate(handle.inode, *len),
            Op::HChmod { .. } if !self.quirks.unlinked_files && self.tree.node(handle.inode).nlink == 0 => {
                return Ok(Reply::Skip);
            }
            Op::HChmod { mode, .. } => self.tree.node_mut(handle.inode).mode = *mode,
            Op::HFallocate { len: 0, .. } => return Err(Errno::INVAL),
            Op::HFallocate { .. } if !handle.how.writes() => return Err(Errno::BADF),
            Op::HFallocate { how, at, len, .. } => self.fallocate(handle.inode, *how, *at, *len),
            Op::HClose { .. } => self.slots[slot] = None,
            _ => {}
        }
        Ok(Reply::Done)
    }

    /// Opens a file as the operations do that close it again; None for a fifo, whose opening may wait.
    fn open(
        &mut self,
        path: &str,
        write: bool,
        excl: bool,
        create: Option<u32>,
        trunc: bool,
    ) -> Result<Option<Id>, Errno> {
        let place = self.tree.place(path, !excl)?;
        let id = match (place.found, create) {
            (None, None) => return Err(Errno::NOENT),
            (None, Some(mode)) => {
                let inode = Inode::new(Body::File(Vec::new()), mode & !UMASK, 0, 0);
                return Ok(Some(self.tree.create(&place, inode)));
            }
            (Some(_), _) if excl => return Err(Errno::EXIST),
            (Some(id), _) => id,
        };
        match &self.tree.node(id).body {
            Body::Dir(_) if write || create.is_some() => return Err(Errno::ISDIR),
            Body::File(_) => {}
            Body::Dir(_) | Body::Symlink(_) | Body::Fifo => return Ok(None),
        }
        if write {
            let node = self.tree.node_mut(id);
            if node.lower_data && !self.quirks.copy_up_keeps_mtime {
                node.mtime = None;
            }
            node.lower_data &= !self.quirks.opens_copy_up;
        }
        if trunc {
            self.truncate(id, 0);
        }
        Ok(Some(id))
    }

    fn open_slot(&mut self, slot: usize, path: &str, how: OpenHow) -> Result<Reply, Errno> {
        self.slots[slot] = None;
        let create = (how == OpenHow::Create).then_some(0o644);
        let Some(inode) = self.open(path, how.writes(), false, create, how == OpenHow::Truncate)? else {
            return Ok(Reply::Skip);
        };
        let node = self.tree.node(inode);
        let lower_content = match &node.body {
            Body::File(content) if node.lower_data => Some(content.clone()),
            _ => None,
        };
        self.slots[slot] = Some(Handle { inode, how, lower_content });
        Ok(Reply::Done)
    }

    /// Writes at an offset, or at the end.
    fn write(&mut self, id: Id, at: Option<u64>, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let node = self.tree.node_mut(id);
        node.mtime = None;
        node.lower_data = false;
        let Body::File(content) = &mut node.body else {
            panic!("only files are opened");
        };
        let at = at.map_or(content.len(), |at| at as usize);
        let end = at + data.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[at..end].copy_from_slice(data);
    }

    fn truncate(&mut self, id: Id, len: u64) {
        let node = self.tree.node_mut(id);
        node.mtime = None;
        node.lower_data = false;
        if let Body::File(content) = &mut node.body {
            content.resize(len as usize, 0);
        }
    }

    fn fallocate(&mut self, id: Id, how: FallocateHow, at: u64, len: u64) {
        let node = self.tree.node_mut(id);
        node.mtime = None;
        node.lower_data = false;
        let Body::File(content) = &mut node.body else {
            panic!("only files are opened");
        };
        let (at, end) = (at as usize, (at + len) as usize);
        match how {
            FallocateHow::Extend if content.len() < end => content.resize(end, 0),
            FallocateHow::Extend | FallocateHow::KeepSize => {}
            FallocateHow::PunchHole => {
                let end = end.min(content.len());
                if at < end {
                    content[at..end].fill(0);
                }
            }
        }
    }

    fn copy(&mut self, from: usize, to: usize, from_at: u64, to_at: u64, len: u64) -> Result<Reply, Errno> {
        let (Some(from), Some(to)) = (self.slots[from].clone(), self.slots[to].clone()) else {
            return Ok(Reply::Skip);
        };
        if !from.how.reads() || !to.how.writes() || to.how == OpenHow::Append {
            return Err(Errno::BADF);
        }
        let Body::File(content) = &self.tree.node(from.inode).body else {
            return Ok(Reply::Skip);
        };
        if from.lower_content.as_ref().is_some_and(|old| old != content) {
            // Which of the two is copied is not said.
            return Ok(Reply::Skip);
        }
        let (mut from_at, mut to_at, mut left) = (from_at as usize, to_at as usize, len as usize);
        loop {
            let Body::File(content) = &self.tree.node(from.inode).body else {
                return Ok(Reply::Skip);
            };
            let start = from_at.min(content.len());
            let data = content[start..(start + left).min(content.len())].to_vec();
            let n = data.len();
            if from.inode == to.inode && to_at + n > from_at && to_at < from_at + n {
                return Err(Errno::INVAL);
            }
            self.write(to.inode, Some(to_at as u64), &data);
            // A file copied into itself may have grown meanwhile.
            (from_at, to_at, left) = (from_at + n, to_at + n, left - n);
            if n == 0 || left == 0 {
                break;
            }
        }
        Ok(Reply::Done)
    }

    fn make(&mut self, path: &str, body: Body, mode: u32) -> Result<Reply, Errno> {
        let place = self.tree.place(path, false)?;
        if place.found.is_some() {
            return Err(Errno::EXIST);
        }
        self.tree.create(&place, Inode::new(body, mode, 0, 0));
        Ok(Reply::Done)
    }

    fn link(&mut self, old: &str, new: &str) -> Result<Reply, Errno> {
        let id = self.tree.lookup(old, false)?;
        let place = self.tree.place(new, false)?;
        if place.found.is_some() {
            return Err(Errno::EXIST);
        }
        if self.tree.node(id).is_dir() {
            return Err(Errno::PERM);
        }
        self.tree.node_mut(id).nlink += 1;
        self.tree.entries_mut(place.dir).insert(place.name, id);
        Ok(Reply::Done)
    }

    fn unlink(&mut self, path: &str) -> Result<Reply, Errno> {
        let Place { dir, name, found } = self.tree.place(path, false)?;
        let id = found.ok_or(Errno::NOENT)?;
        if self.tree.node(id).is_dir() {
            return Err(Errno::ISDIR);
        }
        self.tree.unlink(dir, &name);
        Ok(Reply::Done)
    }

    fn rmdir(&mut self, path: &str) -> Result<Reply, Errno> {
        let Place { dir, name, found } = self.tree.place(path, false)?;
        let id = found.ok_or(Errno::NOENT)?;
        let entries = self.tree.node(id).entries().ok_or(Errno::NOTDIR)?;
        if !entries.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.tree.unlink(dir, &name);
        Ok(Reply::Done)
    }

    /// The checks come in the kernel's order: do_renameat2, then vfs_rename, then the filesystem.
    fn rename(&mut self, old: &str, new: &str, how: RenameHow) -> Result<Reply, Errno> {
        let old = self.tree.place(old, false)?;
        let new = self.tree.place(new, false)?;
        let source = old.found.ok_or(Errno::NOENT)?;
        if !self.quirks.copy_up_keeps_mtime {
            self.tree.node_mut(old.dir).mtime = None;
        }
        match (how, new.found) {
            (RenameHow::NoReplace, Some(_)) => return Err(Errno::EXIST),
            (RenameHow::Exchange, None) => return Err(Errno::NOENT),
            _ => {}
        }
        if self.tree.is_below(new.dir, source) {
            return Err(Errno::INVAL);
        }
        if let Some(target) = new.found {
            if self.tree.is_below(old.dir, target) {
                return Err(if how == RenameHow::Exchange { Errno::INVAL } else { Errno::NOTEMPTY });
            }
            if source == target {
                return Ok(Reply::Done);
            }
            if how == RenameHow::Exchange {
                self.tree.entries_mut(old.dir).insert(old.name, target);
                self.tree.entries_mut(new.dir).insert(new.name, source);
                return Ok(Reply::Done);
            }
            match (self.tree.node(source).is_dir(), self.tree.node(target).entries()) {
                (true, None) => return Err(Errno::NOTDIR),
                (false, Some(_)) => return Err(Errno::ISDIR),
                (true, Some(entries)) if !entries.is_empty() => return Err(Errno::NOTEMPTY),
                _ => self.tree.unlink(new.dir, &new.name),
            }
        }
        self.tree.entries_mut(old.dir).remove(&old.name);
        self.tree.entries_mut(new.dir).insert(new.name, source);
        Ok(Reply::Done)
    }

    /// `user.*` is for files and directories alone.
    fn xattr_target(&mut self, path: &str) -> Result<Id, Errno> {
        let id = self.tree.lookup(path, false)?;
        match self.tree.node(id).body {
            Body::File(_) | Body::Dir(_) => Ok(id),
            Body::Symlink(_) | Body::Fifo => Err(Errno::PERM),
        }
    }
}
