//! Carries changes from a view of a tree over to the tree itself.
//!
//! The view reads from the tree that is going to be changed: so everything is
//! first copied into a stage, and moved from there. All are walked by
//! descriptors and without following links. A file comes into its place by a
//! rename: at each moment there is the old one or the new one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use lamel_unionfs::diff::{Change, Kind};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, openat, openat2,
    statat,
};
use rustix::io::Errno;

/// The largest xattr that the kernel keeps, and the longest list of their names.
const MAX_XATTR: usize = 64 * 1024;

/// Makes `tree` what `view` shows, as far as `changes` tell of a difference; `stage` is an empty directory.
pub(super) fn apply(view: &Path, stage: &Path, tree: &Path, changes: &[Change]) -> Result<()> {
    let (view, stage, tree) = (open_root(view)?, open_root(stage)?, open_root(tree)?);
    let mut staged = Vec::new();
    for change in changes.iter().filter(|change| change.kind != Kind::Deleted) {
        let path = relative(&change.path)?;
        copy(&view, &stage, &tree, path, &mut staged).with_context(|| format!("reading {}", change.path.display()))?;
    }
    // What was renamed is there under its new name before the old one goes.
    let mut made = Vec::new();
    for path in &staged {
        if publish(&view, &stage, &tree, Path::new(path)).with_context(|| format!("writing /{}", path.display()))? {
            made.push(Path::new(path));
        }
    }
    // What is in a directory is deleted before it: sorted paths backwards.
    for change in changes.iter().rev().filter(|change| change.kind == Kind::Deleted) {
        let path = relative(&change.path)?;
        remove(&tree, path).with_context(|| format!("removing {}", change.path.display()))?;
    }
    // What was put into a new directory has moved its times.
    for path in made.iter().rev() {
        times(&view, &tree, path).with_context(|| format!("writing /{}", path.display()))?;
    }
    Ok(())
}

fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).with_context(|| path.display().to_string())
}

fn relative(path: &Path) -> Result<&Path> {
    path.strip_prefix("/").with_context(|| format!("{} does not begin with /", path.display()))
}

/// The directory that a path's last name is in.
fn parent<'a>(root: &OwnedFd, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
    let name = path.file_name().context("the root itself")?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok((openat2(root, above, flags, Mode::empty(), resolve)?, name))
}

