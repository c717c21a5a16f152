//! The face towards the kernel: decode, call, reply. Dull, and the only module
//! that knows a `Reply`.

mod agreed;
mod convert;

use std::ffi::OsStr;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, FopenFlags, Generation, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;

use agreed::Agreed;
use convert::{caller, file_attr, id, kind, nothing, open_flags, set_time};

use crate::attr::{Attr, SetAttr};
use crate::crew::{Crew, Turn};
use crate::dir::New;
use crate::error::{Error, Refusal, Result};
use crate::file::{FileId, NO_HANDLE, NewHandle, WriteTimes};
use crate::handle::{Access, is_writable};
use crate::union::{Counters, UnionFs};
use crate::workers::Workers;

/// The largest write that the kernel sends in one request, bytes.
const MAX_WRITE: u32 = 1 << 20;
/// A copy-up of more bytes than this is done beside the threads that serve.
const SLOW_BYTES: u64 = 1 << 20;

/// Serves a [`UnionFs`] to a FUSE session.
pub struct Adapter {
    fs: Arc<UnionFs>,
    workers: Workers,
    crew: Crew,
    notifier: Arc<OnceLock<Notifier>>,
    agreed: Agreed,
}

impl Adapter {
    /// An adapter for one session; `spin`: see [`Options`](crate::Options).
    pub fn new(fs: Arc<UnionFs>, spin: bool) -> Self {
        Self {
            fs,
            workers: Workers::default(),
            crew: Crew::new(spin),
            notifier: Arc::new(OnceLock::new()),
            agreed: Agreed::default(),
        }
    }

    /// Where the session's notifier belongs once there is one.
    pub fn notifier(&self) -> Arc<OnceLock<Notifier>> {
        Arc::clone(&self.notifier)
    }

    /// Serves a request, beside the session's threads if it may take long.
    fn serve(&self, slow: bool, job: impl FnOnce(&UnionFs) + Send + 'static) {
        if slow {
            let fs = Arc::clone(&self.fs);
            self.workers.run(Box::new(move || job(&fs)));
        } else {
            job(&self.fs);
        }
    }

    /// Begins to serve a request.
    fn begin(&self) -> Serving<'_> {
        Counters::count(&self.fs.counters.requests);
        Serving { fs: &self.fs, _turn: self.crew.turn() }
    }

    fn refresh(&self, ino: u64) {
        refresh(&self.notifier, ino);
    }
}

/// The filesystem, for the time of one request.
struct Serving<'a> {
    fs: &'a UnionFs,
    _turn: Turn<'a>,
}

impl Deref for Serving<'_> {
    type Target = UnionFs;

    fn deref(&self) -> &UnionFs {
        self.fs
    }
}

/// The number for the kernel, and the one log line of a failed request.
fn refuse(request: &'static str, ino: u64, error: &Error) -> Errno {
    if error.is_expected() {
        tracing::debug!(request, ino, %error);
    } else {
        tracing::warn!(request, ino, %error);
    }
    Errno::from_i32(error.errno().raw_os_error())
}

/// Makes the kernel ask again for the attributes of an inode that changed without its notice: pages written through a
/// mapping of a passthrough file change times, an open that truncates may take set-id bits away.
fn refresh(notifier: &OnceLock<Notifier>, ino: u64) {
    if let Some(notifier) = notifier.get()
        && let Err(error) = notifier.inval_inode(INodeNo(ino), -1, 0)
    {
        tracing::debug!(%error, ino, "attributes not invalidated");
    }
}

/// `parent`: the nodeid that the request names.
fn reply_entry(reply: ReplyEntry, request: &'static str, parent: u64, fs: &UnionFs, made: Result<Option<Attr>>) {
    let ttl = &fs.settings.ttl;
    match made {
        Ok(Some(attr)) => match fs.inodes.nodeids.second(attr.ino) {
            None => reply.entry(ttl, &file_attr(&attr), Generation(0)),
            // An entry's nodeid is the number among its attributes: the true one comes with the GETATTR that follows.
            Some(nodeid) => {
                let attr = Attr { ino: nodeid, ..attr };
                reply.entry_with_ttls(&Duration::ZERO, ttl, &file_attr(&attr), Generation(0));
            }
        },
        Ok(None) => reply.entry(ttl, &nothing(), Generation(0)),
        Err(error) => reply.error(refuse(request, parent, &error)),
    }
}

fn reply_empty(reply: ReplyEmpty, request: &'static str, ino: u64, done: Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(refuse(request, ino, &error)),
    }
}

