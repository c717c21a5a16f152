//! The few unsafe calls of these tests.

#![allow(unsafe_code, reason = "mappings and unshare have no safe form")]

use std::{os::fd::AsFd, ptr};

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// A mapping of a file from its start, accessed by byte through volatile reads and writes.
pub struct Mapping {
    at: *mut u8,
    len: usize,
}

impl Mapping {
    /// Shared, readable, and writable if `write`.
    pub fn shared(file: impl AsFd, len: usize, write: bool) -> Self {
        Self::new(file, len, write, MapFlags::SHARED)
    }

    /// Private and writable.
    pub fn private(file: impl AsFd, len: usize) -> Self {
        Self::new(file, len, true, MapFlags::PRIVATE)
    }

    fn new(file: impl AsFd, len: usize, write: bool, flags: MapFlags) -> Self {
        let prot = if write { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address of the kernel's choice overlaps no other.
        let at = unsafe { mmap(ptr::null_mut(), len, prot, flags, file, 0) }.expect("mmap");
        Self { at: at.cast(), len }
    }

    pub fn get(&self, i: usize) -> u8 {
        assert!(i < self.len);
        // SAFETY: in bounds of the mapping, which lives as long as self; the file is not truncated by the tests.
        unsafe { self.at.add(i).read_volatile() }
    }

    pub fn set(&mut self, i: usize, byte: u8) {
        assert!(i < self.len);
        // SAFETY: as in get; the constructors that lead here made it writable, else the test dies of SIGSEGV.
        unsafe { self.at.add(i).write_volatile(byte) }
    }

    /// A copy of `len` bytes from `from`.
    pub fn bytes(&self, from: usize, len: usize) -> Vec<u8> {
        (from..from + len).map(|i| self.get(i)).collect()
    }

    pub fn sync(&self) {
        // SAFETY: the range is the mapping itself.
        unsafe { msync(self.at.cast(), self.len, MsyncFlags::SYNC) }.expect("msync");
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing borrows the mapping after self.
        let _ = unsafe { munmap(self.at.cast(), self.len) };
    }
}

/// Gives the calling thread a umask and a working directory of its own.
pub fn unshare_fs() {
    // SAFETY: only UnshareFlags::FILES endangers other threads.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.expect("unshare");
}
