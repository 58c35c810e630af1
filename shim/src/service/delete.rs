//! Delete, and what else makes a container go: a create that was given up, a bundle that is gone,
//! the shim's own end.
//!
//! The output of an ended process gets a moment to be read; then its streams are closed, whoever
//! still holds them. A worker deletes the container and unmounts its root file system. The answer
//! comes when nothing is left.

use std::time::Duration;

use containerd_shim_protos::api::DeleteRequest;
use containerd_shim_protos::events::task::TaskDelete;
use protobuf::MessageField;

use super::exit::LAST_WORDS;
use super::{Answer, DELETE, Job, Then, failed, limit, no_container, write};
use crate::bundle::ROOTFS;
use crate::container::{Deletion, Phase, Process, Reply};
use crate::events::Event;
use crate::exits::{self, timestamp};
use crate::server::{Alarm, Shim};
use crate::transport::{Code, Status};
use crate::worker::Verb;

impl Shim {
    pub(super) fn delete(
        &mut self,
        request: &DeleteRequest,
        reply: Reply,
        timeout: Option<Duration>,
    ) -> Answer<()> {
        let (id, exec_id) = (&request.id, &request.exec_id);
        let container = self.container(id)?;
        let paused = container.is_paused();
        let process = container.process(exec_id)?;
        match (process.phase, process.exit) {
            (Phase::Starting, _) => {
                return Err(failed("cannot delete a process that is being started"));
            }
            (Phase::Running, None) if paused => {
                return Err(failed("cannot delete a paused process"));
            }
            (Phase::Running, None) => return Err(failed("cannot delete a running process")),
            _ => {}
        }
        let creating = process.phase == Phase::Creating;
        let hanging = self.hanging_delete(id).filter(|_| exec_id.is_empty());
        let process = self.container_mut(id)?.process_mut(exec_id)?;
        let number = process.number;
        if let Some(deletion) = &mut process.deletion {
            deletion.waiting.push(reply);
            if let Some(worker) = hanging {
                deletion.timeout = timeout;
                self.set_alarm(Alarm::Worker(worker), limit(DELETE, timeout));
            }
            return Ok(());
        }
        process.deletion = Some(Deletion { waiting: vec![reply], timeout, done: false });
        if creating {
            self.end(id, "deleted while it was being created");
        } else {
            if let Some(io) = &mut process.io {
                io.drain();
            }
            self.move_io(number);
        }
        Ok(())
    }

    /// The worker of a deletion or of a create that was given up, if it has not ended since: the next
    /// deletion waits for its end, at most as long as its caller does.
    fn hanging_delete(&self, id: &str) -> Option<u64> {
        let mut workers = self.workers.iter().filter(|(_, working)| working.gave_up.is_some());
        let found = workers.find(|(_, working)| {
            let job = working.job.as_ref().filter(|job| job.id == id);
            job.is_some_and(|job| matches!(job.then, Then::Deleted | Then::Created(_)))
        });
        found.map(|(number, _)| *number)
    }

    /// The worker of a deletion has ended that was given up: those who have asked since get theirs.
    pub(super) fn delete_again(&mut self, id: &str) -> bool {
        let deletion = self.containers.get(id).and_then(|it| it.init.deletion.as_ref());
        let wanted = deletion.is_some_and(|deletion| !deletion.waiting.is_empty());
        if wanted {
            self.begin_delete(id);
        }
        wanted
    }

    /// The output of a process that is being deleted was read, or has had its time.
    pub fn drained(&mut self, number: u64) {
        let Some((id, exec_id)) = self.names.get(&number).cloned() else { return };
        let Ok(container) = self.container_mut(&id) else { return };
        let Ok(process) = container.process_mut(&exec_id) else { return };
        let mut left = vec![process.close_streams()];
        if exec_id.is_empty() {
            left.extend(container.execs.values_mut().map(|exec| exec.close_streams()));
        }
        self.loggers.extend(left.into_iter().flatten());
        if exec_id.is_empty() { self.begin_delete(&id) } else { self.exec_deleted(&id, &exec_id) }
    }

    fn begin_delete(&mut self, id: &str) {
        let mut jobs = self.workers.values().filter_map(|working| working.job.as_ref());
        if jobs.any(|job| job.id == id && matches!(job.then, Then::Deleted)) {
            return;
        }
        let Some(container) = self.containers.get(id) else { return };
        let verb = Verb::Delete { rootfs: container.bundle.join(ROOTFS) };
        let timeout = container.init.deletion.as_ref().and_then(|deletion| deletion.timeout);
        let job = Job::of_init(id, None, Then::Deleted);
        if let Err(status) = self.begin(job, verb, timeout) {
            self.deleted(id, Err(status));
        }
    }

