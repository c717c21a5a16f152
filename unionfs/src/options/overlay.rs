//! The dialect of `lamel mount -o`: kernel overlayfs's options, as mount(8)
//! users write them. What is not known is refused.

use super::suggest::nearest;
use super::text::{Token, shown};
use super::{OptionError, Options, flags, union};

/// Takes one option.
pub(super) fn apply(token: &Token<'_>, options: &mut Options) -> Result<(), OptionError> {
    if union::apply(token, options)? || flags::apply(token, &mut options.flags)? {
        return Ok(());
    }
    let refused = |why| Err(OptionError::Refused { name: shown(token.key), why });
    match token.key {
        b"nfs_export" if token.switch()? => refused(
            "FUSE file handles do not outlive the daemon, so that an NFS server could not keep its promises; \
             export the layers, or use kernel overlayfs",
        ),
        b"verity" if token.value != Some(b"off") => {
            refused("fs-verity digests of metacopies are neither written nor checked")
        }
        b"uuid" if token.value == Some(b"on") => refused("the mount has no UUID of its own"),
        b"datadir+" => refused("data-only layers are not supported; give the layer as a lowerdir"),
        // What lamel does anyway: the daemon works with the rights of its mounter.
        b"nfs_export" | b"verity" | b"uuid" | b"override_creds" => Ok(()),
        b"nooverride_creds" => refused("the daemon always works with the rights of its mounter"),
        unknown => Err(OptionError::Unknown { name: shown(unknown), nearest: suggestion(unknown) }),
    }
}

fn suggestion(unknown: &[u8]) -> Option<&'static str> {
    const REFUSED: &[&str] = &["nfs_export", "verity", "uuid"];
    let known: Vec<&'static str> = union::KNOWN.iter().chain(flags::KNOWN).chain(REFUSED).copied().collect();
    nearest(unknown, &known)
}
