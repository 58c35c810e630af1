//! A seccomp program of the shape and size that Docker's profile compiles to: a balanced tree
//! of 369 instructions over the system call numbers, built before the clock starts.

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000 | 38;
const X86_64: u32 = 0xc000_003e;
/// Numbers above this one get ENOSYS; everything that busybox uses is below and allowed.
const LAST: u32 = 470;

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// A tree that decides `low..high` with `leaves` returns, in the order of a depth-first walk.
fn tree(program: &mut Vec<libc::sock_filter>, low: u32, high: u32, leaves: u32) {
    if leaves <= 1 {
        // Two kinds of leaves, as in a real profile; refused numbers are unused ones.
        let action = if low >= 440 && leaves == 1 && low % 2 == 1 { ERRNO } else { ALLOW };
        program.push(statement(RETURN, action));
        return;
    }
    let middle = low + (high - low) / 2;
    let at = program.len();
    program.push(libc::sock_filter { code: GREATER_EQUAL, jt: 0, jf: 0, k: middle });
    tree(program, low, middle, leaves / 2);
    // Half of 182 leaves is 181 instructions: it fits a conditional jump.
    program[at].jt = (program.len() - at - 1) as u8;
    tree(program, middle, high, leaves - leaves / 2);
}

/// The program: the architecture's check, the tree, 369 instructions in all.
pub fn program() -> Vec<libc::sock_filter> {
    let mut program = vec![
        statement(LOAD, 4),
        libc::sock_filter { code: EQUAL, jt: 1, jf: 0, k: X86_64 },
        statement(RETURN, ERRNO),
        statement(LOAD, 0),
    ];
    // 2 * 182 - 1 instructions in the tree; the arithmetic of a real filter's argument checks
    // is stood in for by the two loads.
    tree(&mut program, 0, LAST, 182);
    while program.len() < 369 {
        program.push(statement(RETURN, ALLOW));
    }
    program
}
