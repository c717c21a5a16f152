//! Which devices may be used: the list of version 1, and the same as a program for version 2.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::CgroupError;
use crate::sys::bpf::{self, Extended};

/// `BPF_DEVCG_ACC_*`
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MKNOD | READ | WRITE;
/// `BPF_DEVCG_DEV_*`
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

/// One rule; a later one overrules those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    /// Both kinds without.
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

impl fmt::Display for Rule {
    /// As `devices.allow` and `devices.deny` take it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            None => return f.write_str("a"),
            Some(BLOCK) => 'b',
            Some(_) => 'c',
        };
        write!(f, "{kind} ")?;
        for (number, end) in [(self.major, ':'), (self.minor, ' ')] {
            match number {
                Some(number) => write!(f, "{number}{end}")?,
                None => write!(f, "*{end}")?,
            }
        }
        for (bit, letter) in [(READ, "r"), (WRITE, "w"), (MKNOD, "m")] {
            f.write_str(if self.access & bit != 0 { letter } else { "" })?;
        }
        Ok(())
    }
}

/// Reads the rules of the configuration.
pub(super) fn rules(devices: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, CgroupError> {
    let wrong = |why| CgroupError::Value { limit: "devices".to_owned(), why };
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => i32::try_from(number).ok().filter(|n| *n >= 0).map(Some).ok_or(wrong("no device number")),
    };
    let mut rules = Vec::new();
    for device in devices {
        let mut access = 0;
        for letter in device.access().as_deref().unwrap_or("rwm").chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => return Err(wrong("access is made of r, w and m")),
            };
        }
        let kind = match device.typ().unwrap_or_default() {
            LinuxDeviceType::A => None,
            LinuxDeviceType::B => Some(BLOCK),
            LinuxDeviceType::C | LinuxDeviceType::U => Some(CHAR),
            LinuxDeviceType::P => return Err(wrong("a FIFO is no device")),
        };
        let rule = Rule {
            allow: device.allow(),
            kind,
            major: number(device.major())?,
            minor: number(device.minor())?,
            access,
        };
        if kind.is_none() && (rule.major.is_some() || rule.minor.is_some() || access != ALL) {
            // Version 1 reads such a rule as one for everything.
            return Err(wrong("a rule for both kinds is for all devices and all access"));
        }
        rules.push(rule);
    }
    Ok(rules)
}

// Registers: r0 the answer, r1 the context and then scratch, r2 the kind, r3 the access, r4 and r5 the numbers.
const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Extended {
    Extended { code, registers: source << 4 | destination, offset, immediate }
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const SHIFT_RIGHT: u8 = 0x77;
const AND: u8 = 0x57;
const IF_EQUAL: u8 = 0x15;
const IF_DIFFERENT: u8 = 0x55;
const EXIT: u8 = 0x95;

/// The rules as a program, the last one first. What no rule speaks of is as in the group above.
fn compile(rules: &[Rule]) -> Vec<Extended> {
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE, 3, 2, 0, 0),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        // Each test that fails leads behind the rule; the jumps are filled in below.
        let mut code = Vec::new();
        if let Some(kind) = rule.kind {
            code.push(instruction(IF_DIFFERENT, 2, 0, 0, kind));
        }
        if rule.access != ALL {
            code.push(instruction(MOVE, 1, 3, 0, 0));
            // Allowed is what asks for nothing else; forbidden what asks for any of it.
            code.push(instruction(AND, 1, 0, 0, if rule.allow { ALL & !rule.access } else { rule.access }));
            code.push(instruction(if rule.allow { IF_DIFFERENT } else { IF_EQUAL }, 1, 0, 0, 0));
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            code.extend(number.map(|number| instruction(IF_DIFFERENT, register, 0, 0, number)));
        }
        code.push(instruction(MOVE_NUMBER, 0, 0, 0, rule.allow.into()));
        code.push(instruction(EXIT, 0, 0, 0, 0));
        // Without a test nothing gets behind it, and the kernel takes no program with code that nothing gets to.
        let last = code.len() == 2;
        let len = code.len();
        for (at, one) in code.iter_mut().enumerate() {
            if [IF_EQUAL, IF_DIFFERENT].contains(&one.code) {
                // A rule has no more than nine instructions.
                one.offset = i16::try_from(len - at - 1).unwrap_or(i16::MAX);
            }
        }
        program.extend(code);
        if last {
            return program;
        }
    }
    program.extend([instruction(MOVE_NUMBER, 0, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)]);
    program
}

