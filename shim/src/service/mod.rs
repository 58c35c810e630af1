//! The task service, `containerd.task.v2.Task` and `v3`, which are the same but for the name.
//!
//! What can be answered from memory or from the kernel at once is answered in [`query`]. The rest
//! begins a worker with a [`Job`]: what to tell, and whom, when the worker is done. Every job has a
//! deadline, the caller's own if it is the shorter one, and an answer that says what it waited for.
//!
//! The orders that clients rely on (create, start, exit, delete; an exec's exit before its init's)
//! are kept in [`exit`], for all ways in which a process can end.

pub(crate) mod create;
mod delete;
mod dump;
mod exec;
pub mod exit;
mod kill;
mod leave;
mod limits;
mod query;
mod start;
mod streams;

use std::os::fd::OwnedFd;
use std::time::Duration;

use containerd_shim_protos::api::ShutdownRequest;
use corten::sys::wait::Exit;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protobuf::{CodedInputStream, Message};

use crate::container::{Container, Reply};
use crate::server::{Alarm, Shim, Source, Working};
use crate::transport::call::{check_lengths, skip};
use crate::transport::{Call, Code, Status};
use crate::worker::{Born, Failure, Said, Task, Verb, Worker, code_of};
use crate::{log, waiting};

/// What a caller gets.
pub type Answer<T> = Result<T, Status>;

/// What a worker is for, and who wants to know.
#[derive(Debug)]
pub struct Job {
    /// The container's id.
    pub id: String,
    /// The exec's id, empty for the init.
    pub exec_id: String,
    /// Who is to be answered; none once they were, or when nobody has asked.
    pub reply: Option<Reply>,
    /// What to do at the end.
    pub then: Then,
}

impl Job {
    /// One for a container as a whole, or for its init.
    fn of_init(id: &str, reply: Option<Reply>, then: Then) -> Self {
        Self { id: id.to_owned(), exec_id: String::new(), reply, then }
    }
}

/// What the end of a worker means.
#[derive(Debug)]
pub enum Then {
    /// The container is created; the event that tells it, but for the pid.
    Created(Box<containerd_shim_protos::events::task::TaskCreate>),
    /// The init or the exec runs.
    Started,
    /// The container is paused.
    Paused,
    /// It runs again.
    Resumed,
    /// The container is gone; those who wait are in its init.
    Deleted,
    /// Nothing but the answer.
    Answer,
}

/// How long a deletion may take when the caller does not say.
const DELETE: Duration = Duration::from_secs(60);

/// The same for any operation.
fn patience(verb: &Verb) -> Duration {
    match verb {
        Verb::Create(_) | Verb::Start | Verb::Exec(_) => Duration::from_secs(120),
        Verb::Delete { .. } => DELETE,
        _ => Duration::from_secs(20),
    }
}

/// How long it may take for a caller who says, perhaps: our answer must come before the caller has
/// stopped listening.
fn limit(most: Duration, timeout: Option<Duration>) -> Duration {
    timeout.map_or(most, |timeout| most.min(timeout - timeout / 20))
}

impl Shim {
    /// Answers a call, now or later.
    pub fn dispatch(&mut self, client: u64, call: Call) {
        let reply = Reply { client, stream: call.stream };
        match self.route(&call, reply) {
            Ok(Some(message)) => self.answer(reply, Ok(message)),
            Ok(None) => {}
            Err(status) => self.answer(reply, Err(status)),
        }
    }

    /// The answer, or none when it comes later.
    fn route(&mut self, call: &Call, reply: Reply) -> Answer<Option<Vec<u8>>> {
        if !matches!(call.service.as_str(), "containerd.task.v2.Task" | "containerd.task.v3.Task") {
            let words = format!("service {}", call.service);
            return Err(Status::new(Code::Unimplemented, words));
        }
        match call.method.as_str() {
            "State" => now(&self.state(&read(call)?)?),
            "Pids" => now(&self.pids(&read(call)?)?),
            "Stats" => now(&self.stats(&read(call)?)?),
            "Connect" => now(&self.connect(&read(call)?)),
            "Wait" => self.wait(&read(call)?, reply, call.timeout),
            "Exec" => now(&self.exec(read(call)?)?),
            "ResizePty" => now(&self.resize(&read(call)?)?),
            "CloseIO" => now(&self.close_io(&read(call)?)?),
            "Shutdown" => read::<ShutdownRequest>(call).and_then(|_| now(&self.shutdown())),
            "Create" => later(self.create(read(call)?, reply, call.timeout)),
            "Start" => later(self.start(&read(call)?, reply, call.timeout)),
            "Kill" => self.kill(&read(call)?, reply, call.timeout),
            "Pause" => later(self.pause(&read(call)?, reply, call.timeout)),
            "Resume" => later(self.resume(&read(call)?, reply, call.timeout)),
            "Update" => later(self.update(&read(call)?, reply, call.timeout)),
            "Delete" => later(self.delete(&read(call)?, reply, call.timeout)),
            "Checkpoint" => Err(self.checkpoint(&read(call)?)),
            other => Err(Status::new(Code::Unimplemented, format!("method {other}"))),
        }
    }

