//! Outcomes by system call, assembled into classic BPF.
//!
//! ```text
//! load the architecture; for each known one: jump to its part; else kill
//! part:  load the number; of x86_64: x32's numbers → default
//!        binary search over stretches of numbers with the same outcome
//! leaf:  return, or the rules one after the other
//! ```

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator};

use super::{Outcome, RET_KILL_PROCESS, Rule};
use crate::sys::bpf::Instruction;

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The first number of x32 calls (`__X32_SYSCALL_BIT`).
const X32: u32 = 0x4000_0000;
const AUDIT_X86_64: u32 = 0xc000_003e;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// The whole program; lengths are checked by the caller.
pub(super) fn program(tables: &[(u32, BTreeMap<u32, Outcome>)], default: u32) -> Vec<Instruction> {
    let parts: Vec<Vec<Instruction>> =
        tables.iter().map(|(audit, outcomes)| part(*audit == AUDIT_X86_64, outcomes, default)).collect();
    let mut program = vec![plain(LOAD, ARCHITECTURE)];
    for ((audit, _), part) in tables.iter().zip(parts) {
        program.push(branch(EQUAL, *audit, 1, 0));
        program.push(plain(JUMP, length(&part)));
        program.extend(part);
    }
    program.push(plain(RETURN, RET_KILL_PROCESS));
    program
}

fn length(code: &[Instruction]) -> u32 {
    u32::try_from(code.len()).unwrap_or(u32::MAX)
}

fn part(x86_64: bool, outcomes: &BTreeMap<u32, Outcome>, default: u32) -> Vec<Instruction> {
    let mut code = vec![plain(LOAD, NUMBER)];
    if x86_64 {
        code.push(branch(AT_LEAST, X32, 0, 1));
        code.push(plain(RETURN, default));
    }
    let default = Outcome::Always(default);
    // Where each stretch begins. The first begins at 0.
    let mut stretches: Vec<(u32, &Outcome)> = vec![(0, &default)];
    for (&number, outcome) in outcomes {
        for (at, what) in [(number, outcome), (number.saturating_add(1), &default)] {
            match stretches.last_mut() {
                Some(last) if last.0 == at => last.1 = what,
                _ => stretches.push((at, what)),
            }
        }
    }
    stretches.dedup_by(|next, previous| next.1 == previous.1 && matches!(next.1, Outcome::Always(_)));
    code.extend(search(&stretches, &default));
    code
}

fn search(stretches: &[(u32, &Outcome)], default: &Outcome) -> Vec<Instruction> {
    let [_, _, ..] = stretches else {
        return stretches.first().map(|(_, outcome)| leaf(outcome, default)).unwrap_or_default();
    };
    let (below, above) = stretches.split_at(stretches.len() / 2);
    let (left, right) = (search(below, default), search(above, default));
    let pivot = above.first().map_or(0, |(number, _)| *number);
    let mut code = match u8::try_from(left.len()) {
        Ok(len) => vec![branch(AT_LEAST, pivot, len, 0)],
        Err(_) => vec![branch(AT_LEAST, pivot, 0, 1), plain(JUMP, length(&left))],
    };
    code.extend(left);
    code.extend(right);
    code
}

fn leaf(outcome: &Outcome, default: &Outcome) -> Vec<Instruction> {
    match outcome {
        Outcome::Always(action) => vec![plain(RETURN, *action)],
        Outcome::First(rules) => {
            let mut code: Vec<Instruction> = rules.iter().flat_map(rule).collect();
            if let Outcome::Always(action) = default {
                code.push(plain(RETURN, *action));
            }
            code
        }
    }
}

/// Where a comparison goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// The next instruction.
    On,
    /// The condition holds: behind this comparison.
    Holds,
    /// It does not: behind the rule.
    Fails,
}

fn rule(rule: &Rule) -> Vec<Instruction> {
    let mut code: Vec<(Instruction, To, To, usize)> = Vec::new();
    for condition in &rule.conditions {
        let compare = comparison(condition);
        let end = code.len() + compare.len();
        code.extend(compare.into_iter().map(|(instruction, yes, no)| (instruction, yes, no, end)));
    }
    // The return comes last, at `code.len()`.
    let behind = code.len() + 1;
    let mut resolved: Vec<Instruction> = code
        .into_iter()
        .enumerate()
        .map(|(at, (instruction, yes, no, end))| {
            // Six conditions of six instructions: the distances fit.
            let distance = |to: To| match to {
                To::On => 0,
                To::Holds => u8::try_from(end - at - 1).unwrap_or(u8::MAX),
                To::Fails => u8::try_from(behind - at - 1).unwrap_or(u8::MAX),
            };
            Instruction { jt: distance(yes), jf: distance(no), ..instruction }
        })
        .collect();
    resolved.push(plain(RETURN, rule.action));
    resolved
}

