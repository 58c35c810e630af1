//! Credentials of the calling thread: ids, groups, the five capability sets.
//!
//! The id calls are the raw ones on purpose: glibc's wrappers make every thread of the process
//! follow, and look for those threads even in a child that `clone` made without them.

use nix::errno::Errno;

use super::check;

/// `setgroups(2)`: the supplementary groups, exactly these.
///
/// # Errors
/// `EPERM` without `CAP_SETGID` or where the user namespace denies it; `EINVAL` for an unmapped id.
pub fn setgroups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: pointer and length describe one live slice of gid_t.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// `getgroups(2)`. libc's way to learn how long the list may be is to read
/// `/proc/sys/kernel/ngroups_max`, by then a file of the container's choice: a fifo would hold us up
/// for ever.
///
/// # Errors
/// None that the kernel documents for this use.
pub fn getgroups() -> Result<Vec<u32>, Errno> {
    // SAFETY: with a length of 0 the kernel writes nothing.
    let count = check(unsafe { libc::syscall(libc::SYS_getgroups, 0, 0) })?;
    let mut groups = vec![0_u32; usize::try_from(count).unwrap_or(0)];
    // SAFETY: pointer and length describe one live slice of gid_t; nobody else changes our groups.
    let count =
        check(unsafe { libc::syscall(libc::SYS_getgroups, groups.len(), groups.as_mut_ptr()) })?;
    groups.truncate(usize::try_from(count).unwrap_or(0));
    Ok(groups)
}

/// `setresgid(2)` with one id for real, effective and saved. `u32::MAX` would mean "unchanged": the
/// caller refuses it.
///
/// # Errors
/// `EPERM`; `EINVAL` for an unmapped id.
pub fn setresgid(gid: u32) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// `setresuid(2)` with one id for real, effective and saved. `u32::MAX` would mean "unchanged": the
/// caller refuses it.
///
/// # Errors
/// `EPERM`; `EINVAL` for an unmapped id.
pub fn setresuid(uid: u32) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// The three sets that `capget(2)` and `capset(2)` move together; bit n is capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapSets {
    /// What the kernel checks.
    pub effective: u64,
    /// The limit of effective.
    pub permitted: u64,
    /// What survives an exec of a file that inherits it.
    pub inheritable: u64,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64 bits in two words (Linux 2.6.26).
const CAP_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `capget(2)` of the calling thread.
///
/// # Errors
/// The errno of the call.
pub fn capget() -> Result<CapSets, Errno> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 makes the kernel write exactly two elements, which `data` has.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let [low, high] = data;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(CapSets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// `capset(2)` of the calling thread.
///
/// # Errors
/// `EPERM` when a set would grow beyond what the kernel's rules allow.
pub fn capset(sets: CapSets) -> Result<(), Errno> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let word = |shift: u32| CapData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [word(0), word(32)];
    // SAFETY: version 3 makes the kernel read exactly two elements, which `data` has.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

fn prctl(option: libc::c_int, arg2: u64, arg3: u64) -> Result<libc::c_int, Errno> {
    // SAFETY: the options used in this file take plain integers, and zeroes in the unused places.
    let ret = unsafe { libc::prctl(option, arg2, arg3, 0u64, 0u64) };
    check(ret.into()).map(|_| ret)
}

/// Whether the bounding set has `cap`.
///
/// # Errors
/// `EINVAL` when the kernel does not know `cap`, which is how its last capability is found.
pub fn bounding_has(cap: u8) -> Result<bool, Errno> {
    prctl(libc::PR_CAPBSET_READ, cap.into(), 0).map(|has| has == 1)
}

/// Drops `cap` from the bounding set, for good.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn bounding_drop(cap: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, cap.into(), 0).map(drop)
}

/// Whether the ambient set has `cap`.
///
/// # Errors
/// `EINVAL` before Linux 4.3 or for an unknown capability.
pub fn ambient_has(cap: u8) -> Result<bool, Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET as u64, cap.into()).map(|has| has == 1)
}

/// Adds `cap` to the ambient set.
///
/// # Errors
/// `EPERM` unless it is permitted and inheritable.
pub fn ambient_raise(cap: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, cap.into()).map(drop)
}

/// Empties the ambient set.
///
/// # Errors
/// `EINVAL` before Linux 4.3.
pub fn ambient_clear() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}
