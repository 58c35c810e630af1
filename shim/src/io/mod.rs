//! The standard streams of a container's process, between it and the client.
//!
//! Promise: nothing here makes the loop wait. What the process writes reaches the client's FIFO by
//! splice(2) as fast as the client reads, and is neither lost nor kept in our memory when it does
//! not; containerd may restart meanwhile; a client that stops reading does not delay a kill, and a
//! delete by at most half a second.
//!
//! One thing breaks it, and no flag helps: write(2) to a pipe copies from user memory with the pipe's
//! mutex held, and splice(2), read(2), tee(2) and FIONREAD all wait for that mutex, uninterruptibly.
//! A container whose buffer faults for long (a mapped file of a FUSE or network file system that
//! hangs; userfaultfd with the right to make the kernel wait) stops this pod's loop until the fault or
//! its process ends. Only a process for each pipe would be safe from it, which is what the memory of
//! one thread for a pod was bought with; the runtime's own `kill` does not need the loop.
//!
//! | `stdout` | what becomes of it |
//! |---|---|
//! | empty | /dev/null |
//! | a path, `fifo:` | the client's FIFO, copied by the loop ([`flow`]) |
//! | `file:`, a path that is not a FIFO | a process of ours that appends ([`copier`]) |
//! | `binary:`, `binary-v2:` | a process of the client's choice ([`binary`]) |
//!
//! Pipes stand between the container and everything else: what a container does to its descriptors
//! (O_NONBLOCK, a handle kept open) does not reach the client.
//!
//! # Order
//! 1. In the worker, before create or exec: [`open`]. [`Opened::process`] is what the process gets;
//!    the worker drops it once the process has it, or the end of output is never seen.
//! 2. With a terminal, after create or exec: [`ShimEnd::receive_console`].
//! 3. [`ShimEnd::into_parts`] goes to the shim: [`Wires`] as JSON, the descriptors beside it. A
//!    [`ShimEnd`] dropped before that takes its logger along.
//! 4. In the loop: [`Io::adopt`], which starts the copier if there is a file, then [`Io::turn`] whenever the token is ready or
//!    [`Io::deadline`] past.
//! 5. When the process has exited: [`Io::exited`].
//! 6. At delete: [`Io::drain`], turns until [`Io::is_drained`] (half a second at most), then
//!    [`Io::finish`]; the answer to the client goes out. A [`Logger`] that is left gets turns until
//!    it ends. One that ends while the worker still lives is reaped as an unknown child.
//!
//! A process forked from the shim has copies of all of this, and no reader sees an end while it
//! has: it must close or execute at once, and drop nothing (the epoll set is the same).
//!
//! # Where this differs from containerd's own shim, and why
//! - Create does not wait for the client to open its FIFOs.
//! - What is in a FIFO at the exit survives a client that is away at that moment (there it is lost).
//! - Delete waits 0.5 s for a reader that has stopped, and not at all for a process in the background
//!   that keeps a pipe open (there 10 s each).
//! - CloseIO with a terminal ends the input only (there it hangs up).
//! - A logger sees the end of its pipes when the container's processes are gone, not at delete.
//! - `file:` works with a terminal; standard input works with a logger.

mod binary;
mod child;
mod copier;
mod flow;
mod logger;
mod open;
pub(crate) mod uri;
mod wires;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use corten::error::{Doing, Result};
use corten::sys::tty::{Size, set_size};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;

pub use logger::Logger;
pub use open::{Opened, ProcessEnd, Request, ShimEnd, open};
pub use wires::Wires;

use crate::poll::{Poller, Token};
use flow::{End, Flow};
use wires::{Bundle, Role};

/// How long a delete waits for a reader that is there and does not read, and for a logger.
const DRAIN: Duration = Duration::from_millis(500);

/// The streams of one process, in the loop.
#[derive(Debug)]
pub struct Io {
    stdin: Flow,
    stdout: Flow,
    stderr: Flow,
    logger: Option<Logger>,
    drain: Drain,
}

/// Whether a delete waits for the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    Until(Instant),
    /// It has waited long enough.
    Over,
}

impl Io {
    /// Streams that go nowhere.
    pub fn none() -> Self {
        Self {
            stdin: Flow::none("stdin"),
            stdout: Flow::none("stdout"),
            stderr: Flow::none("stderr"),
            logger: None,
            drain: Drain::No,
        }
    }

