//! Namespaces: made with the process, or joined by path.

use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, LinuxTimeOffset};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::error::{Called as _, Error, Fault};
use crate::exec::Entry;
use crate::sys::process;

/// The namespaces of a container.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// Those that the process is cloned into, as `CLONE_NEW*`.
    pub(crate) cloned: u64,
    /// A cgroup namespace begins where the process is when it is made: after it entered its cgroup.
    pub(crate) cgroup: bool,
    /// A time namespace's clocks can be set only while nobody is in it.
    pub(crate) time: bool,
    /// Those that exist already. The user namespace comes first: it gives the right to join the others.
    pub(crate) joined: Vec<Join>,
    /// Those of a container that runs, all together.
    pub(crate) entry: Option<Entry>,
}

/// A namespace that exists already.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) kind: LinuxNamespaceType,
    fd: OwnedFd,
}

/// Reads the namespaces of the configuration and opens those that are joined.
pub(crate) fn plan(namespaces: &[LinuxNamespace]) -> Result<Namespaces, Error> {
    let mut planned = Namespaces::default();
    let mut seen = Vec::new();
    for namespace in namespaces {
        let kind = namespace.typ();
        let field = format!("linux.namespaces ({kind})");
        if seen.contains(&kind) {
            return Err(Error::invalid(field, "given twice"));
        }
        seen.push(kind);
        match namespace.path() {
            Some(_) if kind == LinuxNamespaceType::Mount => {
                return Err(Error::unsupported(
                    field,
                    "joining a mount namespace, whose root would change for all in it,",
                ));
            }
            Some(path) => {
                let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
                    .map_err(Error::call("open", path.display().to_string()))?;
                planned.joined.push(Join { kind, fd });
            }
            None => match kind {
                LinuxNamespaceType::Cgroup => planned.cgroup = true,
                LinuxNamespaceType::Time => planned.time = true,
                other => planned.cloned |= other as u64,
            },
        }
    }
    if planned.cloned & LinuxNamespaceType::Mount as u64 == 0 {
        return Err(Error::invalid("linux.namespaces", "a container needs a mount namespace of its own"));
    }
    planned.joined.sort_by_key(|join| join.kind != LinuxNamespaceType::User);
    Ok(planned)
}

impl Namespaces {
    /// Whether the container's process is in a user namespace of its own, made or joined.
    pub(crate) fn has_user(&self) -> bool {
        self.makes(LinuxNamespaceType::User) || self.joins(LinuxNamespaceType::User)
    }

    pub(crate) fn makes(&self, kind: LinuxNamespaceType) -> bool {
        match kind {
            LinuxNamespaceType::Cgroup => self.cgroup,
            LinuxNamespaceType::Time => self.time,
            other => self.cloned & other as u64 != 0,
        }
    }

    pub(crate) fn joins(&self, kind: LinuxNamespaceType) -> bool {
        self.joined.iter().any(|join| join.kind == kind)
    }

    /// Whether there is anything to join or to enter before the container's process is made.
    pub(crate) fn joins_any(&self) -> bool {
        !self.joined.is_empty() || self.entry.is_some()
    }

    /// Apart from the one that the process was started in.
    pub(crate) fn has(&self, kind: LinuxNamespaceType) -> bool {
        self.makes(kind) || self.joins(kind)
    }
}

impl Join {
    pub(crate) fn perform(&self) -> Result<(), Fault> {
        let kind = match self.kind {
            LinuxNamespaceType::Mount => LinkNameSpaceType::Mount,
            LinuxNamespaceType::Cgroup => LinkNameSpaceType::ControlGroup,
            LinuxNamespaceType::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
            LinuxNamespaceType::Ipc => LinkNameSpaceType::InterProcessCommunication,
            LinuxNamespaceType::User => LinkNameSpaceType::User,
            LinuxNamespaceType::Pid => LinkNameSpaceType::ProcessID,
            LinuxNamespaceType::Network => LinkNameSpaceType::Network,
            LinuxNamespaceType::Time => LinkNameSpaceType::Time,
        };
        rustix::thread::move_into_link_name_space(self.fd.as_fd(), Some(kind)).called("setns")
    }
}