fn reply_xattr(reply: ReplyXattr, request: &'static str, ino: u64, size: u32, value: Result<Vec<u8>>) {
    let fits = value.and_then(|value| match size {
        0 => Ok((true, value)),
        size if value.len() > size as usize => Err(Refusal::Range.into()),
        _ => Ok((false, value)),
    });
    match fits {
        Ok((true, value)) => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok((false, value)) => reply.data(&value),
        Err(error) => reply.error(refuse(request, ino, &error)),
    }
}

/// A size that no file has: the kernel lists an entry of READDIRPLUS with it, takes nothing else from it, and forgets a
/// look-up of its inode.
const LISTED_ONLY: u64 = u64::MAX;

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        self.agreed = Agreed::on(&self.fs.settings, config)?;
        config.set_max_write(MAX_WRITE).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        config.set_max_background(64).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let fs = self.begin();
        let found = fs.inodes.get(parent.0).and_then(|parent| fs.lookup(&parent, name));
        reply_entry(reply, "lookup", parent.0, &fs, found.map(|found| found.map(|(_, attr)| attr)));
    }

    fn forget(&self, _: &Request, ino: INodeNo, nlookup: u64) {
        self.fs.forget(ino.0, nlookup);
        if self.fs.reclaim.is_due() {
            self.serve(true, UnionFs::reclaim);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let fs = self.begin();
        match fs.inodes.get(ino.0).and_then(|inode| fs.getattr(&inode)) {
            Ok(attr) => reply.attr(fs.attr_ttl(&attr), &file_attr(&attr)),
            Err(error) => reply.error(refuse("getattr", ino.0, &error)),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the trait's signature")]
    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let fs = self.begin();
        let change = SetAttr { mode, uid, gid, size, atime: atime.map(set_time), mtime: mtime.map(set_time) };
        let slow = size.is_some_and(|size| fs.moves_more_than(ino.0, SLOW_BYTES.min(size)));
        let kill = size.is_some() && self.kills_setid(req);
        let changed = move |fs: &UnionFs| {
            let inode = fs.inodes.get(ino.0)?;
            if kill {
                fs.drop_setid(&inode)?;
            }
            fs.setattr(&inode, &change)
        };
        self.serve(slow, move |fs| match changed(fs) {
            Ok(attr) => reply.attr(fs.attr_ttl(&attr), &file_attr(&attr)),
            Err(error) => reply.error(refuse("setattr", ino.0, &error)),
        });
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let fs = self.begin();
        match fs.inodes.get(ino.0).and_then(|inode| fs.with_backing(&inode, |backing| backing.readlink())) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(refuse("readlink", ino.0, &error)),
        }
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        let new = match mode & libc::S_IFMT {
            libc::S_IFREG => New::File { mode },
            _ => New::Node { mode, rdev: u64::from(rdev) },
        };
        self.make("mknod", req, parent, name, new, umask, reply);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.make("mkdir", req, parent, name, New::Dir { mode }, umask, reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.make("symlink", req, parent, name, New::Symlink { target: target.as_os_str() }, 0, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let fs = self.begin();
        let done = fs.inodes.get(parent.0).and_then(|parent| fs.unlink(&parent, name));
        reply_empty(reply, "unlink", parent.0, done);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let fs = self.begin();
        let done = fs.inodes.get(parent.0).and_then(|parent| fs.rmdir(&parent, name));
        reply_empty(reply, "rmdir", parent.0, done);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let fs = self.begin();
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let done = fs.inodes.get(parent.0).and_then(|from| {
            let to = fs.inodes.get(newparent.0)?;
            fs.rename((&from, name), (&to, newname), flags)
        });
        reply_empty(reply, "rename", parent.0, done);
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let fs = self.begin();
        let made = fs.inodes.get(ino.0).and_then(|inode| {
            let parent = fs.inodes.get(newparent.0)?;
            let attr = fs.link(&inode, &parent, newname)?;
            fs.inodes.count(&inode);
            Ok(Some(attr))
        });
        reply_entry(reply, "link", ino.0, &fs, made);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let fs = self.begin();
        if self.agreed.no_open {
            // The kernel does not ask again.
            return reply.error(Errno::ENOSYS);
        }
        let flags = OFlags::from_bits_retain(flags.0.cast_unsigned());
        let write = is_writable(flags);
        let slow = write && !flags.contains(OFlags::TRUNC) && fs.moves_more_than(ino.0, SLOW_BYTES);
        let unprivileged = req.uid() != 0;
        let notifier = Arc::clone(&self.notifier);
        self.serve(slow, move |fs| {
            let opened = fs.open_file(ino.0, flags, unprivileged, &|fd| reply.open_backing(fd));
            let left = matches!(opened, Err(Error::Refused(Refusal::Renumbered)));
            if left || (unprivileged && flags.contains(OFlags::TRUNC)) {
                // What is known under this nodeid is not kept up to date any more; or set-id bits may have gone.
                refresh(&notifier, ino.0);
            }
            match opened {
                Ok(NewHandle { number, access: Access::Passthrough(id) }) => {
                    reply.opened_passthrough(FileHandle(number), FopenFlags::empty(), &id);
                }
                Ok(NewHandle { number, access }) => reply.opened(FileHandle(number), open_flags(&access)),
                Err(error) => reply.error(refuse("open", ino.0, &error)),
            }
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let fs = self.begin();
        if self.agreed.no_open {
            // The kernel goes on with MKNOD, and does not ask again.
            return reply.error(Errno::ENOSYS);
        }
        let ttl = &fs.settings.ttl;
        let made = fs
            .inodes
            .get(parent.0)
            .and_then(|parent| fs.create(&parent, name, mode, caller(req, umask), &|fd| reply.open_backing(fd)));
        match made {
            Ok((_, attr, NewHandle { number, access: Access::Passthrough(id) })) => {
                let (attr, handle) = (file_attr(&attr), FileHandle(number));
                reply.created_passthrough(ttl, &attr, Generation(0), handle, FopenFlags::empty(), &id);
            }
            Ok((_, attr, NewHandle { number, access })) => {
                reply.created(ttl, &file_attr(&attr), Generation(0), FileHandle(number), open_flags(&access));
            }
            Err(error) => reply.error(refuse("create", parent.0, &error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = self.begin();
        let mut reply = Some(reply);
        let done = fs.read(id(ino, fh), offset, size as usize, |data| {
            if let Some(reply) = reply.take() {
                reply.data(data);
            }
        });
        if let (Err(error), Some(reply)) = (done, reply) {
            reply.error(refuse("read", ino.0, &error));
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let fs = self.begin();
        let file = id(ino, fh);
        let cached = self.agreed.writeback && flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let times = if cached { WriteTimes::Kept } else { WriteTimes::Now };
        let kill = self.agreed.killpriv && flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let notifier = Arc::clone(&self.notifier);
        let write = move |fs: &UnionFs, data: &[u8]| {
            if kill && fs.drop_setid_of(file)? {
                refresh(&notifier, ino.0);
            }
            fs.write(file, offset, data, times)
        };
        let answer = move |written: Result<u32>| match written {
            Ok(size) => reply.written(size),
            Err(error) => reply.error(refuse("write", ino.0, &error)),
        };
        if file.handle == NO_HANDLE && fs.moves_more_than(ino.0, SLOW_BYTES) {
            let data = data.to_vec();
            self.serve(true, move |fs| answer(write(fs, &data)));
        } else {
            answer(write(&fs, data));
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Nothing is held back here, and the kernel does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let fs = self.begin();
        let stale = fs.release_file(fh.0);
        reply.ok();
        if let Some(ino) = stale {
            self.refresh(ino);
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let serving = self.begin();
        self.refresh(ino.0);
        self.serve(serving.has_disk(), move |fs| reply_empty(reply, "fsync", ino.0, fs.fsync(id(ino, fh), datasync)));
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _serving = self.begin();
        if self.agreed.no_opendir {
            // The kernel does not ask again, and keeps what it lists as the flags below say.
            return reply.error(Errno::ENOSYS);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let fs = self.begin();
        match fs.inodes.get(ino.0).and_then(|inode| fs.snapshot(&inode, offset)) {
            Ok(snapshot) => {
                for (next, entry) in snapshot.from(offset) {
                    if reply.add(INodeNo(entry.ino), next, kind(entry.format), &entry.name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(refuse("readdir", ino.0, &error)),
        }
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let fs = self.begin();
        let listed = fs.inodes.get(ino.0).and_then(|inode| Ok((fs.snapshot(&inode, offset)?, inode)));
        let (snapshot, dir) = match listed {
            Ok(listed) => listed,
            Err(error) => return reply.error(refuse("readdirplus", ino.0, &error)),
        };
        let ttl = &fs.settings.ttl;
        for (next, entry) in snapshot.from(offset) {
            let mut attr = nothing();
            attr.kind = kind(entry.format);
            if entry.name == "." || entry.name == ".." {
                // The kernel looks neither of the dots up.
                attr.ino = INodeNo(entry.ino);
                if reply.add(attr.ino, next, &entry.name, ttl, &attr, Generation(0)) {
                    break;
                }
                continue;
            }
            let found = match fs.lookup(&dir, &entry.name) {
                Ok(Some(found)) => found,
                // Gone since the snapshot.
                Ok(None) => continue,
                Err(error) => {
                    // The name is there; who asks for it gets the error.
                    refuse("readdirplus", ino.0, &error);
                    (attr.ino, attr.size) = (INodeNo(entry.ino), LISTED_ONLY);
                    let known = fs.inodes.find(entry.ino).inspect(|inode| fs.inodes.count(inode));
                    if reply.add(attr.ino, next, &entry.name, &Duration::ZERO, &attr, Generation(0)) {
                        if known.is_some() {
                            drop(known);
                            fs.forget(entry.ino, 1);
                        }
                        break;
                    }
                    continue;
                }
            };
            let (inode, mut attr) = found;
            if fs.inodes.nodeids.second(attr.ino).is_some() {
                // Its true number is not its nodeid any more.
                attr.size = LISTED_ONLY;
            }
            if reply.add(INodeNo(attr.ino), next, &entry.name, ttl, &file_attr(&attr), Generation(0)) {
                let ino = inode.ino;
                drop(inode);
                fs.forget(ino, 1);
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, _: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let serving = self.begin();
        self.serve(serving.has_disk(), move |fs| {
            let done = fs.inodes.get(ino.0).and_then(|inode| fs.fsync_dir(&inode));
            reply_empty(reply, "fsyncdir", ino.0, done);
        });
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.begin().statfs() {
            Ok(s) => {
                let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
                let (bsize, name_max, frsize) = (narrow(s.f_bsize), narrow(s.f_namemax), narrow(s.f_frsize));
                reply.statfs(s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, bsize, name_max, frsize);
            }
            Err(error) => reply.error(refuse("statfs", ino.0, &error)),
        }
    }

    fn setxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, _: u32, reply: ReplyEmpty) {
        let fs = self.begin();
        let done = fs.inodes.get(ino.0).and_then(|inode| fs.setxattr(&inode, name, value, flags));
        reply_empty(reply, "setxattr", ino.0, done);
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let fs = self.begin();
        let value = fs.inodes.get(ino.0).and_then(|inode| fs.getxattr(&inode, name, req.pid()));
        reply_xattr(reply, "getxattr", ino.0, size, value);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let fs = self.begin();
        let names = fs.inodes.get(ino.0).and_then(|inode| fs.listxattr(&inode));
        reply_xattr(reply, "listxattr", ino.0, size, names);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let fs = self.begin();
        let done = fs.inodes.get(ino.0).and_then(|inode| fs.removexattr(&inode, name));
        reply_empty(reply, "removexattr", ino.0, done);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // Asked only without default_permissions, where everybody may do everything.
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        let fs = self.begin();
        match fs.inodes.get(ino.0).and_then(|inode| fs.ioctl(&inode, cmd, in_data)) {
            Ok(data) => reply.ioctl(0, &data),
            Err(error) => reply.error(refuse("ioctl", ino.0, &error)),
        }
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (fs, file) = (self.begin(), id(ino, fh));
        let done = self.before_change(req, file).and_then(|()| fs.fallocate(file, mode, offset, length));
        reply_empty(reply, "fallocate", ino.0, done);
    }

    fn lseek(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        match self.begin().lseek(id(ino, fh), offset, whence) {
            Ok(position) => reply.offset(position),
            Err(error) => reply.error(refuse("lseek", ino.0, &error)),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the trait's signature")]
    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (fs, from, to) = (self.begin(), id(ino_in, fh_in), id(ino_out, fh_out));
        let done = self.before_change(req, to).and_then(|()| fs.copy_file_range(from, offset_in, to, offset_out, len));
        match done {
            Ok(size) => reply.written(size),
            Err(error) => reply.error(refuse("copy_file_range", ino_in.0, &error)),
        }
    }
}

impl Adapter {
    /// Whether set-id bits go when this caller changes data, in requests that do not say so themselves.
    fn kills_setid(&self, req: &Request) -> bool {
        self.agreed.killpriv && req.uid() != 0
    }

    /// Takes set-id bits away before such a request changes a file.
    fn before_change(&self, req: &Request, file: FileId) -> Result<()> {
        if self.kills_setid(req) && self.fs.drop_setid_of(file)? {
            self.refresh(file.ino);
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "one request's parts")]
    fn make(
        &self,
        what: &'static str,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        new: New<'_>,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let fs = self.begin();
        let made = fs.inodes.get(parent.0).and_then(|parent| {
            let (_, attr) = fs.make(&parent, name, new, caller(req, umask))?;
            Ok(Some(attr))
        });
        reply_entry(reply, what, parent.0, &fs, made);
    }
}
