//! Extended attributes of users.
//!
//! The mount's own marks are neither shown nor reachable. A user's `overlay.*`
//! attributes (an overlay inside the mount makes some) are kept under an
//! escaped name, as kernel overlayfs does: `trusted.overlay.X` is stored as
//! `trusted.overlay.overlay.X`.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use crate::backing::Backing;
use crate::error::{Refusal, Result};
use crate::inode::Inode;
use crate::ownership::OVERRIDE_CONTAINERS;
use crate::sys::{process, xattr};
use crate::union::UnionFs;
use crate::whiteout::{Namespace, is_private_xattr};

/// Answers about the mount itself, under these names on any object.
const STATUS_PREFIX: &[u8] = b"system.lamel.";
const ESCAPED: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
const ESCAPE: &[u8] = b"overlay.";
/// Where containers/storage keeps attributes that only root may set.
const OVERRIDE_PREFIX: &[u8] = b"user.containers.override_";
const ACL_PREFIX: &[u8] = b"system.posix_acl_";

/// The name on disk of a user's attribute.
fn to_disk<'a>(name: &'a OsStr, override_key: Option<&str>) -> Result<Cow<'a, OsStr>> {
    let bytes = name.as_bytes();
    for prefix in ESCAPED {
        if let Some(rest) = bytes.strip_prefix(prefix) {
            return Ok(Cow::Owned(OsString::from_vec([prefix, ESCAPE, rest].concat())));
        }
    }
    if is_private_xattr(bytes) || bytes.starts_with(STATUS_PREFIX) {
        return Err(Refusal::Reserved.into());
    }
    if let Some(key) = override_key {
        if bytes == key.as_bytes() || (key == OVERRIDE_CONTAINERS && bytes.starts_with(OVERRIDE_PREFIX)) {
            return Err(Refusal::Reserved.into());
        }
        if key == OVERRIDE_CONTAINERS && bytes.starts_with(b"security.") {
            return Ok(Cow::Owned(OsString::from_vec([OVERRIDE_PREFIX, bytes].concat())));
        }
    }
    Ok(Cow::Borrowed(name))
}

/// The name that users see of an attribute on disk; `None`: they do not.
fn to_user<'a>(name: &'a [u8], override_key: Option<&str>) -> Option<Cow<'a, [u8]>> {
    for prefix in ESCAPED {
        if let Some(rest) = name.strip_prefix(prefix) {
            let rest = rest.strip_prefix(ESCAPE)?;
            return Some(Cow::Owned([prefix, rest].concat()));
        }
    }
    if is_private_xattr(name) {
        return None;
    }
    if let Some(key) = override_key {
        if name == key.as_bytes() {
            return None;
        }
        if key == OVERRIDE_CONTAINERS
            && let Some(rest) = name.strip_prefix(OVERRIDE_PREFIX)
        {
            return rest.starts_with(b"security.").then_some(Cow::Borrowed(rest));
        }
    }
    Some(Cow::Borrowed(name))
}

/// The value of a user's attribute `name`, which the upper keeps as `on_disk`. A layer that was not made for override
/// xattrs keeps `security.*` under its own name.
fn value(backing: &Backing<'_>, name: &OsStr, on_disk: &OsStr) -> Result<Option<Vec<u8>>> {
    let value = backing.xattr(on_disk)?;
    if value.is_none() && name != on_disk && is_security(name.as_bytes()) && matches!(backing, Backing::Lower { .. }) {
        return backing.xattr(name);
    }
    Ok(value)
}

fn is_security(name: &[u8]) -> bool {
    name.starts_with(b"security.")
}

/// The name under which a copy-up writes a lower's attribute; `None`: it does not go along.
pub(crate) fn copied_as<'a>(
    from: &Backing<'_>,
    name: &'a [u8],
    override_key: Option<&str>,
) -> Result<Option<Cow<'a, OsStr>>> {
    if !copies_up(name, override_key) {
        return Ok(None);
    }
    let name = OsStr::from_bytes(name);
    if override_key != Some(OVERRIDE_CONTAINERS) || !is_security(name.as_bytes()) {
        return Ok(Some(Cow::Borrowed(name)));
    }
    let kept = to_disk(name, override_key)?;
    // What the disk itself wants to say of a file of the upper stays with that; what is kept beside it is copied anyway.
    let wanted = matches!(from, Backing::Lower { .. }) && from.xattr(&kept)?.is_none();
    Ok(wanted.then_some(kept))
}

/// Whether an attribute on disk goes along with a copy-up: all but the marks.
pub(crate) fn copies_up(name: &[u8], override_key: Option<&str>) -> bool {
    if override_key.is_some_and(|key| key.as_bytes() == name) {
        return false;
    }
    !is_private_xattr(name)
        || ESCAPED.iter().any(|prefix| name.strip_prefix(*prefix).is_some_and(|rest| rest.starts_with(ESCAPE)))
}

impl UnionFs {
    /// A value, for the process `caller`.
    pub(crate) fn getxattr(&self, inode: &Arc<Inode>, name: &OsStr, caller: u32) -> Result<Vec<u8>> {
        if let Some(question) = name.as_bytes().strip_prefix(STATUS_PREFIX) {
            return self.status(inode, question, caller);
        }
        self.check_carried(name)?;
        let Ok(on_disk) = to_disk(name, self.owners.override_key()) else {
            return Err(Refusal::NoAttribute.into());
        };
        if inode.is_bare() {
            return Err(Refusal::NoAttribute.into());
        }
        self.with_backing(inode, |backing| value(backing, name, &on_disk))?.ok_or_else(|| Refusal::NoAttribute.into())
    }

