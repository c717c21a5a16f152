//! The errors of this crate, and their one mapping to an errno.

use std::ffi::OsStr;
use std::fmt;

use rustix::io::Errno;

/// The result of everything in this crate that can fail while serving a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. [`Error::errno`] is the only place where it becomes a number.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a backing object failed.
    #[error("{call} {object:?}: {source}")]
    Call {
        /// The system call.
        call: &'static str,
        /// The name it was given, relative to a directory descriptor.
        object: Box<str>,
        /// What the kernel answered.
        source: Errno,
    },
    /// The request is against the rules of a POSIX filesystem or of this one.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// A layer holds something that this crate does not follow.
    #[error("layer {layer}: {object:?}: {fault}")]
    Layer {
        /// Position in the stack, the upper being 0 and the lowers counting from 1.
        layer: usize,
        /// The object's name.
        object: Box<str>,
        /// What is wrong with it.
        fault: LayerFault,
    },
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No object has this name.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("file exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// A directory cannot serve here.
    #[error("is a directory")]
    IsDirectory,
    /// The directory still has visible entries.
    #[error("directory not empty")]
    NotEmpty,
    /// The mount has no upper, or is mounted `ro`.
    #[error("read-only mount")]
    ReadOnly,
    /// The name is that of a whiteout file on disk.
    #[error("names that begin as whiteout files do are reserved")]
    ReservedName,
    /// The device 0:0 is a whiteout on disk; or a mark was addressed by its own name.
    #[error("reserved for the bookkeeping of the union")]
    Reserved,
    /// Longer than the filesystem below holds.
    #[error("name too long")]
    NameTooLong,
    /// Renaming this would need a redirect and redirects are off.
    #[error("renaming a directory of a lower layer needs redirect_dir=on")]
    CrossDevice,
    /// The kernel asked about an inode that it was never told of.
    #[error("unknown inode")]
    UnknownInode,
    /// The kernel used a file handle that is not open.
    #[error("unknown file handle")]
    UnknownHandle,
    /// The nodeid stands for data that moved: the name leads to another one.
    #[error("the file has a new nodeid")]
    Renumbered,
    /// What was found under a name is not there any more: the VFS looks again.
    #[error("the file was copied up meanwhile")]
    Outdated,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The caller's buffer is too small.
    #[error("buffer too small")]
    Range,
    /// Not carried by this filesystem.
    #[error("operation not supported")]
    Unsupported,
    /// Not a combination of arguments that has a meaning.
    #[error("invalid argument")]
    Invalid,
    /// Unknown ioctl.
    #[error("inappropriate ioctl")]
    NotTty,
    /// It is the program of a running process.
    #[error("text file busy")]
    Executed,
    /// The file may only grow.
    #[error("only appending to this file is permitted")]
    AppendOnly,
    /// Owner or group has no mapping to the disk.
    #[error("id has no mapping")]
    Unmapped,
    /// A layer leads back into the mount that it is a layer of.
    #[error("the mount itself, seen through one of its layers")]
    OwnMount,
}

/// What is wrong with an object in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayerFault {
    /// A redirect that is empty, holds `..`, or is longer than a path can be.
    #[error("malformed redirect")]
    BadRedirect,
    /// A redirect while `redirect_dir` does not allow following.
    #[error("a redirect, but redirect_dir is off")]
    RedirectOff,
    /// A metacopy while `metacopy` is off.
    #[error("a metacopy, but metacopy is off")]
    MetacopyOff,
    /// A metacopy whose data is in no lower layer.
    #[error("a metacopy without data below")]
    MetacopyWithoutData,
    /// An `override_stat` that cannot be parsed.
    #[error("malformed override_stat")]
    BadOverride,
}

impl Error {
    /// An error of `call` on `object`.
    #[cold]
    pub(crate) fn call(call: &'static str, object: &OsStr, source: Errno) -> Self {
        Self::Call { call, object: object.to_string_lossy().into(), source }
    }

    /// An error in what a layer holds.
    #[cold]
    pub(crate) fn layer(layer: usize, object: &OsStr, fault: LayerFault) -> Self {
        Self::Layer { layer, object: object.to_string_lossy().into(), fault }
    }

    /// The number that the caller of the system call sees.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Call { source, .. } => *source,
            Self::Refused(refusal) => refusal.errno(),
            Self::Layer { .. } => Errno::IO,
        }
    }

    /// Whether the answer is part of normal work and not worth a log line above debug.
    pub fn is_expected(&self) -> bool {
        match self {
            Self::Call { source, .. } => !matches!(*source, Errno::IO | Errno::MFILE | Errno::NFILE | Errno::NOMEM),
            Self::Refused(r) => !matches!(r, Refusal::UnknownInode | Refusal::UnknownHandle),
            Self::Layer { .. } => false,
        }
    }
}

