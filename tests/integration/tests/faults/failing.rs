//! R15: each call fails once, with each of the errnos that a machine in need gives: the command
//! fails cleanly, or it succeeds and everything that was asked for is read back as it should be. It
//! is never killed by that, and never takes ten seconds.

use corten_integration::suite::Case;
use corten_integration::{Output, Test, tests};
use nix::errno::Errno;
use syscalls::Sysno;

use crate::subject::Subject;
use crate::tally::{self, Count, sample};
use crate::tracer::{Act, Point, can_fail};
use crate::verb::Verb;

pub(crate) const TESTS: &[Case] = tests![
    r15_create_fails,
    r15_create_with_a_user_namespace_fails,
    r15_run_fails,
    r15_start_fails,
    r15_exec_fails,
    r15_exec_detached_fails,
    r15_kill_fails,
    r15_pause_and_resume_fail,
    r15_update_fails,
    r15_delete_fails,
    r15_force_fails,
    r15_state_list_and_ps_fail,
    r15_closing_fails,
    r15_delete_of_a_running_container_fails,
];

const ERRNOS: [Errno; 5] =
    [Errno::ENOMEM, Errno::EMFILE, Errno::ENOSPC, Errno::EPERM, Errno::EINTR];

fn failing(t: &Test, subject: &Subject<'_>, verb: Verb, count: usize) {
    let tally = Count::begin();
    subject.learn();
    let points = verb.points(subject);
    let all: Vec<(Point, Errno)> = points
        .into_iter()
        .flat_map(|point| ERRNOS.map(|errno| (point, errno)))
        .filter(|(point, errno)| can_fail(point.name, *errno))
        .collect();
    for (point, errno) in sample(all, count) {
        once(subject, verb, point, errno);
    }
    subject.end(verb.name());
    tally.end(t, verb.name());
}

fn once(subject: &Subject<'_>, verb: Verb, point: Point, errno: Errno) {
    let name = format!("{}: {errno:?} at {point}", verb.name());
    tally::point(subject, &name, || {
        subject.reach(verb.begins());
        let traced = verb.disturbed(subject, Some((point, Act::Fail(errno))));
        let hit = traced.hit;
        let output = &traced.output;
        let name =
            format!("{name} at {}: {}", hit.map_or("none", |call| call.name()), said(output));
        let judged = match output.code {
            _ if traced.hung() => Err(format!("it took {:?}", traced.took)),
            // A device that can't be made is the host's, mounted: another table of mounts.
            0 if hit == Some(Sysno::mknodat) && errno == Errno::EPERM => Ok(()),
            0 => verb.has_succeeded(subject, &traced),
            // Without memory libc ends a program that has not begun, and it has made nothing then.
            134 | 139 if is_memory(hit) => verb.has_failed(subject, &name),
            code if code >= 128 && code != 255 => Err("it crashed".to_owned()),
            // The words are all that it writes.
            _ if verb == Verb::Refused && hit == Some(Sysno::write) => {
                verb.has_failed(subject, &name)
            }
            _ if output.stderr.trim().is_empty() => Err("it failed without a word".to_owned()),
            _ if output.stderr.contains("internal error") => Err("it panicked".to_owned()),
            _ => verb.has_failed(subject, &name),
        };
        if verb.changes() || judged.is_err() {
            subject.end(&name);
        }
        judged.map_err(|why| format!("{why} ({})", said(output)))
    });
}

fn is_memory(call: Option<Sysno>) -> bool {
    matches!(call, Some(Sysno::brk | Sysno::mmap | Sysno::mprotect | Sysno::arch_prctl))
}

/// How it ended, in a few words.
pub(crate) fn said(output: &Output) -> String {
    format!("{}: {}", output.code, output.stderr.trim_end())
}

fn r15_create_fails(t: &Test) {
    failing(t, &Subject::new(t), Verb::Create, 40);
}

fn r15_create_with_a_user_namespace_fails(t: &Test) {
    failing(t, &Subject::mapped(t), Verb::Create, 16);
}

fn r15_run_fails(t: &Test) {
    failing(t, &Subject::new(t), Verb::RunDetached, 12);
}

fn r15_start_fails(t: &Test) {
    failing(t, &Subject::new(t), Verb::Start, 10);
}

fn r15_exec_fails(t: &Test) {
    failing(t, &Subject::new(t), Verb::Exec, 25);
}

fn r15_exec_detached_fails(t: &Test) {
    failing(t, &Subject::new(t), Verb::ExecDetached, 10);
}

fn r15_kill_fails(t: &Test) {
    failing(t, &Subject::new(t), Verb::Kill, 5);
}

fn r15_pause_and_resume_fail(t: &Test) {
    let subject = Subject::new(t);
    failing(t, &subject, Verb::Pause, 6);
    failing(t, &subject, Verb::Resume, 6);
}

fn r15_update_fails(t: &Test) {
    t.needs_controller("pids");
    failing(t, &Subject::new(t), Verb::Update, 10);
}

fn r15_delete_fails(t: &Test) {
    failing(t, &Subject::new(t), Verb::Delete, 10);
}

fn r15_force_fails(t: &Test) {
    failing(t, &Subject::new(t), Verb::Force, 10);
}

fn r15_state_list_and_ps_fail(t: &Test) {
    let subject = Subject::new(t);
    for verb in [Verb::State, Verb::List, Verb::Ps] {
        failing(t, &subject, verb, 4);
    }
}

/// The descriptor is gone all the same, so nobody needs to hear of it: std panics when it is a
/// directory's.
fn r15_closing_fails(t: &Test) {
    let (subject, tally) = (Subject::new(t), Count::begin());
    subject.learn();
    for verb in [Verb::Delete, Verb::Force, Verb::List] {
        let points = verb.points(&subject).into_iter().filter(|point| point.name == Sysno::close);
        points.for_each(|point| once(&subject, verb, point, Errno::ENOSPC));
    }
    subject.end("closing");
    tally.end(t, "closing");
}

/// Whose state can't be found out has not stopped.
fn r15_delete_of_a_running_container_fails(t: &Test) {
    failing(t, &Subject::new(t), Verb::Refused, 80);
}
