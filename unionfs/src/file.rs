//! Open files: open, read, write, fsync, fallocate, lseek, copy_file_range,
//! ioctl, release.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use fuser::BackingId;
use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;

use crate::attr::modified_at;
use crate::copy_up::Depth;
use crate::error::{Error, Refusal, Result};
use crate::handle::{Access, Choice, Data, FileHandle, Opened, is_writable};
use crate::inode::{Body, Inode};
use crate::layer::Content;
use crate::options::Io;
use crate::sys::{at, copy, ioctl};
use crate::union::{Counters, UnionFs};

/// Among the flags of an open by execve: the kernel's own `__FMODE_EXEC`, which no program can pass.
const EXECUTED: OFlags = OFlags::from_bits_retain(0o40);

/// What one call copies of a file with holes, at most; the caller goes on from there.
const COPY_STEP: usize = 1 << 20;

/// A handle, as the kernel is told of it.
pub(crate) struct NewHandle {
    pub(crate) number: u64,
    pub(crate) access: Access,
}

/// What a request names when the kernel opened the file by itself.
pub(crate) const NO_HANDLE: u64 = 0;

/// The file that a request is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileId {
    pub(crate) ino: u64,
    /// [`NO_HANDLE`], or one of [`NewHandle`].
    pub(crate) handle: u64,
}

/// Whether a request changes data: without a handle, the first such request copies the file up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Read,
    Write,
}

/// What a write does to the time of the file's last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteTimes {
    /// It is a change of now.
    Now,
    /// The kernel wrote into its cache earlier and sets the time of that itself, but not where it
    /// equals the time that it knows: the disk's must then stay what it is.
    Kept,
}

