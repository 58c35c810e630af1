//! Random profiles through this compiler and through libseccomp, driven as runc drives it: both
//! programs must give the same verdict on every call that could tell them apart.
//!
//! A plain evaluation of the profile, rule by rule, is the second opinion. Where this compiler
//! means to differ (see [`super::rules`] and [`super::codegen`]) the difference is spelled out in
//! [`expected`].

use std::os::fd::AsFd;

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Act, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator as Op, LinuxSyscall, LinuxSyscallBuilder,
};
use seccompiler::sock_filter;

use super::abi::{self, Abi, Args, Name, X32_BIT};
use super::interpreter::{Data, check, run};
use super::profile::{ENOSYS, Profile, profile};
use super::rules::{multiplexed, reaches_multiplexer};
use super::{abis, compile_for};

/// splitmix64: a failing seed reproduces its profile.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

const NAMES: &[&str] = &[
    "read",
    "write",
    "open",
    "close",
    "ioctl",
    "socket",
    "connect",
    "bind",
    "sendto",
    "recvmsg",
    "accept4",
    "send",
    "semget",
    "shmat",
    "msgctl",
    "semtimedop",
    "socketcall",
    "ipc",
    "clone",
    "personality",
    "chown32",
    "_llseek",
    "mmap",
    "mmap2",
    "getpid",
    "clone3",
    "openat2",
    "futex",
    "rt_sigaction",
    "execve",
    "process_vm_readv",
    "preadv2",
    "uselib",
    "ptrace",
    "prctl",
    "kill",
    "arch_prctl",
    "set_thread_area",
    "statx",
    "faccessat2",
    "futex_waitv",
    "time",
    "no_such_call",
];

const VALUES: &[u64] = &[
    0,
    1,
    2,
    5,
    38,
    39,
    40,
    0x7e02_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x1_0000_0005,
    0x5_0000_0005,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_0000_0000,
    0xffff_ffff_ffff_fffe,
    u64::MAX,
];

const OPS: &[Op] = &[
    Op::ScmpCmpNe,
    Op::ScmpCmpLt,
    Op::ScmpCmpLe,
    Op::ScmpCmpEq,
    Op::ScmpCmpGe,
    Op::ScmpCmpGt,
    Op::ScmpCmpMaskedEq,
];

const ACTIONS: &[Act] = &[
    Act::ScmpActKill,
    Act::ScmpActKillThread,
    Act::ScmpActKillProcess,
    Act::ScmpActTrap,
    Act::ScmpActErrno,
    Act::ScmpActTrace,
    Act::ScmpActLog,
    Act::ScmpActAllow,
    Act::ScmpActNotify,
];

fn errno(random: &mut Random, action: Act) -> Option<u32> {
    let takes = matches!(action, Act::ScmpActErrno | Act::ScmpActTrace);
    (takes && random.below(2) == 0).then(|| random.pick(&[0, 1, 2, 38, 95, 4095]))
}

fn value(random: &mut Random) -> u64 {
    if random.below(8) == 0 { random.next() } else { random.pick(VALUES) }
}

fn arg(random: &mut Random) -> LinuxSeccompArg {
    let op = random.pick(OPS);
    let builder =
        LinuxSeccompArgBuilder::default().index(random.below(6)).op(op).value(value(random));
    let two = random.below(3) > 0;
    let builder = if two { builder.value_two(value(random)) } else { builder };
    builder.build().unwrap()
}

/// With `coherent`, all rules of a call have one action, so the order of rules means nothing.
fn random_profile(random: &mut Random, family: &[&Abi], coherent: bool) -> LinuxSeccomp {
    let mut default = random.pick(ACTIONS);
    while default == Act::ScmpActNotify {
        default = random.pick(ACTIONS);
    }
    let mut archs: Vec<Arch> =
        family[1..].iter().filter(|_| random.below(3) > 0).map(|abi| abi.scmp).collect();
    if random.below(2) == 0 {
        archs.push(family[0].scmp);
    }
    let most = if random.below(10) == 0 { 120 } else { 14 };
    let number = random.below(most);
    let base = random.next();
    let syscalls: Vec<LinuxSyscall> = (0..number)
        .map(|_| {
            let mut names = vec![random.pick(NAMES).to_owned()];
            let mut seed = base ^ names[0].len() as u64 ^ (u64::from(names[0].as_bytes()[0]) << 8);
            if !coherent {
                seed = random.next();
                for _ in 0..random.below(3) {
                    names.push(random.pick(NAMES).to_owned());
                }
            }
            let mut own = Random(seed);
            let mut action = own.pick(ACTIONS);
            while action == Act::ScmpActNotify && names.iter().any(|n| n == "write") {
                action = own.pick(ACTIONS);
            }
            let builder = LinuxSyscallBuilder::default().names(names).action(action);
            let builder = match errno(&mut own, action) {
                Some(errno) => builder.errno_ret(errno),
                None => builder,
            };
            let args = [0, 0, 1, 1, 1, 2, 2, 3][random.below(8)];
            let args: Vec<_> = (0..args).map(|_| arg(random)).collect();
            builder.args(args).build().unwrap()
        })
        .collect();
    let builder = LinuxSeccompBuilder::default()
        .default_action(default)
        .architectures(archs)
        .listener_path("/run/agent")
        .syscalls(syscalls);
    match errno(random, default) {
        Some(errno) => builder.default_errno_ret(errno).build().unwrap(),
        None => builder.build().unwrap(),
    }
}

