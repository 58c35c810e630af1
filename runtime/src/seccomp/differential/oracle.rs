//! libseccomp, driven as runc drives it, and its program read back.

use std::os::fd::AsFd;

use libseccomp::error::SeccompError;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Act, LinuxSeccompArg, LinuxSeccompOperator as Op,
};
use seccompiler::sock_filter;

use crate::seccomp::abi::{Abi, Args};
use crate::seccomp::abis;

pub(super) fn scmp_arch(arch: Arch) -> ScmpArch {
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

fn is_action(value: u32) -> bool {
    let actions = [0x8000, 0x0003, 0x0005, 0x7fc0, 0x7ff0, 0x7ffc, 0x7fff];
    value == 0 || actions.contains(&(value >> 16))
}

/// The program of libseccomp for the profile, built with runc's calls.
pub(super) fn oracle(
    spec: &LinuxSeccomp,
    family: &[&'static Abi],
    optimize: u32,
) -> Result<Vec<sock_filter>, SeccompError> {
    let default = scmp_action(spec.default_action(), spec.default_errno_ret());
    let mut context = ScmpFilterContext::new(default)?;
    let native = scmp_arch(family[0].scmp);
    if native != ScmpArch::native() {
        context.remove_arch(ScmpArch::Native)?;
    }
    for abi in abis(spec, family) {
        context.add_arch(scmp_arch(abi.scmp))?;
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
            let indices =
                syscall.args().as_deref().unwrap_or_default().iter().map(LinuxSeccompArg::index);
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
            if !swap {
                return sock_filter { code, jt: b[2], jf: b[3], k };
            }
            // Written in the order of the foreign machine, but for the values of some returns.
            let native = code == 0x0600 && is_action(k);
            let (code, k) = (code.swap_bytes(), if native { k } else { k.swap_bytes() });
            sock_filter { code, jt: b[2], jf: b[3], k }
        })
        .collect())
}

/// libseccomp 2.5 forgets to load the number in some programs where an ABI lacks a call of a rule:
/// then it compares numbers with the architecture.
pub(super) fn loads_the_number(theirs: &[sock_filter], family: &[&Abi]) -> bool {
    let audits: Vec<u32> = family.iter().map(|abi| abi.audit).collect();
    theirs.iter().enumerate().all(|(i, at)| {
        let next = i + 1 + usize::from(at.jt);
        at.code != 0x15
            || !audits.contains(&at.k)
            || (theirs[next].code, theirs[next].k) == (0x20, 0)
            || theirs[next].code == 0x06
    })
}
