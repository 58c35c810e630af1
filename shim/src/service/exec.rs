//! Exec: another process is known from here on; Start runs it.

use containerd_shim_protos::api::{Empty, ExecProcessRequest};
use containerd_shim_protos::events::task::TaskExecAdded;

use serde::de::IgnoredAny;

use super::{Answer, failed};
use crate::container::{Phase, Process, Stdio};
use crate::events::Event;
use crate::server::Shim;
use crate::transport::{Code, Status};

impl Shim {
    pub(super) fn exec(&mut self, request: ExecProcessRequest) -> Answer<Empty> {
        let number = self.number();
        let ExecProcessRequest { id, exec_id, .. } = request;
        let invalid = |words: String| Status::new(Code::InvalidArgument, words);
        if exec_id.is_empty() {
            return Err(invalid("exec: the exec id is empty".to_owned()));
        }
        // Its record is a file of this name.
        if let Err(error) = corten::cli::container_id(exec_id.as_ref()) {
            return Err(invalid(format!("exec: {error}")));
        }
        let spec = request.spec.into_option();
        let spec = spec.ok_or_else(|| invalid("exec: no process spec".to_owned()))?;
        let spec = String::from_utf8(spec.value)
            .map_err(|_| invalid("exec: the process is not UTF-8".to_owned()))?;
        if let Err(error) = serde_json::from_str::<IgnoredAny>(&spec) {
            return Err(invalid(format!("exec: the process is not JSON: {error}")));
        }
        let container = self.container_mut(&id)?;
        if container.execs.contains_key(&exec_id) {
            return Err(Status::new(Code::AlreadyExists, format!("id {exec_id}: already exists")));
        }
        match (container.init.phase, container.init.exit) {
            (Phase::Creating, _) => return Err(failed(format!("container {id} is being created"))),
            (_, Some(_)) => return Err(failed("cannot exec in a stopped container")),
            _ => {}
        }
        let stdio = Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let mut process = Process::new(number, stdio, Phase::Added);
        process.spec = Some(spec.into_boxed_str());
        container.execs.insert(exec_id.clone(), Box::new(process));
        self.names.insert(number, (id.clone(), exec_id.clone()));
        let event = TaskExecAdded { container_id: id, exec_id, ..Default::default() };
        self.publisher.publish(&Event::ExecAdded(event));
        Ok(Empty::new())
    }
}
