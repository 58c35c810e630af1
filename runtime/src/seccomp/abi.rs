//! The system call interfaces that can reach a filter on this machine.
//!
//! A filter sees the caller's ABI as an `AUDIT_ARCH_*` number, and system call numbers that mean
//! something only together with it: 102 is `getuid` on x86_64 and `socketcall` on x86. A filter that
//! checks one ABI and forgets another is no filter, because a 64-bit program may enter through
//! `int 0x80` or with x32's bit 30 whenever it likes.
//!
//! A kernel runs its own ABI and its compat ones and no other, so this build has tables for its
//! target's family alone. The other architectures of the spec are legal in a profile and make no
//! instruction: no call can ever arrive with their number, and one that did would be killed like
//! every unlisted ABI.

use oci_spec::runtime::Arch;

/// x32 shares x86_64's audit number; this bit in the system call number tells them apart.
pub const X32_BIT: u32 = 0x4000_0000;

/// How wide the arguments are, and where their halves lie in `struct seccomp_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Args {
    /// 32 bits, in the low half of a little-endian u64. The high half is not looked at, as in libseccomp.
    Low32,
    /// 64 bits, low half first.
    Little64,
    /// 64 bits, high half first.
    #[cfg_attr(not(any(test, fuzzing, target_endian = "big")), expect(dead_code))]
    Big64,
}

/// The numbers of the two multiplexers that carry socket and System V IPC calls on old ABIs.
#[derive(Debug, Clone, Copy)]
pub struct Multiplexers {
    /// `socketcall(2)`.
    pub socketcall: u32,
    /// `ipc(2)`.
    pub ipc: u32,
}

/// One ABI. All are `static`: compare by `scmp`.
#[derive(Debug)]
pub struct Abi {
    /// The OCI name.
    pub scmp: Arch,
    /// What `seccomp_data.arch` holds.
    pub audit: u32,
    /// The shape of the arguments.
    pub args: Args,
    /// The numbers it owns under its audit number, inclusive. x86_64 and x32 share one.
    pub numbers: (u32, u32),
    /// The multiplexers, where the ABI has them.
    pub multiplexers: Option<Multiplexers>,
    /// s390: number 0, the extinct `setup`, is what the kernel shows for numbers it does not know.
    pub unknown_is_zero: bool,
    lookup: fn(&Name<'_>) -> Option<u32>,
}

impl Abi {
    /// The number of a system call here, with x32's bit where it applies.
    pub fn number(&self, name: &Name<'_>) -> Option<u32> {
        (self.lookup)(name)
    }
}

/// A system call's name, hashed once for all tables.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    text: &'a str,
    hash: usize,
}

impl<'a> Name<'a> {
    /// Hashes `text`.
    pub const fn new(text: &'a str) -> Self {
        // FNV-1a. Tables are built at compile time and names come from the config, whose author
        // can slow down only his own container.
        let bytes = text.as_bytes();
        let mut hash: u32 = 0x811c_9dc5;
        let mut i = 0;
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
            i += 1;
        }
        Self { text, hash: (hash ^ (hash >> 15)) as usize }
    }

    /// The name itself.
    pub fn text(&self) -> &'a str {
        self.text
    }
}

/// Slots of a table, at least twice the names of the largest.
const SLOTS: usize = 1024;

/// The crate's `break` is a raw identifier, and says so.
const fn plain(name: &str) -> &str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// A lookup function over one `Sysno` of the `syscalls` crate: open addressing, computed by the
/// compiler, because the crate's own `from_str` compares strings one after the other.
macro_rules! table {
    ($function:ident, $arch:ident) => {
        fn $function(name: &Name<'_>) -> Option<u32> {
            use syscalls::$arch::Sysno;
            const FIRST: usize = Sysno::first().id() as usize;
            static TABLE: [u16; SLOTS] = {
                let mut table = [0; SLOTS];
                let mut nr = FIRST;
                while nr <= Sysno::last().id() as usize {
                    if let Some(sysno) = Sysno::new(nr) {
                        let mut slot = Name::new(plain(sysno.name())).hash % SLOTS;
                        while table[slot] != 0 {
                            slot = (slot + 1) % SLOTS;
                        }
                        table[slot] = (nr - FIRST + 1) as u16;
                    }
                    nr += 1;
                }
                table
            };
            let mut slot = name.hash % SLOTS;
            while TABLE[slot] != 0 {
                let nr = FIRST + usize::from(TABLE[slot]) - 1;
                if Sysno::new(nr).is_some_and(|sysno| plain(sysno.name()) == name.text) {
                    return Some(nr as u32);
                }
                slot = (slot + 1) % SLOTS;
            }
            None
        }
    };
}

