//! The system calls that have no safe wrapper, each as one function.
#![allow(unsafe_code)]

use std::ffi::CString;

use nix::errno::Errno;

/// Calls the system call `number` with `args`; `Err` holds the errno.
pub fn raw(number: i64, args: [u64; 6]) -> Result<i64, Errno> {
    // SAFETY: the caller is a test that asks for exactly this call; pointers among the arguments
    // come from CStrings and buffers that live until the call returns.
    let got =
        unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if got == -1 { Err(Errno::last()) } else { Ok(got) }
}

/// Calls the i386 system call `number` by `int 0x80`: the kernel's answer, negative errno included.
#[cfg(target_arch = "x86_64")]
pub fn int80(number: u32, args: [u32; 3]) -> i32 {
    let got: u64;
    // SAFETY: rbx is saved and restored, the 32-bit entry keeps all other registers but r8-r11.
    unsafe {
        std::arch::asm!(
            "xchg {b}, rbx", "int 0x80", "xchg {b}, rbx",
            b = inout(reg) u64::from(args[0]) => _,
            inout("rax") u64::from(number) => got,
            in("rcx") args[1], in("rdx") args[2],
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    got as i32
}

/// Other machines have no i386 entry.
#[cfg(not(target_arch = "x86_64"))]
pub fn int80(_number: u32, _args: [u32; 3]) -> i32 {
    -libc::ENOSYS
}

/// `prctl` with plain numbers.
pub fn prctl(option: i32, arg: u64) -> Result<i64, Errno> {
    raw(libc::SYS_prctl, [option as u64, arg, 0, 0, 0, 0])
}

/// Forks; `None` in the child.
pub fn fork() -> Result<Option<i32>, Errno> {
    // SAFETY: the probe has one thread, so the child may run anything.
    match unsafe { libc::fork() } {
        -1 => Err(Errno::last()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// What became of a child.
pub fn wait_for(pid: i32) -> Result<i32, Errno> {
    let mut status = 0;
    // SAFETY: status is a valid out pointer.
    match unsafe { libc::waitpid(pid, &raw mut status, 0) } {
        -1 => Err(Errno::last()),
        _ => Ok(status),
    }
}

/// (effective, permitted, inheritable) of this process as bit masks.
pub fn capget() -> Result<(u64, u64, u64), Errno> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let mut data = [0_u32; 6];
    raw(libc::SYS_capget, [header.as_ptr() as u64, data.as_mut_ptr() as u64, 0, 0, 0, 0])?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok((join(data[0], data[3]), join(data[1], data[4]), join(data[2], data[5])))
}

/// `sched_getattr`: size, policy, flags, nice, priority, runtime, deadline, period.
pub fn sched_getattr() -> Result<[u64; 7], Errno> {
    let mut buffer = [0_u64; 7];
    raw(libc::SYS_sched_getattr, [0, buffer.as_mut_ptr() as u64, 56, 0, 0, 0])?;
    Ok(buffer)
}

/// Soft and hard limit of a resource.
pub fn rlimit(resource: u32) -> Result<(u64, u64), Errno> {
    let mut both = [0_u64; 2];
    raw(libc::SYS_prlimit64, [0, u64::from(resource), 0, both.as_mut_ptr() as u64, 0, 0])?;
    Ok((both[0], both[1]))
}

/// Processors this process may run on.
pub fn affinity() -> Result<Vec<usize>, Errno> {
    let mut mask = [0_u64; 128];
    raw(libc::SYS_sched_getaffinity, [0, 1024, mask.as_mut_ptr() as u64, 0, 0, 0])?;
    Ok((0..8192).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect())
}

/// Memory policy: mode and the first 64 nodes.
pub fn mempolicy() -> Result<(i32, u64), Errno> {
    let (mut mode, mut nodes) = (0_i32, [0_u64; 128]);
    raw(
        libc::SYS_get_mempolicy,
        [(&raw mut mode) as u64, nodes.as_mut_ptr() as u64, 8192, 0, 0, 0],
    )?;
    Ok((mode, nodes[0]))
}

/// What the session keyring is called: `keyring;0;0;3f1b0000;_ses.x`.
pub fn session_keyring() -> Result<String, Errno> {
    const KEYCTL_DESCRIBE: u64 = 6;
    const SESSION: i64 = -3;
    let mut text = [0_u8; 512];
    let got = raw(
        libc::SYS_keyctl,
        [KEYCTL_DESCRIBE, SESSION as u64, text.as_mut_ptr() as u64, 512, 0, 0],
    )?;
    let end = (got as usize).saturating_sub(1).min(text.len());
    Ok(String::from_utf8_lossy(&text[..end]).into_owned())
}

/// Rows and columns of the terminal behind `fd`.
pub fn window_size(fd: i32) -> Result<(u16, u16), Errno> {
    let mut size = [0_u16; 4];
    raw(libc::SYS_ioctl, [fd as u64, libc::TIOCGWINSZ, size.as_mut_ptr() as u64, 0, 0, 0])?;
    Ok((size[0], size[1]))
}

/// Sets rows and columns of the terminal behind `fd`.
pub fn set_window_size(fd: i32, rows: u16, columns: u16) -> Result<i64, Errno> {
    let size = [rows, columns, 0, 0];
    raw(libc::SYS_ioctl, [fd as u64, libc::TIOCSWINSZ, size.as_ptr() as u64, 0, 0, 0])
}

/// Flags of the network interface `name` (IFF_UP is 1).
pub fn interface_flags(name: &str) -> Result<u16, Errno> {
    let socket =
        raw(libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_DGRAM as u64, 0, 0, 0, 0])?;
    let mut request = [0_u8; 40];
    for (to, from) in request.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    let got = raw(
        libc::SYS_ioctl,
        [socket as u64, libc::SIOCGIFFLAGS, request.as_mut_ptr() as u64, 0, 0, 0],
    );
    raw(libc::SYS_close, [socket as u64, 0, 0, 0, 0, 0])?;
    got.map(|_| u16::from_ne_bytes([request[16], request[17]]))
}

/// A clock in seconds.
pub fn clock(id: i32) -> Result<i64, Errno> {
    let mut time = [0_i64; 2];
    raw(libc::SYS_clock_gettime, [id as u64, time.as_mut_ptr() as u64, 0, 0, 0, 0])?;
    Ok(time[0])
}

/// Lets `signal` be ignored (true) or end the process (false).
pub fn ignore(signal: i32, ignored: bool) {
    let action = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: no handler function is installed.
    unsafe { libc::signal(signal, action) };
}

/// The signal set of these.
fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: an all-zero sigset_t is valid storage and sigemptyset initialises it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Keeps these signals pending until they are asked for.
pub fn block(signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: set is initialised; the old mask isn't wanted.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// The next of these signals, which should be blocked.
pub fn next_signal(signals: &[i32]) -> i32 {
    let set = set_of(signals);
    let mut got = 0;
    // SAFETY: set is initialised and got a valid out pointer.
    unsafe { libc::sigwait(&raw const set, &raw mut got) };
    got
}

/// Takes `bytes` of anonymous memory and touches every page; the errno if the kernel says no.
pub fn touch_memory(bytes: usize) -> Result<(), Errno> {
    // SAFETY: a fresh private anonymous mapping of our own, written inside its bounds.
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        for page in (0..bytes).step_by(4096) {
            at.cast::<u8>().add(page).write_volatile(1);
        }
    }
    Ok(())
}

/// A pointer for `raw`; the string is leaked, the process is short-lived.
pub fn pointer_to(text: &str) -> u64 {
    CString::new(text).unwrap_or_default().into_raw() as u64
}

/// From now on, for us and all that follow, these system calls answer `errno`: numbers, each with the
/// bits of its second argument of which one must be set (0: always).
pub fn deny(errno: u32, calls: &[(u32, u32)]) -> Result<(), Errno> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANY: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // Offsets in seccomp_data: the number, the low half of the second argument.
    const NUMBER: u32 = 0;
    const SECOND: u32 = 24;
    let code = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = Vec::new();
    for (number, bits) in calls {
        program.push(code(LOAD, 0, 0, NUMBER));
        if *bits == 0 {
            program.push(code(EQUAL, 0, 1, *number));
        } else {
            program.push(code(EQUAL, 0, 3, *number));
            program.push(code(LOAD, 0, 0, SECOND));
            program.push(code(ANY, 0, 1, *bits));
        }
        program.push(code(ANSWER, 0, 0, libc::SECCOMP_RET_ERRNO | errno));
    }
    program.push(code(ANSWER, 0, 0, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        filter: program.as_mut_ptr(),
    };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    raw(libc::SYS_seccomp, [mode.into(), 0, (&raw const filter) as u64, 0, 0, 0]).map(drop)
}
