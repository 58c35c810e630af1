//! The streams of processes: moved by the loop, closed and resized by request.

use std::time::Instant;

use containerd_shim_protos::api::{CloseIORequest, Empty, ResizePtyRequest};

use super::{Answer, failed};
use crate::container::{Container, Phase, Process};
use crate::io::{Io, Logger};
use crate::server::Shim;
use crate::transport::{Code, Status};

impl Shim {
    pub(super) fn resize(&mut self, request: &ResizePtyRequest) -> Answer<Empty> {
        let process = self.container_mut(&request.id)?.process_mut(&request.exec_id)?;
        if process.exit.is_some() {
            return Err(failed("cannot resize a stopped process"));
        }
        let size = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        if let Some(io) = &mut process.io {
            io.resize(size(request.width), size(request.height))
                .map_err(|error| Status::new(Code::Unknown, error.to_string()))?;
        }
        Ok(Empty::new())
    }

    pub(super) fn close_io(&mut self, request: &CloseIORequest) -> Answer<Empty> {
        let process = self.container_mut(&request.id)?.process_mut(&request.exec_id)?;
        // Streams that are still to come are closed when they do.
        process.stdin_closed = true;
        if let Some(io) = &mut process.io {
            io.close_stdin();
        }
        Ok(Empty::new())
    }

    /// Moves what can be moved of a process's streams, and goes on with a deletion that waited for
    /// them. Without streams it is their logger, which has their token, that wants a turn.
    pub fn move_io(&mut self, number: u64) {
        let name = self.names.get(&number).cloned();
        let process = name.and_then(|(id, exec_id)| {
            self.containers.get_mut(&id).and_then(|container| container.process_mut(&exec_id).ok())
        });
        let Some(process) = process else { return self.tick_loggers() };
        let has_streams = process.io.is_some();
        if let Some(io) = &mut process.io {
            io.turn();
        }
        let waited_for = process.deletion.is_some() && process.phase != Phase::Creating;
        if waited_for && process.io.as_deref().is_none_or(Io::is_drained) {
            self.drained(number);
        }
        if !has_streams {
            self.tick_loggers();
        }
    }

    /// When some stream or logger wants a turn without being ready.
    pub fn next_io_deadline(&self) -> Option<Instant> {
        let processes = self.containers.values().flat_map(Container::processes);
        let streams = processes.filter_map(|(_, process)| process.io.as_ref()?.deadline());
        streams.chain(self.loggers.iter().filter_map(Logger::deadline)).min()
    }

    /// Looks at the streams and loggers whose time has come.
    pub fn tick_io(&mut self, now: Instant) {
        let due = |process: &Process| {
            process.io.as_deref().and_then(Io::deadline).is_some_and(|at| at <= now)
        };
        let numbers: Vec<u64> = self
            .containers
            .values()
            .flat_map(Container::processes)
            .filter(|(_, process)| due(process))
            .map(|(_, process)| process.number)
            .collect();
        for number in numbers {
            self.move_io(number);
        }
        if self.loggers.iter().filter_map(Logger::deadline).any(|at| at <= now) {
            self.tick_loggers();
        }
    }

    fn tick_loggers(&mut self) {
        let now = Instant::now();
        self.loggers.retain_mut(|logger| !logger.turn(now));
    }
}

impl Process {
    /// Closes its streams, whoever still reads or writes them. A logger that has not ended is left.
    pub fn close_streams(&mut self) -> Option<Logger> {
        self.io.take().and_then(|io| io.finish())
    }
}
