//! First stage: `linux.seccomp` becomes numbers, and everything in it that makes no sense is an
//! error with its JSON path.
//!
//! What a later stage needs is decided here: every action is the 32-bit value the filter will
//! return, every condition has a mask and masked value, conditions that cannot be joined by "and"
//! are separate alternatives. Nothing here depends on an ABI.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Act, LinuxSeccompArg, LinuxSeccompOperator as Operator,
    LinuxSyscall,
};

use crate::{Error, Result};

/// The errno of an errno or trace action that names none.
const DEFAULT_ERRNO: u32 = libc::EPERM as u32;
/// The kernel turns greater errnos into this one silently.
const MAX_ERRNO: u32 = 4095;

/// What a syscall that the kernel does not know would answer.
pub const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// A comparison of `argument & mask` with `value`, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Not equal.
    Ne,
    /// Equal.
    Eq,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater or equal.
    Ge,
    /// Greater.
    Gt,
}

/// One condition. `value` has no bit outside `mask`, and only [`Op::Eq`] has a mask that is not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cond {
    /// The argument, 0 to 5.
    pub arg: u8,
    /// The comparison.
    pub op: Op,
    /// The bits that count.
    pub mask: u64,
    /// What they are compared with.
    pub value: u64,
}

/// One entry of `syscalls`.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Its place in the JSON array.
    pub index: usize,
    /// The calls it is about, unknown ones included.
    pub names: &'a [String],
    /// What the filter returns.
    pub action: u32,
    /// It applies when all conditions of one of these hold: never empty, but one may be.
    pub alternatives: Vec<Vec<Cond>>,
}

/// A validated `linux.seccomp`, but for flags and architectures.
#[derive(Debug)]
pub struct Profile<'a> {
    /// What the filter returns when no rule applies.
    pub default: u32,
    /// The entries in order.
    pub entries: Vec<Entry<'a>>,
}

impl Profile<'_> {
    /// Whether calls newer than the profile answer ENOSYS, so that libc falls back to an older
    /// call, instead of the default action, of which it would know nothing. A permissive default
    /// lets the kernel answer; so does a tracer, which has to cope with new calls anyway.
    pub fn masks_new_calls(&self) -> bool {
        let permissive = [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_LOG, libc::SECCOMP_RET_TRACE]
            .contains(&(self.default & libc::SECCOMP_RET_ACTION_FULL));
        !permissive && self.default != ENOSYS
    }
}

/// Reads and validates.
pub fn profile(spec: &LinuxSeccomp) -> Result<Profile<'_>> {
    let errno_ret = spec.default_errno_ret();
    let default =
        action(spec.default_action(), errno_ret, || "linux.seccomp.defaultErrnoRet".to_owned())?;
    if spec.default_action() == Act::ScmpActNotify {
        return Err(Error::config(
            "linux.seccomp.defaultAction",
            "SCMP_ACT_NOTIFY cannot be the default: the runtime could not hand over the \
             notification fd",
        ));
    }
    let syscalls = spec.syscalls().as_deref().unwrap_or_default();
    let entries =
        syscalls.iter().enumerate().map(|(index, s)| entry(index, s)).collect::<Result<_>>()?;
    Ok(Profile { default, entries })
}

fn entry(index: usize, syscall: &LinuxSyscall) -> Result<Entry<'_>> {
    let at = |field: &str| format!("linux.seccomp.syscalls[{index}].{field}");
    let names = syscall.names();
    if names.is_empty() {
        return Err(Error::config(at("names"), "must contain at least one entry"));
    }
    if let Some(empty) = names.iter().position(String::is_empty) {
        return Err(Error::config(at(&format!("names[{empty}]")), "is empty"));
    }
    if syscall.action() == Act::ScmpActNotify
        && let Some(write) = names.iter().position(|name| name == "write")
    {
        return Err(Error::config(
            at(&format!("names[{write}]")),
            "SCMP_ACT_NOTIFY cannot be used for write: the runtime needs it to hand over the \
             notification fd",
        ));
    }
    let value = action(syscall.action(), syscall.errno_ret(), || at("errnoRet"))?;
    let args = syscall.args().as_deref().unwrap_or_default();
    let mut conds = Vec::with_capacity(args.len());
    for (place, arg) in args.iter().enumerate() {
        let path = || at(&format!("args[{place}].index"));
        conds.push(cond(arg).ok_or_else(|| {
            Error::config(path(), format!("is {}; a system call has 6 arguments", arg.index()))
        })?);
    }
    Ok(Entry { index, names, action: value, alternatives: alternatives(conds) })
}

/// Conditions are joined by "and", unless two are about the same argument: then each stands for
/// itself. runc and libseccomp read it so, and profiles that list allowed values rely on it.
fn alternatives(mut conds: Vec<Cond>) -> Vec<Vec<Cond>> {
    let mut seen = [false; 6];
    let repeated = conds.iter().any(|c| std::mem::replace(&mut seen[usize::from(c.arg)], true));
    if repeated {
        return conds.into_iter().map(|c| vec![c]).collect();
    }
    conds.sort_by_key(|c| c.arg);
    vec![conds]
}

fn cond(arg: &LinuxSeccompArg) -> Option<Cond> {
    let index = u8::try_from(arg.index()).ok().filter(|&index| index < 6)?;
    let full = |op| Cond { arg: index, op, mask: u64::MAX, value: arg.value() };
    Some(match arg.op() {
        Operator::ScmpCmpNe => full(Op::Ne),
        Operator::ScmpCmpLt => full(Op::Lt),
        Operator::ScmpCmpLe => full(Op::Le),
        Operator::ScmpCmpEq => full(Op::Eq),
        Operator::ScmpCmpGe => full(Op::Ge),
        Operator::ScmpCmpGt => full(Op::Gt),
        // Here `value` is the mask, and what is outside it does not count in `valueTwo` either.
        Operator::ScmpCmpMaskedEq => Cond {
            arg: index,
            op: Op::Eq,
            mask: arg.value(),
            value: arg.value_two().unwrap_or(0) & arg.value(),
        },
    })
}

/// The value a filter returns for an action. An errno where the action has no use for one is an
/// error (config-linux.md, `errnoRet`: "the runtime MUST print and error and fail").
fn action(action: Act, errno: Option<u32>, path: impl Fn() -> String) -> Result<u32> {
    let (value, max) = match action {
        Act::ScmpActKill | Act::ScmpActKillThread => (libc::SECCOMP_RET_KILL_THREAD, None),
        Act::ScmpActKillProcess => (libc::SECCOMP_RET_KILL_PROCESS, None),
        Act::ScmpActTrap => (libc::SECCOMP_RET_TRAP, None),
        Act::ScmpActErrno => (libc::SECCOMP_RET_ERRNO, Some(MAX_ERRNO)),
        Act::ScmpActNotify => (libc::SECCOMP_RET_USER_NOTIF, None),
        Act::ScmpActTrace => (libc::SECCOMP_RET_TRACE, Some(libc::SECCOMP_RET_DATA)),
        Act::ScmpActLog => (libc::SECCOMP_RET_LOG, None),
        Act::ScmpActAllow => (libc::SECCOMP_RET_ALLOW, None),
    };
    match (max, errno) {
        (None, None) => Ok(value),
        (None, Some(_)) => {
            Err(Error::config(path(), format!("{action} does not support an errno")))
        }
        (Some(max), Some(errno)) if errno > max => {
            Err(Error::config(path(), format!("{errno} is above {max}")))
        }
        (Some(_), errno) => Ok(value | errno.unwrap_or(DEFAULT_ERRNO)),
    }
}
