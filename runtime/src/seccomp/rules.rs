//! Second stage: for one ABI, which number leads to which verdict.
//!
//! The result is a list of intervals that covers all numbers of the ABI, so the last stage need
//! not know what a system call is. Decided here, because the spec is silent, and as libseccomp
//! (and so runc) does it:
//!
//! * A rule without conditions beats all rules with conditions for the same call, the first of
//!   them wins.
//! * Among rules with conditions the more specific one is asked first, whatever their order in
//!   the profile: exact values, then smaller upper bounds, then greater lower bounds.
//! * Two rules with the same conditions and different actions contradict each other: an error.
//! * A call above the greatest number that the profile names is newer than the profile and
//!   answers ENOSYS (runc's rule; see [`Profile::masks_new_calls`]). Naming a call that a
//!   multiplexer carries names the multiplexer.
//!
//! Two things are stricter than libseccomp, on old ABIs that pass socket and IPC calls through a
//! multiplexer: its arguments lie in memory where no filter can look, so a rule with conditions
//! counts there only if it restricts; and `ipc` takes a version in its high bits, which are
//! masked.

use std::cmp::Reverse;

use super::abi::{Abi, Args, Name};
use super::profile::{Cond, ENOSYS, Entry, Op, Profile};
use crate::{Error, Result};

/// Where a number leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    /// The filter returns this.
    Ret(u32),
    /// The chain of this index decides.
    Chain(usize),
}

/// The numbers from `start` up to the next interval's lead to `leaf`.
#[derive(Debug, Clone, Copy)]
pub struct Interval {
    /// The first number.
    pub start: u32,
    /// Where they lead.
    pub leaf: Leaf,
}

/// If all conditions hold, the filter returns `action`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// In order of the arguments, none twice, never empty.
    pub conds: Vec<Cond>,
    /// `SECCOMP_RET_*` with data.
    pub action: u32,
}