/// The lines of `timens_offsets`, one for each clock.
pub(crate) fn time_offsets<'a>(
    offsets: impl IntoIterator<Item = (&'a String, &'a LinuxTimeOffset)>,
) -> Result<Vec<CString>, Error> {
    let mut lines = Vec::new();
    for (clock, offset) in offsets {
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            return Err(Error::invalid("linux.timeOffsets", format!("no clock {clock:?}")));
        }
        let line = format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        lines.push(CString::new(line).map_err(|_| Error::invalid("linux.timeOffsets", "a NUL"))?);
    }
    lines.sort();
    Ok(lines)
}

/// Makes a cgroup namespace.
pub(crate) fn unshare_cgroup() -> Result<(), Fault> {
    process::unshare(UnshareFlags::NEWCGROUP).called("unshare CLONE_NEWCGROUP")
}

/// Makes a time namespace, sets its clocks and enters it.
pub(crate) fn unshare_time(offsets: &[CString]) -> Result<(), Fault> {
    process::unshare(UnshareFlags::NEWTIME).called("unshare CLONE_NEWTIME")?;
    if !offsets.is_empty() {
        let file = rustix::fs::open(c"/proc/self/timens_offsets", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .called("open timens_offsets")?;
        for line in offsets {
            rustix::io::write(&file, line.to_bytes()).called("write timens_offsets")?;
        }
    }
    let own = rustix::fs::open(c"/proc/self/ns/time_for_children", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .called("open time_for_children")?;
    rustix::thread::move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Time)).called("setns")
}

/// Becomes root of the user namespace, if it has one, without the groups of the user outside where that is permitted.
pub(crate) fn become_root(groups: bool, joined: bool) -> Result<(), Fault> {
    use rustix::fs::{Gid, Uid};
    if groups {
        match rustix::thread::set_thread_groups(&[]) {
            // In a namespace that is joined it may be denied for ever: these groups then stay, as for who made it.
            Err(Errno::PERM) if joined => {}
            other => other.called("setgroups")?,
        }
    }
    let fault = |errno: Errno, call| match errno {
        Errno::INVAL => Fault::refused("id 0 is not mapped: a container needs a root to be set up"),
        errno => Fault { what: call, errno: errno.raw_os_error() },
    };
    let (gid, uid) = (Gid::ROOT, Uid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|errno| fault(errno, "setresgid"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|errno| fault(errno, "setresuid"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxNamespaceBuilder;

    fn namespace(kind: LinuxNamespaceType, path: Option<&str>) -> LinuxNamespace {
        let builder = LinuxNamespaceBuilder::default().typ(kind);
        match path {
            Some(path) => builder.path(path).build().unwrap(),
            None => builder.build().unwrap(),
        }
    }

    #[test]
    fn the_user_namespace_is_joined_first() {
        use LinuxNamespaceType as Kind;
        let planned = plan(&[
            namespace(Kind::Mount, None),
            namespace(Kind::Network, Some("/proc/self/ns/net")),
            namespace(Kind::User, Some("/proc/self/ns/user")),
            namespace(Kind::Cgroup, None),
            namespace(Kind::Time, None),
        ])
        .unwrap();
        assert_eq!(planned.cloned, u64::from(libc::CLONE_NEWNS.unsigned_abs()));
        let kinds: Vec<Kind> = planned.joined.iter().map(|join| join.kind).collect();
        assert_eq!(kinds, [Kind::User, Kind::Network]);
        assert!(planned.cgroup && planned.time && planned.has_user() && !planned.has(Kind::Pid));
    }

    #[test]
    fn contradictions_are_refused() {
        use LinuxNamespaceType as Kind;
        assert!(plan(&[namespace(Kind::Mount, None), namespace(Kind::Mount, None)]).is_err());
        assert!(plan(&[namespace(Kind::Pid, None)]).is_err());
        assert!(plan(&[namespace(Kind::Mount, Some("/proc/self/ns/mnt"))]).is_err());
        assert!(plan(&[namespace(Kind::Mount, None), namespace(Kind::Pid, Some("/nowhere"))]).is_err());
    }
}
