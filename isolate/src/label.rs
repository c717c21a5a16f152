//! The labels of the host's security modules: an AppArmor profile, an SELinux label of processes and one of mounts
//! (runtime-spec, `process.apparmorProfile`, `process.selinuxLabel`, `linux.mountLabel`).
//!
//! They are passed through where the host has the module, and refused where it has not: whoever names one relies on it.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Process;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Called as _, Error, Fault};
use crate::plan::{c_string, open_proc};

/// AppArmor's name for no profile.
const UNCONFINED: &str = "unconfined";

/// Where a process says what its next program runs under. AppArmor's own file is there since Linux 5.8.
const APPARMOR: &CStr = c"thread-self/attr/apparmor/exec";
const COMMON: &CStr = c"thread-self/attr/exec";

/// Filesystems that have labels of their own, or none.
const UNLABELLED: [&str; 5] = ["proc", "sysfs", "cgroup", "cgroup2", "mqueue"];

/// Which modules the host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modules {
    /// AppArmor, from which a profile can be had.
    pub apparmor: bool,
    /// SELinux, with a policy.
    pub selinux: bool,
}

impl Modules {
    /// Those of this host.
    #[must_use]
    pub fn detect() -> Self {
        Self::below(Path::new("/sys"))
    }

    fn below(sys: &Path) -> Self {
        let enabled = fs::read_to_string(sys.join("module/apparmor/parameters/enabled"));
        Self {
            apparmor: enabled.is_ok_and(|text| text.trim() == "Y"),
            // It is mounted there if a policy is loaded.
            selinux: sys.join("fs/selinux/enforce").exists(),
        }
    }
}

/// What a program is to run under.
#[derive(Debug)]
pub(crate) struct Labels {
    /// The parent's procfs, on which nothing of the container's is mounted.
    proc: OwnedFd,
    /// What is written for AppArmor.
    apparmor: Option<CString>,
    selinux: Option<CString>,
}

/// The labels of a process, if it is to have any.
pub(crate) fn plan(process: &Process) -> Result<Option<Labels>, Error> {
    if named(process.apparmor_profile()).is_none() && named(process.selinux_label()).is_none() {
        // Nobody is asked for what most do without.
        return Ok(None);
    }
    let (apparmor, selinux) = check(process, Modules::detect())?;
    if apparmor.is_none() && selinux.is_none() {
        return Ok(None);
    }
    Ok(Some(Labels { proc: open_proc()?, apparmor, selinux }))
}

fn check(process: &Process, modules: Modules) -> Result<(Option<CString>, Option<CString>), Error> {
    // Without the module everything is unconfined.
    let profile = named(process.apparmor_profile()).filter(|name| modules.apparmor || *name != UNCONFINED);
    let label = named(process.selinux_label());
    let apparmor = match profile {
        Some(_) if !modules.apparmor => return Err(missing("AppArmor", "process.apparmorProfile")),
        Some(name) => Some(c_string("process.apparmorProfile", format!("exec {name}").as_bytes())?),
        None => None,
    };
    let selinux = match label {
        Some(_) if !modules.selinux => return Err(missing("SELinux", "process.selinuxLabel")),
        Some(label) => Some(c_string("process.selinuxLabel", label.as_bytes())?),
        None => None,
    };
    Ok((apparmor, selinux))
}

/// The parameter of a new filesystem that gives its files a label.
pub(crate) fn of_mounts(label: Option<&String>) -> Result<Option<CString>, Error> {
    let Some(label) = label.filter(|label| !label.is_empty()) else { return Ok(None) };
    check_mounts(label, Modules::detect()).map(Some)
}

fn check_mounts(label: &str, modules: Modules) -> Result<CString, Error> {
    if !modules.selinux {
        return Err(missing("SELinux", "linux.mountLabel"));
    }
    c_string("linux.mountLabel", label.as_bytes())
}

/// Whether files of a filesystem of this type take the label of their mount.
pub(crate) fn is_labelled(kind: &CStr) -> bool {
    !UNLABELLED.iter().any(|other| other.as_bytes() == kind.to_bytes())
}

