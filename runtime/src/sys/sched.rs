//! How the kernel schedules a process: CPU policy, I/O priority, NUMA memory policy, personality,
//! resource limits.

use std::mem::size_of;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::check;

/// `struct sched_attr` of `sched_setattr(2)`, up to its second version (utilisation clamps, 5.3).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// Filled in by the call.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For OTHER and BATCH: -20 to 19.
    pub nice: i32,
    /// For FIFO and RR: 1 to 99.
    pub priority: u32,
    /// For DEADLINE, in ns.
    pub runtime: u64,
    /// For DEADLINE, in ns.
    pub deadline: u64,
    /// For DEADLINE, in ns.
    pub period: u64,
    /// The spec has no value for it.
    pub util_min: u32,
    /// The spec has no value for it.
    pub util_max: u32,
}

/// `sched_setattr(2)` of the calling thread.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE`, `EINVAL`, `EBUSY` when the deadline does not fit.
pub fn sched_setattr(attr: SchedAttr) -> Result<(), Errno> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..attr };
    // SAFETY: the struct lives across the call and says its true size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// `sched_getattr(2)` of the calling thread.
///
/// # Errors
/// The errno of the call.
pub fn sched_getattr() -> Result<SchedAttr, Errno> {
    let mut attr = SchedAttr::default();
    // SAFETY: the kernel writes at most the size that is passed.
    let ret = unsafe {
        libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size_of::<SchedAttr>(), 0)
    };
    check(ret)?;
    // Not asked for by any caller, and not equal between what was set and what is reported.
    Ok(SchedAttr { size: 0, util_min: 0, util_max: 0, ..attr })
}

/// `prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE)` (Linux 5.14) for this process: a cookie of its own,
/// inherited by its children. Only tasks with the same cookie share a core at one moment.
///
/// # Errors
/// `ENODEV` when no core has more than one thread; `EINVAL` from a kernel without it.
pub fn core_sched_create() -> Result<(), Errno> {
    // linux/prctl.h.
    const PR_SCHED_CORE: libc::c_int = 62;
    const PR_SCHED_CORE_CREATE: libc::c_ulong = 1;
    const SCOPE_THREAD_GROUP: libc::c_ulong = 1;
    // SAFETY: plain integers; no pointer is asked for by this command.
    let ret = unsafe {
        libc::prctl(
            PR_SCHED_CORE,
            PR_SCHED_CORE_CREATE,
            0 as libc::c_ulong,
            SCOPE_THREAD_GROUP,
            0 as libc::c_ulong,
        )
    };
    check(ret.into()).map(drop)
}

/// `IOPRIO_WHO_PROCESS`.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;

/// `ioprio_set(2)` of the calling thread: class << 13 | level.
///
/// # Errors
/// `EPERM` for the real-time class without `CAP_SYS_ADMIN` or `CAP_SYS_NICE`.
pub fn ioprio_set(ioprio: u16) -> Result<(), Errno> {
    // SAFETY: plain integers.
    let ret = unsafe {
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, libc::c_int::from(ioprio))
    };
    check(ret).map(drop)
}

/// `ioprio_get(2)` of the calling thread.
///
/// # Errors
/// The errno of the call.
pub fn ioprio_get() -> Result<u16, Errno> {
    // SAFETY: plain integers.
    let ret = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) };
    check(ret).map(|ioprio| ioprio as u16)
}

/// `set_mempolicy(2)`: `mode` with its flags, and a mask of nodes, bit n of the whole slice being
/// node n. An empty mask is no mask.
///
/// # Errors
/// `EINVAL` for a node that does not exist or a mode that this kernel does not know.
pub fn set_mempolicy(mode: libc::c_int, nodes: &[u64]) -> Result<(), Errno> {
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // The kernel reads one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    // SAFETY: the kernel reads `bits - 1` bits from a live slice, or nothing.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// `get_mempolicy(2)`: the mode with its flags.
///
/// # Errors
/// `ENOSYS` without NUMA.
pub fn get_mempolicy() -> Result<libc::c_int, Errno> {
    let mut mode: libc::c_int = 0;
    let null = std::ptr::null_mut::<libc::c_ulong>();
    // SAFETY: `mode` lives across the call; a null mask is not written.
    let ret = unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, null, 0, null, 0) };
    check(ret).map(|_| mode)
}

/// `personality(2)`: optionally sets it, returns the previous one.
///
/// # Errors
/// A filter's errno.
pub fn personality(persona: Option<u32>) -> Result<u32, Errno> {
    // SAFETY: a plain integer; all ones only asks.
    let ret = unsafe {
        libc::syscall(libc::SYS_personality, libc::c_ulong::from(persona.unwrap_or(u32::MAX)))
    };
    check(ret).map(|old| old as u32)
}

/// A soft and a hard limit; `u64::MAX` is "unlimited".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RlimitPair {
    /// What is enforced.
    pub soft: u64,
    /// How far the process itself may raise the soft one.
    pub hard: u64,
}

/// `prlimit(2)`: optionally sets a limit of `pid` (0: ourselves), returns the previous one.
///
/// # Errors
/// `EPERM` to raise a hard limit without `CAP_SYS_RESOURCE`; `ESRCH`; `EINVAL`.
pub fn prlimit(pid: Pid, resource: u32, new: Option<RlimitPair>) -> Result<RlimitPair, Errno> {
    let new = new.map(|new| libc::rlimit64 { rlim_cur: new.soft, rlim_max: new.hard });
    let new_ptr = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `new_ptr` is null or points at `new`, `old` lives across the call.
    let ret = unsafe {
        libc::syscall(libc::SYS_prlimit64, pid.as_raw(), resource, new_ptr, &raw mut old)
    };
    check(ret).map(|_| RlimitPair { soft: old.rlim_cur, hard: old.rlim_max })
}
