//! Options of the mount itself: the flags of mount(8) and of FUSE.

use super::text::{Token, shown};
use super::{Atime, MountFlags, OptionError};

/// Names that [`apply`] knows.
pub(super) const KNOWN: &[&str] = &[
    "ro",
    "rw",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "exec",
    "noexec",
    "atime",
    "noatime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "diratime",
    "nodiratime",
    "sync",
    "async",
    "dirsync",
    "nosymfollow",
    "symfollow",
    "defaults",
    "allow_other",
    "noallow_other",
    "allow_root",
    "default_permissions",
    "context",
    "fscontext",
    "defcontext",
    "rootcontext",
    "fsname",
    "subtype",
];

/// The longest source or type that is passed on to the kernel.
const LONGEST_NAME: usize = 255;

/// Takes `token` if it is a flag of the mount; says whether it was.
pub(super) fn apply(token: &Token<'_>, flags: &mut MountFlags) -> Result<bool, OptionError> {
    match token.key {
        b"context" | b"fscontext" | b"defcontext" | b"rootcontext" => {
            flags.context.push(security_context(token)?);
            return Ok(true);
        }
        b"fsname" => {
            flags.fsname = name(token)?;
            return Ok(true);
        }
        b"subtype" => {
            flags.subtype = name(token)?;
            return Ok(true);
        }
        // With a value it is an option of another kind.
        b"sync" if token.value.is_some() => return Ok(false),
        key if switch(key, flags) => token.bare()?,
        key if is_for_mount8(key) => {}
        b"remount" | b"bind" | b"rbind" | b"move" => {
            return Err(OptionError::Refused {
                name: shown(token.key),
                why: "an existing mount is changed by mount(8) without a helper: mount -i -o remount,…",
            });
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Sets the flag named `key`; `false` when there is none.
fn switch(key: &[u8], flags: &mut MountFlags) -> bool {
    match key {
        b"ro" => flags.read_only = true,
        b"rw" => flags.read_only = false,
        b"dev" => flags.dev = true,
        b"nodev" => flags.dev = false,
        b"suid" => flags.suid = true,
        b"nosuid" => flags.suid = false,
        b"exec" => flags.exec = true,
        b"noexec" => flags.exec = false,
        b"atime" | b"relatime" | b"nostrictatime" => flags.atime = Atime::RelAtime,
        b"noatime" => flags.atime = Atime::NoAtime,
        b"strictatime" | b"norelatime" => flags.atime = Atime::StrictAtime,
        b"diratime" => flags.nodiratime = false,
        b"nodiratime" => flags.nodiratime = true,
        b"sync" => flags.sync = true,
        b"async" => flags.sync = false,
        b"dirsync" => flags.dirsync = true,
        b"symfollow" => flags.nosymfollow = false,
        b"nosymfollow" => flags.nosymfollow = true,
        b"allow_other" => flags.allow_other = true,
        b"noallow_other" => flags.allow_other = false,
        b"allow_root" => flags.allow_root = true,
        b"default_permissions" => flags.default_permissions = true,
        b"defaults" => {}
        _ => return false,
    }
    true
}

/// What mount(8) and the init system read from fstab for themselves, and kernel
/// flags that say nothing to a FUSE mount.
fn is_for_mount8(key: &[u8]) -> bool {
    matches!(
        key,
        b"auto"
            | b"noauto"
            | b"user"
            | b"nouser"
            | b"users"
            | b"nousers"
            | b"owner"
            | b"noowner"
            | b"group"
            | b"nogroup"
            | b"_netdev"
            | b"nofail"
            | b"comment"
            | b"silent"
            | b"loud"
            | b"quiet"
            | b"mand"
            | b"nomand"
            | b"iversion"
            | b"noiversion"
            | b"lazytime"
            | b"nolazytime"
            | b"seclabel"
            | b"uhelper"
            | b"helper"
    ) || key.starts_with(b"x-")
        || key.starts_with(b"X-")
}

/// Text for mountinfo and for the option string of a mount helper.
fn name(token: &Token<'_>) -> Result<String, OptionError> {
    let text = token.text()?;
    if text.is_empty() || text.len() > LONGEST_NAME || text.contains([',', '\\', '"']) {
        return Err(token.bad("up to 255 characters, without comma, quote and backslash"));
    }
    Ok(text)
}

/// An SELinux context as the kernel reads it back: in quotes if it holds a comma.
fn security_context(token: &Token<'_>) -> Result<String, OptionError> {
    let text = token.text()?;
    if text.is_empty() || text.contains(['"', '\\']) {
        return Err(token.bad("an SELinux context"));
    }
    let key = shown(token.key);
    Ok(if text.contains(',') { format!("{key}=\"{text}\"") } else { format!("{key}={text}") })
}