    /// Deletes a container that nobody has asked to be deleted.
    pub(super) fn take_back(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.init.deletion.get_or_insert_default();
        if container.root.as_os_str().is_empty() {
            // Its worker ended before there was anything.
            return self.gone(id);
        }
        let logger = container.init.close_streams();
        self.loggers.extend(logger);
        self.begin_delete(id);
    }

    /// The worker has deleted the container, or could not.
    pub(super) fn deleted(&mut self, id: &str, result: Answer<()>) {
        if let Err(status) = result {
            tracing::error!("delete container {id}: {status}");
            let deletion =
                self.containers.get_mut(id).and_then(|container| container.init.deletion.take());
            for reply in deletion.unwrap_or_default().waiting {
                self.answer(reply, Err(status.clone()));
            }
            return;
        }
        self.tell_the_rest(id);
        let Some(container) = self.containers.get_mut(id) else { return };
        container.init.deletion.get_or_insert_default().done = true;
        self.end_deletion(id);
    }

    /// Ends a deletion that is done when the end of all its processes was told: one whose worker, its
    /// parent, has not ended yet becomes our child only then.
    pub(super) fn end_deletion(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        if !container.init.deletion.as_ref().is_some_and(|deletion| deletion.done) {
            return;
        }
        if container.processes().any(|(_, process)| process.pidfd.is_some()) {
            return self.set_alarm(Alarm::LastWords(container.init.number), LAST_WORDS);
        }
        self.end_deletion_now(id);
    }

    /// Ends a deletion, whatever was noticed.
    pub(super) fn end_deletion_now(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        if container.init.exit.is_some() && container.init.is_alive() {
            // Not held for an exec that is still being started: it has no container any more.
            self.tell(id, "");
        }
        let Some(container) = self.containers.get(id) else { return };
        let init = &container.init;
        let exit = init.exit_or_killed();
        if init.phase != Phase::Creating && !self.is_told_by_containerd() {
            self.publisher.publish(&Event::Delete(TaskDelete {
                container_id: id.to_owned(),
                pid: init.pid.cast_unsigned(),
                exit_status: exit.status,
                exited_at: MessageField::some(timestamp(exit.exited_at)),
                ..Default::default()
            }));
        }
        self.gone(id);
    }

    /// Everything was killed, so what was not noticed yet can be noticed now.
    fn tell_the_rest(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        let alive = |process: &Process| process.pidfd.is_some();
        let numbers: Vec<u64> = container
            .execs
            .values()
            .map(Box::as_ref)
            .chain([&container.init])
            .filter(|process| alive(process))
            .map(|process| process.number)
            .collect();
        for number in numbers {
            self.process_ended(number);
        }
    }

    /// Nothing is left of the container: everyone who waits for it is told.
    pub(super) fn gone(&mut self, id: &str) {
        let Some(mut container) = self.forget(id) else { return };
        let response = container.init.exit_or_killed().delete_response();
        for reply in container.init.deletion.take().unwrap_or_default().waiting {
            self.answer(reply, write(&response));
        }
        for (_, process) in container.processes_mut() {
            for reply in process.deletion.take().unwrap_or_default().waiting {
                self.answer(reply, write(&process.exit_or_killed().delete_response()));
            }
            for (waiter, _) in std::mem::take(&mut process.waiters) {
                self.answer(waiter, Err(no_container(id)));
            }
        }
        // Another container may have its id when they end.
        let workers = self.workers.values_mut();
        let jobs = workers.filter_map(|working| working.job.take_if(|job| job.id == id));
        for reply in jobs.filter_map(|job| job.reply).collect::<Vec<_>>() {
            self.answer(reply, Err(no_container(id)));
        }
        self.maybe_lonely();
    }

    /// Takes the container out of every list.
    pub(super) fn forget(&mut self, id: &str) -> Option<crate::container::Container> {
        let container = self.containers.remove(id)?;
        for (_, process) in container.processes() {
            self.names.remove(&process.number);
            self.strangers.remove(&process.number);
        }
        self.clear_alarm(Alarm::LastWords(container.init.number));
        Some(container)
    }

    fn exec_deleted(&mut self, id: &str, exec_id: &str) {
        let Ok(container) = self.container_mut(id) else { return };
        let bundle = container.bundle.clone();
        let Some(mut process) = container.execs.remove(exec_id) else { return };
        self.names.remove(&process.number);
        if let Err(error) = exits::remove(&bundle, Some(exec_id)) {
            tracing::warn!("remove the record of exec {exec_id} of container {id}: {error}");
        }
        let answer = write(&process.exit_or_killed().delete_response());
        for reply in process.deletion.take().unwrap_or_default().waiting {
            self.answer(reply, answer.clone());
        }
        for (waiter, _) in process.waiters {
            let words = format!("process {exec_id} was deleted: not found");
            self.answer(waiter, Err(Status::new(Code::NotFound, words)));
        }
    }
}
