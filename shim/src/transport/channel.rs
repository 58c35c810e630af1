//! A socket that frames go through, both ways, without ever blocking.
//!
//! Idle, it owns its descriptor and no buffer: bytes are read into the caller's stack and kept
//! only as the beginning of a frame; frames are written at once, and queued only as far as the
//! socket has no room.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use corten::error::Result;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

use crate::poll::{Interest, Poller, Token, Watched};
use crate::transport::frame::{Decoder, Incoming};

/// How much is read at a time, on the stack.
const CHUNK: usize = 4096;

/// How often that is done in one turn, so that one peer's flood does not keep others waiting.
const CHUNKS_PER_TURN: usize = 16;

/// What one turn of reading found.
#[derive(Debug, Default)]
pub struct Received {
    /// Whole frames, in order.
    pub frames: Vec<Incoming>,
    /// The peer will send no more.
    pub end: bool,
}

/// One connected stream socket.
#[derive(Debug)]
pub struct Channel {
    socket: Watched<OwnedFd>,
    reading: bool,
    decoder: Decoder,
    /// Frames to be written.
    queue: VecDeque<Vec<u8>>,
    /// Bytes of the first one that are written.
    sent: usize,
    /// Bytes in the queue that are not.
    queued: usize,
}

impl Channel {
    /// Takes a connected stream socket. It need not be non-blocking.
    ///
    /// # Errors
    /// Those of [`Poller::watch`].
    pub fn new(socket: OwnedFd, poller: &Poller, token: Token) -> Result<Self> {
        Ok(Self {
            socket: poller.watch(socket, token, Interest::Read)?,
            reading: true,
            decoder: Decoder::default(),
            queue: VecDeque::new(),
            sent: 0,
            queued: 0,
        })
    }

    /// Reads this turn's share of what is there.
    ///
    /// # Errors
    /// The socket's, after which nothing can come any more.
    pub fn receive(&mut self) -> Result<Received, Errno> {
        let mut received = Received::default();
        let mut chunk = [0; CHUNK];
        for _ in 0..CHUNKS_PER_TURN {
            let fd = self.socket.as_fd().as_raw_fd();
            let count = match recv(fd, &mut chunk, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => {
                    received.end = true;
                    break;
                }
                Ok(count) => count,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                // What came before is whole, and is not lost for what happened after it.
                Err(_) if !received.frames.is_empty() => break,
                Err(errno) => return Err(errno),
            };
            let mut input = &chunk[..count];
            while let Some(incoming) = self.decoder.next(&mut input) {
                received.frames.push(incoming);
            }
            if count < CHUNK {
                break;
            }
        }
        Ok(received)
    }

    /// Sends a frame after those that are queued.
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush).
    pub fn send(&mut self, frame: Vec<u8>) -> Result<(), Errno> {
        self.queued += frame.len();
        self.queue.push_back(frame);
        self.flush()
    }

    /// Writes as much of the queue as there is room for.
    ///
    /// # Errors
    /// The socket's, after which nothing can be written any more.
    pub fn flush(&mut self) -> Result<(), Errno> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while let Some(frame) = self.queue.front() {
            match send(self.socket.as_fd().as_raw_fd(), &frame[self.sent..], flags) {
                Ok(count) => {
                    self.queued -= count;
                    self.sent += count;
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            }
            if self.sent == frame.len() {
                self.queue.pop_front();
                self.sent = 0;
            }
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        self.settle()
    }

    /// Whether to be told of what there is to read.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn read(&mut self, reading: bool) -> Result<(), Errno> {
        self.reading = reading;
        self.settle()
    }

    /// Bytes that wait for the peer to read.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Ends the connection for the peer, even if a forked worker holds a copy of the descriptor
    /// for a moment, and for the loop, which is told of a hang-up.
    pub fn cut(&mut self) {
        // It fails only if the peer has done so already.
        let _cut_already = shutdown(self.socket.as_fd().as_raw_fd(), Shutdown::Both);
    }

    /// What is allocated.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.queue.capacity() + self.decoder.held()
    }

    fn settle(&mut self) -> Result<(), Errno> {
        let interest = match (self.reading, self.queue.is_empty()) {
            (true, true) => Interest::Read,
            (true, false) => Interest::Both,
            (false, false) => Interest::Write,
            (false, true) => Interest::Nothing,
        };
        self.socket.want(interest).map_err(|error| error.errno().unwrap_or(Errno::EIO))
    }
}
