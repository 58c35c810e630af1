//! The end of a process: noticed once, recorded, told once, in an order that clients rely on.
//!
//! Noticing and telling are two steps. An exit that comes before its process was said to be started
//! is held until that was said; an init's is held until its execs' were told. What is held is
//! recorded in the bundle already, so a shim that is killed meanwhile takes nothing with it.

use std::time::{Duration, SystemTime};

use containerd_shim_protos::api::WaitResponse;
use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use corten::sys::wait;
use nix::errno::Errno;
use protobuf::MessageField;

use super::{Job, Then, write};
use crate::container::Phase;
use crate::events::Event;
use crate::exits::{self, Exit, KILLED, timestamp};
use crate::oom;
use crate::poll::Interest;
use crate::server::{Alarm, Shim};
use crate::worker::Verb;

/// How long the execs of an ended init may take to end: they are killed, but a process in an
/// uninterruptible wait stays.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(10);

impl Shim {
    /// A process's pidfd says that it has ended.
    pub fn process_ended(&mut self, number: u64) {
        let Some((id, exec_id)) = self.names.get(&number).cloned() else { return };
        let Some(container) = self.containers.get_mut(&id) else { return };
        if let Some(watch) = &mut container.oom {
            // At once: its cgroup may be gone in a moment.
            if let Err(error) = watch.look() {
                tracing::warn!("count the OOM kills of container {id}: {error}");
            }
        }
        let Ok(process) = container.process_mut(&exec_id) else { return };
        let Some(pidfd) = &mut process.pidfd else { return };
        let status = match wait::ended(&*pidfd) {
            Ok(Some(exit)) => exit.status().cast_unsigned(),
            Err(Errno::EINTR) => return,
            Ok(None) => {
                // A zombie that somebody traces is not told to us before its tracer lets go of it:
                // then comes a SIGCHLD.
                let _in_the_set = pidfd.want(Interest::Off);
                return;
            }
            Err(_) => {
                // It becomes our child when its worker, its parent, has ended.
                let _in_the_set = pidfd.want(Interest::Off);
                self.strangers.insert(number);
                return;
            }
        };
        process.pidfd = None;
        let exit = Exit { pid: process.pid.cast_unsigned(), status, exited_at: SystemTime::now() };
        process.exit = Some(exit);
        if let Some(io) = &mut process.io {
            io.exited();
        }
        let shared = !container.own_pid_namespace;
        let record = Some(exec_id.as_str()).filter(|exec_id| !exec_id.is_empty());
        if let Err(error) = exits::write(&container.bundle, record, &exit) {
            tracing::warn!("record the exit of {}: {error}", words_for(&id, &exec_id));
        }
        if exec_id.is_empty() {
            if exit.status == KILLED && !container.kill_asked {
                container.oom.as_mut().map(oom::Watch::looks_killed);
            }
            if shared {
                self.kill_everything(&id);
            }
            self.set_alarm(Alarm::LastWords(number), LAST_WORDS);
        }
        self.settle(&id, &exec_id);
        self.end_deletion(&id);
    }

    /// Tells an exit that was noticed, unless something must be told before.
    pub(super) fn settle(&mut self, id: &str, exec_id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        let Ok(process) = container.process(exec_id) else { return };
        let may_be_told = matches!(process.phase, Phase::Created | Phase::Running);
        if process.exit.is_none() || !may_be_told {
            return;
        }
        if exec_id.is_empty() {
            self.tell_held_init(id);
        } else {
            self.tell(id, exec_id);
            self.tell_held_init(id);
        }
    }

    /// Tells the init's exit, if it has ended and nobody of its container is left to tell of.
    pub(super) fn tell_held_init(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        let held = container.init.exit.is_some() && container.init.is_alive();
        let starting = container.init.phase == Phase::Starting;
        if held && !starting && !container.execs.values().any(|exec| exec.is_alive()) {
            self.tell(id, "");
        }
    }

