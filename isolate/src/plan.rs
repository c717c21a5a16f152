//! From the configuration to finished steps: all that can be read, resolved,
//! compiled or allocated is done here, before there is a child.
//!
//! The order is the point; each line says why it stands where it does. Before all of it, and before there is a child, the
//! parent makes the idmapped mounts.
//!
//! | step | why here |
//! |---|---|
//! | control groups entered | all that the child does is done within its limits |
//! | wait for the parent | ids are mapped before anything is owned (with a user namespace) |
//! | time namespace | `/proc/self` is still this process's own to write: changing ids ends that |
//! | root directory and sources of bind mounts found | while paths and ids are the host's and propagation is as it was |
//! | root of the user namespace | everything that follows needs it |
//! | session, keyring, umask 0 | modes are those of the configuration |
//! | host name, loopback | need nothing but the namespaces |
//! | propagation private | before the first mount, or the host would see it |
//! | the root's mount copied and attached | pivot_root wants a mount |
//! | cgroup namespace | its root is the group that was entered; before the group is shown |
//! | mounts, in order | |
//! | devices, links, terminal | in the /dev just mounted |
//! | hooks: the parent's, createContainer | with all mounts there, and the root still to be written |
//! | kernel parameters | before /proc/sys is read-only |
//! | working directory made | before the root is read-only |
//! | read-only and masked paths | over what the mounts brought |
//! | root read-only | nothing is made in it any more |
//! | pivot | from here on paths are the container's |
//! | limits | while a hard limit may still be raised |
//! | working directory entered | as the container's root, which may enter what its user may not |
//! | bounding set | needs `CAP_SETPCAP` |
//! | security module's labels | `/proc/thread-self` is still this process's own to write |
//! | Landlock | needs `CAP_SYS_ADMIN` without no_new_privs, and a filter may forbid it |
//! | filter, without no_new_privs | needs `CAP_SYS_ADMIN` |
//! | ids, then capabilities | changing ids empties the sets |
//! | no_new_privs, then the filter | as late as possible: the filter need not allow what comes before |
//! | startContainer hooks | as who the program runs as; nobody looks into this process, which has nothing open any more |
//! | terminal, signals, descriptors | the last, next to exec |

mod process;
mod step;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, LinuxSeccomp, Mount as SpecMount, Process, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;

use crate::cgroup::{Doors, Layout};
use crate::dev;
use crate::error::Error;
use crate::exec::Entry;
use crate::hook::{self, Hooks};
use crate::idmap::{self, IdMaps};
use crate::label;
use crate::landlock;
use crate::mapped::Mapped;
use crate::mount::{self, Mount};
use crate::namespace::{self, Namespaces};
use crate::rootfs::{self, Inside, Root};
use crate::seccomp::Cache;
use crate::spec::{self, Config};
use crate::sys::bpf::Instruction;
use crate::sys::process::CommandLine;
use crate::sysctl;

pub(crate) use process::Program;
pub(crate) use step::{Identity, Stage, Step};

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

/// Everything that the parent and the child do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    pub(crate) id_maps: Option<IdMaps>,
    pub(crate) steps: Vec<Step>,
    /// How many bind mounts there are at most.
    pub(crate) slots: usize,
    /// Those of them that the parent makes.
    pub(crate) mapped: Vec<Mapped>,
    pub(crate) hooks: Option<Hooks>,
    pub(crate) filter: Vec<Instruction>,
    pub(crate) program: Program,
    pub(crate) oom_score_adj: Option<i32>,
    /// The control groups that the child is to be in.
    pub(crate) doors: Doors,
    /// How many descriptors after the standard streams the program gets.
    pub(crate) preserved: u32,
    /// Of lamel itself, where the container would see it.
    pub(crate) command_line: Option<CommandLine>,
    /// The program is killed when its parent ends.
    pub(crate) ends_with_parent: bool,
}

impl Plan {
    /// Has the child be in control groups, from its beginning.
    pub(crate) fn enter(&mut self, doors: Doors) {
        if doors.have_steps() {
            self.steps.insert(0, Step::EnterGroups);
        }
        self.doors = doors;
    }
}