    /// Takes over what a worker opened. All descriptors have the same token.
    ///
    /// # Errors
    /// Wires and descriptors that don't belong together; `ENOMEM`, `ENOSPC` of epoll.
    pub fn adopt(wires: &Wires, fds: Vec<OwnedFd>, poller: &Poller, token: Token) -> Result<Self> {
        let mut fds = Bundle::join(wires, fds)?;
        let pipe = |fd: OwnedFd| End::pipe(fd, poller, token);
        let terminal = |fd: OwnedFd| End::terminal(fd, poller, token);
        let mut io = Self::none();
        let console = fds.take(Role::Console);
        if let Some(console) = &console {
            let flags = FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK);
            fcntl(console, flags).doing(|| "make the console non-blocking".to_owned())?;
        }
        if let Some(fifo) = fds.take(Role::StdinFifo) {
            let sink = match (&console, fds.take(Role::StdinPipe)) {
                (Some(console), _) => {
                    let copy = console.try_clone().doing(|| "dup of the console".to_owned())?;
                    Some(terminal(copy)?)
                }
                (None, end) => end.map(pipe).transpose()?,
            };
            if let Some(sink) = sink {
                io.stdin = Flow::input(pipe(fifo)?, sink, fds.take(Role::StdinKeeper));
            }
        }
        let sink = fds.take(Role::StdoutSink).map(pipe).transpose()?;
        let source = match console {
            Some(console) => Some(terminal(console)?),
            None => fds.take(Role::StdoutPipe).map(pipe).transpose()?,
        };
        if let Some(source) = source {
            io.stdout = Flow::output("stdout", source, sink, fds.take(Role::StdoutKeeper));
        }
        if let Some(source) = fds.take(Role::StderrPipe) {
            let sink = fds.take(Role::StderrSink).map(pipe).transpose()?;
            io.stderr = Flow::output("stderr", pipe(source)?, sink, fds.take(Role::StderrKeeper));
        }
        let logger = match (wires.logger, fds.take(Role::Logger)) {
            (Some(pid), Some(pidfd)) => Some((Pid::from_raw(pid), pidfd)),
            _ => copier(&mut fds)?,
        };
        if let Some((pid, pidfd)) = logger {
            io.logger = Some(Logger::adopt(pid, pidfd, poller, token)?);
        }
        // Only now does the loop hear of them.
        io.turn();
        Ok(io)
    }

    /// Moves what can be moved without waiting, a bounded amount. Called when the token is ready or
    /// the deadline past; more often does no harm. A stream that fails is ended and logged.
    pub fn turn(&mut self) {
        let now = Instant::now();
        if matches!(self.drain, Drain::Until(at) if at <= now) {
            self.drain = Drain::Over;
            for flow in self.flows() {
                flow.stop();
            }
        }
        for flow in self.flows() {
            flow.turn(now);
        }
        if self.logger.as_mut().is_some_and(|logger| logger.turn(now)) {
            self.logger = None;
        }
    }

    /// When it wants a turn without being called.
    pub fn deadline(&self) -> Option<Instant> {
        let Self { stdin, stdout, stderr, logger, drain } = self;
        let flows = [stdin, stdout, stderr].into_iter().filter_map(Flow::deadline);
        let logger = logger.as_ref().and_then(Logger::deadline);
        let drain = if let Drain::Until(at) = drain { Some(*at) } else { None };
        flows.chain(logger).chain(drain).min()
    }

    /// CloseIO: the end of the input, after what clients have written and still write before they
    /// close it too.
    pub fn close_stdin(&mut self) {
        self.stdin.release_keeper();
        self.stdin.turn(Instant::now());
    }

    /// ResizePty; without a terminal, or after its end, nothing.
    ///
    /// # Errors
    /// The errno of the ioctl.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        let Some(console) = self.stdout.console() else { return Ok(()) };
        let size = Size { rows: height, columns: width };
        set_size(console, size).doing(|| format!("resize the console to {width}x{height}"))
    }

    /// The process has exited. Pipes end by themselves; a terminal ends here, after what was written
    /// to it, even if a process in the background keeps it open.
    pub fn exited(&mut self) {
        if self.stdout.console().is_some() {
            self.stdin.stop();
            self.stdout.last_call();
            self.turn();
        }
    }

    /// The process is to be deleted: clients get what it wrote if they read, and FIFOs are no longer
    /// held for those who are away.
    pub fn drain(&mut self) {
        self.stdin.stop();
        for flow in [&mut self.stdout, &mut self.stderr] {
            flow.last_call();
            flow.release_keeper();
        }
        if self.drain == Drain::No {
            self.drain = Drain::Until(Instant::now() + DRAIN);
        }
        self.turn();
    }

    /// Whether [`Io::drain`] has nothing more to wait for, or no more time.
    pub fn is_drained(&self) -> bool {
        let flows = [&self.stdout, &self.stderr];
        let done = self.logger.is_none() && flows.into_iter().all(Flow::is_settled);
        match self.drain {
            Drain::No => done,
            Drain::Until(at) => done || at <= Instant::now(),
            Drain::Over => true,
        }
    }

    /// The process of the client or of ours that takes the output.
    #[cfg(test)]
    fn logger(&self) -> Option<&Logger> {
        self.logger.as_ref()
    }

    /// Closes everything. A logger that has not ended is asked to, and comes back: it has the token
    /// of these streams, and wants turns until it has ended.
    pub fn finish(mut self) -> Option<Logger> {
        for flow in self.flows() {
            flow.stop();
        }
        let mut logger = self.logger.take()?;
        logger.dismiss(Instant::now());
        Some(logger)
    }

    /// One line for the dump.
    pub fn describe(&self) -> String {
        let flows = [&self.stdin, &self.stdout, &self.stderr].map(Flow::describe).join("; ");
        match &self.logger {
            Some(logger) => format!("{flows}; logger {}", logger.pid()),
            None => flows,
        }
    }

    fn flows(&mut self) -> [&mut Flow; 3] {
        [&mut self.stdin, &mut self.stdout, &mut self.stderr]
    }
}

/// Starts the copier, if there are files to be appended to. It is our child from the beginning.
fn copier(fds: &mut Bundle) -> Result<Option<(Pid, OwnedFd)>> {
    let mut streams = Vec::new();
    for (pipe, file) in
        [(Role::StdoutCopied, Role::StdoutFile), (Role::StderrCopied, Role::StderrFile)]
    {
        if let (Some(pipe), Some(file)) = (fds.take(pipe), fds.take(file)) {
            streams.push((pipe, file));
        }
    }
    if streams.is_empty() { Ok(None) } else { copier::start(&streams).map(Some) }
}

#[cfg(test)]
mod tests;
