//! The server's side of one connection: calls in, answers out, nothing waits.
//!
//! What a peer that does not keep to the protocol gets, as containerd's own server has it:
//!
//! | peer | answer on that stream |
//! |---|---|
//! | payload over 4 MiB | `ResourceExhausted`; the payload is thrown away as it comes |
//! | even stream id | `InvalidArgument` |
//! | request on a stream id not above the last one | `InvalidArgument` |
//! | a request that does not parse | `InvalidArgument`, and its stream id is used up |
//! | data for a stream that is not active | `InvalidArgument` |
//! | data for a call in progress | `InvalidArgument`, and the call's own answer is not sent: all methods are unary (the Go server crashes) |
//! | frames of another kind, responses | ignored |
//!
//! The connection lives on in all these cases. End of file ends it, as there: a peer that has only
//! closed its writing half gets what is answered before the loop's next turn. Calls in progress go
//! on, and their answers are for nobody.
//!
//! Memory is bounded, against a peer that asks and does not read: above [`MAX_QUEUED`] bytes of
//! answers nothing more is read until it does, and above [`MAX_CALLS`] calls in progress new ones
//! are answered `ResourceExhausted`. (Stopping to read for those would shut out the Kill that ends
//! all the Waits.)

#[cfg(test)]
mod tests;

use std::fmt;
use std::os::fd::OwnedFd;

use corten::error::{Result, errno_words};
use nix::errno::Errno;

use crate::poll::{Poller, Token};
use crate::transport::call::{Call, Code, Status, encode_reply, oversized};
use crate::transport::channel::Channel;
use crate::transport::frame::{self, Header, Incoming};

/// Bytes of answers that the peer has not read, above which it is not read from.
pub const MAX_QUEUED: usize = 256 << 10;

/// Calls of one connection in progress.
pub const MAX_CALLS: usize = 4096;

/// The connection is over: drop it. Without an errno the peer has just closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed(pub Option<Errno>);

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map_or_else(|| "closed by the peer".to_owned(), errno_words))
    }
}

/// One client.
#[derive(Debug)]
pub struct Connection {
    channel: Channel,
    last_stream: u32,
    /// Streams whose call is not answered yet.
    active: Vec<u32>,
    closed: Option<Closed>,
}

impl Connection {
    /// Serves a connected stream socket.
    ///
    /// # Errors
    /// Those of [`Poller::watch`].
    pub fn new(socket: OwnedFd, poller: &Poller, token: Token) -> Result<Self> {
        let channel = Channel::new(socket, poller, token)?;
        Ok(Self { channel, last_stream: 0, active: Vec::new(), closed: None })
    }

    /// Called when the socket is ready: writes what waits, reads what is there, and gives the
    /// calls. Each of them is answered by one [`reply`](Self::reply), at any time.
    ///
    /// # Errors
    /// When the connection is over, after the last calls were given.
    pub fn turn(&mut self) -> Result<Vec<Call>, Closed> {
        let written = self.channel.flush();
        self.pace(written);
        let calls = match self.closed {
            Some(closed) => Err(closed),
            None if self.full() => Ok(Vec::new()),
            None => self.read(),
        };
        if calls.is_err() {
            self.channel.cut();
        }
        calls
    }

    /// Answers a call. It is sent at once as far as there is room; the rest goes when `turn` is
    /// called. An answer on a stream that waits for none is dropped.
    pub fn reply(&mut self, stream: u32, reply: Result<Vec<u8>, Status>) {
        if let Some(at) = self.active.iter().position(|active| *active == stream) {
            self.active.swap_remove(at);
            if self.active.is_empty() {
                self.active = Vec::new();
            }
            self.send(stream, &reply);
        }
    }

    /// Calls that are not answered yet.
    pub fn in_progress(&self) -> usize {
        self.active.len()
    }

    /// Bytes of answers that the peer has not read.
    pub fn queued(&self) -> usize {
        self.channel.queued()
    }

    fn full(&self) -> bool {
        self.channel.queued() > MAX_QUEUED
    }

    fn read(&mut self) -> Result<Vec<Call>, Closed> {
        let received = self.channel.receive().map_err(|errno| Closed(Some(errno)))?;
        let calls: Vec<Call> =
            received.frames.into_iter().filter_map(|incoming| self.take(incoming)).collect();
        if received.end {
            self.closed.get_or_insert(Closed(None));
            if calls.is_empty() {
                return Err(Closed(None));
            }
        }
        Ok(calls)
    }

    fn take(&mut self, incoming: Incoming) -> Option<Call> {
        let (stream, outcome) = match incoming {
            Incoming::Oversized(header) => (header.stream, Err(oversized(header.length as usize))),
            Incoming::Frame(header, payload) => (header.stream, self.accept(header, &payload)),
        };
        match outcome {
            Ok(call) => call,
            Err(status) => {
                self.send(stream, &Err(status));
                None
            }
        }
    }

    fn accept(&mut self, header: Header, payload: &[u8]) -> Result<Option<Call>, Status> {
        let invalid = |message: &str| Err(Status::new(Code::InvalidArgument, message));
        if header.stream.is_multiple_of(2) {
            return invalid("StreamID must be odd for client initiated streams");
        }
        match header.kind {
            frame::REQUEST if header.stream <= self.last_stream => {
                invalid("StreamID cannot be re-used and must increment")
            }
            frame::REQUEST => {
                self.last_stream = header.stream;
                let call = Call::parse(header.stream, payload)?;
                if self.active.len() >= MAX_CALLS {
                    let message = format!("{MAX_CALLS} calls of this connection are in progress");
                    return Err(Status::new(Code::ResourceExhausted, message));
                }
                self.active.push(header.stream);
                Ok(Some(call))
            }
            frame::DATA => match self.active.iter().position(|active| *active == header.stream) {
                None => invalid("StreamID is no longer active"),
                Some(_) if header.flags & frame::NO_DATA != 0 => Ok(None),
                Some(at) => {
                    self.active.swap_remove(at);
                    invalid("a unary method takes no data")
                }
            },
            _ => Ok(None),
        }
    }

    fn send(&mut self, stream: u32, reply: &Result<Vec<u8>, Status>) {
        if self.closed.is_some_and(|closed| closed.0.is_some()) {
            return;
        }
        let sent = self.channel.send(encode_reply(stream, reply));
        self.pace(sent);
    }

    /// After a write: reads on only if the peer reads too. If nothing more can be written, the
    /// hang-up that we make brings the loop to `turn`, which says so.
    fn pace(&mut self, written: Result<(), Errno>) {
        let room = !self.full();
        if let Err(errno) = written.and_then(|()| self.channel.read(room)) {
            self.closed = Some(Closed(Some(errno)));
            self.channel.cut();
        }
    }
}
