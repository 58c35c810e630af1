//! What the shim knows of its containers: plain data, no I/O.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use containerd_shim_protos::api;
use corten::cgroup::Record;
use serde::{Deserialize, Serialize};

use crate::exits::{Exit, KILLED};
use crate::io::Io;
use crate::oom;
use crate::poll::Watched;
use crate::transport::{Code, Status};

/// Where an answer goes that is given later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The connection's number.
    pub client: u64,
    /// The call's stream on it.
    pub stream: u32,
}

/// How far a process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// An exec that is known and not started.
    Added,
    /// An init whose container is being created.
    Creating,
    /// An init that waits for its start.
    Created,
    /// Being started.
    Starting,
    /// Executes its program.
    Running,
    /// Ended, and everyone was told.
    Stopped,
}

/// The paths of a process's streams, as the client gave them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stdio {
    /// FIFO to read from.
    pub stdin: String,
    /// FIFO or URI to write to.
    pub stdout: String,
    /// The same.
    pub stderr: String,
    /// One terminal instead of three streams.
    pub terminal: bool,
}

impl Stdio {
    /// Whether there is one at all.
    pub fn is_any(&self) -> bool {
        [&self.stdin, &self.stdout, &self.stderr].into_iter().any(|path| !path.is_empty())
    }
}

/// A deletion that was asked for.
#[derive(Debug, Default)]
pub struct Deletion {
    /// Who has asked.
    pub waiting: Vec<Reply>,
    /// How long the first of them will wait.
    pub timeout: Option<Duration>,
    /// The container is gone, and the end of some of its processes was not noticed yet.
    pub done: bool,
}

/// A container's first process, or an exec.
#[derive(Debug)]
pub struct Process {
    /// Its number in the loop's tokens.
    pub number: u64,
    /// Its streams' paths.
    pub stdio: Stdio,
    /// How far it has come.
    pub phase: Phase,
    /// Its pid, 0 before there is one.
    pub pid: i32,
    /// Its handle, until it is reaped.
    pub pidfd: Option<Watched<OwnedFd>>,
    /// Its streams, until they are drained.
    pub io: Option<Box<Io>>,
    /// CloseIO was called, perhaps before there were streams.
    pub stdin_closed: bool,
    /// How it ended. With a phase other than [`Phase::Stopped`], nobody was told yet.
    pub exit: Option<Exit>,
    /// Who waits for its end, and until when they listen.
    pub waiters: Vec<(Reply, Option<Instant>)>,
    /// Of an exec: what to run, until it is started.
    pub spec: Option<Box<str>>,
    /// Being deleted, and who wants to know.
    pub deletion: Option<Deletion>,
}

impl Process {
    /// A process that does not exist yet.
    pub fn new(number: u64, stdio: Stdio, phase: Phase) -> Self {
        Self {
            number,
            stdio,
            phase,
            pid: 0,
            pidfd: None,
            io: None,
            stdin_closed: false,
            exit: None,
            waiters: Vec::new(),
            spec: None,
            deletion: None,
        }
    }

    /// How it ended; of one whose end nobody saw it is said that it was killed, now.
    pub fn exit_or_killed(&self) -> Exit {
        let pid = self.pid.cast_unsigned();
        self.exit.unwrap_or_else(|| Exit { pid, status: KILLED, exited_at: SystemTime::now() })
    }

    /// Whether its process exists or is about to, as far as anyone was told.
    pub fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Created | Phase::Starting | Phase::Running)
    }
}

/// One container.
#[derive(Debug)]
pub struct Container {
    /// Its bundle.
    pub bundle: PathBuf,
    /// The runtime's root directory; empty until the worker has told.
    pub root: PathBuf,
    /// Its first process.
    pub init: Process,
    /// The others, by exec id. Boxed, since a map has room for eleven at a time.
    pub execs: BTreeMap<String, Box<Process>>,
    /// Its cgroups.
    pub cgroup: Option<Record>,
    /// Whether the kernel ends everyone with the init.
    pub own_pid_namespace: bool,
    /// Tells when the kernel kills for want of memory.
    pub oom: Option<oom::Watch>,
    /// A pause is under way.
    pub pausing: bool,
    /// A client has asked for SIGKILL for its first process.
    pub kill_asked: bool,
}

impl Container {
    /// The process with this exec id; the init has an empty one.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn process(&self, exec_id: &str) -> Result<&Process, Status> {
        if exec_id.is_empty() {
            return Ok(&self.init);
        }
        self.execs.get(exec_id).map(Box::as_ref).ok_or_else(|| no_exec(exec_id))
    }

    /// The same, to change.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn process_mut(&mut self, exec_id: &str) -> Result<&mut Process, Status> {
        if exec_id.is_empty() {
            return Ok(&mut self.init);
        }
        self.execs.get_mut(exec_id).map(Box::as_mut).ok_or_else(|| no_exec(exec_id))
    }

    /// All processes with their exec ids, the init first.
    pub fn processes_mut(&mut self) -> impl Iterator<Item = (&str, &mut Process)> {
        let execs = self.execs.iter_mut().map(|(id, process)| (id.as_str(), &mut **process));
        std::iter::once(("", &mut self.init)).chain(execs)
    }

    /// The same, to read.
    pub fn processes(&self) -> impl Iterator<Item = (&str, &Process)> {
        let execs = self.execs.iter().map(|(id, process)| (id.as_str(), &**process));
        std::iter::once(("", &self.init)).chain(execs)
    }

    /// Whether its cgroup is frozen now, by whomever.
    pub fn is_paused(&self) -> bool {
        self.cgroup.as_ref().is_some_and(|record| record.is_frozen().unwrap_or(false))
    }

    /// The status of one of its processes as containerd names it.
    pub fn status(&self, process: &Process) -> api::Status {
        match process.phase {
            Phase::Stopped => api::Status::STOPPED,
            // Ended, but others must be told before: nothing can be done with it any more.
            _ if process.exit.is_some() => api::Status::STOPPED,
            Phase::Creating => api::Status::UNKNOWN,
            _ if self.pausing => api::Status::PAUSING,
            Phase::Running | Phase::Starting if self.is_paused() => api::Status::PAUSED,
            Phase::Added | Phase::Created | Phase::Starting => api::Status::CREATED,
            Phase::Running => api::Status::RUNNING,
        }
    }
}

fn no_exec(exec_id: &str) -> Status {
    Status::new(Code::NotFound, format!("process {exec_id} does not exist: not found"))
}
