//! From a tar into a tree.
//!
//! A member's directory is resolved anew for each one, inside the root, and the member is made in it by one name that is
//! never followed: whoever changes links meanwhile leads nothing out of the root.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use lamel_image::decompress::{Decompressed, Expansion};
use lamel_image::index::Limits;
use lamel_image::tar::{Extent, Kind, Member, Reader, Xattr};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
    openat, openat2, statat,
};
use rustix::io::Errno;

use super::proc_path;
use super::root::{Root, components};
use crate::run::identity::Maps;

/// Bytes that are written at once.
const PIECE: usize = 128 * 1024;
/// The bits that give a program another user's or group's rights.
const SET_ID: u32 = 0o6000;

/// Who owns what is made, and what else of the source it keeps.
pub(crate) enum Owner {
    /// Whoever copies: set-id bits, devices and attributes of the system stay behind.
    Me,
    /// This user and group, with the same left behind.
    Fixed(u32, u32),
    /// As the source says; where that cannot be, whoever copies.
    Kept,
    /// The same, by the numbers that the host has for the container's.
    Shifted(Maps),
}

impl Owner {
    fn is_kept(&self) -> bool {
        matches!(self, Self::Kept | Self::Shifted(_))
    }
}

/// Where members go.
pub(crate) struct Unpack<'a> {
    pub(crate) root: &'a Root,
    /// The directory in it that the archive's root stands for.
    pub(crate) base: PathBuf,
    pub(crate) owner: Owner,
    /// The archive's root gives that directory its attributes.
    pub(crate) with_root: bool,
}

/// What could not be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Objects whose owner is another one than was asked for.
    pub(crate) owners: u64,
    /// Devices that were left out.
    pub(crate) devices: u64,
}

/// A directory that was made. Its time moves as long as something is put into it, which its mode may not allow.
struct Late {
    names: Vec<OsString>,
    mode: Mode,
    mtime: (i64, u32),
}

