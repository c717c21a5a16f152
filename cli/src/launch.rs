//! From options to a serving process, in the foreground or behind the caller's back.

use std::any::Any;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use lamel_unionfs::Options;
use lamel_unionfs::layer::Layer;
use lamel_unionfs::mount::{self, Mounted, Side};

use crate::log::LogArgs;

/// What a mount needs beside directories, from the process that serves it.
#[derive(Default)]
pub(crate) struct Below {
    /// Layers below the directories of the options.
    pub(crate) layers: Vec<Arc<dyn Layer>>,
    /// What must not go before the mount.
    pub(crate) held: Vec<Box<dyn Any>>,
}

/// Mounts and serves. In the background this returns as soon as the mount works,
/// and the daemon never returns; in the foreground when the mount is gone.
pub(crate) fn launch(options: Options, foreground: bool, log: &LogArgs) -> Result<()> {
    launch_over(options, |_| Ok(Below::default()), foreground, log)
}

/// The same over what `open` opens, in the process that serves.
pub(crate) fn launch_over(
    mut options: Options,
    open: impl FnOnce(&mut Options) -> Result<Below>,
    foreground: bool,
    log: &LogArgs,
) -> Result<()> {
    let cwd = std::env::current_dir().context("the current directory")?;
    options.resolve(&cwd);
    log.init()?;
    let mount = move || -> Result<(Mounted, Vec<Box<dyn Any>>)> {
        let below = open(&mut options)?;
        Ok((mount::mount_over(&options, &below.layers)?, below.held))
    };
    if foreground {
        let (mounted, _held) = mount()?;
        renounce_privileges();
        return Ok(mounted.serve()?);
    }
    // The fork comes before the first thread; the daemon mounts by itself, so
    // that the mount is its own in every respect.
    match mount::daemonize().context("going to the background")? {
        Side::Caller(waiting) => match waiting.wait() {
            Ok(()) => Ok(()),
            Err(text) if text.is_empty() => bail!("the daemon ended before it had mounted"),
            Err(text) => bail!(text),
        },
        Side::Daemon(starting) => {
            let (mounted, held) = match mount() {
                Ok(mounted) => mounted,
                Err(error) => {
                    starting.failed(&told(&error));
                    std::process::exit(1);
                }
            };
            renounce_privileges();
            if starting.ready().is_err() {
                // The caller was killed meanwhile: nobody knows of this mount.
                drop(mounted);
                drop(held);
                std::process::exit(1);
            }
            let code = match mounted.serve() {
                Ok(()) => 0,
                Err(error) => {
                    tracing::error!("{error}");
                    1
                }
            };
            drop(held);
            std::process::exit(code)
        }
    }
}

/// Whatever takes hold of the daemon starts no set-user-id program. A plain user's must: the helper unmounts for it.
fn renounce_privileges() {
    if rustix::process::geteuid().is_root()
        && let Err(errno) = rustix::thread::set_no_new_privs(true)
    {
        tracing::warn!("no_new_privs: {errno}");
    }
}

/// Writes an error with its causes to standard error; nothing can be done if that fails too.
pub(crate) fn complain(program: &str, error: &anyhow::Error) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{program}: {}", told(error)).ok();
}

/// Tells something that is no error.
pub(crate) fn warn(text: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "lamel: {text}").ok();
}

/// An error with those of its causes that it does not name itself.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::from_raw_os_error(2);
        let named = anyhow::anyhow!("a: {cause}");
        assert_eq!(told(&named.context("outer")), format!("outer: a: {cause}"));
        let layer = lamel_unionfs::error::OpenError::Open {
            role: lamel_unionfs::error::LayerRole::Upper,
            path: "/u".into(),
            source: rustix::io::Errno::NOENT,
        };
        assert_eq!(told(&layer.into()), format!("upper layer /u: {cause}"));
    }
}
