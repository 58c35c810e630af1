//! Comes in between at one system call of one process of the runtime.
//!
//! strace(1) counts its `when=N` by the name of the call and in every process alike, so the init's
//! early calls can't be hit alone: the creator is hit first. Here a point is a process, in the order
//! of their making (0 the command itself, 1 the init, or whoever stands in between), and how many
//! calls it has made. At that point it is killed, before or after the call, or the call fails. From
//! then on nobody is traced any more, and what follows is as fast as always.
//!
//! Only the runtime's own code is hit: a process that executes another program is let go.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use corten_integration::driver::patience;
use corten_integration::{Output, Test};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, pipe, write};
use syscalls::Sysno;

/// Whether calls can be told and made to fail on this machine.
pub(crate) const POSSIBLE: bool = cfg!(target_arch = "x86_64");

/// No command may take longer, whatever is done to it.
pub(crate) const HANG: Duration = Duration::from_secs(10);

/// Where to come in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    /// Which process, in the order of their making.
    pub(crate) process: usize,
    /// Which call. Counted by name, as the number of those that get memory differs from life to life.
    pub(crate) name: Sysno,
    /// Which of its calls of that name, from 0.
    pub(crate) nth: usize,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} #{} of process {}", self.name, self.nth, self.process)
    }
}

/// What to do there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// SIGKILL instead of the call.
    KillBefore,
    /// SIGKILL when the call is done.
    KillAfter,
    /// The call is not made and fails.
    Fail(Errno),
    /// The process waits before the call.
    Wait(Duration),
}

/// A command that was traced.
#[derive(Debug)]
pub(crate) struct Traced {
    /// How it ended.
    pub(crate) output: Output,
    /// The file of its standard output.
    pub(crate) out: PathBuf,
    /// Where it was to be hit.
    pub(crate) point: Option<Point>,
    /// How long it took.
    pub(crate) took: Duration,
    /// The call at the point, if it came so far.
    pub(crate) hit: Option<Sysno>,
    /// The calls of each process, up to the point.
    pub(crate) calls: Vec<Vec<Sysno>>,
}

impl Traced {
    pub(crate) fn hung(&self) -> bool {
        self.took > patience(HANG)
    }
}

/// Runs the runtime to its end, with `act` at `point`. `init` takes part from the beginning, as
/// process 1: the one that waits for a start.
pub(crate) fn run(
    t: &Test,
    args: &[&str],
    init: Option<Pid>,
    fault: Option<(Point, Act)>,
) -> Traced {
    let runtime = t.command(args);
    // It waits until it is traced.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "read _; exec \"$@\" </dev/null", "sh"]);
    shell.arg(runtime.get_program()).args(runtime.get_args());
    let (input, gate): (OwnedFd, OwnedFd) = pipe().expect("make a pipe");
    let running = t.launch({
        shell.stdin(Stdio::from(input));
        shell
    });
    let start = Instant::now();
    let main = Pid::from_raw(running.pid());
    let mut tracer = Tracer::new(main, fault);
    ptrace::seize(main, options()).expect("trace the runtime");
    if let Some(init) = init {
        ptrace::seize(init, options()).expect("trace the init");
        ptrace::interrupt(init).expect("stop the init");
        tracer.know(init);
        tracer.init = Some(init);
        // Or it would have been let in before its calls are counted.
        waitpid(init, Some(WaitPidFlag::__WALL)).expect("the init stops");
        tracer.go_on(init, None);
    }
    write(&gate, b"\n").expect("let the runtime go");
    drop(gate);
    watched(main, || tracer.follow());
    let out = running.out().to_owned();
    let output = running.wait();
    let point = fault.map(|(point, _)| point);
    Traced { output, out, point, took: start.elapsed(), hit: tracer.hit, calls: tracer.calls }
}

fn options() -> Options {
    Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL
}

/// While `work` is done, sees to it that `main` does not live for ever.
fn watched(main: Pid, work: impl FnOnce()) {
    let (done, over) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if over.recv_timeout(patience(HANG * 2)) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _gone_already = kill(main, Signal::SIGKILL);
        }
    });
    work();
    drop(done);
    watch.join().expect("the watch ends");
}

/// Whether the call can give this errno at all. The others say what they say whatever happens; libc
/// and the standard library build on that.
pub(crate) fn can_fail(call: Sysno, errno: Errno) -> bool {
    use Sysno as S;
    match call {
        // They do not come back.
        S::exit | S::exit_group | S::rt_sigreturn => false,
        // Not of a clock that is there. A call only where the machine's can't be read without.
        S::clock_gettime => false,
        S::umask | S::getpid | S::gettid | S::getppid | S::getuid | S::geteuid | S::getgid => false,
        S::getegid | S::set_tid_address | S::set_robust_list | S::getpgrp => false,
        // Of its arguments only, and nix takes what pthread_sigmask(3) returns for a success.
        S::rt_sigprocmask => false,
        S::getrandom => matches!(errno, Errno::EINTR | Errno::EPERM),
        _ => true,
    }
}

