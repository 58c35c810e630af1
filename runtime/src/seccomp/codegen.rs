//! Last stage: intervals and chains become one BPF program.
//!
//! ```text
//! load arch ─ native? ─ compat? ─ return KILL_PROCESS
//!               │          └ load nr ─ binary search ─ return / chain
//!               └ load nr ─ binary search over the intervals ─ return / chain of conditions
//! ```
//!
//! The part before the chains looks only at `arch` and `nr`, with the instructions that the
//! kernel's own evaluator knows (`seccomp_is_const_allow`, Linux 5.11): calls that are always
//! allowed end up in its bitmap and cost no filter run at all.
//!
//! An ABI that the profile does not list is killed as a process. libseccomp kills the thread,
//! which leaves the others waiting for locks for ever.

use oci_spec::runtime::Arch;
use seccompiler::sock_filter;

use super::abi::{Abi, Args, X32_BIT};
use super::assembler::{Assembler, Target, Test};
use super::profile::{Cond, Op, Profile};
use super::rules::{self, Chain, Interval, Leaf, Rule};
use crate::{Error, Result};

/// What an ABI outside the profile gets.
const FOREIGN: u32 = libc::SECCOMP_RET_KILL_PROCESS;
/// The kernel's limit for one program, in instructions.
const BPF_MAXINSNS: usize = 4096;

/// Offsets in `struct seccomp_data`.
mod offset {
    pub(super) const NR: u32 = 0;
    pub(super) const ARCH: u32 = 4;
    pub(super) const ARGS: u32 = 16;
}

/// All ABIs that have one audit number, x86_64 with x32, as one list of intervals.
struct Section {
    audit: u32,
    intervals: Vec<Interval>,
}

/// Translates `profile` for `abis`, of which the first is the machine's own.
pub fn program(profile: &Profile<'_>, abis: &[&Abi]) -> Result<Vec<sock_filter>> {
    let mut chains = Vec::new();
    let sections = sections(profile, abis, &mut chains)?;
    let mut generator = Generator {
        asm: Assembler::default(),
        memo: vec![None; chains.len()],
        chains,
        default: Target::Ret(profile.default),
    };
    // Last to first: the machine's own ABI comes to lie next to the entrance.
    let mut starts = Vec::with_capacity(sections.len());
    for section in sections.iter().rev() {
        let tree = generator.search(&section.intervals);
        starts.push((section.audit, generator.asm.load(offset::NR, tree)));
    }
    let mut asm = generator.asm;
    let mut entrance = Target::Ret(FOREIGN);
    for (audit, start) in starts {
        entrance = asm.branch(Test::Eq, audit, start, entrance);
    }
    let entrance = asm.load(offset::ARCH, entrance);
    let program = asm.finish(entrance);
    if program.len() > BPF_MAXINSNS {
        let why =
            format!("compiles to {} instructions; the kernel takes {BPF_MAXINSNS}", program.len());
        return Err(Error::config("linux.seccomp.syscalls", why));
    }
    Ok(program)
}

fn sections(profile: &Profile<'_>, abis: &[&Abi], chains: &mut Vec<Chain>) -> Result<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::with_capacity(abis.len());
    let x32 = abis.iter().any(|abi| abi.scmp == Arch::ScmpArchX32);
    for abi in abis {
        let known = sections.iter().position(|section| section.audit == abi.audit);
        let place = known.unwrap_or(sections.len());
        if known.is_none() {
            sections.push(Section { audit: abi.audit, intervals: Vec::with_capacity(256) });
        }
        // x32's numbers are above x86_64's, which stands before it.
        let intervals = &mut sections[place].intervals;
        rules::add(profile, abi, intervals, chains)?;
        if abi.scmp == Arch::ScmpArchX86_64 && !x32 {
            intervals.push(Interval { start: X32_BIT, leaf: Leaf::Ret(FOREIGN) });
            // A tracer that skips a call sets its number to -1, which is no x32 call.
            intervals.push(Interval { start: u32::MAX, leaf: Leaf::Ret(profile.default) });
        }
    }
    Ok(sections)
}

struct Generator {
    asm: Assembler,
    chains: Vec<Chain>,
    /// Where a chain begins, once it has been written.
    memo: Vec<Option<Target>>,
    default: Target,
}

impl Generator {
    /// Finds the interval of the number in the accumulator.
    fn search(&mut self, intervals: &[Interval]) -> Target {
        match intervals {
            [] => Target::Ret(FOREIGN),
            [only] => self.leaf(only.leaf),
            // One number that differs from its surroundings.
            [around, one, rest] if around.leaf == rest.leaf && one.start + 1 == rest.start => {
                let no = self.leaf(around.leaf);
                let yes = self.leaf(one.leaf);
                self.asm.branch(Test::Eq, one.start, yes, no)
            }
            _ => {
                let (low, high) = intervals.split_at(intervals.len() / 2);
                let start = high[0].start;
                let high = self.search(high);
                let low = self.search(low);
                self.asm.branch(Test::Ge, start, high, low)
            }
        }
    }

