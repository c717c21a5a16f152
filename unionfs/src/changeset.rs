//! An upper layer as the changeset of an image (OCI image-spec `layer.md`), and whole trees, without a mount.
//!
//! The upper is read as the top of a read-only union, so that redirects, metacopies, overrides and escaped attributes
//! mean here what they mean in a mount. What is walked are the upper's own objects; the layers below are looked at once
//! for each of them, and walked only where the upper shows a directory of theirs under another path.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;

use crate::attr::Attr;
use crate::error::{Error, OpenError, Refusal, Result};
use crate::inode::{Body, Inode, LowerDir, ROOT_INO};
use crate::layer::{Content, Layer, Listed, origin_of};
use crate::options::{Options, XattrPermissions};
use crate::sparse::SparseFile;
use crate::sys::at;
use crate::union::UnionFs;
use crate::whiteout::is_bookkeeping_xattr;

/// Bytes that are copied at once.
const PIECE: usize = 256 * 1024;

/// One line of a changeset. Paths are relative to the root, whose own is `.`.
pub enum Member<'a> {
    /// An object, after the directory that it is in.
    Object(&'a Object<'a>),
    /// Another name of an object that came before.
    Link {
        /// The name.
        path: &'a [u8],
        /// The path that the object came under.
        target: &'a [u8],
        /// What it is.
        object: &'a Object<'a>,
    },
    /// What the layers below have at this path is gone.
    Whiteout(&'a [u8]),
    /// What the layers below have in this directory is gone; comes right after it.
    Opaque(&'a [u8]),
}

/// Why a walk ends early.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = .path.display())]
pub struct WalkError {
    /// From the union's root, beginning with `/`.
    pub path: PathBuf,
    /// What happened.
    pub source: Error,
}

/// What one walk gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// What the topmost layer changes.
    Changes,
    /// Everything.
    Tree,
}

/// A stack of layers that is read without a mount.
pub struct Stack {
    union: UnionFs,
    /// The same without the topmost layer.
    below: Option<UnionFs>,
}

impl Stack {
    /// Opens the upper layer `upper` over `below`, top first; nothing of it is written or locked, and it may be changing.
    /// `permissions` says how the upper keeps owners.
    ///
    /// # Errors
    /// A layer cannot be used.
    pub fn open(upper: &Path, permissions: XattrPermissions, below: &[Arc<dyn Layer>]) -> Result<Self, OpenError> {
        let mut options = Options::new("/");
        options.ownership.xattr_permissions = permissions;
        let lower = if below.is_empty() { None } else { Some(UnionFs::open_over(&options, below)?) };
        options.lowers = vec![upper.to_owned()];
        Ok(Self { union: UnionFs::open_changing(&options, below)?, below: lower })
    }