    /// The init's exit has waited long enough.
    pub fn tell_init_exit(&mut self, number: u64) {
        let Some((id, _)) = self.names.get(&number).cloned() else { return };
        let Some(container) = self.containers.get(&id) else { return };
        if container.init.deletion.as_ref().is_some_and(|deletion| deletion.done) {
            tracing::warn!(
                "container {id}: deleted before the end of all its processes was noticed"
            );
            return self.end_deletion_now(&id);
        }
        if container.init.exit.is_none() || !container.init.is_alive() {
            return;
        }
        if container.init.phase == Phase::Starting && self.is_awaited(&id) {
            return self.set_alarm(Alarm::LastWords(number), LAST_WORDS);
        }
        tracing::debug!("container {id}: its init has ended, but not all that goes before");
        self.tell(&id, "");
    }

    /// Whether somebody waits for the answer of the init's Start.
    fn is_awaited(&self, id: &str) -> bool {
        let mut jobs = self.workers.values().filter_map(|working| working.job.as_ref());
        jobs.any(|job| {
            let start = matches!(job.then, Then::Started) && job.exec_id.is_empty();
            start && job.id == id && job.reply.is_some()
        })
    }

    pub(super) fn tell(&mut self, id: &str, exec_id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let init = container.init.number;
        let Ok(process) = container.process_mut(exec_id) else { return };
        let Some(exit) = process.exit else { return };
        process.phase = Phase::Stopped;
        let event = TaskExit {
            container_id: id.to_owned(),
            id: if exec_id.is_empty() { id.to_owned() } else { exec_id.to_owned() },
            pid: process.pid.cast_unsigned(),
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.exited_at)),
            ..Default::default()
        };
        self.tell_oom(init);
        if !(exec_id.is_empty() && self.is_told_by_containerd()) {
            self.publisher.publish(&Event::Exit(event));
        }
        self.answer_waiters(id, exec_id);
        if exec_id.is_empty() {
            self.clear_alarm(Alarm::LastWords(init));
        }
    }

    /// Tells of OOM kills since the last time: once, however many processes they ended.
    pub fn tell_oom(&mut self, init: u64) {
        let Some((id, _)) = self.names.get(&init).cloned() else { return };
        let Some(container) = self.containers.get_mut(&id) else { return };
        let Some(watch) = &mut container.oom else { return };
        let count = watch.turn().unwrap_or_else(|error| {
            tracing::warn!("count the OOM kills of container {id}: {error}");
            0
        });
        if count > 0 {
            let event = TaskOOM { container_id: id, ..Default::default() };
            self.publisher.publish(&Event::Oom(event));
        }
    }

    /// Answers everyone who waits for a process that has ended.
    pub(super) fn answer_waiters(&mut self, id: &str, exec_id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Ok(process) = container.process_mut(exec_id) else { return };
        let Some(exit) = process.exit else { return };
        for (waiter, _) in std::mem::take(&mut process.waiters) {
            self.answer(waiter, write(&wait_response(exit)));
        }
    }

    /// Kills every process of a container; nobody waits for it.
    pub(super) fn kill_everything(&mut self, id: &str) {
        let job = Job::of_init(id, None, Then::Answer);
        let verb = Verb::Kill { signal: libc::SIGKILL, all: true };
        if let Err(status) = self.begin(job, verb, None) {
            tracing::warn!("kill the processes of container {id}: {status}");
        }
    }
}

/// A process for a log line.
fn words_for(id: &str, exec_id: &str) -> String {
    if exec_id.is_empty() {
        return format!("container {id}");
    }
    format!("exec {exec_id} of container {id}")
}

/// What Wait answers.
pub(super) fn wait_response(exit: Exit) -> WaitResponse {
    WaitResponse {
        exit_status: exit.status,
        exited_at: MessageField::some(timestamp(exit.exited_at)),
        ..Default::default()
    }
}
