//! Removing a container's directory.
//!
//! A plain user's container may have left files of other ids of his, in directories that are theirs. Only in a user
//! namespace with these ids can he remove them: a process of its own goes there, as `lamel remove-tree`, for this one
//! may have threads.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use lamel_isolate::idmap::give;
use lamel_isolate::oci::{LinuxIdMapping, Spec};

use crate::run::identity::IdentityArgs;

/// Remove a directory as root of a user namespace; what `lamel rm` uses, not for people
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    dir: PathBuf,
}

/// The ids of a container's files, which are those of its user namespace.
pub(crate) struct Ids {
    uids: Vec<LinuxIdMapping>,
    gids: Vec<LinuxIdMapping>,
}

impl Ids {
    /// Those that this user's containers have; none for root.
    pub(crate) fn of_user() -> Result<Option<Self>> {
        Ok(IdentityArgs::default().maps()?.map(|maps| Self { uids: maps.uids, gids: maps.gids }))
    }

    /// None for root, who needs none, and for a container without a user namespace.
    pub(super) fn of(spec: &Spec) -> Option<Self> {
        let linux = spec.linux().as_ref()?;
        let (uids, gids) = (linux.uid_mappings().clone()?, linux.gid_mappings().clone()?);
        (!rustix::process::geteuid().is_root()).then_some(Self { uids, gids })
    }
}

/// Removes a directory, also where a container left directories in it that its owner may not change.
pub(crate) fn remove_tree(dir: &Path, ids: Option<&Ids>) -> Result<()> {
    match (remove(dir), ids) {
        (Err(error), Some(ids)) if error.kind() == ErrorKind::PermissionDenied => remove_as(dir, ids),
        (removed, _) => Ok(removed?),
    }
}

/// The same of what is this user's alone.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    match lamel_image::store::remove_tree(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn remove_as(dir: &Path, ids: &Ids) -> Result<()> {
    let mut helper = Command::new("/proc/self/exe");
    helper.arg("remove-tree").arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = helper.spawn().context("lamel remove-tree")?;
    let mut ready = [0];
    let mut begun = Ok(());
    // Without ids it hears the end of its input, and ends.
    if let (Some(mut out), Some(mut into)) = (child.stdout.take(), child.stdin.take())
        && out.read_exact(&mut ready).is_ok()
    {
        let given = give(i32::try_from(child.id())?, &ids.uids, &ids.gids);
        begun = given.map_err(anyhow::Error::from).and_then(|()| into.write_all(&ready).context("lamel remove-tree"));
    }
    let out = child.wait_with_output().context("lamel remove-tree")?;
    begun?;
    if !out.status.success() {
        bail!("{}", String::from_utf8_lossy(&out.stderr).trim_end());
    }
    Ok(())
}

/// The helper's side.
pub(super) fn run(args: &Args) -> Result<()> {
    use nix::sched::{CloneFlags, unshare};
    unshare(CloneFlags::CLONE_NEWUSER).context("a user namespace")?;
    let mut out = io::stdout();
    out.write_all(b"r").and_then(|()| out.flush()).context("the command that removes")?;
    io::stdin().read_exact(&mut [0]).context("the command that removes")?;
    remove(&args.dir).with_context(|| format!("removing {}", args.dir.display()))
}
