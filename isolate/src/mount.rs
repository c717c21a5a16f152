//! Mounts of the configuration: what their options mean, and making them.
//!
//! A mount is made detached, given all its attributes, and only then attached
//! to a descriptor that was resolved inside the root: at no time is there a
//! mount with less than was asked for, and no path is looked up twice.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use oci_spec::runtime::Mount as SpecMount;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use crate::child::State;
use crate::error::{Called as _, Error, Fault};
use crate::label;
use crate::mapped::Wish;
use crate::rootfs::{self, Inside, Links};
use crate::sys::mount::{Attributes, set_attributes};

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
/// The bits that say which access times are kept; `relatime` is none of them.
const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;

/// statfs's name of procfs.
const PROC_MAGIC: rustix::fs::FsWord = libc::PROC_SUPER_MAGIC as rustix::fs::FsWord;

/// What may be mounted over in /proc, as in runc: what lxcfs and the like provide.
const PROC_FILES: [&[&str]; 10] = [
    &["proc", "cpuinfo"],
    &["proc", "diskstats"],
    &["proc", "meminfo"],
    &["proc", "stat"],
    &["proc", "swaps"],
    &["proc", "uptime"],
    &["proc", "loadavg"],
    &["proc", "slabinfo"],
    &["proc", "net", "dev"],
    &["proc", "sys", "kernel", "ns_last_pid"],
];

/// The attribute options, and what each sets and takes back.
const ATTRIBUTES: [(&str, u64, u64); 16] = [
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("noatime", NOATIME, ATIME),
    ("atime", 0, NOATIME),
    ("relatime", 0, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
];

/// Propagation by option, with `r` before it for the whole tree.
const PROPAGATION: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// One mount of the container.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) target: Inside,
    pub(crate) source: Source,
    /// Of the mount itself.
    attributes: Attributes,
    /// Of it and everything on it.
    recursive: Attributes,
    links: Links,
}

/// What is mounted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The tree that [`clone_source`] put into this slot.
    Bind { slot: usize },
    /// A new filesystem.
    New(Filesystem),
}

/// A filesystem and its parameters, as fsconfig(2) takes them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filesystem {
    kind: CString,
    source: CString,
    parameters: Vec<(CString, Option<CString>)>,
}

/// A bind mount's source on the host.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HostTree {
    pub(crate) path: CString,
    pub(crate) recursive: bool,
    pub(crate) slot: usize,
}

/// A mount of the configuration, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) mount: Mount,
    pub(crate) host: Option<HostTree>,
    /// What it says of the owners of its files.
    pub(crate) owners: Option<Wish>,
}

/// What the options of a mount say.
#[derive(Debug, Default)]
struct Options {
    bind: Option<bool>,
    /// `idmap`, or `ridmap` for the whole tree.
    idmap: Option<bool>,
    attributes: Attributes,
    recursive: Attributes,
    data: Vec<(CString, Option<CString>)>,
}

impl Options {
    fn parse(field: &str, options: &[String]) -> Result<Self, Error> {
        let mut parsed = Self::default();
        for option in options {
            parsed.option(field, option)?;
        }
        Ok(parsed)
    }

    fn option(&mut self, field: &str, option: &str) -> Result<(), Error> {
        if let Some((_, set, clear)) = ATTRIBUTES.iter().find(|(name, ..)| *name == option) {
            self.attributes.change(*set, *clear);
        } else if let Some((_, set, clear)) =
            option.strip_prefix('r').and_then(|rest| ATTRIBUTES.iter().find(|(name, ..)| *name == rest))
        {
            self.recursive.change(*set, *clear);
        } else if let Some((_, flag)) = PROPAGATION.iter().find(|(name, _)| *name == option) {
            self.attributes.propagation = *flag;
        } else if let Some((_, flag)) =
            option.strip_prefix('r').and_then(|rest| PROPAGATION.iter().find(|(name, _)| *name == rest))
        {
            self.recursive.propagation = *flag;
        } else {
            match option {
                "bind" => self.bind = Some(false),
                "rbind" => self.bind = Some(true),
                "defaults" | "async" | "loud" | "norelatime" | "nostrictatime" | "nomand" | "noiversion" => {}
                "idmap" => self.idmap = Some(false),
                "ridmap" => self.idmap = Some(true),
                "tmpcopyup" | "remount" | "copy-symlink" => {
                    return Err(Error::unsupported(field, format!("the mount option {option}")));
                }
                _ => self.data.push(parameter(field, option)?),
            }
        }
        Ok(())
    }
}

