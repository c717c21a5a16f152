//! A case: layers and operations, printed as the text that [`super::parse`] reads.

use std::fmt;

/// Layers, top first, and what is done on their union.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Case {
    /// Mount options of lamel, comma-separated; other subjects are mounted without.
    pub opts: String,
    pub layers: Vec<Vec<Entry>>,
    pub ops: Vec<Op>,
}

/// `len` bytes that depend on `tag` and on their position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data {
    pub tag: u8,
    pub len: usize,
}

impl Data {
    pub fn bytes(self) -> Vec<u8> {
        (0..self.len).map(|i| (usize::from(self.tag) * 37 + i * 7 + i / 251 + 1) as u8).collect()
    }
}

/// One object of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    File {
        meta: Meta,
        data: Data,
        hole: usize,
    },
    Dir {
        meta: Meta,
        opaque: Opaque,
    },
    Symlink {
        target: String,
    },
    Fifo {
        meta: Meta,
    },
    /// A second name, in the same layer, of the object at this path.
    Link {
        old: String,
    },
    /// A character device 0:0.
    Whiteout,
    /// A file `.wh.NAME`.
    WhFile,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// The value of `user.k`, if there is one.
    pub xattr: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opaque {
    No,
    Xattr,
    WhFile,
}

/// Slots of open files.
pub const SLOTS: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// open(O_CREAT|O_WRONLY), one write, close.
    Create {
        path: String,
        mode: u32,
        excl: bool,
        trunc: bool,
        data: Data,
    },
    Mkdir {
        path: String,
        mode: u32,
    },
    Mkfifo {
        path: String,
        mode: u32,
    },
    Symlink {
        path: String,
        target: String,
    },
    Link {
        old: String,
        new: String,
    },
    Unlink {
        path: String,
    },
    Rmdir {
        path: String,
    },
    Rename {
        old: String,
        new: String,
        how: RenameHow,
    },
    Write {
        path: String,
        at: u64,
        data: Data,
    },
    Append {
        path: String,
        data: Data,
    },
    Truncate {
        path: String,
        len: u64,
    },
    Chmod {
        path: String,
        mode: u32,
    },
    Chown {
        path: String,
        uid: u32,
        gid: Option<u32>,
    },
    Utimens {
        path: String,
        secs: i64,
        nanos: u32,
    },
    SetXattr {
        path: String,
        name: String,
        value: Data,
        how: XattrHow,
    },
    RemoveXattr {
        path: String,
        name: String,
    },
    Readdir {
        path: String,
    },
    Open {
        slot: usize,
        path: String,
        how: OpenHow,
    },
    HWrite {
        slot: usize,
        at: u64,
        data: Data,
    },
    HRead {
        slot: usize,
    },
    HTruncate {
        slot: usize,
        len: u64,
    },
    HChmod {
        slot: usize,
        mode: u32,
    },
    HFsync {
        slot: usize,
    },
    HFallocate {
        slot: usize,
        how: FallocateHow,
        at: u64,
        len: u64,
    },
    /// copy_file_range until it ends.
    HCopy {
        from: usize,
        to: usize,
        from_at: u64,
        to_at: u64,
        len: u64,
    },
    HClose {
        slot: usize,
    },
    /// Makes the kernel forget all that it has cached.
    DropCaches,
    /// Writes back, kills the daemon, and mounts again.
    Kill,
    Remount,
    /// Remount by the kernel's overlayfs until the next remount, on the same upper.
    Kernel,
    /// Remount with the upper as the top lower, under a fresh upper.
    PushDown,
}

