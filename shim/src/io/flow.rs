//! One direction of one stream: bytes from a source to a sink.
//!
//! Promise: nothing blocks, nothing spins, and nothing is read that can't be written at once: what
//! waits, waits in the kernel's pipes, so that a reader that stops slows the container's writer down
//! and costs the shim no memory. Each [`Flow::turn`] moves a bounded amount.
//!
//! Each turn looks at both ends (one poll(2) without a timeout), moves if both are ready, and then
//! waits for the one that was not. Only that one is in the epoll set: a writer that is gone is a
//! hang-up that level-triggered epoll would tell of without end while the other side is full.
//!
//! The client's FIFOs have a **keeper**, our own handle of their opposite half. It is why containerd
//! may restart: the keeper of an output is a reader, so writing gives no EPIPE and nothing that is
//! in the FIFO is lost; that of the input is a writer, so there is no end of file before CloseIO.
//!
//! The end of an output, when the container closed it: with a reader there, our half is closed, and
//! the reader gets the rest and then the end of file. Without one the write half stays ("lingers"),
//! since closing it would drop what is in the FIFO; now and then it looks for a reader.
//!
//! The buffers that splice(2) moves are the writer's own pages: it may change them until they are
//! read. That is the same to a client as a writer that had written something else.
//!
//! A terminal hangs up whenever no process has it open, which may be for a moment only (systemd
//! does that with /dev/console): it is the end only after the process has exited.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use corten::error::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use crate::poll::{Interest, Poller, Token, Watched};

/// Bytes asked for in one call; a pipe gives what it has, at most its capacity.
const PIPE_CHUNK: usize = 1 << 20;
/// From or to a terminal: what it has at most, and a page, which always fits in a pipe with room.
const TERMINAL_CHUNK: usize = 4096;
/// Calls in one turn for a terminal, whose chunks are small.
const TERMINAL_MOVES: usize = 8;
/// What a source may still give after the last call: more than a terminal or an ordinary pipe
/// holds, so that somebody who writes for ever does not keep it open.
const LAST_CALL: u64 = 1 << 20;
/// How often a lingering FIFO looks for a reader: at first, and at last.
const LINGER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// The same when a process was forked just now, whose copies of our keepers would be taken for a
/// reader: the first look is only put off.
const SOON: Duration = Duration::from_millis(2);
/// A pause if the kernel says "ready" and then "try again". Not known to happen.
const REST: Duration = Duration::from_millis(10);

/// A descriptor of ours in the loop's set.
#[derive(Debug)]
pub(super) struct End {
    fd: Watched<OwnedFd>,
    is_terminal: bool,
}

impl End {
    pub(super) fn pipe(fd: OwnedFd, poller: &Poller, token: Token) -> Result<Self> {
        Ok(Self { fd: poller.watch(fd, token, Interest::Off)?, is_terminal: false })
    }

    pub(super) fn terminal(fd: OwnedFd, poller: &Poller, token: Token) -> Result<Self> {
        Ok(Self { fd: poller.watch(fd, token, Interest::Off)?, is_terminal: true })
    }
}

/// What to do with what comes when nobody can take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unwanted {
    /// The container closed its input: the client's next bytes end the flow, and the client gets
    /// EPIPE.
    Refuse,
    /// Read and forget, so that a terminal's writer goes on.
    Drop,
}

#[derive(Debug)]
struct Moving {
    source: End,
    sink: Option<End>,
    keeper: Option<OwnedFd>,
    /// Read from the source and not written yet; only where splice(2) is refused.
    carried: Vec<u8>,
    splices: bool,
    rest: Option<Instant>,
    /// After the last call: how much may still come.
    last: Option<u64>,
}

#[derive(Debug)]
enum State {
    Over,
    Moving(Moving),
    Lingering { sink: End, look: Instant, pause: Duration },
}