impl Attributes {
    fn change(&mut self, set: u64, clear: u64) {
        self.set = self.set & !clear | set;
        // Access times are a choice of several: all of its bits are written. What else
        // is "cleared" was only asked for earlier in the list: a bind mount keeps what its source has.
        if (set | clear) & ATIME != 0 {
            self.clear |= ATIME;
        }
    }
}

fn c_string(field: &str, text: &[u8]) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::invalid(field, "a NUL in it"))
}

fn parameter(field: &str, option: &str) -> Result<(CString, Option<CString>), Error> {
    Ok(match option.split_once('=') {
        Some((key, value)) => (c_string(field, key.as_bytes())?, Some(c_string(field, value.as_bytes())?)),
        None => (c_string(field, option.as_bytes())?, None),
    })
}

/// Reads the mounts of a configuration, in order. `cgroup` mounts are left to [`crate::cgroup`].
///
/// New filesystems get `label`, a context of SELinux, for their files.
pub(crate) fn plan(mounts: &[SpecMount], bundle: &Path, label: Option<&CStr>) -> Result<Vec<Planned>, Error> {
    let mut planned = Vec::with_capacity(mounts.len());
    for (at, mount) in mounts.iter().enumerate() {
        let field = format!("mounts[{at}] ({})", mount.destination().display());
        let mut one = plan_one(&field, mount, bundle, at)?;
        if let (Some(label), Source::New(filesystem)) = (label, &mut one.mount.source) {
            filesystem.label(label);
        }
        planned.push(one);
    }
    Ok(planned)
}

fn plan_one(field: &str, mount: &SpecMount, bundle: &Path, slot: usize) -> Result<Planned, Error> {
    let target = Inside::new(field, mount.destination())?;
    if target.is_root() {
        return Err(Error::unsupported(field, "a mount over the root"));
    }
    let mut options = Options::parse(field, mount.options().as_deref().unwrap_or_default())?;
    let owners = Wish::of(field, mount, options.idmap)?;
    let kind = mount.typ().as_deref().unwrap_or("none");
    let recursive = options.bind.or((kind == "bind").then_some(true));
    guard_proc(field, &target, kind, recursive.is_some())?;
    // Elsewhere than in /dev nobody needs these behind a symlink, and an image that has one there means ill.
    let links =
        if recursive.is_none() && (kind != "tmpfs" || target.is(&["dev"])) { Links::Refused } else { Links::Inside };
    let Some(recursive) = recursive else {
        if owners.is_some() {
            return Err(Error::unsupported(field, "idmap for what is no bind mount"));
        }
        let source = mount.source().as_deref().map_or(kind.as_bytes(), |source| source.as_os_str().as_bytes());
        options.attributes.clear = 0;
        let filesystem = Filesystem {
            kind: c_string(field, kind.as_bytes())?,
            source: c_string(field, source)?,
            parameters: options.data,
        };
        let mount = Mount {
            target,
            source: Source::New(filesystem),
            attributes: options.attributes,
            recursive: options.recursive,
            links,
        };
        return Ok(Planned { mount, host: None, owners });
    };
    if let Some((key, _)) = options.data.first() {
        return Err(Error::invalid(field, format!("a bind mount takes no option {}", key.to_string_lossy())));
    }
    let source = mount.source().as_deref().ok_or_else(|| Error::invalid(field, "a bind mount without a source"))?;
    let host = HostTree { path: c_string(field, bundle.join(source).as_os_str().as_bytes())?, recursive, slot };
    if options.attributes.propagation == 0 && options.recursive.propagation == 0 {
        options.recursive.propagation = libc::MS_PRIVATE;
    }
    let mount = Mount {
        target,
        source: Source::Bind { slot },
        attributes: options.attributes,
        recursive: options.recursive,
        links,
    };
    Ok(Planned { mount, host: Some(host), owners })
}

