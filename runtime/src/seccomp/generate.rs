//! Random profiles, made of calls and constants that meet each other often.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Act, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator as Op, LinuxSyscall, LinuxSyscallBuilder,
};

use crate::seccomp::abi::Abi;

/// splitmix64: a failing seed reproduces its profile.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

const NAMES: &[&str] = &[
    "read",
    "write",
    "open",
    "close",
    "ioctl",
    "socket",
    "connect",
    "bind",
    "sendto",
    "recvmsg",
    "accept4",
    "send",
    "semget",
    "shmat",
    "msgctl",
    "semtimedop",
    "socketcall",
    "ipc",
    "clone",
    "personality",
    "chown32",
    "_llseek",
    "mmap",
    "mmap2",
    "getpid",
    "clone3",
    "openat2",
    "futex",
    "rt_sigaction",
    "execve",
    "process_vm_readv",
    "preadv2",
    "uselib",
    "ptrace",
    "prctl",
    "kill",
    "arch_prctl",
    "set_thread_area",
    "statx",
    "faccessat2",
    "futex_waitv",
    "time",
    "no_such_call",
];

const VALUES: &[u64] = &[
    0,
    1,
    2,
    5,
    38,
    39,
    40,
    0x7e02_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x1_0000_0005,
    0x5_0000_0005,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_0000_0000,
    0xffff_ffff_ffff_fffe,
    u64::MAX,
];

const OPS: &[Op] = &[
    Op::ScmpCmpNe,
    Op::ScmpCmpLt,
    Op::ScmpCmpLe,
    Op::ScmpCmpEq,
    Op::ScmpCmpGe,
    Op::ScmpCmpGt,
    Op::ScmpCmpMaskedEq,
];

const ACTIONS: &[Act] = &[
    Act::ScmpActKill,
    Act::ScmpActKillThread,
    Act::ScmpActKillProcess,
    Act::ScmpActTrap,
    Act::ScmpActErrno,
    Act::ScmpActTrace,
    Act::ScmpActLog,
    Act::ScmpActAllow,
    Act::ScmpActNotify,
];

fn errno(random: &mut Random, action: Act) -> Option<u32> {
    let takes = matches!(action, Act::ScmpActErrno | Act::ScmpActTrace);
    (takes && random.below(2) == 0).then(|| random.pick(&[0, 1, 2, 38, 95, 4094]))
}

pub(super) fn value(random: &mut Random) -> u64 {
    if random.below(8) == 0 { random.next() } else { random.pick(VALUES) }
}

fn arg(random: &mut Random) -> LinuxSeccompArg {
    let op = random.pick(OPS);
    let builder =
        LinuxSeccompArgBuilder::default().index(random.below(6)).op(op).value(value(random));
    let two = random.below(3) > 0;
    let builder = if two { builder.value_two(value(random)) } else { builder };
    builder.build().unwrap()
}

/// With `coherent`, all rules of a call have one action, so the order of rules means nothing.
pub(super) fn random_profile(random: &mut Random, family: &[&Abi], coherent: bool) -> LinuxSeccomp {
    let mut default = random.pick(ACTIONS);
    while default == Act::ScmpActNotify {
        default = random.pick(ACTIONS);
    }
    let mut archs: Vec<Arch> =
        family[1..].iter().filter(|_| random.below(3) > 0).map(|abi| abi.scmp).collect();
    if random.below(2) == 0 {
        archs.push(family[0].scmp);
    }
    let most = if random.below(10) == 0 { 120 } else { 14 };
    let number = random.below(most);
    let base = random.next();
    let syscalls: Vec<LinuxSyscall> = (0..number)
        .map(|_| {
            let mut names = vec![random.pick(NAMES).to_owned()];
            let mut seed = base ^ names[0].len() as u64 ^ (u64::from(names[0].as_bytes()[0]) << 8);
            if !coherent {
                seed = random.next();
                for _ in 0..random.below(3) {
                    names.push(random.pick(NAMES).to_owned());
                }
            }
            let mut own = Random(seed);
            let mut action = own.pick(ACTIONS);
            while action == Act::ScmpActNotify && names.iter().any(|n| n == "write") {
                action = own.pick(ACTIONS);
            }
            let builder = LinuxSyscallBuilder::default().names(names).action(action);
            let builder = match errno(&mut own, action) {
                Some(errno) => builder.errno_ret(errno),
                None => builder,
            };
            let args = [0, 0, 1, 1, 1, 2, 2, 3][random.below(8)];
            let args: Vec<_> = (0..args).map(|_| arg(random)).collect();
            builder.args(args).build().unwrap()
        })
        .collect();
    let builder = LinuxSeccompBuilder::default()
        .default_action(default)
        .architectures(archs)
        .listener_path("/run/agent")
        .syscalls(syscalls);
    match errno(random, default) {
        Some(errno) => builder.default_errno_ret(errno).build().unwrap(),
        None => builder.build().unwrap(),
    }
}
