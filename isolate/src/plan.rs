//! From the configuration to finished steps: all that can be read, resolved,
//! compiled or allocated is done here, before there is a child.
//!
//! The order is the point; each line says why it stands where it does.
//!
//! | step | why here |
//! |---|---|
//! | wait for the parent | ids are mapped before anything is owned (with a user namespace) |
//! | time namespace | `/proc/self` is still this process's own to write: changing ids ends that |
//! | root of the user namespace | everything that follows needs it |
//! | session, keyring, umask 0 | modes are those of the configuration |
//! | host name, loopback | need nothing but the namespaces |
//! | sources of bind mounts | while paths are the host's and propagation is as it was |
//! | propagation private | before the first mount, or the host would see it |
//! | root copied and attached | pivot_root wants a mount |
//! | cgroup namespace | after the parent put this process into its group, before the group is shown |
//! | mounts, in order | |
//! | devices, links, terminal | in the /dev just mounted |
//! | kernel parameters | before /proc/sys is read-only |
//! | working directory made | before the root is read-only |
//! | read-only and masked paths | over what the mounts brought |
//! | root read-only | nothing is made in it any more |
//! | pivot | from here on paths are the container's |
//! | limits | while a hard limit may still be raised |
//! | working directory entered | as the container's root, which may enter what its user may not |
//! | bounding set | needs `CAP_SETPCAP` |
//! | filter, without no_new_privs | needs `CAP_SYS_ADMIN` |
//! | ids, then capabilities | changing ids empties the sets |
//! | no_new_privs, then the filter | as late as possible: the filter need not allow what comes before |
//! | terminal, signals, descriptors | the last, next to exec |

use std::ffi::CString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Mount as SpecMount};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;

use crate::caps::{self, Sets};
use crate::cgroup::Layout;
use crate::dev::{self, Device};
use crate::error::Error;
use crate::idmap::{self, IdMaps};
use crate::mount::{self, HostTree, Mount};
use crate::namespace::{self, Namespaces};
use crate::rlimit::{self, Limit};
use crate::rootfs::{self, Inside};
use crate::seccomp::Cache;
use crate::spec::{self, Config};
use crate::sys::bpf::Instruction;
use crate::sys::exec::Vector;
use crate::sysctl::{self, Sysctl};

/// Where a program is looked for if its environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The most directories of a PATH.
const MAX_PATH_DIRECTORIES: usize = 256;
/// The umask of the container's program unless the configuration has one.
const DEFAULT_UMASK: u32 = 0o022;

/// How a container is made, apart from its configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// What relative paths of the configuration start from.
    pub bundle: PathBuf,
    /// Its name; what the host sees of it (its cgroup, its keyring) is named by it.
    pub name: String,
    /// Leave the old root by pivot_root(2); otherwise it is only covered, for a root that cannot be left (initramfs).
    pub pivot: bool,
    /// A session keyring of its own.
    pub keyring: bool,
    /// Reap and forward signals in a first process of lamel's own.
    pub init: bool,
    /// Where compiled filters are kept.
    pub cache: Option<Cache>,
}

impl Options {
    /// With everything on that isolates.
    #[must_use]
    pub fn new(bundle: PathBuf, name: String) -> Self {
        Self { bundle, name, pivot: true, keyring: true, init: false, cache: None }
    }
}

/// One thing that the child does.
#[derive(Debug)]
pub(crate) enum Step {
    AwaitParent,
    TimeNamespace(Vec<CString>),
    BecomeRoot { groups: bool },
    Session,
    Keyring(CString),
    HostName(CString),
    DomainName(CString),
    Loopback,
    CloneSource(HostTree),
    Propagation(MountPropagationFlags),
    CloneRoot,
    AttachRoot,
    CgroupNamespace,
    Mount(Box<Mount>),
    Device(Device, bool),
    Link(&'static std::ffi::CStr, &'static std::ffi::CStr),
    Terminal { size: Option<(u16, u16)>, owner: u32 },
    Sysctl(Sysctl),
    MakeDirectory(Inside),
    ReadOnly(Inside),
    Remount(Inside),
    Mask(Inside),
    RootReadOnly,
    Pivot,
    Cover,
    Limit(Limit),
    Enter(CString),
    Bound(Sets),
    Filter,
    Identity(Identity),
    Capabilities(Sets),
    NoNewPrivileges,
    TakeTerminal,
    Umask(u32),
    Init,
    Exec,
}

