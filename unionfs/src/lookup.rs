//! Walking the stack for one name: top first, until a layer decides.
//!
//! A file decides, and so do a whiteout and an opaque directory; a directory
//! goes on collecting directories below it, under its redirect if it has one.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::attr::Attr;
use crate::error::{Error, LayerFault, Refusal, Result};
use crate::inode::{Body, DirBody, FileBody, Inode, Link, LowerDir, LowerFile, State, UpperDir, UpperFile};
use crate::layer::{LayerDir, LayerEntry, Lookup, index_name};
use crate::name::Name;
use crate::names::NameHash;
use crate::options::RedirectDir;
use crate::sys::at;
use crate::sys::xattr::Target;
use crate::union::UnionFs;
use crate::whiteout::{self, Marks, Redirect};

/// An object that a name leads to.
pub(crate) struct Found {
    /// Attributes from disk; owners and number not yet mapped.
    pub(crate) attr: Attr,
    /// The object's own inode number in the union.
    pub(crate) ino: u64,
    /// (device, inode number) of the upper's object, if it is in the upper.
    pub(crate) upper_id: Option<(u64, u64)>,
    /// It is known to have no extended attributes that a user may see.
    pub(crate) bare: bool,
    /// Where everything is.
    pub(crate) body: FoundBody,
}

/// What an inode will be made of.
#[derive(Clone)]
pub(crate) enum FoundBody {
    File { upper: Option<UpperFile>, lower: Option<LowerFile>, data: Option<Box<LowerFile>> },
    Dir { upper: bool, impure: bool, lowers: Arc<[LowerDir]> },
}

impl Found {
    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.body, FoundBody::Dir { .. })
    }

    /// Whether the upper holds the name itself.
    pub(crate) fn named_in_upper(&self) -> bool {
        self.upper_id.is_some()
    }
}

/// How the walk reaches the next layer.
enum Way {
    /// A name in each of the parent's lower directories.
    Name(OsString),
    /// A path from each layer's root.
    Path(Vec<OsString>),
}

/// One layer's object on the way down.
struct Hit {
    layer: u16,
    dir: Arc<LayerDir>,
    name: OsString,
    entry: LayerEntry,
}

impl Hit {
    fn file(&self) -> LowerFile {
        let (kind, name) = (self.entry.attr.kind(), Name::from(self.name.as_os_str()));
        LowerFile { layer: self.layer, kind, dir: Arc::clone(&self.dir), name }
    }
}

/// What one layer says to a way.
#[allow(clippy::large_enum_variant, reason = "lives on the stack for the length of one look-up")]
enum Step {
    /// Nothing here; the layers below are to be asked for this other path, if there is one.
    Absent(Option<Vec<OsString>>),
    Stop,
    Hit(Hit, Ends),
}

/// What a layer says beyond the object itself.
#[derive(Default)]
struct Ends {
    /// Nothing below shines through.
    hides: bool,
    /// An ancestor on the path is redirected: the way for the layers below.
    rerouted: Option<Vec<OsString>>,
}

impl Ends {
    /// What a layer says that does not have the object.
    fn absent(self) -> Step {
        if self.hides { Step::Stop } else { Step::Absent(self.rerouted) }
    }
}

impl UnionFs {
    /// The lower directories of a directory.
    pub(crate) fn lowers_of(&self, dir: &Inode) -> Result<Arc<[LowerDir]>> {
        match &dir.state.read().body {
            Body::Dir(body) => Ok(Arc::clone(&body.lowers)),
            Body::File(_) => Err(Refusal::NotDirectory.into()),
        }
    }

    /// The directory's descriptor in the upper, if it is there.
    pub(crate) fn upper_dir_opt(&self, dir: &Arc<Inode>) -> Result<Option<Arc<OwnedFd>>> {
        let present = match &dir.state.read().body {
            Body::Dir(body) => matches!(body.upper, UpperDir::Named | UpperDir::Removed(Some(_))),
            Body::File(_) => return Err(Refusal::NotDirectory.into()),
        };
        if present { self.upper_dir(dir).map(Some) } else { Ok(None) }
    }