    fn leaf(&mut self, leaf: Leaf) -> Target {
        match leaf {
            Leaf::Ret(value) => Target::Ret(value),
            Leaf::Chain(index) => self.memo[index].unwrap_or_else(|| {
                let start = chain(&mut self.asm, &self.chains[index], self.default);
                self.memo[index] = Some(start);
                start
            }),
        }
    }
}

/// Asks the rules in order.
fn chain(asm: &mut Assembler, chain: &Chain, default: Target) -> Target {
    let groups: Vec<&[Rule]> =
        chain.rules.chunk_by(|a, b| listed(a).is_some() && listed(a) == listed(b)).collect();
    let mut otherwise = default;
    for group in groups.into_iter().rev() {
        otherwise =
            match group {
                [rule] => rule.conds.iter().rev().fold(Target::Ret(rule.action), |yes, c| {
                    cond(asm, chain.args, c, yes, otherwise)
                }),
                list => any_of(asm, chain.args, list, otherwise),
            };
    }
    otherwise
}

/// What rules must have in common to share their loads: an argument and its upper half, if the
/// rule does nothing but compare it with one value.
fn listed(rule: &Rule) -> Option<(u8, u32)> {
    match rule.conds.as_slice() {
        [Cond { arg, op: Op::Eq, mask: u64::MAX, value }] => Some((*arg, high(*value))),
        _ => None,
    }
}

/// A list of allowed values, the commonest shape of several rules for one call.
fn any_of(asm: &mut Assembler, args: Args, list: &[Rule], otherwise: Target) -> Target {
    let [Rule { conds, .. }, ..] = list else { return otherwise };
    let first = conds[0];
    let lower = list.iter().rev().fold(otherwise, |no, rule| {
        asm.branch(Test::Eq, low(rule.conds[0].value), Target::Ret(rule.action), no)
    });
    let (high_word, low_word) = words(args, first.arg);
    let lower = asm.load(low_word, lower);
    match high_word {
        Some(word) => equal(asm, word, u32::MAX, high(first.value), lower, otherwise),
        None => lower,
    }
}

/// Compares one argument, the upper half first.
fn cond(asm: &mut Assembler, args: Args, c: &Cond, yes: Target, no: Target) -> Target {
    let (high_word, low_word) = words(args, c.arg);
    let (test, yes, no) = match c.op {
        Op::Ne => return cond(asm, args, &Cond { op: Op::Eq, ..*c }, no, yes),
        Op::Eq => {
            let lower = equal(asm, low_word, low(c.mask), low(c.value), yes, no);
            return match high_word {
                Some(word) => equal(asm, word, high(c.mask), high(c.value), lower, no),
                None => lower,
            };
        }
        Op::Gt => (Test::Gt, yes, no),
        Op::Ge => (Test::Ge, yes, no),
        // Not greater or equal; not greater.
        Op::Lt => (Test::Ge, no, yes),
        Op::Le => (Test::Gt, no, yes),
    };
    let lower = asm.branch(test, low(c.value), yes, no);
    let lower = asm.load(low_word, lower);
    match high_word {
        Some(word) => {
            let tie = asm.branch(Test::Eq, high(c.value), lower, no);
            let upper = asm.branch(Test::Gt, high(c.value), yes, tie);
            asm.load(word, upper)
        }
        None => lower,
    }
}

/// Compares the bits in `mask` of the word at `offset`.
fn equal(
    asm: &mut Assembler,
    offset: u32,
    mask: u32,
    value: u32,
    yes: Target,
    no: Target,
) -> Target {
    let test = match (mask, value) {
        (0, _) => return yes,
        (u32::MAX, _) => asm.branch(Test::Eq, value, yes, no),
        (_, 0) => asm.branch(Test::Any, mask, no, yes),
        _ => {
            let test = asm.branch(Test::Eq, value, yes, no);
            asm.and(mask, test)
        }
    };
    asm.load(offset, test)
}

/// Where the upper half, if it counts, and the lower half of an argument lie.
fn words(args: Args, arg: u8) -> (Option<u32>, u32) {
    let first = offset::ARGS + u32::from(arg) * 8;
    match args {
        Args::Low32 => (None, first),
        Args::Little64 => (Some(first + 4), first),
        Args::Big64 => (Some(first), first + 4),
    }
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

fn low(value: u64) -> u32 {
    value as u32
}
