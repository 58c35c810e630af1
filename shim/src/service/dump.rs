//! SIGUSR1: what the shim is doing, in its log.

use crate::io::Io;
use crate::server::Shim;
use crate::waiting;

impl Shim {
    /// One line for each thing that is under way.
    pub fn dump(&self) {
        tracing::info!("dump: pid {}, {}", std::process::id(), self.publisher.describe());
        for (number, connection) in self.clients() {
            tracing::info!(
                "dump: connection {number}: {} calls open, {} bytes to send",
                connection.in_progress(),
                connection.queued()
            );
        }
        for working in self.workers.values() {
            let worker = &working.worker;
            tracing::info!(
                "dump: worker {}: {} for {:.1} s: {}",
                worker.pid(),
                worker.describe(),
                worker.since.elapsed().as_secs_f64(),
                waiting::what_it_waits_for(worker.pid())
            );
        }
        for (id, container) in &self.containers {
            for (exec_id, process) in container.processes() {
                let io = process.io.as_deref().map(Io::describe).unwrap_or_default();
                tracing::info!(
                    "dump: container {id} process {exec_id:?}: {:?}, pid {}, exit {:?}, {} waiting, \
                     streams: {io}",
                    process.phase,
                    process.pid,
                    process.exit.map(|exit| exit.status),
                    process.waiters.len()
                );
            }
        }
        for (at, alarm) in self.alarms() {
            let left = at.saturating_duration_since(std::time::Instant::now());
            tracing::info!("dump: {alarm:?} in {:.1} s", left.as_secs_f64());
        }
    }
}
