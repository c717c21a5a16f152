//! What a child can be told to do, and whose ids its program gets.

use std::ffi::{CStr, CString};
use std::fmt;

use rustix::fs::Gid;
use rustix::mount::MountPropagationFlags;

use crate::caps::Sets;
use crate::dev::Device;
use crate::hook::Hook;
use crate::label::Labels;
use crate::landlock::Landlock;
use crate::mount::{HostTree, Mount};
use crate::rlimit::Limit;
use crate::rootfs::{Inside, Root};
use crate::sysctl::Sysctls;

/// One thing that the child does.
#[derive(Debug)]
pub(crate) enum Step {
    EnterGroups,
    AwaitParent,
    TimeNamespace(Vec<CString>),
    BecomeRoot {
        groups: bool,
    },
    Session,
    Keyring(CString),
    HostName(CString),
    DomainName(CString),
    Loopback,
    TakeRoot(Root),
    CloneSource(HostTree),
    Propagation(MountPropagationFlags),
    CloneRoot,
    AttachRoot,
    CgroupNamespace,
    Mount(Box<Mount>),
    Device(Device, bool),
    Link(&'static CStr, &'static CStr),
    /// With `console` it is the container's own, at `/dev/console` too.
    Terminal {
        size: Option<(u16, u16)>,
        owner: u32,
        console: bool,
    },
    Sysctls(Sysctls),
    MakeDirectory(Inside),
    ReadOnly(Inside),
    Remount(Inside),
    Mask(Inside),
    RootReadOnly,
    Pivot,
    Cover,
    /// Of a mount namespace that was entered.
    OpenRoot,
    /// From who could look into this process otherwise.
    Hide,
    Limit(Limit),
    Enter(CString),
    Bound(Sets),
    Label(Labels),
    Landlock(Landlock),
    Filter,
    Identity(Identity),
    Capabilities(Sets),
    NoNewPrivileges,
    TakeTerminal,
    Umask(u32),
    /// The parent runs its hooks, and gives the states that those of the child get.
    AwaitHooks,
    /// From hooks of the container's, which find nothing open either.
    HideForHooks,
    Hook(Hook, Stage),
    Init,
    Exec,
}

/// Where a container is in its life, as a hook is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Creating,
    Created,
}

/// Whose ids the program runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// None where the user namespace does not let them be changed.
    pub(crate) groups: Option<Vec<Gid>>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EnterGroups => f.write_str("entering the control group"),
            Self::AwaitParent => f.write_str("waiting for the parent"),
            Self::TimeNamespace(_) => f.write_str("making a time namespace"),
            Self::BecomeRoot { .. } => f.write_str("becoming root of the user namespace"),
            Self::Session => f.write_str("making a session"),
            Self::Keyring(_) => f.write_str("making a session keyring"),
            Self::HostName(name) => write!(f, "setting the host name {}", name.to_string_lossy()),
            Self::DomainName(name) => write!(f, "setting the domain name {}", name.to_string_lossy()),
            Self::Loopback => f.write_str("bringing the loopback interface up"),
            Self::TakeRoot(_) => f.write_str("taking the root directory"),
            Self::CloneSource(host) => write!(f, "taking {} of the host", host.path.to_string_lossy()),
            Self::Propagation(_) => f.write_str("parting the mounts from the host's"),
            Self::CloneRoot => f.write_str("copying the root directory's mount"),
            Self::AttachRoot => f.write_str("mounting the root directory"),
            Self::CgroupNamespace => f.write_str("making a cgroup namespace"),
            Self::Mount(mount) => match mount.kind() {
                Some(kind) => write!(f, "mounting {} on {}", kind.to_string_lossy(), mount.target),
                None => write!(f, "mounting on {}", mount.target),
            },
            Self::Device(device, _) => write!(f, "making {device}"),
            Self::Link(name, _) => write!(f, "making the link /dev/{}", name.to_string_lossy()),
            Self::Terminal { .. } => f.write_str("making a terminal"),
            Self::Sysctls(_) => f.write_str("setting a kernel parameter"),
            Self::MakeDirectory(inside) => write!(f, "making the working directory {inside}"),
            Self::ReadOnly(inside) | Self::Remount(inside) => write!(f, "making {inside} read-only"),
            Self::Mask(inside) => write!(f, "masking {inside}"),
            Self::RootReadOnly => f.write_str("making the root read-only"),
            Self::Pivot | Self::Cover => f.write_str("changing the root"),
            Self::OpenRoot => f.write_str("opening the container's root"),
            Self::AwaitHooks => f.write_str("waiting for hooks"),
            Self::Hook(hook, _) => write!(f, "running the hook {hook}"),
            Self::Hide | Self::HideForHooks => f.write_str("hiding from the container"),
            Self::Limit(_) => f.write_str("setting a resource limit"),
            Self::Enter(path) => write!(f, "entering the working directory {}", path.to_string_lossy()),
            Self::Bound(_) => f.write_str("bounding the capabilities"),
            Self::Label(_) => f.write_str("setting the security module's label"),
            Self::Landlock(_) => f.write_str("confining it by Landlock"),
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
