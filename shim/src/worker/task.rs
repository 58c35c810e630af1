//! What a worker is asked for, and what it answers.

use std::path::PathBuf;

use corten::cgroup::Record;
use corten::cli::LogLevel;
use corten::error::Error;
use corten::log::Line;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::container::Stdio;
use crate::io::Wires;
use crate::mounts::Mount;
use crate::transport::{Code, Status};

/// An operation on one container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    /// The container's id.
    pub id: String,
    /// containerd's namespace.
    pub namespace: String,
    /// The runtime's root directory; only create finds it out.
    pub root: PathBuf,
    /// What is logged.
    pub level: LogLevel,
    /// The operation.
    pub verb: Verb,
}

/// The operations that can block.
#[derive(Debug, Serialize, Deserialize)]
pub enum Verb {
    /// Mount the root file system, open the stdio, create the container.
    Create(Create),
    /// Start the created container.
    Start,
    /// Start another process in it.
    Exec(Exec),
    /// Signal everything in it, or an init that has no pid namespace of its own.
    Kill {
        /// The signal's number.
        signal: i32,
        /// All its processes.
        all: bool,
    },
    /// Freeze it.
    Pause,
    /// Thaw it.
    Resume,
    /// Change its limits to `LinuxResources` in JSON.
    Update(String),
    /// Delete it, whatever state it is in, and unmount its root file system.
    Delete {
        /// Where its root file system was mounted.
        rootfs: PathBuf,
    },
}

/// What create needs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Create {
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// What to mount at `rootfs` in the bundle.
    pub mounts: Vec<Mount>,
    /// Where the streams of the init go.
    pub stdio: Stdio,
    /// The options as they came: type URL and value; without a type, those of `start`.
    pub options: (String, Vec<u8>),
}

/// What exec needs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exec {
    /// The process's id.
    pub exec_id: String,
    /// The process, `specs.Process` in JSON.
    pub process: String,
    /// Where its streams go.
    pub stdio: Stdio,
}

impl Task {
    /// The operation's name in messages.
    pub fn name(&self) -> &'static str {
        match self.verb {
            Verb::Create(_) => "create",
            Verb::Start => "start",
            Verb::Exec(_) => "exec",
            Verb::Kill { .. } => "kill",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::Update(_) => "update",
            Verb::Delete { .. } => "delete",
        }
    }

    /// Whether a process of it enters the container, so that its binary must be a sealed copy.
    pub fn enters_container(&self) -> bool {
        matches!(self.verb, Verb::Create(_) | Verb::Exec(_))
    }
}

/// A message of a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    /// What it is about to do.
    Doing(String),
    /// The runtime's root directory, before anything is made there.
    Root(PathBuf),
    /// Lines for the log.
    Log(Vec<Line>),
    /// It has started a process. Descriptors: its pidfd, then those of the wires. Of an exec it is the
    /// last word: then all is done.
    Born(Born),
    /// All is done.
    Done,
    /// A bug, in these words: it ends, and what it has made is still there.
    Broken(String),
    /// It could not be done, and what was made was taken back.
    Failed(Failure),
}

/// A process that a worker has started.
#[derive(Debug, Serialize, Deserialize)]
pub struct Born {
    /// Its pid, in the shim's pid namespace.
    pub pid: i32,
    /// Its streams.
    pub wires: Wires,
    /// The cgroups, of an init.
    pub cgroup: Option<Record>,
    /// The init is the first process of a pid namespace, whose end the kernel makes everyone's.
    pub own_pid_namespace: bool,
}

/// A failure as it goes to the client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// gRPC's code.
    pub code: i32,
    /// What we were doing, the object, the errno.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code as i32, message: message.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(code_of(&error), error.to_string())
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        Self::new(Code::from_wire(failure.code), failure.message)
    }
}

/// The code that containerd's clients expect.
pub fn code_of(error: &Error) -> Code {
    match error.root() {
        Error::Exists(_) => Code::AlreadyExists,
        Error::NotFound(_) => Code::NotFound,
        Error::NotRunning => Code::NotFound,
        Error::Status(_) => Code::FailedPrecondition,
        Error::Config { .. } | Error::Usage(_) => Code::InvalidArgument,
        Error::Unsupported(_) => Code::Unimplemented,
        Error::Sys { errno: Errno::ESRCH, .. } => Code::NotFound,
        _ => Code::Unknown,
    }
}
