//! The named steps of each script (ARCHITECTURE.md), killed before and after each of them in every
//! run, and R29: what takes long. A step that can't be found any more fails its test: then it has
//! another name in this table, or it is gone.

use std::time::Duration;

use corten_integration::cgroups;
use corten_integration::suite::Case;
use corten_integration::{Test, tests};
use syscalls::Sysno;

use crate::killed;
use crate::subject::Subject;
use crate::tally::{self, Count, is_whole};
use crate::tracer::{Act, Point};
use crate::verb::Verb;

pub(crate) const TESTS: &[Case] = tests![
    r1_steps_of_create,
    r1_steps_of_init,
    r2_steps_of_start,
    r3_steps_of_delete,
    r4_steps_of_exec,
    r4_steps_of_update_and_pause,
    r29_slow_calls,
];

/// What it is for, whose it is, the call, and which one of them; from the end if negative.
type Step = (&'static str, usize, Sysno, isize);

const CREATE: &[Step] = &[
    ("become a sealed copy", 0, Sysno::execveat, -1),
    ("claim the id", 0, Sysno::mkdirat, 0),
    ("lock it", 0, Sysno::flock, 0),
    ("journal, before anything exists", 0, Sysno::renameat, 0),
    ("make the groups", 0, Sysno::mkdirat, -1),
    ("open the gate", 0, Sysno::bind, 0),
    ("listen there", 0, Sysno::listen, 0),
    ("a socket to the init", 0, Sysno::socketpair, 0),
    ("clone the init", 0, Sysno::clone3, 0),
    ("journal, with the pid", 0, Sysno::renameat, 1),
    ("run a hook", 0, Sysno::clone3, 1),
    ("journal, complete", 0, Sysno::renameat, 2),
    ("release the init", 0, Sysno::sendmsg, -1),
];

const INIT: &[Step] = &[
    ("die with the creator", 1, Sysno::prctl, 0),
    ("a session of its own", 1, Sysno::setsid, 0),
    ("a cgroup namespace", 1, Sysno::unshare, 0),
    ("the root", 1, Sysno::move_mount, 0),
    ("the last mount before the pivot", 1, Sysno::mkdirat, -1),
    ("pivot", 1, Sysno::pivot_root, 0),
    ("the host's root is gone", 1, Sysno::umount2, 0),
    ("names", 1, Sysno::sethostname, 0),
    ("masks", 1, Sysno::move_mount, -1),
    ("the user", 1, Sysno::setresuid, 0),
    ("capabilities", 1, Sysno::capset, 0),
];

const START: &[Step] = &[
    ("knock", 0, Sysno::connect, 0),
    ("hear that it runs", 0, Sysno::recvmsg, 0),
    ("close the gate", 0, Sysno::unlinkat, 0),
    ("run a hook", 0, Sysno::clone3, 0),
    ("be let in", 1, Sysno::accept4, 0),
    ("run a hook inside", 1, Sysno::clone3, 0),
    ("execute", 1, Sysno::execve, 0),
];

const DELETE: &[Step] = &[
    ("lock it", 0, Sysno::flock, 0),
    ("kill the init", 0, Sysno::pidfd_send_signal, 0),
    ("remove the first group", 0, Sysno::unlinkat, 0),
    ("run a hook", 0, Sysno::clone3, 0),
    ("remove the journal", 0, Sysno::unlinkat, -2),
    ("remove the directory", 0, Sysno::unlinkat, -1),
];

const EXEC: &[Step] = &[
    ("become a sealed copy", 0, Sysno::execveat, -1),
    ("a socket to the process", 0, Sysno::socketpair, 0),
    ("clone the one in the middle", 0, Sysno::clone3, 0),
    ("enter the container", 1, Sysno::setns, 0),
    ("clone the process", 1, Sysno::clone3, 0),
    ("die with the runtime", 2, Sysno::prctl, 0),
    ("capabilities", 2, Sysno::capset, 0),
    ("release it", 0, Sysno::sendmsg, -1),
    ("execute", 2, Sysno::execve, 0),
];

const UPDATE: &[Step] =
    &[("write a limit", 0, Sysno::write, 0), ("record it", 0, Sysno::renameat, 0)];

const PAUSE: &[Step] = &[("freeze", 0, Sysno::write, 0)];

/// Kills at each of the steps, before and after.
fn steps(t: &Test, verb: Verb, steps: &[Step]) {
    let (subject, count) = (Subject::new(t), Count::begin());
    subject.learn();
    let points = verb.points(&subject);
    for (name, process, call, nth) in steps {
        let same = |point: &&Point| (point.process, point.name) == (*process, *call);
        let all = points.iter().filter(same).count();
        let nth = if *nth < 0 {
            all.checked_add_signed(*nth)
        } else {
            nth.checked_abs().map(|n| n as usize)
        };
        let nth = nth.filter(|nth| *nth < all);
        let nth = nth.unwrap_or_else(|| panic!("{verb:?}: {name}: there are {all} {call}"));
        let point = Point { process: *process, name: *call, nth };
        killed::once(&subject, verb, point, Act::KillBefore);
        killed::once(&subject, verb, point, Act::KillAfter);
    }
    count.end(t, verb.name());
}

fn r1_steps_of_create(t: &Test) {
    steps(t, Verb::Create, CREATE);
}

fn r1_steps_of_init(t: &Test) {
    steps(t, Verb::Create, INIT);
}

fn r2_steps_of_start(t: &Test) {
    steps(t, Verb::Start, START);
}

fn r3_steps_of_delete(t: &Test) {
    steps(t, Verb::Force, DELETE);
}

fn r4_steps_of_exec(t: &Test) {
    steps(t, Verb::Exec, EXEC);
}

fn r4_steps_of_update_and_pause(t: &Test) {
    if cgroups::has("pids") {
        steps(t, Verb::Update, UPDATE);
    }
    steps(t, Verb::Pause, PAUSE);
}

/// One call takes seconds, a disk that is slow or a machine that was asleep: nothing is given up, and
/// everything is as it should be.
fn r29_slow_calls(t: &Test) {
    let (subject, count) = (Subject::new(t), Count::begin());
    subject.learn();
    let (time, some) = match is_whole() {
        true => (Duration::from_secs(5), 6),
        false => (Duration::from_secs(1), 2),
    };
    for verb in [Verb::Create, Verb::Start, Verb::Exec, Verb::Force] {
        let points = verb.points(&subject);
        let step = points.len().div_ceil(some);
        for point in points.into_iter().skip(step / 2).step_by(step) {
            let name = format!("{}: {point} takes {time:?}", verb.name());
            tally::point(&subject, &name, || {
                subject.reach(verb.begins());
                let traced = verb.disturbed(&subject, Some((point, Act::Wait(time))));
                let done = if traced.output.code == 0 {
                    verb.has_succeeded(&subject, &traced)
                } else {
                    Err(traced.output.to_string())
                };
                subject.end(&name);
                done
            });
        }
    }
    count.end(t, "slow calls");
}