    /// All names, NUL-terminated.
    pub(crate) fn listxattr(&self, inode: &Arc<Inode>) -> Result<Vec<u8>> {
        if !self.settings.xattr {
            return Err(Refusal::Unsupported.into());
        }
        let key = self.owners.override_key();
        let (on_disk, lower) =
            self.with_backing(inode, |backing| Ok((backing.xattr_names()?, matches!(backing, Backing::Lower { .. }))))?;
        let mut shown = Vec::with_capacity(on_disk.len());
        let names = || on_disk.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        for name in names() {
            if key == Some(OVERRIDE_CONTAINERS) && is_security(name) {
                let kept = to_disk(OsStr::from_bytes(name), key)?;
                if !lower || names().any(|other| other == kept.as_bytes()) {
                    continue;
                }
            }
            if let Some(name) = to_user(name, key)
                && (self.settings.acl || !name.starts_with(ACL_PREFIX))
            {
                shown.extend_from_slice(&name);
                shown.push(0);
            }
        }
        Ok(shown)
    }

    /// Sets a value; `flags` are those of setxattr(2).
    pub(crate) fn setxattr(&self, inode: &Arc<Inode>, name: &OsStr, new: &[u8], flags: i32) -> Result<()> {
        self.check_writable()?;
        self.check_carried(name)?;
        let shown = name;
        let name = to_disk(name, self.owners.override_key())?;
        if name.as_bytes() == OVERRIDE_CONTAINERS.as_bytes()
            && self.upper()?.markers.namespace != Some(Namespace::Trusted)
        {
            // A mount of these marks believes it of a lower, which this upper may be one day.
            return Err(Refusal::Reserved.into());
        }
        if flags != 0 {
            // Answered from where the value is now, so that a refusal copies nothing up.
            let present = self.with_backing(inode, |backing| value(backing, shown, &name))?.is_some();
            match flags {
                libc::XATTR_CREATE if present => return Err(Refusal::Exists.into()),
                libc::XATTR_REPLACE if !present => return Err(Refusal::NoAttribute.into()),
                _ => {}
            }
        }
        inode.set_dressed();
        self.change(inode, |backing| xattr::set(backing.target()?, &name, new, flags))
    }

    /// Removes a value.
    pub(crate) fn removexattr(&self, inode: &Arc<Inode>, name: &OsStr) -> Result<()> {
        self.check_writable()?;
        self.check_carried(name)?;
        let shown = name;
        let name = to_disk(name, self.owners.override_key())?;
        if self.with_backing(inode, |backing| value(backing, shown, &name))?.is_none() {
            return Err(Refusal::NoAttribute.into());
        }
        self.change(inode, |backing| xattr::remove(backing.target()?, &name))
    }

    fn check_carried(&self, name: &OsStr) -> Result<()> {
        let acl = name.as_bytes().starts_with(ACL_PREFIX);
        if !self.settings.xattr || (acl && !self.settings.acl) { Err(Refusal::Unsupported.into()) } else { Ok(()) }
    }

    fn status(&self, inode: &Arc<Inode>, question: &[u8], caller: u32) -> Result<Vec<u8>> {
        match question {
            b"pid" => Ok(std::process::id().to_string().into_bytes()),
            // Where the layers lie is the host's business, not a container's.
            _ if !process::shares_mounts(caller) => Err(Refusal::Reserved.into()),
            b"layers" => Ok(self.stack_listing().into_vec()),
            b"explain" => self.explain(inode),
            _ => match question.strip_prefix(b"explain/") {
                Some(name) => self.explain_absence(inode, OsStr::from_bytes(name)),
                None => Err(Refusal::NoAttribute.into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str) -> Option<String> {
        to_disk(OsStr::new(name), None).ok().map(|name| name.to_string_lossy().into_owned())
    }

    #[test]
    fn marks_of_an_inner_overlay_are_escaped() {
        assert_eq!(disk("trusted.overlay.opaque").as_deref(), Some("trusted.overlay.overlay.opaque"));
        assert_eq!(disk("user.overlay.overlay.x").as_deref(), Some("user.overlay.overlay.overlay.x"));
        assert_eq!(to_user(b"trusted.overlay.overlay.opaque", None).as_deref(), Some(&b"trusted.overlay.opaque"[..]));
        assert_eq!(to_user(b"trusted.overlay.opaque", None), None);
        assert_eq!(disk("user.fuseoverlayfs.origin"), None);
        assert_eq!(disk("user.x").as_deref(), Some("user.x"));
    }

    #[test]
    fn overrides_hide_and_keep_what_root_alone_sets() {
        let key = Some(OVERRIDE_CONTAINERS);
        assert!(to_disk(OsStr::new(OVERRIDE_CONTAINERS), key).is_err());
        let capability = to_disk(OsStr::new("security.capability"), key).unwrap();
        assert_eq!(capability, OsStr::new("user.containers.override_security.capability"));
        assert_eq!(to_user(capability.as_bytes(), key).as_deref(), Some(&b"security.capability"[..]));
        assert_eq!(to_user(OVERRIDE_CONTAINERS.as_bytes(), key), None);
    }
}
