//! Capabilities: the five sets of a process, as bits.

use std::str::FromStr as _;

use oci_spec::runtime::{Capabilities, LinuxCapabilities};
use rustix::io::Errno;

use crate::error::{Called as _, Error, Fault};
use crate::sys::process;

/// Docker's default: what root in a container may do.
pub const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The highest number that fits the kernel's sets.
const HIGHEST: u8 = 63;

/// The five sets, a bit for each capability's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

/// The names (`CAP_…`) of all that this process may hand on: its own bounding set.
#[must_use]
pub fn available() -> Vec<String> {
    let held = |capability: &caps::Capability| process::has_bounding(capability.index()) == Ok(true);
    let mut names: Vec<String> = caps::all().iter().filter(|c| held(c)).map(ToString::to_string).collect();
    names.sort();
    names
}

/// Reads a name with or without `CAP_`, in any case; the name as the kernel writes it.
#[must_use]
pub fn parse(name: &str) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    caps::Capability::from_str(&full).ok().map(|capability| capability.to_string())
}

fn bits(field: &str, set: Option<&Capabilities>) -> Result<u64, Error> {
    let mut bits = 0;
    for capability in set.into_iter().flatten() {
        let name = format!("CAP_{capability}");
        let number = caps::Capability::from_str(&name)
            .map_err(|_| Error::unsupported(format!("process.capabilities.{field}"), name))?
            .index();
        bits |= 1_u64 << number;
    }
    Ok(bits)
}

/// Reads the sets of the configuration.
pub(crate) fn plan(capabilities: &LinuxCapabilities) -> Result<Sets, Error> {
    Ok(Sets {
        bounding: bits("bounding", capabilities.bounding().as_ref())?,
        effective: bits("effective", capabilities.effective().as_ref())?,
        permitted: bits("permitted", capabilities.permitted().as_ref())?,
        inheritable: bits("inheritable", capabilities.inheritable().as_ref())?,
        ambient: bits("ambient", capabilities.ambient().as_ref())?,
    })
}

/// Takes everything else out of the bounding set. It needs `CAP_SETPCAP`, and so comes before [`set`].
pub(crate) fn bound(sets: Sets) -> Result<(), Fault> {
    for number in 0..=HIGHEST {
        if sets.bounding & (1 << number) == 0 {
            match process::drop_bounding(number) {
                // Beyond what this kernel knows.
                Err(Errno::INVAL) => break,
                other => other.called("prctl PR_CAPBSET_DROP")?,
            }
        }
    }
    Ok(())
}

/// Sets the other four.
pub(crate) fn set(sets: Sets) -> Result<(), Fault> {
    process::set_capabilities(sets.effective, sets.permitted, sets.inheritable).called("capset")?;
    process::clear_ambient().called("prctl PR_CAP_AMBIENT")?;
    for number in (0..=HIGHEST).filter(|number| sets.ambient & (1 << number) != 0) {
        process::raise_ambient(number).called("prctl PR_CAP_AMBIENT")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    #[test]
    fn names_become_bits() {
        let mut capabilities = LinuxCapabilities::default();
        capabilities
            .set_bounding(Some([Capability::Chown, Capability::CheckpointRestore].into()))
            .set_effective(None)
            .set_permitted(Some([Capability::Bpf].into()))
            .set_inheritable(None)
            .set_ambient(None);
        let sets = plan(&capabilities).unwrap();
        assert_eq!(sets, Sets { bounding: 1 | 1 << 40, permitted: 1 << 39, ..Sets::default() });
        assert!(DEFAULT.iter().all(|name| parse(name).as_deref() == Some(name)));
        assert_eq!(parse("net_admin").as_deref(), Some("CAP_NET_ADMIN"));
        assert_eq!(parse("everything"), None);
    }
}
