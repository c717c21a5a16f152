//! Work that is done as the root of a plain user's containers: in a user namespace with their ids, by another process.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, anyhow};
use lamel_isolate::idmap;
use lamel_unionfs::mount::{Side, daemonize};
use rustix::mount::MountPropagationFlags;
use rustix::process::Signal;

use crate::launch::told;
use crate::run::identity::Maps;

/// Says that the maps are there.
const GIVEN: u8 = b'+';

/// The user namespace that something is done in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ids<'a> {
    /// This process's own.
    Own,
    /// A new one with these ids.
    Mapped(&'a Maps),
    /// That of a process.
    Of(i32),
}

/// Works in a process of its own, which ends with this one, and with mounts that nobody else sees, if `mounts` says so. It
/// has this process's standard streams, and works in `/`.
pub(crate) fn aside(ids: Ids<'_>, mounts: bool, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (ours, theirs) = UnixStream::pair().context("socketpair")?;
    match daemonize().context("another process")? {
        Side::Caller(waiting) => {
            drop(theirs);
            if let Ids::Mapped(maps) = ids {
                give(ours, maps)?;
            }
            waiting.wait().map_err(|text| match text.as_str() {
                "" => anyhow!("the process that works in the container's namespace ended before it was done"),
                text => anyhow!("{text}"),
            })
        }
        Side::Daemon(starting) => {
            drop(ours);
            let parted = rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(anyhow::Error::from)
                .and_then(|()| part(ids, theirs, mounts));
            match parted.and_then(|()| work()) {
                Ok(()) => {
                    // Who is not there any more need not know.
                    starting.ready().ok();
                    std::process::exit(0)
                }
                Err(error) => {
                    starting.failed(&told(&error));
                    std::process::exit(1)
                }
            }
        }
    }
}

/// The maps of a user namespace are given from outside of it. If the other process fails before it asks, it says why.
fn give(mut line: UnixStream, maps: &Maps) -> Result<()> {
    let mut pid = [0; 4];
    if line.read_exact(&mut pid).is_err() {
        return Ok(());
    }
    idmap::give(i32::from_le_bytes(pid), &maps.uids, &maps.gids)?;
    line.write_all(&[GIVEN]).context("the process in the user namespace")
}

fn part(ids: Ids<'_>, mut line: UnixStream, mounts: bool) -> Result<()> {
    use nix::sched::{CloneFlags, setns, unshare};
    let own_mounts = if mounts { CloneFlags::CLONE_NEWNS } else { CloneFlags::empty() };
    match ids {
        Ids::Own => {}
        Ids::Mapped(_) => {
            unshare(CloneFlags::CLONE_NEWUSER | own_mounts)
                .context("a user namespace (sysctl user.max_user_namespaces, or the host's policy)")?;
            line.write_all(&std::process::id().to_le_bytes()).context("the calling process")?;
            let mut answer = [0];
            line.read_exact(&mut answer).context("the calling process gave no ids")?;
        }
        Ids::Of(pid) => {
            let path = format!("/proc/{pid}/ns/user");
            let namespace = File::open(&path).with_context(|| path.clone())?;
            setns(namespace, CloneFlags::CLONE_NEWUSER).with_context(|| format!("joining {path}"))?;
        }
    }
    if !mounts {
        return Ok(());
    }
    if !matches!(ids, Ids::Mapped(_)) {
        unshare(own_mounts).context("a mount namespace")?;
    }
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("parting the mounts from the host's")
}
