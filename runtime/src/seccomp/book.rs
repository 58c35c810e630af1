//! The profile by the book: a plain evaluation, rule by rule, for tests and fuzzing. Where the
//! compiler means to differ from libseccomp (see [`super::rules`] and [`super::codegen`]) the
//! difference is spelled out in [`Book::expected`].

use std::collections::HashMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator as Op, LinuxSyscall,
};
use seccompiler::sock_filter;

use super::abi::{self, Abi, Args, Name, X32_BIT};
use super::generate::{Random, random_profile, value};
use super::interpreter::{Data, check, run};
use super::profile::{Cond, ENOSYS, Profile, profile};
use super::rules::{multiplexed, reaches_multiplexer};
use super::{abis, compile_for};

/// A profile that compiles, on a machine with these ABIs.
pub(super) struct Book<'a> {
    spec: &'a LinuxSeccomp,
    /// With what the profile says about it.
    family: Vec<(&'static Abi, Named)>,
    listed: Vec<&'static Abi>,
    translated: Profile<'a>,
}

/// The calls that a profile names, as numbers of one ABI.
struct Named {
    /// The highest, 0 if there is none.
    newest: u32,
    /// Where each is named: an entry's place, and which call of a multiplexer is meant. In the
    /// order of the profile; entries that do as the default does are left out.
    places: HashMap<u32, Vec<(usize, Option<Cond>)>>,
}

impl Named {
    fn new(translated: &Profile<'_>, abi: &Abi) -> Self {
        let mut named = Self { newest: 0, places: HashMap::new() };
        for (place, entry) in translated.entries.iter().enumerate() {
            for name in entry.names.iter().map(|name| Name::new(name)) {
                let own = abi.number(&name).map(|number| (number, None));
                let shared = multiplexed(abi, &name).map(|(number, cond)| (number, Some(cond)));
                for (number, cond) in own.into_iter().chain(shared) {
                    named.newest = named.newest.max(number);
                    if entry.action != translated.default {
                        named.places.entry(number).or_default().push((place, cond));
                    }
                }
            }
        }
        named
    }
}

/// One call and what came of it.
#[cfg_attr(fuzzing, allow(dead_code, reason = "for the comparison with libseccomp"))]
pub(super) struct Call {
    /// Whose call it is.
    pub(super) abi: &'static Abi,
    pub(super) data: Data,
    /// The program's answer.
    pub(super) verdict: u32,
    pub(super) opinion: Opinion,
}

