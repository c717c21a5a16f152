//! `/dev`: the default devices, links, and the console.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;

use crate::child::State;
use crate::error::{Called as _, Error, Fault};
use crate::rootfs::{self, Inside, Links};
use crate::sys::mount::{Attributes, set_attributes};

/// What every container has (runtime-spec, config-linux.md, "Default Devices"); all of them 0666.
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links beside them.
pub(crate) const LINKS: [(&CStr, &CStr); 5] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"ptmx", c"pts/ptmx"),
];

/// A device node of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) target: Inside,
    /// The same path on the host, from where it is taken if a user namespace may not make nodes.
    host: CString,
    kind: FileType,
    number: u64,
    mode: Mode,
    owner: (u32, u32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {} ({}:{})", self.target, rustix::fs::major(self.number), rustix::fs::minor(self.number))
    }
}

/// The default devices, and those of the configuration.
pub(crate) fn plan(devices: &[LinuxDevice]) -> Result<Vec<Device>, Error> {
    let mut planned = Vec::new();
    for (name, major, minor) in DEFAULT {
        let path = format!("/dev/{name}");
        planned.push(Device {
            target: Inside::new("dev", Path::new(&path))?,
            host: CString::new(path).unwrap_or_default(),
            kind: FileType::CharacterDevice,
            number: makedev(major, minor),
            mode: Mode::from_raw_mode(0o666),
            owner: (0, 0),
        });
    }
    for (at, device) in devices.iter().enumerate() {
        let field = format!("linux.devices[{at}]");
        let number = |n: i64| u32::try_from(n).map_err(|_| Error::invalid(&field, "a negative device number"));
        let target = Inside::new(&field, device.path())?;
        if target.is_root() {
            return Err(Error::invalid(field, "a device without a name"));
        }
        let host = CString::new(target.to_string()).map_err(|_| Error::invalid(&field, "a NUL in the path"))?;
        let device = Device {
            host,
            kind: match device.typ() {
                LinuxDeviceType::B => FileType::BlockDevice,
                LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
                LinuxDeviceType::P => FileType::Fifo,
                LinuxDeviceType::A => return Err(Error::invalid(field, "type a is a rule, not a device")),
            },
            number: makedev(number(device.major())?, number(device.minor())?),
            mode: Mode::from_raw_mode(device.file_mode().unwrap_or(0o666) & 0o7777),
            owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
            target,
        };
        planned.retain(|other| other.target != device.target);
        planned.push(device);
    }
    Ok(planned)
}

/// The host's null device, which is looked at before it is used.
pub(crate) fn host_null() -> Result<OwnedFd, Fault> {
    let null = rustix::fs::open(c"/dev/null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .called("open /dev/null")?;
    is_device(&null, FileType::CharacterDevice, makedev(1, 3))?;
    Ok(null)
}

fn is_device(fd: &OwnedFd, kind: FileType, number: u64) -> Result<(), Fault> {
    let stat = rustix::fs::fstat(fd).called("fstat")?;
    if FileType::from_raw_mode(stat.st_mode) == kind && (kind == FileType::Fifo || stat.st_rdev == number) {
        Ok(())
    } else {
        Err(Fault::refused("what lies there is not this device"))
    }
}

impl Device {
    /// Makes the node, or in a user namespace mounts the host's.
    pub(crate) fn perform(&self, state: &State<'_>, bind: bool) -> Result<(), Fault> {
        if bind && self.kind != FileType::Fifo {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let host = rustix::fs::open(&self.host, flags, Mode::empty()).called("open on the host")?;
            is_device(&host, self.kind, self.number)?;
            let tree = rootfs::clone_tree(host.as_fd(), false).called("open_tree")?;
            let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
            let attributes = Attributes { set, ..Attributes::default() };
            set_attributes(tree.as_fd(), attributes, None, false).called("mount_setattr")?;
            let target = rootfs::file(state.root()?, &self.target, Links::Refused)?;
            return rootfs::attach(tree.as_fd(), target.as_fd()).called("move_mount");
        }
        let (directory, name) = parent(state, &self.target)?;
        match rustix::fs::mknodat(&directory, name, self.kind, self.mode, self.number) {
            Ok(()) => {}
            // The image's own, if it is the same.
            Err(Errno::EXIST) => {
                let found = rootfs::child(directory.as_fd(), name, OFlags::PATH).called("openat2")?;
                return is_device(&found, self.kind, self.number);
            }
            failed => failed.called("mknodat")?,
        }
        // The umask took bits away; nothing is followed, for the name was made here.
        let found = rootfs::child(directory.as_fd(), name, OFlags::PATH).called("openat2")?;
        is_device(&found, self.kind, self.number)?;
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        if self.owner != (0, 0) {
            rustix::fs::chownat(&directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .called("fchownat")?;
        }
        Ok(())
    }
}

fn parent<'a>(state: &State<'_>, target: &'a Inside) -> Result<(OwnedFd, &'a CStr), Fault> {
    rootfs::parent(state.root()?, target, Links::Refused)
}

/// Makes a link in /dev, unless something has its name.
pub(crate) fn link(name: &CStr, to: &CStr, state: &State<'_>) -> Result<(), Fault> {
    let directory =
        rootfs::open(state.root()?, c"dev", OFlags::PATH | OFlags::DIRECTORY, Links::Refused).called("openat2")?;
    match rustix::fs::symlinkat(to, &directory, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        failed => failed.called("symlinkat"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceBuilder;

    #[test]
    fn the_configuration_s_devices_replace_the_default_ones() {
        let fuse = LinuxDeviceBuilder::default()
            .path("/dev/fuse")
            .typ(LinuxDeviceType::C)
            .major(10)
            .minor(229)
            .file_mode(0o100600_u32)
            .build()
            .unwrap();
        let null = LinuxDeviceBuilder::default()
            .path("/dev/../dev/null")
            .typ(LinuxDeviceType::C)
            .major(1)
            .minor(3)
            .build()
            .unwrap();
        let devices = plan(&[fuse, null]).unwrap();
        assert_eq!(devices.len(), 7);
        assert_eq!(devices[5].to_string(), "device /dev/fuse (10:229)");
        assert_eq!(devices[5].mode, Mode::from_raw_mode(0o600));
        assert_eq!(devices[6].host.as_c_str(), c"/dev/null");
    }

    #[test]
    fn the_null_device_is_looked_at() {
        let null = host_null().unwrap();
        assert!(is_device(&null, FileType::CharacterDevice, makedev(1, 5)).is_err());
    }
}