/// Whose ids the program runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// None where the user namespace does not let them be changed.
    pub(crate) groups: Option<Vec<rustix::fs::Gid>>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AwaitParent => f.write_str("waiting for the parent"),
            Self::TimeNamespace(_) => f.write_str("making a time namespace"),
            Self::BecomeRoot { .. } => f.write_str("becoming root of the user namespace"),
            Self::Session => f.write_str("making a session"),
            Self::Keyring(_) => f.write_str("making a session keyring"),
            Self::HostName(name) => write!(f, "setting the host name {}", name.to_string_lossy()),
            Self::DomainName(name) => write!(f, "setting the domain name {}", name.to_string_lossy()),
            Self::Loopback => f.write_str("bringing the loopback interface up"),
            Self::CloneSource(host) => write!(f, "taking {} of the host", host.path.to_string_lossy()),
            Self::Propagation(_) => f.write_str("parting the mounts from the host's"),
            Self::CloneRoot => f.write_str("taking the root directory"),
            Self::AttachRoot => f.write_str("mounting the root directory"),
            Self::CgroupNamespace => f.write_str("making a cgroup namespace"),
            Self::Mount(mount) => match mount.kind() {
                Some(kind) => write!(f, "mounting {} on {}", kind.to_string_lossy(), mount.target),
                None => write!(f, "mounting on {}", mount.target),
            },
            Self::Device(device, _) => write!(f, "making {device}"),
            Self::Link(name, _) => write!(f, "making the link /dev/{}", name.to_string_lossy()),
            Self::Terminal { .. } => f.write_str("making a terminal"),
            Self::Sysctl(_) => f.write_str("setting a kernel parameter"),
            Self::MakeDirectory(inside) => write!(f, "making the working directory {inside}"),
            Self::ReadOnly(inside) | Self::Remount(inside) => write!(f, "making {inside} read-only"),
            Self::Mask(inside) => write!(f, "masking {inside}"),
            Self::RootReadOnly => f.write_str("making the root read-only"),
            Self::Pivot | Self::Cover => f.write_str("changing the root"),
            Self::Limit(_) => f.write_str("setting a resource limit"),
            Self::Enter(path) => write!(f, "entering the working directory {}", path.to_string_lossy()),
            Self::Bound(_) => f.write_str("bounding the capabilities"),
            Self::Filter => f.write_str("installing the system call filter"),
            Self::Identity(Identity { uid, gid, .. }) => write!(f, "becoming user {uid}, group {gid}"),
            Self::Capabilities(_) => f.write_str("setting the capabilities"),
            Self::NoNewPrivileges => f.write_str("forbidding new privileges"),
            Self::TakeTerminal => f.write_str("taking the terminal"),
            Self::Umask(_) => f.write_str("setting the umask"),
            Self::Init => f.write_str("starting the init"),
            Self::Exec => f.write_str("starting the program"),
        }
    }
}

/// The program, and every place where it may be.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) places: Vec<CString>,
    pub(crate) arguments: Vector,
    pub(crate) environment: Vector,
}

/// Everything that the parent and the child do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) root: OwnedFd,
    pub(crate) root_path: CString,
    /// The parent's own /proc, through which the child writes.
    pub(crate) proc: OwnedFd,
    pub(crate) namespaces: Namespaces,
    pub(crate) id_maps: Option<IdMaps>,
    pub(crate) steps: Vec<Step>,
    /// How many bind mounts there are at most.
    pub(crate) slots: usize,
    pub(crate) filter: Vec<Instruction>,
    pub(crate) program: Program,
    pub(crate) oom_score_adj: Option<i32>,
}

