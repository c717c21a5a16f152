//! Owners and modes shown against those on disk: id mappings, squashing, and
//! the override xattr of containers/storage and fuse-overlayfs.

use std::ffi::OsStr;

use crate::attr::Attr;
use crate::error::{Error, LayerFault, Refusal, Result};
use crate::options::{IdRange, Ownership, XattrPermissions};

/// Stands for ids that no mapping covers.
const OVERFLOW_ID: u32 = 65_534;

/// The override xattrs, by who may set them.
pub(crate) const OVERRIDE_PRIVILEGED: &str = "security.fuseoverlayfs.override_stat";
/// What containers/storage writes.
pub(crate) const OVERRIDE_CONTAINERS: &str = "user.containers.override_stat";
/// What fuse-overlayfs wrote before that.
pub(crate) const OVERRIDE_LEGACY: &str = "user.fuseoverlayfs.override_stat";

/// An override: `uid:gid:octal-mode[:type]`, the type being `dir`, `file`,
/// `symlink`, `pipe`, `socket`, `block-MAJOR-MINOR` or `char-MAJOR-MINOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatOverride {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub permissions: u32,
    /// Type (`S_IFMT` bits) and device number, when the value names one.
    pub format: Option<(u32, u64)>,
}

/// Parses an override.
pub fn parse_override(value: &[u8]) -> Option<StatOverride> {
    let text = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
    let mut fields = text.split(':');
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
    let format = fields.next().map(parse_format);
    if fields.next().is_some() || matches!(format, Some(None)) {
        return None;
    }
    Some(StatOverride { uid, gid, permissions: mode & 0o7777, format: format.flatten() })
}

fn parse_format(text: &str) -> Option<(u32, u64)> {
    let device = |rest: &str| {
        let (major, minor) = rest.split_once('-')?;
        Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
    };
    Some(match text {
        "dir" => (libc::S_IFDIR, 0),
        "file" => (libc::S_IFREG, 0),
        "symlink" => (libc::S_IFLNK, 0),
        "pipe" => (libc::S_IFIFO, 0),
        "socket" => (libc::S_IFSOCK, 0),
        _ => match text.split_once('-')? {
            ("block", rest) => (libc::S_IFBLK, device(rest)?),
            ("char", rest) => (libc::S_IFCHR, device(rest)?),
            _ => return None,
        },
    })
}

/// The value that records `attr`.
pub(crate) fn format_override(attr: &Attr) -> String {
    let kind = match attr.format() {
        libc::S_IFDIR => "dir".to_owned(),
        libc::S_IFLNK => "symlink".to_owned(),
        libc::S_IFIFO => "pipe".to_owned(),
        libc::S_IFSOCK => "socket".to_owned(),
        libc::S_IFBLK => format!("block-{}-{}", rustix::fs::major(attr.rdev), rustix::fs::minor(attr.rdev)),
        libc::S_IFCHR => format!("char-{}-{}", rustix::fs::major(attr.rdev), rustix::fs::minor(attr.rdev)),
        _ => "file".to_owned(),
    };
    format!("{}:{}:{:04o}:{kind}", attr.uid, attr.gid, attr.mode & 0o7777)
}

/// Applies a layer's override. Only what is stored as a regular file may become
/// something else: a real directory or symlink keeps its type.
pub(crate) fn apply_override(attr: &mut Attr, value: &[u8], layer: usize, name: &OsStr) -> Result<()> {
    let stored = attr.format();
    if stored != libc::S_IFREG && stored != libc::S_IFDIR {
        return Ok(());
    }
    let Some(over) = parse_override(value) else {
        return Err(Error::layer(layer, name, LayerFault::BadOverride));
    };
    let (format, rdev) = match over.format {
        Some((format, rdev)) if stored == libc::S_IFREG && format != libc::S_IFDIR => (format, rdev),
        _ => (stored, 0),
    };
    // A device 0:0 is a whiteout and nothing else, also in disguise.
    if format == libc::S_IFCHR && rdev == 0 {
        return Err(Error::layer(layer, name, LayerFault::BadOverride));
    }
    attr.uid = over.uid;
    attr.gid = over.gid;
    attr.mode = format | over.permissions;
    attr.rdev = rdev;
    Ok(())
}

/// How this mount shows and stores owners.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    options: Ownership,
}

impl Owners {
    pub(crate) fn new(options: &Ownership) -> Self {
        Self { options: options.clone() }
    }

    /// The override xattr that the upper is written with.
    pub(crate) fn override_key(&self) -> Option<&'static str> {
        match self.options.xattr_permissions {
            XattrPermissions::Off => None,
            XattrPermissions::Privileged => Some(OVERRIDE_PRIVILEGED),
            XattrPermissions::User => Some(OVERRIDE_CONTAINERS),
        }
    }

    /// The attributes as the mount shows them, which are never stored: several owners may be shown as one.
    pub(crate) fn show(&self, attr: &mut Attr) {
        let Ownership { uid_map, gid_map, squash_uid, squash_gid, overflow_uid, overflow_gid, .. } = &self.options;
        attr.uid = squash_uid.or_else(|| shown(uid_map, attr.uid)).or(*overflow_uid).unwrap_or(OVERFLOW_ID);
        attr.gid = squash_gid.or_else(|| shown(gid_map, attr.gid)).or(*overflow_gid).unwrap_or(OVERFLOW_ID);
    }

    /// Whether everything is shown as one user's, whoever it belongs to on disk.
    pub(crate) fn shows_one_owner(&self) -> bool {
        self.options.squash_uid.is_some() && self.options.squash_gid.is_some()
    }

    /// The uid on disk of one shown in the mount.
    pub(crate) fn disk_uid(&self, uid: u32) -> Result<u32> {
        if self.options.squash_uid.is_some() {
            return Ok(rustix::process::geteuid().as_raw());
        }
        stored(&self.options.uid_map, uid)
    }

    /// The owner and group on disk of what a caller makes. One from outside the container, as a container manager is
    /// that lays out `/etc`, makes things of nobody's, which is what the container would be shown anyway.
    pub(crate) fn maker(&self, uid: u32, gid: u32) -> (u32, u32) {
        (self.disk_uid(uid).unwrap_or(OVERFLOW_ID), self.disk_gid(gid).unwrap_or(OVERFLOW_ID))
    }

    /// The gid on disk of one shown in the mount.
    pub(crate) fn disk_gid(&self, gid: u32) -> Result<u32> {
        if self.options.squash_gid.is_some() {
            return Ok(rustix::process::getegid().as_raw());
        }
        stored(&self.options.gid_map, gid)
    }
}

