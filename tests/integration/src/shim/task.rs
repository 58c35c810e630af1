//! The task service of a shim, called through the client of the `ttrpc` crate.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::empty::Empty;
use containerd_shim_protos::ttrpc::{self, Client, Code, Request};
use serde_json::Value;

use super::{request, sandbox};
use crate::driver::patience;
use crate::managers::{Stop, Verdict, check};

/// How long anything may take that should be quick: a busy machine must not fail a test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The service of containerd up to 1.7, and the one that 2.x asks for.
pub const V2: &str = "containerd.task.v2.Task";
/// The same messages under the name of containerd 2.x.
pub const V3: &str = "containerd.task.v3.Task";

/// Why a call gave no answer.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The status of the answer; `None` if there was none.
    pub code: Option<Code>,
    /// The words of the answer.
    pub message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(f, "{code:?}: {}", self.message),
            None => write!(f, "no answer: {}", self.message),
        }
    }
}

/// An answer or a refusal.
pub type Answer<T> = Result<T, Refusal>;

/// The call must have been refused with `code` and, in any case, these words (`|` between
/// alternatives).
#[track_caller]
pub fn refused<T: std::fmt::Debug>(answer: Answer<T>, code: Code, words: &str) -> Verdict {
    let at = std::panic::Location::caller();
    match answer {
        Ok(answer) => Err(Stop::Fail(format!("{at}: wanted {code:?}, was answered {answer:?}"))),
        Err(refusal) => {
            let message = refusal.message.to_lowercase();
            let said = words.split('|').any(|words| message.contains(&words.to_lowercase()));
            check(
                refusal.code == Some(code) && said,
                format!("{at}: wanted {code:?} {words:?}, saw {refusal}"),
            )
        }
    }
}

/// A call that is under way in a thread of its own.
#[derive(Debug)]
pub struct Pending<T> {
    receiver: Receiver<Answer<T>>,
    what: String,
}

impl<T> Pending<T> {
    /// The answer, which must come within `limit`.
    pub fn within(&self, limit: Duration) -> Answer<T> {
        match self.receiver.recv_timeout(limit) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Err(Refusal {
                code: None,
                message: format!("{}: nothing within {limit:?}", self.what),
            }),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Refusal { code: None, message: format!("{}: the thread ended", self.what) })
            }
        }
    }

    /// The answer, with the usual patience.
    pub fn answer(&self) -> Answer<T> {
        self.within(patience(PATIENCE))
    }

    /// There must be no answer yet.
    pub fn is_pending(&self) -> Verdict {
        match self.receiver.try_recv() {
            Err(std::sync::mpsc::TryRecvError::Empty) => Ok(()),
            Ok(Ok(_)) => Err(Stop::Fail(format!("{} was answered too early", self.what))),
            Ok(Err(refusal)) => Err(Stop::Fail(format!("{}: {refusal}", self.what))),
            Err(error) => Err(Stop::Fail(format!("{}: {error}", self.what))),
        }
    }
}

/// A connection to a shim.
#[derive(Clone)]
pub struct TaskClient {
    client: Client,
    service: &'static str,
}

impl std::fmt::Debug for TaskClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskClient").field("service", &self.service).finish_non_exhaustive()
    }
}

impl TaskClient {
    /// Connects to `unix:///…`.
    pub fn connect_to(address: &str) -> Result<Self, Stop> {
        let client =
            Client::connect(address).map_err(|error| format!("connect to {address}: {error}"))?;
        Ok(Self { client, service: V2 })
    }

    /// The same connection, other service.
    pub fn service(&self, service: &'static str) -> Self {
        Self { client: self.client.clone(), service }
    }

    /// Calls any method in a thread and does not wait.
    pub fn call<Q: Message, A: Message>(&self, method: &str, query: &Q) -> Pending<A> {
        let what = format!("{}/{method}", self.service);
        let mut request = Request::new();
        request.service = self.service.to_owned();
        request.method = method.to_owned();
        request.payload = query.write_to_bytes().expect("a message can be written");
        let (sender, receiver) = channel();
        let client = self.client.clone();
        std::thread::spawn(move || {
            let answer = client.request(request).map_err(refusal).and_then(|response| {
                A::parse_from_bytes(&response.payload)
                    .map_err(|error| Refusal { code: None, message: error.to_string() })
            });
            // Whoever asked may have given up.
            sender.send(answer).ok();
        });
        Pending { receiver, what }
    }

    fn ask<Q: Message, A: Message>(&self, method: &str, query: &Q) -> Answer<A> {
        self.call(method, query).answer()
    }

    fn order<Q: Message>(&self, method: &str, query: &Q) -> Answer<()> {
        self.ask::<Q, Empty>(method, query).map(drop)
    }