/// Makes the plan of a configuration.
pub(crate) fn plan(config: Config<'_>, options: &Options, layout: &Layout) -> Result<Plan, Error> {
    let Config { process, linux, .. } = config;
    let namespaces = namespace::plan(linux.namespaces().as_deref().unwrap_or_default())?;
    let root_path = options.bundle.join(config.root.path());
    let root = rootfs::open_root(&root_path)?;
    let proc = open_proc()?;
    let id_maps = id_maps(config, &namespaces)?;
    let filter = match linux.seccomp() {
        Some(seccomp) => match &options.cache {
            Some(cache) => cache.compile(seccomp)?,
            None => crate::seccomp::compile(seccomp)?,
        },
        None => Vec::new(),
    };
    let mut steps = Vec::new();
    before_mounts(config, options, &namespaces, id_maps.as_ref(), &mut steps)?;
    let slots = mounts(config, options, &namespaces, layout, &mut steps)?;
    after_mounts(config, options, &namespaces, &mut steps)?;
    process_steps(config, options, id_maps.as_ref(), !filter.is_empty(), &mut steps)?;
    Ok(Plan {
        root,
        root_path: c_string("root.path", root_path.as_os_str().as_bytes())?,
        proc,
        namespaces,
        id_maps,
        steps,
        slots,
        filter,
        program: program(config)?,
        oom_score_adj: process.oom_score_adj(),
    })
}

fn c_string(field: &str, bytes: &[u8]) -> Result<CString, Error> {
    CString::new(bytes).map_err(|_| Error::invalid(field, "a NUL in it"))
}

/// The host's /proc, if it is one.
fn open_proc() -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).map_err(Error::call("open", "/proc"))?;
    let magic = rustix::fs::fstatfs(&proc).map_err(Error::call("fstatfs", "/proc"))?.f_type;
    if magic != libc::PROC_SUPER_MAGIC as rustix::fs::FsWord {
        return Err(Error::Unavailable {
            what: "procfs".to_owned(),
            why: "/proc is something else; mount it".to_owned(),
        });
    }
    Ok(proc)
}

fn id_maps(config: Config<'_>, namespaces: &Namespaces) -> Result<Option<IdMaps>, Error> {
    let uids = config.linux.uid_mappings().as_deref().unwrap_or_default();
    let gids = config.linux.gid_mappings().as_deref().unwrap_or_default();
    if namespaces.makes(LinuxNamespaceType::User) {
        return idmap::plan(uids, gids).map(Some);
    }
    if !(namespaces.has_user() || uids.is_empty() && gids.is_empty()) {
        return Err(Error::invalid("linux.uidMappings", "needs a user namespace"));
    }
    Ok(None)
}

fn before_mounts(
    config: Config<'_>,
    options: &Options,
    namespaces: &Namespaces,
    id_maps: Option<&IdMaps>,
    steps: &mut Vec<Step>,
) -> Result<(), Error> {
    if id_maps.is_some() {
        steps.push(Step::AwaitParent);
    }
    let offsets = namespace::time_offsets(config.linux.time_offsets().iter().flatten())?;
    if namespaces.time {
        steps.push(Step::TimeNamespace(offsets));
    } else if !offsets.is_empty() {
        return Err(Error::invalid("linux.timeOffsets", "needs a new time namespace"));
    }
    // A map without a root leaves the process what it is, with all capabilities there.
    if namespaces.has_user() && id_maps.is_none_or(|maps| maps.maps_uid(0) && maps.maps_gid(0)) {
        steps.push(Step::BecomeRoot { groups: id_maps.is_none_or(IdMaps::allows_groups) });
    }
    steps.push(Step::Session);
    if options.keyring {
        steps.push(Step::Keyring(c_string("name", format!("_ses.{}", options.name).as_bytes())?));
    }
    for (field, name) in [("hostname", config.spec.hostname()), ("domainname", config.spec.domainname())] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
        if !namespaces.has(LinuxNamespaceType::Uts) {
            return Err(Error::invalid(field, "needs a uts namespace"));
        }
        if name.len() > 64 {
            return Err(Error::invalid(field, "more than 64 bytes"));
        }
        let name = c_string(field, name.as_bytes())?;
        steps.push(if field == "hostname" { Step::HostName(name) } else { Step::DomainName(name) });
    }
    if namespaces.makes(LinuxNamespaceType::Network) {
        steps.push(Step::Loopback);
    }
    Ok(())
}