/// Makes a file known to the kernel for passthrough.
pub(crate) type Register<'a> = &'a dyn Fn(BorrowedFd<'_>) -> std::io::Result<BackingId>;

/// The number of the data's version that an inode has.
fn version(inode: &Inode) -> u32 {
    match &inode.state.read().body {
        Body::File(file) => file.version(),
        Body::Dir(_) => 0,
    }
}

fn not_a_file() -> Error {
    Error::call("open", OsStr::new("<mapped>"), Errno::BADF)
}

fn as_file(content: &Content) -> Result<&OwnedFd> {
    match content {
        Content::File(file) => Ok(file),
        Content::Bytes(_) | Content::Sparse(_) => Err(not_a_file()),
    }
}

impl UnionFs {
    /// Opens a regular file; opening for writing copies it up first. A truncation by one `unprivileged` takes the
    /// set-id bits away: the kernel, which leaves the truncation to this call, does not.
    pub(crate) fn open_file(
        &self,
        nodeid: u64,
        flags: OFlags,
        unprivileged: bool,
        register: Register<'_>,
    ) -> Result<NewHandle> {
        let inode = &self.inodes.get(nodeid)?;
        let write = is_writable(flags);
        let truncate = flags.contains(OFlags::TRUNC);
        // The kernel keeps writers from running programs, but checks a truncating reader only after this open.
        if truncate && !write && self.handles.is_executed(inode.ino) {
            return Err(Refusal::Executed.into());
        }
        if write || truncate {
            self.check_writable()?;
            self.copy_up(inode, Depth::Data(truncate.then_some(0)))?;
        }
        // O_RDONLY | O_TRUNC truncates too.
        let own = self.open_flags(write || truncate);
        let data = self.open_data(inode, own)?;
        if truncate {
            if unprivileged {
                self.drop_setid(inode)?;
            }
            at::truncate(as_file(&data.content)?.as_fd(), 0)?;
        }
        let opened = self.add_handle(inode, nodeid, own, data, register)?;
        if flags.contains(EXECUTED) {
            self.handles.mark_executed(opened.number, inode.ino);
        }
        Ok(opened)
    }

    /// The flags with which this process opens what the kernel opens for
    /// writing or reading. A cached writer reads too: pages are filled before
    /// they are written in part.
    pub(crate) fn open_flags(&self, write: bool) -> OFlags {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        if self.settings.noatime { access | OFlags::NOATIME } else { access }
    }

    /// Adds a handle of data that was opened with `flags`.
    pub(crate) fn add_handle(
        &self,
        inode: &Arc<Inode>,
        nodeid: u64,
        flags: OFlags,
        mut data: Data,
        register: Register<'_>,
    ) -> Result<NewHandle> {
        let writable = is_writable(flags);
        let pass = self.settings.io == Io::Passthrough;
        let access = loop {
            match self.handles.choose(nodeid, &data, writable, pass, register) {
                Choice::Open(access) => break access,
                Choice::Outdated => data = self.open_data(inode, flags)?,
                Choice::Elsewhere => {
                    self.inodes.nodeids.renumber(inode.ino);
                    return Err(Refusal::Renumbered.into());
                }
            }
        };
        let passthrough = match &access {
            Access::Passthrough(id) => {
                Counters::count(&self.counters.passthrough_opens);
                Some(Arc::clone(id))
            }
            Access::Cached { .. } => None,
        };
        let number = self.handles.add_file(FileHandle {
            inode: Arc::clone(inode),
            nodeid,
            flags,
            content: parking_lot::RwLock::new((data.version, Arc::new(data.content))),
            passthrough,
        });
        Ok(NewHandle { number, access })
    }

    fn inode_of(&self, file: FileId) -> Result<Arc<Inode>> {
        match file.handle {
            NO_HANDLE => self.inodes.get(file.ino),
            handle => Ok(Arc::clone(&self.handles.file(handle)?.inode)),
        }
    }

    /// Takes the set-id bits of a file away, before its data is changed by one who must not keep them. True if it had any.
    pub(crate) fn drop_setid_of(&self, file: FileId) -> Result<bool> {
        self.drop_setid(&self.inode_of(file)?)
    }

    /// The inode and the data that a request is about.
    fn data(&self, file: FileId, want: Want) -> Result<(Arc<Inode>, Arc<Content>)> {
        if file.handle != NO_HANDLE {
            let handle = self.handles.file(file.handle)?;
            let content = self.content(&handle)?;
            return Ok((Arc::clone(&handle.inode), content));
        }
        let inode = self.inodes.get(file.ino)?;
        if want == Want::Write {
            self.copy_up(&inode, Depth::Data(None))?;
        }
        let version = version(&inode);
        if let Some(opened) = self.opened.get(inode.ino)
            && opened.version == version
            && (opened.writable || want == Want::Read)
        {
            return Ok((inode, Arc::clone(&opened.content)));
        }
        let writable = want == Want::Write;
        let Data { version, content, .. } = self.open_data(&inode, self.open_flags(writable))?;
        let content = Arc::new(content);
        self.opened.put(inode.ino, Arc::new(Opened { version, writable, content: Arc::clone(&content) }));
        Ok((inode, content))
    }

    /// Keeps the data of a file of the upper open for the request that is expected next.
    pub(crate) fn keep_open(&self, inode: &Inode, file: OwnedFd) {
        if self.settings.noatime {
            at::set_noatime(file.as_fd());
        }
        let opened = Opened { version: version(inode), writable: true, content: Arc::new(Content::File(file)) };
        self.opened.put(inode.ino, Arc::new(opened));
    }

    /// The data behind a handle, opened again if a copy-up moved it. What the kernel reads by itself stays what it is.
    fn content(&self, handle: &FileHandle) -> Result<Arc<Content>> {
        let now = version(&handle.inode);
        {
            let content = handle.content.read();
            if content.0 == now || handle.passthrough.is_some() {
                return Ok(Arc::clone(&content.1));
            }
        }
        let Data { version, content, .. } = self.open_data(&handle.inode, handle.flags)?;
        let opened = Arc::new(content);
        *handle.content.write() = (version, Arc::clone(&opened));
        Ok(opened)
    }

    /// Whether the inode goes on without what a handle has open.
    fn is_left(&self, file: FileId) -> bool {
        self.handles
            .file(file.handle)
            .is_ok_and(|handle| handle.passthrough.is_some() && handle.content.read().0 != version(&handle.inode))
    }

    /// Reads up to `size` bytes and passes them on.
    pub(crate) fn read<T>(&self, file: FileId, offset: u64, size: usize, done: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let (_, content) = self.data(file, Want::Read)?;
        match &*content {
            Content::Bytes(bytes) => {
                let bytes = (**bytes).as_ref();
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let end = start.saturating_add(size).min(bytes.len());
                Ok(done(&bytes[start..end]))
            }
            Content::Sparse(file) => with_buffer(size, |buffer| {
                let filled = file.read(buffer, offset)?;
                Ok(done(&buffer[..filled]))
            }),
            Content::File(file) => with_buffer(size, |buffer| {
                let mut filled = 0;
                while filled < buffer.len() {
                    match rustix::io::pread(file, &mut buffer[filled..], offset.saturating_add(filled as u64)) {
                        Ok(0) => break,
                        Ok(got) => filled += got,
                        Err(Errno::INTR) => {}
                        Err(errno) => {
                            return Err(Error::call("pread", OsStr::new("<handle>"), errno));
                        }
                    }
                }
                Ok(done(&buffer[..filled]))
            }),
        }
    }

    /// Writes all of `data`.
    pub(crate) fn write(&self, file: FileId, offset: u64, data: &[u8], times: WriteTimes) -> Result<u32> {
        let content = match self.data(file, Want::Write) {
            Ok((_, content)) => content,
            // Pages that the kernel kept are written as a whole, which is no appending.
            Err(error) if error.errno() == Errno::PERM && times == WriteTimes::Now => self.append_only(file, offset)?,
            Err(error) => return Err(error),
        };
        let file = as_file(&content)?;
        let before = match times {
            WriteTimes::Kept => Some(at::fstat(file.as_fd())?),
            WriteTimes::Now => None,
        };
        let mut done = 0;
        while done < data.len() {
            match rustix::io::pwrite(file, &data[done..], offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(wrote) => done += wrote,
                Err(Errno::INTR) => {}
                Err(errno) if done == 0 => {
                    return Err(Error::call("pwrite", OsStr::new("<handle>"), errno));
                }
                Err(_) => break,
            }
        }
        if let Some(before) = before {
            at::futimens(file.as_fd(), &modified_at(&before))?;
        }
        Ok(u32::try_from(done).unwrap_or(u32::MAX))
    }

    /// The data of a file that may only be appended to, for a write at its end.
    fn append_only(&self, file: FileId, offset: u64) -> Result<Arc<Content>> {
        let content = self.open_data(&self.inode_of(file)?, self.open_flags(true) | OFlags::APPEND)?.content;
        let end = at::fstat(as_file(&content)?.as_fd())?.st_size;
        if u64::try_from(end) == Ok(offset) { Ok(Arc::new(content)) } else { Err(Refusal::AppendOnly.into()) }
    }

    /// Sets a file's length, with or without a handle.
    pub(crate) fn truncate(&self, inode: &Arc<Inode>, size: u64) -> Result<()> {
        if self.copy_up(inode, Depth::Data(Some(size)))? {
            return Ok(());
        }
        let content = self.open_data(inode, OFlags::RDWR)?.content;
        at::truncate(as_file(&content)?.as_fd(), size)
    }

    /// Makes what was written durable. A file of a lower layer is so already.
    pub(crate) fn fsync(&self, file: FileId, data_only: bool) -> Result<()> {
        if !self.settings.fsync {
            return Ok(());
        }
        let inode = self.inode_of(file)?;
        if !inode.in_upper() {
            return Ok(());
        }
        if inode.is_pure_upper() && !self.is_left(file) {
            let (_, content) = self.data(file, Want::Read)?;
            return at::fsync(as_file(&content)?.as_fd(), data_only);
        }
        // A metacopy, the attributes of which are in the upper; or a handle of what was below before.
        self.with_upper(&inode, |backing| match backing.open(OFlags::RDONLY)? {
            Content::File(file) => at::fsync(file.as_fd(), data_only),
            Content::Bytes(_) | Content::Sparse(_) => Ok(()),
        })
    }

    /// Makes a directory's entries durable.
    pub(crate) fn fsync_dir(&self, inode: &Arc<Inode>) -> Result<()> {
        if !self.settings.fsync || !inode.in_upper() {
            return Ok(());
        }
        let dir = self.upper_dir(inode)?;
        let real = at::open(dir.as_fd(), OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY)?;
        at::fsync(real.as_fd(), false)
    }

    pub(crate) fn fallocate(&self, file: FileId, mode: i32, offset: u64, len: u64) -> Result<()> {
        let (_, content) = self.data(file, Want::Write)?;
        ioctl::fallocate(as_file(&content)?.as_fd(), mode, offset, len)
    }

    /// `SEEK_DATA` and `SEEK_HOLE`; the kernel does the other kinds itself.
    pub(crate) fn lseek(&self, file: FileId, offset: i64, whence: i32) -> Result<i64> {
        let (_, content) = self.data(file, Want::Read)?;
        let at = u64::try_from(offset).map_err(|_| Error::call("lseek", OsStr::new("<handle>"), Errno::NXIO))?;
        let position = match (&*content, whence) {
            (Content::File(file), libc::SEEK_DATA) => rustix::fs::seek(file, SeekFrom::Data(at)),
            (Content::File(file), libc::SEEK_HOLE) => rustix::fs::seek(file, SeekFrom::Hole(at)),
            (Content::Bytes(bytes), libc::SEEK_DATA | libc::SEEK_HOLE) => {
                let len = (**bytes).as_ref().len() as u64;
                if at >= len { Err(Errno::NXIO) } else { Ok(if whence == libc::SEEK_DATA { at } else { len }) }
            }
            (Content::Sparse(file), libc::SEEK_DATA) => file.data_from(at).ok_or(Errno::NXIO),
            (Content::Sparse(file), libc::SEEK_HOLE) => file.hole_from(at).ok_or(Errno::NXIO),
            _ => return Err(Refusal::Invalid.into()),
        };
        position
            .map(|position| i64::try_from(position).unwrap_or(i64::MAX))
            .map_err(|errno| Error::call("lseek", OsStr::new("<handle>"), errno))
    }

    pub(crate) fn copy_file_range(&self, from: FileId, from_at: u64, to: FileId, to_at: u64, len: u64) -> Result<u32> {
        // The target first: to copy it up may move the data of the source, where both are one file.
        let (_, to) = self.data(to, Want::Write)?;
        let (_, from) = self.data(from, Want::Read)?;
        let (mut from_at, mut to_at) = (from_at, to_at);
        let len = usize::try_from(len.min(i32::MAX as u64)).unwrap_or(usize::MAX);
        match (&*from, &*to) {
            (Content::File(from), Content::File(to)) => {
                rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), len)
                    .map(|done| u32::try_from(done).unwrap_or(u32::MAX))
                    .map_err(|errno| Error::call("copy_file_range", OsStr::new("<handle>"), errno))
            }
            (Content::Bytes(bytes), Content::File(to)) => {
                let bytes = (**bytes).as_ref();
                let start = usize::try_from(from_at).unwrap_or(usize::MAX).min(bytes.len());
                let end = start.saturating_add(len).min(bytes.len());
                copy::write_all(to.as_fd(), &bytes[start..end], to_at)?;
                Ok(u32::try_from(end - start).unwrap_or(u32::MAX))
            }
            (Content::Sparse(from), Content::File(to)) => with_buffer(len.min(COPY_STEP), |buffer| {
                let filled = from.read(buffer, from_at)?;
                copy::write_all(to.as_fd(), &buffer[..filled], to_at)?;
                Ok(u32::try_from(filled).unwrap_or(u32::MAX))
            }),
            (_, Content::Bytes(_) | Content::Sparse(_)) => Err(not_a_file()),
        }
    }

    /// `FS_IOC_GETFLAGS`, `FS_IOC_SETFLAGS`, `FS_IOC_GETVERSION`, and the `fsxattr` pair.
    pub(crate) fn ioctl(&self, inode: &Arc<Inode>, command: u32, data: &[u8]) -> Result<Vec<u8>> {
        const GETFLAGS: u32 = libc::FS_IOC_GETFLAGS as u32;
        const SETFLAGS: u32 = libc::FS_IOC_SETFLAGS as u32;
        const GETVERSION: u32 = libc::FS_IOC_GETVERSION as u32;
        const GETFLAGS_32: u32 = libc::FS_IOC32_GETFLAGS as u32;
        const SETFLAGS_32: u32 = libc::FS_IOC32_SETFLAGS as u32;
        const GETVERSION_32: u32 = libc::FS_IOC32_GETVERSION as u32;
        match command {
            GETFLAGS | GETFLAGS_32 => {
                let flags = self.with_open(inode, ioctl::get_flags)?;
                Ok(flags.to_ne_bytes().to_vec())
            }
            GETVERSION | GETVERSION_32 => {
                let number = self.with_open(inode, ioctl::get_version)?;
                Ok(number.to_ne_bytes().to_vec())
            }
            SETFLAGS | SETFLAGS_32 => {
                let bytes: [u8; 4] = data.get(..4).and_then(|bytes| bytes.try_into().ok()).ok_or(Refusal::Invalid)?;
                let flags = u32::from_ne_bytes(bytes);
                self.check_writable()?;
                if self.with_open(inode, ioctl::get_flags).is_ok_and(|now| now == flags) {
                    return Ok(Vec::new());
                }
                self.copy_up_for_flags(inode)?;
                // A descriptor from before writes what may not be written any more.
                self.opened.remove(inode.ino);
                self.with_open(inode, |fd| ioctl::set_flags(fd, flags)).map(|()| Vec::new())
            }
            // The kernel asks this before it sets flags.
            ioctl::FSGETXATTR => self.with_open(inode, ioctl::get_fsxattr).map(|value| value.to_vec()),
            ioctl::FSSETXATTR => {
                let value = data.get(..28).and_then(|bytes| bytes.try_into().ok()).ok_or(Refusal::Invalid)?;
                self.check_writable()?;
                self.copy_up_for_flags(inode)?;
                self.opened.remove(inode.ino);
                self.with_open(inode, |fd| ioctl::set_fsxattr(fd, &value)).map(|()| Vec::new())
            }
            _ => Err(Refusal::NotTty.into()),
        }
    }

    fn copy_up_for_flags(&self, inode: &Arc<Inode>) -> Result<()> {
        self.copy_up(inode, if inode.is_dir() { Depth::Attributes } else { Depth::Data(None) }).map(drop)
    }

    /// Calls `act` with a descriptor of the object's data or directory.
    fn with_open<T>(&self, inode: &Arc<Inode>, act: impl FnOnce(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
        let content = if inode.is_dir() {
            self.with_backing(inode, |backing| backing.open(OFlags::RDONLY | OFlags::DIRECTORY))?
        } else {
            self.open_data(inode, OFlags::RDONLY)?.content
        };
        match &content {
            Content::File(file) => act(file.as_fd()),
            Content::Bytes(_) | Content::Sparse(_) => Err(Refusal::NotTty.into()),
        }
    }

    /// Closes a file. True when the kernel's view of its attributes may be old:
    /// pages written through a mapping changed times without its notice.
    pub(crate) fn release_file(&self, handle: u64) -> Option<u64> {
        let handle = self.handles.remove_file(handle)?;
        let (ino, nodeid) = (handle.inode.ino, handle.nodeid);
        let stale = handle.passthrough.is_some() && is_writable(handle.flags);
        match Arc::into_inner(handle) {
            Some(FileHandle { inode, .. }) => self.release_inode(inode),
            None => tracing::debug!(ino, "released while in use"),
        }
        stale.then_some(nodeid)
    }
}

/// Lends this thread's read buffer, grown to `size`.
fn with_buffer<T>(size: usize, act: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        act(&mut buffer[..size])
    })
}