/// /proc shows the container to itself, and the masks lie on it: nothing else may take its place.
fn guard_proc(field: &str, target: &Inside, kind: &str, bind: bool) -> Result<(), Error> {
    let allowed = if target.is(&["proc"]) {
        // What a bind mount brings is looked at when it is made.
        kind == "proc" || bind
    } else {
        !target.is_below(&["proc"]) || bind && is_proc_file(target)
    };
    if allowed { Ok(()) } else { Err(Error::unsupported(field, "a mount over or inside of /proc")) }
}

fn is_proc_file(target: &Inside) -> bool {
    PROC_FILES.iter().any(|names| target.is(names))
}

impl Filesystem {
    fn fixed(kind: &CStr, parameters: &[(&CStr, &CStr)]) -> Self {
        let parameters = parameters.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect();
        Self { kind: kind.to_owned(), source: kind.to_owned(), parameters }
    }
}

impl Mount {
    /// The type of a new filesystem.
    pub(crate) fn kind(&self) -> Option<&CStr> {
        match &self.source {
            Source::New(filesystem) => Some(&filesystem.kind),
            Source::Bind { .. } => None,
        }
    }

    /// A tmpfs, or any other filesystem, that the configuration does not name itself.
    pub(crate) fn own(target: Inside, kind: &CStr, parameters: &[(&CStr, &CStr)], attributes: u64) -> Self {
        let attributes = Attributes { set: attributes, ..Attributes::default() };
        let source = Source::New(Filesystem::fixed(kind, parameters));
        Self { target, source, attributes, recursive: Attributes::default(), links: Links::Refused }
    }

    /// The same mount with parameters that are flags.
    pub(crate) fn with_flags(mut self, flags: &[CString]) -> Self {
        if let Source::New(filesystem) = &mut self.source {
            filesystem.parameters.extend(flags.iter().map(|flag| (flag.clone(), None)));
        }
        self
    }

    /// The attributes that its options set.
    pub(crate) fn attribute_bits(&self) -> u64 {
        self.attributes.set | self.recursive.set
    }

    /// Makes the mount and attaches it.
    pub(crate) fn perform(&self, state: &mut State<'_>) -> Result<(), Fault> {
        let (mount, is_directory) = match &self.source {
            Source::New(filesystem) => (filesystem.make(self.attributes.set, state)?, true),
            Source::Bind { slot } => {
                let tree = state.sources.get_mut(*slot).and_then(Option::take).ok_or(Fault::refused("no source"))?;
                let is_directory = rootfs::is_directory(tree.as_fd())?;
                if self.target.is(&["proc"]) && !is_proc(tree.as_fd())? {
                    return Err(Fault::refused("only a procfs can be mounted on /proc"));
                }
                if !self.attributes.is_empty() {
                    set_attributes(tree.as_fd(), self.attributes, None, false).called("mount_setattr")?;
                }
                (tree, is_directory)
            }
        };
        if !self.recursive.is_empty() {
            set_attributes(mount.as_fd(), self.recursive, None, true).called("mount_setattr")?;
        }
        let root = state.root()?;
        let target = if is_directory {
            rootfs::directory(root, &self.target, self.links)?
        } else {
            rootfs::file(root, &self.target, self.links)?
        };
        // A destination that reached /proc by a symlink.
        if is_proc(target.as_fd())? && !is_proc_file(&self.target) && !self.target.is(&["proc"]) {
            return Err(Fault::refused("its destination lies in /proc"));
        }
        rootfs::attach(mount.as_fd(), target.as_fd()).called("move_mount")
    }
}

fn is_proc(fd: BorrowedFd<'_>) -> Result<bool, Fault> {
    Ok(rustix::fs::fstatfs(fd).called("fstatfs")?.f_type == PROC_MAGIC)
}

impl Filesystem {
    fn label(&mut self, label: &CStr) {
        if label::is_labelled(&self.kind) {
            self.parameters.push((c"context".to_owned(), Some(label.to_owned())));
        }
    }