    /// Create.
    pub fn create(&self, query: &CreateTaskRequest) -> Answer<u32> {
        self.ask::<_, CreateTaskResponse>("Create", query).map(|answer| answer.pid)
    }

    /// Create, not waited for.
    pub fn creating(&self, query: &CreateTaskRequest) -> Pending<CreateTaskResponse> {
        self.call("Create", query)
    }

    /// Start of the init (empty `exec`) or of an exec.
    pub fn start(&self, id: &str, exec: &str) -> Answer<u32> {
        self.starting(id, exec).answer().map(|answer| answer.pid)
    }

    /// Start, not waited for.
    pub fn starting(&self, id: &str, exec: &str) -> Pending<StartResponse> {
        self.call("Start", &with!(StartRequest { id, exec_id: exec }))
    }

    /// State.
    pub fn state(&self, id: &str, exec: &str) -> Answer<StateResponse> {
        self.ask("State", &with!(StateRequest { id, exec_id: exec }))
    }

    /// Wait.
    pub fn wait(&self, id: &str, exec: &str) -> Answer<WaitResponse> {
        self.waiting(id, exec).answer()
    }

    /// Wait, not waited for.
    pub fn waiting(&self, id: &str, exec: &str) -> Pending<WaitResponse> {
        self.call("Wait", &with!(WaitRequest { id, exec_id: exec }))
    }

    /// Kill.
    pub fn kill(&self, id: &str, exec: &str, signal: u32, all: bool) -> Answer<()> {
        let mut query = with!(KillRequest { id, exec_id: exec });
        query.signal = signal;
        query.all = all;
        self.order("Kill", &query)
    }

    /// Exec.
    pub fn exec(&self, query: &ExecProcessRequest) -> Answer<()> {
        self.order("Exec", query)
    }

    /// Delete.
    pub fn delete(&self, id: &str, exec: &str) -> Answer<DeleteResponse> {
        self.deleting(id, exec).answer()
    }

    /// Delete, not waited for.
    pub fn deleting(&self, id: &str, exec: &str) -> Pending<DeleteResponse> {
        self.call("Delete", &with!(DeleteRequest { id, exec_id: exec }))
    }

    /// Pids.
    pub fn pids(&self, id: &str) -> Answer<PidsResponse> {
        self.ask("Pids", &with!(PidsRequest { id }))
    }

    /// Stats.
    pub fn stats(&self, id: &str) -> Answer<Any> {
        let answer: StatsResponse = self.ask("Stats", &with!(StatsRequest { id }))?;
        Ok(answer.stats.unwrap_or_default())
    }

    /// Pause.
    pub fn pause(&self, id: &str) -> Answer<()> {
        self.order("Pause", &with!(PauseRequest { id }))
    }

    /// Resume.
    pub fn resume(&self, id: &str) -> Answer<()> {
        self.order("Resume", &with!(ResumeRequest { id }))
    }

    /// Update with `LinuxResources` as JSON.
    pub fn update(&self, id: &str, resources: &Value) -> Answer<()> {
        let mut query = with!(UpdateTaskRequest { id });
        query.resources = Some(request::json(request::RESOURCES, resources)).into();
        self.order("Update", &query)
    }

    /// ResizePty.
    pub fn resize(&self, id: &str, exec: &str, width: u32, height: u32) -> Answer<()> {
        let mut query = with!(ResizePtyRequest { id, exec_id: exec });
        query.width = width;
        query.height = height;
        self.order("ResizePty", &query)
    }

    /// CloseIO of standard input.
    pub fn close_stdin(&self, id: &str, exec: &str) -> Answer<()> {
        let mut query = with!(CloseIORequest { id, exec_id: exec });
        query.stdin = true;
        self.order("CloseIO", &query)
    }

    /// Checkpoint.
    pub fn checkpoint(&self, id: &str, path: &str) -> Answer<()> {
        self.order("Checkpoint", &with!(CheckpointTaskRequest { id, path }))
    }

    /// Connect.
    pub fn connect(&self, id: &str) -> Answer<ConnectResponse> {
        self.ask("Connect", &with!(ConnectRequest { id }))
    }

    /// Shutdown.
    pub fn shutdown(&self, id: &str, now: bool) -> Answer<()> {
        let mut query = with!(ShutdownRequest { id });
        query.now = now;
        match self.order("Shutdown", &query) {
            // containerd 1.6's may be gone before its answer is; the daemon does not mind.
            Err(refusal) if refusal.code.is_none() && sandbox().is_reference_shim() => Ok(()),
            answer => answer,
        }
    }
}

fn refusal(error: ttrpc::Error) -> Refusal {
    match error {
        ttrpc::Error::RpcStatus(status) => Refusal {
            code: Some(status.code.enum_value_or_default()),
            message: status.message.clone(),
        },
        other => Refusal { code: None, message: other.to_string() },
    }
}