/// A process between two stops.
#[derive(Debug, Clone, Copy, Default)]
struct Tracee {
    index: usize,
    inside: bool,
    /// Its break, which a brk(2) that fails returns; 0 before the first.
    end_of_heap: u64,
}

struct Tracer {
    main: Pid,
    /// The one that waits for a start. It is our own child, which nobody waits for before the command
    /// has ended: a zombie still tells how far it came.
    init: Option<Pid>,
    fault: Option<(Point, Act)>,
    tracees: HashMap<Pid, Tracee>,
    calls: Vec<Vec<Sysno>>,
    /// Whether the shell has become the runtime.
    begun: bool,
    hit: Option<Sysno>,
    over: bool,
}

impl Tracer {
    fn new(main: Pid, fault: Option<(Point, Act)>) -> Self {
        let tracees = HashMap::from([(main, Tracee::default())]);
        let calls = vec![Vec::new()];
        Self { main, init: None, fault, tracees, calls, begun: false, hit: None, over: false }
    }

    /// Until the command has ended or the point was hit; then everyone is let go.
    fn follow(&mut self) {
        while !self.over && self.tracees.contains_key(&self.main) {
            let Some(status) = self.next() else { break };
            self.step(status);
        }
        self.release();
    }

    /// The next thing that happens; `None` when the command itself has ended, or the init, who are left
    /// for their owner to wait for.
    fn next(&mut self) -> Option<WaitStatus> {
        let any = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::__WALL;
        let seen = match waitid(Id::All, any | WaitPidFlag::WNOWAIT) {
            Err(Errno::EINTR) => return Some(WaitStatus::StillAlive),
            Err(_) => return None,
            Ok(seen) => seen,
        };
        let pid = seen.pid()?;
        let ended = matches!(seen, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
        if ended && self.is_left(pid) {
            self.tracees.remove(&pid);
            return None;
        }
        Some(waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap_or(WaitStatus::StillAlive))
    }

    fn step(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                self.tracees.remove(&pid);
            }
            WaitStatus::PtraceSyscall(pid) => self.call(pid),
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => self.executed(pid),
            WaitStatus::PtraceEvent(pid, _, event) => {
                self.know(pid);
                self.child_of(pid, event);
                self.go_on(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => {
                self.know(pid);
                self.go_on(pid, Some(signal));
            }
            _ => {}
        }
    }

    /// The child that a process has just made is traced, too, and stops before its first step: it must
    /// be known before it has been seen, or nobody would let it go.
    fn child_of(&mut self, pid: Pid, event: i32) {
        let births = [libc::PTRACE_EVENT_CLONE, libc::PTRACE_EVENT_FORK, libc::PTRACE_EVENT_VFORK];
        if let (true, Ok(child)) = (births.contains(&event), ptrace::getevent(pid)) {
            self.know(Pid::from_raw(child as i32));
        }
    }

    /// A process that is traced.
    fn know(&mut self, pid: Pid) {
        if !self.tracees.contains_key(&pid) {
            let index = self.calls.len();
            self.tracees.insert(pid, Tracee { index, ..Tracee::default() });
            self.calls.push(Vec::new());
        }
    }

    fn executed(&mut self, pid: Pid) {
        if pid != self.main {
            // Another program: a hook, or the container's.
            self.tracees.remove(&pid);
            let _ended = ptrace::detach(pid, None);
            return;
        }
        if let (false, Some(main)) = (self.begun, self.tracees.get_mut(&pid)) {
            main.inside = true;
        }
        self.begun = true;
        self.go_on(pid, None);
    }

    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        // Not the shell's calls. ESRCH: it was killed meanwhile.
        let counts = self.begun || pid != self.main;
        let _killed = if counts { ptrace::syscall(pid, signal) } else { ptrace::cont(pid, signal) };
    }

    /// At the beginning or the end of a call.
    fn call(&mut self, pid: Pid) {
        let Some(tracee) = self.tracees.get_mut(&pid) else { return };
        let index = tracee.index;
        tracee.inside = !tracee.inside;
        if tracee.inside {
            let call = machine::call(pid);
            let nth = self.calls[index].iter().filter(|before| **before == call).count();
            self.calls[index].push(call);
            self.at(pid, Point { process: index, name: call, nth });
        } else if self.calls[index].last() == Some(&Sysno::brk) {
            tracee.end_of_heap = machine::result(pid);
        }
        if !self.over {
            self.go_on(pid, None);
        }
    }