    /// Calls `each` for what the upper changes, directories before what is in them and names in the order of their bytes,
    /// so that the same upper gives the same changeset. An object that the upper alone shows under its path is given with
    /// everything in it.
    ///
    /// # Errors
    /// Those of `each`, or a layer cannot be read.
    pub fn changes<E: From<WalkError>>(&self, each: &mut dyn FnMut(Member<'_>) -> Result<(), E>) -> Result<(), E> {
        self.walk(Scope::Changes, each)
    }

    /// Calls `each` for everything that the stack shows, in the same order; there are no whiteouts then.
    ///
    /// # Errors
    /// As [`Stack::changes`].
    pub fn tree<E: From<WalkError>>(&self, each: &mut dyn FnMut(Member<'_>) -> Result<(), E>) -> Result<(), E> {
        self.walk(Scope::Tree, each)
    }

    fn walk<E: From<WalkError>>(
        &self,
        scope: Scope,
        each: &mut dyn FnMut(Member<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut walk = Walk { stack: self, seen: HashMap::new(), todo: Vec::new() };
        let failed = |source| WalkError { path: "/".into(), source };
        let root = walk.root(scope).map_err(failed)?;
        each(Member::Object(&root.object))?;
        walk.enter(root, scope, each)?;
        while let Some(dir) = walk.todo.last_mut() {
            let Some(entry) = dir.entries.pop() else {
                if let Some(dir) = walk.todo.pop() {
                    self.forget(dir.inode);
                }
                continue;
            };
            match entry {
                Entry::Whiteout(name) => each(Member::Whiteout(&joined(&dir.path, &name)))?,
                Entry::Object(name) => walk.entry(&name, each)?,
            }
        }
        Ok(())
    }

    /// Paths under which a file may be shown that was changed through another of its names, and that the upper does not have
    /// yet: a mount gives it each of them when it is first looked up. `work` is the upper's workdir.
    ///
    /// # Errors
    /// A layer cannot be read.
    pub fn names_to_look_up(&self, work: &Path) -> Result<Vec<PathBuf>, WalkError> {
        let origins = origins(&work.join("index")).map_err(|source| WalkError { path: "/".into(), source })?;
        if origins.is_empty() {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for layer in &self.union.lowers {
            let found = layer.names_of(&origins, &mut |path| names.push(PathBuf::from(path)));
            found.map_err(|source| WalkError { path: "/".into(), source })?;
        }
        // Below a directory that was renamed they are somewhere else.
        self.changes(&mut |member| {
            let (path, object) = match member {
                Member::Object(object) => (object.path.as_slice(), object),
                Member::Link { path, object, .. } => (path, object),
                _ => return Ok::<(), WalkError>(()),
            };
            if !object.attr.is_dir() && object.attr.nlink > 1 && !object.is_changed() {
                names.push(shown(path));
            }
            Ok(())
        })?;
        Ok(names)
    }

    fn forget(&self, inode: Arc<Inode>) {
        let ino = inode.ino;
        drop(inode);
        self.union.forget(ino, 1);
    }
}

/// Names and values of extended attributes.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// An object of a stack, as a mount shows it.
pub struct Object<'a> {
    union: &'a UnionFs,
    inode: Arc<Inode>,
    /// From the root, without a slash before; the root's own is `.`.
    pub path: Vec<u8>,
    /// Its attributes; number and device are its own in its layer.
    pub attr: Attr,
}

impl Object<'_> {
    /// Whether the topmost layer has it, and not only a directory above it.
    fn is_changed(&self) -> bool {
        match &self.inode.state.read().body {
            Body::File(file) => file.lower().is_some_and(|lower| lower.layer == 0),
            Body::Dir(dir) => dir.lowers.first().is_some_and(|lower| lower.layer == 0),
        }
    }

    fn failed(&self, source: Error) -> WalkError {
        WalkError { path: shown(&self.path), source }
    }

    /// Names and values of its extended attributes, but for those that unions keep books in.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn xattrs(&self) -> Result<Xattrs, WalkError> {
        let read = || {
            let names = self.union.listxattr(&self.inode)?;
            let mut xattrs = Vec::new();
            for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !is_bookkeeping_xattr(name)) {
                match self.union.getxattr(&self.inode, OsStr::from_bytes(name), 0) {
                    Ok(value) => xattrs.push((name.to_vec(), value)),
                    // Removed since it was listed.
                    Err(error) if error.errno() == Errno::NODATA => {}
                    Err(error) => return Err(error),
                }
            }
            xattrs.sort();
            Ok(xattrs)
        };
        read().map_err(|source| self.failed(source))
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// It is none, or cannot be read.
    pub fn target(&self) -> Result<Vec<u8>, WalkError> {
        self.union.with_backing(&self.inode, |backing| backing.readlink()).map_err(|source| self.failed(source))
    }

    /// The data of a regular file.
    ///
    /// # Errors
    /// It is none, or cannot be opened.
    pub fn data(&self) -> Result<Data, WalkError> {
        let open = || {
            let content = self.union.open_data(&self.inode, OFlags::RDONLY)?.content;
            let stretches = stretches(&content, self.attr.size)?;
            Ok(Data { content, stretches, path: shown(&self.path) })
        };
        open().map_err(|source| self.failed(source))
    }
}

/// The data of a file.
pub struct Data {
    content: Content,
    stretches: Vec<(u64, u64)>,
    path: PathBuf,
}

impl Data {
    /// Offsets and lengths of the stretches that are no holes, in ascending order.
    pub fn stretches(&self) -> &[(u64, u64)] {
        &self.stretches
    }