/// The steps of the mounts, and how many slots for bind mounts they need.
fn mounts(
    config: Config<'_>,
    options: &Options,
    namespaces: &Namespaces,
    layout: &Layout,
    steps: &mut Vec<Step>,
) -> Result<usize, Error> {
    let all = config.spec.mounts().as_deref().unwrap_or_default();
    let mut planned = mount::plan(all, &options.bundle)?;
    steps.extend(planned.iter_mut().filter_map(|planned| planned.host.take()).map(Step::CloneSource));
    steps.push(Step::Propagation(MountPropagationFlags::PRIVATE | MountPropagationFlags::REC));
    steps.push(Step::CloneRoot);
    steps.push(Step::AttachRoot);
    // Without ids to map, the parent's part is the control group: it works beside what came so far.
    if !steps.iter().any(|step| matches!(step, Step::AwaitParent)) {
        steps.push(Step::AwaitParent);
    }
    if namespaces.cgroup {
        steps.push(Step::CgroupNamespace);
    }
    for planned in planned {
        if planned.mount.kind() == Some(c"cgroup") {
            cgroup_mounts(&planned.mount, config, layout, steps)?;
        } else {
            steps.push(Step::Mount(Box::new(planned.mount)));
        }
    }
    let dev = |kind: &str| {
        all.iter().any(|mount: &SpecMount| {
            mount.destination() == Path::new("/dev") && mount.typ().as_deref().unwrap_or("bind") == kind
        })
    };
    // A /dev of the host's is as it is.
    if !dev("bind") && !dev("none") {
        let bind = namespaces.has_user();
        for device in dev::plan(config.linux.devices().as_deref().unwrap_or_default())? {
            steps.push(Step::Device(device, bind));
        }
        steps.extend(dev::LINKS.iter().map(|(name, to)| Step::Link(name, to)));
    }
    if config.process.terminal() == Some(true) {
        let side = |side: u64| u16::try_from(side).map_err(|_| Error::invalid("process.consoleSize", "too large"));
        let size = match config.process.console_size() {
            Some(size) => Some((side(size.width())?, side(size.height())?)),
            None => None,
        };
        steps.push(Step::Terminal { size, owner: config.process.user().uid() });
    }
    Ok(all.len())
}

/// What is shown at /sys/fs/cgroup: of version 1 the hierarchies in which the container has a group of its own.
fn cgroup_mounts(mount: &Mount, config: Config<'_>, layout: &Layout, steps: &mut Vec<Step>) -> Result<(), Error> {
    let attributes = mount.attribute_bits();
    let own = |target: Inside, kind, parameters: &[_]| Mount::own(target, kind, parameters, attributes);
    let hierarchies = match layout {
        Layout::V2 { .. } => {
            steps.push(Step::Mount(Box::new(own(mount.target.clone(), c"cgroup2", &[]))));
            return Ok(());
        }
        Layout::V1(hierarchies) => hierarchies.as_slice(),
        Layout::None => &[],
    };
    let writable = attributes & !libc::MOUNT_ATTR_RDONLY;
    let top = Mount::own(mount.target.clone(), c"tmpfs", &[(c"mode", c"755")], writable);
    steps.push(Step::Mount(Box::new(top)));
    for hierarchy in hierarchies {
        if !crate::cgroup::has_own_group(hierarchy, config.linux.resources().as_ref())? {
            continue;
        }
        let place = format!("{}/{}", mount.target, hierarchy.controllers.join(","));
        let target = Inside::new("mounts (cgroup)", Path::new(&place))?;
        let flags: Result<Vec<CString>, Error> =
            hierarchy.controllers.iter().map(|name| c_string("mounts (cgroup)", name.as_bytes())).collect();
        steps.push(Step::Mount(Box::new(own(target, c"cgroup", &[]).with_flags(&flags?))));
    }
    if attributes & libc::MOUNT_ATTR_RDONLY != 0 {
        steps.push(Step::Remount(mount.target.clone()));
    }
    Ok(())
}

