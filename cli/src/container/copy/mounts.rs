//! What is bound into a container that does not run, for the time of a copy.

use std::path::Path;

use lamel_isolate::oci::Mount;
use rustix::fs::{CWD, FileType, StatVfsMountFlags, fstat, fstatvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount_remount, move_mount, open_tree};

use super::proc_path;
use super::root::Root;
use crate::launch::warn;
use crate::run::volume::is_bind;

/// Binds below `root`, as the container would see it, what the configuration of `bundle` binds: in this process's own mount
/// namespace. What cannot be bound is told, and its place is as the container's layers have it.
pub(crate) fn bind(root: &Root, mounts: &[Mount], bundle: &Path) {
    for mount in mounts.iter().filter(|mount| is_bind(mount)) {
        let Some(source) = mount.source() else { continue };
        let path = bundle.join(source);
        match bind_one(root, mount, &path) {
            Ok(()) => {}
            // The container's own files are written when it starts.
            Err(Errno::NOENT) if source.is_relative() => {}
            Err(errno) => {
                let place = mount.destination().display();
                warn(&format!("{place} is shown without what is mounted there, {}: {errno}", path.display()));
            }
        }
    }
}

fn bind_one(root: &Root, mount: &Mount, source: &Path) -> rustix::io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, source, flags)?;
    let is_directory = FileType::from_raw_mode(fstat(&tree)?.st_mode) == FileType::Directory;
    let place = root.place(mount.destination(), is_directory)?;
    let how = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", &place, "", how)?;
    let options = mount.options().as_deref().unwrap_or_default();
    if !options.iter().any(|option| option == "ro" || option == "rro") {
        return Ok(());
    }
    // What the mount is forbidden already stays so: another user namespace may have said it.
    let old = fstatvfs(&tree)?.f_flag;
    let kept = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let kept =
        kept.iter().filter(|(has, _)| old.contains(*has)).fold(MountFlags::empty(), |all, (_, flag)| all | *flag);
    mount_remount(proc_path(&tree), MountFlags::BIND | MountFlags::RDONLY | kept, "")
}
