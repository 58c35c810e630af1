//! Pause, Resume and Update: the cgroup's business, done by a worker.

use std::time::Duration;

use containerd_shim_protos::api::{PauseRequest, ResumeRequest, UpdateTaskRequest};
use containerd_shim_protos::events::task::{TaskPaused, TaskResumed};

use super::{Answer, Job, Then, failed};
use crate::container::{Phase, Reply};
use crate::events::Event;
use crate::server::Shim;
use crate::transport::{Code, Status};
use crate::worker::Verb;

impl Shim {
    pub(super) fn pause(
        &mut self,
        request: &PauseRequest,
        reply: Reply,
        timeout: Option<Duration>,
    ) -> Answer<()> {
        let id = &request.id;
        let container = self.container(id)?;
        if container.init.phase != Phase::Running || container.init.exit.is_some() {
            return Err(failed(format!("cannot pause container {id}: it is not running")));
        }
        if container.pausing || container.is_paused() {
            return Err(failed(format!("cannot pause container {id}: it is paused")));
        }
        self.begin(Job::of_init(id, Some(reply), Then::Paused), Verb::Pause, timeout)?;
        self.container_mut(id)?.pausing = true;
        Ok(())
    }

    pub(super) fn paused(&mut self, id: &str, reply: Option<Reply>, result: Answer<()>) {
        if let Some(container) = self.containers.get_mut(id) {
            container.pausing = false;
        }
        if result.is_ok() {
            let event = TaskPaused { container_id: id.to_owned(), ..Default::default() };
            self.publisher.publish(&Event::Paused(event));
        }
        self.answer(reply, result.map(|()| Vec::new()));
    }

    pub(super) fn resume(
        &mut self,
        request: &ResumeRequest,
        reply: Reply,
        timeout: Option<Duration>,
    ) -> Answer<()> {
        let id = &request.id;
        if !self.container(id)?.is_paused() {
            return Err(failed(format!("cannot resume container {id}: it is not paused")));
        }
        self.begin(Job::of_init(id, Some(reply), Then::Resumed), Verb::Resume, timeout)
    }

    pub(super) fn resumed(&mut self, id: &str, reply: Option<Reply>, result: Answer<()>) {
        if result.is_ok() {
            let event = TaskResumed { container_id: id.to_owned(), ..Default::default() };
            self.publisher.publish(&Event::Resumed(event));
        }
        self.answer(reply, result.map(|()| Vec::new()));
    }

    pub(super) fn update(
        &mut self,
        request: &UpdateTaskRequest,
        reply: Reply,
        timeout: Option<Duration>,
    ) -> Answer<()> {
        let id = &request.id;
        let container = self.container(id)?;
        if !container.init.is_alive() || container.init.exit.is_some() {
            return Err(failed(format!("cannot update container {id}: it is not running")));
        }
        let invalid = |words: &str| Status::new(Code::InvalidArgument, words);
        let resources =
            request.resources.as_ref().ok_or_else(|| invalid("update: no resources"))?;
        let resources = String::from_utf8(resources.value.clone())
            .map_err(|_| invalid("update: the resources are not UTF-8"))?;
        self.begin(Job::of_init(id, Some(reply), Then::Answer), Verb::Update(resources), timeout)
    }
}
