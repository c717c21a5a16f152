//! What differs between two images.

use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use lamel_unionfs::diff::{Change, Kind};

use crate::Digest;
use crate::digest::Hasher;
use crate::view::{Object, Step, View, ViewError};

/// What was added (A), changed (C) and deleted (D) on the way from `old` to `new`, by path.
///
/// A directory is changed if its attributes are or anything in it is, as Docker counts it; of one that is deleted, what
/// was in it is not listed. A time alone makes a change of anything but a directory.
///
/// # Errors
/// A layer is damaged.
pub fn compare(old: &View, new: &View) -> Result<Vec<Change>, ViewError> {
    let mut changes: Vec<(Vec<u8>, Kind)> = Vec::new();
    let mut todo = vec![(old.root()?, new.root()?)];
    if differs(old, &old.root()?, new, &new.root()?)? {
        changes.push((b"/".to_vec(), Kind::Changed));
    }
    while let Some((old_dir, new_dir)) = todo.pop() {
        let before = changes.len();
        let (old_children, new_children) = (old.children(&old_dir)?, new.children(&new_dir)?);
        let mut olds = old_children.into_iter().peekable();
        for child in new_children {
            while let Some(gone) = olds.next_if(|other| other.name() < child.name()) {
                changes.push((gone.path, Kind::Deleted));
            }
            match olds.next_if(|other| other.name() == child.name()) {
                None => add(new, child, &mut changes)?,
                Some(was) => {
                    if differs(old, &was, new, &child)? {
                        changes.push((child.path.clone(), Kind::Changed));
                    }
                    match (was.attr.is_dir(), child.attr.is_dir()) {
                        (true, true) => todo.push((was, child)),
                        (false, true) => {
                            let mut inside = Vec::new();
                            add(new, child, &mut inside)?;
                            changes.extend(inside.into_iter().skip(1));
                        }
                        _ => {}
                    }
                }
            }
        }
        changes.extend(olds.map(|gone| (gone.path, Kind::Deleted)));
        if changes.len() > before {
            mark_parents(&new_dir.path, &mut changes);
        }
    }
    changes.sort_by(|(one, _), (other, _)| key(one).cmp(key(other)));
    // A directory is marked once for what is in it and once for itself.
    changes.dedup_by(|one, other| one.0 == other.0);
    Ok(changes.into_iter().map(|(path, kind)| Change { path: from_bytes(path), kind }).collect())
}

fn from_bytes(path: Vec<u8>) -> PathBuf {
    std::ffi::OsString::from_vec(path).into()
}

/// Directories before what is in them, and all of that before the next name.
fn key(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

/// Everything from an object on is new.
fn add(view: &View, from: Object, changes: &mut Vec<(Vec<u8>, Kind)>) -> Result<(), ViewError> {
    view.walk(from, &mut |object, _| {
        changes.push((object.path.clone(), Kind::Added));
        Ok(Step::Into)
    })
}

/// The directories above a change; the root is none, as it has no line in Docker's answer either.
fn mark_parents(dir: &[u8], changes: &mut Vec<(Vec<u8>, Kind)>) {
    let mut path = dir;
    while path.len() > 1 {
        changes.push((path.to_vec(), Kind::Changed));
        let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        path = path.get(..slash).unwrap_or_default();
    }
}

fn differs(old: &View, was: &Object, new: &View, is: &Object) -> Result<bool, ViewError> {
    let (a, b) = (&was.attr, &is.attr);
    // Archives have extended attributes in any order.
    let (mut before, mut after) = (old.xattrs(was)?, new.xattrs(is)?);
    before.sort_unstable();
    after.sort_unstable();
    if (a.mode, a.uid, a.gid, a.rdev) != (b.mode, b.uid, b.gid, b.rdev) || before != after {
        return Ok(true);
    }
    if a.is_dir() {
        return Ok(false);
    }
    if a.mtime != b.mtime || a.size != b.size {
        return Ok(true);
    }
    match a.format() {
        libc::S_IFLNK => Ok(old.target(was)? != new.target(is)?),
        libc::S_IFREG if a.size > 0 && old.place(was)? != new.place(is)? => Ok(digest(old, was)? != digest(new, is)?),
        _ => Ok(false),
    }
}

fn digest(view: &View, file: &Object) -> Result<Digest, ViewError> {
    struct Sink(Hasher);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink(Hasher::new());
    view.write_content(file, &mut sink)?;
    Ok(sink.0.finish())
}
