//! The command `lamel`: mounts images and stacks of directories as one filesystem, and runs containers.

mod args;
mod bench;
mod container;
mod diff;
mod doctor;
mod explain;
mod image;
mod launch;
mod log;
mod mount;
mod network;
mod output;
mod run;
mod r#try;
mod volume;
fn main() -> std::process::ExitCode {
    args::run(std::env::args_os().collect())
}
