//! The dialect of the fuse-overlayfs face: its options and its habits. What is
//! not known is passed over with a warning, as its callers expect.

use super::text::{Token, shown};
use super::{OptionError, Options, Warning, flags, union};

/// Takes one option; a warning comes back for one that is passed over.
pub(super) fn apply(token: &Token<'_>, options: &mut Options) -> Result<Option<Warning>, OptionError> {
    match token.key {
        b"threaded" => options.threads = if token.switch()? { None } else { Some(1) },
        b"noxattrs" => options.xattr = !token.switch()?,
        // The name that its own tests use.
        b"sync" if token.value.is_some() => options.fsync = token.switch()?,
        b"lowerdir" if has_plugin(token) => {
            return Err(OptionError::Refused {
                name: shown(token.key),
                why: "layers of plugins (//plugin/…) are not supported",
            });
        }
        b"plugins" if token.value.is_some_and(|list| !list.is_empty()) => {
            return Ok(Some(Warning::NoPlugins));
        }
        key if is_ignored(key) => {}
        _ => {
            if !union::apply(token, options)? && !flags::apply(token, &mut options.flags)? {
                return Ok(Some(Warning::Ignored(match token.value {
                    Some(value) => format!("{}={}", shown(token.key), shown(value)),
                    None => shown(token.key),
                })));
            }
        }
    }
    Ok(None)
}

fn has_plugin(token: &Token<'_>) -> bool {
    let list = token.value.unwrap_or_default();
    list.starts_with(b"//") || list.windows(3).any(|part| part == b"://")
}

/// Known to fuse-overlayfs or to libfuse, and without a meaning here.
fn is_ignored(key: &[u8]) -> bool {
    matches!(
        key,
        b"plugins"
            | b"fast_ino"
            | b"fast_ino_check"
            | b"debug"
            | b"nonempty"
            | b"kernel_cache"
            | b"auto_cache"
            | b"noauto_cache"
            | b"max_read"
            | b"max_write"
            | b"max_readahead"
            | b"max_background"
            | b"congestion_threshold"
            | b"async_read"
            | b"sync_read"
            | b"atomic_o_trunc"
            | b"big_writes"
            | b"no_remote_lock"
            | b"no_remote_flock"
            | b"no_remote_posix_lock"
            | b"use_ino"
            | b"readdir_ino"
            | b"hard_remove"
            | b"entry_timeout"
            | b"attr_timeout"
            | b"negative_timeout"
            | b"ac_attr_timeout"
            | b"intr"
            | b"intr_signal"
            | b"clone_fd"
            | b"max_idle_threads"
            | b"max_threads"
            | b"blkdev"
            | b"writeback_cache"
            | b"auto_unmount"
    ) || key.starts_with(b"splice_")
        || key.starts_with(b"no_splice_")
}
