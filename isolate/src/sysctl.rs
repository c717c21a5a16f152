//! Kernel parameters of the container's own namespaces.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{Called as _, Error, Fault};
use crate::namespace::Namespaces;

/// Those of `kernel.` that belong to an ipc namespace.
const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sysctl {
    /// `sys/net/ipv4/…`, below /proc.
    path: CString,
    value: CString,
}

/// All of a container's, and the procfs of the parent's through which they are written.
#[derive(Debug)]
pub(crate) struct Sysctls {
    proc: OwnedFd,
    all: Vec<Sysctl>,
}

/// Reads the parameters of the configuration; one that reaches beyond the container's namespaces is refused.
pub(crate) fn plan<'a>(
    parameters: impl IntoIterator<Item = (&'a String, &'a String)>,
    namespaces: &Namespaces,
    proc: OwnedFd,
) -> Result<Option<Sysctls>, Error> {
    let all = check(parameters, namespaces)?;
    Ok((!all.is_empty()).then_some(Sysctls { proc, all }))
}

fn check<'a>(
    parameters: impl IntoIterator<Item = (&'a String, &'a String)>,
    namespaces: &Namespaces,
) -> Result<Vec<Sysctl>, Error> {
    let mut planned = Vec::new();
    for (name, value) in parameters {
        let field = format!("linux.sysctl ({name:?})");
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if !name.chars().all(plain) || name.split(['.', '/']).any(str::is_empty) {
            return Err(Error::invalid(field, "no name of a kernel parameter"));
        }
        // `+` joins several settings for other runtimes' helpers; no parameter needs it.
        if value.chars().any(|c| c.is_control() && c != '\t' || c == '+') {
            return Err(Error::invalid(field, "a value with control characters or +"));
        }
        let needed = match name.split_once(['.', '/']) {
            Some(("net", _)) => LinuxNamespaceType::Network,
            Some(("kernel", key)) if IPC.contains(&key) => LinuxNamespaceType::Ipc,
            Some(("fs", key)) if key.starts_with("mqueue.") => LinuxNamespaceType::Ipc,
            Some(("kernel", "domainname")) => LinuxNamespaceType::Uts,
            _ => return Err(Error::unsupported(field, "a parameter that is not the container's own")),
        };
        if !namespaces.has(needed) {
            return Err(Error::invalid(field, format!("it is the host's without a {needed} namespace")));
        }
        let c_string = |text: String| CString::new(text).map_err(|_| Error::invalid(&field, "a NUL"));
        let path = c_string(format!("sys/{}", name.replace('.', "/")))?;
        planned.push(Sysctl { path, value: c_string(value.clone())? });
    }
    planned.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(planned)
}

impl Sysctls {
    pub(crate) fn perform(&self) -> Result<(), Fault> {
        self.all.iter().try_for_each(|sysctl| sysctl.perform(&self.proc))
    }
}

impl Sysctl {
    /// Writes it through a procfs that is the parent's: nothing that is mounted in the container comes between.
    fn perform(&self, proc: &OwnedFd) -> Result<(), Fault> {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(proc, &self.path, flags, Mode::empty(), resolve).called("openat2")?;
        rustix::io::write(&file, self.value.to_bytes()).called("write").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(name: &str, value: &str, namespaces: &Namespaces) -> Result<Vec<Sysctl>, Error> {
        check([(&name.to_owned(), &value.to_owned())], namespaces)
    }

    #[test]
    fn only_the_container_s_own() {
        let cloned = LinuxNamespaceType::Network as u64 | LinuxNamespaceType::Ipc as u64;
        let own = Namespaces { cloned, ..Namespaces::default() };
        let sysctl = planned("net.ipv4.ip_forward", "1", &own).unwrap();
        assert_eq!(sysctl[0].path.as_c_str(), c"sys/net/ipv4/ip_forward");
        assert!(planned("kernel.shmmax", "1", &own).is_ok() && planned("fs.mqueue.msg_max", "1", &own).is_ok());
        assert!(planned("net.ipv4.ip_forward", "1", &Namespaces::default()).is_err());
        for name in
            ["kernel.core_pattern", "vm.swappiness", "net", "net.", "net..x", "net/../kernel/core_pattern", "a b"]
        {
            assert!(planned(name, "1", &own).is_err(), "{name}");
        }
        for value in ["1+kernel.core_pattern=|/x", "1\nx", "\0"] {
            assert!(planned("kernel.shmmax", value, &own).is_err(), "{value:?}");
        }
    }
}
