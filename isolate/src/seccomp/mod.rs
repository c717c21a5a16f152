//! The system call filter: from a profile or the configuration to a BPF program.
//!
//! `profile` reads Docker's profile format, whose rules depend on capabilities,
//! machine and kernel; what remains is the configuration's `linux.seccomp`,
//! which `compile` turns into a program: a binary search over the system call's
//! number, per architecture, so that the kernel, which runs a new filter once
//! for every number to learn which are always allowed, is done soon.

mod assemble;
mod cache;
mod profile;

use std::collections::BTreeMap;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSyscall};

pub use cache::Cache;
pub use profile::{DEFAULT_PROFILE, Profile};

use crate::sys::bpf::Instruction;

const RET_KILL_PROCESS: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const RET_KILL_THREAD: u32 = libc::SECCOMP_RET_KILL_THREAD;
const RET_TRAP: u32 = libc::SECCOMP_RET_TRAP;
const RET_ERRNO: u32 = libc::SECCOMP_RET_ERRNO;
const RET_TRACE: u32 = libc::SECCOMP_RET_TRACE;
const RET_LOG: u32 = libc::SECCOMP_RET_LOG;
const RET_ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

/// The longest program that the kernel takes.
const MAX_INSTRUCTIONS: usize = 4096;
/// The most rules that a profile may have.
const MAX_RULES: usize = 16 * 1024;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The profile is no JSON of this form.
    #[error("seccomp profile: {0}")]
    Syntax(#[from] serde_json::Error),
    /// A value is out of its range.
    #[error("seccomp: {what}: {why}")]
    Value {
        /// The member.
        what: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Something that this runtime does not have.
    #[error("seccomp: {0} is not supported")]
    Unsupported(String),
    /// The program would be longer than the kernel takes.
    #[error("seccomp: the filter has {0} instructions, the kernel takes {MAX_INSTRUCTIONS}")]
    TooLong(usize),
}

/// What happens to a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// Always the same.
    Always(u32),
    /// The first rule that matches decides; without one, the filter's default.
    First(Vec<Rule>),
}

/// Conditions that all have to hold, and what then happens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    conditions: Vec<LinuxSeccompArg>,
    action: u32,
}

/// An architecture that programs may run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Abi {
    X86_64,
    X86,
    Aarch64,
    Arm,
    Riscv64,
}

impl Abi {
    const NATIVE: Option<Self> = if cfg!(target_arch = "x86_64") {
        Some(Self::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Self::Aarch64)
    } else if cfg!(target_arch = "riscv64") {
        Some(Self::Riscv64)
    } else {
        None
    };

    /// `AUDIT_ARCH_*`
    fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    /// The numbers by name.
    fn numbers(self) -> BTreeMap<&'static str, u32> {
        macro_rules! table {
            ($arch:ident) => {
                syscalls::$arch::Sysno::iter().map(|call| (call.name(), call.id().unsigned_abs())).collect()
            };
        }
        match self {
            Self::X86_64 => table!(x86_64),
            Self::X86 => table!(x86),
            Self::Aarch64 => table!(aarch64),
            Self::Arm => table!(arm),
            Self::Riscv64 => table!(riscv64),
        }
    }
}

/// The architectures of a filter. x32 gets no system call: its numbers are another table of
/// x86_64 that hardly any kernel has, and the default action answers it.
fn abis(architectures: &[Arch]) -> Result<Vec<Abi>, SeccompError> {
    let native = Abi::NATIVE.ok_or_else(|| SeccompError::Unsupported("this machine's architecture".to_owned()))?;
    let mut abis = vec![native];
    for arch in architectures {
        let abi = match arch {
            Arch::ScmpArchNative | Arch::ScmpArchX32 => continue,
            Arch::ScmpArchX86_64 => Abi::X86_64,
            Arch::ScmpArchX86 => Abi::X86,
            Arch::ScmpArchAarch64 => Abi::Aarch64,
            Arch::ScmpArchArm => Abi::Arm,
            Arch::ScmpArchRiscv64 => Abi::Riscv64,
            // Of machines that this is not: nothing runs as such here.
            _ => continue,
        };
        if !abis.contains(&abi) {
            abis.push(abi);
        }
    }
    Ok(abis)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, SeccompError> {
    let data = |default: i32| match u16::try_from(errno.unwrap_or(default.unsigned_abs())) {
        Ok(data) if data <= 4095 => Ok(u32::from(data)),
        _ => Err(SeccompError::Value { what: "errnoRet".to_owned(), why: "not within 0 and 4095" }),
    };
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => RET_TRAP,
        LinuxSeccompAction::ScmpActErrno => RET_ERRNO | data(libc::EPERM)?,
        LinuxSeccompAction::ScmpActTrace => RET_TRACE | data(0)?,
        LinuxSeccompAction::ScmpActLog => RET_LOG,
        LinuxSeccompAction::ScmpActAllow => RET_ALLOW,
        LinuxSeccompAction::ScmpActNotify => return Err(SeccompError::Unsupported("the action notify".to_owned())),
    })
}

