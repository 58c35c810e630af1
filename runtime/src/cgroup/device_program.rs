//! The device rules as a BPF program, and its place on a cgroup v2 directory.
//!
//! The kernel asks the program on every open and mknod of a device. It walks the rules from last
//! to first with the accesses that are still to be decided: a deny that speaks about any of them
//! refuses, an allow takes its own off the list, and the default decides the rest. A program is
//! replaced in one step, so that no moment is without a filter; an old kernel gets the new program
//! beside the old one first (all attached programs must agree), then loses the old one.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::devices::{Access, Rule, Rules};
use super::dir::Dir;
use crate::error::{Doing, Result};
use crate::sys::bpf;

// Opcodes of <linux/bpf.h>: class | operation | source.
const LOAD_WORD: u8 = 0x61;
const AND_IMM: u8 = 0x57;
const SHIFT_RIGHT_IMM: u8 = 0x77;
const MOVE_IMM: u8 = 0xb7;
const MOVE_REG: u8 = 0xbf;
const JUMP_NOT_EQUAL_IMM: u8 = 0x55;
const JUMP_EQUAL_IMM: u8 = 0x15;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// One `struct bpf_insn`.
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: u32) -> u64 {
    u64::from(code)
        | u64::from(to | from << 4) << 8
        | u64::from(offset as u16) << 16
        | u64::from(value) << 32
}

