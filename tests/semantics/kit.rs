//! What the tests of this suite share: a union in one call, a native twin, other users, marks on disk.

use std::{
    ffi::OsString,
    fmt::Debug,
    fs::{self, File},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::{
    fs::{Gid, Mode, Uid, XattrFlags, lgetxattr, llistxattr, lsetxattr},
    io::Errno,
    process::umask,
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::sys;
pub use crate::common::{
    Compare, Mounted, Scratch, Stack, Subject, assert_same, dump, dump_all, run_in, sh, sh_outcome,
};

/// A user and group that own nothing.
pub const STRANGER: u32 = 4242;

/// The filesystem under test: lamel unless `LAMEL_SUBJECT` names a peer, with the further options in `LAMEL_OPTS`.
pub fn subject() -> Subject {
    match std::env::var("LAMEL_SUBJECT").as_deref() {
        Ok("overlayfs") => Subject::overlayfs_full(),
        Ok("fuse-overlayfs") => Subject::fuse_overlayfs(),
        Ok(other) if other != "lamel" => panic!("unknown LAMEL_SUBJECT={other}"),
        _ => Subject::Lamel { opts: std::env::var("LAMEL_OPTS").into_iter().collect() },
    }
}

/// Whether a handle of a lower file of some size keeps the lower's content over a copy-up, as in kernel overlayfs
/// (module `passthrough`), or follows the file.
pub fn keeps_old() -> bool {
    std::env::var("LAMEL_OPTS").is_ok_and(|opts| opts.split(',').any(|opt| opt == "io=passthrough"))
}

/// A mounted union and its scratch directory.
pub struct Union {
    // Before the scratch directory: dropped first.
    pub m: Mounted,
    pub s: Scratch,
}

impl Union {
    /// One lower, filled by the bash script `fill`, under an upper.
    #[track_caller]
    pub fn new(fill: &str) -> Self {
        Self::with(&[fill], &[])
    }

    /// Lowers filled by scripts, top first, under an upper, with more options.
    #[track_caller]
    pub fn with(fills: &[&str], opts: &[&str]) -> Self {
        let s = Scratch::new();
        for (i, fill) in fills.iter().enumerate() {
            run_in(&s.lower(i), fill);
        }
        Self::over(s, fills.len(), opts)
    }

    /// A scratch directory that the test has filled.
    #[track_caller]
    pub fn over(s: Scratch, lowers: usize, opts: &[&str]) -> Self {
        let m = subject().mount(&s, lowers, true, opts);
        Self { m, s }
    }

    pub fn root(&self) -> &Path {
        self.m.root()
    }

    /// A path in the mount.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.m.join(path)
    }

    /// A path in the upper.
    pub fn up(&self, path: impl AsRef<Path>) -> PathBuf {
        self.s.join("upper").join(path)
    }

    /// A command in the mount.
    #[track_caller]
    pub fn run(&self, cmd: &str) -> String {
        self.m.run(cmd)
    }

    pub fn read(&self, path: &str) -> String {
        let path = self.at(path);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
    }

    /// The daemon's pid.
    pub fn pid(&self) -> u32 {
        self.m.pid().expect("a daemon")
    }

    /// Asserts that the mount still serves: a daemon that died, or hangs, fails here.
    #[track_caller]
    pub fn assert_alive(&self) {
        self.run("echo alive > .alive; test $(cat .alive) = alive; rm .alive; ls > /dev/null");
    }
}

/// Does the same to a union whose lower `fill` made and to a plain directory that it made, and asserts that outcomes
/// and resulting trees are the same, also after a remount.
#[track_caller]
pub fn as_native<T: PartialEq + Debug>(fill: &str, act: impl Fn(&Path) -> T) {
    as_native_with(fill, &[], act);
}

/// The same with more options.
#[track_caller]
pub fn as_native_with<T: PartialEq + Debug>(fill: &str, opts: &[&str], act: impl Fn(&Path) -> T) {
    let u = Union::with(&[fill], opts);
    // Other users are let in, also with owners and modes in xattrs (`LAMEL_OPTS=xattr_permissions=2`).
    for dir in [u.s.path(), u.root()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let native = u.s.dir("native");
    run_in(&native, fill);
    let want = act(&native);
    let got = act(u.root());
    assert_eq!(got, want, "the union (left) against a plain directory (right)");
    let how = Compare { mtime: false, ..Compare::CONTENT };
    assert_same("against a plain directory", &dump(&native), &dump(u.root()), how);
    let Union { mut m, s } = u;
    m.remount();
    assert_same("after remount", &dump(&native), &dump(m.root()), how);
    drop((m, s));
}

/// Runs `act` in a thread of its own as another user, without capabilities, with a umask of its own.
pub fn as_user<T: Send>(uid: u32, gid: u32, groups: &[u32], act: impl FnOnce() -> T + Send) -> T {
    let groups: Vec<Gid> = groups.iter().map(|&g| Gid::from_raw(g)).collect();
    in_thread(move || {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        set_thread_groups(&groups).expect("setgroups");
        set_thread_res_gid(gid, gid, gid).expect("setresgid");
        set_thread_res_uid(uid, uid, uid).expect("setresuid");
        act()
    })
}

/// Runs `act` with a umask, in a thread of its own.
pub fn with_umask<T: Send>(mask: u32, act: impl FnOnce() -> T + Send) -> T {
    in_thread(move || {
        umask(Mode::from_raw_mode(mask));
        act()
    })
}

fn in_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let handle = scope.spawn(move || {
            sys::unshare_fs();
            act()
        });
        handle.join().unwrap_or_else(|e| std::panic::resume_unwind(e))
    })
}

