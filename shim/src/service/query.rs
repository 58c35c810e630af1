//! What is answered at once, whatever else hangs.

use std::time::{Duration, Instant};

use containerd_shim_protos::api::{
    CheckpointTaskRequest, ConnectRequest, ConnectResponse, Empty, PidsRequest, PidsResponse,
    ProcessInfo, StateRequest, StateResponse, StatsRequest, StatsResponse, WaitRequest,
};
use containerd_shim_protos::shim::oci::ProcessDetails;
use corten::cgroup::Cgroup;
use nix::unistd::Pid;
use protobuf::well_known_types::any::Any;
use protobuf::{EnumOrUnknown, MessageField};

use super::exit::wait_response;
use super::{Answer, write};
use crate::container::{Phase, Reply};
use crate::exits::timestamp;
use crate::server::Shim;
use crate::stats;
use crate::transport::{Code, Status};
use crate::worker::code_of;

/// The most groups that Pids looks at, which takes 0.1 s: a container that may write its cgroups can
/// make any number, and the loop has others to serve.
const GROUPS: usize = 4096;

impl Shim {
    pub(super) fn state(&self, request: &StateRequest) -> Answer<StateResponse> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let mut state = StateResponse {
            // As the Go shim answers: an exec's own id.
            id: if request.exec_id.is_empty() { &request.id } else { &request.exec_id }.clone(),
            exec_id: request.exec_id.clone(),
            bundle: container.bundle.display().to_string(),
            pid: process.pid.cast_unsigned(),
            status: EnumOrUnknown::new(container.status(process)),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            ..Default::default()
        };
        if let Some(exit) = process.exit {
            state.exit_status = exit.status;
            state.exited_at = MessageField::some(timestamp(exit.exited_at));
        }
        Ok(state)
    }

    /// Every process in the container's cgroups, of the first [`GROUPS`] of them. An init that has ended is listed until it is
    /// deleted: containerd takes a shim without processes for a leaked one and cleans it up, with
    /// the exit code that somebody still wants to know.
    pub(super) fn pids(&self, request: &PidsRequest) -> Answer<PidsResponse> {
        let container = self.container(&request.id)?;
        let cgroup = container.cgroup.as_ref().map(Cgroup::open);
        let listed = cgroup.map(|cgroup| cgroup.pids_among(GROUPS)).transpose();
        let listed = listed.map_err(|error| Status::new(code_of(&error), error.to_string()))?;
        let mut pids: Vec<i32> =
            listed.unwrap_or_default().iter().map(|pid| pid.as_raw()).collect();
        if pids.is_empty() && container.init.pid != 0 {
            pids.push(container.init.pid);
        }
        let info = |pid: i32| {
            // The pid of one that has ended may be another process's by now.
            let mut execs = container.execs.iter().filter(|(_, exec)| exec.pidfd.is_some());
            let exec = execs.find(|(_, exec)| exec.pid == pid);
            let details = exec.map(|(exec_id, _)| ProcessDetails {
                exec_id: exec_id.clone(),
                ..Default::default()
            });
            let info = details.map(|details| -> Answer<Any> {
                Ok(Any {
                    type_url: "containerd.runc.v1.ProcessDetails".to_owned(),
                    value: write(&details)?,
                    ..Default::default()
                })
            });
            let info = MessageField::from_option(info.transpose()?);
            Ok(ProcessInfo { pid: pid.cast_unsigned(), info, ..Default::default() })
        };
        let processes = pids.into_iter().map(info).collect::<Answer<_>>()?;
        Ok(PidsResponse { processes, ..Default::default() })
    }

    pub(super) fn stats(&self, request: &StatsRequest) -> Answer<StatsResponse> {
        let container = self.container(&request.id)?;
        let gone = || Status::new(Code::NotFound, "cgroup does not exist");
        let record = container.cgroup.as_ref().ok_or_else(gone)?;
        let init = container.init.pidfd.as_ref().map(|_| Pid::from_raw(container.init.pid));
        let metrics = stats::metrics(&Cgroup::open(record), init)
            .map_err(|error| Status::new(code_of(&error), error.to_string()))?
            .ok_or_else(gone)?;
        Ok(StatsResponse { stats: MessageField::some(metrics), ..Default::default() })
    }

    /// What the runtime can't do yet: why.
    pub(super) fn checkpoint(&self, request: &CheckpointTaskRequest) -> Status {
        let words = "checkpoint: corten can't checkpoint or restore containers yet";
        let unknown = self.container(&request.id).err();
        unknown.unwrap_or_else(|| Status::new(Code::Unimplemented, words))
    }

    pub(super) fn connect(&self, request: &ConnectRequest) -> ConnectResponse {
        let task = self.containers.get(&request.id).map_or(0, |container| container.init.pid);
        ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task.cast_unsigned(),
            ..Default::default()
        }
    }

    /// A caller that stops to listen can't say so. Those who said how long they would are answered when
    /// the next one comes, or somebody who asks again and again would fill the connection.
    pub(super) fn wait(
        &mut self,
        request: &WaitRequest,
        reply: Reply,
        timeout: Option<Duration>,
    ) -> Answer<Option<Vec<u8>>> {
        let process = self.container_mut(&request.id)?.process_mut(&request.exec_id)?;
        if let Some(exit) = process.exit.filter(|_| process.phase == Phase::Stopped) {
            return write(&wait_response(exit)).map(Some);
        }
        let now = Instant::now();
        let is_late = |waiter: &mut (Reply, Option<Instant>)| waiter.1.is_some_and(|at| at <= now);
        let late: Vec<_> = process.waiters.extract_if(.., is_late).collect();
        process.waiters.push((reply, timeout.and_then(|timeout| now.checked_add(timeout))));
        for (reply, _) in late {
            self.answer(reply, Err(Status::new(Code::DeadlineExceeded, "wait: it has not ended")));
        }
        Ok(None)
    }

    /// Leaves, unless there are containers.
    pub(super) fn shutdown(&mut self) -> Empty {
        if self.containers.is_empty() {
            tracing::info!("shutting down as asked");
            self.leave();
        }
        Empty::new()
    }

    /// A client is gone, and with it everything that was to be told to it.
    pub fn forget_client(&mut self, client: u64) {
        for container in self.containers.values_mut() {
            for (_, process) in container.processes_mut() {
                process.waiters.retain(|(waiter, _)| waiter.client != client);
                process.waiters.shrink_to_fit();
            }
        }
    }
}
