//! The mount against the model.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{DirEntryExt, FileTypeExt, MetadataExt},
};

use rustix::{
    fs::{Mode, OFlags, Stat, fstat, open},
    io::Errno,
};

use super::{
    exec::{Exec, errno, read_all},
    runner::Quirks,
    tree::{Body, Id, Inode},
    world::World,
};
use crate::common::read_xattrs;

/// What is wrong, in one line.
type Verdict = Result<(), String>;

/// Compares everything that an operation named or touched, and all open files.
pub fn touched(world: &mut World, exec: &Exec, named: &[&mut String], quirks: &Quirks) -> Verdict {
    for path in named {
        let want = world.tree.lookup(path, false);
        let got = fs::symlink_metadata(exec.path(path)).map(|_| ()).map_err(errno);
        if want.map(|_| ()) != got {
            return Err(format!("{path}: want {}, got {}", show(&want.map(|_| ())), show(&got)));
        }
    }
    let touched = world.tree.touched.clone();
    for (path, id) in world.tree.paths() {
        if touched.contains(&id) {
            object(world, exec, &path, id, quirks)?;
        }
    }
    handles(world, exec, quirks)
}

fn show(r: &Result<(), Errno>) -> String {
    match r {
        Ok(()) => "an object".to_owned(),
        Err(e) => e.to_string(),
    }
}

/// Compares the whole tree, and that no two objects share a number.
pub fn everything(world: &mut World, exec: &Exec, quirks: &Quirks) -> Verdict {
    let mut owners: BTreeMap<u64, (Id, String)> = BTreeMap::new();
    for (path, id) in world.tree.paths() {
        object(world, exec, &path, id, quirks)?;
        if let Some(ino) = world.tree.node(id).st_ino {
            let (owner, first) = owners.entry(ino).or_insert_with(|| (id, path.clone()));
            if *owner != id {
                return Err(format!("{path} and {first} share st_ino {ino}, and are two objects"));
            }
        }
    }
    handles(world, exec, quirks)
}

/// Compares one object, found at `path`.
fn object(world: &mut World, exec: &Exec, path: &str, id: Id, quirks: &Quirks) -> Verdict {
    let at = exec.path(path);
    let fail = |what: String| Err(format!("{}: {what}", if path.is_empty() { "." } else { path }));
    let meta = match fs::symlink_metadata(&at) {
        Ok(meta) => meta,
        Err(e) => return fail(format!("stat: {e}")),
    };
    let node = world.tree.node(id);
    let t = meta.file_type();
    let right_type = match &node.body {
        Body::File(_) => t.is_file(),
        Body::Dir(_) => t.is_dir(),
        Body::Symlink(_) => t.is_symlink(),
        Body::Fifo => t.is_fifo(),
    };
    if !right_type {
        return fail(format!("type: want {}, got {t:?}", kind(node)));
    }
    let is_root = path.is_empty();
    let got = Numbers {
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        nlink: meta.nlink(),
        size: meta.size(),
        mtime: (meta.mtime(), meta.mtime_nsec() as u32),
    };
    if let Err(e) = numbers(world, node, &got, quirks) {
        return fail(e);
    }
    match &node.body {
        Body::File(want) => {
            let read = open(&at, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).and_then(|fd| read_all(&fd));
            match read {
                Ok(got) if got == *want => {}
                Ok(got) => return fail(content_differs(want, &got)),
                Err(e) => return fail(format!("read: {e}")),
            }
        }
        Body::Symlink(want) => match fs::read_link(&at) {
            Ok(got) if got.as_os_str() == want.as_str() => {}
            other => return fail(format!("target: want {want}, got {other:?}")),
        },
        Body::Dir(_) => {
            if let Err(e) = listing(world, exec, path, id, quirks) {
                return fail(e);
            }
        }
        Body::Fifo => {}
    }
    if !is_root {
        let got = match read_xattrs(&at) {
            Ok(all) => all.into_iter().map(|(k, v)| (k.to_string_lossy().into_owned(), v)).collect::<BTreeMap<_, _>>(),
            Err(e) => return fail(format!("xattrs: {e}")),
        };
        if got != world.tree.node(id).xattrs {
            return fail(format!("xattrs: want {:?}, got {got:?}", world.tree.node(id).xattrs));
        }
    }
    identity(world, id, meta.ino()).or_else(fail)
}

/// What stat and fstat give.
struct Numbers {
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u64,
    size: u64,
    mtime: (i64, u32),
}

