//! What a mount is asked to do, as plain data: no I/O happens here.
//!
//! [`Options`] is filled by a command line or by one of the two option
//! dialects ([`Dialect`]) and consumed by [`crate::mount`].

use std::path::PathBuf;
use std::time::Duration;

/// Whether directory redirects are followed and made
/// (kernel `Documentation/filesystems/overlayfs.rst`, "redirect_dir").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectDir {
    /// Renaming a lower or merged directory writes a redirect; redirects are followed.
    On,
    /// Redirects are followed, none is written: such a rename is `EXDEV`.
    Follow,
    /// None is written, and an object that carries one is refused.
    Off,
}

/// The xattr namespace that holds the mount's own marks and whose redirect,
/// metacopy, origin and override marks are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkNamespace {
    /// `trusted` where the upper's filesystem lets this process write it, else `user`.
    Auto,
    /// `trusted.overlay.*`
    Trusted,
    /// `user.overlay.*` (kernel option `userxattr`)
    User,
}

/// How the upper is written: what its other readers understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpperFormat {
    /// As kernel overlayfs writes it.
    Overlay,
    /// As overlayfs, and beside the opaque xattr the file `.wh..wh..opq` that
    /// fuse-overlayfs leaves and containers/storage looks for.
    FuseOverlayfs,
}

/// One contiguous range of an id mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id shown in the mount.
    pub container: u32,
    /// First id on disk.
    pub host: u32,
    /// Number of ids.
    pub len: u32,
}

/// Owners and modes: what is shown against what is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Empty: uids are shown as they are on disk.
    pub uid_map: Vec<IdRange>,
    /// Empty: gids are shown as they are on disk.
    pub gid_map: Vec<IdRange>,
    /// Show every object as owned by this uid.
    pub squash_uid: Option<u32>,
    /// Show every object as owned by this gid.
    pub squash_gid: Option<u32>,
    /// Owners, modes and device types are kept in an override xattr
    /// (`user.containers.override_stat`): fuse-overlayfs's `xattr_permissions`.
    pub xattr_permissions: XattrPermissions,
}

/// fuse-overlayfs's `xattr_permissions=0|1|2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrPermissions {
    /// Owners and modes are those on disk (but a layer whose root carries an
    /// override xattr of the mount's namespace is still read through it).
    #[default]
    Off,
    /// `security.fuseoverlayfs.override_stat` (needs privilege).
    Privileged,
    /// `user.containers.override_stat`.
    User,
}

/// Access times, as mount(8) names the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atime {
    /// Never updated.
    NoAtime,
    /// Updated as the kernel's default has it.
    RelAtime,
    /// Always updated.
    StrictAtime,
}

/// Flags of the mount itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFlags {
    /// `ro`: the mount refuses every change, also with an upper.
    pub read_only: bool,
    /// Device nodes work.
    pub dev: bool,
    /// Set-user-id bits and file capabilities work.
    pub suid: bool,
    /// Programs may be executed.
    pub exec: bool,
    /// Access times.
    pub atime: Atime,
    /// No directory access times.
    pub nodiratime: bool,
    /// Synchronous writes.
    pub sync: bool,
    /// Synchronous directory changes.
    pub dirsync: bool,
    /// Other users may enter the mount.
    pub allow_other: bool,
    /// Root and the mount's owner may enter, nobody else.
    pub allow_root: bool,
    /// The kernel checks permissions. Without it anybody who may enter may do anything.
    pub default_permissions: bool,
    /// Source shown in mountinfo.
    pub fsname: String,
    /// The `X` of the type `fuse.X` in mountinfo.
    pub subtype: String,
    /// SELinux context options (`context=…`), passed to the kernel as they are.
    pub context: Vec<String>,
}

impl Default for MountFlags {
    fn default() -> Self {
        Self {
            read_only: false,
            dev: true,
            suid: true,
            exec: true,
            atime: Atime::NoAtime,
            nodiratime: false,
            sync: false,
            dirsync: false,
            allow_other: false,
            allow_root: false,
            default_permissions: true,
            fsname: "lamel".to_owned(),
            subtype: "lamel".to_owned(),
            context: Vec::new(),
        }
    }
}

/// Everything a mount needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Read-only layers, top first; 1 to 500.
    pub lowers: Vec<PathBuf>,
    /// The writable layer; without it the mount is read-only.
    pub upper: Option<PathBuf>,
    /// Staging directory, on the upper's filesystem. Required with an upper.
    pub work: Option<PathBuf>,
    /// Where to mount.
    pub mountpoint: PathBuf,
    /// Directory redirects.
    pub redirect_dir: RedirectDir,
    /// Attribute-only copy-up: made and followed, or neither.
    pub metacopy: bool,
    /// Keep hard links of lower files one inode after copy-up.
    pub index: bool,
    /// Where marks live.
    pub namespace: MarkNamespace,
    /// Which other readers the upper is written for.
    pub format: UpperFormat,
    /// `false`: deletions are always written as `.wh.NAME` files, never as
    /// character devices 0:0.
    pub device_whiteouts: bool,
    /// `volatile`: nothing is ever synced, copy-up included; an unclean end may lose the upper.
    pub volatile: bool,
    /// `fsync=0`: a program's fsync is acknowledged without doing it.
    pub fsync: bool,
    /// Owners and modes.
    pub ownership: Ownership,
    /// POSIX ACLs are honoured.
    pub acl: bool,
    /// Extended attributes of users are served.
    pub xattr: bool,
    /// How long the kernel may keep entries and attributes; `None`: for ever.
    pub timeout: Option<Duration>,
    /// Kernel writeback cache where passthrough is not available.
    pub writeback: bool,
    /// Kernel passthrough for files of the upper, where permitted.
    pub passthrough: bool,
    /// Every directory shows link count 1 (fuse-overlayfs `static_nlink`).
    pub static_nlink: bool,
    /// Inode numbers are folded to 32 bits (fuse-overlayfs `ino32_t`).
    pub ino32: bool,
    /// Threads that serve requests; `None`: chosen from the number of CPUs.
    pub threads: Option<usize>,
    /// The mount itself.
    pub flags: MountFlags,
}

impl Options {
    /// The defaults of `lamel mount` for `mountpoint`, without layers.
    pub fn new(mountpoint: impl Into<PathBuf>) -> Self {
        Self {
            lowers: Vec::new(),
            upper: None,
            work: None,
            mountpoint: mountpoint.into(),
            redirect_dir: RedirectDir::On,
            metacopy: true,
            index: true,
            namespace: MarkNamespace::Auto,
            format: UpperFormat::Overlay,
            device_whiteouts: true,
            volatile: false,
            fsync: true,
            ownership: Ownership::default(),
            acl: true,
            xattr: true,
            timeout: None,
            writeback: true,
            passthrough: true,
            static_nlink: false,
            ino32: false,
            threads: None,
            flags: MountFlags::default(),
        }
    }
}
