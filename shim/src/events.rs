//! Events for containerd: what happened to tasks, in order, each once as far as that can be.
//!
//! The publisher is a ttrpc client of `containerd.services.events.ttrpc.v1.Events/Forward` at
//! containerd's `TTRPC_ADDRESS`. It never blocks and needs no answer to go on: events wait in
//! memory.
//!
//! - **Order**: one event is in flight at a time; the next is sent when it is acknowledged.
//! - **No duplicates from impatience**: an answer is waited for as long as the connection lives. A
//!   stopped or slow containerd has the event in its socket and will read it; a second copy would
//!   be a second exit.
//! - **No loss from a restart**: after a lost connection the publisher tries again, after 100 ms,
//!   then twice that each time up to 2 s, for as long as it takes. Only what was not acknowledged
//!   is sent again. If it had gone out whole, containerd may have seen it: that is a repeat, and
//!   counted.
//! - **An error in answer** means that containerd did not take the event. `Unavailable`,
//!   `ResourceExhausted`, `DeadlineExceeded`, `Canceled` and `Aborted` are of the moment: the same
//!   event is tried again, with the same pauses. Any other code will not change by trying: the
//!   event is dropped, with a warning.
//! - **Memory**: nothing is held when nothing waits. If containerd stays away, at most
//!   [`MAX_WAITING`] events are kept; then the oldest that is not an exit makes room.
//!
//! Without an address there is nobody to tell: events are dropped, with one warning.

mod kinds;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use corten::error::{Doing, Result, errno_words};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::poll::{Poller, Token};
use crate::transport::call::{Call, Code, Fields, Status, oversized, parse_reply};
use crate::transport::channel::Channel;
use crate::transport::frame::{Incoming, RESPONSE};

pub use kinds::Event;

/// The first pause before trying again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Events kept while containerd is away; about 5 MB.
pub const MAX_WAITING: usize = 16384;

/// What is never dropped to make room while something else could be.
const EXIT_TOPIC: &str = "/tasks/exit";

/// Tells containerd.
#[derive(Debug)]
pub struct Publisher {
    address: Option<UnixAddr>,
    namespace: String,
    poller: Poller,
    token: Token,
    link: Option<Link>,
    /// The first one is in flight if the link is waiting.
    waiting: VecDeque<Waiting>,
    /// Nothing is tried before.
    retry_at: Option<Instant>,
    /// The next pause.
    pause: Duration,
    repeats: u64,
    lost: u64,
}

/// A connection to containerd.
#[derive(Debug)]
struct Link {
    channel: Channel,
    /// None when the numbers have run out.
    next_stream: Option<u32>,
    /// The event in flight: its stream, and when it was sent.
    in_flight: Option<(u32, Instant)>,
}

/// An event that is not acknowledged.
#[derive(Debug)]
struct Waiting {
    topic: &'static str,
    /// The `ForwardRequest`.
    request: Vec<u8>,
    /// It went out whole on a connection that was lost then.
    maybe_taken: bool,
}

impl Publisher {
    /// A publisher for events of `namespace` to the socket at `address`, with or without
    /// `unix://`. It connects when there is something to tell.
    pub fn new(address: &str, namespace: &str, poller: &Poller, token: Token) -> Self {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let parsed = match path {
            "" => Err("TTRPC_ADDRESS is empty".to_owned()),
            path => UnixAddr::new(path).map_err(|errno| format!("{path}: {}", errno_words(errno))),
        };
        if let Err(why) = &parsed {
            tracing::warn!("events are dropped: {why}");
        }
        Self {
            address: parsed.ok(),
            namespace: namespace.to_owned(),
            poller: poller.clone(),
            token,
            link: None,
            waiting: VecDeque::new(),
            retry_at: None,
            pause: FIRST_PAUSE,
            repeats: 0,
            lost: 0,
        }
    }

    /// Tells what happened just now.
    pub fn publish(&mut self, event: &Event) {
        match event.encode() {
            Ok(value) => self.push(event.topic(), event.type_url(), &value, SystemTime::now()),
            // Only a message over 2 GiB can't be encoded.
            Err(error) => tracing::warn!("encode an event for {}: {error}", event.topic()),
        }
    }