impl Unpack<'_> {
    /// Unpacks an archive, compressed or not.
    pub(crate) fn run(&self, source: impl Read + Send) -> Result<Lost> {
        let mut source = Decompressed::new(source, Expansion::default()).context("reading the archive")?;
        let limits = Limits::default();
        let mut reader = Reader::new(&mut source, &limits);
        let mut state = State { unpack: self, dir: None, late: Vec::new(), lost: Lost::default() };
        while let Some(member) = reader.next()? {
            let names = components(&member.path).ok_or_else(|| anyhow!("{}: leads upwards", shown(&member.path)))?;
            state.member(&names, &member, &mut reader).with_context(|| shown(&member.path))?;
        }
        for late in state.late.iter().rev() {
            let dir = self.open(&late.names).and_then(|dir| {
                rustix::fs::chmod(proc_path(&dir), late.mode)?;
                Ok(set_times(&dir, late.mtime)?)
            });
            // Whoever works in the root may have removed it again.
            if let Err(error) = dir {
                tracing::debug!("a directory that was made: {error:#}");
            }
        }
        // What follows the end of an archive must not stop its writer.
        drop(reader);
        io::copy(&mut source, &mut io::sink()).ok();
        Ok(state.lost)
    }

    /// A directory of the archive.
    fn open(&self, names: &[OsString]) -> Result<OwnedFd> {
        let below: PathBuf = names.iter().collect();
        if self.root.is_confined() {
            return Ok(self.root.directory(&self.base.join(below))?);
        }
        let base = self.root.directory(&self.base)?;
        if names.is_empty() {
            return Ok(base);
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(openat2(&base, &below, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }
}

struct State<'a> {
    unpack: &'a Unpack<'a>,
    /// The directory of the last member.
    dir: Option<(Vec<OsString>, OwnedFd)>,
    late: Vec<Late>,
    lost: Lost,
}

impl State<'_> {
    fn member(&mut self, names: &[OsString], member: &Member, reader: &mut Reader<'_>) -> Result<()> {
        let Some((name, parents)) = names.split_last() else {
            if self.unpack.with_root && member.kind == Kind::Dir {
                let base = self.unpack.open(&[])?;
                self.dress_directory(&base, &[], member)?;
            }
            return Ok(());
        };
        let dir = self.parent(parents)?;
        match &member.kind {
            Kind::Dir => self.directory(&dir, name, names, member)?,
            Kind::File { .. } => self.file(&dir, name, member, reader, None)?,
            Kind::Sparse { map, size } => self.file(&dir, name, member, reader, Some((map, *size)))?,
            Kind::HardLink(target) => {
                let target = components(target).ok_or_else(|| anyhow!("a link to {}", shown(target)))?;
                let (from, above) = target.split_last().context("a link to the root")?;
                let above = self.unpack.open(above)?;
                if same(&above, from, &dir, name)? {
                    return self.put_back(parents, dir);
                }
                clear(&dir, name)?;
                rustix::fs::linkat(&above, from, &dir, name, AtFlags::empty()).context("making a hard link")?;
            }
            Kind::Symlink(target) => {
                clear(&dir, name)?;
                rustix::fs::symlinkat(OsStr::from_bytes(target), &dir, name)?;
                self.dress_by_name(&dir, name, member)?;
            }
            Kind::Fifo => self.special(&dir, name, member, FileType::Fifo, 0)?,
            Kind::Char { major, minor } => {
                self.device(&dir, name, member, FileType::CharacterDevice, (*major, *minor))?;
            }
            Kind::Block { major, minor } => {
                self.device(&dir, name, member, FileType::BlockDevice, (*major, *minor))?;
            }
        }
        self.put_back(parents, dir)
    }

    fn put_back(&mut self, parents: &[OsString], dir: OwnedFd) -> Result<()> {
        self.dir = Some((parents.to_vec(), dir));
        Ok(())
    }

    /// The directory that a member is in, made if the archive does not list it.
    fn parent(&mut self, parents: &[OsString]) -> Result<OwnedFd> {
        if let Some((known, dir)) = self.dir.take()
            && known == parents
        {
            return Ok(dir);
        }
        match self.unpack.open(parents) {
            Err(error) if error.downcast_ref() == Some(&Errno::NOENT) => {}
            opened => return opened,
        }
        for depth in 1..=parents.len() {
            let (above, name) = (parents.get(..depth - 1).unwrap_or_default(), parents.get(depth - 1));
            let above = self.unpack.open(above)?;
            match name.map(|name| rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755))) {
                Some(Err(errno)) if errno != Errno::EXIST => return Err(errno.into()),
                _ => {}
            }
        }
        self.unpack.open(parents)
    }

    fn directory(&mut self, dir: &OwnedFd, name: &OsStr, names: &[OsString], member: &Member) -> Result<()> {
        match look(dir, name)?.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            None => {
                rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))?;
                self.dress_directory(&open_dir(dir, name)?, names, member)
            }
            Some(FileType::Directory) if self.unpack.owner.is_kept() => {
                self.dress_directory(&open_dir(dir, name)?, names, member)
            }
            Some(FileType::Directory) => Ok(()),
            // A link to a directory stays, as /lib is one in many a root.
            Some(FileType::Symlink) if self.unpack.root.is_confined() && self.unpack.open(names).is_ok() => Ok(()),
            Some(_) => bail!("cannot overwrite a non-directory with a directory"),
        }
    }

    fn file(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        member: &Member,
        reader: &mut Reader<'_>,
        sparse: Option<(&Vec<Extent>, u64)>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = match clear(dir, name) {
            Ok(()) => openat(dir, name, flags | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o600))?,
            // Something is mounted there: it is written, not replaced.
            Err(error) if error.downcast_ref() == Some(&Errno::BUSY) => {
                let there = openat(dir, name, flags | OFlags::NONBLOCK, Mode::empty())?;
                if FileType::from_raw_mode(rustix::fs::fstat(&there)?.st_mode) != FileType::RegularFile {
                    bail!("is no regular file");
                }
                rustix::fs::ftruncate(&there, 0)?;
                there
            }
            Err(error) => return Err(error),
        };
        let mut file = File::from(made.try_clone()?);
        match sparse {
            None => {
                let mut holes = Holes { file: &mut file, at: 0, end: 0 };
                reader.write_data(&mut holes)?;
                let end = holes.end;
                rustix::fs::ftruncate(&made, end)?;
            }
            Some((map, size)) => {
                reader.write_data(&mut Stretches { file: &mut file, map: map.iter(), now: None })?;
                rustix::fs::ftruncate(&made, size)?;
            }
        }
        self.dress(&made, member, self.mode(member))?;
        Ok(set_times(&made, member.mtime)?)
    }

    fn special(&mut self, dir: &OwnedFd, name: &OsStr, member: &Member, kind: FileType, number: u64) -> Result<()> {
        clear(dir, name)?;
        rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), number)?;
        self.dress_by_name(dir, name, member)
    }

    fn device(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        member: &Member,
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> Result<()> {
        if !self.unpack.owner.is_kept() {
            self.lost.devices += 1;
            return Ok(());
        }
        match self.special(dir, name, member, kind, rustix::fs::makedev(major, minor)) {
            Err(error) if error.downcast_ref() == Some(&Errno::PERM) => {
                self.lost.devices += 1;
                Ok(())
            }
            made => made,
        }
    }

    fn dress_directory(&mut self, object: &OwnedFd, names: &[OsString], member: &Member) -> Result<()> {
        let mode = self.mode(member);
        self.dress(object, member, mode | Mode::RWXU)?;
        self.late.push(Late { names: names.to_vec(), mode, mtime: member.mtime });
        Ok(())
    }

    /// Gives an object its owner, a mode and its extended attributes.
    fn dress(&mut self, object: &OwnedFd, member: &Member, mode: Mode) -> Result<()> {
        let path = proc_path(object);
        let by_path = |uid, gid| rustix::fs::chownat(rustix::fs::CWD, path.as_str(), uid, gid, AtFlags::empty());
        self.own(member, by_path)?;
        rustix::fs::chmod(path.as_str(), mode)?;
        self.set_xattrs(&path, &member.xattrs)
    }

    /// The same for what is not opened: it has its type, or is somebody else's thing in the same directory.
    fn dress_by_name(&mut self, dir: &OwnedFd, name: &OsStr, member: &Member) -> Result<()> {
        self.own(member, |uid, gid| rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW))?;
        let object = openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let path = proc_path(&object);
        if !matches!(member.kind, Kind::Symlink(_)) {
            rustix::fs::chmod(path.as_str(), self.mode(member))?;
        }
        self.set_xattrs(&path, &member.xattrs)?;
        Ok(rustix::fs::utimensat(dir, name, &times(member.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn own(
        &mut self,
        member: &Member,
        chown: impl FnOnce(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
    ) -> Result<()> {
        let (uid, gid) = match &self.unpack.owner {
            Owner::Me => return Ok(()),
            Owner::Fixed(uid, gid) => (*uid, *gid),
            Owner::Kept => (member.uid, member.gid),
            Owner::Shifted(maps) => maps.outside(member.uid, member.gid),
        };
        match chown(Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            // A plain user, and one who has no such id in this user namespace.
            Err(Errno::PERM | Errno::INVAL | Errno::OVERFLOW) => self.lost.owners += 1,
            done => done.context("changing the owner")?,
        }
        Ok(())
    }

    fn mode(&self, member: &Member) -> Mode {
        let taken = if self.unpack.owner.is_kept() { 0 } else { SET_ID };
        // A directory's set-group-id bit gives no rights to a program.
        let taken = if member.kind == Kind::Dir { taken & !0o2000 } else { taken };
        Mode::from_raw_mode(member.mode & !taken)
    }

    fn set_xattrs(&self, path: &str, xattrs: &[Xattr]) -> Result<()> {
        for Xattr { name, value } in xattrs {
            let users = name.starts_with(b"user.");
            if !users && !self.unpack.owner.is_kept() {
                continue;
            }
            match rustix::fs::setxattr(path, &**name, value, XattrFlags::empty()) {
                // What is not this user's to give, or what the filesystem does not hold.
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => {}
                done => done.with_context(|| format!("the attribute {}", shown(name)))?,
            }
        }
        Ok(())
    }
}

/// Whether two names are one object already.
fn same(one: &OwnedFd, name: &OsStr, other: &OwnedFd, other_name: &OsStr) -> Result<bool> {
    let id = |stat: Stat| (stat.st_dev, stat.st_ino);
    let (Some(one), Some(other)) = (look(one, name)?, look(other, other_name)?) else { return Ok(false) };
    Ok(id(one) == id(other))
}

fn open_dir(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

fn look(dir: &OwnedFd, name: &OsStr) -> Result<Option<Stat>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes what has a name, unless it is a directory.
fn clear(dir: &OwnedFd, name: &OsStr) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => bail!("cannot overwrite a directory with a non-directory"),
        done => Ok(done?),
    }
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    }
}

fn set_times(object: &OwnedFd, mtime: (i64, u32)) -> rustix::io::Result<()> {
    rustix::fs::utimensat(rustix::fs::CWD, proc_path(object), &times(mtime), AtFlags::empty())
}

/// Writes a file, but no piece of it that is all zeros.
struct Holes<'a> {
    file: &'a mut File,
    /// Where the file's offset stands.
    at: u64,
    end: u64,
}

impl Write for Holes<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..PIECE).unwrap_or(bytes);
        if piece.len() < PIECE || piece.iter().any(|byte| *byte != 0) {
            if self.at != self.end {
                self.file.seek(SeekFrom::Start(self.end))?;
            }
            self.file.write_all(piece)?;
            self.at = self.end + piece.len() as u64;
        }
        self.end += piece.len() as u64;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes data to where the stretches of a file say that it belongs.
struct Stretches<'a, I> {
    file: &'a mut File,
    map: I,
    /// What is left of the stretch that is being written.
    now: Option<u64>,
}

impl<'a, I: Iterator<Item = &'a Extent>> Write for Stretches<'a, I> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = loop {
            match self.now {
                Some(left) if left > 0 => break left,
                _ => {
                    let next = self.map.next().ok_or(io::ErrorKind::InvalidData)?;
                    self.file.seek(SeekFrom::Start(next.at))?;
                    self.now = Some(next.len);
                }
            }
        };
        let piece = usize::try_from(left).map_or(bytes, |left| bytes.get(..left).unwrap_or(bytes));
        self.file.write_all(piece)?;
        self.now = Some(left - piece.len() as u64);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
