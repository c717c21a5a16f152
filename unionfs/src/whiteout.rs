//! The marks by which a layer says more than its files do. This module alone
//! knows how they are encoded on disk.
//!
//! | mark | encodings read | written |
//! |---|---|---|
//! | whiteout | character device 0:0 · sibling `.wh.NAME` · empty file with `overlay.whiteout` in a directory whose opaque mark is `x` | device 0:0, else `.wh.NAME` |
//! | opaque | `overlay.opaque` = `y…` · `user.fuseoverlayfs.opaque` · file `.wh..wh..opq` | `overlay.opaque` (and the file, in fuse-overlayfs format) |
//! | redirect, metacopy, origin, nlink, impure | `overlay.*` of the mount's own namespace | the same |
//! | inode number | `overlay.lamel.ino` of the mount's own namespace | the same |
//! | override | the layer's override xattr | the same |
//!
//! Sources: kernel `Documentation/filesystems/overlayfs.rst`, OCI image-spec
//! `layer.md` (whiteouts), containers/storage (`override_stat`).

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::error::Result;
use crate::sys::at::{self, Stat};
use crate::sys::xattr::{self, Target};
use crate::xattr::copies_up;

/// Prefix of AUFS-style whiteout names.
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// The AUFS-style opaque mark.
const OPAQUE_FILE: &str = ".wh..wh..opq";

/// The longest redirect that is followed, in bytes (`PATH_MAX`).
const MAX_REDIRECT: usize = 4096;

/// The namespace that holds the mount's own marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    Trusted,
    User,
}

/// What a name in a layer directory says beyond its attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Hides everything below (directories).
    pub opaque: bool,
    /// Empty files in this directory may be whiteouts by xattr.
    pub xwhiteouts: bool,
    /// Where the lower content lies, if not under the same name.
    pub redirect: Option<OsString>,
    /// Attributes only; the data is in a lower layer.
    pub metacopy: bool,
    /// The inode number that the object was shown with when it was copied up.
    pub ino: Option<u64>,
    /// Identity of the lower object that it was copied up from.
    pub origin: Option<Vec<u8>>,
    /// Names of a copied-up hard link in all layers, relative to the link count on disk.
    pub nlink: Option<i64>,
    /// Entries of this directory may carry an inode number of their own.
    pub impure: bool,
    /// Raw value of the layer's override xattr.
    pub stat_override: Option<Vec<u8>>,
    /// The object is known to have no extended attributes but marks.
    pub bare: bool,
}

/// Reads and writes marks.
#[derive(Clone, Debug)]
pub(crate) struct Markers {
    /// `None`: the upper's filesystem has no usable xattrs.
    pub(crate) namespace: Option<Namespace>,
    /// Write whiteouts as devices 0:0.
    pub(crate) devices: bool,
    /// Write `.wh..wh..opq` beside the opaque xattr.
    pub(crate) opaque_file: bool,
}

/// An extended attribute of the `overlay.` family.
#[derive(Clone, Copy)]
enum Key {
    Opaque,
    Redirect,
    Metacopy,
    Origin,
    Nlink,
    Impure,
    Ino,
}

impl Key {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Opaque => "opaque",
            Self::Redirect => "redirect",
            Self::Metacopy => "metacopy",
            Self::Origin => "origin",
            Self::Nlink => "nlink",
            Self::Impure => "impure",
            Self::Ino => "lamel.ino",
        }
    }
}

