//! What a mount is asked to do, as plain data: no I/O happens here.
//!
//! [`Options`] is filled by a command line or by one of the two option
//! dialects ([`Dialect`]) and consumed by [`crate::mount`].
//!
//! Reading order: this file, `options/text.rs` (commas, colons, escapes), the
//! dialects `options/overlay.rs` and `options/fuse_overlayfs.rs`, and what they
//! share, `options/union.rs` and `options/flags.rs`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod flags;
mod fuse_overlayfs;
mod idmap;
mod overlay;
mod suggest;
mod text;
mod union;
mod value;

pub use text::escape_path;

/// The most lower layers of one stack.
const MAX_LOWERS: usize = 500;
/// The longest option string, in bytes. The kernel passes no longer argument to a program.
const MAX_TEXT: usize = 128 * 1024;
/// The longest path, in bytes (`PATH_MAX` without its NUL).
const MAX_PATH: usize = 4095;

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

/// How the kernel reaches the data of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// Through the page cache, and opening a file is no request: the fastest wherever many files are opened.
    /// A file is copied up by the first change of its data, not when it is opened for writing. Where the kernel does
    /// not offer this, or this process may not open every file again at any time: [`Io::Handles`].
    Cached,
    /// Through the page cache, each open being a request for which a descriptor is held.
    Handles,
    /// As [`Io::Handles`], but the kernel reads and writes the upper's files, and reads all but the small ones of lower
    /// directories, by itself (Linux 6.9, privileged): the fastest for bulk data. What is open of such a lower file keeps
    /// its content when the file is copied up.
    Passthrough,
}

impl Io {
    /// What becomes of the wish where the kernel does, or does not, open files by itself.
    pub(crate) fn resolve(self, no_open: bool) -> Self {
        match self {
            Self::Cached if !(no_open && crate::sys::credentials::may_open_all()) => Self::Handles,
            other => other,
        }
    }
}

/// One contiguous range of an id mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id on disk, which is the one that the container sees.
    pub container: u32,
    /// First id shown in the mount, which the container's user namespace turns back.
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
    /// Show objects of uids that `uid_map` does not cover as owned by this uid, not by 65534. What is stored is the owner
    /// that they have, until somebody gives them to another.
    pub overflow_uid: Option<u32>,
    /// The same of gids and `gid_map`.
    pub overflow_gid: Option<u32>,
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
    /// Symlinks are not followed.
    pub nosymfollow: bool,
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
            nosymfollow: false,
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
    /// How the kernel reaches the data of files.
    pub io: Io,
    /// The kernel keeps what is written and passes it on later, so that an error is told by fsync or close;
    /// `None`: with [`Io::Handles`]. Never together with passthrough.
    pub writeback: Option<bool>,
    /// Every directory shows link count 1 (fuse-overlayfs `static_nlink`).
    pub static_nlink: bool,
    /// Inode numbers are folded to 32 bits (fuse-overlayfs `ino32_t`).
    pub ino32: bool,
    /// Threads that serve requests; `None`: chosen from the number of CPUs.
    pub threads: Option<usize>,
    /// Keep the other CPU of a machine of two awake while requests follow one another; `None`: on such machines.
    pub spin: Option<bool>,
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
            io: Io::Cached,
            writeback: None,
            static_nlink: false,
            ino32: false,
            threads: None,
            spin: None,
            flags: MountFlags::default(),
        }
    }
}

impl Options {
    /// The defaults of the fuse-overlayfs face: an upper that fuse-overlayfs
    /// can mount tomorrow, and the mount flags that it gives to `root` or to others.
    pub fn fuse_overlayfs(mountpoint: impl Into<PathBuf>, root: bool) -> Self {
        Self {
            redirect_dir: RedirectDir::Off,
            metacopy: false,
            format: UpperFormat::FuseOverlayfs,
            flags: MountFlags {
                dev: false,
                suid: root,
                allow_other: root,
                fsname: "fuse-overlayfs".to_owned(),
                subtype: "fuse-overlayfs".to_owned(),
                ..MountFlags::default()
            },
            ..Self::new(mountpoint)
        }
    }

