//! The init of a container that asks for one (`--init`): it starts the program,
//! hands signals on to it, and reaps what is left to it.
//!
//! It is the container's first process, which stays what it was cloned as: a
//! copy of lamel without its threads, which allocates nothing.

use std::ffi::CStr;

use crate::sys::process::{self, Cloned, CommandLine};

/// Signals that stop or continue, and those that tell of a fault of this process itself, are not handed on.
fn is_for_program(signal: i32) -> bool {
    ![
        libc::SIGCHLD,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGSYS,
    ]
    .contains(&signal)
}

/// What it is called in the container.
const NAME: &CStr = c"lamel-init";

/// Forks. Returns in the program's process; the init never returns, and ends as the program does.
pub(crate) fn fork(command_line: Option<CommandLine>, close: impl FnOnce()) -> Result<(), rustix::io::Errno> {
    process::block_signals()?;
    // Its memory holds what the host's side knows: it is nobody's to read.
    process::hide()?;
    rustix::thread::set_name(NAME)?;
    match process::fork_in_child()? {
        Cloned::Child => Ok(()),
        Cloned::Parent(program) => {
            // What the user told lamel is not for the container to read.
            if let Some(command_line) = command_line {
                command_line.replace(NAME.to_bytes());
            }
            // Changing ids has taken it away. A parent that died before that is told of to the program, which then ends.
            process::die_with_parent()?;
            close();
            serve(program.as_raw_nonzero().get())
        }
    }
}

fn serve(program: i32) -> ! {
    loop {
        let signal = process::next_signal().unwrap_or(libc::SIGCHLD);
        if is_for_program(signal) {
            // It may just have ended.
            process::kill(program, signal).ok();
        }
        while let Ok(Some((pid, status))) = process::reap() {
            if pid == program {
                process::exit(exit_code(status));
            }
        }
    }
}

/// As a shell tells it.
fn exit_code(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}
