//! Why a layer cannot be indexed, or an index not be used.

use std::io;
use std::path::PathBuf;

use crate::Digest;

/// What went wrong with a layer's tar or its index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The stream itself failed.
    #[error("reading the layer: {0}")]
    Read(#[source] io::Error),
    /// The archive is malformed, or means different things to different readers.
    #[error("layer tar, at byte {at}: {fault}")]
    Tar {
        /// Bytes of the archive read so far.
        at: u64,
        /// What is wrong.
        fault: TarFault,
    },
    /// A member cannot be given a place in the layer.
    #[error("layer tar: {path:?}: {fault}")]
    Member {
        /// The member's name as the archive has it.
        path: Box<str>,
        /// What is wrong.
        fault: MemberFault,
    },
    /// More than a layer may have.
    #[error("layer tar: {path:?}: more than {most} {limit}: refused as a bomb")]
    Limit {
        /// The member that goes too far.
        path: Box<str>,
        /// What there is too much of.
        limit: &'static str,
        /// The most that is taken.
        most: u64,
    },
    /// A file of the store cannot be used.
    #[error("{path}: {source}", path = .path.display())]
    Open {
        /// The layer's place in the store.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The index file is of another version of lamel.
    #[error("layer index of format {0}, {ours} is read: run `lamel verify` to have it made again", ours = super::format::VERSION)]
    Version(u32),
    /// The index file is not what was written.
    #[error("layer index is damaged ({0}): run `lamel verify` to have it made again")]
    Damaged(&'static str),
    /// The index belongs to another tar.
    #[error("layer index is of another layer than {0}: run `lamel verify` to have it made again")]
    Foreign(Digest),
    /// The tar is shorter than what was indexed.
    #[error("layer tar of {layer} has {len} bytes, {wanted} were indexed: pull the image again")]
    Short {
        /// Its diffID.
        layer: Digest,
        /// Bytes that it has.
        len: u64,
        /// Bytes that it must have.
        wanted: u64,
    },
    /// More layers than one stack may have.
    #[error("{0} layers in one image, {max} is the most", max = lamel_unionfs::layer::MAX_LOWERS)]
    TooManyLayers(usize),
}

/// What is wrong with an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TarFault {
    /// The stream ends in the middle of something.
    #[error("the archive is cut off")]
    Truncated,
    /// A header's checksum does not match.
    #[error("a header with a wrong checksum")]
    Checksum,
    /// Neither v7, ustar nor GNU.
    #[error("a header of an unknown format")]
    Format,
    /// A numeric field that is none, or one out of range.
    #[error("a malformed number in a header")]
    Number,
    /// An owner that no file can have.
    #[error("an owner or group beyond 32 bits")]
    Owner,
    /// A device number that no node can have.
    #[error("a device number out of range")]
    Device,
    /// A malformed PAX record.
    #[error("a malformed extended header")]
    Pax,
    /// A NUL in a name.
    #[error("a name that holds a NUL byte")]
    Nul,
    /// A malformed map of a sparse file.
    #[error("a malformed map of a sparse file")]
    Sparse,
    /// Two extended headers name one member differently.
    #[error("two names for one member, in a GNU and in a PAX header: readers differ in which one counts")]
    TwoNames,
    /// Two extended headers of a kind before one member.
    #[error("extended headers that readers combine differently")]
    Twice,
    /// A global header that renames or resizes members.
    #[error("a global extended header with path, linkpath or size: readers differ in whether it counts")]
    Global,
    /// Readers differ in whether the archive ends there.
    #[error("a lone block of zeros in the middle")]
    LoneZeroBlock,
    /// A regular file whose name is that of a directory.
    #[error("a file whose name ends in a slash: readers differ in whether it is a directory")]
    Slash,
    /// A type flag that no engine unpacks.
    #[error("a member of the unknown type {:?}", char::from(*.0))]
    Type(u8),
    /// More than a header may hold.
    #[error("more than {1} {0}: refused as a bomb")]
    Limit(&'static str, u64),
}

/// What is wrong with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberFault {
    /// `..` leads above the root.
    #[error("leads out of the layer")]
    Escapes,
    /// A component longer than a file name can be.
    #[error("a name of more than 255 bytes")]
    NameTooLong,
    /// A whiteout of nothing, of `.` or of `..`.
    #[error("a whiteout that names no entry")]
    BadWhiteout,
    /// An entry below the name of a whiteout.
    #[error("lies under the name of a whiteout")]
    UnderWhiteout,
    /// Another type cannot take the root's place.
    #[error("the root of a layer must be a directory")]
    Root,
    /// An ancestor is a file.
    #[error("lies under something that is no directory")]
    NotDirectory,
    /// Symlinks that never end.
    #[error("lies under a loop of symlinks")]
    Loop,
    /// A hard link to something that came before it in no place.
    #[error("a hard link to something that the layer does not have before it")]
    NoTarget,
    /// A hard link to a directory.
    #[error("a hard link to a directory")]
    LinkToDirectory,
    /// A symlink without target, or with one longer than the kernel takes.
    #[error("a symlink with an empty target or one of more than 4095 bytes")]
    BadTarget,
}
