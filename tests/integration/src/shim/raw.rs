//! ttrpc as bytes: a client that keeps to the protocol by hand, or does not.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::{Request, Response};

use super::task::PATIENCE;
use crate::driver::patience;
use crate::managers::Stop;

/// A request's type in the header.
pub const REQUEST: u8 = 1;
/// A response's type.
pub const RESPONSE: u8 = 2;

/// A connection to a shim without any client library.
#[derive(Debug)]
pub struct Raw {
    /// The stream itself.
    pub stream: UnixStream,
}

/// A frame: stream, type, flags, data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The stream's number.
    pub stream: u32,
    /// What it is.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// What it carries.
    pub data: Vec<u8>,
}

impl Raw {
    /// Connects to `unix:///…`.
    pub fn connect(address: &str) -> Result<Self, Stop> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience(PATIENCE)))?;
        stream.set_write_timeout(Some(patience(PATIENCE)))?;
        Ok(Self { stream })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends a request.
    pub fn request(&mut self, stream: u32, request: &Request) -> Result<(), Stop> {
        let bytes = frame(stream, REQUEST, 0, &request.write_to_bytes()?);
        self.send(&bytes)
    }

    /// Receives one frame.
    pub fn frame(&mut self) -> Result<Frame, Stop> {
        let mut header = [0; 10];
        self.stream.read_exact(&mut header)?;
        let number = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let mut data = vec![0; number(0) as usize];
        self.stream.read_exact(&mut data)?;
        Ok(Frame { stream: number(4), kind: header[8], flags: header[9], data })
    }

    /// Receives one response, which must be on `stream`.
    pub fn response(&mut self, stream: u32) -> Result<Response, Stop> {
        let frame = self.frame()?;
        if (frame.stream, frame.kind) != (stream, RESPONSE) {
            return Err(Stop::Fail(format!("wanted a response on {stream}, saw {frame:?}")));
        }
        Ok(Response::parse_from_bytes(&frame.data)?)
    }

    /// Whether the other side closes within `limit`; an answer is not a close.
    pub fn closes(&mut self, limit: Duration) -> Result<bool, Stop> {
        self.stream.set_read_timeout(Some(limit))?;
        let mut byte = [0];
        let closed = match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        self.stream.set_read_timeout(Some(patience(PATIENCE)))?;
        Ok(closed)
    }
}

/// The bytes of a frame.
pub fn frame(stream: u32, kind: u8, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = (data.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(data);
    bytes
}

/// A request message of the task service.
pub fn request(service: &str, method: &str, message: &impl Message) -> Request {
    let mut request = Request::new();
    request.service = service.to_owned();
    request.method = method.to_owned();
    request.payload = message.write_to_bytes().expect("a message can be written");
    request
}
