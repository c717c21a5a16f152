//! What has no safe wrapper.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

/// Makes a child end when this process does, however that comes about.
#[allow(unsafe_code, reason = "a signal that a child asks for has to be asked for in the child")]
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed. It makes one
    // system call, and allocates nothing: the error is an errno, which is converted without allocation.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}