impl Op {
    /// All paths that it names.
    pub fn paths_mut(&mut self) -> Vec<&mut String> {
        match self {
            Self::Link { old, new } | Self::Rename { old, new, .. } => vec![old, new],
            Self::Create { path, .. }
            | Self::Mkdir { path, .. }
            | Self::Mkfifo { path, .. }
            | Self::Symlink { path, .. }
            | Self::Unlink { path }
            | Self::Rmdir { path }
            | Self::Write { path, .. }
            | Self::Append { path, .. }
            | Self::Truncate { path, .. }
            | Self::Chmod { path, .. }
            | Self::Chown { path, .. }
            | Self::Utimens { path, .. }
            | Self::SetXattr { path, .. }
            | Self::RemoveXattr { path, .. }
            | Self::Readdir { path }
            | Self::Open { path, .. } => vec![path],
            Self::HWrite { .. }
            | Self::HRead { .. }
            | Self::HTruncate { .. }
            | Self::HChmod { .. }
            | Self::HFsync { .. }
            | Self::HClose { .. }
            | Self::HFallocate { .. }
            | Self::HCopy { .. }
            | Self::DropCaches
            | Self::Kill
            | Self::Kernel
            | Self::Remount
            | Self::PushDown => Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameHow {
    Plain,
    NoReplace,
    Exchange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallocateHow {
    Extend,
    KeepSize,
    PunchHole,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrHow {
    Any,
    Create,
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenHow {
    Read,
    Write,
    ReadWrite,
    Append,
    /// O_RDWR|O_TRUNC
    Truncate,
    /// O_RDWR|O_CREAT, mode 0644
    Create,
}

impl OpenHow {
    pub fn reads(self) -> bool {
        !matches!(self, Self::Write | Self::Append)
    }

    pub fn writes(self) -> bool {
        self != Self::Read
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.opts.is_empty() {
            writeln!(f, "opts {}", self.opts)?;
        }
        for layer in &self.layers {
            writeln!(f, "layer")?;
            for entry in layer {
                writeln!(f, "  {entry}")?;
            }
        }
        writeln!(f, "ops")?;
        for op in &self.ops {
            writeln!(f, "  {op}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.tag, self.len)
    }
}

impl fmt::Display for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o} {} {}", self.mode, self.uid, self.gid)?;
        match self.xattr {
            Some(x) => write!(f, " xattr={x}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.what {
            What::File { meta, data, hole } => write!(f, "file {path} {data} hole={hole} {meta}"),
            What::Dir { meta, opaque } => {
                let opaque = match opaque {
                    Opaque::No => "-",
                    Opaque::Xattr => "opaque",
                    Opaque::WhFile => "wh-opaque",
                };
                write!(f, "dir {path} {opaque} {meta}")
            }
            What::Symlink { target } => write!(f, "symlink {path} {target}"),
            What::Fifo { meta } => write!(f, "fifo {path} {meta}"),
            What::Link { old } => write!(f, "link {path} {old}"),
            What::Whiteout => write!(f, "whiteout {path}"),
            What::WhFile => write!(f, "wh {path}"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |on: bool, name: &'static str| if on { name } else { "-" };
        match self {
            Self::Create { path, mode, excl, trunc, data } => {
                write!(f, "create {path} {mode:o} {} {} {data}", flag(*excl, "excl"), flag(*trunc, "trunc"))
            }
            Self::Mkdir { path, mode } => write!(f, "mkdir {path} {mode:o}"),
            Self::Mkfifo { path, mode } => write!(f, "mkfifo {path} {mode:o}"),
            Self::Symlink { path, target } => write!(f, "symlink {path} {target}"),
            Self::Link { old, new } => write!(f, "link {old} {new}"),
            Self::Unlink { path } => write!(f, "unlink {path}"),
            Self::Rmdir { path } => write!(f, "rmdir {path}"),
            Self::Rename { old, new, how } => {
                let how = match how {
                    RenameHow::Plain => "-",
                    RenameHow::NoReplace => "noreplace",
                    RenameHow::Exchange => "exchange",
                };
                write!(f, "rename {old} {new} {how}")
            }
            Self::Write { path, at, data } => write!(f, "write {path} {at} {data}"),
            Self::Append { path, data } => write!(f, "append {path} {data}"),
            Self::Truncate { path, len } => write!(f, "truncate {path} {len}"),
            Self::Chmod { path, mode } => write!(f, "chmod {path} {mode:o}"),
            Self::Chown { path, uid, gid: Some(gid) } => write!(f, "chown {path} {uid} {gid}"),
            Self::Chown { path, uid, gid: None } => write!(f, "chown {path} {uid} -"),
            Self::Utimens { path, secs, nanos } => write!(f, "utimens {path} {secs} {nanos}"),
            Self::SetXattr { path, name, value, how } => {
                let how = match how {
                    XattrHow::Any => "-",
                    XattrHow::Create => "create",
                    XattrHow::Replace => "replace",
                };
                write!(f, "setxattr {path} {name} {value} {how}")
            }
            Self::RemoveXattr { path, name } => write!(f, "removexattr {path} {name}"),
            Self::Readdir { path } => write!(f, "readdir {path}"),
            Self::Open { slot, path, how } => {
                let how = match how {
                    OpenHow::Read => "r",
                    OpenHow::Write => "w",
                    OpenHow::ReadWrite => "rw",
                    OpenHow::Append => "append",
                    OpenHow::Truncate => "trunc",
                    OpenHow::Create => "create",
                };
                write!(f, "open {slot} {path} {how}")
            }
            Self::HWrite { slot, at, data } => write!(f, "hwrite {slot} {at} {data}"),
            Self::HRead { slot } => write!(f, "hread {slot}"),
            Self::HTruncate { slot, len } => write!(f, "htruncate {slot} {len}"),
            Self::HChmod { slot, mode } => write!(f, "hchmod {slot} {mode:o}"),
            Self::HFsync { slot } => write!(f, "hfsync {slot}"),
            Self::HFallocate { slot, how, at, len } => {
                let how = match how {
                    FallocateHow::Extend => "-",
                    FallocateHow::KeepSize => "keep",
                    FallocateHow::PunchHole => "punch",
                };
                write!(f, "hfallocate {slot} {how} {at} {len}")
            }
            Self::HCopy { from, to, from_at, to_at, len } => write!(f, "hcopy {from} {to} {from_at} {to_at} {len}"),
            Self::DropCaches => write!(f, "dropcaches"),
            Self::Kill => write!(f, "kill"),
            Self::Kernel => write!(f, "kernel"),
            Self::HClose { slot } => write!(f, "hclose {slot}"),
            Self::Remount => write!(f, "remount"),
            Self::PushDown => write!(f, "pushdown"),
        }
    }
}
