//! Signal dispositions, the real-time ones of glibc's own use included.

use nix::errno::Errno;

use super::check;

/// The kernel's `struct sigaction` is at most this many words: handler, flags, restorer, mask.
/// All zeroes mean `SIG_DFL`, no flags, an empty mask, on every architecture.
const SIGACTION_WORDS: usize = 8;

/// Gives `signal` its default disposition.
///
/// # Errors
/// `EINVAL` for SIGKILL and SIGSTOP.
pub fn set_default(signal: libc::c_int) -> Result<(), Errno> {
    let action = [0usize; SIGACTION_WORDS];
    // SAFETY: the kernel reads one sigaction, which the zeroed words are at least as long as; the
    // last argument is the size of the kernel's sigset, 64 signals. No handler is installed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            std::ptr::null::<usize>(),
            size_of::<u64>(),
        )
    };
    check(ret).map(drop)
}

/// The highest signal number.
pub const LAST: libc::c_int = 64;