/// Compares one argument of 64 bits, its high half first.
fn comparison(condition: &LinuxSeccompArg) -> Vec<(Instruction, To, To)> {
    use LinuxSeccompOperator as Op;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high, low) = halves(condition.value());
    let offset = ARGUMENTS + 8 * u32::try_from(condition.index()).unwrap_or(0);
    let (at_low, at_high) = if cfg!(target_endian = "little") { (offset, offset + 4) } else { (offset + 4, offset) };
    let load = |at| (plain(LOAD, at), To::On, To::On);
    let ordered = |above: To, below: To, last: (u16, To, To)| {
        vec![
            load(at_high),
            (plain(GREATER, high), above, To::On),
            (plain(EQUAL, high), To::On, below),
            load(at_low),
            (plain(last.0, low), last.1, last.2),
        ]
    };
    match condition.op() {
        Op::ScmpCmpEq => vec![
            load(at_high),
            (plain(EQUAL, high), To::On, To::Fails),
            load(at_low),
            (plain(EQUAL, low), To::Holds, To::Fails),
        ],
        Op::ScmpCmpNe => vec![
            load(at_high),
            (plain(EQUAL, high), To::On, To::Holds),
            load(at_low),
            (plain(EQUAL, low), To::Fails, To::Holds),
        ],
        Op::ScmpCmpGt => ordered(To::Holds, To::Fails, (GREATER, To::Holds, To::Fails)),
        Op::ScmpCmpGe => ordered(To::Holds, To::Fails, (AT_LEAST, To::Holds, To::Fails)),
        Op::ScmpCmpLt => ordered(To::Fails, To::Holds, (AT_LEAST, To::Fails, To::Holds)),
        Op::ScmpCmpLe => ordered(To::Fails, To::Holds, (GREATER, To::Fails, To::Holds)),
        // `value` is the mask here, and `valueTwo` what is left under it.
        Op::ScmpCmpMaskedEq => {
            let (wanted_high, wanted_low) = halves(condition.value_two().unwrap_or(0));
            vec![
                load(at_high),
                (plain(AND, high), To::On, To::On),
                (plain(EQUAL, wanted_high), To::On, To::Fails),
                load(at_low),
                (plain(AND, low), To::On, To::On),
                (plain(EQUAL, wanted_low), To::Holds, To::Fails),
            ]
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Runs a filter as the kernel would.
    pub(in super::super) fn run(program: &[Instruction], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_ne_bytes());
        data.extend(audit.to_ne_bytes());
        data.extend(0_u64.to_ne_bytes());
        data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let mut test = |holds: bool| at += usize::from(if holds { jt } else { jf });
            match code {
                LOAD => {
                    let from = k as usize;
                    accumulator = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                }
                AND => accumulator &= k,
                JUMP => at += k as usize,
                EQUAL => test(accumulator == k),
                GREATER => test(accumulator > k),
                AT_LEAST => test(accumulator >= k),
                RETURN => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn every_operator_compares_64_bits() {
        use LinuxSeccompOperator as Op;
        let big = 0x1_0000_0005_u64;
        let values = [0, 4, 5, 6, big - 1, big, big + 1, u64::MAX];
        for op in [Op::ScmpCmpEq, Op::ScmpCmpNe, Op::ScmpCmpGt, Op::ScmpCmpGe, Op::ScmpCmpLt, Op::ScmpCmpLe] {
            for wanted in values {
                let condition = oci_spec::runtime::LinuxSeccompArgBuilder::default()
                    .index(2_usize)
                    .value(wanted)
                    .op(op)
                    .build()
                    .unwrap();
                let first = Outcome::First(vec![Rule { conditions: vec![condition], action: 7 }]);
                let code = program(&[(1, BTreeMap::from([(3, first)]))], 9);
                for value in values {
                    let holds = match op {
                        Op::ScmpCmpEq => value == wanted,
                        Op::ScmpCmpNe => value != wanted,
                        Op::ScmpCmpGt => value > wanted,
                        Op::ScmpCmpGe => value >= wanted,
                        Op::ScmpCmpLt => value < wanted,
                        _ => value <= wanted,
                    };
                    let got = run(&code, 1, 3, [0, 0, value, 0, 0, 0]);
                    assert_eq!(got, if holds { 7 } else { 9 }, "{value:#x} {op} {wanted:#x}");
                }
            }
        }
    }

    #[test]
    fn numbers_are_found_however_many_there_are() {
        let outcomes: BTreeMap<u32, Outcome> =
            (0..1500_u32).filter(|n| n % 3 == 0).map(|n| (n, Outcome::Always(n + 10))).collect();
        let code = program(&[(1, outcomes)], 9);
        for number in 0..1600 {
            let wanted = if number % 3 == 0 && number < 1500 { number + 10 } else { 9 };
            assert_eq!(run(&code, 1, number, [0; 6]), wanted, "{number}");
        }
        assert_eq!(run(&code, 2, 0, [0; 6]), RET_KILL_PROCESS);
    }
}
