//! Classic BPF, written from the last instruction to the first.
//!
//! BPF jumps only forward, so whoever writes backwards knows every target when he needs it: no
//! labels to resolve, no second pass. A conditional jump reaches 255 instructions; a target that
//! is farther gets a stepping stone, a fresh return or an unconditional jump, right behind the
//! instruction that needs it.

use seccompiler::sock_filter;

/// Load a word of `struct seccomp_data`.
const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// How far a target may be before the next instruction. A jump reaches 255, and up to two
/// stepping stones may come between.
const REACH: usize = 253;

/// A comparison of the accumulator with a constant, unsigned.
#[derive(Debug, Clone, Copy)]
#[repr(u16)]
pub enum Test {
    /// Equal.
    Eq = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
    /// Greater.
    Gt = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16,
    /// Greater or equal.
    Ge = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16,
    /// Any bit in common.
    Any = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16,
}

/// Where control goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The filter returns this. Costs an instruction only where none is near.
    Ret(u32),
    /// The instruction with this many behind it.
    At(usize),
}

/// The program so far, its last instruction first.
#[derive(Debug, Default)]
pub struct Assembler {
    reversed: Vec<sock_filter>,
    /// The newest return of each value: few values, so a list.
    returns: Vec<(u32, usize)>,
}

impl Assembler {
    /// Loads the word at `offset`, then goes on at `next`.
    pub fn load(&mut self, offset: u32, next: Target) -> Target {
        self.before(LOAD, offset, next)
    }

    /// Keeps the accumulator's bits in `mask`, then goes on at `next`.
    pub fn and(&mut self, mask: u32, next: Target) -> Target {
        self.before(AND, mask, next)
    }

    /// Goes to `yes` or `no`.
    pub fn branch(&mut self, test: Test, k: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        // The nearer one first: a stepping stone for the other does not push it out of reach.
        let yes = self.reach(yes);
        let no = self.reach(no);
        let jt = self.distance(yes) as u8;
        let jf = self.distance(no) as u8;
        self.push(sock_filter { code: test as u16, jt, jf, k })
    }

    /// The program, `start` being its first instruction.
    pub fn finish(mut self, start: Target) -> Vec<sock_filter> {
        self.adjacent(start);
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, instruction: sock_filter) -> Target {
        self.reversed.push(instruction);
        Target::At(self.reversed.len() - 1)
    }

    /// An instruction that can only fall through.
    fn before(&mut self, code: u16, k: u32, next: Target) -> Target {
        self.adjacent(next);
        self.push(sock_filter { code, jt: 0, jf: 0, k })
    }

    /// Makes `target` the first instruction so far.
    fn adjacent(&mut self, target: Target) {
        match target {
            Target::At(place) if self.distance(place) == 0 => {}
            Target::At(place) => {
                self.jump(place);
            }
            Target::Ret(value) => {
                self.ret(value);
            }
        }
    }

    /// A place within a conditional jump's reach that amounts to `target`.
    fn reach(&mut self, target: Target) -> usize {
        match target {
            Target::At(place) if self.distance(place) <= REACH => place,
            Target::At(place) => self.jump(place),
            Target::Ret(value) => {
                let near = self.returns.iter().find(|(known, _)| *known == value);
                match near {
                    Some(&(_, place)) if self.distance(place) <= REACH => place,
                    _ => self.ret(value),
                }
            }
        }
    }

    fn jump(&mut self, place: usize) -> usize {
        let k = self.distance(place) as u32;
        self.push(sock_filter { code: JUMP, jt: 0, jf: 0, k });
        self.reversed.len() - 1
    }

    fn ret(&mut self, value: u32) -> usize {
        self.push(sock_filter { code: RETURN, jt: 0, jf: 0, k: value });
        let place = self.reversed.len() - 1;
        match self.returns.iter_mut().find(|(known, _)| *known == value) {
            Some(newest) => newest.1 = place,
            None => self.returns.push((value, place)),
        }
        place
    }

    /// The instructions a jump from the next one to `place` skips.
    fn distance(&self, place: usize) -> usize {
        self.reversed.len() - 1 - place
    }
}
