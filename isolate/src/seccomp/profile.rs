//! Docker's profile format: rules that depend on capabilities, machine and kernel.

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSyscall};
use serde::Deserialize;

use super::SeccompError;

/// The filter that a container has unless another is asked for.
pub const DEFAULT_PROFILE: &str = include_str!("default.json");

/// A profile as `--security-opt seccomp=FILE` names it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    arch_map: Option<Vec<ArchMap>>,
    architectures: Option<Vec<Arch>>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// The machine as Go names it, which is how profiles do.
const MACHINE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    std::env::consts::ARCH
};

const NATIVE: Option<Arch> = if cfg!(target_arch = "x86_64") {
    Some(Arch::ScmpArchX86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(Arch::ScmpArchAarch64)
} else if cfg!(target_arch = "riscv64") {
    Some(Arch::ScmpArchRiscv64)
} else {
    None
};

/// Major and minor number of a kernel's release, such as `6.1.0-13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

impl Profile {
    /// Reads a profile's text.
    ///
    /// # Errors
    /// It is no JSON of this form.
    pub fn parse(text: &str) -> Result<Self, SeccompError> {
        Ok(serde_json::from_str(text)?)
    }

    /// The rules that hold with these capabilities (`CAP_…`) on this kernel (`uname -r`).
    ///
    /// # Errors
    /// A value is malformed.
    pub fn resolve(&self, capabilities: &[String], release: &str) -> Result<LinuxSeccomp, SeccompError> {
        let kernel = version(release)
            .ok_or(SeccompError::Value { what: "the kernel's release".to_owned(), why: "no version" })?;
        let mut architectures = self.architectures.clone().unwrap_or_default();
        for map in self.arch_map.iter().flatten().filter(|map| Some(map.architecture) == NATIVE) {
            architectures.push(map.architecture);
            architectures.extend(map.sub_architectures.iter().flatten());
        }
        let mut calls = Vec::new();
        for rule in &self.syscalls {
            if !rule.applies(capabilities, kernel)? {
                continue;
            }
            let mut names = rule.names.clone().unwrap_or_default();
            names.extend(rule.name.clone());
            let mut call = LinuxSyscall::default();
            call.set_names(names).set_action(rule.action).set_errno_ret(rule.errno_ret).set_args(rule.args.clone());
            calls.push(call);
        }
        let mut seccomp = LinuxSeccomp::default();
        seccomp
            .set_default_action(self.default_action)
            .set_default_errno_ret(self.default_errno_ret)
            .set_architectures(Some(architectures))
            .set_syscalls(Some(calls));
        Ok(seccomp)
    }
}

impl Rule {
    fn applies(&self, capabilities: &[String], kernel: (u32, u32)) -> Result<bool, SeccompError> {
        let has = |wanted: &String| capabilities.contains(wanted);
        let here = |arch: &String| arch == MACHINE;
        let recent = |filter: &Filter| match &filter.min_kernel {
            None => Ok(None),
            Some(text) => version(text)
                .map(|wanted| Some(kernel >= wanted))
                .ok_or_else(|| SeccompError::Value { what: format!("minKernel {text:?}"), why: "no version" }),
        };
        let included = self.includes.caps.iter().all(has)
            && (self.includes.arches.is_empty() || self.includes.arches.iter().any(here))
            && recent(&self.includes)? != Some(false);
        let excluded = self.excludes.caps.iter().any(has)
            || self.excludes.arches.iter().any(here)
            || recent(&self.excludes)? == Some(true);
        Ok(included && !excluded)
    }
}

#[cfg(test)]
mod tests {
    use super::super::assemble::tests::run;
    use super::super::{RET_ALLOW, RET_ERRNO, compile};
    use super::*;

    const X86_64: u32 = 0xc000_003e;
    const X86: u32 = 0x4000_0003;
    const EPERM: u32 = RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = RET_ERRNO | libc::ENOSYS as u32;

    fn default_filter(capabilities: &[&str]) -> Vec<crate::sys::bpf::Instruction> {
        let capabilities: Vec<String> = capabilities.iter().map(|c| (*c).to_owned()).collect();
        let profile = Profile::parse(DEFAULT_PROFILE).unwrap();
        compile(&profile.resolve(&capabilities, "6.1.0-13-amd64").unwrap()).unwrap()
    }

    #[cfg(target_arch = "x86_64")]
    fn answer(filter: &[crate::sys::bpf::Instruction], call: i64, argument: u64) -> u32 {
        run(filter, X86_64, u32::try_from(call).unwrap(), [argument, 0, 0, 0, 0, 0])
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_default_profile_means_what_docker_s_means() {
        let filter = default_filter(&["CAP_CHOWN", "CAP_SYS_CHROOT"]);
        for call in [libc::SYS_read, libc::SYS_openat, libc::SYS_execve, libc::SYS_ptrace, libc::SYS_chroot] {
            assert_eq!(answer(&filter, call, 0), RET_ALLOW, "{call}");
        }
        for call in [
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_reboot,
            libc::SYS_open_by_handle_at,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
        ] {
            assert_eq!(answer(&filter, call, 0), EPERM, "{call}");
        }
        assert_eq!(answer(&filter, libc::SYS_clone3, 0), ENOSYS);
        assert_eq!(answer(&filter, libc::SYS_clone, libc::SIGCHLD as u64), RET_ALLOW);
        assert_eq!(answer(&filter, libc::SYS_clone, libc::CLONE_NEWUSER as u64), EPERM);
        for (family, allowed) in [
            (libc::AF_UNIX, true),
            (libc::AF_INET6, true),
            (libc::AF_NETLINK, true),
            (libc::AF_PACKET, true),
            (libc::AF_ALG, false),
            (libc::AF_VSOCK, false),
        ] {
            let wanted = if allowed { RET_ALLOW } else { EPERM };
            assert_eq!(answer(&filter, libc::SYS_socket, family as u64), wanted, "{family}");
        }
        assert_eq!(answer(&filter, libc::SYS_personality, 0xffff_ffff), RET_ALLOW);
        assert_eq!(answer(&filter, libc::SYS_personality, 0x0004_0000), EPERM);
        // x32, and 32-bit programs: socketcall (102) would hide the family, socket is 359.
        assert_eq!(answer(&filter, 0x4000_0000, 0), EPERM);
        assert_eq!(run(&filter, X86, 102, [1, 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(&filter, X86, 359, [libc::AF_ALG as u64, 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(&filter, X86, 359, [1, 0, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(run(&filter, X86, 3, [0; 6]), RET_ALLOW);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn capabilities_open_what_they_are_for() {
        let filter = default_filter(&["CAP_SYS_ADMIN", "CAP_SYS_BOOT"]);
        for call in [libc::SYS_mount, libc::SYS_unshare, libc::SYS_clone3, libc::SYS_bpf, libc::SYS_reboot] {
            assert_eq!(answer(&filter, call, libc::CLONE_NEWUSER as u64), RET_ALLOW, "{call}");
        }
        assert_eq!(answer(&filter, libc::SYS_clone, libc::CLONE_NEWUSER as u64), RET_ALLOW);
        assert_eq!(answer(&filter, libc::SYS_chroot, 0), EPERM);
    }

    #[test]
    fn hostile_profiles_are_refused() {
        for text in ["", "{}", "[]", r#"{"defaultAction":"SCMP_ACT_NOTHING"}"#] {
            assert!(Profile::parse(text).is_err(), "{text}");
        }
        let resolved = |text: &str| Profile::parse(text).unwrap().resolve(&[], "6.1").and_then(|s| compile(&s));
        for text in [
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":70000}"#,
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO",
                "args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO",
                "includes":{"minKernel":"x"}}]}"#,
        ] {
            assert!(resolved(text).is_err(), "{text}");
        }
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18)));
    }
}