/// Rules for one call, asked in order; if none applies, the profile's default.
#[derive(Debug, PartialEq, Eq)]
pub struct Chain {
    /// How to find the arguments.
    pub args: Args,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// One rule's claim on one number.
struct Claim {
    number: u32,
    /// Position in `Profile::entries`: claims on a number stay in the profile's order.
    entry: usize,
    /// The call of a multiplexer that is meant.
    multiplexed: Option<Cond>,
}

/// Adds the intervals of `abi`, in ascending order, and the chains they refer to.
pub fn add(
    profile: &Profile<'_>,
    abi: &Abi,
    intervals: &mut Vec<Interval>,
    chains: &mut Vec<Chain>,
) -> Result<()> {
    let (claims, newest) = claims(profile, abi);
    let (first, last) = abi.numbers;
    // Number 0 alone is no sign of the profile's age.
    let newest = newest.filter(|&newest| newest > first && profile.masks_new_calls());
    let mut next = Some(first);
    let mut push = |start: u32, leaf: Leaf| {
        if intervals.last().is_none_or(|previous| previous.leaf != leaf) {
            intervals.push(Interval { start, leaf });
        }
    };
    let default = Leaf::Ret(profile.default);
    if newest.is_some() && abi.unknown_is_zero {
        push(first, Leaf::Ret(ENOSYS));
        next = first.checked_add(1);
    }
    for group in claims.chunk_by(|a, b| a.number == b.number) {
        let number = group[0].number;
        let Some(gap) = next.filter(|&next| next <= number) else { continue };
        if gap < number {
            push(gap, default);
        }
        push(number, leaf(profile, abi, group, chains)?);
        next = number.checked_add(1);
    }
    match (next, newest) {
        (Some(next), Some(newest)) => {
            if next <= newest {
                push(next, default);
            }
            if newest < last {
                push(newest + 1, Leaf::Ret(ENOSYS));
            }
        }
        (Some(next), None) if next <= last => push(next, default),
        _ => {}
    }
    Ok(())
}

/// All claims of the profile on numbers of `abi`, sorted, and the greatest number it names, in
/// whatever rule.
fn claims(profile: &Profile<'_>, abi: &Abi) -> (Vec<Claim>, Option<u32>) {
    let mut claims = Vec::with_capacity(512);
    let mut newest = None;
    for (entry, rule) in profile.entries.iter().enumerate() {
        // Such a rule says nothing; libseccomp would refuse it and runc skips it.
        let redundant = rule.action == profile.default;
        for text in rule.names {
            let name = Name::new(text);
            let number = abi.number(&name);
            let multiplexed = multiplexed(abi, &name);
            newest = newest.max(number).max(multiplexed.map(|(number, _)| number));
            if redundant {
                continue;
            }
            if let Some(number) = number {
                claims.push(Claim { number, entry, multiplexed: None });
            }
            if let Some((number, call)) = multiplexed
                && reaches_multiplexer(rule, abi, profile.default)
            {
                claims.push(Claim { number, entry, multiplexed: Some(call) });
            }
        }
    }
    claims.sort_unstable_by_key(|claim| (claim.number, claim.entry));
    (claims, newest)
}

/// A multiplexer hides the arguments, so a rule about them is followed only on the safe side:
/// where its action is at least as strict as the default (the kernel orders actions this way too).
pub(super) fn reaches_multiplexer(rule: &Entry<'_>, abi: &Abi, default: u32) -> bool {
    let rank = |action: u32| (action & libc::SECCOMP_RET_ACTION_FULL) as i32;
    rank(rule.action) <= rank(default)
        || rule.alternatives.iter().any(|conds| fit(conds, abi.args).is_empty())
}

/// What the calls of one number lead to.
fn leaf(
    profile: &Profile<'_>,
    abi: &Abi,
    group: &[Claim],
    chains: &mut Vec<Chain>,
) -> Result<Leaf> {
    // With each rule its entry's place in the JSON, and its conditions before they were cut; calls
    // of a multiplexer have none of their own.
    let mut rules: Vec<(Rule, usize, &[Cond])> = Vec::new();
    for claim in group {
        let entry = &profile.entries[claim.entry];
        let action = entry.action;
        if let Some(call) = claim.multiplexed {
            rules.push((Rule { conds: vec![call], action }, entry.index, &[]));
            continue;
        }
        for whole in &entry.alternatives {
            let conds = fit(whole, abi.args);
            if conds.is_empty() {
                return Ok(Leaf::Ret(action));
            }
            rules.push((Rule { conds, action }, entry.index, whole));
        }
    }
    rules.sort_by_cached_key(|(rule, ..)| rule.conds.iter().map(specificity).collect::<Vec<_>>());
    for pair in rules.windows(2) {
        let [(a, first, a_whole), (b, second, b_whole)] = pair else { continue };
        if !a_whole.is_empty() && a_whole == b_whole && a.action != b.action {
            return Err(Error::config(
                format!("linux.seccomp.syscalls[{second}].action"),
                format!(
                    "contradicts syscalls[{first}], which has the same system call and conditions"
                ),
            ));
        }
    }
    let rules = rules.into_iter().map(|(rule, ..)| rule).collect();
    let chain = Chain { args: abi.args, rules };
    let known = chains.iter().position(|known| *known == chain);
    Ok(Leaf::Chain(known.unwrap_or_else(|| {
        chains.push(chain);
        chains.len() - 1
    })))
}

/// libseccomp's order of asking, the strictest reading of which is a sort: see the module's head.
fn specificity(cond: &Cond) -> impl Ord + use<> {
    let class = match cond.op {
        Op::Eq | Op::Ne => 0,
        Op::Lt | Op::Le => 1,
        Op::Ge | Op::Gt => 2,
    };
    let value = if class == 1 { cond.value } else { u64::MAX - cond.value };
    (Reverse(cond.arg), class, value, Reverse(cond.mask), cond.op)
}

/// The conditions as this ABI can ask them: cut to its width, without those that always hold.
fn fit(conds: &[Cond], args: Args) -> Vec<Cond> {
    let width = match args {
        Args::Low32 => u64::from(u32::MAX),
        Args::Little64 | Args::Big64 => u64::MAX,
    };
    conds
        .iter()
        .map(|c| Cond { mask: c.mask & width, value: c.value & width, ..*c })
        .filter(|c| c.mask != 0)
        .collect()
}

/// The multiplexer that carries a call on `abi`, and the condition on its first argument.
pub(super) fn multiplexed(abi: &Abi, name: &Name<'_>) -> Option<(u32, Cond)> {
    let multiplexers = abi.multiplexers.as_ref()?;
    let socket = |call| (multiplexers.socketcall, u64::from(u32::MAX), call);
    // The kernel takes a version number from the upper half of ipc's first argument.
    let ipc = |call| (multiplexers.ipc, 0xffff, call);
    let (number, mask, value) = match name.text() {
        "socket" => socket(1),
        "bind" => socket(2),
        "connect" => socket(3),
        "listen" => socket(4),
        "accept" => socket(5),
        "getsockname" => socket(6),
        "getpeername" => socket(7),
        "socketpair" => socket(8),
        "send" => socket(9),
        "recv" => socket(10),
        "sendto" => socket(11),
        "recvfrom" => socket(12),
        "shutdown" => socket(13),
        "setsockopt" => socket(14),
        "getsockopt" => socket(15),
        "sendmsg" => socket(16),
        "recvmsg" => socket(17),
        "accept4" => socket(18),
        "recvmmsg" => socket(19),
        "sendmmsg" => socket(20),
        "semop" => ipc(1),
        "semget" => ipc(2),
        "semctl" => ipc(3),
        "semtimedop" => ipc(4),
        "msgsnd" => ipc(11),
        "msgrcv" => ipc(12),
        "msgget" => ipc(13),
        "msgctl" => ipc(14),
        "shmat" => ipc(21),
        "shmdt" => ipc(22),
        "shmget" => ipc(23),
        "shmctl" => ipc(24),
        _ => return None,
    };
    Some((number, Cond { arg: 0, op: Op::Eq, mask, value }))
}