    /// Makes every path absolute, taking relative ones from `cwd`. Links are not resolved.
    pub fn resolve(&mut self, cwd: &Path) {
        let one = |path: &mut PathBuf| *path = cwd.join(&path);
        self.lowers.iter_mut().for_each(one);
        self.upper.iter_mut().for_each(one);
        self.work.iter_mut().for_each(one);
        one(&mut self.mountpoint);
    }

    /// Takes the options of `text`, which is written in `dialect`; later ones win over earlier ones.
    pub fn parse(&mut self, dialect: Dialect, text: &OsStr) -> Result<Vec<Warning>, OptionError> {
        let mut warnings = Vec::new();
        for token in text::tokens(text)? {
            match dialect {
                Dialect::Overlay => overlay::apply(&token, self)?,
                Dialect::Sloppy => match overlay::apply(&token, self) {
                    Err(OptionError::Unknown { name, .. }) => warnings.push(Warning::Ignored(name)),
                    other => other?,
                },
                Dialect::FuseOverlayfs => warnings.extend(fuse_overlayfs::apply(&token, self)?),
            }
        }
        Ok(warnings)
    }
}

/// The language of an option string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Kernel overlayfs's options and mount(8)'s; anything else is refused.
    Overlay,
    /// The same, but unknown options are passed over (`mount -s`).
    Sloppy,
    /// fuse-overlayfs's options and libfuse's; anything else is passed over.
    FuseOverlayfs,
}

/// Something that was passed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// An option that nobody knows.
    #[error("unknown argument ignored: {0}")]
    Ignored(String),
    /// fuse-overlayfs's `plugins=`.
    #[error("plugins are not supported; plugins= ignored")]
    NoPlugins,
}

/// What is wrong with an option string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No option has this name.
    #[error("unknown option {name:?}{}", .nearest.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default())]
    Unknown {
        /// As it was given.
        name: String,
        /// The known name that looks most like it.
        nearest: Option<&'static str>,
    },
    /// `name` without `=value`.
    #[error("option {name:?} needs a value: {name}=…")]
    NeedsValue {
        /// The option.
        name: String,
    },
    /// `name=value` where `name` stands alone.
    #[error("option {name:?} takes no value")]
    NoValue {
        /// The option.
        name: String,
    },
    /// A value that is none of the possible ones.
    #[error("option {name:?}: {value:?} is not {expected}")]
    BadValue {
        /// The option.
        name: String,
        /// Its value.
        value: String,
        /// The values that there are.
        expected: &'static str,
    },
    /// Known and not done.
    #[error("option {name:?} is not possible: {why}")]
    Refused {
        /// The option.
        name: String,
        /// The reason.
        why: &'static str,
    },
    /// A map of ids that makes no sense.
    #[error("option {name:?}: {value:?}: {why}")]
    IdMap {
        /// The option.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No path where one belongs.
    #[error("option {name:?}: an empty path (write a colon of a path as \\:)")]
    EmptyPath {
        /// The option.
        name: String,
    },
    /// Longer than the kernel takes.
    #[error("option {name:?}: a path of {len} bytes, {max} is the most", max = MAX_PATH)]
    PathTooLong {
        /// The option.
        name: String,
        /// Its length.
        len: usize,
    },
    /// More lower layers than a stack takes.
    #[error("{count} lower layers given, {max} is the most", max = MAX_LOWERS)]
    TooManyLowers {
        /// How many there are, as far as they were counted.
        count: usize,
    },
    /// The text is longer than any program's argument.
    #[error("{len} bytes of options, {max} is the most", max = MAX_TEXT)]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// A NUL byte.
    #[error("a NUL byte in the options")]
    Nul,
    /// `"` without its other half.
    #[error("option {name:?}: the closing quote is missing, or does not end the value")]
    UnclosedQuote {
        /// The option.
        name: String,
    },
}

#[cfg(test)]
mod tests;
