//! From a tree into a tar.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use anyhow::{Context as _, Result};
use lamel_image::changeset::worth_writing;
use lamel_image::tar::write::{Attributes, Kind, Writer};
use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, fstat, fstatfs, openat};
use rustix::io::Errno;

use super::{MAX_XATTR, proc_path, reopen};

/// Filesystems that hold no files of anybody's: proc, sysfs, cgroup (both), devpts, mqueue, debugfs, tracefs, securityfs,
/// bpf. `linux/magic.h`.
const SYSTEM: [u32; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
];

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Packed {
    /// Bytes of files.
    pub(crate) bytes: u64,
}

/// Writes the object `top` (`O_PATH`) as `name`, `.` being the archive's root, with everything in it. Filesystems of the
/// system's own that are mounted in it are left empty.
pub(crate) fn pack<W: Write>(top: OwnedFd, name: &[u8], out: W) -> Result<Packed> {
    let mut packer =
        Packer { writer: Writer::new(out), seen: HashMap::new(), todo: Vec::new(), packed: Packed::default() };
    packer.add(top, name.to_vec(), None).with_context(|| shown(name))?;
    while let Some(dir) = packer.todo.last_mut() {
        let Some(name) = dir.names.pop() else {
            packer.todo.pop();
            continue;
        };
        let (path, device) = (joined(&dir.path, &name), dir.device);
        let object = match openat(&dir.fd, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            // Removed since it was listed.
            Err(Errno::NOENT) => continue,
            opened => opened.with_context(|| shown(&path))?,
        };
        packer.add(object, path.clone(), Some(device)).with_context(|| shown(&path))?;
    }
    packer.writer.finish()?;
    Ok(packer.packed)
}

struct Packer<W> {
    writer: Writer<W>,
    /// First names of files that have several, by device and number.
    seen: HashMap<(u64, u64), Vec<u8>>,
    /// Trees are as deep as a program made them: no recursion.
    todo: Vec<Open>,
    packed: Packed,
}

/// A directory that is being walked.
struct Open {
    fd: OwnedFd,
    path: Vec<u8>,
    device: u64,
    /// The last one comes first.
    names: Vec<OsString>,
}

impl<W: Write> Packer<W> {
    /// Adds one object; `device` is the one that the directory around it is on.
    fn add(&mut self, object: OwnedFd, path: Vec<u8>, device: Option<u64>) -> Result<()> {
        let stat = fstat(&object)?;
        let xattrs = xattrs(&object)?;
        let attributes = Attributes {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or_default()),
            xattrs: xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect(),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let id = (stat.st_dev, stat.st_ino);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.seen.get(&id) {
                return Ok(self.writer.add(&path, Kind::HardLink(first), &attributes)?);
            }
            self.seen.insert(id, path.clone());
        }
        let numbers = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let target;
        let kind = match kind {
            FileType::RegularFile => return self.file(&object, &path, &stat, &attributes),
            FileType::Directory => {
                self.writer.add(&path, Kind::Dir, &attributes)?;
                if device.is_some_and(|device| device != stat.st_dev) && is_system(&object)? {
                    return Ok(());
                }
                let fd = reopen(&object, OFlags::RDONLY | OFlags::DIRECTORY)?;
                let names = names(&fd)?;
                self.todo.push(Open { fd, path, device: stat.st_dev, names });
                return Ok(());
            }
            FileType::Symlink => {
                target = rustix::fs::readlinkat(&object, "", Vec::new())?;
                Kind::Symlink(target.as_bytes())
            }
            FileType::CharacterDevice => Kind::Char(numbers.0, numbers.1),
            FileType::BlockDevice => Kind::Block(numbers.0, numbers.1),
            FileType::Fifo => Kind::Fifo,
            // A socket lives by the program that made it.
            _ => return Ok(()),
        };
        Ok(self.writer.add(&path, kind, &attributes)?)
    }

    fn file(&mut self, object: &OwnedFd, path: &[u8], stat: &Stat, attributes: &Attributes<'_>) -> Result<()> {
        let mut file = File::from(reopen(object, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let stretches = worth_writing(size, stretches(&file, size)?);
        self.packed.bytes += stretches.iter().map(|(_, len)| len).sum::<u64>();
        self.writer.add_file(path, size, &stretches, attributes, |out| {
            for (at, len) in &stretches {
                file.seek(SeekFrom::Start(*at))?;
                io::copy(&mut (&mut file).take(*len), out)?;
            }
            Ok::<(), anyhow::Error>(())
        })
    }
}

/// Where a file has data.
fn stretches(file: &File, size: u64) -> rustix::io::Result<Vec<(u64, u64)>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < size {
        let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // Not every filesystem knows its holes.
            Err(Errno::INVAL) => return Ok(vec![(0, size)]),
            Err(errno) => return Err(errno),
        };
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start))?.min(size);
        if end <= start {
            break;
        }
        found.push((start, end - start));
        at = end;
    }
    Ok(found)
}

fn is_system(dir: &OwnedFd) -> rustix::io::Result<bool> {
    let kind = u32::try_from(fstatfs(dir)?.f_type).unwrap_or_default();
    Ok(SYSTEM.contains(&kind))
}

/// What is in a directory, the last name first.
fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort_by(|a, b| b.cmp(a));
    Ok(names)
}

/// Names and values of the extended attributes, but for the host's label.
fn xattrs(object: &OwnedFd) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = proc_path(object);
    let mut list = vec![0; MAX_XATTR];
    let len = match rustix::fs::listxattr(path.as_str(), &mut list[..]) {
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => 0,
        len => len?,
    };
    list.truncate(len);
    let mut found = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty() && *name != b"security.selinux") {
        let mut value = vec![0; MAX_XATTR];
        match rustix::fs::getxattr(path.as_str(), name, &mut value[..]) {
            Ok(len) => value.truncate(len),
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => continue,
            Err(errno) => return Err(errno),
        }
        found.push((name.to_vec(), value));
    }
    Ok(found)
}

fn joined(dir: &[u8], name: &OsStr) -> Vec<u8> {
    match dir {
        b"." => name.as_bytes().to_vec(),
        dir => [dir, b"/", name.as_bytes()].concat(),
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
