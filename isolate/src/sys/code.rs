//! The program's own code in memory.

use std::ffi::{c_int, c_void};
use std::ptr;

use libc::{PF_W, PF_X, PT_LOAD, dl_phdr_info};

/// Gives back the pages of the program's code. Those that are still used come again, from the page cache.
pub(crate) fn give_back() {
    // SAFETY: the callback has the type that is asked for, does not unwind, and keeps nothing of what it is shown.
    unsafe { libc::dl_iterate_phdr(Some(give_back_first), ptr::null_mut()) };
}

/// The first object is the program itself; the others are left alone.
unsafe extern "C" fn give_back_first(info: *mut dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: it is the caller's, and there for the time of the call.
    let info = unsafe { &*info };
    // SAFETY: so is the table, which has so many entries.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let page = rustix::param::page_size();
    let code = headers.iter().filter(|header| header.p_type == PT_LOAD && header.p_flags & (PF_X | PF_W) == PF_X);
    for header in code {
        let (Ok(base), Ok(at), Ok(len)) =
            (usize::try_from(info.dlpi_addr), usize::try_from(header.p_vaddr), usize::try_from(header.p_memsz))
        else {
            continue;
        };
        // Pages at the ends may be shared with other segments of the file.
        let start = base.wrapping_add(at).next_multiple_of(page);
        let end = base.wrapping_add(at).wrapping_add(len) / page * page;
        // SAFETY: these pages are mapped from the program's file, which nobody can write while it runs, and are never
        // written themselves: they read the same when they come back.
        unsafe { libc::madvise(ptr::without_provenance_mut(start), end.saturating_sub(start), libc::MADV_DONTNEED) };
    }
    1
}
