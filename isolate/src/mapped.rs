//! Bind mounts that show the owners of files as others: `idmap` and `ridmap` of a mount's options, with maps of the
//! mount's own or the container's (runtime-spec, config.md, "Mounts"; mount_setattr(2), `MOUNT_ATTR_IDMAP`).
//!
//! The kernel gives them to the root of the filesystem alone, which a child in a user namespace is not: the parent
//! makes them, before there is a child, and the child finds them in the slots where it puts its own.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::{LinuxIdMapping, Mount as SpecMount};
use rustix::io::Errno;

use crate::error::Error;
use crate::idmap::{self, IdMaps};
use crate::mount::{HostTree, open_source};
use crate::process::Process;
use crate::sys::mount::{Attributes, set_attributes};
use crate::sys::process::{self, Cloned};

/// A bind mount with owners of its own.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) host: HostTree,
    owners: Owners,
    /// Also of what is mounted on it.
    recursive: bool,
}

/// Whose ids are shown.
#[derive(Debug)]
enum Owners {
    Maps(IdMaps),
    /// Those of the user namespace that the container joins.
    Namespace(PathBuf),
}

/// What a mount says of the owners of its files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// None: the container's.
    maps: Option<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>)>,
    recursive: bool,
}

impl Wish {
    /// Of a mount, whose options say `idmap` (`Some(false)`), `ridmap` (`Some(true)`), or neither. Maps without the
    /// option are meant as `idmap`.
    pub(crate) fn of(field: &str, mount: &SpecMount, option: Option<bool>) -> Result<Option<Self>, Error> {
        let maps = match (mount.uid_mappings(), mount.gid_mappings()) {
            (Some(uids), Some(gids)) => Some((uids.clone(), gids.clone())),
            (None, None) => None,
            _ => return Err(Error::invalid(field, "uidMappings and gidMappings go together")),
        };
        let is_wished = option.is_some() || maps.is_some();
        Ok(is_wished.then_some(Self { maps, recursive: option.unwrap_or(false) }))
    }

    /// With the container's maps, or the user namespace that it joins.
    pub(crate) fn resolve(
        self,
        host: HostTree,
        container: Option<&IdMaps>,
        joined: Option<PathBuf>,
    ) -> Result<Mapped, Error> {
        let owners = match (self.maps, container, joined) {
            (Some((uids, gids)), ..) => Owners::Maps(idmap::plan(&uids, &gids)?),
            (None, Some(maps), _) => Owners::Maps(maps.clone()),
            (None, None, Some(path)) => Owners::Namespace(path),
            (None, None, None) => {
                let why = "idmap needs a user namespace, or maps of its own (idmap=uids=…;gids=…)";
                return Err(Error::invalid(format!("mounts ({})", host.path.to_string_lossy()), why));
            }
        };
        Ok(Mapped { host, owners, recursive: self.recursive })
    }
}

impl Mapped {
    /// Makes the mount, which is attached nowhere yet.
    pub(crate) fn make(&self) -> Result<OwnedFd, Error> {
        let shown = self.host.path.to_string_lossy().into_owned();
        let namespace = match &self.owners {
            Owners::Maps(maps) => namespace(maps)?,
            Owners::Namespace(path) => open(path)?,
        };
        let attributes = Attributes { set: libc::MOUNT_ATTR_IDMAP, ..Attributes::default() };
        let made = open_source(&self.host).and_then(|tree| {
            set_attributes(tree.as_fd(), attributes, Some(namespace.as_fd()), self.recursive).map(|()| tree)
        });
        let why = match made {
            Ok(tree) => return Ok(tree),
            Err(Errno::PERM) => "the kernel lets only the host's root have one, once",
            Err(Errno::INVAL) => "its filesystem cannot have one on this kernel",
            Err(Errno::NOSYS) => "Linux 5.12 or newer is needed",
            Err(errno) => return Err(Error::call("open_tree", shown)(errno)),
        };
        Err(Error::Unavailable { what: format!("an idmapped mount of {shown}"), why: why.to_owned() })
    }
}

/// A user namespace with these maps, in which nobody is.
fn namespace(maps: &IdMaps) -> Result<OwnedFd, Error> {
    let failed = |call| Error::call(call, "a user namespace for an idmapped mount");
    let parent = rustix::process::getpid();
    let user = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    let pid = match process::start(user, None).map_err(failed("clone3"))? {
        Cloned::Child => process::idle(parent),
        Cloned::Parent(pid) => pid,
    };
    // It ends with this value.
    let process = Process::of_child(pid).map_err(failed("pidfd_open"))?;
    maps.write(pid)?;
    open(&PathBuf::from(format!("/proc/{}/ns/user", process.pid())))
}

fn open(path: &PathBuf) -> Result<OwnedFd, Error> {
    let file = File::open(path);
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    file.map(OwnedFd::from).map_err(|error| Error::call("open", path.display().to_string())(errno(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idmap::mapping;
    use oci_spec::runtime::MountBuilder;

    fn host() -> HostTree {
        HostTree { path: c"/srv".to_owned(), recursive: true, slot: 0 }
    }

    #[test]
    fn maps_are_the_mount_s_own_or_the_container_s() {
        let mut mount = MountBuilder::default().destination("/x").build().unwrap();
        assert_eq!(Wish::of("m", &mount, None).unwrap(), None);
        let plain = || Wish { maps: None, recursive: true };
        assert_eq!(Wish::of("m", &mount, Some(true)).unwrap(), Some(plain()));
        let maps = vec![mapping(0, 1000, 1)];
        mount.set_uid_mappings(Some(maps.clone()));
        assert!(Wish::of("m", &mount, None).is_err());
        mount.set_gid_mappings(Some(maps.clone()));
        let own = Wish::of("m", &mount, None).unwrap().unwrap();
        assert_eq!(own, Wish { maps: Some((maps.clone(), maps.clone())), recursive: false });

        let container = idmap::plan(&[mapping(0, 5000, 7)], &[mapping(0, 5000, 7)]).unwrap();
        let resolved = own.resolve(host(), Some(&container), None).unwrap();
        assert!(matches!(resolved.owners, Owners::Maps(found) if found.uids == maps));
        let resolved = plain().resolve(host(), Some(&container), None).unwrap();
        assert!(matches!(resolved.owners, Owners::Maps(found) if found == container));
        let resolved = plain().resolve(host(), None, Some("/ns".into())).unwrap();
        assert!(matches!(resolved.owners, Owners::Namespace(path) if path.as_os_str() == "/ns"));
        assert!(plain().resolve(host(), None, None).unwrap_err().to_string().contains("idmap needs a user namespace"));
    }
}
