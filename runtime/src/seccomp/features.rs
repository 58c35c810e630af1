//! What `corten features` tells about seccomp: what this build knows, what this kernel can do.

use crate::sys::seccomp::{flag, flags_known};

/// Everything a profile may contain. The names are the spec's.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Values of `action` and `defaultAction`.
    pub actions: &'static [&'static str],
    /// Values of `op`.
    pub operators: &'static [&'static str],
    /// Values of `architectures`.
    pub archs: &'static [&'static str],
    /// Values of `flags`.
    pub flags: &'static [&'static str],
}

/// The flags of the spec, with what shows whether the kernel knows them.
const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", flag::TSYNC),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", flag::SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_LOG", flag::LOG),
    // Refused without a listener, known or not.
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", flag::WAIT_KILLABLE_RECV | flag::NEW_LISTENER),
];

/// What this build knows.
pub fn known() -> Known {
    Known {
        actions: &[
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_KILL",
            "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG",
            "SCMP_ACT_NOTIFY",
            "SCMP_ACT_TRACE",
            "SCMP_ACT_TRAP",
        ],
        operators: &[
            "SCMP_CMP_EQ",
            "SCMP_CMP_GE",
            "SCMP_CMP_GT",
            "SCMP_CMP_LE",
            "SCMP_CMP_LT",
            "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE",
        ],
        archs: &[
            "SCMP_ARCH_AARCH64",
            "SCMP_ARCH_ARM",
            "SCMP_ARCH_LOONGARCH64",
            "SCMP_ARCH_M68K",
            "SCMP_ARCH_MIPS",
            "SCMP_ARCH_MIPS64",
            "SCMP_ARCH_MIPS64N32",
            "SCMP_ARCH_MIPSEL",
            "SCMP_ARCH_MIPSEL64",
            "SCMP_ARCH_MIPSEL64N32",
            "SCMP_ARCH_PARISC",
            "SCMP_ARCH_PARISC64",
            "SCMP_ARCH_PPC",
            "SCMP_ARCH_PPC64",
            "SCMP_ARCH_PPC64LE",
            "SCMP_ARCH_RISCV64",
            "SCMP_ARCH_S390",
            "SCMP_ARCH_S390X",
            "SCMP_ARCH_SH",
            "SCMP_ARCH_SHEB",
            "SCMP_ARCH_X32",
            "SCMP_ARCH_X86",
            "SCMP_ARCH_X86_64",
        ],
        flags: &[FLAGS[0].0, FLAGS[1].0, FLAGS[2].0, FLAGS[3].0],
    }
}

/// The known flags that this kernel supports. Four system calls.
pub fn supported_flags() -> Vec<&'static str> {
    FLAGS.iter().filter(|(_, bits)| flags_known(*bits)).map(|(name, _)| *name).collect()
}

/// The names of those of `flags` that this kernel lacks.
pub(super) fn unsupported(flags: u32) -> Vec<&'static str> {
    let wanted = FLAGS.iter().filter(|(_, bits)| flags & bits & !flag::NEW_LISTENER != 0);
    wanted.filter(|(_, bits)| !flags_known(*bits)).map(|(name, _)| *name).collect()
}

/// A list for an error message.
pub(super) fn names(flags: &[&str]) -> String {
    flags.join(", ")
}