    /// Writes `stretches` of the file, one after another; holes in them are zeros.
    ///
    /// # Errors
    /// The file cannot be read, or `out` not be written.
    pub fn write<E: From<WalkError> + From<io::Error>>(
        &self,
        stretches: &[(u64, u64)],
        out: &mut dyn Write,
    ) -> Result<(), E> {
        let mut buffer = Vec::new();
        for (at, len) in stretches {
            if let Content::Bytes(bytes) = &self.content {
                let range = usize::try_from(*at).ok().zip(usize::try_from(at.saturating_add(*len)).ok());
                let part = range.and_then(|(from, to)| (**bytes).as_ref().get(from..to)).unwrap_or_default();
                out.write_all(part)?;
                continue;
            }
            buffer.resize(PIECE, 0);
            let mut done = 0;
            while done < *len {
                let want = usize::try_from(len - done).map_or(PIECE, |left| left.min(PIECE));
                let got = self.read(buffer.get_mut(..want).unwrap_or_default(), at.saturating_add(done));
                let got = got.map_err(|source| WalkError { path: self.path.clone(), source })?;
                if got == 0 {
                    // Whoever counts what is written sees that it is too little.
                    return Ok(());
                }
                out.write_all(buffer.get(..got).unwrap_or_default())?;
                done += got as u64;
            }
        }
        Ok(())
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<usize> {
        match &self.content {
            Content::File(file) => loop {
                match rustix::io::pread(file, &mut *buffer, at) {
                    Err(Errno::INTR) => {}
                    read => return read.map_err(|errno| Error::call("pread", OsStr::new("<layer>"), errno)),
                }
            },
            Content::Sparse(file) => file.read(buffer, at),
            Content::Bytes(_) => Ok(0),
        }
    }
}

/// Where a file of `size` bytes has data.
fn stretches(content: &Content, size: u64) -> Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut at = 0;
    match content {
        Content::Bytes(_) if size == 0 => {}
        Content::Bytes(_) => found.push((0, size)),
        Content::Sparse(file) => while_data(size, &mut at, |at| next_sparse(file, at), &mut found)?,
        Content::File(file) => while_data(size, &mut at, |at| next_on_disk(file, at), &mut found)?,
    }
    Ok(found)
}

fn while_data(
    size: u64,
    at: &mut u64,
    next: impl Fn(u64) -> Result<Option<(u64, u64)>>,
    found: &mut Vec<(u64, u64)>,
) -> Result<()> {
    while *at < size {
        let Some((start, end)) = next(*at)? else { break };
        let (start, end) = (start.min(size), end.min(size));
        if end <= start {
            break;
        }
        found.push((start, end - start));
        *at = end;
    }
    Ok(())
}

fn next_sparse(file: &SparseFile, at: u64) -> Result<Option<(u64, u64)>> {
    let Some(start) = file.data_from(at) else { return Ok(None) };
    Ok(file.hole_from(start).map(|end| (start, end)))
}

fn next_on_disk(file: &OwnedFd, at: u64) -> Result<Option<(u64, u64)>> {
    let failed = |errno| Error::call("lseek", OsStr::new("<layer>"), errno);
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    rustix::fs::seek(file, SeekFrom::Hole(start)).map(|end| Some((start, end))).map_err(failed)
}

/// What the index of hard links holds: the origins of the files that were changed.
fn origins(index: &Path) -> Result<Vec<Vec<u8>>> {
    use std::os::fd::AsFd as _;
    let failed = |errno| Error::call("open", index.as_os_str(), errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = match rustix::fs::open(index, flags, rustix::fs::Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        opened => opened.map_err(failed)?,
    };
    let mut found = Vec::new();
    at::list(dir.as_fd(), |name, _, _| {
        found.extend(origin_of(name));
        Ok(())
    })?;
    Ok(found)
}

/// Looks paths up in a union that nobody has mounted, as a program in it would do.
///
/// # Errors
/// The layers cannot be used, or looked into.
pub fn look_up(options: &Options, below: &[Arc<dyn Layer>], paths: &[PathBuf]) -> Result<(), LookUpError> {
    // A mount that has just ended may not have let go of it yet.
    let union = crate::mount::open_stack(options, below)?;
    for path in paths {
        let mut at = union.inodes.get(ROOT_INO).map_err(|source| WalkError { path: path.clone(), source })?;
        for name in path.iter().skip(1) {
            let found = match at.is_dir() {
                true => union.lookup(&at, name).map_err(|source| WalkError { path: path.clone(), source })?,
                false => None,
            };
            let Some((inode, _)) = found else { break };
            at = inode;
        }
    }
    Ok(())
}

/// Why paths are not looked up.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// The stack cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A layer cannot be read.
    #[error(transparent)]
    Walk(#[from] WalkError),
}

/// A directory that is being walked.
struct Dir {
    path: Vec<u8>,
    inode: Arc<Inode>,
    scope: Scope,
    /// What the layers below have at this path, if that is a directory and matters.
    before: Option<Arc<Inode>>,
    /// What is still to be done, the last one first.
    entries: Vec<Entry>,
}

enum Entry {
    Whiteout(OsString),
    Object(OsString),
}

impl Entry {
    fn name(&self) -> &OsStr {
        match self {
            Self::Whiteout(name) | Self::Object(name) => name,
        }
    }
}

/// A directory that was given, and what was at its path before.
struct Found<'a> {
    object: Object<'a>,
    before: Option<Arc<Inode>>,
}

struct Walk<'a> {
    stack: &'a Stack,
    /// First paths of objects with several names, by device and number.
    seen: HashMap<(u64, u64), Vec<u8>>,
    /// Trees are as deep as a program made them: no recursion.
    todo: Vec<Dir>,
}