/// Compiles the configuration's filter.
pub(crate) fn compile(seccomp: &LinuxSeccomp) -> Result<Vec<Instruction>, SeccompError> {
    if seccomp.listener_path().is_some() {
        return Err(SeccompError::Unsupported("a listener".to_owned()));
    }
    if let Some(flag) = seccomp.flags().iter().flatten().next() {
        return Err(SeccompError::Unsupported(format!("the flag {flag}")));
    }
    let default = action(seccomp.default_action(), seccomp.default_errno_ret())?;
    let calls = seccomp.syscalls().as_deref().unwrap_or_default();
    if calls.iter().map(|call| call.names().len()).sum::<usize>() > MAX_RULES {
        return Err(SeccompError::Value { what: "syscalls".to_owned(), why: "too many" });
    }
    let mut tables = Vec::new();
    for abi in abis(seccomp.architectures().as_deref().unwrap_or_default())? {
        tables.push((abi.audit(), outcomes(abi, calls, default)?));
    }
    let program = assemble::program(&tables, default);
    if program.len() > MAX_INSTRUCTIONS { Err(SeccompError::TooLong(program.len())) } else { Ok(program) }
}

/// What happens to each system call that a rule names. Names that an architecture does not have are
/// passed over, as libseccomp does: a profile is for several.
fn outcomes(abi: Abi, calls: &[LinuxSyscall], default: u32) -> Result<BTreeMap<u32, Outcome>, SeccompError> {
    let numbers = abi.numbers();
    let mut outcomes: BTreeMap<u32, Outcome> = BTreeMap::new();
    for call in calls {
        let action = action(call.action(), call.errno_ret())?;
        let rules = rules(call, action)?;
        for number in call.names().iter().filter_map(|name| numbers.get(name.as_str())) {
            let outcome = outcomes.entry(*number).or_insert_with(|| Outcome::First(Vec::new()));
            match outcome {
                Outcome::Always(_) => {}
                // Without conditions a rule matches always; what stands before it still comes first
                // where it says something else.
                Outcome::First(first) if rules.is_empty() => {
                    first.retain(|rule| rule.action != action);
                    if first.is_empty() {
                        *outcome = Outcome::Always(action);
                    } else {
                        first.push(Rule { conditions: Vec::new(), action });
                    }
                }
                Outcome::First(first) => first.extend(rules.iter().cloned()),
            }
        }
    }
    outcomes.retain(|_, outcome| *outcome != Outcome::Always(default));
    Ok(outcomes)
}

/// A call's conditions: all of them; but where one argument is named twice, any of them, as runc reads it.
fn rules(call: &LinuxSyscall, action: u32) -> Result<Vec<Rule>, SeccompError> {
    let conditions = call.args().as_deref().unwrap_or_default();
    if conditions.iter().any(|condition| condition.index() > 5) {
        return Err(SeccompError::Value { what: "args.index".to_owned(), why: "a system call has six arguments" });
    }
    let twice = conditions.iter().enumerate().any(|(n, a)| conditions[..n].iter().any(|b| a.index() == b.index()));
    Ok(match conditions {
        [] => Vec::new(),
        _ if twice => conditions.iter().map(|one| Rule { conditions: vec![*one], action }).collect(),
        all => vec![Rule { conditions: all.to_vec(), action }],
    })
}