impl Refusal {
    fn errno(self) -> Errno {
        match self {
            Self::NotFound => Errno::NOENT,
            Self::Exists => Errno::EXIST,
            Self::NotDirectory => Errno::NOTDIR,
            Self::IsDirectory => Errno::ISDIR,
            Self::NotEmpty => Errno::NOTEMPTY,
            Self::ReadOnly => Errno::ROFS,
            Self::ReservedName | Self::Invalid => Errno::INVAL,
            Self::Reserved => Errno::PERM,
            Self::NameTooLong => Errno::NAMETOOLONG,
            Self::CrossDevice => Errno::XDEV,
            Self::UnknownInode | Self::Renumbered | Self::Outdated => Errno::STALE,
            Self::UnknownHandle => Errno::BADF,
            Self::NoAttribute => Errno::NODATA,
            Self::Range => Errno::RANGE,
            Self::Unsupported => Errno::OPNOTSUPP,
            Self::NotTty => Errno::NOTTY,
            Self::Executed => Errno::TXTBSY,
            Self::AppendOnly => Errno::PERM,
            Self::Unmapped => Errno::OVERFLOW,
            Self::OwnMount => Errno::LOOP,
        }
    }
}

/// Names a stage of opening a stack, for [`OpenError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerRole {
    /// A read-only layer.
    Lower,
    /// The writable layer.
    Upper,
    /// The staging directory.
    Work,
}

impl fmt::Display for LayerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lower => "lower layer",
            Self::Upper => "upper layer",
            Self::Work => "workdir",
        })
    }
}

/// Why a stack of layers cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing below the upper.
    #[error("a union needs at least one lower layer (lowerdir=…)")]
    NoLower,
    /// More than [`crate::layer::MAX_LOWERS`].
    #[error("{0} lower layers given, {max} is the most", max = crate::layer::MAX_LOWERS)]
    TooManyLowers(usize),
    /// An upper without a place to stage changes.
    #[error("an upper layer needs a workdir on the same filesystem (workdir=…)")]
    NoWork,
    /// A directory of the stack cannot be opened.
    #[error("{role} {path}: {source}", path = .path.display())]
    Open {
        /// Its role.
        role: LayerRole,
        /// As it was given.
        path: std::path::PathBuf,
        /// What the kernel answered.
        source: Errno,
    },
    /// Another mount works on it.
    #[error("{role} {path} is in use by another mount; unmount that one first", path = .path.display())]
    InUse {
        /// Its role.
        role: LayerRole,
        /// As it was given.
        path: std::path::PathBuf,
    },
    /// Upper and workdir must be able to exchange names.
    #[error("workdir {work} is not on the same mount as upperdir {upper}; choose one beside it", work = .work.display(), upper = .upper.display())]
    WorkElsewhere {
        /// The upper.
        upper: std::path::PathBuf,
        /// The workdir.
        work: std::path::PathBuf,
    },
    /// Deletions could not be recorded: the upper would lie in another union.
    #[error("workdir {work}: its filesystem holds no whiteouts; an upper cannot lie inside another union", work = .work.display())]
    NoWhiteouts {
        /// The workdir.
        work: std::path::PathBuf,
    },
    /// One contains the other.
    #[error("workdir {work} and upperdir {upper} must be separate directories, neither inside the other", work = .work.display(), upper = .upper.display())]
    Overlap {
        /// The upper.
        upper: std::path::PathBuf,
        /// The workdir.
        work: std::path::PathBuf,
    },
    /// What is written to the upper would change a lower layer.
    #[error("lower layer {lower} is, or lies in, {role} {path}, which the mount writes to", lower = .lower.display(), path = .path.display())]
    LowerInside {
        /// The lower layer.
        lower: std::path::PathBuf,
        /// What it lies in: the upper or the workdir.
        role: LayerRole,
        /// As that was given.
        path: std::path::PathBuf,
    },
    /// Nothing can be written where the upper lies.
    #[error(
        "upper layer {upper} lies on a read-only filesystem; to look at it, mount it as the top lower layer, without an upper",
        upper = .upper.display()
    )]
    ReadOnlyUpper {
        /// The upper.
        upper: std::path::PathBuf,
    },
    /// A layer, or the workdir's content, could not be prepared.
    #[error("{role} {path}: {source}", path = .path.display())]
    Prepare {
        /// What was prepared.
        role: LayerRole,
        /// As it was given.
        path: std::path::PathBuf,
        /// What failed.
        source: Error,
    },
}
