//! A ttrpc client with next to nothing in it: one write and, mostly, one read for a call, on the
//! thread that asks. What it measures is the shim.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use containerd_shim_protos::ttrpc::{Request, Response};
use protobuf::Message;

/// A frame: length, stream, type, flags.
const HEADER: usize = 10;
const REQUEST: u8 = 1;
const SERVICE: &str = "containerd.task.v2.Task";
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a shim.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    next_stream: u32,
    /// What was read and not looked at yet.
    unread: Vec<u8>,
    /// Answers to other calls than the one that was waited for.
    early: Vec<(u32, Response)>,
}

impl Client {
    /// Connects to `unix:///…`.
    pub fn connect(address: &str) -> Result<Self, String> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let failed = |error| format!("connect to {path}: {error}");
        let socket = UnixStream::connect(path).map_err(failed)?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        Ok(Self { socket, next_stream: 1, unread: Vec::new(), early: Vec::new() })
    }

    /// Calls a method and waits for the answer.
    pub fn call<Q: Message, A: Message>(&mut self, method: &str, query: &Q) -> Result<A, String> {
        let stream = self.send(method, query)?;
        self.answer(stream).map_err(|error| format!("{method}: {error}"))
    }

    /// Calls a method; [`Client::answer`] takes the stream's number.
    pub fn send<Q: Message>(&mut self, method: &str, query: &Q) -> Result<u32, String> {
        let payload = query.write_to_bytes().map_err(|error| format!("{method}: {error}"))?;
        let (service, method) = (SERVICE.to_owned(), method.to_owned());
        let request = Request { service, method, payload, ..Request::default() };
        let body = request.write_to_bytes().map_err(|error| error.to_string())?;
        let stream = self.next_stream;
        self.next_stream += 2;
        let mut frame = (body.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(&[REQUEST, 0]);
        frame.extend_from_slice(&body);
        self.socket.write_all(&frame).map_err(|error| format!("write: {error}"))?;
        Ok(stream)
    }

    /// The answer on a stream.
    pub fn answer<A: Message>(&mut self, stream: u32) -> Result<A, String> {
        loop {
            if let Some(at) = self.early.iter().position(|(number, _)| *number == stream) {
                let (_, response) = self.early.swap_remove(at);
                return match response
                    .status
                    .into_option()
                    .filter(|status| status.code() as i32 != 0)
                {
                    Some(status) => Err(format!("{:?}: {}", status.code(), status.message)),
                    None => {
                        A::parse_from_bytes(&response.payload).map_err(|error| error.to_string())
                    }
                };
            }
            self.receive()?;
        }
    }

    /// Reads until there is one more answer.
    fn receive(&mut self) -> Result<(), String> {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        loop {
            let length = self.unread.get(..4).map_or(0, number) as usize;
            if self.unread.len() >= HEADER + length {
                let stream = number(&self.unread[4..8]);
                let body = &self.unread[HEADER..HEADER + length];
                let response =
                    Response::parse_from_bytes(body).map_err(|error| error.to_string())?;
                self.unread.drain(..HEADER + length);
                self.early.push((stream, response));
                return Ok(());
            }
            let mut buffer = [0; 4096];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err("the shim has closed the connection".to_owned()),
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
                Err(error) => return Err(format!("read: {error}")),
            }
        }
    }
}
