//! Work that is done as the root of a plain user's containers: in a user namespace with their ids, by another process.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use lamel_isolate::idmap;
use lamel_isolate::oci::LinuxIdMapping;
use lamel_unionfs::mount::{Side, daemonize};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::CWD;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, move_mount, open_tree};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::Signal;

use super::wire::{self, Buffer};
use crate::launch::told;
use crate::run::identity::Maps;

/// Says that the maps are there.
const GIVEN: &[u8] = b"+";

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
    let (ours, theirs) = line()?;
    match daemonize().context("another process")? {
        Side::Caller(waiting) => {
            drop(theirs);
            if let Ids::Mapped(maps) = ids {
                give(&ours, &maps.uids, &maps.gids)?;
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
                .and_then(|()| part(ids, &theirs, mounts));
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

fn part(ids: Ids<'_>, line: &OwnedFd, mounts: bool) -> Result<()> {
    match ids {
        Ids::Own => {}
        Ids::Mapped(_) => part_user(line)?,
        Ids::Of(pid) => {
            let path = format!("/proc/{pid}/ns/user");
            let namespace = File::open(&path).with_context(|| path.clone())?;
            setns(namespace, CloneFlags::CLONE_NEWUSER).with_context(|| format!("joining {path}"))?;
        }
    }
    if mounts { part_mounts(&[]) } else { Ok(()) }
}

/// Puts this process into a user namespace of its own, whose ids are given from outside, by who is at the other end of
/// the line.
pub(super) fn part_user(line: &OwnedFd) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER)
        .context("a user namespace (sysctl user.max_user_namespaces, or the host's policy)")?;
    wire::send(line, &std::process::id().to_le_bytes(), SendFlags::empty()).context("the starting command")?;
    match wire::receive(line, &mut Buffer::new(), RecvFlags::empty()).context("the starting command")? {
        GIVEN => Ok(()),
        _ => bail!("the starting command gave no ids"),
    }
}

/// The other half of [`part_user`]. If the other process fails before it asks, it says why elsewhere.
pub(super) fn give(line: &OwnedFd, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<()> {
    let mut buffer = Buffer::new();
    let asked = wire::receive(line, &mut buffer, RecvFlags::empty()).context("the process in the user namespace")?;
    let Ok(pid) = asked.try_into().map(i32::from_le_bytes) else { return Ok(()) };
    idmap::give(pid, uids, gids)?;
    wire::send(line, GIVEN, SendFlags::empty()).context("the process in the user namespace")
}

/// Gives this process mounts of its own: what the host mounts and unmounts is so in here too, and nothing of here is
/// outside, but for what comes to be below the `shared` places.
pub(super) fn part_mounts(shared: &[PathBuf]) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let mut peers = Vec::new();
    for place in shared {
        peers.push((place, open_tree(CWD, place, flags).with_context(|| place.display().to_string())?));
    }
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("parting the mounts from the host's")?;
    for (place, tree) in peers {
        move_mount(&tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .with_context(|| place.display().to_string())?;
    }
    Ok(())
}

/// Both ends of a line.
pub(super) fn line() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .context("socketpair")
}