fn after_mounts(
    config: Config<'_>,
    options: &Options,
    namespaces: &Namespaces,
    steps: &mut Vec<Step>,
) -> Result<(), Error> {
    let linux = config.linux;
    let sysctls = sysctl::plan(linux.sysctl().iter().flatten(), namespaces)?;
    steps.extend(sysctls.into_iter().map(Step::Sysctl));
    let cwd = Inside::new("process.cwd", config.process.cwd())?;
    if !cwd.is_root() {
        steps.push(Step::MakeDirectory(cwd));
    }
    for path in linux.readonly_paths().iter().flatten() {
        steps.push(Step::ReadOnly(Inside::new("linux.readonlyPaths", Path::new(path))?));
    }
    for path in linux.masked_paths().iter().flatten() {
        steps.push(Step::Mask(Inside::new("linux.maskedPaths", Path::new(path))?));
    }
    if config.root.readonly() == Some(true) {
        steps.push(Step::RootReadOnly);
    }
    steps.push(if options.pivot { Step::Pivot } else { Step::Cover });
    Ok(())
}

fn process_steps(
    config: Config<'_>,
    options: &Options,
    id_maps: Option<&IdMaps>,
    filtered: bool,
    steps: &mut Vec<Step>,
) -> Result<(), Error> {
    let process = config.process;
    let limits = rlimit::plan(process.rlimits().as_deref().unwrap_or_default())?;
    steps.extend(limits.into_iter().map(Step::Limit));
    let sets = process.capabilities().as_ref().map(caps::plan).transpose()?.unwrap_or_default();
    let no_new_privileges = process.no_new_privileges() == Some(true);
    steps.push(Step::Enter(c_string("process.cwd", process.cwd().as_os_str().as_bytes())?));
    steps.push(Step::Bound(sets));
    if filtered && !no_new_privileges {
        steps.push(Step::Filter);
    }
    steps.push(Step::Identity(identity(process.user(), id_maps)?));
    steps.push(Step::Capabilities(sets));
    if no_new_privileges {
        steps.push(Step::NoNewPrivileges);
        if filtered {
            steps.push(Step::Filter);
        }
    }
    if process.terminal() == Some(true) {
        steps.push(Step::TakeTerminal);
    }
    steps.push(Step::Umask(process.user().umask().unwrap_or(DEFAULT_UMASK) & 0o777));
    if options.init {
        steps.push(Step::Init);
    }
    steps.push(Step::Exec);
    Ok(())
}

fn identity(user: &oci_spec::runtime::User, id_maps: Option<&IdMaps>) -> Result<Identity, Error> {
    let (uid, gid) = (user.uid(), user.gid());
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    // The last number means "unchanged" to the kernel: the program would stay root.
    if [uid, gid].iter().chain(groups).any(|id| *id == u32::MAX) {
        return Err(Error::invalid("process.user", "4294967295 is no id"));
    }
    if let Some(maps) = id_maps {
        if !maps.maps_uid(uid) || !maps.maps_gid(gid) {
            return Err(Error::invalid(
                "process.user",
                format!("{uid}:{gid} is not mapped; the user namespace has too few ids (see subuid(5))"),
            ));
        }
        if !maps.allows_groups() {
            return match groups.iter().find(|group| **group != gid) {
                Some(group) => Err(Error::invalid(
                    "process.user.additionalGids",
                    format!("{group}: with a single id mapped, groups cannot be chosen"),
                )),
                None => Ok(Identity { uid, gid, groups: None }),
            };
        }
        if let Some(group) = groups.iter().find(|group| !maps.maps_gid(**group)) {
            return Err(Error::invalid("process.user.additionalGids", format!("{group} is not mapped")));
        }
    }
    let groups = groups.iter().map(|group| rustix::fs::Gid::from_raw(*group)).collect();
    Ok(Identity { uid, gid, groups: Some(groups) })
}

