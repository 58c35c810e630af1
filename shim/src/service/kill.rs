//! Kill: by pidfd at once where one process is meant, by a worker where all are.

use std::time::Duration;

use containerd_shim_protos::api::KillRequest;
use corten::cgroup::Cgroup;
use corten::sys::process::pidfd_send_signal;
use nix::errno::Errno;

use super::{Answer, DELETE, Job, Then, failed, limit};
use crate::container::{Phase, Reply};
use crate::server::{Alarm, Shim};
use crate::transport::{Code, Status};
use crate::worker::Verb;

impl Shim {
    pub(super) fn kill(
        &mut self,
        request: &KillRequest,
        reply: Reply,
        timeout: Option<Duration>,
    ) -> Answer<Option<Vec<u8>>> {
        let (id, exec_id) = (&request.id, &request.exec_id);
        let signal = i32::try_from(request.signal)
            .ok()
            .filter(|signal| (0..=libc::SIGRTMAX()).contains(signal))
            .ok_or_else(|| {
                let words = format!("kill: unknown signal {}", request.signal);
                Status::new(Code::InvalidArgument, words)
            })?;
        let is_init = exec_id.is_empty();
        let container = self.container_mut(id)?;
        let to_end_it = is_init && signal == libc::SIGKILL;
        let process = container.process(exec_id)?;
        match process.phase {
            Phase::Creating if signal == libc::SIGKILL => {
                self.end(id, "killed while it was being created");
                return Ok(Some(Vec::new()));
            }
            Phase::Creating => return Err(failed(format!("container {id} is being created"))),
            Phase::Added => return Err(failed("process not created")),
            _ => {}
        }
        let everyone = signal == libc::SIGKILL && !container.own_pid_namespace;
        if is_init && (request.all || (everyone && process.exit.is_none())) {
            container.kill_asked |= to_end_it;
            let job = Job::of_init(id, Some(reply), Then::Answer);
            self.begin(job, Verb::Kill { signal, all: true }, timeout)?;
            return Ok(None);
        }
        let finished = || Status::new(Code::NotFound, "process already finished: not found");
        let Some(pidfd) = &process.pidfd else {
            return Err(if process.exit.is_some() {
                finished()
            } else {
                failed("process not created")
            });
        };
        match pidfd_send_signal(pidfd, signal) {
            Ok(()) => container.kill_asked |= to_end_it,
            Err(Errno::ESRCH) => return Err(finished()),
            Err(errno) => {
                let words = format!("signal {signal} to {id}: {}", errno.desc());
                return Err(Status::new(Code::Unknown, words));
            }
        }
        // A frozen v1 group holds even a killed process.
        if let Some(record) = container.cgroup.as_ref().filter(|_| signal == libc::SIGKILL)
            && record.is_frozen().unwrap_or(false)
            && let Err(error) = Cgroup::open(record).thaw()
        {
            return Err(Status::new(Code::Unknown, error.to_string()));
        }
        Ok(Some(Vec::new()))
    }

    /// Ends a create that is under way; the end of its worker takes back what it made. False when
    /// there is none.
    pub(super) fn abort(&mut self, id: &str, why: &str) -> bool {
        let creating = self.workers.iter_mut().find_map(|(number, working)| {
            let job = working.job.as_mut().filter(|job| job.id == id)?;
            matches!(job.then, Then::Created(_)).then(|| {
                working.worker.kill();
                (*number, job.reply.take())
            })
        });
        let Some((worker, reply)) = creating else { return false };
        self.answer(reply, Err(Status::new(Code::Aborted, format!("container {id}: {why}"))));
        // One that can't end now holds up a deletion no longer than a deletion may take.
        let deletion = self.containers.get(id).and_then(|it| it.init.deletion.as_ref());
        let timeout = deletion.and_then(|deletion| deletion.timeout);
        self.clear_alarm(Alarm::Worker(worker));
        self.set_alarm(Alarm::Worker(worker), limit(DELETE, timeout));
        true
    }
}
