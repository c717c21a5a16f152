//! A stack of layers as a tar: what its upper changes, as the layer of an image, or everything that it shows.

use std::io::{self, Write};

use lamel_unionfs::changeset::{Member, Object, Stack, WalkError};

use crate::tar::write::{Attributes, Kind, Writer};

/// Holes that are worth a sparse file in the tar, in bytes. Engines write files in full, and those that give a layer back
/// from what they have unpacked (tar-split) can do that of such files alone.
const WORTH: u64 = 16 << 20;

/// Why there is no tar.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A layer cannot be read.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The tar cannot be written.
    #[error("writing the archive: {0}")]
    Write(#[from] io::Error),
    /// A file had another size when its data was read.
    #[error("{0} changed while it was read: pause the container meanwhile")]
    Changed(String),
}

type Result<T, E = PackError> = std::result::Result<T, E>;

/// Writes what the upper of a stack changes as the tar of a layer (OCI image-spec `layer.md`). The root comes first
/// whatever was changed, so that no name that a container chose stands where others look for a compression's mark.
///
/// # Errors
/// A layer cannot be read, or `out` not be written.
pub fn write_changes<W: Write>(stack: &Stack, out: W) -> Result<W> {
    let mut writer = Writer::new(out);
    stack.changes(&mut |member| add(&mut writer, &member))?;
    Ok(writer.finish()?)
}

/// Writes everything that a stack shows as a tar.
///
/// # Errors
/// As [`write_changes`].
pub fn write_tree<W: Write>(stack: &Stack, out: W) -> Result<W> {
    let mut writer = Writer::new(out);
    stack.tree(&mut |member| add(&mut writer, &member))?;
    Ok(writer.finish()?)
}

fn add<W: Write>(writer: &mut Writer<W>, member: &Member<'_>) -> Result<()> {
    match member {
        Member::Object(object) => add_object(writer, object),
        Member::Link { path, target, object } => {
            Ok(writer.add(path, Kind::HardLink(target), &attributes(object, &object.xattrs()?))?)
        }
        Member::Whiteout(path) => {
            let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => path.split_at(slash + 1),
                None => (&b""[..], *path),
            };
            mark(writer, &[dir, b".wh.", name].concat())
        }
        Member::Opaque(dir) => mark(writer, &[dir, &b"/.wh..wh..opq"[..]].concat()),
    }
}

/// An empty file that says something by its name.
fn mark<W: Write>(writer: &mut Writer<W>, path: &[u8]) -> Result<()> {
    writer.add_file(path, 0, &[], &Attributes::default(), |_| Ok(()))
}

fn attributes<'a>(object: &Object<'_>, xattrs: &'a [(Vec<u8>, Vec<u8>)]) -> Attributes<'a> {
    let attr = &object.attr;
    let xattrs = xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    Attributes {
        mode: attr.mode & 0o7777,
        uid: attr.uid,
        gid: attr.gid,
        mtime: attr.mtime,
        // A label is the host's word on a file, and no part of it.
        xattrs: xattrs.filter(|(name, _)| *name != b"security.selinux").collect(),
    }
}

/// The stretches of a file of `size` bytes that are written: those that hold data, or all of it where its holes are small.
fn worth_writing(size: u64, data: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let stored = data.iter().fold(0_u64, |sum, (_, len)| sum.saturating_add(*len));
    if size == 0 || size.saturating_sub(stored) >= WORTH { data } else { vec![(0, size)] }
}

fn add_object<W: Write>(writer: &mut Writer<W>, object: &Object<'_>) -> Result<()> {
    let (path, rdev) = (object.path.as_slice(), object.attr.rdev);
    let numbers = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    let target;
    let kind = match object.attr.format() {
        libc::S_IFREG => return add_file(writer, object),
        libc::S_IFDIR => Kind::Dir,
        libc::S_IFLNK => {
            target = object.target()?;
            Kind::Symlink(&target)
        }
        libc::S_IFCHR => Kind::Char(numbers.0, numbers.1),
        libc::S_IFBLK => Kind::Block(numbers.0, numbers.1),
        libc::S_IFIFO => Kind::Fifo,
        // A socket lives by the program that made it; no tar holds one.
        _ => return Ok(()),
    };
    Ok(writer.add(path, kind, &attributes(object, &object.xattrs()?))?)
}

fn add_file<W: Write>(writer: &mut Writer<W>, object: &Object<'_>) -> Result<()> {
    let (data, size, xattrs) = (object.data()?, object.attr.size, object.xattrs()?);
    let stretches = worth_writing(size, data.stretches().to_vec());
    let written = writer.add_file(&object.path, size, &stretches, &attributes(object, &xattrs), |out| {
        data.write::<PackError>(&stretches, out)
    });
    written.map_err(|error| match error {
        PackError::Write(error) if error.kind() == io::ErrorKind::InvalidData => {
            PackError::Changed(format!("/{}", String::from_utf8_lossy(&object.path)))
        }
        error => error,
    })
}
