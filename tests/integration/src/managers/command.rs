//! Commands with a deadline: run to the end, output captured, never waited for without limit.
//!
//! A manager's client may leave children that hold its output open (conmon does), so the end of
//! a command is the exit of its process; the readers get a short grace after that.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Stop;
use crate::driver::patience;

/// A command line with its environment, input and deadline.
#[derive(Debug)]
pub struct Run {
    command: Command,
    words: Vec<OsString>,
    input: Vec<u8>,
    limit: Duration,
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code, or 128 + signal.
    pub code: i32,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
    /// The command line, for messages.
    pub line: String,
}

impl Run {
    /// A command with an empty environment but `PATH`, and a deadline of 60 seconds.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program.as_ref());
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin");
        let limit = Duration::from_secs(60);
        Self { command, words: vec![program.as_ref().to_owned()], input: Vec::new(), limit }
    }

    /// Adds one argument.
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self.command.arg(word);
        self
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(self, words: I) -> Self {
        words.into_iter().fold(self, Self::arg)
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the working directory.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Sets what the command reads on its standard input (otherwise nothing).
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Sets the deadline.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The command line as words.
    pub fn words(&self) -> impl Iterator<Item = String> {
        self.words.iter().map(|word| word.to_string_lossy().into_owned())
    }

    /// The command line as text.
    pub fn line(&self) -> String {
        self.words().collect::<Vec<_>>().join(" ")
    }

    /// The bare command, for callers that connect its streams themselves.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Runs to the end. An error means that it could not start or did not end in time.
    pub fn run(mut self) -> Result<Outcome, Stop> {
        let line = self.line();
        self.command.stdin(if self.input.is_empty() { Stdio::null() } else { Stdio::piped() });
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(&mut self.command).map_err(|error| format!("{line}: {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            let input = std::mem::take(&mut self.input);
            // The reader may leave early (EPIPE); what it printed tells the story.
            std::thread::spawn(move || stdin.write_all(&input).ok());
        }
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let ended = wait(&mut child, self.limit);
        let text = |stream: Option<mpsc::Receiver<Vec<u8>>>| {
            let bytes = stream.map(|chunks| drain(&chunks)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        match ended? {
            Some(status) => Ok(Outcome { code: code(status), stdout, stderr, line }),
            None => Err(Stop::Fail(format!(
                "{line}: not done after {:?}\nstdout: {stdout}\nstderr: {stderr}",
                self.limit
            ))),
        }
    }

    /// Runs and returns the trimmed standard output; any exit code but 0 is an error.
    pub fn ok(self) -> Result<String, Stop> {
        self.code(0).map(|outcome| outcome.stdout.trim_end().to_owned())
    }

    /// Runs; any exit code but `wanted` is an error that shows the output.
    pub fn code(self, wanted: i32) -> Result<Outcome, Stop> {
        let outcome = self.run()?;
        if outcome.code == wanted {
            return Ok(outcome);
        }
        let Outcome { code, stdout, stderr, line } = outcome;
        Err(Stop::Fail(format!(
            "{line}\nexit code {code}, wanted {wanted}\nstdout: {stdout}\nstderr: {stderr}"
        )))
    }
}

impl Outcome {
    /// Both streams, for messages that may be on either.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Starts a command: the one place of this crate's manager suites that spawns.
#[allow(
    clippy::disallowed_methods,
    reason = "a test driver has threads and may spawn; the rule is for the runtime"
)]
pub fn spawn(command: &mut Command) -> std::io::Result<Child> {
    command.spawn()
}

/// The exit code of a status, 128 + signal for a signal.
pub fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Waits for `child` until `limit`; kills it and answers `None` after that.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>, Stop> {
    let end = Instant::now() + patience(limit);
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Reads a stream in a thread of its own and hands it over in chunks.
fn collect(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What a collected stream holds once its writer has exited; a holder left behind costs 2 s.
fn drain(chunks: &mpsc::Receiver<Vec<u8>>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(chunk) = chunks.recv_timeout(patience(Duration::from_secs(2))) {
        all.extend_from_slice(&chunk);
    }
    all
}