    fn make(&self, attributes: u64, state: &mut State<'_>) -> Result<OwnedFd, Fault> {
        match self.try_make(attributes) {
            // In a container whose /proc has masks the kernel gives no unmasked one to a
            // user namespace. What is there is shown again, masks and processes and all.
            Err(Fault { errno: libc::EPERM, .. }) if self.kind.as_c_str() == c"proc" => {
                let outer =
                    rustix::fs::open(c"/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                        .called("open")?;
                if !is_proc(outer.as_fd())? {
                    return Err(Fault::refused("/proc is no procfs here"));
                }
                let tree = rootfs::clone_tree(outer.as_fd(), true).called("open_tree")?;
                let set = Attributes { set: attributes, ..Attributes::default() };
                set_attributes(tree.as_fd(), set, None, false).called("mount_setattr")?;
                state.note();
                Ok(tree)
            }
            made => made,
        }
    }

    fn try_make(&self, attributes: u64) -> Result<OwnedFd, Fault> {
        let context = rustix::mount::fsopen(&self.kind, FsOpenFlags::FSOPEN_CLOEXEC).called("fsopen")?;
        rustix::mount::fsconfig_set_string(&context, c"source", &self.source).called("fsconfig source")?;
        for (key, value) in &self.parameters {
            match value {
                Some(value) => rustix::mount::fsconfig_set_string(&context, key, value),
                None => rustix::mount::fsconfig_set_flag(&context, key),
            }
            .called("fsconfig")?;
        }
        rustix::mount::fsconfig_create(&context).called("fsconfig create")?;
        let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(u32::MAX));
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).called("fsmount")
    }
}

/// Copies a bind mount's source, before anything is changed: its propagation is still the host's.
pub(crate) fn clone_source(host: &HostTree, state: &mut State<'_>) -> Result<(), Fault> {
    let tree = open_source(host).called("open_tree")?;
    *state.sources.get_mut(host.slot).ok_or(Fault::refused("no slot"))? = Some(tree);
    Ok(())
}

/// A copy of a bind mount's source, attached nowhere.
pub(crate) fn open_source(host: &HostTree) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, host.recursive);
    rustix::mount::open_tree(rustix::fs::CWD, &host.path, flags)
}

/// Makes a mount read-only; what else it forbids stays.
pub(crate) fn make_read_only(mount: BorrowedFd<'_>, recursive: bool) -> Result<(), Fault> {
    let attributes = Attributes { set: RDONLY, ..Attributes::default() };
    set_attributes(mount, attributes, None, recursive).called("mount_setattr")
}

/// Makes the mount at a path read-only, but not those on it.
pub(crate) fn remount_read_only(path: &Inside, state: &State<'_>) -> Result<(), Fault> {
    let target = rootfs::open(state.root()?, path.path(), OFlags::PATH, Links::Refused).called("openat2")?;
    make_read_only(target.as_fd(), false)
}

/// Makes a path read-only by mounting it over itself; a path that is not there needs nothing.
pub(crate) fn read_only_path(path: &Inside, state: &State<'_>) -> Result<(), Fault> {
    let target = match rootfs::open(state.root()?, path.path(), OFlags::PATH, Links::Inside) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        found => found.called("openat2")?,
    };
    let tree = rootfs::clone_tree(target.as_fd(), true).called("open_tree")?;
    make_read_only(tree.as_fd(), true)?;
    rootfs::attach(tree.as_fd(), target.as_fd()).called("move_mount")
}