impl<'a> Book<'a> {
    pub(super) fn new(spec: &'a LinuxSeccomp, family: &[&'static Abi]) -> Self {
        let translated = profile(spec).unwrap();
        let family_of = family.iter().map(|abi| (*abi, Named::new(&translated, abi))).collect();
        Self { spec, family: family_of, listed: abis(spec, family), translated }
    }

    /// What must come out, given libseccomp's verdict: its own but for the differences we mean,
    /// which need no verdict.
    pub(super) fn expected(&self, abi: &Abi, nr: u32, scmp: Option<u32>) -> Option<u32> {
        let owns = |a: &Abi| a.audit == abi.audit && (a.numbers.0..=a.numbers.1).contains(&nr);
        let Some(known) = self.listed.iter().find(|known| owns(known)) else {
            // Foreign, but -1 is a tracer's.
            let foreign = abi.audit != Arch::ScmpArchX86_64 as u32 || nr != u32::MAX;
            return if foreign { Some(libc::SECCOMP_RET_KILL_PROCESS) } else { scmp };
        };
        let newest = self.named(known).newest;
        let newest_is_known = newest > known.numbers.0;
        let setup = known.unknown_is_zero && nr == 0;
        if self.translated.masks_new_calls() && newest_is_known && (nr > newest || setup) {
            return Some(ENOSYS);
        }
        scmp
    }

    fn named(&self, abi: &Abi) -> &Named {
        &self.family.iter().find(|(known, _)| known.scmp == abi.scmp).unwrap().1
    }

    /// Runs a call, which must get what the book says.
    pub(super) fn check(
        &self,
        program: &[sock_filter],
        abi: &Abi,
        nr: u32,
        args: [u64; 6],
    ) -> Call {
        // x86_64 and x32 share an audit number; the number says whose call it is.
        let owns = |a: &Abi| a.audit == abi.audit && (a.numbers.0..=a.numbers.1).contains(&nr);
        let abi = self.family.iter().find(|(abi, _)| owns(abi)).unwrap().0;
        let data = Data::new(abi, nr, args);
        let (our, _) = run(program, &data);
        let context = || {
            let spec = serde_json::to_string(self.spec).unwrap();
            format!("{:?} nr {nr} {args:x?}: {our:#x}; {spec}", abi.scmp)
        };
        let opinion = self.opinion(abi, nr, args);
        let known = self.listed.iter().any(|known| known.scmp == abi.scmp);
        match self.expected(abi, nr, None) {
            Some(decided) => assert_eq!(our, decided, "{}", context()),
            None if !known || opinion.actions.is_empty() => {
                assert_eq!(our, self.translated.default, "{}", context());
            }
            None => assert!(opinion.actions.contains(&our), "{opinion:?}; {}", context()),
        }
        Call { abi, data, verdict: our, opinion }
    }

    /// Reads the profile by the book.
    fn opinion(&self, abi: &Abi, nr: u32, args: [u64; 6]) -> Opinion {
        let syscalls = self.spec.syscalls().as_deref().unwrap_or_default();
        let mut opinion = Opinion { actions: Vec::new(), simple: true };
        let mut said = Vec::new();
        let mut conditions = 0;
        let mut values_only = true;
        for (place, multiplexed) in self.named(abi).places.get(&nr).into_iter().flatten() {
            let (syscall, entry) = (&syscalls[*place], &self.translated.entries[*place]);
            let conds = syscall.args().as_deref().unwrap_or_default();
            said.push(entry.action);
            if let Some(cond) = multiplexed {
                // Stricter than libseccomp, on purpose, if it has conditions.
                opinion.simple &= conds.is_empty();
                let call = args[0] & cond.mask == cond.value;
                // Bits that the kernel ignores; libseccomp lets them hide a call.
                opinion.simple &=
                    args[0] & !cond.mask == 0 || abi.args == Args::Low32 && cond.mask > 0xffff;
                if call && reaches_multiplexer(entry, abi, self.translated.default) {
                    opinion.actions.push(entry.action);
                }
                continue;
            }
            let repeated = (0..6).any(|i| conds.iter().filter(|a| a.index() == i).count() > 1);
            // Conditions on one argument are alternatives.
            let hold = |test: &dyn Fn(&LinuxSeccompArg) -> bool| {
                if repeated { conds.iter().any(test) } else { conds.iter().all(test) }
            };
            if hold(&|arg| always(arg, abi)) {
                return Opinion { actions: vec![entry.action], simple: true };
            }
            if hold(&|arg| holds(arg, abi, args)) {
                opinion.actions.push(entry.action);
            }
            conditions += conds.len();
            opinion.simple &= repeated || conds.len() < 2;
            values_only &= conds.iter().all(|a| a.op() == Op::ScmpCmpEq);
        }
        said.dedup();
        opinion.simple &= said.len() < 2 && (conditions < 2 || values_only);
        opinion
    }
}

/// For fuzzing: a profile in JSON, or up to eight bytes that a random one is made of.
pub fn fuzz(data: &[u8]) {
    let mut seed = data.iter().fold(0, |seed: u64, byte| seed << 8 ^ seed >> 56 ^ u64::from(*byte));
    let mut families = std::iter::once(abi::NATIVE).chain(abi::FOREIGN.iter().copied());
    let mut family = abi::NATIVE;
    let spec = if data.len() > 8 {
        let Ok(spec) = serde_json::from_slice::<LinuxSeccomp>(data) else { return };
        // Calls are tried for each name and value; a fuzzer does not need the long profiles.
        seed ^= spec.syscalls().iter().flatten().map(|s| s.names().len() as u64).sum::<u64>();
        spec
    } else {
        family = families.nth(data.len()).unwrap_or(family);
        random_profile(&mut Random(seed), family, seed % 2 == 0)
    };
    let Ok(filter) = compile_for(&spec, family) else { return };
    check(&filter.program);
    let book = Book::new(&spec, family);
    for abi in family {
        for (nr, args) in calls(&mut Random(seed), &spec, abi, 2) {
            book.check(&filter.program, abi, nr, args);
        }
    }
}

