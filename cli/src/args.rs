//! The command line, and which of the program's faces it is for.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use lamel_isolate::exe;

use crate::image::StoreArgs;
use crate::log::LogArgs;
use crate::mount::{face, helper, umount};
use crate::{bench, container, diff, doctor, explain, image, launch, mount, r#try as trial, volume};

/// Mounts container images and stacks of directories as one copy-on-write filesystem.
#[derive(Debug, Parser)]
#[command(name = "lamel", version, max_term_width = 100)]
struct Lamel {
    #[command(flatten)]
    log: LogArgs,
    /// For the commands, each of which has it too: so it may stand before the command, as podman takes it.
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Mount(mount::Args),
    Umount(umount::Args),
    #[command(flatten)]
    Image(image::Command),
    Explain(explain::Args),
    Diff(diff::Args),
    Doctor(doctor::Args),
    Bench(bench::Args),
    #[command(flatten)]
    Container(container::Command),
    Volume(volume::Args),
    /// The commands of containers, as docker groups them; and `prune`
    #[command(subcommand, name = "container")]
    Containers(container::Group),
    Try(trial::Args),
    /// Behave as fuse-overlayfs, as a program of that name does; see `lamel fuse-overlayfs --help`.
    #[command(name = "fuse-overlayfs", disable_help_flag = true)]
    FuseOverlayfs {
        /// What fuse-overlayfs takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// Commands that have to be quick, in a parser of their own: that of all commands takes longer to build than these take
/// to begin.
#[derive(Debug, Parser)]
#[command(name = "lamel")]
struct Quick {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: QuickCommand,
}

#[derive(Debug, Subcommand)]
enum QuickCommand {
    Mount(mount::Args),
    #[command(flatten)]
    Container(container::QuickCommand),
}

impl From<Quick> for Lamel {
    fn from(Quick { log, store, command }: Quick) -> Self {
        let command = match command {
            QuickCommand::Mount(args) => Command::Mount(args),
            QuickCommand::Container(command) => Command::Container(command.into()),
        };
        Self { log, store, command }
    }
}

impl Lamel {
    /// Help, and what is wrong with a command line, is told by the parser that knows all commands.
    fn read(args: &[OsString]) -> Result<Self, clap::Error> {
        let is_quick = has_word(args, &["mount", "run", "start", "exec"]);
        match is_quick.then(|| Quick::try_parse_from(args)) {
            Some(Ok(quick)) => Ok(quick.into()),
            _ => Self::try_parse_from(args),
        }
    }
}

/// Whether a word is one that [`Command`] begins with.
fn is_command(word: &OsStr) -> bool {
    word == "help" || Lamel::command().get_subcommands().any(|command| word == command.get_name())
}

/// Runs the face that the program's name and first argument ask for.
pub(crate) fn run(mut args: Vec<OsString>) -> ExitCode {
    let name = args.first().map(|program| Path::new(program).file_name().unwrap_or_default().to_owned());
    let first = args.get(1).map(OsString::as_os_str);
    match name.as_deref().and_then(OsStr::to_str) {
        Some("fuse-overlayfs") => face::run(args.split_off(1)),
        Some("mount.fuse.lamel" | "mount.fuse3.lamel" | "mount.lamel") => helper::run(args.split_off(1)),
        _ if first == Some(OsStr::new("fuse-overlayfs")) => face::run(args.split_off(2)),
        _ if is_from_mount_fuse(&args) => helper::run(args.split_off(1)),
        _ => run_command(&args),
    }
}

/// Whether mount.fuse(8) calls, which is how mount(8) comes here without a
/// helper of ours in /sbin: `lamel SOURCE MOUNTPOINT -o OPTIONS`.
fn is_from_mount_fuse(args: &[OsString]) -> bool {
    let [_, source, _, flag, _] = args else {
        return false;
    };
    flag == "-o" && !source.as_encoded_bytes().starts_with(b"-") && !is_command(source)
}

fn has_word(args: &[OsString], words: &[&str]) -> bool {
    args.iter().any(|arg| words.iter().any(|word| arg == word))
}

fn run_command(args: &[OsString]) -> ExitCode {
    if has_word(args, &["run", "start", "exec"]) {
        // These begin anew as a protected program: better before the arguments are read than after. They tell if they cannot.
        exe::protect().ok();
    }
    let lamel = match Lamel::read(args) {
        Ok(lamel) => lamel,
        Err(error) => {
            // Help and version come this way too, and go to standard output.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let done = match lamel.command {
        Command::Mount(args) => mount::run(args, &lamel.log),
        Command::Umount(args) => lamel.log.init().and_then(|()| umount::run(&args)),
        Command::Image(command) => lamel.log.init().and_then(|()| image::run(command)),
        Command::Explain(args) => lamel.log.init().and_then(|()| explain::run(&args)),
        Command::Diff(args) => lamel.log.init().and_then(|()| diff::run(&args)),
        Command::Doctor(args) => lamel.log.init().and_then(|()| doctor::run(&args)),
        Command::Bench(args) => lamel.log.init().and_then(|()| bench::run(&args)),
        Command::Container(command) => return container::run(command, &lamel.log),
        Command::Volume(args) => lamel.log.init().and_then(|()| volume::run(&args)),
        Command::Containers(group) => return container::run_group(group, &lamel.log),
        Command::Try(args) => return trial::run(&args, &lamel.log),
        Command::FuseOverlayfs { args } => return face::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            launch::complain("lamel", &error);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Lamel::command().debug_assert();
        Quick::command().debug_assert();
    }

    #[test]
    fn a_quick_command_is_read_as_any_other() {
        for text in [
            "lamel mount debian /mnt",
            "lamel --log-level debug run --rm -it --name a debian sh -c exec",
            "lamel exec -u 0 a ls",
            "lamel start -a a",
            "lamel pull run",
            "lamel run",
            "lamel run --help",
            "lamel ps",
        ] {
            let args = words(text);
            match (Lamel::read(&args), Lamel::try_parse_from(&args)) {
                (Ok(quick), Ok(slow)) => assert_eq!(format!("{quick:?}"), format!("{slow:?}"), "{text}"),
                (Err(quick), Err(slow)) => assert_eq!(quick.to_string(), slow.to_string(), "{text}"),
                (quick, slow) => panic!("{text}: {quick:?}, {slow:?}"),
            }
        }
    }

    #[test]
    fn mount_fuse_is_told_from_a_user() {
        assert!(is_from_mount_fuse(&words("lamel overlay /mnt -o lowerdir=/a")));
        assert!(!is_from_mount_fuse(&words("lamel mount /mnt -o lowerdir=/a")));
        assert!(!is_from_mount_fuse(&words("lamel mount -o lowerdir=/a /mnt")));
        assert!(!is_from_mount_fuse(&words("lamel diff")));
    }
}
