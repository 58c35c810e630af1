//! A daemon of a manager: a process, its log, and its end.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::{Run, spawn, wait};
use super::{Stop, Verdict};

/// A daemon process and its log.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// Where it writes both its streams.
    pub log: PathBuf,
}

impl Daemon {
    /// Starts `run` with both its streams at the end of `log`.
    pub fn start(run: Run, log: PathBuf) -> Result<Self, Stop> {
        let line = run.line();
        let mut command = run.into_command();
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = spawn(&mut command).map_err(|error| format!("{line}: {error}"))?;
        Ok(Self { child, log })
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool, Stop> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Sends it a signal and goes on.
    pub fn signal(&self, signal: Signal) -> Verdict {
        Ok(kill(self.pid(), signal)?)
    }

    /// Sends `signal` and waits for its end.
    pub fn stop(&mut self, signal: Signal) -> Verdict {
        if self.has_ended()? {
            return Ok(());
        }
        self.signal(signal)?;
        match wait(&mut self.child, Duration::from_secs(40))? {
            Some(_) => Ok(()),
            None => Err(Stop::Fail(format!("{} did not stop", self.log.display()))),
        }
    }

    /// The end of its log, for messages.
    pub fn tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}