fn scmp_arch(arch: Arch) -> ScmpArch {
    arch.to_string().parse().unwrap()
}

fn scmp_action(action: Act, errno: Option<u32>) -> ScmpAction {
    let errno = errno.unwrap_or(1);
    match action {
        Act::ScmpActKill | Act::ScmpActKillThread => ScmpAction::KillThread,
        Act::ScmpActKillProcess => ScmpAction::KillProcess,
        Act::ScmpActTrap => ScmpAction::Trap,
        Act::ScmpActErrno => ScmpAction::Errno(errno as i32),
        Act::ScmpActTrace => ScmpAction::Trace(errno as u16),
        Act::ScmpActLog => ScmpAction::Log,
        Act::ScmpActAllow => ScmpAction::Allow,
        Act::ScmpActNotify => ScmpAction::Notify,
    }
}

fn scmp_arg(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let (op, datum) = match arg.op() {
        Op::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        Op::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        Op::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        Op::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        Op::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        Op::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        Op::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0))
        }
    };
    ScmpArgCompare::new(arg.index() as u32, op, datum)
}

/// The program of libseccomp for the profile, built with runc's calls.
fn oracle(
    spec: &LinuxSeccomp,
    family: &[&'static Abi],
    optimize: u32,
) -> Result<Vec<sock_filter>, libseccomp::error::SeccompError> {
    let default = scmp_action(spec.default_action(), spec.default_errno_ret());
    let mut context = ScmpFilterContext::new(default)?;
    let native = scmp_arch(family[0].scmp);
    for abi in abis(spec, family) {
        context.add_arch(scmp_arch(abi.scmp))?;
    }
    if native != ScmpArch::native() {
        context.remove_arch(ScmpArch::Native)?;
    }
    context.set_ctl_optimize(optimize)?;
    for syscall in spec.syscalls().as_deref().unwrap_or_default() {
        let action = scmp_action(syscall.action(), syscall.errno_ret());
        if action == default {
            continue;
        }
        for name in syscall.names() {
            // Negative numbers stand for calls that only other ABIs have.
            let Ok(number) = ScmpSyscall::from_name(name) else { continue };
            let args: Vec<_> =
                syscall.args().as_deref().unwrap_or_default().iter().map(scmp_arg).collect();
            let indices = syscall.args().as_deref().unwrap_or_default().iter().map(|a| a.index());
            let mut seen = [0; 6];
            indices.for_each(|i| seen[i] += 1);
            if args.is_empty() {
                context.add_rule(action, number)?;
            } else if seen.iter().any(|&n| n > 1) {
                for one in &args {
                    context.add_rule_conditional(action, number, &[*one])?;
                }
            } else {
                context.add_rule_conditional(action, number, &args)?;
            }
        }
    }
    let file = tempfile::tempfile().unwrap();
    context.export_bpf(file.as_fd())?;
    let mut bytes = vec![0; 8 * 8192];
    let length = std::os::unix::fs::FileExt::read_at(&file, &mut bytes, 0).unwrap();
    let swap = family[0].args == Args::Big64;
    Ok(bytes[..length]
        .chunks_exact(8)
        .map(|b| {
            let code = u16::from_le_bytes([b[0], b[1]]);
            let k = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
            let (code, k) = if swap { (code.swap_bytes(), k.swap_bytes()) } else { (code, k) };
            sock_filter { code, jt: b[2], jf: b[3], k }
        })
        .collect())
}

/// Whether a rule's argument conditions hold, by the book.
fn holds(arg: &LinuxSeccompArg, abi: &Abi, args: [u64; 6]) -> bool {
    let width = if abi.args == Args::Low32 { u64::from(u32::MAX) } else { u64::MAX };
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
struct Opinion {
    /// The actions of all rules that apply; only the first of those without conditions, if any.
    actions: Vec<u32>,
    /// libseccomp 2.5 merges the rules of a call into a tree, and errs: it does not come back from
    /// a rule of which the first condition holds and the second does not, and it loses rules
    /// about ranges of one 64-bit argument. Its verdict counts where there is one rule, or a list
    /// of values.
    simple: bool,
}

/// Reads the profile by the book.
fn opinion(
    spec: &LinuxSeccomp,
    translated: &Profile<'_>,
    abi: &Abi,
    nr: u32,
    args: [u64; 6],
) -> Opinion {
    let syscalls = spec.syscalls().as_deref().unwrap_or_default();
    let mut opinion = Opinion { actions: Vec::new(), simple: true };
    let mut said = Vec::new();
    let mut conditions = 0;
    let mut values_only = true;
    for (syscall, entry) in syscalls.iter().zip(&translated.entries) {
        if entry.action == translated.default {
            continue;
        }
        let conds = syscall.args().as_deref().unwrap_or_default();
        let always = |arg: &LinuxSeccompArg| {
            let mask = if abi.args == Args::Low32 { u64::from(u32::MAX) } else { u64::MAX };
            arg.op() == Op::ScmpCmpMaskedEq && arg.value() & mask == 0
        };
        let repeated = (0..6).any(|i| conds.iter().filter(|a| a.index() == i).count() > 1);
        for name in syscall.names().iter().map(|n| Name::new(n)) {
            if abi.number(&name) == Some(nr) {
                said.push(entry.action);
                let unconditional =
                    if repeated { conds.iter().any(always) } else { conds.iter().all(always) };
                if unconditional {
                    return Opinion { actions: vec![entry.action], simple: true };
                }
                let mut hold = conds.iter().map(|a| holds(a, abi, args));
                if if repeated { hold.any(|h| h) } else { hold.all(|h| h) } {
                    opinion.actions.push(entry.action);
                }
                conditions += conds.len();
                opinion.simple &= repeated || conds.len() < 2;
                values_only &= conds.iter().all(|a| a.op() == Op::ScmpCmpEq);
            }
            if let Some((number, cond)) = multiplexed(abi, &name)
                && number == nr
            {
                said.push(entry.action);
                // Stricter than libseccomp, on purpose, if it has conditions.
                opinion.simple &= conds.is_empty();
                let call = args[0] & cond.mask == cond.value;
                // Bits that the kernel ignores; libseccomp lets them hide a call.
                opinion.simple &=
                    args[0] & !cond.mask == 0 || abi.args == Args::Low32 && cond.mask > 0xffff;
                if call && reaches_multiplexer(entry, abi, translated.default) {
                    opinion.actions.push(entry.action);
                }
            }
        }
    }
    said.dedup();
    opinion.simple &= said.len() < 2 && (conditions < 2 || values_only);
    opinion
}

/// libseccomp 2.5 forgets to load the number in some programs where an ABI lacks a call of a rule:
/// then it compares numbers with the architecture.
fn loads_the_number(theirs: &[sock_filter], family: &[&Abi]) -> bool {
    let audits: Vec<u32> = family.iter().map(|abi| abi.audit).collect();
    theirs.iter().enumerate().all(|(i, at)| {
        let next = i + 1 + usize::from(at.jt);
        at.code != 0x15
            || !audits.contains(&at.k)
            || (theirs[next].code, theirs[next].k) == (0x20, 0)
            || theirs[next].code == 0x06
    })
}

/// What must come out, given libseccomp's verdict: its own but for the differences we mean.
fn expected(translated: &Profile<'_>, abis: &[&'static Abi], data: (u32, u32), scmp: u32) -> u32 {
    let (audit, nr) = data;
    let abi = abis.iter().find(|a| a.audit == audit && (a.numbers.0..=a.numbers.1).contains(&nr));
    let Some(abi) = abi else {
        // Foreign, but -1 is a tracer's.
        let foreign = audit != Arch::ScmpArchX86_64 as u32 || nr != u32::MAX;
        return if foreign { libc::SECCOMP_RET_KILL_PROCESS } else { scmp };
    };
    let names = translated.entries.iter().flat_map(|entry| entry.names);
    let newest = names.filter_map(|n| abi.number(&Name::new(n))).max().unwrap_or(0);
    let newest_is_known = newest > abi.numbers.0;
    let setup = abi.unknown_is_zero && nr == 0;
    if translated.masks_new_calls() && newest_is_known && (nr > newest || setup) {
        return ENOSYS;
    }
    scmp
}

fn calls(random: &mut Random, spec: &LinuxSeccomp, abi: &Abi) -> Vec<(u32, [u64; 6])> {
    let mut numbers =
        vec![0, 1, u32::MAX, X32_BIT, X32_BIT - 1, X32_BIT | 547, 5000, random.next() as u32 % 600];
    let syscalls = spec.syscalls().as_deref().unwrap_or_default();
    numbers
        .extend(syscalls.iter().flat_map(|s| s.names()).filter_map(|n| abi.number(&Name::new(n))));
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
        for _ in 0..12 {
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

/// How the comparison went.
#[derive(Debug, Default)]
struct Tally {
    profiles: usize,
    refused_by_libseccomp: usize,
    refused_by_both: usize,
    broken_in_libseccomp: usize,
    calls: usize,
    calls_ruled_otherwise: usize,
}

fn compare(seed: u64, family: &[&'static Abi], coherent: bool, tally: &mut Tally) {
    let mut random = Random(seed);
    let spec = random_profile(&mut random, family, coherent);
    let context = || format!("seed {seed}: {}", serde_json::to_string(&spec).unwrap());
    let theirs = oracle(&spec, family, 1 + (seed % 2) as u32);
    let ours = compile_for(&spec, family);
    tally.profiles += 1;
    let ours = match (ours, &theirs) {
        (Ok(ours), _) => ours.program,
        (Err(_), Err(_)) => {
            tally.refused_by_both += 1;
            return;
        }
        (Err(error), Ok(_)) => panic!("{error} but libseccomp takes it; {}", context()),
    };
    check(&ours);
    let Ok(theirs) = theirs else {
        tally.refused_by_libseccomp += 1;
        return;
    };
    if !loads_the_number(&theirs, family) {
        tally.broken_in_libseccomp += 1;
        return;
    }
    let listed = abis(&spec, family);
    let translated = profile(&spec).unwrap();
    for abi in family {
        for (nr, args) in calls(&mut random, &spec, abi) {
            // x86_64 and x32 share an audit number; the number says whose call it is.
            let owner = |a: &&&'static Abi| {
                a.audit == abi.audit && (a.numbers.0..=a.numbers.1).contains(&nr)
            };
            let abi = family.iter().find(owner).unwrap();
            let data = Data::new(abi, nr, args);
            let (our, _) = run(&ours, &data);
            let (their, _) = run(&theirs, &data);
            let wanted = expected(&translated, &listed, (abi.audit, nr), their);
            tally.calls += 1;
            let context =
                || format!("{:?} nr {nr} {args:x?}: {our:#x} {their:#x}; {}", abi.scmp, context());
            let opinion = opinion(&spec, &translated, abi, nr, args);
            let ruled = listed.iter().any(|known| known.scmp == abi.scmp)
                && expected(&translated, &listed, (abi.audit, nr), 0) == 0;
            if ruled && opinion.actions.is_empty() {
                assert_eq!(our, translated.default, "{}", context());
            } else if ruled {
                assert!(opinion.actions.contains(&our), "{opinion:?}; {}", context());
            }
            if our != wanted {
                assert!(!opinion.simple, "want {wanted:#x}; {}", context());
                tally.calls_ruled_otherwise += 1;
            }
        }
    }
}

fn families() -> impl Iterator<Item = (&'static [&'static Abi], usize)> {
    std::iter::once((abi::NATIVE, 4)).chain(abi::FOREIGN.iter().map(|&family| (family, 1)))
}

/// Profiles per unit of a family's weight; `CORTEN_SECCOMP_PROFILES` asks for more.
fn profiles() -> usize {
    std::env::var("CORTEN_SECCOMP_PROFILES").map_or(250, |n| n.parse().unwrap())
}

#[test]
fn verdicts_are_libseccomps() {
    let mut tally = Tally::default();
    for (family, weight) in families() {
        for seed in 0..(weight * profiles()) as u64 {
            compare(seed, family, true, &mut tally);
        }
    }
    println!("{tally:?}");
}

#[test]
fn contradicting_rules_are_followed_one_by_one() {
    let mut tally = Tally::default();
    for (family, weight) in families() {
        for seed in 0..(weight * profiles()) as u64 {
            compare(seed, family, false, &mut tally);
        }
    }
    println!("{tally:?}");
}

#[test]
fn numbers_are_libseccomps() {
    for (family, _) in families() {
        for abi in family {
            let arch = scmp_arch(abi.scmp);
            let mut known = 0;
            let mut differ = Vec::new();
            for nr in 0..600 {
                for other in family.iter().chain(abi::NATIVE) {
                    let Ok(name) = ScmpSyscall::from_raw_syscall(nr | other.numbers.0 as i32)
                        .get_name_by_arch(scmp_arch(other.scmp))
                    else {
                        continue;
                    };
                    let theirs = ScmpSyscall::from_name_by_arch(&name, arch)
                        .ok()
                        .map(ScmpSyscall::as_raw_syscall)
                        .filter(|&nr| nr >= 0)
                        .map(|nr| nr as u32);
                    let ours = abi.number(&Name::new(&name));
                    known += usize::from(ours.is_some());
                    if ours != theirs {
                        differ.push((name, ours, theirs));
                    }
                }
            }
            differ.sort();
            differ.dedup();
            println!("{:?}: {known} {differ:?}", abi.scmp);
        }
    }
}