/// The id on the host that a container's id on disk stands for, if it stands for any.
///
/// One that is no container's id but is one of the host's range is that already: containers/storage gives id-mapped
/// mounts as lowers where the kernel has them, and the mapping besides.
fn shown(map: &[IdRange], id: u32) -> Option<u32> {
    let on_host = map.iter().find_map(|range| {
        let offset = id.checked_sub(range.container)?;
        (offset < range.len).then(|| range.host.checked_add(offset))?
    });
    on_host.or_else(|| stored(map, id).is_ok().then_some(id))
}

/// The container's id, as it is stored, of an id on the host.
fn stored(map: &[IdRange], id: u32) -> Result<u32> {
    if map.is_empty() {
        return Ok(id);
    }
    map.iter()
        .find_map(|range| {
            let offset = id.checked_sub(range.host)?;
            (offset < range.len).then(|| range.container.checked_add(offset))?
        })
        .ok_or_else(|| Refusal::Unmapped.into())
}

#[cfg(test)]
mod tests {
    use rustix::fs::CWD;

    use super::*;
    use crate::sys::at;

    #[test]
    fn override_values() {
        let parsed = parse_override(b"0:12:0644").unwrap();
        assert_eq!(parsed, StatOverride { uid: 0, gid: 12, permissions: 0o644, format: None });
        assert_eq!(parse_override(b"1:2:4755:file").unwrap().permissions, 0o4755);
        let device = parse_override(b"0:0:600:block-8-1").unwrap();
        assert_eq!(device.format, Some((libc::S_IFBLK, rustix::fs::makedev(8, 1))));
        for bad in [
            &b""[..],
            b"1",
            b"1:2",
            b"1:2:9",
            b"a:b:644",
            b"1:2:644:",
            b"1:2:644:dev",
            b"1:2:644:char-1",
            b"1:2:644:file:x",
            b"\xff:0:0",
        ] {
            assert_eq!(parse_override(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn maps_both_ways() {
        let map = [IdRange { container: 0, host: 1000, len: 1 }, IdRange { container: 1, host: 100_000, len: 65_536 }];
        assert_eq!(shown(&map, 0), Some(1000));
        assert_eq!(shown(&map, 5), Some(100_004));
        assert_eq!(shown(&map, 70_000), None);
        assert_eq!(shown(&map, 165_535), Some(165_535));
        assert_eq!(shown(&[], 70_000), Some(70_000));
        assert_eq!(stored(&map, 100_004).unwrap(), 5);
        assert!(stored(&map, 7).is_err());
    }

    #[test]
    fn whom_no_map_covers_is_shown_as_the_overflow_ids() {
        let one = vec![IdRange { container: 0, host: 0, len: 1 }];
        let mut options = Ownership { uid_map: one.clone(), gid_map: one, ..Ownership::default() };
        let seen = |options: &Ownership, uid, gid| {
            let mut attr = Attr::from(&at::stat(CWD, OsStr::new("/")).unwrap());
            (attr.uid, attr.gid) = (uid, gid);
            Owners::new(options).show(&mut attr);
            (attr.uid, attr.gid)
        };
        assert_eq!(seen(&options, 0, 33), (0, OVERFLOW_ID));
        (options.overflow_uid, options.overflow_gid) = (Some(0), Some(7));
        for (on_disk, shown) in [((0, 0), (0, 0)), ((33, 0), (0, 0)), ((0, 33), (0, 7)), ((65_534, 65_534), (0, 7))] {
            assert_eq!(seen(&options, on_disk.0, on_disk.1), shown, "{on_disk:?}");
        }
        let owners = Owners::new(&options);
        assert_eq!((owners.disk_uid(0).unwrap(), owners.disk_gid(0).unwrap()), (0, 0));
        assert!(
            owners.disk_uid(33).is_err() && owners.disk_gid(7).is_err(),
            "what is shown for all others is nobody's id"
        );
        assert_eq!(owners.maker(0, 0), (0, 0));
        assert_eq!(owners.maker(33, 33), (OVERFLOW_ID, OVERFLOW_ID));
        // One who is shown for all is shown for these, too; without maps there is nobody whom they do not cover.
        options.squash_uid = Some(5);
        assert_eq!(seen(&options, 33, 33), (5, 7));
        let plain = Ownership { overflow_uid: Some(0), overflow_gid: Some(0), ..Ownership::default() };
        assert_eq!(seen(&plain, 33, 34), (33, 34));
    }
}
