//! Start, of an init or an exec.

use std::time::{Duration, SystemTime};

use containerd_shim_protos::api::{StartRequest, StartResponse};
use containerd_shim_protos::events::task::{TaskExecStarted, TaskStart};
use corten::state::Status as RuntimeStatus;
use corten::store::Store;

use super::create::runtime_failed;
use super::{Answer, Job, Then, failed, write};
use crate::container::{Phase, Reply};
use crate::events::Event;
use crate::exits::Exit;
use crate::server::Shim;
use crate::worker::{Exec, Verb};

/// The exit status of an exec that could not be started.
const NOT_STARTED: u32 = 255;

impl Shim {
    pub(super) fn start(
        &mut self,
        request: &StartRequest,
        reply: Reply,
        timeout: Option<Duration>,
    ) -> Answer<()> {
        let (id, exec_id) = (&request.id, &request.exec_id);
        let container = self.container_mut(id)?;
        let verb = if exec_id.is_empty() {
            match (container.init.phase, container.init.exit) {
                (Phase::Created, None) => Verb::Start,
                (Phase::Creating, _) => {
                    return Err(failed(format!("container {id} is being created")));
                }
                (Phase::Starting, None) => {
                    return Err(failed(format!("container {id} is being started")));
                }
                (Phase::Running, None) => {
                    return Err(failed("cannot start an already running container"));
                }
                _ => return Err(failed("cannot start a container that has stopped")),
            }
        } else {
            if container.init.exit.is_some() {
                return Err(failed(format!("container {id} init process is not running")));
            }
            let process = container.process_mut(exec_id)?;
            if process.phase != Phase::Added {
                return Err(failed(format!("process {exec_id} was started already")));
            }
            Verb::Exec(Exec {
                exec_id: exec_id.clone(),
                process: process.spec.as_deref().unwrap_or_default().to_owned(),
                stdio: process.stdio.clone(),
            })
        };
        let job = Job {
            id: id.clone(),
            exec_id: exec_id.clone(),
            reply: Some(reply),
            then: Then::Started,
        };
        self.begin(job, verb, timeout)?;
        self.container_mut(id)?.process_mut(exec_id)?.phase = Phase::Starting;
        Ok(())
    }

    pub(super) fn started(
        &mut self,
        id: &str,
        exec_id: &str,
        reply: Option<Reply>,
        result: Answer<()>,
    ) {
        let answer = result.and_then(|()| {
            let process = self.container_mut(id)?.process_mut(exec_id)?;
            if process.phase != Phase::Starting {
                return Err(failed("its end was told already"));
            }
            process.phase = Phase::Running;
            process.spec = None;
            let pid = process.pid.cast_unsigned();
            let container_id = id.to_owned();
            self.publisher.publish(&if exec_id.is_empty() {
                Event::Start(TaskStart { container_id, pid, ..Default::default() })
            } else {
                let exec_id = exec_id.to_owned();
                let event = TaskExecStarted { container_id, exec_id, pid, ..Default::default() };
                Event::ExecStarted(event)
            });
            write(&StartResponse { pid, ..Default::default() })
        });
        let answer = match (answer, exec_id) {
            (Err(status), "") => {
                self.not_started(id);
                Err(runtime_failed("start", status))
            }
            (Err(status), _) => {
                self.exec_not_started(id, exec_id);
                Err(runtime_failed("exec", status))
            }
            (answer, _) => answer,
        };
        self.answer(reply, answer);
        self.end_with_init(id, exec_id);
        self.settle(id, exec_id);
    }

    /// Ends an exec whose init ended before it was started: whoever killed the rest did not see it.
    fn end_with_init(&mut self, id: &str, exec_id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        let late = container.execs.get(exec_id).is_some_and(|exec| exec.is_alive());
        if late && container.init.exit.is_some() && !container.own_pid_namespace {
            self.kill_everything(id);
        }
    }

    /// An init that did not start is still created, unless it has ended; or it runs, and what came
    /// after that hung or was killed: then it is ended, as after a poststart hook that fails.
    fn not_started(&mut self, id: &str) {
        let Ok(container) = self.container_mut(id) else { return };
        if container.init.phase != Phase::Starting {
            return;
        }
        container.init.phase = Phase::Created;
        let state = Store::new(&container.root, false).open(id).and_then(|dir| dir.read_state());
        if state.and_then(|state| state.status()).is_ok_and(|it| it == RuntimeStatus::Running) {
            container.init.phase = Phase::Running;
            self.kill_everything(id);
        }
    }

    /// An exec that did not start has ended, without an event: there was no process to tell of.
    fn exec_not_started(&mut self, id: &str, exec_id: &str) {
        let Ok(process) = self.container_mut(id).and_then(|c| c.process_mut(exec_id)) else {
            return;
        };
        if let Some(pidfd) = &process.pidfd {
            // It was born when its worker was killed.
            let _ended = corten::sys::process::pidfd_send_signal(pidfd, libc::SIGKILL);
            process.phase = Phase::Running;
            return;
        }
        process.exit.get_or_insert(Exit {
            pid: 0,
            status: NOT_STARTED,
            exited_at: SystemTime::now(),
        });
        process.phase = Phase::Stopped;
        self.answer_waiters(id, exec_id);
        self.tell_held_init(id);
    }
}