    /// The container with this id.
    fn container(&self, id: &str) -> Answer<&Container> {
        self.containers.get(id).ok_or_else(|| no_container(id))
    }

    fn container_mut(&mut self, id: &str) -> Answer<&mut Container> {
        self.containers.get_mut(id).ok_or_else(|| no_container(id))
    }

    /// Has a worker do `verb`, and then `job`.
    fn begin(&mut self, job: Job, verb: Verb, timeout: Option<Duration>) -> Answer<()> {
        let root = self.containers.get(&job.id).map(|container| container.root.clone());
        let limit = limit(patience(&verb), timeout);
        let task = Task {
            id: job.id.clone(),
            namespace: self.namespace.clone(),
            root: root.unwrap_or_default(),
            level: log::level(),
            verb,
        };
        let number = self.number();
        let worker = Worker::begin(task, &self.poller, Source::Worker(number).token());
        let worker = worker.map_err(|error| Status::from(Failure::from(error)))?;
        self.workers.insert(number, Working { worker, job: Some(job), gave_up: None });
        self.set_alarm(Alarm::Worker(number), limit);
        Ok(())
    }

    /// Hears what a worker says, and notices its end.
    pub fn hear(&mut self, number: u64) {
        // Asked first: what it said before its end can be heard by then. One that ends while it is
        // heard has its next turn.
        let ended = self.workers.get(&number).and_then(|working| working.worker.ended());
        while let Some(working) = self.workers.get_mut(&number)
            && let Some((said, fds)) = working.worker.hear()
        {
            match said {
                Said::Doing(what) => working.worker.doing = what,
                Said::Log(lines) => log::forward(lines),
                Said::Root(root) => {
                    let id = working.job.as_ref().map(|job| job.id.clone()).unwrap_or_default();
                    if let Some(container) = self.containers.get_mut(&id) {
                        container.root = root;
                    }
                }
                Said::Born(born) => self.born(number, born, fds),
                Said::Broken(words) => working.worker.broken = Some(words),
                Said::Done => self.finish(number, Ok(())),
                Said::Failed(failure) => self.finish(number, Err(failure)),
            }
        }
        if let Some(exit) = ended {
            self.notice_end(number, exit);
        }
    }

    fn notice_end(&mut self, number: u64, exit: Exit) {
        let Some(working) = self.workers.get_mut(&number) else { return };
        let worker = &mut working.worker;
        let why = worker.broken.take();
        let why = why.unwrap_or_else(|| format!("the worker ended without an answer ({exit:?})"));
        let words = format!("{}: {why}", worker.describe());
        let gave_up = working.gave_up.take();
        let job = working.job.as_ref().filter(|_| gave_up.is_some());
        let deleted = job.filter(|job| matches!(job.then, Then::Deleted)).map(|job| job.id.clone());
        self.clear_alarm(Alarm::Worker(number));
        if let Some(id) = deleted
            && let Some(job) = self.workers.get_mut(&number).and_then(|it| it.job.take())
            && !self.delete_again(&id)
            && let Some(working) = self.workers.get_mut(&number)
        {
            working.job = Some(job);
        }
        self.died(number, gave_up.unwrap_or_else(|| Failure::new(Code::Unknown, words)));
        self.workers.remove(&number);
        for stranger in std::mem::take(&mut self.strangers) {
            self.process_ended(stranger);
        }
        if self.workers.is_empty() {
            self.reap_orphans();
        }
    }

    /// A worker's time is over: it is killed, and everyone who waits for it is told what it waited
    /// for, even if it can't be killed now.
    pub fn give_up(&mut self, number: u64) {
        let Some(working) = self.workers.get_mut(&number) else { return };
        let worker = &working.worker;
        let words = format!(
            "{}: gave up after {:.1} s: {}",
            worker.describe(),
            worker.since.elapsed().as_secs_f64(),
            waiting::what_it_waits_for(worker.pid())
        );
        tracing::warn!("{words}");
        worker.kill();
        let failure = Failure::new(Code::DeadlineExceeded, words);
        working.gave_up = Some(failure.clone());
        let mut replies = Vec::new();
        if let Some(job) = &mut working.job {
            replies.extend(job.reply.take());
            // Those who wait for a create's end want the container deleted.
            if matches!(job.then, Then::Deleted | Then::Created(_))
                && let Some(container) = self.containers.get_mut(&job.id)
                && let Some(deletion) = &mut container.init.deletion
            {
                replies.append(&mut deletion.waiting);
            }
        }
        for reply in replies {
            self.answer(reply, Err(failure.clone().into()));
        }
    }

