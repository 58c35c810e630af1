//! The events of a task: where each is published, and as what.

use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use protobuf::Message;

/// Something that happened to a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The task is created.
    Create(TaskCreate),
    /// Its init runs.
    Start(TaskStart),
    /// A process of it has exited.
    Exit(TaskExit),
    /// The task is deleted.
    Delete(TaskDelete),
    /// An exec is registered.
    ExecAdded(TaskExecAdded),
    /// An exec's process runs.
    ExecStarted(TaskExecStarted),
    /// The task is frozen.
    Paused(TaskPaused),
    /// It is thawed.
    Resumed(TaskResumed),
    /// The kernel killed a process of it for memory.
    Oom(TaskOOM),
}

impl Event {
    /// Where containerd's clients look for it.
    pub fn topic(&self) -> &'static str {
        match self {
            Self::Create(_) => "/tasks/create",
            Self::Start(_) => "/tasks/start",
            Self::Exit(_) => "/tasks/exit",
            Self::Delete(_) => "/tasks/delete",
            Self::ExecAdded(_) => "/tasks/exec-added",
            Self::ExecStarted(_) => "/tasks/exec-started",
            Self::Paused(_) => "/tasks/paused",
            Self::Resumed(_) => "/tasks/resumed",
            Self::Oom(_) => "/tasks/oom",
        }
    }

    /// Its message's name, as containerd's `typeurl` has it: no `type.googleapis.com/` in front.
    pub fn type_url(&self) -> &'static str {
        match self {
            Self::Create(_) => "containerd.events.TaskCreate",
            Self::Start(_) => "containerd.events.TaskStart",
            Self::Exit(_) => "containerd.events.TaskExit",
            Self::Delete(_) => "containerd.events.TaskDelete",
            Self::ExecAdded(_) => "containerd.events.TaskExecAdded",
            Self::ExecStarted(_) => "containerd.events.TaskExecStarted",
            Self::Paused(_) => "containerd.events.TaskPaused",
            Self::Resumed(_) => "containerd.events.TaskResumed",
            Self::Oom(_) => "containerd.events.TaskOOM",
        }
    }

    /// The message.
    ///
    /// # Errors
    /// When it is over 2 GiB.
    pub fn encode(&self) -> protobuf::Result<Vec<u8>> {
        match self {
            Self::Create(event) => event.write_to_bytes(),
            Self::Start(event) => event.write_to_bytes(),
            Self::Exit(event) => event.write_to_bytes(),
            Self::Delete(event) => event.write_to_bytes(),
            Self::ExecAdded(event) => event.write_to_bytes(),
            Self::ExecStarted(event) => event.write_to_bytes(),
            Self::Paused(event) => event.write_to_bytes(),
            Self::Resumed(event) => event.write_to_bytes(),
            Self::Oom(event) => event.write_to_bytes(),
        }
    }
}
