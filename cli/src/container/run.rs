//! `lamel run`

use std::process::ExitCode;

use anyhow::{Result, bail};
use lamel_isolate::exe;

use super::attach::{Left, Stay, StayArgs};
use super::create::{self, ContainerArgs};
use super::monitor::{self, Wanted};
use super::terminal;
use crate::output::print;

/// Run a command in a new container, of an image or of a directory
///
/// The image is mounted as it lies in the store, and what the container writes goes to a layer of its own. The
/// container gets the namespaces, capabilities, system call filter and masks that Docker gives by default.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: the command's own; 128+N if signal N ended it; 125 if there was no container; 126 if the
command cannot be run; 127 if it is not there.

Examples:
  lamel run --rm -it debian bash
  lamel run --rootfs /srv/debian -it bash")]
pub(crate) struct Args {
    /// Leave it running, and print its id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    stay: StayArgs,
    #[command(flatten)]
    container: ContainerArgs,
}

/// Runs.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    exe::protect()?;
    let options = &args.container.options;
    let (input, foreground) = (options.interactive, !args.detach);
    if options.tty && input && foreground && !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        bail!("-t with -i needs a terminal for standard input, which is none");
    }
    let made = create::make(&args.container)?;
    let id = made.record.id().to_owned();
    let stay = if foreground { Some(Stay::new(&made.record, input, &args.stay)?) } else { None };
    let line = monitor::start(Wanted {
        containers: made.containers,
        record: made.record,
        hold: made.hold,
        spec: made.spec,
        image: made.image,
        attach: foreground,
        size: if foreground { terminal::size() } else { None },
    })?;
    match stay {
        None => {
            print([id.into_bytes()])?;
            Ok(ExitCode::SUCCESS)
        }
        Some(stay) => Ok(match stay.stay(&line)? {
            Left::Exited(code) => super::exit_code(code),
            Left::Detached => ExitCode::SUCCESS,
        }),
    }
}
