//! What a session may rely on: what the mount wants, and the kernel offers.

use fuser::{InitFlags, KernelConfig};

use crate::options::Io;
use crate::sys::credentials;
use crate::union::Settings;

/// What this end and the kernel agreed upon when the session began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Agreed {
    /// The kernel opens files by itself ([`Io::Cached`]).
    pub(super) no_open: bool,
    /// And directories.
    pub(super) no_opendir: bool,
    /// The kernel keeps written pages and their times, and tells both later.
    pub(super) writeback: bool,
    /// Set-id bits are ours to take away when data is changed. Otherwise the kernel asks for
    /// `security.capability` before each write.
    pub(super) killpriv: bool,
}

impl Agreed {
    /// Asks the kernel for what the settings come to.
    pub(super) fn on(settings: &Settings, config: &mut KernelConfig) -> std::io::Result<Self> {
        let offered = config.capabilities();
        let mut wanted = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_HAS_IOCTL_DIR;
        wanted.set(InitFlags::FUSE_POSIX_ACL, settings.acl);
        let io = settings.io.resolve(offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT));
        // A truncation comes with the open, or, where no open comes, by itself.
        wanted.set(InitFlags::FUSE_ATOMIC_O_TRUNC, io != Io::Cached);
        if io == Io::Passthrough && credentials::is_initial_root() && offered.contains(InitFlags::FUSE_PASSTHROUGH) {
            // The kernel carries passthrough or the writeback cache, not both, and takes set-id bits away by itself:
            // this end does not see those writes.
            wanted |= InitFlags::FUSE_PASSTHROUGH;
            config.set_max_stack_depth(1).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        } else {
            wanted |= InitFlags::FUSE_HANDLE_KILLPRIV_V2;
            wanted.set(InitFlags::FUSE_WRITEBACK_CACHE, settings.writeback.unwrap_or(io != Io::Cached));
        }
        let missing = wanted.difference(offered);
        if !missing.is_empty() {
            tracing::info!(?missing, "the kernel does not offer");
        }
        let both = wanted & offered;
        let agreed = Self {
            no_open: io == Io::Cached,
            no_opendir: offered.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT),
            writeback: both.contains(InitFlags::FUSE_WRITEBACK_CACHE),
            killpriv: both.contains(InitFlags::FUSE_HANDLE_KILLPRIV_V2),
        };
        tracing::debug!(?io, ?agreed);
        config.add_capabilities(both).map_err(|_| std::io::ErrorKind::Unsupported)?;
        Ok(agreed)
    }
}
