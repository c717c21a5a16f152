//! The running program, kept from being overwritten out of a container.
//!
//! `/proc/PID/exe` leads a container to the program that started it: for a
//! moment as an interpreter (`#!/proc/self/exe`), or for as long as lamel is
//! the container's init. Whoever gets hold of it there could wait until nobody
//! runs it, and write (CVE-2019-5736). So lamel runs from a copy that cannot be
//! written: a read-only clone of its mount, or a sealed copy in memory.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::error::Error;
use crate::rootfs;
use crate::sys::exec::{self, Vector};
use crate::sys::mount::{Attributes, set_attributes};

/// Set for the program that was started again; a second time would be one too many.
const VARIABLE: &str = "LAMEL_PROTECTED";
const SELF: &str = "/proc/self/exe";
const SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Makes sure that the program's file cannot be written through `/proc/PID/exe`; to be called before anything
/// is opened or started, for the program may begin anew with the same arguments.
///
/// # Errors
/// Neither a clone nor a copy can be made.
pub fn protect() -> Result<(), Error> {
    let program =
        rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(Error::call("open", SELF))?;
    if is_protected(&program) {
        return Ok(());
    }
    if std::env::var_os(VARIABLE).is_some() {
        return Err(Error::Unavailable {
            what: "a program file that containers cannot write".to_owned(),
            why: format!("started again, it is as before; unset {VARIABLE} if you have set it"),
        });
    }
    let copy = match read_only_clone() {
        Ok(clone) => clone,
        Err(_) => sealed_copy(&program).map_err(Error::call("memfd_create", SELF))?,
    };
    let arguments = vector(std::env::args_os())?;
    let environment = std::env::vars_os().map(|(mut pair, value)| {
        pair.push("=");
        pair.push(value);
        pair
    });
    let environment = vector(environment.chain([OsString::from(format!("{VARIABLE}=1"))]))?;
    Err(Error::call("execveat", SELF)(exec::fexecve(copy.as_fd(), &arguments, &environment)))
}

/// Gives back the memory of the program's code that only its start needed, for a process that is going to wait long.
pub fn give_back() {
    crate::sys::code::give_back();
}

fn vector(words: impl Iterator<Item = OsString>) -> Result<Vector, Error> {
    let words: Result<Vec<CString>, _> = words.map(|word| CString::new(word.into_vec())).collect();
    Ok(Vector::new(words.map_err(|_| Error::invalid("arguments", "a NUL"))?))
}

fn is_protected(program: &OwnedFd) -> bool {
    let read_only = rustix::fs::fstatvfs(program).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    let sealed = rustix::fs::fcntl_get_seals(program).is_ok_and(|seals| seals.contains(SEALS));
    read_only || sealed || is_foreign(program)
}

/// A program that belongs to another user and is not for others to write is safe from a plain user's containers:
/// all that they do, they do as ids of his. Those of his subordinate ids own no program.
fn is_foreign(program: &OwnedFd) -> bool {
    let me = rustix::process::geteuid();
    let Ok(meta) = program.try_clone().map(File::from).and_then(|file| file.metadata()) else { return false };
    !me.is_root() && meta.uid() == 0 && meta.mode() & 0o022 == 0
}

/// Cheap, and for who may mount: the same file through a mount of its own that is read-only.
fn read_only_clone() -> Result<OwnedFd, Errno> {
    let path = std::fs::read_link(SELF).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let place = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let running = rustix::fs::stat(SELF)?;
    let found = rustix::fs::fstat(&place)?;
    if (running.st_dev, running.st_ino) != (found.st_dev, found.st_ino) {
        // It was replaced by a newer one since.
        return Err(Errno::STALE);
    }
    let clone = rootfs::clone_tree(place.as_fd(), false)?;
    let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    set_attributes(clone.as_fd(), attributes, None, false)?;
    Ok(clone)
}

fn sealed_copy(program: &OwnedFd) -> Result<OwnedFd, Errno> {
    let copy = rustix::fs::memfd_create(c"lamel", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut left = usize::try_from(rustix::fs::fstat(program)?.st_size).map_err(|_| Errno::FBIG)?;
    let mut at = 0;
    while left > 0 {
        match rustix::fs::sendfile(&copy, program, Some(&mut at), left)? {
            0 => return Err(Errno::IO),
            len => left = left.saturating_sub(len),
        }
    }
    rustix::fs::fcntl_add_seals(&copy, SEALS)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_program_goes_on_without_its_code_in_memory() {
        let resident = || {
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut code = maps.lines().skip_while(|line| !line.contains(" r-xp "));
            let line = code.find(|line| line.starts_with("Rss:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = resident();
        give_back();
        let after = resident();
        assert!(after < before, "{before} kB before, {after} kB after");
    }

    #[test]
    fn a_sealed_copy_is_the_program_and_takes_no_write() {
        let program = rustix::fs::open(SELF, OFlags::RDONLY, Mode::empty()).unwrap();
        let mut copy = File::from(sealed_copy(&program).unwrap());
        assert!(is_protected(&copy.try_clone().unwrap().into()));
        assert_eq!(copy.metadata().unwrap().len(), std::fs::metadata(SELF).unwrap().len());
        assert!(copy.write_all(b"x").is_err());
        let mut start = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&copy, &mut start, 0).unwrap();
        assert_eq!(&start, b"\x7fELF");
        drop(copy.read(&mut start));
    }
}