    /// Tells the event `value`, a message of type `type_url`, which happened at `at`.
    pub fn push(&mut self, topic: &'static str, type_url: &str, value: &[u8], at: SystemTime) {
        if self.address.is_none() {
            return;
        }
        if self.waiting.len() >= MAX_WAITING {
            self.make_room();
        }
        let request = forward_request(&self.namespace, topic, type_url, value, at);
        self.waiting.push_back(Waiting { topic, request, maybe_taken: false });
        self.go_on(Instant::now());
    }

    /// Called when the socket is ready.
    pub fn turn(&mut self) {
        let now = Instant::now();
        let Some(link) = &mut self.link else { return };
        match link.channel.flush().and_then(|()| link.channel.receive()) {
            Err(errno) => {
                self.lose(now, &format!("connection to containerd: {}", errno_words(errno)));
            }
            Ok(received) => {
                for incoming in received.frames {
                    self.take(now, incoming);
                }
                if received.end {
                    self.lose(now, "containerd closed the connection");
                }
            }
        }
        self.go_on(now);
    }

    /// When [`tick`](Self::tick) wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Tries again if the pause is over.
    pub fn tick(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.go_on(now);
        }
    }

    /// Events that containerd has not acknowledged.
    pub fn pending(&self) -> usize {
        self.waiting.len()
    }

    /// Events that containerd may have seen twice.
    #[cfg(test)]
    pub fn repeats(&self) -> u64 {
        self.repeats
    }

    /// One line for a person who asks what the shim is doing.
    pub fn describe(&self) -> String {
        let since = |at: Instant| at.elapsed().as_secs_f32();
        let link = match (&self.address, &self.link) {
            (None, _) => "dropped, there is no address".to_owned(),
            (_, Some(link)) => link.in_flight.map_or_else(
                || "connected, nothing in flight".to_owned(),
                |(_, sent)| format!("connected, the first in flight for {:.3} s", since(sent)),
            ),
            (_, None) => "not connected".to_owned(),
        };
        let retry = self.retry_at.map_or_else(String::new, |at| {
            let left = at.saturating_duration_since(Instant::now()).as_secs_f32();
            format!(", trying again in {left:.3} s")
        });
        let Self { repeats, lost, .. } = self;
        let waiting = self.waiting.len();
        format!("events: {waiting} waiting, {link}{retry}; {repeats} repeated, {lost} lost")
    }

    /// Sends the first event, if nothing speaks against it.
    fn go_on(&mut self, now: Instant) {
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
            self.retry_at = None;
            return;
        }
        if self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.retry_at = None;
        if self.link.as_ref().is_some_and(|link| link.in_flight.is_some()) {
            return;
        }
        if let Err(error) = self.send_first(now) {
            self.lose(now, &error.to_string());
        }
    }

    /// Sends the first event, on a new connection if need be.
    fn send_first(&mut self, now: Instant) -> Result<()> {
        let usable = self.link.take().filter(|link| link.next_stream.is_some());
        let link = match usable {
            Some(link) => self.link.insert(link),
            None => {
                let link = self.connect()?;
                self.link.insert(link)
            }
        };
        let Some(first) = self.waiting.front() else { return Ok(()) };
        self.repeats += u64::from(first.maybe_taken);
        link.send(now, &self.namespace, &first.request).doing(|| "send to containerd".to_owned())
    }

    fn connect(&self) -> Result<Link> {
        let doing = || "connect to containerd".to_owned();
        let address = self.address.as_ref().ok_or(Errno::ENOENT).doing(doing)?;
        let stream = connect_to(address).doing(doing)?;
        let channel = Channel::new(stream, &self.poller, self.token)?;
        Ok(Link { channel, next_stream: Some(1), in_flight: None })
    }

    /// An answer, if it is to the event in flight.
    fn take(&mut self, now: Instant, incoming: Incoming) {
        let Some(link) = &mut self.link else { return };
        let (header, reply) = match incoming {
            Incoming::Frame(header, payload) => (header, parse_reply(&payload)),
            Incoming::Oversized(header) => (header, Err(oversized(header.length as usize))),
        };
        let stream = link.in_flight.map(|(stream, _)| stream);
        if header.kind != RESPONSE || stream != Some(header.stream) {
            return;
        }
        link.in_flight = None;
        if let Err(status) = reply {
            if is_of_the_moment(status.code) {
                // If an earlier copy was taken, this one is counted as its repeat already.
                if let Some(first) = self.waiting.front_mut() {
                    first.maybe_taken = false;
                }
                self.wait(now, &format!("containerd answered {status}"));
                return;
            }
            self.drop_first(&status);
        }
        if self.pause != FIRST_PAUSE {
            tracing::info!("events go on");
            self.pause = FIRST_PAUSE;
        }
        self.waiting.pop_front();
        self.go_on(now);
    }

    fn drop_first(&mut self, status: &Status) {
        self.lost += 1;
        let topic = self.waiting.front().map_or("", |first| first.topic);
        tracing::warn!("an event for {topic} is dropped: containerd answered {status}");
    }

    /// There is no connection, or no more. It is made again when there is something to tell.
    fn lose(&mut self, now: Instant, why: &str) {
        if let Some(mut link) = self.link.take() {
            link.channel.cut();
            if let (Some(_), Some(first)) = (link.in_flight, self.waiting.front_mut()) {
                first.maybe_taken |= link.channel.queued() == 0;
            }
        }
        if !self.waiting.is_empty() {
            self.wait(now, why);
        }
    }

    fn wait(&mut self, now: Instant, why: &str) {
        // Once for all the pauses of an outage.
        if self.pause == FIRST_PAUSE {
            let waiting = self.waiting.len();
            tracing::warn!("events wait ({waiting}): {why}; trying until it works");
        }
        self.retry_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn make_room(&mut self) {
        if self.lost == 0 {
            tracing::warn!("{MAX_WAITING} events wait for containerd: the oldest are dropped");
        }
        self.lost += 1;
        // The first one may be in flight.
        let oldest = self.waiting.iter().skip(1).position(|event| event.topic != EXIT_TOPIC);
        self.waiting.remove(oldest.map_or(1, |at| at + 1));
    }
}