/// One direction of one stream.
#[derive(Debug)]
pub(super) struct Flow {
    name: &'static str,
    unwanted: Unwanted,
    /// The sink is a FIFO of the client's: what is in it is kept for a reader to come.
    is_fifo: bool,
    state: State,
    moved: u64,
}

/// What came of one call.
enum Moved {
    Some(usize),
    Nothing,
    End,
}

/// What the ends are ready for.
#[derive(Debug, Clone, Copy, Default)]
struct Ready {
    readable: bool,
    hung_up: bool,
    writable: bool,
    broken: bool,
}

impl Flow {
    /// A stream that is not there.
    pub(super) fn none(name: &'static str) -> Self {
        let (unwanted, is_fifo) = (Unwanted::Drop, false);
        Self { name, unwanted, is_fifo, state: State::Over, moved: 0 }
    }

    /// From the client to the container.
    pub(super) fn input(source: End, sink: End, keeper: Option<OwnedFd>) -> Self {
        let (unwanted, is_fifo) = (Unwanted::Refuse, false);
        let state = State::Moving(Moving::new(source, Some(sink), keeper));
        Self { name: "stdin", unwanted, is_fifo, state, moved: 0 }
    }

    /// From the container to a FIFO, which has a keeper, or to a logger or nobody.
    pub(super) fn output(
        name: &'static str,
        source: End,
        sink: Option<End>,
        keeper: Option<OwnedFd>,
    ) -> Self {
        let (unwanted, is_fifo) = (Unwanted::Drop, keeper.is_some());
        Self {
            name,
            unwanted,
            is_fifo,
            state: State::Moving(Moving::new(source, sink, keeper)),
            moved: 0,
        }
    }

    /// Moves what can be moved now, and arranges to be called again.
    pub(super) fn turn(&mut self, now: Instant) {
        match &mut self.state {
            State::Over => {}
            State::Lingering { sink, look, pause } if *look <= now => {
                if has_reader(sink, now) {
                    self.state = State::Over;
                } else {
                    *pause = (*pause * 2).min(LINGER.1);
                    *look = now + *pause;
                }
            }
            State::Lingering { .. } => {}
            State::Moving(moving) => {
                match moving.step(self.unwanted, self.is_fifo, &mut self.moved, now) {
                    Ok(true) => {}
                    Ok(false) => self.end(now),
                    Err(error) => {
                        tracing::warn!("{}: {error}", self.name);
                        self.state = State::Over;
                    }
                }
            }
        }
    }

    /// The source is at its end.
    fn end(&mut self, now: Instant) {
        let State::Moving(moving) = std::mem::replace(&mut self.state, State::Over) else { return };
        let Moving { source, sink, keeper, .. } = moving;
        let Some(_) = keeper else { return };
        // Before the look: they count as a reader, and as what the client waits for.
        drop((source, keeper));
        if let Some(mut sink) = sink
            && self.is_fifo
            && !has_reader(&sink, now)
        {
            let pause = if sink.fd.is_copied(now) { SOON } else { LINGER.0 };
            let look = now + pause;
            match sink.fd.want(Interest::Off) {
                Ok(()) => self.state = State::Lingering { sink, look, pause },
                Err(error) => tracing::warn!("{}: {error}", self.name),
            }
        }
    }

    /// No end of file was to be seen before this.
    pub(super) fn release_keeper(&mut self) {
        if let State::Moving(moving) = &mut self.state {
            moving.keeper = None;
        }
    }

    /// The process has exited: what the source holds now is the last that counts.
    pub(super) fn last_call(&mut self) {
        if let State::Moving(moving) = &mut self.state {
            moving.last.get_or_insert(LAST_CALL);
        }
    }

    /// Drops everything.
    pub(super) fn stop(&mut self) {
        self.state = State::Over;
    }