    fn at(&mut self, pid: Pid, here: Point) {
        let call = here.name;
        let Some((_, act)) = self.fault.filter(|(point, _)| *point == here) else { return };
        self.hit = Some(call);
        self.over = true;
        match act {
            Act::KillBefore => self.kill(pid),
            Act::KillAfter => {
                if self.end_of_call(pid) {
                    self.kill(pid);
                }
            }
            Act::Fail(errno) => self.fail(pid, call, errno),
            Act::Wait(time) => std::thread::sleep(time),
        }
    }

    fn fail(&mut self, pid: Pid, call: Sysno, errno: Errno) {
        // brk(2) of the kernel has no errno: it returns the break as it was, and at first that.
        let end = self.tracees.get(&pid).map_or(0, |tracee| tracee.end_of_heap);
        if !can_fail(call, errno) || (call == Sysno::brk && end == 0) {
            self.hit = None;
            return;
        }
        // close(2) closes, whatever it says.
        if call != Sysno::close {
            machine::skip(pid);
        }
        if self.end_of_call(pid) {
            let failed = -i64::from(errno as i32) as u64;
            machine::set_result(pid, if call == Sysno::brk { end } else { failed });
        }
    }

    fn kill(&self, pid: Pid) {
        let _ended = kill(pid, Signal::SIGKILL);
    }

    /// Lets `pid` come to the end of its call, and everybody else on; false if it ended there.
    fn end_of_call(&mut self, pid: Pid) -> bool {
        self.go_on(pid, None);
        loop {
            match self.next() {
                Some(WaitStatus::PtraceSyscall(at)) if at == pid => return true,
                Some(WaitStatus::Exited(at, _) | WaitStatus::Signaled(at, ..)) if at == pid => {
                    self.tracees.remove(&pid);
                    return false;
                }
                None => return false,
                Some(WaitStatus::PtraceSyscall(at)) => {
                    if let Some(other) = self.tracees.get_mut(&at) {
                        other.inside = !other.inside;
                    }
                    self.go_on(at, None);
                }
                Some(other) => self.step(other),
            }
        }
    }

    /// Lets everyone go, wherever they are. One by one would not do: an init ends only when those
    /// in its pid namespace have been waited for, by their tracer first.
    fn release(&mut self) {
        for pid in self.known() {
            // One that is stopped already can be left at once.
            if ptrace::detach(pid, None).is_ok() {
                self.tracees.remove(&pid);
            } else {
                let _dying = ptrace::interrupt(pid);
            }
        }
        while !self.tracees.is_empty() {
            let before = self.tracees.len();
            for pid in self.known() {
                self.release_stopped(pid);
            }
            if self.tracees.len() == before {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }

    fn is_left(&self, pid: Pid) -> bool {
        pid == self.main || Some(pid) == self.init
    }

    fn known(&self) -> Vec<Pid> {
        self.tracees.keys().copied().collect()
    }

    fn release_stopped(&mut self, pid: Pid) {
        let any = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::__WALL;
        let ended = match waitid(Id::Pid(pid), any | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => return,
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => true,
            other => other.is_err(),
        };
        self.tracees.remove(&pid);
        if ended && self.is_left(pid) {
            return;
        }
        let signal = match waitpid(pid, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Stopped(_, signal)) => Some(signal),
            Ok(WaitStatus::PtraceEvent(_, _, event)) => {
                self.child_of(pid, event);
                None
            }
            _ => None,
        };
        let _ended = ptrace::detach(pid, signal);
    }
}

/// The registers of a system call.
#[cfg(target_arch = "x86_64")]
mod machine {
    use super::{Pid, Sysno, ptrace};

    /// At its beginning: which it is.
    pub(super) fn call(pid: Pid) -> Sysno {
        let number = ptrace::getregs(pid).map_or(0, |registers| registers.orig_rax);
        Sysno::new(number as usize).unwrap_or(Sysno::restart_syscall)
    }

    /// The call is not made.
    pub(super) fn skip(pid: Pid) {
        if let Ok(mut registers) = ptrace::getregs(pid) {
            registers.orig_rax = u64::MAX;
            let _killed = ptrace::setregs(pid, registers);
        }
    }

    /// At its end: what it returns.
    pub(super) fn result(pid: Pid) -> u64 {
        ptrace::getregs(pid).map_or(0, |registers| registers.rax)
    }

    pub(super) fn set_result(pid: Pid, result: u64) {
        if let Ok(mut registers) = ptrace::getregs(pid) {
            registers.rax = result;
            let _killed = ptrace::setregs(pid, registers);
        }
    }
}

/// Not known of other machines; see [`POSSIBLE`].
#[cfg(not(target_arch = "x86_64"))]
mod machine {
    use super::{Pid, Sysno};

    pub(super) fn call(_: Pid) -> Sysno {
        Sysno::restart_syscall
    }

    pub(super) fn skip(_: Pid) {}

    pub(super) fn result(_: Pid) -> u64 {
        0
    }

    pub(super) fn set_result(_: Pid, _: u64) {}
}