fn numbers(world: &World, node: &Inode, got: &Numbers, quirks: &Quirks) -> Verdict {
    if got.mode != node.mode {
        return Err(format!("mode: want {:o}, got {:o}", node.mode, got.mode));
    }
    if (got.uid, got.gid) != (node.uid, node.gid) {
        return Err(format!("owner: want {}:{}, got {}:{}", node.uid, node.gid, got.uid, got.gid));
    }
    match &node.body {
        Body::Dir(entries) => {
            let dirs = entries.values().filter(|&&id| world.tree.node(id).is_dir()).count() as u64;
            if got.nlink != 1 && got.nlink != 2 + dirs {
                return Err(format!("directory nlink: want 1 or {}, got {}", 2 + dirs, got.nlink));
            }
        }
        _ if got.nlink > node.nlink && !quirks.removed_links => {}
        _ if got.nlink != node.nlink => {
            return Err(format!("nlink: want {}, got {}", node.nlink, got.nlink));
        }
        _ => {}
    }
    let size = match &node.body {
        Body::File(content) => Some(content.len()),
        Body::Symlink(target) => Some(target.len()),
        Body::Dir(_) | Body::Fifo => None,
    };
    if let Some(size) = size.filter(|&s| s as u64 != got.size) {
        return Err(format!("size: want {size}, got {}", got.size));
    }
    let with_mtime = !node.is_dir() || quirks.dir_mtime;
    if let Some(want) = node.mtime.filter(|&m| with_mtime && m != got.mtime) {
        return Err(format!("mtime: want {want:?}, got {:?}", got.mtime));
    }
    Ok(())
}

/// The number of an object is the one it always had.
fn identity(world: &mut World, id: Id, ino: u64) -> Verdict {
    let known = world.tree.node(id).st_ino;
    if let Some(known) = known.filter(|&k| k != ino && world.quirks.identity) {
        return Err(format!("st_ino: was {known}, is {ino}"));
    }
    world.tree.set_ino(id, ino);
    Ok(())
}

/// Names, types and numbers of a directory's entries.
fn listing(world: &World, exec: &Exec, path: &str, id: Id, quirks: &Quirks) -> Verdict {
    let want = world.tree.node(id).entries().cloned().unwrap_or_default();
    let mut seen = Vec::new();
    for entry in fs::read_dir(exec.path(path)).map_err(|e| format!("opendir: {e}"))? {
        let entry = entry.map_err(|e| format!("readdir: {e}"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let meta = entry.metadata().map_err(|e| format!("stat of {name}, which readdir gave: {e}"))?;
        if quirks.d_ino && entry.ino() != meta.ino() {
            return Err(format!("{name}: d_ino {} but st_ino {}", entry.ino(), meta.ino()));
        }
        let d_type = entry.file_type().map_err(|e| format!("type of {name}: {e}"))?;
        if d_type != meta.file_type() {
            return Err(format!("{name}: d_type {d_type:?} but st_mode {:?}", meta.file_type()));
        }
        seen.push(name);
    }
    seen.sort();
    if !seen.iter().eq(want.keys()) {
        return Err(format!("listing: want {:?}, got {seen:?}", want.keys().collect::<Vec<_>>()));
    }
    Ok(())
}

/// fstat of every open file.
fn handles(world: &mut World, exec: &Exec, quirks: &Quirks) -> Verdict {
    for (slot, (handle, fd)) in world.slots.clone().iter().zip(&exec.slots).enumerate() {
        let (handle, fd) = match (handle, fd) {
            (Some(handle), Some(fd)) => (handle, fd),
            (None, None) => continue,
            _ => return Err(format!("handle {slot}: open on one side only")),
        };
        let st: Stat = fstat(fd).map_err(|e| format!("fstat of handle {slot}: {e}"))?;
        let mut want = world.tree.node(handle.inode).clone();
        if let Some(old) = handle.lower_content.as_ref().filter(|old| old.len() as u64 == st.st_size as u64) {
            // It may still be the old file that this handle reads.
            want.body = Body::File(old.clone());
        }
        if want.nlink == 0 && !quirks.unlinked_files {
            want.nlink = st.st_nlink;
        }
        let got = Numbers {
            mode: st.st_mode & 0o7777,
            uid: st.st_uid,
            gid: st.st_gid,
            nlink: st.st_nlink,
            size: st.st_size as u64,
            mtime: (st.st_mtime, st.st_mtime_nsec as u32),
        };
        numbers(world, &want, &got, quirks)
            .and_then(|()| identity(world, handle.inode, st.st_ino))
            .map_err(|e| format!("fstat of handle {slot}: {e}"))?;
    }
    Ok(())
}

fn kind(node: &Inode) -> &'static str {
    match node.body {
        Body::File(_) => "a file",
        Body::Dir(_) => "a directory",
        Body::Symlink(_) => "a symlink",
        Body::Fifo => "a fifo",
    }
}

pub fn content_differs(want: &[u8], got: &[u8]) -> String {
    let at = want.iter().zip(got).position(|(a, b)| a != b).unwrap_or(want.len().min(got.len()));
    let near = |x: &[u8]| x.iter().skip(at).take(8).copied().collect::<Vec<_>>();
    format!(
        "content: want {} bytes, got {}; differs at {at}: want {:?}, got {:?}",
        want.len(),
        got.len(),
        near(want),
        near(got)
    )
}