impl<'a> Walk<'a> {
    fn root(&self, scope: Scope) -> Result<Found<'a>> {
        let union = &self.stack.union;
        let inode = union.inodes.get(ROOT_INO)?;
        union.inodes.count(&inode);
        let attr = union.layer(0).attr(union.layer(0).root(), OsStr::new("."))?;
        let before = match (scope, &self.stack.below) {
            (Scope::Changes, Some(below)) => Some(below.inodes.get(ROOT_INO)?),
            _ => None,
        };
        Ok(Found { object: Object { union, inode, path: b".".to_vec(), attr }, before })
    }

    /// Lists a directory that was given.
    fn enter<E: From<WalkError>>(
        &mut self,
        found: Found<'a>,
        scope: Scope,
        each: &mut dyn FnMut(Member<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Found { object, before } = found;
        let failed = |source| WalkError { path: shown(&object.path), source };
        let lowers = self.stack.union.lowers_of(&object.inode).map_err(failed)?;
        let shines = lowers.iter().any(|lower| lower.layer > 0);
        let mut dir =
            Dir { path: object.path.clone(), inode: object.inode.clone(), scope, before, entries: Vec::new() };
        if scope == Scope::Changes {
            let merges = shines && dir.before.as_ref().is_some_and(|before| is_same(&lowers, before));
            if !merges {
                // The root merges always, and nothing else may be opaque there.
                if dir.before.take().is_some() {
                    each(Member::Opaque(&dir.path))?;
                }
                // Something of another path shines through: it is given whole.
                dir.scope = if shines { Scope::Tree } else { Scope::Changes };
            }
        }
        self.list(&mut dir, &lowers).map_err(failed)?;
        dir.entries.sort_by(|a, b| b.name().cmp(a.name()));
        self.todo.push(dir);
        Ok(())
    }

    fn list(&self, dir: &mut Dir, lowers: &[LowerDir]) -> Result<()> {
        let union = &self.stack.union;
        if dir.scope == Scope::Tree {
            return union.merge(&dir.inode, &mut |entry| {
                dir.entries.push(Entry::Object(entry.name));
                Ok(())
            });
        }
        let Some(upper) = lowers.first().filter(|lower| lower.layer == 0) else { return Ok(()) };
        let mut whiteouts = Vec::new();
        union.layer(0).list(&upper.dir, &mut |listed| {
            match listed {
                Listed::Entry(name, ..) => dir.entries.push(Entry::Object(name.to_owned())),
                Listed::Whiteout(name) => whiteouts.push(name.to_owned()),
            }
            Ok(())
        })?;
        let (Some(below), Some(before)) = (&self.stack.below, &dir.before) else { return Ok(()) };
        for name in whiteouts {
            let replaced = dir.entries.iter().any(|entry| entry.name() == name);
            // A whiteout of nothing says nothing.
            if !replaced && below.find(before, &name)?.is_some() {
                dir.entries.push(Entry::Whiteout(name));
            }
        }
        Ok(())
    }

    /// Gives one object of the directory that is walked, and goes into it.
    fn entry<E: From<WalkError>>(
        &mut self,
        name: &OsStr,
        each: &mut dyn FnMut(Member<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(dir) = self.todo.last() else { return Ok(()) };
        let (union, scope, path) = (&self.stack.union, dir.scope, joined(&dir.path, name));
        let failed = |source| WalkError { path: shown(&path), source };
        let found = match union.find(&dir.inode, name) {
            // Removed since it was listed, in a mount that is being worked in.
            Ok(None) | Err(Error::Refused(Refusal::NotFound)) => return Ok(()),
            Ok(Some(found)) => found,
            Err(error) if error.errno() == Errno::NOENT => return Ok(()),
            Err(error) => return Err(failed(error).into()),
        };
        let inode = union.intern(&dir.inode, name, &found, true).map_err(failed)?;
        let mut before = None;
        if let (true, Some(below), Some(parent)) = (found.is_dir(), &self.stack.below, &dir.before) {
            let there = below.find(parent, name).map_err(failed)?.filter(|there| there.is_dir());
            before = there.map(|there| below.intern(parent, name, &there, false)).transpose().map_err(failed)?;
        }
        let object = Object { union, inode, path, attr: found.attr };
        if found.is_dir() {
            each(Member::Object(&object))?;
            return self.enter(Found { object, before }, scope, each);
        }
        let id = (found.attr.dev, found.attr.ino);
        let given = match self.seen.get(&id) {
            Some(target) => each(Member::Link { path: &object.path, target, object: &object }),
            None => {
                if found.attr.nlink > 1 {
                    self.seen.insert(id, object.path.clone());
                }
                each(Member::Object(&object))
            }
        };
        self.stack.forget(object.inode);
        given
    }
}

/// Whether what shines through a directory is what the layers below show at its path.
fn is_same(lowers: &[LowerDir], before: &Inode) -> bool {
    let state = before.state.read();
    let Body::Dir(body) = &state.body else { return false };
    let shining = lowers.iter().filter(|lower| lower.layer > 0);
    let pairs = shining.clone().zip(body.lowers.iter());
    shining.count() == body.lowers.len()
        && pairs.into_iter().all(|(a, b)| a.layer == b.layer + 1 && a.dir.path() == b.dir.path())
}

/// A path of the root's is `.`, which stands before no other.
fn joined(dir: &[u8], name: &OsStr) -> Vec<u8> {
    match dir {
        b"." => name.as_bytes().to_vec(),
        dir => [dir, b"/", name.as_bytes()].concat(),
    }
}

fn shown(path: &[u8]) -> PathBuf {
    let path = if path == b"." { b"/".to_vec() } else { [b"/", path].concat() };
    OsString::from_vec(path).into()
}
