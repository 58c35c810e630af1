//! `bpf(2)`, as far as the device filter of a cgroup v2 needs it.

use std::ffi::CStr;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::check;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
/// Several programs may be attached, all of which must agree.
const F_ALLOW_MULTI: u32 = 2;
/// Swap the program for another in one step (Linux 5.6).
const F_REPLACE: u32 = 4;

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what it lacks as zero.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: every `T` here is the head of `union bpf_attr` for its command, with its true size
    // and without padding; the pointers in it are to memory that the callers keep alive.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
///
/// # Errors
/// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN` (before 5.11 also for `RLIMIT_MEMLOCK`), `EINVAL` or `EACCES` when
/// the verifier refuses it.
pub fn load_device_program(instructions: &[u64], license: &CStr) -> Result<OwnedFd, Errno> {
    let mut attr = Load {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| Errno::E2BIG)?,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    bpf(PROG_LOAD, &mut attr).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a device program to a cgroup v2 directory, in place of `instead` when given.
///
/// # Errors
/// `EINVAL` for `instead` before Linux 5.6; `ENOENT` when `instead` is not attached; `EPERM`.
pub fn attach_device_program(
    cgroup: impl AsFd,
    program: impl AsFd,
    instead: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut attr = Attach {
        target_fd: number(cgroup.as_fd()),
        attach_bpf_fd: number(program.as_fd()),
        attach_type: CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI | instead.map_or(0, |_| F_REPLACE),
        replace_bpf_fd: instead.map_or(0, number),
    };
    bpf(PROG_ATTACH, &mut attr).map(drop)
}

/// Detaches a device program from a cgroup v2 directory.
///
/// # Errors
/// `ENOENT` when it is not attached.
pub fn detach_device_program(cgroup: impl AsFd, program: impl AsFd) -> Result<(), Errno> {
    let mut attr = Attach {
        target_fd: number(cgroup.as_fd()),
        attach_bpf_fd: number(program.as_fd()),
        attach_type: CGROUP_DEVICE,
        attach_flags: 0,
        replace_bpf_fd: 0,
    };
    bpf(PROG_DETACH, &mut attr).map(drop)
}

/// The ids of the device programs attached to this very directory, not to its parents.
///
/// # Errors
/// The errno of the call.
pub fn device_programs(cgroup: impl AsFd) -> Result<Vec<u32>, Errno> {
    // The kernel's limit of programs on one directory (BPF_CGROUP_MAX_PROGS).
    let mut ids = vec![0_u32; 64];
    let mut attr = Query {
        target_fd: number(cgroup.as_fd()),
        attach_type: CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        padding: 0,
    };
    bpf(PROG_QUERY, &mut attr)?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

/// A descriptor for the program `id`.
///
/// # Errors
/// `ENOENT` when it is gone, `EPERM`.
pub fn program_by_id(id: u32) -> Result<OwnedFd, Errno> {
    let mut attr = ById { id, next_id: 0, open_flags: 0 };
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    bpf(PROG_GET_FD_BY_ID, &mut attr).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