    /// Nothing is left to be moved.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(self.state, State::Moving(_))
    }

    /// When it wants a turn without being called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Over => None,
            State::Moving(moving) => moving.rest,
            State::Lingering { look, .. } => Some(*look),
        }
    }

    /// The master of a terminal, if that is where it reads.
    pub(super) fn console(&self) -> Option<&OwnedFd> {
        match &self.state {
            State::Moving(moving) if moving.source.is_terminal => Some(moving.source.fd.get()),
            _ => None,
        }
    }

    /// Whether it splices; tests turn it off, as kernels do that can't.
    #[cfg(test)]
    pub(super) fn splices(&mut self) -> Option<&mut bool> {
        match &mut self.state {
            State::Moving(moving) => Some(&mut moving.splices),
            _ => None,
        }
    }

    /// For the dump: `stdout: moving, 4096 bytes`.
    pub(super) fn describe(&self) -> String {
        let state = match &self.state {
            State::Over => "over",
            State::Moving(moving) if moving.sink.is_none() => "dropping",
            State::Moving(moving) if moving.last.is_some() => "ending",
            State::Moving(_) => "moving",
            State::Lingering { .. } => "waiting for a reader",
        };
        format!("{}: {state}, {} bytes", self.name, self.moved)
    }
}

impl Moving {
    fn new(source: End, sink: Option<End>, keeper: Option<OwnedFd>) -> Self {
        let (carried, splices, rest, last) = (Vec::new(), true, None, None);
        Self { source, sink, keeper, carried, splices, rest, last }
    }

    /// One turn; false at the end of the source.
    fn step(
        &mut self,
        unwanted: Unwanted,
        is_fifo: bool,
        moved: &mut u64,
        now: Instant,
    ) -> Result<bool> {
        if self.rest.is_some_and(|until| now < until) {
            return Ok(true);
        }
        self.rest = None;
        let Some(mut ready) = self.look() else {
            self.rest = Some(now);
            return Ok(true);
        };
        if ready.broken {
            // Only without its keeper, at the very end, is a FIFO without readers broken.
            if is_fifo {
                return Ok(false);
            }
            self.sink = None;
            self.carried = Vec::new();
            ready.writable = true;
        }
        let has_bytes = ready.readable || !self.carried.is_empty();
        if has_bytes && self.sink.is_none() && unwanted == Unwanted::Refuse {
            return Ok(false);
        }
        if has_bytes && ready.writable {
            return self.advance(moved, now);
        }
        if has_bytes {
            return self.wait(Interest::Off, Interest::Write);
        }
        if self.last.is_some() || (ready.hung_up && !self.source.is_terminal) {
            return Ok(false);
        }
        let source = if ready.hung_up { Interest::Change } else { Interest::Read };
        self.wait(source, Interest::Off)
    }

    /// Both ends are ready.
    fn advance(&mut self, moved: &mut u64, now: Instant) -> Result<bool> {
        let terminal = self.source.is_terminal || self.sink.as_ref().is_some_and(|s| s.is_terminal);
        let calls = if terminal { TERMINAL_MOVES } else { 1 };
        let mut sum = 0;
        for _ in 0..calls {
            match self.call(terminal)? {
                Moved::Some(count) => sum += count as u64,
                Moved::Nothing => break,
                Moved::End => {
                    *moved += sum;
                    return Ok(false);
                }
            }
        }
        *moved += sum;
        if let Some(last) = &mut self.last {
            if sum >= *last {
                return Ok(false);
            }
            *last -= sum;
            // Nobody tells that a source is empty.
            self.rest = Some(now);
        }
        if sum == 0 {
            self.rest = Some(now + REST);
            return self.wait(Interest::Off, Interest::Off);
        }
        if self.carried.is_empty() {
            self.wait(Interest::Read, Interest::Off)
        } else {
            self.wait(Interest::Off, Interest::Write)
        }
    }

