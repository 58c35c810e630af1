//! `seccomp(2)`: installing a filter, asking what the kernel can do.

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use seccompiler::sock_filter;

use super::check;

/// `SECCOMP_FILTER_FLAG_*`; libc lacks the newest.
pub mod flag {
    /// All threads get the filter.
    pub const TSYNC: u32 = 1;
    /// Every action but ALLOW is logged.
    pub const LOG: u32 = 1 << 1;
    /// No Speculative Store Bypass mitigation (Linux 4.17).
    pub const SPEC_ALLOW: u32 = 1 << 2;
    /// The call returns a notification fd (Linux 5.0).
    pub const NEW_LISTENER: u32 = 1 << 3;
    /// A thread that cannot join is `ESRCH`, not a positive return value (Linux 5.7).
    pub const TSYNC_ESRCH: u32 = 1 << 4;
    /// A caller whose notification was received waits killably only (Linux 5.19).
    pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;
}

/// `struct sock_fprog` over `seccompiler`'s instructions, which are `repr(C)`.
#[repr(C)]
struct Fprog {
    len: libc::c_ushort,
    filter: *const sock_filter,
}

/// `SECCOMP_SET_MODE_FILTER`: from the next system call on, `program` decides. The notification
/// fd is returned when `flags` has `NEW_LISTENER`; the kernel opens it close-on-exec.
///
/// # Errors
/// `EINVAL`: a program the kernel's checker refuses, or a flag it does not know. `EACCES`: neither
/// `CAP_SYS_ADMIN` nor no_new_privs. `EBUSY`: an older filter already has a listener. `ESRCH`: a
/// thread could not be synchronised.
pub fn set_mode_filter(flags: u32, program: &[sock_filter]) -> Result<Option<OwnedFd>, Errno> {
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let fprog = Fprog { len, filter: program.as_ptr() };
    // SAFETY: `fprog` and the instructions it points to live across the call, with their true
    // length; the kernel copies them.
    let ret = check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog)
    })?;
    if flags & flag::NEW_LISTENER != 0 {
        // SAFETY: the kernel just made this descriptor and nobody else has it.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(ret as i32) }));
    }
    // Without TSYNC_ESRCH the id of a thread that could not follow comes back as a success.
    if ret == 0 { Ok(None) } else { Err(Errno::ESRCH) }
}

/// Whether the kernel knows all of `flags`: it looks at them before it copies the program, so a
/// null program answers `EFAULT` for known flags and `EINVAL` for unknown ones. Changes nothing.
pub fn flags_known(flags: u32) -> bool {
    // SAFETY: a null program is never dereferenced; the copy from it fails.
    let ret = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::null::<Fprog>(),
        )
    });
    ret == Err(Errno::EFAULT)
}

/// Whether the kernel can return `action`, `SECCOMP_RET_*` (`SECCOMP_GET_ACTION_AVAIL`).
pub fn action_known(action: u32) -> bool {
    // SAFETY: `action` lives across the call and is only read.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    })
    .is_ok()
}

/// What the tests of filters need: any system call, by number, through either entry of the CPU.
#[cfg(test)]
pub(crate) mod raw {
    use std::arch::asm;

    /// `syscall` with `nr` as it is: the result or the negated errno. Allocates nothing.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn syscall64(nr: u64, args: [u64; 6]) -> i64 {
        let ret: i64;
        // SAFETY: the tests pass numbers and null pointers only, in a process made for the purpose.
        unsafe {
            asm!("syscall", inlateout("rax") nr as i64 => ret, in("rdi") args[0], in("rsi") args[1],
                in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
                lateout("rcx") _, lateout("r11") _);
        }
        ret
    }

    /// `int 0x80`: the 32-bit entry, open to 64-bit programs too.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn int80(nr: u32, arg: u32) -> i32 {
        let ret: i32;
        // SAFETY: as above; rbx is LLVM's, so it is exchanged around the call.
        unsafe {
            asm!("xchg {arg:r}, rbx", "int 0x80", "xchg {arg:r}, rbx", arg = inout(reg) u64::from(arg) => _,
                inlateout("eax") nr as i32 => ret, in("ecx") 0, in("edx") 0, in("esi") 0, in("edi") 0,
                lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
        }
        ret
    }
}
