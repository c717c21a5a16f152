//! Giving memory back to the system.

/// Returns what the allocator holds and nobody uses.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer and changes nothing that the program can see.
    unsafe {
        libc::malloc_trim(0);
    }
}