fn program(config: Config<'_>) -> Result<Program, Error> {
    let strings = |field: &str, words: &[String]| -> Result<Vector, Error> {
        let words: Result<Vec<CString>, Error> = words.iter().map(|word| c_string(field, word.as_bytes())).collect();
        Ok(Vector::new(words?))
    };
    let environment = config.process.env().as_deref().unwrap_or_default();
    if environment.iter().any(|pair| pair.find('=').is_none_or(|at| at == 0)) {
        return Err(Error::invalid("process.env", "an entry that is not NAME=VALUE"));
    }
    let name = config.arguments.first().cloned().unwrap_or_default();
    let places = if name.contains('/') {
        vec![c_string("process.args", name.as_bytes())?]
    } else {
        let path = environment.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        // A relative entry, or an empty one, would be the working directory, which is anybody's.
        let directories = path.split(':').filter(|directory| directory.starts_with('/')).take(MAX_PATH_DIRECTORIES);
        let places: Result<Vec<CString>, Error> = directories
            .map(|directory| c_string("process.env", Path::new(directory).join(&name).as_os_str().as_bytes()))
            .collect();
        places?
    };
    let arguments = strings("process.args", config.arguments)?;
    Ok(Program { name, places, arguments, environment: strings("process.env", environment)? })
}