    /// Names that may exist: `NotFound` and `NameTooLong` for others.
    pub(crate) fn check_name(&self, name: &OsStr) -> Result<()> {
        if name.len() > self.settings.name_max {
            return Err(Refusal::NameTooLong.into());
        }
        if whiteout::is_reserved(name) { Err(Refusal::ReservedName.into()) } else { Ok(()) }
    }

    /// What `name` in `parent` is, on disk.
    pub(crate) fn find(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Option<Found>> {
        if name.len() > self.settings.name_max {
            return Err(Refusal::NameTooLong.into());
        }
        if whiteout::is_reserved(name) {
            return Ok(None);
        }
        let lowers = self.lowers_of(parent)?;
        if let Some(dir) = self.upper_dir_opt(parent)? {
            match self.upper()?.lookup(&dir, name, asked(&lowers, 0, name).next().is_none())? {
                Lookup::Whiteout => return Ok(None),
                Lookup::Found { entry, hides } => {
                    return self.found_in_upper(name, &lowers, entry, hides).map(Some);
                }
                Lookup::Absent => {}
            }
        }
        let hits = self.walk(&lowers, Way::Name(name.to_owned()))?;
        self.found_below(hits)
    }

    /// Whether any lower layer shows `name` in this directory.
    pub(crate) fn exists_below(&self, parent: &Inode, name: &OsStr) -> Result<bool> {
        let lowers = self.lowers_of(parent)?;
        let mut asked = asked(&lowers, 0, name).peekable();
        while let Some(lower) = asked.next() {
            match self.layer(lower.layer).lookup(&lower.dir, name, asked.peek().is_none())? {
                Lookup::Absent => {}
                Lookup::Whiteout => return Ok(false),
                Lookup::Found { .. } => return Ok(true),
            }
        }
        Ok(false)
    }

    fn found_in_upper(&self, name: &OsStr, lowers: &Arc<[LowerDir]>, entry: LayerEntry, hides: bool) -> Result<Found> {
        let LayerEntry { mut attr, marks } = entry;
        let upper_id = Some((attr.dev, attr.ino));
        let bare = marks.bare;
        let mut ino = marks.ino.unwrap_or_else(|| self.inos.number(attr.dev, attr.ino));
        if attr.is_dir() {
            let below = if marks.opaque || hides || (lowers.is_empty() && marks.redirect.is_none()) {
                Arc::from([])
            } else {
                let way = self.way(name, &marks, 0)?;
                self.dirs_of(self.walk(lowers, way)?)
            };
            let body = FoundBody::Dir { upper: true, impure: marks.impure, lowers: below };
            return Ok(Found { attr, ino, upper_id, bare, body });
        }
        let (mut lower, mut data) = (None, None);
        if marks.metacopy && attr.format() == libc::S_IFREG {
            if !self.settings.metacopy {
                return Err(Error::layer(0, name, LayerFault::MetacopyOff));
            }
            let hits = self.walk(lowers, self.way(name, &marks, 0)?)?;
            lower = hits.first().map(Hit::file);
            // One that kernel overlayfs made: its own number is free for another object once the data replaces it.
            if let (None, Some(Hit { entry, .. })) = (marks.ino, hits.first())
                && entry.attr.nlink == 1
            {
                ino = self.inos.number(entry.attr.dev, entry.attr.ino);
            }
            data = data_of(&hits, 0, name, &mut attr)?;
        }
        let mut upper = UpperFile::Named;
        if let Some(key) = self.index_entry(&marks, upper_id)? {
            attr.nlink = union_links(attr.nlink, &marks);
            upper = UpperFile::Indexed(key);
        }
        Ok(Found { attr, ino, upper_id, bare, body: FoundBody::File { upper: Some(upper), lower, data } })
    }

    /// The index name of an object of the upper, if the index has it too.
    fn index_entry(&self, marks: &Marks, id: Option<(u64, u64)>) -> Result<Option<Name>> {
        let (Some(_), Some(origin)) = (marks.nlink, &marks.origin) else {
            return Ok(None);
        };
        let Some(index) = self.upper()?.used_index() else {
            return Ok(None);
        };
        let key = index_name(origin);
        let same = at::stat_opt(index.as_fd(), &key)?.is_some_and(|stat| Some((stat.st_dev, stat.st_ino)) == id);
        Ok(same.then(|| Name::from(key.as_os_str())))
    }

    fn found_below(&self, hits: Vec<Hit>) -> Result<Option<Found>> {
        let Some(top) = hits.first() else {
            return Ok(None);
        };
        let (mut attr, bare) = (top.entry.attr, top.entry.marks.bare);
        let ino = self.inos.number(attr.dev, attr.ino);
        if attr.is_dir() {
            let body = FoundBody::Dir { upper: false, impure: false, lowers: self.dirs_of(hits) };
            return Ok(Some(Found { attr, ino, upper_id: None, bare, body }));
        }
        let lower = top.file();
        let mut data = None;
        if top.entry.marks.metacopy && attr.format() == libc::S_IFREG {
            data = data_of(&hits, usize::from(top.layer) + 1, &lower.name, &mut attr)?;
        }
        if attr.nlink > 1
            && let Some(joined) = self.joined(&lower, data.as_deref(), &attr)?
        {
            return Ok(Some(joined));
        }
        let body = FoundBody::File { upper: None, lower: Some(lower), data };
        Ok(Some(Found { attr, ino, upper_id: None, bare, body }))
    }

    /// A lower name of a file that was copied up through another of its names.
    fn joined(&self, lower: &LowerFile, data: Option<&LowerFile>, here: &Attr) -> Result<Option<Found>> {
        let Some(upper) = &self.upper else {
            return Ok(None);
        };
        let Some(index) = upper.used_index() else {
            return Ok(None);
        };
        let Some(origin) = self.layer(lower.layer).origin(&lower.dir, &lower.name) else {
            return Ok(None);
        };
        let key = index_name(&origin);
        if at::stat_opt(index.as_fd(), &key)?.is_none() {
            return Ok(None);
        }
        let LayerEntry { mut attr, marks } = upper.entry(Target::At(index.as_fd(), &key), &key)?;
        // The number that its names in the upper have: kernel overlayfs leaves no mark of one.
        let ino = marks.ino.unwrap_or_else(|| self.inos.number(attr.dev, attr.ino));
        attr.nlink = union_links(attr.nlink, &marks);
        let mut below = None;
        if marks.metacopy {
            (attr.size, attr.blocks) = (here.size, here.blocks);
            below = Some(lower.clone());
        }
        let upper = Some(UpperFile::Indexed(Name::from(key.as_os_str())));
        let data = data.filter(|_| below.is_some()).map(|data| Box::new(data.clone()));
        let body = FoundBody::File { upper, lower: below, data };
        Ok(Some(Found { attr, ino, upper_id: None, bare: marks.bare, body }))
    }

    fn dirs_of(&self, hits: Vec<Hit>) -> Arc<[LowerDir]> {
        hits.into_iter()
            .filter(|hit| hit.entry.attr.is_dir())
            .map(|hit| LowerDir { layer: hit.layer, dir: self.layer(hit.layer).child(&hit.dir, &hit.name, &hit.entry) })
            .collect()
    }

    /// The way that an object's redirect, or the lack of one, points below `layer`.
    fn way(&self, name: &OsStr, marks: &Marks, layer: usize) -> Result<Way> {
        Ok(match self.redirect(name, marks, layer)? {
            None => Way::Name(name.to_owned()),
            Some(Redirect::Sibling(name)) => Way::Name(name),
            Some(Redirect::Absolute(path)) => Way::Path(path),
        })
    }

    fn redirect(&self, name: &OsStr, marks: &Marks, layer: usize) -> Result<Option<Redirect>> {
        let Some(value) = &marks.redirect else {
            return Ok(None);
        };
        if self.settings.redirect_dir == RedirectDir::Off && !marks.metacopy {
            return Err(Error::layer(layer, name, LayerFault::RedirectOff));
        }
        match whiteout::parse_redirect(value) {
            Some(redirect) => Ok(Some(redirect)),
            None => Err(Error::layer(layer, name, LayerFault::BadRedirect)),
        }
    }

    /// Collects the lower objects of one name: the directories that merge, or
    /// the file that decides (and the data below it, if it is a metacopy).
    fn walk(&self, lowers: &Arc<[LowerDir]>, mut way: Way) -> Result<Vec<Hit>> {
        let mut hits: Vec<Hit> = Vec::new();
        let mut next = 0;
        let bottom = u16::try_from(self.lowers.len()).unwrap_or(u16::MAX).saturating_sub(1);
        loop {
            let (layer, step) = match &way {
                Way::Name(name) => {
                    let mut asked = asked(lowers, next, name);
                    let Some(lower) = asked.next() else {
                        break;
                    };
                    let last = asked.next().is_none();
                    let found = self.layer(lower.layer).lookup(&lower.dir, name, last)?;
                    (lower.layer, self.step(lower.layer, &lower.dir, name, found))
                }
                Way::Path(path) => {
                    if next > usize::from(bottom) {
                        break;
                    }
                    let layer = u16::try_from(next).unwrap_or(u16::MAX);
                    (layer, self.walk_path(layer, path, layer == bottom)?)
                }
            };
            next = usize::from(layer) + 1;
            let (hit, ends) = match step {
                Step::Absent(rerouted) => {
                    if let Some(path) = rerouted {
                        way = Way::Path(path);
                    }
                    continue;
                }
                Step::Stop => break,
                Step::Hit(hit, ends) => (hit, ends),
            };
            let is_dir = hit.entry.attr.is_dir();
            if hits.first().is_some_and(|first| first.entry.attr.is_dir() != is_dir) {
                break;
            }
            let marks = &hit.entry.marks;
            let done = if is_dir {
                marks.opaque || ends.hides
            } else {
                !(marks.metacopy && hit.entry.attr.format() == libc::S_IFREG)
            };
            if !is_dir && !done && !self.settings.metacopy {
                return Err(Error::layer(next, &hit.name, LayerFault::MetacopyOff));
            }
            if !done {
                if let Some(path) = ends.rerouted {
                    way = Way::Path(path);
                }
                match (self.redirect(&hit.name, marks, next)?, &mut way) {
                    (None, _) => {}
                    (Some(Redirect::Absolute(path)), way) => *way = Way::Path(path),
                    (Some(Redirect::Sibling(name)), Way::Name(now)) => *now = name,
                    (Some(Redirect::Sibling(name)), Way::Path(path)) => {
                        path.pop();
                        path.push(name);
                    }
                }
            }
            hits.push(hit);
            if done {
                break;
            }
        }
        Ok(hits)
    }

    /// A layer's answer, less what an untrusted layer has no say in.
    fn step(&self, layer: u16, dir: &Arc<LayerDir>, name: &OsStr, found: Lookup) -> Step {
        match found {
            Lookup::Absent => Step::Absent(None),
            Lookup::Whiteout => Step::Stop,
            Lookup::Found { mut entry, hides } => {
                if !self.layer(layer).is_trusted() {
                    (entry.marks.redirect, entry.marks.metacopy) = (None, false);
                }
                let hit = Hit { layer, dir: Arc::clone(dir), name: name.to_owned(), entry };
                Step::Hit(hit, Ends { hides, rerouted: None })
            }
        }
    }

    /// Follows a path from one layer's root.
    fn walk_path(&self, layer: u16, path: &[OsString], last: bool) -> Result<Step> {
        let this = self.layer(layer);
        let mut dir = Arc::clone(this.root());
        let mut ends = Ends::default();
        let Some((name, ancestors)) = path.split_last() else {
            return Ok(Step::Stop);
        };
        // The same ancestor for the layers below.
        let mut way: Vec<OsString> = Vec::new();
        for (depth, name) in ancestors.iter().enumerate() {
            let entry = match this.lookup(&dir, name, last)? {
                Lookup::Absent => return Ok(ends.absent()),
                Lookup::Whiteout => return Ok(Step::Stop),
                Lookup::Found { entry, .. } if !entry.attr.is_dir() => return Ok(Step::Stop),
                Lookup::Found { entry, hides } => {
                    ends.hides |= hides || entry.marks.opaque;
                    entry
                }
            };
            let redirect = match this.is_trusted() {
                true => self.redirect(name, &entry.marks, usize::from(layer) + 1)?,
                false => None,
            };
            let redirected = redirect.is_some() || ends.rerouted.is_some();
            match redirect {
                Some(Redirect::Absolute(path)) => way = path,
                Some(Redirect::Sibling(name)) => way.push(name),
                None => way.push(name.clone()),
            }
            if redirected {
                let mut rerouted = way.clone();
                rerouted.extend_from_slice(&path[depth + 1..]);
                ends.rerouted = Some(rerouted);
            }
            dir = this.child(&dir, name, &entry);
        }
        let found = this.lookup(&dir, name, last)?;
        Ok(match self.step(layer, &dir, name, found) {
            Step::Hit(hit, own) => {
                ends.hides |= own.hides;
                Step::Hit(hit, ends)
            }
            Step::Absent(_) => ends.absent(),
            Step::Stop => Step::Stop,
        })
    }

    /// Where the lower layers have what the union has at this place: the path
    /// that they show it at by themselves, for a redirect to name. No layer's
    /// own path will do, because the layers above it may have something else there.
    pub(crate) fn path_below(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<OsString> {
        let mut names = vec![name.to_owned()];
        let mut dir = Arc::clone(parent);
        while let Some(link) = dir.link() {
            let redirect = match self.upper_dir_opt(&dir)? {
                Some(fd) => {
                    let marks = self.upper()?.markers.read(Target::At(fd.as_fd(), OsStr::new(".")), None)?;
                    self.redirect(&link.name, &marks, 0)?
                }
                None => None,
            };
            match redirect {
                Some(Redirect::Absolute(path)) => {
                    names.extend(path.into_iter().rev());
                    break;
                }
                Some(Redirect::Sibling(name)) => names.push(name),
                None => names.push(link.name.to_os_string()),
            }
            dir = link.parent;
        }
        let mut path = OsString::new();
        for name in names.iter().rev() {
            path.push("/");
            path.push(name);
        }
        Ok(path)
    }

    /// The redirect of an object that has parts in the lower layers: what it carries, or where it is.
    pub(crate) fn redirect_of(&self, parent: &Arc<Inode>, name: &OsStr, marks: &Marks) -> Result<OsString> {
        match self.redirect(name, marks, 0)? {
            Some(Redirect::Absolute(_)) => Ok(marks.redirect.clone().unwrap_or_default()),
            Some(Redirect::Sibling(sibling)) => self.path_below(parent, &sibling),
            None => self.path_below(parent, name),
        }
    }

    /// The inode of a found object. `count` says that the kernel is told of it.
    pub(crate) fn intern(&self, parent: &Arc<Inode>, name: &OsStr, found: &Found, count: bool) -> Result<Arc<Inode>> {
        // Most objects have one name everywhere: then it is kept once.
        let link = || {
            let name = match &found.body {
                FoundBody::File { lower: Some(lower), .. } if *lower.name == *name => lower.name.clone(),
                _ => Name::from(name),
            };
            Link { parent: Arc::clone(parent), name }
        };
        let inode = self.inodes.intern(
            found.ino,
            count,
            |present| self.is_same(present, parent, name, found),
            |ino| {
                Inode::new(
                    ino,
                    found.bare && self.owners.override_key().is_none(),
                    State { link: Some(link()), body: body_of(found) },
                )
            },
        )?;
        if !found.is_dir() && (found.attr.nlink > 1 || self.is_multi(&inode)) {
            self.note_link(&inode, link());
        }
        Ok(inode)
    }

    /// Whether an inode of the table is the object that was found under a name.
    ///
    /// # Errors
    /// [`Refusal::Outdated`]: it was, when it was found; but another of its names has been copied up since.
    fn is_same(&self, present: &Arc<Inode>, parent: &Arc<Inode>, name: &OsStr, found: &Found) -> Result<bool> {
        let copied = {
            let state = present.state.read();
            let here = state.link.as_ref().is_some_and(|link| link.is(parent, name));
            match (&state.body, &found.body) {
                (Body::Dir(_), FoundBody::Dir { .. }) => return Ok(here),
                (Body::File(file), FoundBody::File { upper, lower, .. }) => {
                    if file.kind() != found.attr.kind() {
                        return Ok(false);
                    }
                    match (file.upper(), upper) {
                        _ if here => return Ok(true),
                        (Some(UpperFile::Indexed(a)), Some(UpperFile::Indexed(b))) => {
                            return Ok(a == b);
                        }
                        (None, None) => {
                            let same_place = file.lower().zip(lower.as_ref()).is_some_and(|(a, b)| {
                                a.layer == b.layer && Arc::ptr_eq(&a.dir, &b.dir) && a.name == b.name
                            });
                            return Ok(found.attr.nlink > 1 || same_place);
                        }
                        (Some(_), Some(_)) => None,
                        (Some(UpperFile::Indexed(key)), None) if found.attr.nlink > 1 => Some(key.clone()),
                        _ => return Ok(false),
                    }
                }
                _ => return Ok(false),
            }
        };
        if let Some(copied) = copied {
            return match self.find(parent, name)?.map(|now| now.body) {
                Some(FoundBody::File { upper: Some(UpperFile::Indexed(key)), .. }) if key == copied => {
                    Err(Refusal::Outdated.into())
                }
                _ => Ok(false),
            };
        }
        // Another name of a file of the upper, or a number that was copied along with its mark.
        let Some(id) = found.upper_id else { return Ok(false) };
        let attr = self.with_backing(present, |backing| backing.attr())?;
        Ok((attr.dev, attr.ino) == id)
    }

    /// Finds a name and tells the kernel of it.
    pub(crate) fn lookup(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Option<(Arc<Inode>, Attr)>> {
        let (found, inode) = loop {
            let Some(found) = self.find(parent, name)? else {
                return Ok(None);
            };
            match self.intern(parent, name, &found, true) {
                Err(Error::Refused(Refusal::Outdated)) => {}
                interned => break (found, interned?),
            }
        };
        self.link_up(&inode, parent, name, &found);
        let mut attr = found.attr;
        self.fix_links(&inode, &mut attr)?;
        let attr = self.shown(&inode, attr);
        Ok(Some((inode, attr)))
    }

    /// Link counts that need what is in memory.
    pub(crate) fn fix_links(&self, inode: &Arc<Inode>, attr: &mut Attr) -> Result<()> {
        let plain = match &inode.state.read().body {
            Body::Dir(dir) => {
                let merged = dir.lowers.len() + usize::from(matches!(dir.upper, UpperDir::Named)) > 1;
                if merged || self.settings.static_nlink {
                    attr.nlink = 1;
                }
                true
            }
            Body::File(_) => attr.nlink <= 1,
        };
        if !plain && let Some(gone) = self.hidden_names(inode.ino) {
            attr.nlink = attr.nlink.saturating_sub(gone);
        }
        Ok(())
    }
}

/// The lower directories, from a layer's position on, that may have a name.
fn asked<'a>(lowers: &'a [LowerDir], from: usize, name: &OsStr) -> impl Iterator<Item = &'a LowerDir> {
    let name = NameHash::of(name);
    lowers.iter().filter(move |lower| usize::from(lower.layer) >= from && lower.dir.may_have(name))
}

/// Where the data of a metacopy at position `layer` is, when it is not in the
/// first of the objects below it; `attr` gets its size.
fn data_of(hits: &[Hit], layer: usize, name: &OsStr, attr: &mut Attr) -> Result<Option<Box<LowerFile>>> {
    let missing = || Error::layer(layer, name, LayerFault::MetacopyWithoutData);
    let last = hits.last().ok_or_else(missing)?;
    if last.entry.attr.format() != libc::S_IFREG || last.entry.marks.metacopy {
        return Err(missing());
    }
    (attr.size, attr.blocks) = (last.entry.attr.size, last.entry.attr.blocks);
    Ok((hits.len() > 1).then(|| Box::new(last.file())))
}

fn body_of(found: &Found) -> Body {
    match &found.body {
        FoundBody::File { upper, lower, data } => {
            Body::File(FileBody::new(found.attr.kind(), upper.clone(), lower.clone(), data.clone()))
        }
        FoundBody::Dir { upper, impure, lowers } => Body::Dir(Box::new(DirBody {
            upper: if *upper { UpperDir::Named } else { UpperDir::Absent },
            impure: *impure,
            lowers: Arc::clone(lowers),
        })),
    }
}

/// Names in the union of an indexed file.
pub(crate) fn union_links(on_disk: u32, marks: &Marks) -> u32 {
    let links = i64::from(on_disk) + marks.nlink.unwrap_or_default();
    u32::try_from(links.max(0)).unwrap_or(u32::MAX)
}
