//! The command line, and which of the program's faces it is for.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args as _, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use lamel_isolate::exe;

use crate::image::{STORE_HEADING, StoreArgs};
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

impl Lamel {
    /// Help, and what is wrong with a command line, is told by the parser that knows all commands.
    fn read(args: &[OsString]) -> Result<Self, clap::Error> {
        if let [_, flag] = args
            && (flag == "--version" || flag == "-V")
        {
            clap::Command::new("lamel").version(env!("CARGO_PKG_VERSION")).try_get_matches_from(args)?;
        }
        Self::read_quickly(args)
            .map_or_else(|| Self::from_arg_matches_mut(&mut parser().try_get_matches_from(args)?), Ok)
    }

    /// Commands that have to be quick have parsers of their own: that of all commands takes longer to build than these
    /// take to begin.
    fn read_quickly(args: &[OsString]) -> Option<Self> {
        args.iter().find_map(|arg| match arg.to_str()? {
            "mount" => Some(Self::read_one("mount", args, Command::Mount)),
            "run" => Some(Self::read_one("run", args, |args| Command::Container(container::Command::Run(args)))),
            "start" => Some(Self::read_one("start", args, |args| Command::Container(container::Command::Start(args)))),
            "exec" => Some(Self::read_one("exec", args, |args| Command::Container(container::Command::Exec(args)))),
            _ => None,
        })?
    }

    /// Reads a command line of the command `name`, if it is one.
    fn read_one<A: clap::Args>(name: &'static str, args: &[OsString], command: fn(A) -> Command) -> Option<Self> {
        let options = StoreArgs::augment_args(LogArgs::augment_args(clap::Command::new("lamel")));
        let parser = options.subcommand(A::augment_args(clap::Command::new(name)));
        let mut found = parser.try_get_matches_from(args).ok()?;
        let (_, mut inner) = found.remove_subcommand()?;
        Some(Self {
            log: LogArgs::from_arg_matches_mut(&mut found).ok()?,
            store: StoreArgs::from_arg_matches_mut(&mut found).ok()?,
            command: command(A::from_arg_matches_mut(&mut inner).ok()?),
        })
    }
}

/// The parser of all commands. Those that have nothing to do with the store take its options, but do not show them.
fn parser() -> clap::Command {
    Lamel::command().mut_subcommands(|command| match has_store(&command) {
        true => command,
        false => StoreArgs::augment_args(command).mut_args(|arg| match arg.get_help_heading() {
            Some(STORE_HEADING) => arg.hide(true),
            _ => arg,
        }),
    })
}

/// Whether a command, or one below it, is about the store.
fn has_store(command: &clap::Command) -> bool {
    command.get_arguments().any(|arg| arg.get_help_heading() == Some(STORE_HEADING))
        || command.get_subcommands().any(has_store)
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

    fn slowly(args: &[OsString]) -> Result<Lamel, clap::Error> {
        Lamel::from_arg_matches(&parser().try_get_matches_from(args)?)
    }

    #[test]
    fn the_command_line_is_consistent() {
        parser().debug_assert();
    }

    #[test]
    fn a_quick_command_is_read_as_any_other() {
        for text in [
            "lamel mount debian /mnt",
            "lamel --root /a mount debian /mnt --log-json",
            "lamel mount --root /a --lower /b /mnt",
            "lamel --root mount mount /mnt",
            "lamel --log-level debug run --rm -it --name a debian sh -c exec",
            "lamel exec -u 0 a ls",
            "lamel start -a a",
            "lamel pull run",
            "lamel run",
            "lamel run --help",
            "lamel ps",
            "lamel --version",
            "lamel -V",
        ] {
            let args = words(text);
            match (Lamel::read(&args), slowly(&args)) {
                (Ok(quick), Ok(slow)) => assert_eq!(format!("{quick:?}"), format!("{slow:?}"), "{text}"),
                (Err(quick), Err(slow)) => assert_eq!(quick.to_string(), slow.to_string(), "{text}"),
                (quick, slow) => panic!("{text}: {quick:?}, {slow:?}"),
            }
        }
    }

    #[test]
    fn options_of_the_store_are_shown_where_they_mean_something() {
        let help = |name: &str| slowly(&words(&format!("lamel {name} --help"))).unwrap_err().to_string();
        for name in ["umount", "try"] {
            assert!(!help(name).contains("--root"), "{name}");
            assert!(!help(name).contains("--additional-store"), "{name}");
            assert!(help(name).contains("--log-level"), "{name}");
        }
        for name in ["mount", "pull", "ps", "volume", "volume ls", "container", "container ls", "doctor", "explain"] {
            assert!(help(name).contains("--root"), "{name}");
        }
        // As podman takes it, before and after any command.
        for text in ["lamel --root /a umount /mnt", "lamel umount --root /a /mnt", "lamel umount /mnt --root=/a"] {
            assert!(matches!(slowly(&words(text)).unwrap().command, Command::Umount(_)), "{text}");
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
