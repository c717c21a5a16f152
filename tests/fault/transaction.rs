//! The transactions: each changes one thing, and must leave the old state or the new one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use rustix::fs::{CWD, RenameFlags, XattrFlags, lsetxattr, renameat_with};

/// One change of the tree that [`LOWERS`] makes.
#[derive(Clone, Copy)]
pub struct Transaction {
    pub name: &'static str,
    /// Run in the mount before: brings the upper into the state that the change starts from.
    pub before: &'static str,
    pub change: fn(&Path) -> io::Result<()>,
}

/// Makes `lower0` and `lower1` in the current directory.
pub const LOWERS: &str = r#"
mkdir -p lower1/{dir/sub,gone,merged,full,empty} lower0/merged
seq 1 30000 > lower1/big; echo small > lower1/small; echo other > lower1/other; echo deep > lower1/dir/sub/deep
setfattr -n user.mark -v m lower1/small; chmod 640 lower1/small; chown 11:12 lower1/small
echo hard > lower1/hard; ln lower1/hard lower1/hard2; ln lower1/hard lower1/dir/hard3
truncate -s 1M lower1/sparse; echo end >> lower1/sparse
echo f > lower1/full/f; echo g > lower1/gone/g; echo a > lower1/merged/a; echo b > lower0/merged/b
ln -s small lower1/link; mkfifo lower1/fifo; echo top > lower0/top
find lower0 lower1 -depth -print0 | xargs -0 touch -h -d '2001-02-03 04:05:06.789'
"#;

pub const ALL: &[Transaction] = &[
    Transaction { name: "append to a lower file", before: "", change: |m| append(&m.join("big"), "appended\n") },
    Transaction {
        name: "append to a sparse lower file deep in a lower directory",
        before: "",
        change: |m| append(&m.join("sparse"), "appended\n"),
    },
    Transaction {
        name: "copy-up below a lower directory",
        before: "",
        change: |m| append(&m.join("dir/sub/deep"), "appended\n"),
    },
    Transaction { name: "truncate a lower file", before: "", change: |m| truncate(&m.join("big"), 1000) },
    Transaction {
        name: "chmod a lower file",
        before: "",
        change: |m| fs::set_permissions(m.join("big"), fs::Permissions::from_mode(0o4755)),
    },
    Transaction {
        name: "chown a lower file",
        before: "",
        change: |m| std::os::unix::fs::chown(m.join("small"), Some(77), Some(78)),
    },
    Transaction {
        name: "set an xattr of a lower file",
        before: "",
        change: |m| Ok(lsetxattr(m.join("small"), "user.new", b"value", XattrFlags::empty())?),
    },
    Transaction {
        name: "chmod a lower directory",
        before: "",
        change: |m| fs::set_permissions(m.join("dir"), fs::Permissions::from_mode(0o700)),
    },
    Transaction {
        name: "write to a metacopy",
        before: "chmod 600 big",
        change: |m| append(&m.join("big"), "appended\n"),
    },
    Transaction {
        name: "rename a lower file",
        before: "",
        change: |m| fs::rename(m.join("small"), m.join("dir/renamed")),
    },
    Transaction {
        name: "rename a lower file over a lower file",
        before: "",
        change: |m| fs::rename(m.join("small"), m.join("other")),
    },
    Transaction {
        name: "rename an upper file over a lower file",
        before: "echo new > new; touch -d 2002-02-02 new",
        change: |m| fs::rename(m.join("new"), m.join("other")),
    },
    Transaction {
        name: "rename an upper file over a whiteout",
        before: "echo new > new; touch -d 2002-02-02 new; rm other",
        change: |m| fs::rename(m.join("new"), m.join("other")),
    },
    Transaction {
        name: "rename a lower directory",
        before: "",
        change: |m| fs::rename(m.join("dir"), m.join("moved")),
    },
    Transaction {
        name: "rename a merged directory into another",
        before: "",
        change: |m| fs::rename(m.join("merged"), m.join("dir/moved")),
    },
    Transaction {
        name: "rename a directory over an emptied lower one",
        before: "rm full/f",
        change: |m| fs::rename(m.join("dir"), m.join("full")),
    },
    Transaction {
        name: "rename a directory over a whiteout",
        before: "rm -r gone; mkdir new; echo x > new/x; touch -d 2002-02-02 new new/x",
        change: |m| fs::rename(m.join("new"), m.join("gone")),
    },
    Transaction {
        name: "exchange a lower file and a lower directory",
        before: "",
        change: |m| exchange(&m.join("small"), &m.join("dir")),
    },
    Transaction {
        name: "exchange an upper file and a lower file",
        before: "echo new > new; touch -d 2002-02-02 new",
        change: |m| exchange(&m.join("new"), &m.join("dir/sub/deep")),
    },
    Transaction { name: "unlink a lower file", before: "", change: |m| fs::remove_file(m.join("small")) },
    Transaction {
        name: "unlink an upper file over a lower one",
        before: "echo x >> small",
        change: |m| fs::remove_file(m.join("small")),
    },
    Transaction { name: "unlink an upper file", before: "echo x > new", change: |m| fs::remove_file(m.join("new")) },
    Transaction {
        name: "remove an emptied lower directory",
        before: "rm full/f",
        change: |m| fs::remove_dir(m.join("full")),
    },
    Transaction {
        name: "remove an emptied merged directory",
        before: "rm merged/a merged/b",
        change: |m| fs::remove_dir(m.join("merged")),
    },
    Transaction {
        name: "create a file over a whiteout",
        before: "rm small",
        change: |m| File::create_new(m.join("small")).map(drop),
    },
    Transaction {
        name: "make a directory over a whiteout",
        before: "rm -r gone",
        change: |m| fs::create_dir(m.join("gone")),
    },
    Transaction {
        name: "make a symbolic link over a whiteout",
        before: "rm link",
        change: |m| symlink("elsewhere", m.join("link")),
    },
    Transaction {
        name: "link a lower file",
        before: "",
        change: |m| fs::hard_link(m.join("small"), m.join("dir/linked")),
    },
    Transaction {
        name: "link a file over a whiteout",
        before: "rm other",
        change: |m| fs::hard_link(m.join("small"), m.join("other")),
    },
    Transaction {
        name: "write through one of several lower hard links",
        before: "",
        change: |m| append(&m.join("hard2"), "appended\n"),
    },
    Transaction {
        name: "unlink one of several lower hard links",
        before: "chmod 600 hard",
        change: |m| fs::remove_file(m.join("hard2")),
    },
    Transaction {
        name: "create a file in a lower directory",
        before: "",
        change: |m| File::create_new(m.join("dir/sub/new")).map(drop),
    },
];

fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(text.as_bytes())?;
    // The error of a cached write comes with the fsync.
    file.sync_all()
}

fn truncate(path: &Path, len: u64) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_len(len)
}

fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}