fn named(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn missing(module: &str, field: &str) -> Error {
    Error::Unavailable {
        what: format!("{module} ({field})"),
        why: "this host does not run it; leave the label out, or use a host that does".to_owned(),
    }
}

impl Labels {
    /// Says what the next program of this thread, or of one that it makes, runs under.
    pub(crate) fn perform(&self) -> Result<(), Fault> {
        if let Some(command) = &self.apparmor {
            match write(&self.proc, APPARMOR, command) {
                // Before Linux 5.8 the one module there is has the common file.
                Err(Fault { errno: libc::ENOENT, what: "openat2" }) => write(&self.proc, COMMON, command)?,
                written => written?,
            }
        }
        self.selinux.as_ref().map_or(Ok(()), |label| write(&self.proc, COMMON, label))
    }
}

fn write(proc: impl AsFd, path: &CStr, text: &CStr) -> Result<(), Fault> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve);
    let file = file.called("openat2")?;
    match rustix::io::write(&file, text.to_bytes()) {
        Err(Errno::NOENT) => Err(Fault::refused("no such profile is loaded (see apparmor_parser(8))")),
        Err(Errno::INVAL) => Err(Fault::refused("the host's policy has no such label")),
        written => written.called("write").map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Modules = Modules { apparmor: true, selinux: true };
    const NONE: Modules = Modules { apparmor: false, selinux: false };

    fn process(profile: &str, label: &str) -> Process {
        let mut process = Process::default();
        process.set_apparmor_profile(Some(profile.to_owned())).set_selinux_label(Some(label.to_owned()));
        process
    }

    /// A tree as the kernel would show it, in plain files.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for file in files {
            let path = place.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        place
    }

    #[test]
    fn modules_are_told_by_what_sys_shows() {
        let sys = tree(&["module/apparmor/parameters/enabled", "fs/selinux/enforce"]);
        assert_eq!(Modules::below(sys.path()), Modules { apparmor: false, selinux: true });
        fs::write(sys.path().join("module/apparmor/parameters/enabled"), "Y\n").unwrap();
        assert_eq!(Modules::below(sys.path()), ALL);
        assert_eq!(Modules::below(&sys.path().join("nowhere")), NONE);
    }

    #[test]
    fn labels_are_passed_on_or_refused() {
        let (apparmor, selinux) = check(&process("docker-default", "a:b:c:s0"), ALL).unwrap();
        assert_eq!((apparmor.as_deref(), selinux.as_deref()), (Some(c"exec docker-default"), Some(c"a:b:c:s0")));
        for (wanted, word) in [(process("x", ""), "AppArmor"), (process("", "x"), "SELinux")] {
            let error = check(&wanted, NONE).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("does not run it"), "{error}");
        }
        assert_eq!(check(&process("unconfined", ""), NONE).unwrap(), (None, None));
        assert_eq!(check(&process("unconfined", ""), ALL).unwrap().0.as_deref(), Some(c"exec unconfined"));
        assert!(check_mounts("l", NONE).is_err() && of_mounts(None).unwrap().is_none());
        assert_eq!(check_mounts("l", ALL).unwrap().as_c_str(), c"l");
        assert!(is_labelled(c"tmpfs") && is_labelled(c"devpts") && !is_labelled(c"proc"));
    }

    #[test]
    fn what_is_to_be_is_written_where_each_module_reads_it() {
        let written = |files: &[&str], selinux: Option<&CStr>| {
            let proc = tree(files);
            let fd = rustix::fs::open(proc.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
            let labels =
                Labels { proc: fd, apparmor: Some(c"exec p".to_owned()), selinux: selinux.map(CStr::to_owned) };
            labels.perform().map(|()| {
                let read =
                    |file: &CStr| fs::read_to_string(proc.path().join(file.to_str().unwrap())).unwrap_or_default();
                (read(APPARMOR), read(COMMON))
            })
        };
        let (own, common) = ("thread-self/attr/apparmor/exec", "thread-self/attr/exec");
        assert_eq!(written(&[own, common], Some(c"l")).unwrap(), ("exec p".to_owned(), "l".to_owned()));
        assert_eq!(written(&[common], None).unwrap(), (String::new(), "exec p".to_owned()));
        assert_eq!(written(&[], None).unwrap_err(), Fault { what: "openat2", errno: libc::ENOENT });
    }
}
