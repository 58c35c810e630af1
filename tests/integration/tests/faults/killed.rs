//! R1 to R5: killed at every call, the init at each of its own. Whatever a command was doing, and whichever of its processes is
//! killed: `delete --force` then returns 0 and leaves nothing, and the id can be used again.

use std::process::Command;

use corten_integration::driver::wait_until;
use corten_integration::suite::Case;
use corten_integration::{Test, tests};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use syscalls::Sysno;

use crate::failing::said;
use crate::subject::{Life, Subject};
use crate::tally::{self, Count, sample};
use crate::tracer::{Act, Point};
use crate::verb::Verb;

pub(crate) const TESTS: &[Case] = tests![
    r1_create_killed,
    r1_create_killed_with_a_user_namespace,
    r2_start_killed,
    r3_delete_killed,
    r3_force_killed,
    r4_exec_killed,
    r4_exec_detached_killed,
    r4_run_killed,
    r4_kill_killed,
    r4_pause_and_resume_killed,
    r4_update_killed,
    r5_init_killed_fails_the_create,
    r5_init_killed_fails_the_start,
    r5_init_that_lets_nobody_in_fails_the_start,
    r5_middle_of_an_exec_killed,
];

/// Kills the command at a part of its points, the init's included (R5).
fn killed(t: &Test, subject: &Subject<'_>, verb: Verb, count: usize) {
    let tally = Count::begin();
    subject.learn();
    let points = verb.points(subject);
    for point in sample(points, count) {
        let act = if point.nth % 2 == 0 { Act::KillBefore } else { Act::KillAfter };
        once(subject, verb, point, act);
    }
    again(subject);
    tally.end(t, verb.name());
}

pub(crate) fn once(subject: &Subject<'_>, verb: Verb, point: Point, act: Act) {
    let name = format!("{}: {act:?} {point}", verb.name());
    tally::point(subject, &name, || {
        subject.reach(verb.begins());
        let traced = verb.disturbed(subject, Some((point, act)));
        let judged = match traced.output.code {
            _ if traced.hung() => Err(format!("it took {:?}", traced.took)),
            // The command itself.
            137 => verb.was_killed(subject),
            // One of its processes, and it has said so.
            code if code != 0 && traced.hit.is_some() => verb.has_failed(subject, &name),
            // Too late to matter, but its init may be dead.
            _ => Ok(()),
        };
        subject.end(&name);
        judged.map_err(|why| format!("{why} ({})", said(&traced.output)))
    });
}

/// The id is as good as new.
fn again(subject: &Subject<'_>) {
    let begun = subject.call(&["run", "-d", "-b", subject.bundle.path(), subject.id()]);
    assert!(begun.code == 0, "{begun}");
    subject.end("the last life");
}

/// The runtime and the init, in each of their calls.
fn r1_create_killed(t: &Test) {
    killed(t, &Subject::new(t), Verb::Create, 40);
}

fn r1_create_killed_with_a_user_namespace(t: &Test) {
    killed(t, &Subject::mapped(t), Verb::Create, 12);
}

/// Still created, and it can be started; or running, once.
fn r2_start_killed(t: &Test) {
    killed(t, &Subject::new(t), Verb::Start, 10);
}

fn r3_delete_killed(t: &Test) {
    killed(t, &Subject::new(t), Verb::Delete, 10);
}

fn r3_force_killed(t: &Test) {
    killed(t, &Subject::new(t), Verb::Force, 10);
}

/// The container is well afterwards.
fn r4_exec_killed(t: &Test) {
    killed(t, &Subject::new(t), Verb::Exec, 12);
}

fn r4_exec_detached_killed(t: &Test) {
    killed(t, &Subject::new(t), Verb::ExecDetached, 8);
}

fn r4_run_killed(t: &Test) {
    killed(t, &Subject::new(t), Verb::RunDetached, 10);
}

fn r4_kill_killed(t: &Test) {
    killed(t, &Subject::new(t), Verb::Kill, 5);
}

/// Never frozen unless `state` says paused.
fn r4_pause_and_resume_killed(t: &Test) {
    let subject = Subject::new(t);
    killed(t, &subject, Verb::Pause, 5);
    killed(t, &subject, Verb::Resume, 5);
}

fn r4_update_killed(t: &Test) {
    t.needs_controller("pids");
    killed(t, &Subject::new(t), Verb::Update, 6);
}

/// A killed init is the reason, and needs no delete.
fn r5_init_killed_fails_the_create(t: &Test) {
    let subject = Subject::new(t);
    for name in [Sysno::setsid, Sysno::pivot_root, Sysno::sethostname, Sysno::capset] {
        let point = Point { process: 1, name, nth: 0 };
        let traced = Verb::Create.disturbed(&subject, Some((point, Act::KillBefore)));
        assert_eq!(traced.hit, Some(name));
        traced.output.fails_with(1).says("died before it was ready");
        t.nothing_left(&subject.bundle);
    }
}

/// The program never ran, so start must not say that it does.
fn r5_init_killed_fails_the_start(t: &Test) {
    let subject = Subject::new(t);
    subject.reach(Life::Created);
    let point = Point { process: 1, name: Sysno::execve, nth: 0 };
    let traced = Verb::Start.disturbed(&subject, Some((point, Act::KillBefore)));
    assert_eq!(traced.hit, Some(point.name));
    traced.output.fails_with(1).says("died before it was ready");
    subject.wait("stopped");
    subject.end("a killed init");
}

/// It ends before it has accepted what start has begun, and whoever adopted it has waited for it by
/// the time that start looks: nobody can be asked any more.
fn r5_init_that_lets_nobody_in_fails_the_start(t: &Test) {
    let subject = Subject::new(t);
    subject.reach(Life::Created);
    let pid = subject.pid();
    kill(pid, Signal::SIGSTOP).expect("stop the init");
    let start = t.spawn(&["start", subject.id()]);
    let recvmsg = Sysno::recvmsg.id().to_string();
    wait_until("start waits for the init", || {
        let now = std::fs::read_to_string(format!("/proc/{}/syscall", start.pid()));
        now.is_ok_and(|now| now.split(' ').next() == Some(&recvmsg))
    });
    start.signal(Signal::SIGSTOP);
    kill(pid, Signal::SIGKILL).expect("kill the init");
    // Our own commands wait for what we have adopted.
    subject.wait("stopped");
    wait_until("nobody knows it any more", || {
        subject.status();
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });
    start.signal(Signal::SIGCONT);
    start.wait().fails_with(1).says("died before it was ready");
    subject.end("an init that lets nobody in");
}

/// The process that enters the namespaces is killed when it has made the one that is to run, and has
/// not told of it, as the end of the container's v2 group does it: nobody is left for whoever called
/// us to wait for, which the end of the pid namespace would wait for too.
fn r5_middle_of_an_exec_killed(t: &Test) {
    t.needs_strace();
    let subject = Subject::new(t);
    subject.reach(Life::Running);
    let exec = t.command(&["exec", subject.id(), "/probe", "exit", "0"]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=sendmsg"]);
    strace.args(["-e", "inject=sendmsg:signal=SIGKILL:when=1"]);
    // Not by the driver, which waits for what is left.
    let out = strace.arg(exec.get_program()).args(exec.get_args()).output().expect("run strace");
    let left = waitid(Id::All, WaitPidFlag::WNOHANG | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    assert!(!out.status.success(), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("was killed"), "{out:?}");
    assert!(matches!(left, Err(Errno::ECHILD) | Ok(WaitStatus::StillAlive)), "{left:?} is left");
    subject.end("a killed process in the middle");
}