/// Makes the plan of a configuration.
pub(crate) fn plan(config: Config<'_>, options: &Options, layout: &Layout) -> Result<Plan, Error> {
    let Config { process, linux, .. } = config;
    let namespaces = namespace::plan(linux.namespaces().as_deref().unwrap_or_default())?;
    let path = options.bundle.join(config.root.path());
    let root = Root { fd: rootfs::open_root(&path)?, path: c_string("root.path", path.as_os_str().as_bytes())? };
    let proc = open_proc()?;
    let id_maps = id_maps(config, &namespaces)?;
    let filter = filter(linux.seccomp().as_ref(), options.cache.as_ref())?;
    let mut steps = Vec::new();
    before_mounts(config, options, &namespaces, id_maps.as_ref(), &mut steps)?;
    let mapped = mounts(config, options, root, (&namespaces, id_maps.as_ref()), layout, &mut steps)?;
    let mut hooks = hook::plan(config.spec, options)?;
    if let Some(hooks) = hooks.as_mut().filter(|hooks| hooks.interrupt()) {
        steps.push(Step::AwaitHooks);
        steps.extend(hooks.container.drain(..).map(|hook| Step::Hook(hook, Stage::Creating)));
    }
    after_mounts(config, options, proc, &namespaces, &mut steps)?;
    let landlock = landlock::plan(config.spec.annotations().as_ref())?;
    process::steps(
        process,
        id_maps.as_ref(),
        (label::plan(process)?, landlock),
        !filter.is_empty(),
        false,
        &mut steps,
    )?;
    if let Some(hooks) = hooks.as_mut().filter(|hooks| !hooks.start.is_empty()) {
        steps.push(Step::HideForHooks);
        steps.extend(hooks.start.drain(..).map(|hook| Step::Hook(hook, Stage::Created)));
    }
    if options.init {
        steps.push(Step::Init);
    }
    steps.push(Step::Exec);
    Ok(Plan {
        namespaces,
        id_maps,
        steps,
        slots: config.spec.mounts().as_ref().map_or(0, Vec::len),
        mapped,
        hooks,
        filter,
        program: process::program(process)?,
        oom_score_adj: process.oom_score_adj(),
        doors: Doors::default(),
        preserved: 0,
        command_line: if options.init { CommandLine::find() } else { None },
        ends_with_parent: true,
    })
}

/// Makes the plan of a process in the namespaces that `entry` is for, with the ids that they have. What confines the
/// container, whose configuration is `spec`, confines it too.
pub(crate) fn exec(
    spec: &Spec,
    process: &Process,
    cache: Option<&Cache>,
    keyring: Option<&str>,
    maps: &IdMaps,
    entry: Entry,
    ends_with_parent: bool,
) -> Result<Plan, Error> {
    spec::check_process(process)?;
    let filter = filter(spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()), cache)?;
    let mut steps = vec![Step::AwaitParent];
    if entry.enters_user() && maps.maps_uid(0) && maps.maps_gid(0) {
        steps.extend([Step::BecomeRoot { groups: maps.allows_groups() }, Step::Hide]);
    }
    steps.push(Step::Session);
    steps.extend(keyring.map(session_keyring).transpose()?);
    steps.push(Step::OpenRoot);
    steps.extend(terminal(process, false)?);
    let landlock = landlock::plan(spec.annotations().as_ref())?;
    // Its labels were given to the one that joins.
    process::steps(process, Some(maps), (None, landlock), !filter.is_empty(), true, &mut steps)?;
    steps.push(Step::Exec);
    let preserved = entry.preserved;
    Ok(Plan {
        namespaces: Namespaces { entry: Some(entry), ..Namespaces::default() },
        id_maps: None,
        steps,
        slots: 0,
        mapped: Vec::new(),
        hooks: None,
        filter,
        program: process::program(process)?,
        // The one that joins takes it along.
        oom_score_adj: None,
        doors: Doors::default(),
        preserved,
        command_line: None,
        ends_with_parent,
    })
}

fn filter(seccomp: Option<&LinuxSeccomp>, cache: Option<&Cache>) -> Result<Vec<Instruction>, Error> {
    Ok(match (seccomp, cache) {
        (Some(seccomp), Some(cache)) => cache.compile(seccomp)?,
        (Some(seccomp), None) => crate::seccomp::compile(seccomp)?,
        (None, _) => Vec::new(),
    })
}