fn look(directory: &OwnedFd, name: &OsStr) -> Result<Option<Stat>> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn permissions(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

/// Removes whatever is at a path; nothing need be there.
fn remove(tree: &OwnedFd, path: &Path) -> Result<()> {
    let (directory, name) = match parent(tree, path) {
        Ok(found) => found,
        // Gone with its directory, which may be something else by now.
        Err(error) if matches!(error.downcast_ref(), Some(&(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    remove_at(&directory, name)
}

fn remove_at(directory: &OwnedFd, name: &OsStr) -> Result<()> {
    match look(directory, name)? {
        None => Ok(()),
        Some(stat) if kind(&stat) != FileType::Directory => {
            Ok(rustix::fs::unlinkat(directory, name, AtFlags::empty())?)
        }
        Some(_) => {
            let inside = open_directory(directory, name)?;
            for entry in entries(&inside)? {
                remove_at(&inside, &entry)?;
            }
            Ok(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
        }
    }
}

fn open_directory(directory: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?)
}

fn entries(directory: &OwnedFd) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Copies one object into the stage, and of a directory what the tree has not: one that was renamed brought things
/// along that no line tells of. All of it is noted.
fn copy(view: &OwnedFd, stage: &OwnedFd, tree: &OwnedFd, path: &Path, staged: &mut Vec<OsString>) -> Result<()> {
    let (from, name) = parent(view, path)?;
    let Some(stat) = look(&from, name)? else { return Ok(()) };
    let to = make_parent(stage, path)?;
    if look(&to, name)?.is_some_and(|other| kind(&other) != FileType::Directory) {
        return Ok(());
    }
    staged.push(path.as_os_str().to_owned());
    if kind(&stat) != FileType::Directory {
        return build(&from, &to, name, name, &stat);
    }
    make_directory(&to, name)?;
    let source = open_directory(&from, name)?;
    copy_attributes(&source, &open_directory(&to, name)?, &stat)?;
    let before = parent(tree, path).and_then(|(directory, name)| open_directory(&directory, name)).ok();
    for entry in entries(&source)? {
        let known = match &before {
            Some(before) => look(before, &entry)?.is_some(),
            None => false,
        };
        if known {
            continue;
        }
        let (inner, noted) = (path.join(entry), staged.len());
        match copy(view, stage, tree, &inner, staged) {
            // Somebody else has removed it from the tree in between.
            Err(error) if matches!(error.downcast_ref(), Some(&Errno::NOENT)) => {
                staged.truncate(noted);
                remove(stage, &inner)?;
            }
            copied => copied?,
        }
    }
    Ok(())
}

fn make_directory(above: &OwnedFd, name: &OsStr) -> Result<()> {
    match rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The directory of the stage that a path's last name is in, made with those above it.
fn make_parent(stage: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let mut at = stage.try_clone()?;
    for name in path.parent().into_iter().flat_map(Path::iter) {
        make_directory(&at, name)?;
        at = open_directory(&at, name)?;
    }
    Ok(at)
}

/// Moves one object from the stage into the tree; of a directory, itself alone. Whether a directory was made.
fn publish(view: &OwnedFd, stage: &OwnedFd, tree: &OwnedFd, path: &Path) -> Result<bool> {
    let (from, name) = parent(stage, path)?;
    let (to, _) = parent(tree, path)?;
    let Some(stat) = look(&from, name)? else { return Ok(false) };
    let mut before = look(&to, name)?;
    if before.is_some_and(|before| (kind(&before) == FileType::Directory) != (kind(&stat) == FileType::Directory)) {
        remove_at(&to, name)?;
        before = None;
    }
    if kind(&stat) == FileType::Directory {
        make_directory(&to, name)?;
        // Many a directory is there for what is in it alone, and may not be this user's to change.
        let wanted = parent(view, path).and_then(|(above, name)| look(&above, name))?.unwrap_or(stat);
        let same = |other: Stat| {
            (permissions(&other), other.st_uid, other.st_gid) == (permissions(&wanted), wanted.st_uid, wanted.st_gid)
        };
        let (source, made) = (open_directory(&from, name)?, open_directory(&to, name)?);
        if !before.is_some_and(same) {
            copy_owner(&made, &wanted)?;
        }
        copy_xattrs(&source, &made)?;
        return Ok(before.is_none());
    }
    match rustix::fs::renameat(&from, name, &to, name) {
        // The stage lies on another filesystem.
        Err(Errno::XDEV) => place(&from, &to, name, &stat)?,
        moved => moved?,
    }
    Ok(false)
}

/// Puts an object that is no directory in its place.
fn place(from: &OwnedFd, to: &OwnedFd, name: &OsStr, stat: &Stat) -> Result<()> {
    let mut draft = OsString::from(".");
    draft.push(name.to_string_lossy().chars().take(64).collect::<String>());
    draft.push(format!(".lamel-{}", std::process::id()));
    let made = build(from, to, name, &draft, stat).and_then(|()| Ok(rustix::fs::renameat(to, &draft, to, name)?));
    if made.is_err() {
        rustix::fs::unlinkat(to, &draft, AtFlags::empty()).ok();
    }
    made
}

fn build(from: &OwnedFd, to: &OwnedFd, name: &OsStr, draft: &OsStr, stat: &Stat) -> Result<()> {
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    match kind(stat) {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = openat(from, name, flags, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = openat(to, draft, flags, Mode::from_raw_mode(0o600))?;
            std::io::copy(&mut File::from(source.try_clone()?), &mut File::from(made.try_clone()?))?;
            copy_attributes(&source, &made, stat)?;
            return Ok(rustix::fs::futimens(&made, &timestamps(stat))?);
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(&target, to, draft)?;
        }
        FileType::Socket => return bail_on_socket(),
        other => rustix::fs::mknodat(to, draft, other, permissions(stat), stat.st_rdev)?,
    }
    change_owner(|| rustix::fs::chownat(to, draft, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW))?;
    if kind(stat) != FileType::Symlink {
        rustix::fs::chmodat(to, draft, permissions(stat), AtFlags::empty())?;
    }
    Ok(rustix::fs::utimensat(to, draft, &timestamps(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn bail_on_socket() -> Result<()> {
    bail!("a socket lives by the program that made it, and cannot be carried over; remove it and try again")
}

/// A plain user, who is root of a user namespace here, makes his own files in any case: other owners are not mapped.
fn change_owner(call: impl FnOnce() -> rustix::io::Result<()>) -> Result<()> {
    match call() {
        Err(Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

fn copy_attributes(source: &OwnedFd, made: &OwnedFd, stat: &Stat) -> Result<()> {
    copy_owner(made, stat)?;
    copy_xattrs(source, made)
}

fn copy_owner(made: &OwnedFd, stat: &Stat) -> Result<()> {
    change_owner(|| rustix::fs::fchown(made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))))?;
    Ok(rustix::fs::fchmod(made, permissions(stat))?)
}

/// Those that differ.
fn copy_xattrs(source: &OwnedFd, made: &OwnedFd) -> Result<()> {
    let mut names = vec![0; MAX_XATTR];
    let len = match rustix::fs::flistxattr(source.as_fd(), &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        len => len?,
    };
    names.truncate(len);
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; MAX_XATTR];
        let len = rustix::fs::fgetxattr(source.as_fd(), name, &mut value[..])?;
        value.truncate(len);
        let mut other = vec![0; MAX_XATTR];
        if rustix::fs::fgetxattr(made.as_fd(), name, &mut other[..]).is_ok_and(|len| other.get(..len) == Some(&value)) {
            continue;
        }
        rustix::fs::fsetxattr(made.as_fd(), name, &value, XattrFlags::empty())
            .with_context(|| String::from_utf8_lossy(name).into_owned())?;
    }
    Ok(())
}

fn timestamps(stat: &Stat) -> Timestamps {
    let time =
        |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or_default() };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Gives a directory the times that the view shows.
fn times(view: &OwnedFd, tree: &OwnedFd, path: &Path) -> Result<()> {
    let (from, name) = parent(view, path)?;
    let (to, _) = parent(tree, path)?;
    match look(&from, name)? {
        Some(stat) => Ok(rustix::fs::utimensat(&to, name, &timestamps(&stat), AtFlags::SYMLINK_NOFOLLOW)?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    fn change(path: &str, kind: Kind) -> Change {
        Change { path: path.into(), kind }
    }

    #[test]
    fn changes_are_carried_over() {
        let place = tempfile::tempdir().unwrap();
        let (view, tree, stage) = (place.path().join("view"), place.path().join("tree"), place.path().join("stage"));
        for directory in [stage.clone(), view.join("d/new/deep"), tree.join("d/gone/x"), tree.join("was-dir/y")] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(view.join("d/changed"), "new").unwrap();
        fs::set_permissions(view.join("d/changed"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(tree.join("d/changed"), "old").unwrap();
        fs::write(tree.join("d/kept"), "kept").unwrap();
        fs::write(view.join("d/new/deep/file"), "deep").unwrap();
        fs::write(view.join("was-dir"), "now a file").unwrap();
        symlink("/nowhere", view.join("link")).unwrap();
        let changes = [
            change("/d", Kind::Changed),
            change("/d/changed", Kind::Changed),
            change("/d/gone", Kind::Deleted),
            change("/d/never", Kind::Deleted),
            change("/d/new", Kind::Added),
            change("/link", Kind::Added),
            change("/was-dir", Kind::Changed),
        ];
        apply(&view, &stage, &tree, &changes).unwrap();
        assert_eq!(fs::read_to_string(tree.join("d/changed")).unwrap(), "new");
        assert_eq!(fs::metadata(tree.join("d/changed")).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_to_string(tree.join("d/kept")).unwrap(), "kept");
        assert!(!tree.join("d/gone").exists());
        assert_eq!(fs::read_to_string(tree.join("d/new/deep/file")).unwrap(), "deep");
        assert_eq!(fs::read_to_string(tree.join("was-dir")).unwrap(), "now a file");
        assert_eq!(fs::read_link(tree.join("link")).unwrap(), Path::new("/nowhere"));
        let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(time(&tree.join("d/new")), time(&view.join("d/new")));
        let names = fs::read_dir(tree.join("d")).unwrap().count();
        assert_eq!(names, 3);
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let place = tempfile::tempdir().unwrap();
        let [view, tree, other, stage] = ["view", "tree", "other", "stage"].map(|name| place.path().join(name));
        for directory in [view.join("d"), tree.clone(), other.clone(), stage.clone()] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(view.join("d/f"), "x").unwrap();
        symlink(&other, tree.join("d")).unwrap();
        assert!(apply(&view, &stage, &tree, &[change("/d/f", Kind::Added)]).is_err());
        assert!(fs::read_dir(&other).unwrap().next().is_none());
    }
}