/// Lets the rules decide in a group of version 2.
pub(super) fn attach(group: &Path, rules: &[Rule]) -> Result<(), CgroupError> {
    let failed = |doing| move |errno: rustix::io::Errno| CgroupError::io(doing, group)(io::Error::from(errno));
    let directory = File::open(group).map_err(CgroupError::io("opening", group))?;
    let program = bpf::load_device_program(&compile(rules)).map_err(failed("loading the device program for"))?;
    bpf::attach_device_program(program.as_fd(), directory.as_fd()).map_err(failed("attaching the device program to"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    fn rule(allow: bool, kind: LinuxDeviceType, major: i64, minor: i64, access: &str) -> LinuxDeviceCgroup {
        LinuxDeviceCgroupBuilder::default()
            .allow(allow)
            .typ(kind)
            .major(major)
            .minor(minor)
            .access(access)
            .build()
            .unwrap()
    }

    fn docker_like() -> Vec<Rule> {
        rules(&[
            rule(false, LinuxDeviceType::A, -1, -1, "rwm"),
            rule(true, LinuxDeviceType::C, -1, -1, "m"),
            rule(true, LinuxDeviceType::B, -1, -1, "m"),
            rule(true, LinuxDeviceType::C, 1, 3, "rwm"),
            rule(false, LinuxDeviceType::C, 10, 229, "rw"),
        ])
        .unwrap()
    }

    #[test]
    fn rules_are_written_as_version_1_reads_them() {
        let lines: Vec<String> = docker_like().iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["a", "c *:* m", "b *:* m", "c 1:3 rwm", "c 10:229 rw"]);
        assert!(rules(&[rule(true, LinuxDeviceType::A, 1, -1, "rwm")]).is_err());
        assert!(rules(&[rule(true, LinuxDeviceType::C, 1, 3, "x")]).is_err());
        assert!(rules(&[rule(true, LinuxDeviceType::C, 1 << 40, 3, "r")]).is_err());
    }

    /// Runs the program as the kernel would.
    fn run(program: &[Extended], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [i64::from(access << 16 | kind), i64::from(major), i64::from(minor)];
        let mut r = [0_i64; 6];
        let mut at = 0;
        loop {
            let Extended { code, registers, offset, immediate } = program[at];
            let (to, from, number) = ((registers & 15) as usize, (registers >> 4) as usize, i64::from(immediate));
            at += 1;
            match code {
                LOAD_WORD => r[to] = context[usize::try_from(offset).unwrap() / 4],
                MOVE => r[to] = r[from],
                MOVE_NUMBER => r[to] = number,
                SHIFT_RIGHT => r[to] >>= number,
                AND => r[to] &= number,
                IF_EQUAL if r[to] == number => at += usize::try_from(offset).unwrap(),
                IF_DIFFERENT if r[to] != number => at += usize::try_from(offset).unwrap(),
                IF_EQUAL | IF_DIFFERENT => {}
                EXIT => return r[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn the_program_decides_as_the_list() {
        let program = compile(&docker_like());
        assert!(run(&program, CHAR, READ | WRITE, 1, 3));
        assert!(run(&program, BLOCK, MKNOD, 254, 0));
        assert!(!run(&program, BLOCK, READ, 254, 0));
        assert!(!run(&program, CHAR, READ | MKNOD, 1, 1));
        assert!(!run(&program, CHAR, READ, 10, 229));
        assert!(run(&program, CHAR, MKNOD, 10, 229));
        assert!(run(&compile(&[]), BLOCK, READ, 254, 0));
    }

    /// Needs root and a mounted hierarchy of version 2, with or without controllers.
    #[test]
    fn the_kernel_takes_the_program() {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup v2 is mounted");
        let group = Path::new(line.split(' ').nth(4).unwrap()).join(format!("lamel-test-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        let attached = attach(&group, &docker_like());
        let script = format!(
            "echo $$ > {}/cgroup.procs; head -c 1 /dev/null && echo null; head -c 1 /dev/zero > /dev/null && echo zero",
            group.display()
        );
        let out = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
        std::fs::remove_dir(&group).unwrap();
        attached.unwrap();
        // The rules have 1:3, not 1:5.
        assert_eq!(String::from_utf8_lossy(&out.stdout), "null\n", "{}", String::from_utf8_lossy(&out.stderr));
    }
}