/// Checks and plans.
pub(crate) fn from_spec(spec: &oci_spec::runtime::Spec, options: &Options, layout: &Layout) -> Result<Plan, Error> {
    plan(spec::check(spec)?, options, layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxNamespaceBuilder, LinuxSeccomp, MountBuilder, Spec};

    /// The default configuration over an empty root, changed.
    fn planned(change: impl FnOnce(&mut Spec)) -> Result<Plan, Error> {
        let place = tempfile::tempdir().unwrap();
        let mut spec = Spec::default();
        spec.root_mut().as_mut().unwrap().set_path(place.path().canonicalize().unwrap());
        change(&mut spec);
        from_spec(&spec, &Options::new("/".into(), "name".to_owned()), &Layout::None)
    }

    /// A filter that allows everything.
    fn filter(spec: &mut Spec) {
        let mut filter = LinuxSeccomp::default();
        filter.set_default_action(oci_spec::runtime::LinuxSeccompAction::ScmpActAllow).set_syscalls(None);
        spec.linux_mut().as_mut().unwrap().set_seccomp(Some(filter));
    }

    fn user_namespace(spec: &mut Spec) {
        let linux = spec.linux_mut().as_mut().unwrap();
        let user = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::User).build().unwrap();
        linux.namespaces_mut().as_mut().unwrap().push(user);
        let map = Some(vec![idmap::mapping(0, 100_000, 1000)]);
        linux.set_uid_mappings(map.clone()).set_gid_mappings(map);
    }

    #[track_caller]
    fn at(plan: &Plan, what: &str, is: impl Fn(&Step) -> bool) -> usize {
        plan.steps.iter().position(is).unwrap_or_else(|| panic!("no {what} in {:#?}", plan.steps))
    }

    #[test]
    fn the_order_is_the_point() {
        let plan = planned(|spec| {
            filter(spec);
            let bind = MountBuilder::default().destination("/x").typ("bind").source("/etc").build().unwrap();
            spec.mounts_mut().as_mut().unwrap().push(bind);
        })
        .unwrap();
        let order = [
            at(&plan, "source", |step| matches!(step, Step::CloneSource(_))),
            at(&plan, "propagation", |step| matches!(step, Step::Propagation(_))),
            at(&plan, "root", |step| matches!(step, Step::CloneRoot)),
            at(&plan, "waiting", |step| matches!(step, Step::AwaitParent)),
            at(&plan, "cgroup namespace", |step| matches!(step, Step::CgroupNamespace)),
            at(&plan, "mount", |step| matches!(step, Step::Mount(_))),
            at(&plan, "device", |step| matches!(step, Step::Device(..))),
            at(&plan, "mask", |step| matches!(step, Step::Mask(_))),
            at(&plan, "pivot", |step| matches!(step, Step::Pivot)),
            at(&plan, "directory", |step| matches!(step, Step::Enter(_))),
            at(&plan, "bounding set", |step| matches!(step, Step::Bound(_))),
            at(&plan, "identity", |step| matches!(step, Step::Identity(_))),
            at(&plan, "capabilities", |step| matches!(step, Step::Capabilities(_))),
            at(&plan, "exec", |step| matches!(step, Step::Exec)),
        ];
        assert!(order.is_sorted(), "{order:?} in {:#?}", plan.steps);
        assert_eq!(order.last(), Some(&(plan.steps.len() - 1)));
    }

    #[test]
    fn the_filter_comes_as_late_as_it_can() {
        let filter_at = |plan: &Plan| at(plan, "filter", |step| matches!(step, Step::Filter));
        let identity_at = |plan: &Plan| at(plan, "identity", |step| matches!(step, Step::Identity(_)));
        let plan = planned(|spec| {
            filter(spec);
            spec.process_mut().as_mut().unwrap().set_no_new_privileges(Some(false));
        })
        .unwrap();
        assert!(filter_at(&plan) < identity_at(&plan));
        let plan = planned(|spec| {
            filter(spec);
            spec.process_mut().as_mut().unwrap().set_no_new_privileges(Some(true));
        })
        .unwrap();
        let forbidden = at(&plan, "no_new_privs", |step| matches!(step, Step::NoNewPrivileges));
        assert!(identity_at(&plan) < forbidden && forbidden < filter_at(&plan));
    }

    #[test]
    fn a_user_namespace_waits_for_its_ids_and_makes_no_devices() {
        let plan = planned(user_namespace).unwrap();
        assert!(matches!(plan.steps.first(), Some(Step::AwaitParent)));
        assert_eq!(plan.steps.iter().filter(|step| matches!(step, Step::AwaitParent)).count(), 1);
        assert!(plan.steps.iter().all(|step| !matches!(step, Step::Device(_, false))));
        for (uid, groups) in [(1000, vec![]), (u32::MAX, vec![]), (0, vec![1000])] {
            let refused = planned(|spec| {
                user_namespace(spec);
                let user = spec.process_mut().as_mut().unwrap().user_mut();
                user.set_uid(uid).set_additional_gids(Some(groups));
            });
            assert!(matches!(refused, Err(Error::Invalid { .. })), "{uid}");
        }
        let no_id = |spec: &mut Spec| {
            spec.process_mut().as_mut().unwrap().user_mut().set_uid(u32::MAX);
        };
        assert!(planned(no_id).is_err());
    }

    #[test]
    fn a_program_is_looked_for_in_absolute_directories() {
        let places = |args: &str, path: &str| {
            let plan = planned(|spec| {
                let process = spec.process_mut().as_mut().unwrap();
                process.set_args(Some(vec![args.to_owned()])).set_env(Some(vec![format!("PATH={path}")]));
            });
            plan.unwrap().program.places
        };
        assert_eq!(places("sh", "/a::b:.:/c/"), [c"/a/sh", c"/c/sh"].map(std::borrow::ToOwned::to_owned));
        assert_eq!(places("./sh", "/a"), [c"./sh".to_owned()]);
        for entry in ["PATH", "=x", "A\0=x"] {
            let process = |spec: &mut Spec| {
                spec.process_mut().as_mut().unwrap().set_env(Some(vec![entry.to_owned()]));
            };
            assert!(planned(process).is_err(), "{entry:?}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let without = |kind: LinuxNamespaceType| {
            move |spec: &mut Spec| {
                let linux = spec.linux_mut().as_mut().unwrap();
                linux.namespaces_mut().as_mut().unwrap().retain(|namespace| namespace.typ() != kind);
            }
        };
        assert!(planned(without(LinuxNamespaceType::Mount)).is_err());
        // The default configuration has a host name.
        assert!(planned(without(LinuxNamespaceType::Uts)).is_err());
        assert!(planned(without(LinuxNamespaceType::Ipc)).is_ok());
        let maps = |spec: &mut Spec| {
            let map = Some(vec![idmap::mapping(0, 100_000, 1000)]);
            spec.linux_mut().as_mut().unwrap().set_uid_mappings(map);
        };
        assert!(planned(maps).is_err());
    }
}
