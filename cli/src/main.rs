//! The command `lamel`: mounts images and stacks of directories as one filesystem.

mod args;
mod bench;
mod diff;
mod explain;
mod face;
mod helper;
mod image;
mod launch;
mod log;
mod mount;
mod output;
mod umount;

use std::process::ExitCode;

fn main() -> ExitCode {
    args::run(std::env::args_os().collect())
}