/// `Ok` or the errno's name, comparable.
pub fn verdict<T>(r: Result<T, impl Into<io::Error>>) -> Result<(), Errno> {
    r.map(drop).map_err(|e| errno(e.into()))
}

pub fn errno(e: io::Error) -> Errno {
    Errno::from_io_error(&e).unwrap_or_else(|| panic!("not an errno: {e}"))
}

pub fn stat(path: impl AsRef<Path>) -> fs::Metadata {
    let path = path.as_ref();
    fs::symlink_metadata(path).unwrap_or_else(|e| panic!("stat {}: {e}", path.display()))
}

pub fn exists(path: impl AsRef<Path>) -> bool {
    match fs::symlink_metadata(path.as_ref()) {
        Ok(_) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => panic!("stat {}: {e}", path.as_ref().display()),
    }
}

/// Permission bits.
pub fn mode(path: impl AsRef<Path>) -> u32 {
    stat(path).mode() & 0o7777
}

pub fn names(dir: impl AsRef<Path>) -> Vec<OsString> {
    let dir = dir.as_ref();
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("readdir {}: {e}", dir.display()))
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    names
}

pub fn get(path: impl AsRef<Path>, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0_u8; 1 << 16];
    let len = lgetxattr(path.as_ref(), name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

pub fn set(path: impl AsRef<Path>, name: &str, value: impl AsRef<[u8]>) -> Result<(), Errno> {
    lsetxattr(path.as_ref(), name, value.as_ref(), XattrFlags::empty())
}

pub fn list(path: impl AsRef<Path>) -> Vec<String> {
    let mut names = vec![0_u8; 1 << 16];
    let len = llistxattr(path.as_ref(), &mut names[..]).expect("listxattr");
    names.truncate(len);
    let mut names: Vec<String> =
        names.split(|b| *b == 0).filter(|n| !n.is_empty()).map(|n| String::from_utf8_lossy(n).into_owned()).collect();
    names.sort();
    names
}

/// Whether an object on disk is a whiteout by itself: a character device 0:0.
pub fn is_whiteout(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path.as_ref()).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

/// Bytes that a tree takes on disk.
pub fn disk_usage(path: impl AsRef<Path>) -> u64 {
    let out = sh(&format!("du -s -B1 {}", path.as_ref().display()));
    out.split_whitespace().next().unwrap().parse().unwrap()
}

/// A file of `len` bytes whose content tells its position.
pub fn write_pattern(path: impl AsRef<Path>, len: usize) {
    fs::write(path, pattern(len)).expect("write");
}

pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 4096 * 31 + i % 251) as u8).collect()
}

/// Keeps other tests from having the kernel forget what it caches, which it does for the whole machine.
pub fn keep_caches() -> MutexGuard<'static, ()> {
    static CACHES: Mutex<()> = Mutex::new(());
    CACHES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the kernel forget the dentries and inodes that nobody uses.
pub fn drop_caches() {
    let _caches = keep_caches();
    fs::write("/proc/sys/vm/drop_caches", "2").expect("drop_caches");
}

/// A filesystem mounted inside a scratch directory, which unmounts it.
pub fn tmpfs(s: &Scratch, name: &str, size: &str) -> PathBuf {
    let dir = s.dir(name);
    sh(&format!("mount -t tmpfs -o size={size} tmpfs {}", dir.display()));
    dir
}

/// A filesystem in a loop file, mounted inside a scratch directory.
pub fn loop_fs(s: &Scratch, name: &str, mkfs: &str, size: &str) -> PathBuf {
    let (image, dir) = (s.join(format!("{name}.img")), s.dir(name));
    let (image, dir_) = (image.display(), dir.display());
    sh(&format!("truncate -s {size} {image}; {mkfs} {image} > /dev/null; mount -o loop {image} {dir_}"));
    dir
}

/// Directories `lower0`, `upper`, `work` inside `base`, mounted on the scratch directory's `mnt`.
pub fn union_in(s: Scratch, base: &Path, opts: &[&str]) -> Union {
    for name in ["lower0", "upper", "work"] {
        let _ = fs::create_dir(base.join(name));
    }
    let stack = Stack {
        lowers: vec![base.join("lower0")],
        upper: Some((base.join("upper"), base.join("work"))),
        mnt: s.mnt(),
        opts: opts.iter().map(|&o| o.to_owned()).collect(),
    };
    let m = subject().mount_stack(stack);
    Union { m, s }
}

/// Opens for reading and writing.
pub fn open_rw(path: impl AsRef<Path>) -> File {
    let path = path.as_ref();
    File::options().read(true).write(true).open(path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
}
