//! The image as the container's root: mounted and served by threads of the monitor, in its own mount namespace.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lamel_image::store::{Image, Store};
use lamel_image::view::View;
use lamel_isolate::oci::{LinuxIdMapping, Spec};
use lamel_unionfs::Options;
use lamel_unionfs::mount;
use lamel_unionfs::options::{IdRange, XattrPermissions};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::super::places;
use super::super::record::Record;
use crate::run::identity::is_in_user_namespace;

/// Where an upper keeps owners that this user may not give (containers/storage).
const OVERRIDE_STAT: &str = "user.containers.override_stat";

/// How long somebody who still looks into it is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The mounted union.
pub(crate) struct Union {
    place: PathBuf,
    mounted: bool,
    /// Says when it has ended.
    ended: Receiver<()>,
}

/// Mounts a container's layers at its root. `fresh`: it was never started.
pub(crate) fn mount(record: &Record, store: &Store, image: &Image, spec: &Spec, fresh: bool) -> Result<Union> {
    let opened = store.open_image(image)?;
    let options = options(record, spec);
    if fresh {
        dress_root(record, &View::new(opened.layer.clone()), options.ownership.xattr_permissions)?;
    }
    let below = places::below(record, spec, &opened)?;
    let mounted = mount::mount_over(&options, &below)?;
    let (end, ended) = channel();
    let serve = move || {
        if let Err(errno) = confine() {
            tracing::warn!("giving up what serving does not take: {errno}");
        }
        if let Err(error) = mounted.serve_without_signals() {
            tracing::error!("{error}");
        }
        drop(opened);
        end.send(()).ok();
    };
    thread::Builder::new().name("union".to_owned()).spawn(serve).context("a thread")?;
    Ok(Union { place: record.root(), mounted: true, ended })
}

/// What serving takes: files of whomever, of all kinds, with their owners and attributes, and the end of the mount.
const SERVING: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::SYS_ADMIN);

/// Takes from this thread, and those that it makes, what the requests of a hostile container need not have at hand. The
/// monitor's own thread keeps all, for what it starts again has it from there.
fn confine() -> Result<(), Errno> {
    rustix::thread::set_no_new_privs(true)?;
    let had = capabilities(None)?;
    let (effective, permitted) = (had.effective & SERVING, had.permitted & SERVING);
    set_capabilities(None, CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() })
}

/// How a container's layers are stacked.
pub(crate) fn options(record: &Record, spec: &Spec) -> Options {
    let mut options = Options::new(record.root());
    (options.upper, options.work) = (Some(record.upper()), Some(record.work()));
    options.volatile = record.settings.volatile || record.settings.auto_remove;
    let is_root = rustix::process::geteuid().is_root() && !is_in_user_namespace();
    let linux = spec.linux().as_ref();
    let maps = linux.and_then(|linux| Some((linux.uid_mappings().as_deref()?, linux.gid_mappings().as_deref()?)));
    if let Some((uids, gids)) = maps {
        if is_root {
            // The kernel takes the ids of the container's namespace for those of the host.
            (options.ownership.uid_map, options.ownership.gid_map) = (ranges(uids), ranges(gids));
        } else if let ([uid], [gid]) = (uids, gids)
            && uid.size() == 1
        {
            if uid.container_id() == 0 {
                options.ownership.xattr_permissions = XattrPermissions::User;
                // The kernel would let nobody change what belongs to ids that the container does not have. It shows as the
                // root's, who may do everything with it, and stays whose it is.
                (options.ownership.uid_map, options.ownership.gid_map) = (own_ids(uids), own_ids(gids));
                (options.ownership.overflow_uid, options.ownership.overflow_gid) = (Some(0), Some(gid.container_id()));
            } else {
                // There is no root inside: all that there is belongs to the one user that there is.
                options.ownership.squash_uid = Some(uid.container_id());
                options.ownership.squash_gid = Some(gid.container_id());
            }
        }
    }
    // Nobody but the container sees it.
    options.flags.allow_other = true;
    options.flags.suid = true;
    options.flags.dev = is_root && maps.is_none();
    options.flags.fsname = record.settings.image.as_ref().map_or_else(String::new, |used| used.config.to_string());
    options
}

/// Has the root of a fresh upper show what the image's shows.
pub(crate) fn dress_root(record: &Record, view: &View, permissions: XattrPermissions) -> Result<()> {
    let (root, upper) = (view.root()?.attr, record.upper());
    let shown = || upper.display().to_string();
    if permissions == XattrPermissions::User {
        let owner = format!("{}:{}:{:04o}:dir", root.uid, root.gid, root.mode & 0o7777);
        rustix::fs::setxattr(&upper, OVERRIDE_STAT, owner.as_bytes(), rustix::fs::XattrFlags::empty())
            .with_context(|| format!("an xattr on {}", shown()))?;
        return Ok(());
    }
    fs::set_permissions(&upper, fs::Permissions::from_mode(root.mode & 0o7777)).with_context(shown)?;
    // Who may not give it away shows it as his own.
    std::os::unix::fs::chown(&upper, Some(root.uid), Some(root.gid)).ok();
    Ok(())
}

fn ranges(maps: &[LinuxIdMapping]) -> Vec<IdRange> {
    maps.iter().map(|map| IdRange { container: map.container_id(), host: map.host_id(), len: map.size() }).collect()
}

/// The ids that a container has, as it counts them.
fn own_ids(maps: &[LinuxIdMapping]) -> Vec<IdRange> {
    let own =
        |map: &LinuxIdMapping| IdRange { container: map.container_id(), host: map.container_id(), len: map.size() };
    maps.iter().map(own).collect()
}

impl Union {
    /// The directory that it is mounted on has another path now.
    pub(crate) fn moved(self, place: PathBuf) -> Self {
        let mut union = self;
        union.place = place;
        union
    }

    /// Takes it away, and waits until everything is written; `patience` is for those who still look into it.
    pub(crate) fn unmount(mut self, patience: Option<Duration>) {
        self.detach();
        if let Some(patience) = patience
            && self.ended.recv_timeout(patience).is_err()
        {
            tracing::warn!("{} is still in use", self.place.display());
        }
    }

    fn detach(&mut self) {
        if std::mem::replace(&mut self.mounted, false)
            && let Err(error) = mount::unmount(&self.place, true)
        {
            tracing::warn!("unmounting {}: {error}", self.place.display());
        }
    }
}

/// What could not be started must not keep its directory in use.
impl Drop for Union {
    fn drop(&mut self) {
        self.detach();
    }
}