/// An ABI that has its audit number to itself.
const fn abi(scmp: Arch, args: Args, lookup: fn(&Name<'_>) -> Option<u32>) -> Abi {
    Abi {
        scmp,
        audit: scmp as u32,
        args,
        numbers: (0, u32::MAX),
        multiplexers: None,
        unknown_is_zero: false,
        lookup,
    }
}

/// The kernel's generic table, for which the `syscalls` crate has an old name on some ABIs, and
/// the numbers of `clock_gettime64` and its kind, which only 32-bit kernels have.
#[cfg(any(test, fuzzing, target_arch = "aarch64", target_arch = "loongarch64"))]
fn generic64(name: &Name<'_>, table: fn(&Name<'_>) -> Option<u32>) -> Option<u32> {
    match name.text {
        "newfstatat" => Some(79),
        "fstatat" => None,
        _ => table(name).filter(|nr| !(403..=423).contains(nr)),
    }
}

/// The multiplexers' numbers are the same wherever they exist, mips aside.
const MULTIPLEXERS: Option<Multiplexers> = Some(Multiplexers { socketcall: 102, ipc: 117 });

#[cfg(any(test, fuzzing, target_arch = "x86_64"))]
mod x86 {
    use syscalls::x86_64::Sysno as X64;

    use super::{Abi, Arch, Args, MULTIPLEXERS, Name, SLOTS, X32_BIT, abi, plain};

    table!(x86_64, x86_64);
    table!(x86, x86);

    pub(super) static X86_64: Abi =
        Abi { numbers: (0, X32_BIT - 1), ..abi(Arch::ScmpArchX86_64, Args::Little64, x86_64) };
    pub(super) static X86: Abi =
        Abi { multiplexers: MULTIPLEXERS, ..abi(Arch::ScmpArchX86, Args::Low32, x86) };
    pub(super) static X32: Abi = Abi {
        audit: Arch::ScmpArchX86_64 as u32,
        numbers: (X32_BIT, u32::MAX),
        ..abi(Arch::ScmpArchX32, Args::Low32, x32)
    };

    /// x32's own numbers, from 512 up: the calls whose structures differ from x86_64's.
    const MOVED: [X64; 36] = [
        X64::rt_sigaction,
        X64::rt_sigreturn,
        X64::ioctl,
        X64::readv,
        X64::writev,
        X64::recvfrom,
        X64::sendmsg,
        X64::recvmsg,
        X64::execve,
        X64::ptrace,
        X64::rt_sigpending,
        X64::rt_sigtimedwait,
        X64::rt_sigqueueinfo,
        X64::sigaltstack,
        X64::timer_create,
        X64::mq_notify,
        X64::kexec_load,
        X64::waitid,
        X64::set_robust_list,
        X64::get_robust_list,
        X64::vmsplice,
        X64::move_pages,
        X64::preadv,
        X64::pwritev,
        X64::rt_tgsigqueueinfo,
        X64::recvmmsg,
        X64::sendmmsg,
        X64::process_vm_readv,
        X64::process_vm_writev,
        X64::setsockopt,
        X64::getsockopt,
        X64::io_setup,
        X64::io_submit,
        X64::execveat,
        X64::preadv2,
        X64::pwritev2,
    ];

    /// What x86_64 has and x32 has not.
    const ABSENT: [X64; 14] = [
        X64::uselib,
        X64::_sysctl,
        X64::create_module,
        X64::get_kernel_syms,
        X64::query_module,
        X64::nfsservctl,
        X64::set_thread_area,
        X64::get_thread_area,
        X64::epoll_ctl_old,
        X64::epoll_wait_old,
        X64::vserver,
        X64::uretprobe,
        X64::uprobe,
        X64::map_shadow_stack,
    ];

    fn x32(name: &Name<'_>) -> Option<u32> {
        let nr = x86_64(name)?;
        if ABSENT.iter().any(|&absent| absent as u32 == nr) {
            return None;
        }
        let moved = MOVED.iter().position(|&moved| moved as u32 == nr);
        Some(X32_BIT | moved.map_or(nr, |place| 512 + place as u32))
    }
}

#[cfg(any(test, fuzzing, target_arch = "aarch64"))]
mod arm {
    use super::{Abi, Arch, Args, Name, SLOTS, abi, generic64, plain};

    table!(aarch64_table, aarch64);
    table!(arm_table, arm);

    pub(super) static AARCH64: Abi = abi(Arch::ScmpArchAarch64, Args::Little64, aarch64);
    pub(super) static ARM: Abi = abi(Arch::ScmpArchArm, Args::Low32, arm);

    fn aarch64(name: &Name<'_>) -> Option<u32> {
        generic64(name, aarch64_table)
    }

    /// Arm's private calls live above the table.
    fn arm(name: &Name<'_>) -> Option<u32> {
        const PRIVATE: u32 = 0xf_0000;
        match name.text {
            "breakpoint" => Some(PRIVATE + 1),
            "cacheflush" => Some(PRIVATE + 2),
            "usr26" => Some(PRIVATE + 3),
            "usr32" => Some(PRIVATE + 4),
            "set_tls" => Some(PRIVATE + 5),
            "get_tls" => Some(PRIVATE + 6),
            _ => arm_table(name),
        }
    }
}