impl Namespace {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }

    fn key(self, key: Key) -> String {
        format!("{}{}", self.prefix(), key.suffix())
    }

    /// Whether this process may keep marks of this namespace on the filesystem of `dir`.
    pub(crate) fn is_writable(self, dir: BorrowedFd<'_>) -> Result<bool> {
        use rustix::io::Errno;
        let target = Target::At(dir, OsStr::new("."));
        let name = format!("{}probe", self.prefix());
        match xattr::set(target, OsStr::new(&name), b"y", 0) {
            Ok(()) => xattr::remove(target, OsStr::new(&name)).map(|()| true),
            Err(error) if matches!(error.errno(), Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether a directory entry is a whiteout as far as its attributes tell.
pub(crate) fn is_device_whiteout(stat: &Stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == 0
}

/// The name that an AUFS-style whiteout hides; `None` for any other name.
/// `.wh..wh.*` names are AUFS's own bookkeeping and hide nothing.
pub(crate) fn hidden_by(name: &OsStr) -> Option<&OsStr> {
    let hidden = name.as_bytes().strip_prefix(WHITEOUT_PREFIX)?;
    (!hidden.is_empty() && !hidden.starts_with(WHITEOUT_PREFIX)).then(|| OsStr::from_bytes(hidden))
}

/// What a name in the archive of a layer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AufsName<'a> {
    /// A name.
    Plain,
    /// The whiteout of this name, which may be empty, `.` or `..`.
    Whiteout(&'a OsStr),
    /// The mark of the directory that it is in: opaque.
    Opaque,
    /// Something that AUFS kept for itself.
    Bookkeeping,
}

/// Reads a name of an archive by the rules of the OCI image specification.
pub fn aufs_name(name: &OsStr) -> AufsName<'_> {
    match name.as_bytes().strip_prefix(WHITEOUT_PREFIX) {
        None => AufsName::Plain,
        Some(_) if name == OPAQUE_FILE => AufsName::Opaque,
        Some(hidden) if hidden.starts_with(WHITEOUT_PREFIX) => AufsName::Bookkeeping,
        Some(hidden) => AufsName::Whiteout(OsStr::from_bytes(hidden)),
    }
}

/// Names that mean something on disk and are therefore not shown nor accepted.
pub(crate) fn is_reserved(name: &OsStr) -> bool {
    name.as_bytes().starts_with(WHITEOUT_PREFIX)
}

/// Whether a directory holds an AUFS-style whiteout of `name`.
pub(crate) fn has_whiteout_file(dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool> {
    let sibling = whiteout_file(name);
    // A name that is too long to have a whiteout file has none.
    if sibling.len() > 255 {
        return Ok(false);
    }
    Ok(at::stat_opt(dir, &sibling)?.is_some())
}

/// Whether a directory holds the AUFS-style opaque mark.
pub(crate) fn has_opaque_file(dir: BorrowedFd<'_>) -> Result<bool> {
    Ok(at::stat_opt(dir, OsStr::new(OPAQUE_FILE))?.is_some())
}

/// Whether an empty file in a directory with `xwhiteouts` is a whiteout.
pub(crate) fn is_xattr_whiteout(target: Target<'_>, stat: &Stat) -> Result<bool> {
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG || stat.st_size != 0 {
        return Ok(false);
    }
    for name in ["trusted.overlay.whiteout", "user.overlay.whiteout"] {
        if xattr::get(target, OsStr::new(name))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn whiteout_file(name: &OsStr) -> OsString {
    let mut file = WHITEOUT_PREFIX.to_vec();
    file.extend_from_slice(name.as_bytes());
    OsString::from_vec(file)
}

/// The `overlay.` names of both namespaces, and fuse-overlayfs's own.
pub(crate) fn is_private_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.")
        || name.starts_with(b"user.overlay.")
        || name.starts_with(b"user.fuseoverlayfs.")
        || name == b"trusted.overlay"
        || name == b"user.overlay"
}

/// Every name that some union keeps books under: what comes from an archive may hold none of them.
pub fn is_bookkeeping_xattr(name: &[u8]) -> bool {
    is_private_xattr(name)
        || name.starts_with(b"user.containers.override_")
        || name.starts_with(b"security.fuseoverlayfs.")
}

impl Markers {
    /// The marks of one object. `override_key` is the layer's override xattr.
    pub(crate) fn read(&self, target: Target<'_>, override_key: Option<&OsStr>) -> Result<Marks> {
        let mut marks = Marks { bare: true, ..Marks::default() };
        let names = xattr::list(target)?;
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let name = OsStr::from_bytes(name);
            marks.bare &= !copies_up(name.as_bytes(), None);
            if override_key == Some(name) {
                marks.stat_override = xattr::get(target, name)?;
            } else if is_private_xattr(name.as_bytes()) {
                self.read_one(target, name, &mut marks)?;
            }
        }
        Ok(marks)
    }

    /// The marks of an object that is neither file nor directory. Symlinks and
    /// special files hold no `user.*` attributes.
    pub(crate) fn read_special(&self, target: Target<'_>) -> Result<Marks> {
        if self.namespace == Some(Namespace::Trusted) { self.read(target, None) } else { Ok(Marks::default()) }
    }

    fn read_one(&self, target: Target<'_>, name: &OsStr, marks: &mut Marks) -> Result<()> {
        let bytes = name.as_bytes();
        if bytes.ends_with(b".opaque") {
            if matches!(bytes, b"trusted.overlay.opaque" | b"user.overlay.opaque" | b"user.fuseoverlayfs.opaque") {
                let value = xattr::get(target, name)?.unwrap_or_default();
                marks.opaque |= value.first() == Some(&b'y');
                marks.xwhiteouts |= value.first() == Some(&b'x');
            }
            return Ok(());
        }
        let Some(suffix) = self.namespace.and_then(|ns| bytes.strip_prefix(ns.prefix().as_bytes())) else {
            return Ok(());
        };
        let value = || Ok::<_, crate::Error>(xattr::get(target, name)?.unwrap_or_default());
        match suffix {
            b"redirect" => marks.redirect = Some(OsString::from_vec(value()?)),
            b"metacopy" => marks.metacopy = true,
            b"origin" => marks.origin = Some(value()?),
            b"nlink" => marks.nlink = parse_nlink(&value()?),
            b"impure" => marks.impure = true,
            b"lamel.ino" => marks.ino = parse_ino(&value()?),
            _ => {}
        }
        Ok(())
    }

    /// The inode number that an object was copied up with.
    pub(crate) fn read_ino(&self, target: Target<'_>) -> Result<Option<u64>> {
        let Some(namespace) = self.namespace else {
            return Ok(None);
        };
        Ok(xattr::get(target, OsStr::new(&namespace.key(Key::Ino)))?.and_then(|value| parse_ino(&value)))
    }

    /// The opaque mark as an xattr alone, whatever the format: for a directory
    /// that must stay empty.
    pub(crate) fn set_opaque_xattr(&self, dir: BorrowedFd<'_>) -> Result<()> {
        self.set(Target::At(dir, OsStr::new(".")), Key::Opaque, b"y").map(drop)
    }

    fn set(&self, target: Target<'_>, key: Key, value: &[u8]) -> Result<bool> {
        let Some(namespace) = self.namespace else {
            return Ok(false);
        };
        xattr::set(target, OsStr::new(&namespace.key(key)), value, 0)?;
        Ok(true)
    }

    fn clear(&self, target: Target<'_>, key: Key) -> Result<()> {
        let Some(namespace) = self.namespace else {
            return Ok(());
        };
        match xattr::remove(target, OsStr::new(&namespace.key(key))) {
            Err(error) if error.errno() == rustix::io::Errno::NODATA => Ok(()),
            other => other,
        }
    }

    /// Whether redirects and metacopies can be written at all.
    pub(crate) fn can_mark(&self) -> bool {
        self.namespace.is_some()
    }

    /// Makes a directory hide everything below it.
    pub(crate) fn set_opaque(&self, dir: BorrowedFd<'_>) -> Result<()> {
        let by_xattr = self.set(Target::At(dir, OsStr::new(".")), Key::Opaque, b"y")?;
        if !by_xattr || self.opaque_file {
            match at::create(dir, OsStr::new(OPAQUE_FILE), rustix::fs::OFlags::WRONLY, 0o700) {
                Err(error) if error.errno() != rustix::io::Errno::EXIST => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Records where the lower content lies: an absolute path from the layers' root.
    pub(crate) fn set_redirect(&self, target: Target<'_>, path: &OsStr) -> Result<()> {
        self.set(target, Key::Redirect, path.as_bytes()).map(drop)
    }

    /// Marks a file as holding attributes alone.
    pub(crate) fn set_metacopy(&self, target: Target<'_>) -> Result<()> {
        self.set(target, Key::Metacopy, b"").map(drop)
    }

    /// The file holds its own data from now on.
    pub(crate) fn clear_metacopy(&self, target: Target<'_>) -> Result<()> {
        self.clear(target, Key::Metacopy)?;
        self.clear(target, Key::Redirect)
    }

    /// Records the inode number that the object is shown with.
    pub(crate) fn set_ino(&self, target: Target<'_>, ino: u64) -> Result<()> {
        self.set(target, Key::Ino, ino.to_string().as_bytes()).map(drop)
    }

    /// Records the lower object that this one was copied up from.
    pub(crate) fn set_origin(&self, target: Target<'_>, origin: &[u8]) -> Result<()> {
        self.set(target, Key::Origin, origin).map(drop)
    }

    /// Records the number of names in the union, as a difference to the link count on disk.
    pub(crate) fn set_nlink(&self, target: Target<'_>, difference: i64) -> Result<()> {
        self.set(target, Key::Nlink, format!("U{difference:+}").as_bytes()).map(drop)
    }

    /// Says that entries of this directory may carry inode numbers of their own.
    pub(crate) fn set_impure(&self, dir: BorrowedFd<'_>) -> Result<()> {
        self.set(Target::At(dir, OsStr::new(".")), Key::Impure, b"y").map(drop)
    }

    /// Makes a whiteout of `name` in `dir`, where `name` is free.
    pub(crate) fn make_whiteout(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        if self.devices {
            at::mknod(dir, name, libc::S_IFCHR, 0)
        } else {
            at::create(dir, &whiteout_file(name), rustix::fs::OFlags::WRONLY, 0o700).map(drop)
        }
    }

    /// Whether whiteouts can be made on the filesystem of `dir`, which is private.
    pub(crate) fn can_delete(&self, dir: BorrowedFd<'_>) -> bool {
        let name = OsStr::new("#whiteout");
        let file = if self.devices { name.to_owned() } else { whiteout_file(name) };
        self.make_whiteout(dir, name).and_then(|()| at::unlink(dir, &file)).is_ok()
    }

    /// Removes the AUFS-style whiteout of `name`, if there is one.
    pub(crate) fn remove_whiteout_file(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        match at::unlink(dir, &whiteout_file(name)) {
            Err(error) if error.errno() == rustix::io::Errno::NOENT => Ok(()),
            other => other,
        }
    }
}

pub(crate) fn parse_ino(value: &[u8]) -> Option<u64> {
    let ino: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    crate::inode::is_plain_ino(ino).then_some(ino)
}

/// Kernel format: `U` or `L`, then a signed difference to the upper's or
/// lower's link count. Only the upper's form says something to us.
pub(crate) fn parse_nlink(value: &[u8]) -> Option<i64> {
    let difference: i64 = std::str::from_utf8(value.strip_prefix(b"U")?).ok()?.parse().ok()?;
    (-0x1_0000..=0x1_0000).contains(&difference).then_some(difference)
}

/// A redirect as the way to walk: from the root of each lower layer, or to
/// another name in the same directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// Components from the layers' root; none of them empty, `.` or `..`.
    Absolute(Vec<OsString>),
    /// Another name in the parent.
    Sibling(OsString),
}

/// Parses a redirect; `None` when it is malformed or would leave the stack.
pub fn parse_redirect(value: &OsStr) -> Option<Redirect> {
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_REDIRECT || bytes.contains(&0) {
        return None;
    }
    let good = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && part.len() <= 255;
    match bytes.strip_prefix(b"/") {
        Some(path) => {
            let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
            parts
                .iter()
                .all(|part| good(part))
                .then(|| Redirect::Absolute(parts.iter().map(|part| OsString::from_vec(part.to_vec())).collect()))
        }
        None => (good(bytes) && !bytes.contains(&b'/')).then(|| Redirect::Sibling(value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_inside() {
        let absolute = |parts: &[&str]| Some(Redirect::Absolute(parts.iter().map(OsString::from).collect()));
        assert_eq!(parse_redirect(OsStr::new("/a/b")), absolute(&["a", "b"]));
        assert_eq!(parse_redirect(OsStr::new("b")), Some(Redirect::Sibling("b".into())));
        for bad in ["", "/", "/a//b", "/../x", "/a/../b", "..", ".", "a/b", "/a/", "/.", "a\0b"] {
            assert_eq!(parse_redirect(OsStr::new(bad)), None, "{bad:?}");
        }
        assert_eq!(parse_redirect(OsStr::new(&"/a".repeat(3000))), None);
    }

    #[test]
    fn whiteout_names() {
        assert_eq!(hidden_by(OsStr::new(".wh.x")), Some(OsStr::new("x")));
        for other in [".wh.", ".wh..wh..opq", "x", ".whx"] {
            assert_eq!(hidden_by(OsStr::new(other)), None);
        }
    }

    #[test]
    fn link_counts() {
        assert_eq!(parse_nlink(b"U+2"), Some(2));
        assert_eq!(parse_nlink(b"U-1"), Some(-1));
        for bad in [&b"L+1"[..], b"U", b"", b"U+99999999999", b"\xff"] {
            assert_eq!(parse_nlink(bad), None);
        }
    }
}
