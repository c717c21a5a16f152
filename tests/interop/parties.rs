//! The writers and readers, with the faults that each is known to have.

use std::path::Path;

use crate::{
    bench::{Fault, Party, RECENT},
    common::{Kind, Node, Subject, Tree},
};

fn opts(list: &[&str]) -> Vec<String> {
    list.iter().map(|&o| o.to_owned()).collect()
}

/// lamel with its defaults.
pub fn lamel_full() -> Party {
    lamel("lamel", &[])
}

/// lamel, writing what every reader understands.
pub fn lamel_plain() -> Party {
    lamel("lamel (plain)", &["redirect_dir=off", "metacopy=off", "index=off"])
}

/// lamel in a user namespace, writing what the kernel there understands.
pub fn lamel_user() -> Party {
    lamel("lamel (plain, userxattr)", &["userxattr", "redirect_dir=off", "metacopy=off", "index=off"])
}

fn lamel(name: &'static str, list: &[&str]) -> Party {
    let plain = list.contains(&"redirect_dir=off");
    Party {
        name,
        subject: Subject::Lamel { opts: opts(list) },
        can: [("DIRS", !plain), ("LINKS", !plain), ("NESTED", true), ("LINKATTRS", true), ("SPECIALS", true)]
            .into_iter()
            .filter_map(|(ability, on)| on.then_some(ability))
            .collect(),
        leaves: |_| false,
        writes: Vec::new(),
        reads: Vec::new(),
    }
}

/// Kernel overlayfs as root with all that lamel has.
pub fn kernel_full() -> Party {
    kernel("kernel overlayfs (redirect_dir, metacopy, index)", &["redirect_dir=on", "metacopy=on", "index=on"])
}

/// Kernel overlayfs as root, everything off.
pub fn kernel_plain() -> Party {
    kernel("kernel overlayfs", &["redirect_dir=off", "metacopy=off", "index=off"])
}

/// Kernel overlayfs in a user namespace.
pub fn kernel_user() -> Party {
    kernel("kernel overlayfs (userxattr)", &["userxattr"])
}

fn kernel(name: &'static str, list: &[&str]) -> Party {
    Party {
        name,
        subject: Subject::Overlayfs { opts: opts(list) },
        can: [
            ("DIRS", list.contains(&"redirect_dir=on")),
            ("LINKS", list.contains(&"index=on")),
            ("NESTED", true),
            ("LINKATTRS", true),
            ("SPECIALS", true),
        ]
        .into_iter()
        .filter_map(|(ability, on)| on.then_some(ability))
        .collect(),
        leaves: |_| false,
        writes: vec![Fault {
            why: "overlayfs's copy-up fills holes that do not fill an aligned MiB",
            mask: |want, got| each(want, got, |w, g| w.data.clone_from(&g.data)),
        }],
        reads: vec![Fault {
            why: "overlayfs shows the marks of fuse-overlayfs",
            mask: |want, got| {
                for node in want.values_mut().chain(got.values_mut()) {
                    node.xattrs.retain(|name, _| !name.to_string_lossy().contains("fuseoverlayfs."));
                }
            },
        }],
    }
}

/// Of fuse-overlayfs, in what it writes and in what it shows.
const SET_ID: Fault = Fault {
    why: "fuse-overlayfs gives a file its set-id bits back on disk when it is written to",
    mask: |want, got| {
        let suid = Path::new("usr/bin/suid");
        if let (Some(w), Some(g)) = (want.get_mut(suid), got.get(suid)) {
            w.mode = (w.mode & 0o777) | (g.mode & 0o7000);
        }
    },
};

/// Debian's fuse-overlayfs.
pub fn fuse_overlayfs() -> Party {
    Party {
        name: "fuse-overlayfs",
        subject: Subject::fuse_overlayfs(),
        can: Vec::new(),
        leaves: |name| name.as_encoded_bytes().starts_with(b".wh."),
        writes: vec![
            SET_ID,
            Fault {
                why: "fuse-overlayfs's copy-up fills holes",
                mask: |want, got| each(want, got, |w, g| w.data.clone_from(&g.data)),
            },
            Fault {
                why: "fuse-overlayfs's copy-up sets the time of parents and symlinks to now",
                mask: |want, got| {
                    each(want, got, |w, g| {
                        if matches!(w.kind, Kind::Dir | Kind::Symlink) {
                            w.mtime_ns = g.mtime_ns;
                        }
                    });
                },
            },
            Fault {
                why: "fuse-overlayfs applies the umask where a default ACL replaces it",
                mask: |want, got| {
                    let inherits = |path: &Path| path.starts_with("x/defacl");
                    for (path, w) in want.iter_mut().filter(|(path, _)| inherits(path)) {
                        if let Some(g) = got.get(path) {
                            w.mode = g.mode;
                            w.xattrs.clone_from(&g.xattrs);
                        }
                    }
                },
            },
        ],
        reads: vec![
            Fault {
                why: "fuse-overlayfs shows the time at which it was asked, not that of the write",
                mask: |want, got| {
                    each(want, got, |w, g| {
                        if w.mtime_ns > RECENT && g.mtime_ns > RECENT {
                            w.mtime_ns = g.mtime_ns;
                        }
                    });
                },
            },
            SET_ID,
            Fault {
                why: "fuse-overlayfs has no SEEK_DATA: every file is one segment",
                mask: |want, got| each(want, got, |w, g| w.data.clone_from(&g.data)),
            },
            Fault {
                why: "fuse-overlayfs counts the links it has seen, not those there are (#435)",
                mask: |want, got| {
                    each(want, got, |w, g| {
                        if w.kind != Kind::Dir {
                            w.nlink = g.nlink;
                        }
                    });
                },
            },
            Fault {
                why: "fuse-overlayfs knows no escaped overlay xattrs: it hides them",
                mask: |want, _| {
                    for node in want.values_mut() {
                        node.xattrs.retain(|name, _| !name.to_string_lossy().contains(".overlay."));
                    }
                },
            },
        ],
    }
}

/// Applies `f` to both sides of every object that both have.
fn each(want: &mut Tree, got: &mut Tree, f: impl Fn(&mut Node, &mut Node)) {
    for (path, w) in want.iter_mut() {
        if let Some(g) = got.get_mut(path) {
            f(w, g);
        }
    }
}