/// Hides a path: a file behind the null device, a directory behind an empty one.
pub(crate) fn mask(path: &Inside, state: &mut State<'_>) -> Result<(), Fault> {
    let target = match rootfs::open(state.root()?, path.path(), OFlags::PATH, Links::Inside) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        found => found.called("openat2")?,
    };
    if !rootfs::is_directory(target.as_fd())? {
        let null = crate::dev::host_null()?;
        let tree = rootfs::clone_tree(null.as_fd(), false).called("open_tree")?;
        make_read_only(tree.as_fd(), false)?;
        return rootfs::attach(tree.as_fd(), target.as_fd()).called("move_mount");
    }
    let empty = match &state.empty {
        // One serves for all.
        Some(empty) => rootfs::clone_tree(empty.as_fd(), false).called("open_tree")?,
        None => {
            let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).called("fsopen")?;
            rustix::mount::fsconfig_set_string(&context, c"source", c"tmpfs").called("fsconfig")?;
            rustix::mount::fsconfig_set_string(&context, c"size", c"0k").called("fsconfig")?;
            rustix::mount::fsconfig_create(&context).called("fsconfig create")?;
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
            rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).called("fsmount")?
        }
    };
    rootfs::attach(empty.as_fd(), target.as_fd()).called("move_mount")?;
    if state.empty.is_none() {
        state.empty = Some(empty);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::MountBuilder;

    fn planned(destination: &str, kind: &str, options: &[&str]) -> Result<Planned, Error> {
        let mount = MountBuilder::default()
            .destination(destination)
            .typ(kind)
            .source("/src")
            .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
            .build()
            .unwrap();
        plan_one("mounts[0]", &mount, Path::new("/bundle"), 0)
    }

    #[test]
    fn options_become_attributes() {
        let mount = planned("/x", "tmpfs", &["nosuid", "ro", "rw", "noatime", "size=64m", "noswap"]).unwrap().mount;
        assert_eq!(mount.attributes, Attributes { set: NOSUID | NOATIME, clear: 0, propagation: 0 });
        let Source::New(filesystem) = mount.source else { panic!("a bind mount") };
        assert_eq!(
            filesystem.parameters,
            [(c"size".to_owned(), Some(c"64m".to_owned())), (c"noswap".to_owned(), None)]
        );
    }

    #[test]
    fn new_filesystems_have_the_mounts_label() {
        let mount = |destination: &str, kind: &str| MountBuilder::default().destination(destination).typ(kind).build();
        let all = [mount("/proc", "proc").unwrap(), mount("/x", "tmpfs").unwrap()];
        let planned = plan(&all, Path::new("/"), Some(c"a:b:c:s0:c1,c2")).unwrap();
        let parameters = planned.into_iter().map(|planned| match planned.mount.source {
            Source::New(filesystem) => filesystem.parameters,
            Source::Bind { .. } => panic!("a bind mount"),
        });
        let label = (c"context".to_owned(), Some(c"a:b:c:s0:c1,c2".to_owned()));
        assert_eq!(parameters.collect::<Vec<_>>(), [vec![], vec![label]]);
    }

    #[test]
    fn a_bind_mount_is_private_and_keeps_what_its_source_forbids() {
        let planned = planned("/x", "bind", &["rbind", "rro", "rw", "exec", "relatime"]).unwrap();
        assert_eq!(planned.mount.attributes, Attributes { set: 0, clear: ATIME, propagation: 0 });
        assert_eq!(planned.mount.recursive, Attributes { set: RDONLY, clear: 0, propagation: libc::MS_PRIVATE });
        let host = planned.host.unwrap();
        assert!(host.recursive && host.path.as_c_str() == c"/src");
        let shared = super::tests::planned("/x", "none", &["bind", "rshared"]).unwrap().mount;
        assert_eq!(shared.recursive.propagation, libc::MS_SHARED);
        assert!(super::tests::planned("/x", "bind", &["size=1"]).is_err());
    }

    #[test]
    fn nothing_takes_the_place_of_proc() {
        assert!(planned("/proc", "proc", &[]).is_ok() && planned("/proc", "bind", &[]).is_ok());
        assert!(planned("/proc", "tmpfs", &[]).is_err() && planned("/x/../proc/self", "bind", &[]).is_err());
        assert!(planned("/proc/cpuinfo", "bind", &[]).is_ok() && planned("/proc/cpuinfo", "tmpfs", &[]).is_err());
        assert!(planned("/", "tmpfs", &[]).is_err() && planned("/x", "tmpfs", &["tmpcopyup"]).is_err());
    }

    #[test]
    fn symlinks_are_followed_only_where_they_may_be_meant() {
        for (destination, kind, links) in [
            ("/var/run", "tmpfs", Links::Inside),
            ("/srv", "bind", Links::Inside),
            ("/dev", "tmpfs", Links::Refused),
            ("/proc", "proc", Links::Refused),
            ("/sys", "sysfs", Links::Refused),
        ] {
            assert_eq!(planned(destination, kind, &[]).unwrap().mount.links, links, "{destination}");
        }
    }
}
