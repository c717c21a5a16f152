//! Options of the union that both dialects spell alike.

use super::text::{Token, path, paths};
use super::{Io, MAX_LOWERS, MarkNamespace, OptionError, Options, RedirectDir, XattrPermissions, idmap};

/// Names that [`apply`] knows.
pub(super) const KNOWN: &[&str] = &[
    "lowerdir",
    "upperdir",
    "workdir",
    "redirect_dir",
    "metacopy",
    "index",
    "xino",
    "userxattr",
    "volatile",
    "fsync",
    "uidmapping",
    "gidmapping",
    "squash_to_root",
    "squash_to_uid",
    "squash_to_gid",
    "overflow_uid",
    "overflow_gid",
    "xattr_permissions",
    "acl",
    "noacl",
    "static_nlink",
    "ino32_t",
    "timeout",
    "io",
    "writeback",
    "threads",
    "spin",
];

/// More threads than this serve nobody.
const MAX_THREADS: u32 = 256;

/// Takes `token` if it is an option of the union; says whether it was.
pub(super) fn apply(token: &Token<'_>, options: &mut Options) -> Result<bool, OptionError> {
    match token.key {
        b"lowerdir" => options.lowers = paths(token.key, token.needed()?)?,
        b"lowerdir+" => {
            if options.lowers.len() == MAX_LOWERS {
                return Err(OptionError::TooManyLowers { count: MAX_LOWERS + 1 });
            }
            options.lowers.push(path(token.key, token.needed()?)?);
        }
        b"upperdir" => options.upper = Some(path(token.key, token.needed()?)?),
        b"workdir" => options.work = Some(path(token.key, token.needed()?)?),
        b"redirect_dir" => {
            options.redirect_dir = match token.needed()? {
                b"on" => RedirectDir::On,
                b"follow" => RedirectDir::Follow,
                b"off" | b"nofollow" => RedirectDir::Off,
                _ => return Err(token.bad("on, follow, nofollow or off")),
            }
        }
        b"metacopy" => options.metacopy = token.switch()?,
        b"index" => options.index = token.switch()?,
        // Numbers are unique and stable with any of them.
        b"xino" if token.value == Some(b"auto") => {}
        b"xino" => drop(token.switch()?),
        b"userxattr" => {
            token.bare()?;
            options.namespace = MarkNamespace::User;
        }
        b"volatile" => {
            token.bare()?;
            options.volatile = true;
        }
        b"fsync" => options.fsync = token.switch()?,
        b"uidmapping" => options.ownership.uid_map = idmap::parse(token.key, token.needed()?)?,
        b"gidmapping" => options.ownership.gid_map = idmap::parse(token.key, token.needed()?)?,
        b"squash_to_root" => {
            token.bare()?;
            options.ownership.squash_uid = Some(0);
            options.ownership.squash_gid = Some(0);
        }
        b"squash_to_uid" => options.ownership.squash_uid = Some(token.id()?),
        b"squash_to_gid" => options.ownership.squash_gid = Some(token.id()?),
        b"overflow_uid" => options.ownership.overflow_uid = Some(token.id()?),
        b"overflow_gid" => options.ownership.overflow_gid = Some(token.id()?),
        b"xattr_permissions" => {
            options.ownership.xattr_permissions = match token.needed()? {
                b"0" => XattrPermissions::Off,
                b"1" => XattrPermissions::Privileged,
                b"2" => XattrPermissions::User,
                _ => return Err(token.bad("0, 1 or 2")),
            }
        }
        b"acl" => options.acl = token.switch()?,
        b"noacl" => options.acl = !token.switch()?,
        b"static_nlink" => options.static_nlink = token.switch()?,
        b"ino32_t" => options.ino32 = token.switch()?,
        b"timeout" => options.timeout = token.seconds()?,
        b"io" => {
            options.io = match token.needed()? {
                b"auto" | b"cached" => Io::Cached,
                b"handles" => Io::Handles,
                b"passthrough" => Io::Passthrough,
                _ => return Err(token.bad("auto, cached, handles or passthrough")),
            }
        }
        b"writeback" => options.writeback = Some(token.switch()?),
        b"spin" => options.spin = Some(token.switch()?),
        b"threads" => {
            options.threads = match token.number()? {
                threads @ 1..=MAX_THREADS => usize::try_from(threads).ok(),
                _ => return Err(token.bad("1 to 256")),
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}
