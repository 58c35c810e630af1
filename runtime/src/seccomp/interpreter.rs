//! Runs a seccomp program as the kernel would, for the tests. It knows the instructions that
//! this compiler and libseccomp write, and refuses what the kernel's checker refuses.

use seccompiler::sock_filter;

use super::abi::{Abi, Args};

/// `struct seccomp_data` as 32-bit words.
#[derive(Debug, Clone, Copy)]
pub struct Data([u32; 16]);

impl Data {
    /// A call on `abi`.
    pub fn new(abi: &Abi, nr: u32, args: [u64; 6]) -> Self {
        Self::raw(abi.audit, abi.args == Args::Big64, nr, args)
    }

    /// A call by numbers.
    pub fn raw(audit: u32, big_endian: bool, nr: u32, args: [u64; 6]) -> Self {
        let mut words = [0; 16];
        words[0] = nr;
        words[1] = audit;
        for (i, arg) in args.into_iter().enumerate() {
            let (low, high) = (arg as u32, (arg >> 32) as u32);
            let (first, second) = if big_endian { (high, low) } else { (low, high) };
            words[4 + 2 * i] = first;
            words[5 + 2 * i] = second;
        }
        Self(words)
    }
}

/// What the program returns, and how many instructions it took.
pub fn run(program: &[sock_filter], data: &Data) -> (u32, usize) {
    let mut accumulator = 0u32;
    let mut pc = 0;
    for steps in 1.. {
        let at = &program[pc];
        let jump = |yes: bool| usize::from(if yes { at.jt } else { at.jf });
        pc += 1;
        match at.code {
            0x20 => {
                assert_eq!(at.k % 4, 0);
                accumulator = data.0[at.k as usize / 4];
            }
            0x54 => accumulator &= at.k,
            0x05 => pc += at.k as usize,
            0x15 => pc += jump(accumulator == at.k),
            0x25 => pc += jump(accumulator > at.k),
            0x35 => pc += jump(accumulator >= at.k),
            0x45 => pc += jump(accumulator & at.k != 0),
            0x06 => return (at.k, steps),
            code => panic!("instruction {code:#x}"),
        }
    }
    unreachable!()
}

/// What the kernel's checker looks at: jumps stay inside, the last instruction returns. And one
/// thing more: every instruction can be reached.
pub fn check(program: &[sock_filter]) {
    assert!(!program.is_empty() && program.len() <= 4096);
    let mut reached = vec![false; program.len()];
    reached[0] = true;
    for (i, at) in program.iter().enumerate() {
        assert!(reached[i], "instruction {i} is dead");
        let next: &[usize] = match at.code {
            0x06 => &[],
            0x05 => &[i + 1 + at.k as usize],
            0x15 | 0x25 | 0x35 | 0x45 => &[i + 1 + usize::from(at.jt), i + 1 + usize::from(at.jf)],
            _ => &[i + 1],
        };
        for &next in next {
            assert!(next < program.len(), "instruction {i} leads out");
            reached[next] = true;
        }
    }
}