#[cfg(any(test, fuzzing, target_arch = "riscv64"))]
mod riscv {
    use super::{Abi, Arch, Args, Name, SLOTS, abi, plain};
    table!(riscv64, riscv64);
    pub(super) static RISCV64: Abi = abi(Arch::ScmpArchRiscv64, Args::Little64, riscv64);
}

#[cfg(any(test, fuzzing, target_arch = "loongarch64"))]
mod loongarch {
    use super::{Abi, Arch, Args, Name, SLOTS, abi, generic64, plain};
    table!(table, loongarch64);
    pub(super) static LOONGARCH64: Abi =
        abi(Arch::ScmpArchLoongarch64, Args::Little64, loongarch64);

    fn loongarch64(name: &Name<'_>) -> Option<u32> {
        generic64(name, table)
    }
}

#[cfg(any(test, fuzzing, target_arch = "s390x"))]
mod s390 {
    use super::{Abi, Arch, Args, MULTIPLEXERS, Name, SLOTS, abi, plain};
    table!(s390x, s390x);
    pub(super) static S390X: Abi = Abi {
        multiplexers: MULTIPLEXERS,
        unknown_is_zero: true,
        ..abi(Arch::ScmpArchS390x, Args::Big64, s390x)
    };
}

#[cfg(any(test, fuzzing, target_arch = "powerpc64"))]
mod power {
    use super::{Abi, Arch, Args, MULTIPLEXERS, Name, SLOTS, abi, plain};
    table!(powerpc64, powerpc64);
    #[cfg(any(test, fuzzing, target_endian = "little"))]
    pub(super) static PPC64LE: Abi =
        Abi { multiplexers: MULTIPLEXERS, ..abi(Arch::ScmpArchPpc64le, Args::Little64, powerpc64) };
    #[cfg(any(test, fuzzing, target_endian = "big"))]
    pub(super) static PPC64: Abi =
        Abi { multiplexers: MULTIPLEXERS, ..abi(Arch::ScmpArchPpc64, Args::Big64, powerpc64) };
}

/// The ABIs of this build's kernels, the native one first.
#[cfg(target_arch = "x86_64")]
pub static NATIVE: &[&Abi] = &[&x86::X86_64, &x86::X86, &x86::X32];
/// The ABIs of this build's kernels, the native one first.
#[cfg(target_arch = "aarch64")]
pub static NATIVE: &[&Abi] = &[&arm::AARCH64, &arm::ARM];
/// The ABIs of this build's kernels, the native one first.
#[cfg(target_arch = "riscv64")]
pub static NATIVE: &[&Abi] = &[&riscv::RISCV64];
/// The ABIs of this build's kernels, the native one first.
#[cfg(target_arch = "loongarch64")]
pub static NATIVE: &[&Abi] = &[&loongarch::LOONGARCH64];
/// The ABIs of this build's kernels, the native one first. 31-bit programs are killed: there is
/// no table for them.
#[cfg(target_arch = "s390x")]
pub static NATIVE: &[&Abi] = &[&s390::S390X];
/// The ABIs of this build's kernels, the native one first.
#[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
pub static NATIVE: &[&Abi] = &[&power::PPC64LE];
/// The ABIs of this build's kernels, the native one first.
#[cfg(all(target_arch = "powerpc64", target_endian = "big"))]
pub static NATIVE: &[&Abi] = &[&power::PPC64];

/// The families of other kernels, for the tests: the compiler is the same for all.
#[cfg(any(test, fuzzing))]
pub(super) static FOREIGN: &[&[&Abi]] = &[
    &[&arm::AARCH64, &arm::ARM],
    &[&riscv::RISCV64],
    &[&loongarch::LOONGARCH64],
    &[&s390::S390X],
    &[&power::PPC64LE],
    &[&power::PPC64],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_abi() {
        let number = |abi: &Abi, name| abi.number(&Name::new(name));
        assert_eq!(number(&x86::X86_64, "read"), Some(0));
        assert_eq!(number(&x86::X86_64, "file_setattr"), Some(469), "the last of a table");
        assert_eq!(number(&x86::X86, "read"), Some(3));
        assert_eq!(number(&x86::X86, "chown32"), Some(212));
        assert_eq!(number(&x86::X86_64, "chown32"), None);
        assert_eq!(number(&x86::X32, "read"), Some(X32_BIT));
        assert_eq!(number(&x86::X32, "ioctl"), Some(X32_BIT | 514));
        assert_eq!(number(&x86::X32, "pwritev2"), Some(X32_BIT | 547));
        assert_eq!(number(&x86::X32, "uselib"), None);
        assert_eq!(number(&arm::ARM, "set_tls"), Some(983_045));
        assert_eq!(number(&x86::X86_64, ""), None);
        assert_eq!(number(&x86::X86_64, "no_such_call"), None);
    }
}