/// The bits of an argument that the kernel sees.
fn width(abi: &Abi) -> u64 {
    if abi.args == Args::Low32 { u64::from(u32::MAX) } else { u64::MAX }
}

/// Whether a condition holds for any argument.
fn always(arg: &LinuxSeccompArg, abi: &Abi) -> bool {
    arg.op() == Op::ScmpCmpMaskedEq && arg.value() & width(abi) == 0
}

/// Whether a rule's argument conditions hold, by the book.
fn holds(arg: &LinuxSeccompArg, abi: &Abi, args: [u64; 6]) -> bool {
    let width = width(abi);
    let (value, is) = (arg.value() & width, args[arg.index()] & width);
    match arg.op() {
        Op::ScmpCmpNe => is != value,
        Op::ScmpCmpLt => is < value,
        Op::ScmpCmpLe => is <= value,
        Op::ScmpCmpEq => is == value,
        Op::ScmpCmpGe => is >= value,
        Op::ScmpCmpGt => is > value,
        Op::ScmpCmpMaskedEq => is & value == arg.value_two().unwrap_or(0) & value,
    }
}

/// What the rules say about a call.
#[derive(Debug)]
pub(super) struct Opinion {
    /// The actions of all rules that apply; only the first of those without conditions, if any.
    pub(super) actions: Vec<u32>,
    /// libseccomp 2.5 merges the rules of a call into a tree, and errs: it does not come back from
    /// a rule of which the first condition holds and the second does not, and it loses rules
    /// about ranges of one 64-bit argument. Its verdict counts where there is one rule, or a list
    /// of values.
    pub(super) simple: bool,
}

/// Calls that could tell programs apart, `of_each` number so many with arguments.
pub(super) fn calls(
    random: &mut Random,
    spec: &LinuxSeccomp,
    abi: &Abi,
    of_each: usize,
) -> Vec<(u32, [u64; 6])> {
    let mut numbers =
        vec![0, 1, u32::MAX, X32_BIT, X32_BIT - 1, X32_BIT | 547, 5000, random.next() as u32 % 600];
    let syscalls = spec.syscalls().as_deref().unwrap_or_default();
    numbers.extend(
        syscalls.iter().flat_map(LinuxSyscall::names).filter_map(|n| abi.number(&Name::new(n))),
    );
    if let Some(m) = &abi.multiplexers {
        numbers.extend([m.socketcall, m.ipc]);
    }
    numbers.sort_unstable();
    numbers.dedup();
    let near: Vec<u32> =
        numbers.iter().flat_map(|n| [n.wrapping_sub(1), n.wrapping_add(1)]).collect();
    let mut calls: Vec<_> = near.into_iter().map(|nr| (nr, [0; 6])).collect();
    let constants: Vec<u64> = syscalls
        .iter()
        .flat_map(|s| s.args().iter().flatten())
        .flat_map(|a| [a.value(), a.value_two().unwrap_or(0)])
        .collect();
    for nr in numbers {
        for _ in 0..of_each {
            let args = std::array::from_fn(|_| match (random.below(4), constants.is_empty()) {
                (0, _) => value(random),
                (_, true) => random.below(30) as u64,
                (1, _) => random.pick(&constants),
                (2, _) => random.pick(&constants).wrapping_add(random.next() % 3).wrapping_sub(1),
                _ => random.pick(&constants) ^ (1 << random.below(64)),
            });
            calls.push((nr, args));
        }
        for call in 0..25 {
            if abi.multiplexers.as_ref().is_some_and(|m| nr == m.socketcall || nr == m.ipc) {
                calls.push((nr, [call, value(random), 0, 0, 0, 0]));
            }
        }
    }
    calls
}