/// Compiles the rules.
pub fn compile(rules: &Rules) -> Vec<u64> {
    // struct bpf_cgroup_dev_ctx { u32 access_type: access << 16 | type; u32 major; u32 minor; }
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE_REG, ACCESS, KIND, 0, 0),
        instruction(AND_IMM, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT_IMM, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.rules.iter().rev() {
        compile_rule(&mut program, rule);
    }
    program.push(instruction(MOVE_IMM, RESULT, 0, 0, rules.default_allow.into()));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

/// One block; every jump in it leads to the first instruction after it.
fn compile_rule(program: &mut Vec<u64>, rule: &Rule) {
    // The comparison sign-extends its immediate; device numbers have 12 and 20 bits.
    let beyond = |number: Option<u32>| number.is_some_and(|n| n > i32::MAX as u32);
    if beyond(rule.device.major) || beyond(rule.device.minor) {
        return;
    }
    let mut block: Vec<(u8, u8, u8, u32)> =
        vec![(JUMP_NOT_EQUAL_IMM, KIND, 0, rule.device.kind as u32)];
    for (register, number) in [(MAJOR, rule.device.major), (MINOR, rule.device.minor)] {
        block.extend(number.map(|number| (JUMP_NOT_EQUAL_IMM, register, 0, number)));
    }
    let bits = u32::from(rule.access.bits());
    if rule.access != Access::ALL && rule.allow {
        block.push((AND_IMM, ACCESS, 0, !bits & 7));
        block.push((JUMP_NOT_EQUAL_IMM, ACCESS, 0, 0));
    } else if rule.access != Access::ALL {
        block.push((MOVE_REG, RESULT, ACCESS, 0));
        block.push((AND_IMM, RESULT, 0, bits));
        block.push((JUMP_EQUAL_IMM, RESULT, 0, 0));
    }
    block.push((MOVE_IMM, RESULT, 0, rule.allow.into()));
    block.push((EXIT, 0, 0, 0));
    let len = block.len();
    for (at, (code, to, from, value)) in block.into_iter().enumerate() {
        let jump = matches!(code, JUMP_NOT_EQUAL_IMM | JUMP_EQUAL_IMM);
        // A block has at most 8 instructions.
        let offset = if jump { (len - at - 1) as i16 } else { 0 };
        program.push(instruction(code, to, from, offset, value));
    }
}

/// Puts the rules on a cgroup v2 directory, beside what others have put there.
///
/// # Errors
/// The errno of loading or attaching: `EPERM` without `CAP_BPF` or `CAP_SYS_ADMIN`.
pub fn add(dir: &Dir, rules: &Rules) -> Result<()> {
    bpf::attach_device_program(dir, &load(rules)?, None).doing(|| attaching(dir))
}

/// Puts the rules on a cgroup v2 directory, in place of what we put there before.
///
/// # Errors
/// As [`add`].
pub fn replace(dir: &Dir, rules: &Rules) -> Result<()> {
    let at = || attaching(dir);
    let program = load(rules)?;
    let mut old = Vec::new();
    for id in bpf::device_programs(dir).doing(at)? {
        match bpf::program_by_id(id) {
            Ok(fd) => old.push(fd),
            // Hidden from us by an LSM, or gone: others' programs only restrict further.
            Err(Errno::EPERM | Errno::EACCES | Errno::ENOENT) => {}
            Err(errno) => return Err(errno).doing(at),
        }
    }
    if let [only] = old.as_slice() {
        match bpf::attach_device_program(dir, &program, Some(only.as_fd())) {
            // Linux before 5.6.
            Err(Errno::EINVAL) => {}
            other => return other.doing(at),
        }
    }
    bpf::attach_device_program(dir, &program, None).doing(at)?;
    for program in old {
        bpf::detach_device_program(dir, &program)
            .doing(|| format!("detach the old device program of {:?}", dir.path()))?;
    }
    Ok(())
}

fn attaching(dir: &Dir) -> String {
    format!("attach a device program to {:?}", dir.path())
}

fn load(rules: &Rules) -> Result<OwnedFd> {
    // E2BIG is the kernel's verdict on thousands of rules.
    load_program(&compile(rules))
        .doing(|| format!("load a device program of {} rules", rules.rules.len()))
}

fn load_program(program: &[u64]) -> Result<OwnedFd, Errno> {
    let first = bpf::load_device_program(program, c"Apache-2.0");
    if first.as_ref().err() != Some(&Errno::EPERM) {
        return first;
    }
    // Before 5.11 a program counts as locked memory. The limit is the container's to inherit.
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    let unlimited = nix::libc::RLIM_INFINITY;
    setrlimit(Resource::RLIMIT_MEMLOCK, unlimited, unlimited)?;
    let second = bpf::load_device_program(program, c"Apache-2.0");
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    second
}

#[cfg(any(test, fuzzing))]
#[allow(clippy::panic, reason = "for tests")]
pub(crate) mod machine {
    use super::*;
    use crate::cgroup::devices::Kind;

    /// The part of the BPF machine that the programs use.
    pub(crate) fn run(program: &[u64], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let context = [u32::from(access) << 16 | kind as u32, major, minor];
        let (mut registers, mut at) = ([0_u64; 6], 0_usize);
        loop {
            let word = program[at];
            let code = word as u8;
            let (to, from) = ((word >> 8 & 15) as usize, (word >> 12 & 15) as usize);
            let offset = (word >> 16) as u16 as i16;
            let value = (word >> 32) as u32 as i32 as i64 as u64;
            at += 1;
            match code {
                LOAD_WORD => registers[to] = context[offset as usize / 4].into(),
                MOVE_REG => registers[to] = registers[from],
                MOVE_IMM => registers[to] = value,
                AND_IMM => registers[to] &= value,
                SHIFT_RIGHT_IMM => registers[to] >>= value,
                JUMP_NOT_EQUAL_IMM if registers[to] != value => at += offset as usize,
                JUMP_EQUAL_IMM if registers[to] == value => at += offset as usize,
                JUMP_NOT_EQUAL_IMM | JUMP_EQUAL_IMM => {}
                EXIT => return registers[0] != 0,
                other => panic!("opcode {other:#x}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::machine::run;
    use super::*;
    use crate::cgroup::devices::Kind;
    use crate::cgroup::systemd::allow_list;
    use oci_spec::runtime::LinuxDeviceCgroup;
    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = Option<i64>> {
        prop_oneof![Just(None), (0_i64..3).prop_map(Some)]
    }

    prop_compose! {
        fn rule()(
            allow: bool,
            kind in prop::sample::select(vec![None, Some("a"), Some("b"), Some("c")]),
            major in number(),
            minor in number(),
            access in prop::sample::select(vec!["r", "w", "m", "rw", "rm", "wm", "rwm"]),
        ) -> LinuxDeviceCgroup {
            serde_json::from_value(serde_json::json!({
                "allow": allow, "type": kind, "major": major, "minor": minor, "access": access,
            })).unwrap()
        }
    }

    /// The specification, said as simply as possible: every rule, in order, on every bit.
    fn oracle(rules: &[LinuxDeviceCgroup], kind: Kind, major: u32, minor: u32, bit: u8) -> bool {
        let letter = match bit {
            1 => 'm',
            2 => 'r',
            _ => 'w',
        };
        let own = if kind == Kind::Char { "c" } else { "b" };
        let mut verdict = false;
        for rule in rules {
            let typ = rule.typ().map_or("a", |typ| {
                if typ.as_str() == "a" {
                    "a"
                } else if typ.as_str() == "c" {
                    "c"
                } else {
                    "b"
                }
            });
            let speaks = (typ == "a" || typ == own)
                && rule.major().is_none_or(|n| n == i64::from(major))
                && rule.minor().is_none_or(|n| n == i64::from(minor))
                && rule.access().as_ref().unwrap().contains(letter);
            if speaks {
                verdict = rule.allow();
            }
        }
        let default = [(1, 3), (1, 8), (1, 7), (5, 0), (1, 5), (1, 9), (5, 2), (10, 200)];
        verdict
            || bit == 1
            || kind == Kind::Char && (major == 136 || default.contains(&(major, minor)))
    }

    proptest! {
        #[test]
        fn the_program_says_what_the_rules_say(
            rules in prop::collection::vec(rule(), 0..8),
            char: bool, major in 0_u32..4, minor in 0_u32..4, access in 1_u8..8,
        ) {
            let kind = if char { Kind::Char } else { Kind::Block };
            let list = Rules::new(&rules, &[]).unwrap();
            let expected = [1, 2, 4].into_iter().filter(|bit| access & bit != 0)
                .all(|bit| oracle(&rules, kind, major, minor, bit));
            prop_assert_eq!(list.allows(kind, major, minor, access), expected);
            prop_assert_eq!(run(&compile(&list), kind, major, minor, access), expected);
        }

        #[test]
        fn the_v1_exceptions_say_the_same_or_are_refused(
            rules in prop::collection::vec(rule(), 0..8),
            char: bool, major in 0_u32..4, minor in 0_u32..4, bit in prop::sample::select(vec![1_u8, 2, 4]),
        ) {
            let kind = if char { Kind::Char } else { Kind::Block };
            let list = Rules::new(&rules, &[]).unwrap();
            if let Ok(exceptions) = list.exceptions() {
                // The kernel's reading: an exception that covers the device and the access.
                let (own, letter) = (if char { "c" } else { "b" }, match bit { 1 => 'm', 2 => 'r', _ => 'w' });
                let excepted = exceptions.lines().iter().any(|line| {
                    let parts: Vec<&str> = line.split([' ', ':']).collect();
                    let number = |text: &str, n: u32| text == "*" || text == n.to_string();
                    parts[0] == own && number(parts[1], major) && number(parts[2], minor)
                        && parts[3].contains(letter)
                });
                prop_assert_eq!(excepted != exceptions.default_allow, list.allows(kind, major, minor, bit));
            }
        }
    }

    /// systemd's reading: one entry that has the device and all of the accesses.
    fn by_systemd(
        list: &[(String, Access)],
        kind: Kind,
        major: u32,
        minor: u32,
        access: u8,
    ) -> bool {
        let kind = if kind == Kind::Char { "char" } else { "block" };
        let names = [
            format!("{kind}-*"),
            format!("{kind}-{major}"),
            format!("/dev/{kind}/{major}:{minor}"),
        ];
        list.iter().any(|(node, allowed)| names.contains(node) && access & !allowed.bits() == 0)
    }

    proptest! {
        #[test]
        fn systemd_is_told_the_same_or_nothing(
            mut rules in prop::collection::vec(rule(), 0..6),
            allows: bool, char: bool, access in 1_u8..8,
            major in prop::sample::select(vec![0_u32, 1, 2, 3, 5, 10, 136]),
            minor in prop::sample::select(vec![0_u32, 1, 2, 3, 8, 200]),
        ) {
            if allows {
                for rule in &mut rules {
                    let minor = rule.major().and(rule.minor());
                    rule.set_allow(true).set_minor(minor);
                }
            }
            let (kind, ours) =
                (if char { Kind::Char } else { Kind::Block }, Rules::new(&rules, &[]).unwrap());
            let list = allow_list::list(&ours);
            prop_assert!(list.is_some() || !allows || ours.default_allow);
            if let Some(list) = list {
                let expected = ours.allows(kind, major, minor, access);
                prop_assert_eq!(by_systemd(&list, kind, major, minor, access), expected, "{:?}", list);
            }
        }
    }

    #[test]
    fn a_number_no_device_has_matches_none() {
        let rule = r#"[{"allow": true, "type": "c", "major": 4294967295, "access": "r"}]"#;
        let list = Rules::new(&serde_json::from_str::<Vec<_>>(rule).unwrap(), &[]).unwrap();
        assert!(!run(&compile(&list), Kind::Char, u32::MAX, 0, 2));
    }
}