impl Link {
    fn send(&mut self, now: Instant, namespace: &str, request: &[u8]) -> Result<(), Errno> {
        // Above the last number there is a new connection, not a second stream 1.
        let stream = self.next_stream.ok_or(Errno::EOVERFLOW)?;
        self.next_stream = stream.checked_add(2);
        self.in_flight = Some((stream, now));
        let call = Call {
            stream,
            service: "containerd.services.events.ttrpc.v1.Events".to_owned(),
            method: "Forward".to_owned(),
            payload: request.to_vec(),
            timeout: None,
            metadata: vec![("containerd-namespace-ttrpc".to_owned(), namespace.to_owned())],
        };
        self.channel.send(call.encode())
    }
}

/// Whether the same event may be taken a moment later.
fn is_of_the_moment(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::Canceled
            | Code::Aborted
    )
}

/// A Unix socket's connect is done at once or not at all: with a full backlog it is `EAGAIN`, and
/// nothing is under way.
fn connect_to(address: &UnixAddr) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(stream.as_raw_fd(), address)?;
    Ok(stream)
}

/// `ForwardRequest{envelope{timestamp, namespace, topic, event}}`.
fn forward_request(
    namespace: &str,
    topic: &str,
    type_url: &str,
    value: &[u8],
    at: SystemTime,
) -> Vec<u8> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut request = Vec::new();
    Fields(&mut request).message(1, |envelope| {
        envelope.message(1, |timestamp| {
            timestamp.number(1, since.as_secs());
            timestamp.number(2, since.subsec_nanos().into());
        });
        envelope.bytes(2, namespace.as_bytes());
        envelope.bytes(3, topic.as_bytes());
        envelope.message(4, |any| {
            any.bytes(1, type_url.as_bytes());
            any.bytes(2, value);
        });
    });
    request
}
