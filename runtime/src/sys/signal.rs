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

/// Gives every signal that has a handler its default disposition; what is ignored stays so. What
/// `CLONE_CLEAR_SIGHAND` does.
pub fn forget_handlers() {
    for signal in 1..=LAST {
        let mut action = [0usize; SIGACTION_WORDS];
        // SAFETY: the kernel writes one sigaction, which the words are at least as long as.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                std::ptr::null::<usize>(),
                action.as_mut_ptr(),
                size_of::<u64>(),
            )
        };
        // The first word is the handler. SIGKILL and SIGSTOP never have one.
        let handler = action.first().copied().unwrap_or(libc::SIG_DFL);
        if check(ret).is_ok() && ![libc::SIG_DFL, libc::SIG_IGN].contains(&handler) {
            let _valid = set_default(signal);
        }
    }
}

/// The highest signal number.
pub const LAST: libc::c_int = 64;
