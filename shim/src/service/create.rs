//! Create: a worker mounts, opens the streams and creates; the container is known from the
//! beginning, so that State, Kill and Delete find it while a hook hangs.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse};
use containerd_shim_protos::events::task::{TaskCreate, TaskIO};
use corten::error::{Error, Result};
use protobuf::MessageField;

use super::{Answer, Job, Then, failed, write};
use crate::container::{Container, Phase, Process, Reply, Stdio};
use crate::events::Event;
use crate::io::Io;
use crate::mounts::Mount;
use crate::poll::Interest;
use crate::server::{Shim, Source};
use crate::transport::{Code, Status};
use crate::worker::{Born, Create, Verb};
use crate::{oom, transport};

impl Shim {
    pub(super) fn create(
        &mut self,
        request: CreateTaskRequest,
        reply: Reply,
        timeout: Option<Duration>,
    ) -> Answer<()> {
        let id = request.id.clone();
        check(&request)?;
        if self.leaving.is_some() {
            return Err(Status::new(Code::Unavailable, "the shim is shutting down"));
        }
        if self.containers.contains_key(&id) {
            let words = format!("container with given ID already exists: {id}");
            return Err(Status::new(Code::AlreadyExists, words));
        }
        self.awaits_first = false;
        let number = self.number();
        let event = event(&request);
        let stdio = Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let bundle = PathBuf::from(request.bundle);
        let options = request.options.into_option().unwrap_or_default();
        let verb = Verb::Create(Create {
            bundle: bundle.clone(),
            mounts: request.rootfs.iter().map(Mount::from).collect(),
            stdio: stdio.clone(),
            options: (options.type_url, options.value),
        });
        self.watch_bundles();
        self.names.insert(number, (id.clone(), String::new()));
        self.containers.insert(
            id.clone(),
            Container {
                bundle,
                root: PathBuf::new(),
                init: Process::new(number, stdio, Phase::Creating),
                execs: Default::default(),
                cgroup: None,
                own_pid_namespace: true,
                oom: None,
                pausing: false,
                kill_asked: false,
            },
        );
        let then = Then::Created(Box::new(event));
        let job = Job::of_init(&id, Some(reply), then);
        self.begin(job, verb, timeout).inspect_err(|_| self.gone(&id))
    }

    pub(super) fn created(
        &mut self,
        id: &str,
        reply: Option<Reply>,
        mut event: TaskCreate,
        result: Answer<()>,
    ) {
        let answer = result.and_then(|()| {
            let container = self.container_mut(id)?;
            container.init.phase = Phase::Created;
            event.pid = container.init.pid.cast_unsigned();
            let response = CreateTaskResponse { pid: event.pid, ..Default::default() };
            self.watch_memory(id);
            self.publisher.publish(&Event::Create(event));
            write(&response)
        });
        let created = answer.is_ok();
        let waited = reply.is_some();
        self.answer(reply, answer.map_err(|status| runtime_failed("create", status)));
        if !created {
            self.gone(id);
        } else if waited {
            self.settle(id, "");
        } else {
            // Its caller was told that we have given up.
            self.take_back(id);
        }
    }

    /// Makes a new process ours: its end and its streams are watched from now on.
    pub(super) fn adopt(
        &mut self,
        id: &str,
        exec_id: &str,
        born: Born,
        fds: Vec<OwnedFd>,
    ) -> Result<()> {
        let poller = self.poller.clone();
        let gone = |status: Status| Error::Failed(status.message);
        let container = self.container_mut(id).map_err(gone)?;
        if exec_id.is_empty() {
            container.cgroup = born.cgroup;
            container.own_pid_namespace = born.own_pid_namespace;
        }
        let process = container.process_mut(exec_id).map_err(gone)?;
        let mut fds = fds.into_iter();
        let pidfd = fds.next().ok_or_else(|| Error::Failed("a worker sent no pidfd".to_owned()))?;
        process.pid = born.pid;
        let token = Source::Process(process.number).token();
        process.pidfd = Some(poller.watch(pidfd, token, Interest::Read)?);
        let token = Source::Io(process.number).token();
        let mut io = Io::adopt(&born.wires, fds.collect(), &poller, token)?;
        if process.stdin_closed {
            io.close_stdin();
        }
        process.io = Some(Box::new(io));
        Ok(())
    }

    fn watch_memory(&mut self, id: &str) {
        let poller = self.poller.clone();
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(record) = &container.cgroup else { return };
        match oom::Watch::new(record, &poller, Source::Oom(container.init.number).token()) {
            Ok(watch) => container.oom = watch,
            Err(error) => tracing::warn!("watch the memory of container {id}: {error}"),
        }
    }
}

pub(crate) fn check(request: &CreateTaskRequest) -> Answer<()> {
    let invalid = |words: String| Err(Status::new(Code::InvalidArgument, words));
    if let Err(error) = corten::cli::container_id(request.id.as_ref()) {
        return invalid(format!("create: {error}"));
    }
    if !request.bundle.starts_with('/') {
        return invalid(format!("create: bundle {:?} is not an absolute path", request.bundle));
    }
    if !request.checkpoint.is_empty() {
        return Err(Status::new(
            transport::Code::Unimplemented,
            "create from a checkpoint: corten can't restore containers yet",
        ));
    }
    if request.terminal && !request.stderr.is_empty() && request.stdout.is_empty() {
        return Err(failed("create: a terminal has one output, which is standard output"));
    }
    Ok(())
}

/// What is told when the container is there.
pub(crate) fn event(request: &CreateTaskRequest) -> TaskCreate {
    let mut event = TaskCreate {
        container_id: request.id.clone(),
        bundle: request.bundle.clone(),
        io: MessageField::some(TaskIO {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
            ..Default::default()
        }),
        checkpoint: request.checkpoint.clone(),
        ..Default::default()
    };
    // Another type with the same fields.
    event.rootfs.resize_with(request.rootfs.len(), Default::default);
    for (told, mount) in event.rootfs.iter_mut().zip(&request.rootfs) {
        told.type_.clone_from(&mount.type_);
        told.source.clone_from(&mount.source);
        told.target.clone_from(&mount.target);
        told.options.clone_from(&mount.options);
    }
    event
}

/// The words that people know from runc, and Docker's users search for.
pub(super) fn runtime_failed(verb: &str, mut status: Status) -> Status {
    status.message = format!("OCI runtime {verb} failed: {}", status.message);
    status
}