    /// A worker has started a process. One that can't be watched (no descriptors) must not live:
    /// nobody would tell of its end.
    fn born(&mut self, number: u64, born: Born, fds: Vec<OwnedFd>) {
        // The worker is its parent and not reaped yet, so the pid is no other's.
        let pid = Pid::from_raw(born.pid);
        let job = self.workers.get(&number).and_then(|working| working.job.as_ref());
        let Some((id, exec_id)) = job.map(|job| (job.id.clone(), job.exec_id.clone())) else {
            let _ended = kill(pid, Signal::SIGKILL);
            return;
        };
        match self.adopt(&id, &exec_id, born, fds) {
            Ok(()) if exec_id.is_empty() => {}
            Ok(()) => self.finish(number, Ok(())),
            Err(error) => {
                let _ended = kill(pid, Signal::SIGKILL);
                let words = format!("take over process {pid} of container {id}: {error}");
                tracing::error!("{words}");
                self.died(number, Failure::new(code_of(&error), words));
            }
        }
    }

    /// A worker has done its job, or could not and has left nothing.
    fn finish(&mut self, number: u64, result: Result<(), Failure>) {
        let Some(job) = self.workers.get_mut(&number).and_then(|working| working.job.take()) else {
            return;
        };
        self.clear_alarm(Alarm::Worker(number));
        let result = result.map_err(Status::from);
        match job.then {
            Then::Created(event) => self.created(&job.id, job.reply, *event, result),
            Then::Started => self.started(&job.id, &job.exec_id, job.reply, result),
            Then::Paused => self.paused(&job.id, job.reply, result),
            Then::Resumed => self.resumed(&job.id, job.reply, result),
            Then::Deleted => self.deleted(&job.id, result),
            Then::Answer => self.answer(job.reply, result.map(|()| Vec::new())),
        }
    }

    /// A worker has ended before it could take back what it had made.
    fn died(&mut self, number: u64, failure: Failure) {
        let job = self.workers.get(&number).and_then(|working| working.job.as_ref());
        let Some((id, created)) =
            job.map(|job| (job.id.clone(), matches!(job.then, Then::Created(_))))
        else {
            return;
        };
        if !created {
            return self.finish(number, Err(failure));
        }
        let job = self.workers.get_mut(&number).and_then(|working| working.job.take());
        self.answer(job.and_then(|job| job.reply), Err(failure.into()));
        self.take_back(&id);
    }
}

fn no_container(id: &str) -> Status {
    Status::new(Code::NotFound, format!("container {id} not created: not found"))
}

fn failed(words: impl Into<String>) -> Status {
    Status::new(Code::FailedPrecondition, words)
}

/// The most fields of a request, unknown ones included: two bytes can be a mount of a hundred.
const MAX_FIELDS: usize = 10_000;

fn read<M: Message>(call: &Call) -> Answer<M> {
    parse(&call.payload).map_err(|error| {
        Status::new(Code::InvalidArgument, format!("read the {} request: {error}", call.method))
    })
}

/// Reads a message of a task.
pub(crate) fn parse<M: Message>(bytes: &[u8]) -> Result<M, String> {
    let words = |error: protobuf::Error| error.to_string();
    check_lengths(bytes).map_err(words)?;
    let mut fields = CodedInputStream::from_bytes(bytes);
    let mut count = 0;
    while let Some(tag) = fields.read_raw_tag_or_eof().map_err(words)? {
        skip(tag, &mut fields).map_err(words)?;
        count += 1;
        if count > MAX_FIELDS {
            return Err(format!("more than {MAX_FIELDS} fields"));
        }
    }
    M::parse_from_bytes(bytes).map_err(words)
}

fn write<M: Message>(message: &M) -> Answer<Vec<u8>> {
    message
        .write_to_bytes()
        .map_err(|error| Status::new(Code::Internal, format!("write a {}: {error}", M::NAME)))
}

fn later(result: Answer<()>) -> Answer<Option<Vec<u8>>> {
    result.map(|()| None)
}

fn now<M: Message>(message: &M) -> Answer<Option<Vec<u8>>> {
    write(message).map(Some)
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::api::CreateTaskRequest;

    use super::*;

    #[test]
    fn a_request_of_too_many_fields_is_refused_before_it_costs_anything() {
        let mounts = |count| b"\x1a\x00".repeat(count);
        assert!(parse::<CreateTaskRequest>(&mounts(MAX_FIELDS)).is_ok());
        let why = parse::<CreateTaskRequest>(&mounts(MAX_FIELDS + 1)).unwrap_err();
        assert_eq!(why, "more than 10000 fields");
    }
}
