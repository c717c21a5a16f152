//! Namespaces of the benchmark's own: mounts that nobody else sees or holds, and with `--userns` no privileges outside.
//! What others unmount meanwhile is not kept here.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_change};

/// Enters them; returns whether mounting without a helper is possible now. Before the first thread is started.
pub(crate) fn enter(userns: bool) -> Result<bool> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if userns {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).context(
            "--userns: this host lets nobody make user namespaces (sysctl user.max_user_namespaces, and \
                      kernel.unprivileged_userns_clone or apparmor_restrict_unprivileged_userns where there are such)",
        )?;
        for (name, text) in
            [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
        {
            let path = format!("/proc/self/{name}");
            fs::write(&path, text).with_context(|| path.clone())?;
        }
    } else if uid == 0 {
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace of its own")?;
    } else {
        return Ok(false);
    }
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("parting the mounts from the host's")?;
    Ok(true)
}