    /// What the ends are ready for; none if a signal came in between.
    fn look(&self) -> Option<Ready> {
        let sink = self.sink.as_ref();
        let mut fds = [
            PollFd::new(self.source.fd.as_fd(), PollFlags::POLLIN),
            // Without a sink, any descriptor with nothing to be asked.
            sink.map_or(PollFd::new(self.source.fd.as_fd(), PollFlags::empty()), |sink| {
                PollFd::new(sink.fd.as_fd(), PollFlags::POLLOUT)
            }),
        ];
        poll(&mut fds, PollTimeout::ZERO).ok()?;
        let [from, to] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        Some(Ready {
            readable: from.contains(PollFlags::POLLIN),
            hung_up: from.intersects(PollFlags::POLLHUP | PollFlags::POLLERR),
            writable: sink.is_none() || to.contains(PollFlags::POLLOUT),
            broken: sink.is_some_and(|sink| !sink.is_terminal) && to.contains(PollFlags::POLLERR),
        })
    }

    /// What the loop is to wait for.
    fn wait(&mut self, source: Interest, sink: Interest) -> Result<bool> {
        self.source.fd.want(source)?;
        if let Some(end) = &mut self.sink {
            end.fd.want(match (end.is_terminal, sink) {
                // It may hang up meanwhile, and stay so.
                (true, Interest::Write) => Interest::Change,
                (_, sink) => sink,
            })?;
        }
        Ok(true)
    }

    /// One call's worth.
    fn call(&mut self, terminal: bool) -> Result<Moved> {
        let Some(sink) = &self.sink else {
            return Ok(match read(self.source.fd.get(), &mut [0; TERMINAL_CHUNK]) {
                Ok(0) => Moved::End,
                Ok(count) => Moved::Some(count),
                Err(errno) => nothing(errno)?,
            });
        };
        if !self.splices {
            return self.copy();
        }
        let chunk = if terminal { TERMINAL_CHUNK } else { PIPE_CHUNK };
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        match splice(self.source.fd.get(), None, sink.fd.get(), None, chunk, flags) {
            Ok(0) => Ok(Moved::End),
            Ok(count) => Ok(Moved::Some(count)),
            Err(Errno::EINVAL) => {
                self.splices = false;
                self.copy()
            }
            Err(errno) => nothing(errno),
        }
    }
}

impl Moving {
    /// One call's worth without splice(2). At most one chunk is held, when the sink took less.
    fn copy(&mut self) -> Result<Moved> {
        let Some(sink) = &self.sink else { return Ok(Moved::Nothing) };
        if self.carried.is_empty() {
            let mut chunk = [0; TERMINAL_CHUNK];
            match read(self.source.fd.get(), &mut chunk) {
                Ok(0) => return Ok(Moved::End),
                Ok(count) => self.carried.extend_from_slice(&chunk[..count]),
                Err(errno) => return nothing(errno),
            }
        }
        match write(sink.fd.get(), &self.carried) {
            Ok(count) if count == self.carried.len() => {
                self.carried = Vec::new();
                Ok(Moved::Some(count))
            }
            Ok(count) => {
                self.carried.drain(..count);
                Ok(Moved::Some(count))
            }
            Err(errno) => nothing(errno),
        }
    }
}

/// Not now: the next look at the ends says why. The others are real failures.
fn nothing(errno: Errno) -> Result<Moved> {
    match errno {
        // EIO: no process has the terminal open.
        Errno::EAGAIN | Errno::EINTR | Errno::EPIPE | Errno::EIO => Ok(Moved::Nothing),
        errno => Err(Error::sys("move its bytes", errno)),
    }
}

/// Whether somebody has the other side open, as far as can be known now.
fn has_reader(sink: &End, now: Instant) -> bool {
    if sink.fd.is_copied(now) {
        return false;
    }
    let mut fds = [PollFd::new(sink.fd.as_fd(), PollFlags::empty())];
    // Interrupted, it says "no", which is looked at again.
    poll(&mut fds, PollTimeout::ZERO).is_ok() && !fds[0].any().unwrap_or(true)
}