fn session_keyring(name: &str) -> Result<Step, Error> {
    Ok(Step::Keyring(c_string("name", format!("_ses.{name}").as_bytes())?))
}

/// The terminal that a process asks for.
fn terminal(process: &Process, console: bool) -> Result<Option<Step>, Error> {
    if process.terminal() != Some(true) {
        return Ok(None);
    }
    let side = |side: u64| u16::try_from(side).map_err(|_| Error::invalid("process.consoleSize", "too large"));
    let size = match process.console_size() {
        Some(size) => Some((side(size.width())?, side(size.height())?)),
        None => None,
    };
    Ok(Some(Step::Terminal { size, owner: process.user().uid(), console }))
}

pub(crate) fn c_string(field: &str, bytes: &[u8]) -> Result<CString, Error> {
    CString::new(bytes).map_err(|_| Error::invalid(field, "a NUL in it"))
}

/// The host's /proc, if it is one.
pub(crate) fn open_proc() -> Result<OwnedFd, Error> {
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
        steps.push(session_keyring(&options.name)?);
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

/// The steps of the mounts, and those mounts that the parent makes.
fn mounts(
    config: Config<'_>,
    options: &Options,
    root: Root,
    (namespaces, id_maps): (&Namespaces, Option<&IdMaps>),
    layout: &Layout,
    steps: &mut Vec<Step>,
) -> Result<Vec<Mapped>, Error> {
    let all = config.spec.mounts().as_deref().unwrap_or_default();
    let label = label::of_mounts(config.linux.mount_label().as_ref())?;
    let mut planned = mount::plan(all, &options.bundle, label.as_deref())?;
    let (mut sources, mut mapped) = (Vec::new(), Vec::new());
    for planned in &mut planned {
        match (planned.host.take(), planned.owners.take()) {
            (Some(host), Some(owners)) => mapped.push(owners.resolve(host, id_maps, joined_user(config))?),
            (Some(host), None) => sources.push(Step::CloneSource(host)),
            (None, _) => {}
        }
    }
    // What is the user's own may be closed to the ids that the container has.
    let before = steps.iter().position(|step| matches!(step, Step::BecomeRoot { .. })).unwrap_or(steps.len());
    steps.splice(before..before, std::iter::once(Step::TakeRoot(root)).chain(sources));
    steps.push(Step::Propagation(MountPropagationFlags::PRIVATE | MountPropagationFlags::REC));
    steps.push(Step::CloneRoot);
    steps.push(Step::AttachRoot);
    // Without ids to map, the parent's part is the network: it works beside what came so far.
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
    steps.extend(terminal(config.process, true)?);
    Ok(mapped)
}

/// The user namespace that the container joins.
fn joined_user(config: Config<'_>) -> Option<PathBuf> {
    let mut namespaces = config.linux.namespaces().iter().flatten();
    namespaces.find(|namespace| namespace.typ() == LinuxNamespaceType::User)?.path().clone()
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
    proc: OwnedFd,
    namespaces: &Namespaces,
    steps: &mut Vec<Step>,
) -> Result<(), Error> {
    let linux = config.linux;
    steps.extend(sysctl::plan(linux.sysctl().iter().flatten(), namespaces, proc)?.map(Step::Sysctls));
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

/// Checks and plans.
pub(crate) fn from_spec(spec: &Spec, options: &Options, layout: &Layout) -> Result<Plan, Error> {
    plan(spec::check(spec)?, options, layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxNamespaceBuilder, LinuxSeccomp, MountBuilder};

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
        let plan = planned(|spec| {
            user_namespace(spec);
            let bind = MountBuilder::default().destination("/x").typ("bind").source("/etc").build().unwrap();
            spec.mounts_mut().as_mut().unwrap().push(bind);
        })
        .unwrap();
        assert!(matches!(plan.steps.first(), Some(Step::AwaitParent)));
        let source = at(&plan, "source", |step| matches!(step, Step::CloneSource(_)));
        assert!(source < at(&plan, "root of the namespace", |step| matches!(step, Step::BecomeRoot { .. })));
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
