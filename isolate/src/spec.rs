//! The OCI runtime configuration, checked: what is left is what this runtime does.

use oci_spec::runtime::{Linux, Process, Spec};

use crate::error::Error;

/// The longest argument list and environment, together, as the kernel's default stack allows it.
const MAX_STRINGS: usize = 2 * 1024 * 1024;

/// A configuration whose members are there and supported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) process: &'a Process,
    pub(crate) linux: &'a Linux,
    pub(crate) root: &'a oci_spec::runtime::Root,
}

/// Checks a configuration. What it asks for and this runtime does not do is refused, never passed over.
pub(crate) fn check(spec: &Spec) -> Result<Config<'_>, Error> {
    let missing = |field: &str| Error::invalid(field, "missing");
    if !spec.version().starts_with("1.") {
        return Err(Error::unsupported("ociVersion", spec.version().clone()));
    }
    let process = spec.process().as_ref().ok_or_else(|| missing("process"))?;
    let linux = spec.linux().as_ref().ok_or_else(|| missing("linux"))?;
    let root = spec.root().as_ref().ok_or_else(|| missing("root"))?;
    check_process(process)?;
    refuse(linux)?;
    Ok(Config { spec, process, linux, root })
}

/// Checks what a configuration, or a command that comes later, says of a process.
pub(crate) fn check_process(process: &Process) -> Result<(), Error> {
    let arguments = process.args().as_deref().unwrap_or_default();
    match arguments.first().map(String::as_str) {
        None => return Err(Error::invalid("process.args", "missing")),
        Some("") => return Err(Error::invalid("process.args", "an empty program name")),
        Some(_) => {}
    }
    let environment = process.env().as_deref().unwrap_or_default();
    if arguments.iter().chain(environment).map(String::len).sum::<usize>() > MAX_STRINGS {
        return Err(Error::invalid("process.args", format!("with process.env more than {MAX_STRINGS} bytes")));
    }
    if !process.cwd().is_absolute() {
        return Err(Error::invalid("process.cwd", "must be absolute"));
    }
    first_asked(&[
        (process.io_priority().is_some(), "process.ioPriority", "a priority"),
        (process.scheduler().is_some(), "process.scheduler", "a policy"),
        (process.exec_cpu_affinity().is_some(), "process.execCPUAffinity", "an affinity"),
    ])
}

fn refuse(linux: &Linux) -> Result<(), Error> {
    let propagation = linux.rootfs_propagation().as_deref().unwrap_or_default();
    first_asked(&[
        (linux.intel_rdt().is_some(), "linux.intelRdt", "a closid"),
        (linux.memory_policy().is_some(), "linux.memoryPolicy", "a policy"),
        (linux.personality().is_some(), "linux.personality", "an execution domain"),
        (
            linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()),
            "linux.netDevices",
            "moving a device",
        ),
        (!["", "private", "rprivate"].contains(&propagation), "linux.rootfsPropagation", "a root that is not private"),
    ])
}

/// Refuses the first of these that was asked for.
fn first_asked(asked: &[(bool, &str, &str)]) -> Result<(), Error> {
    match asked.iter().find(|(asked, ..)| *asked) {
        Some((_, field, what)) => Err(Error::unsupported(*field, *what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_is_refused() {
        let mut spec = Spec::default();
        assert!(check(&spec).is_ok());
        let mut process = spec.process().clone().unwrap();
        for (args, cwd) in [(vec![], "/"), (vec![String::new()], "/"), (vec!["sh".to_owned()], "relative")] {
            process.set_args(Some(args)).set_cwd(cwd.into());
            spec.set_process(Some(process.clone()));
            assert!(check(&spec).is_err());
        }
        let mut spec = Spec::default();
        let mut linux = spec.linux().clone().unwrap();
        linux.set_rootfs_propagation(Some("shared".to_owned()));
        spec.set_linux(Some(linux));
        assert!(check(&spec).unwrap_err().to_string().contains("linux.rootfsPropagation"));
    }
}
