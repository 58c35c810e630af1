//! One gRPC call: a connection of its own, one request, one reply.
//!
//! HTTP/2 asks little of a client that never has two streams: its preface, an acknowledged
//! SETTINGS, a window wide enough for any reply, and header compression towards us. A request
//! fits into the window that every server opens with, so flow control never stops it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use httlib_hpack::{Decoder, Encoder};

use crate::managers::Stop;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// END_STREAM of data and headers, ACK of settings and pings.
const END: u8 = 1;
const END_HEADERS: u8 = 4;
/// The largest frame, and the window, of a peer that has said nothing else.
const FRAME: usize = 16384;
const WINDOW: usize = 65535;

/// How a call ended.
#[derive(Debug)]
pub struct Reply {
    /// The gRPC status, 0 for success.
    pub status: u32,
    /// What the server says about it.
    pub message: String,
    /// The encoded message.
    pub body: Vec<u8>,
}

/// Calls `method` (`/package.Service/Name`) with an encoded message.
pub fn call(socket: &Path, method: &str, body: &[u8], limit: Duration) -> Result<Reply, Stop> {
    call_with(socket, method, &[], body, limit)
}

/// The same with headers of one's own.
pub fn call_with(
    socket: &Path,
    method: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    limit: Duration,
) -> Result<Reply, Stop> {
    let stream = UnixStream::connect(socket)
        .map_err(|error| format!("connect to {}: {error}", socket.display()))?;
    let end = Instant::now() + crate::driver::patience(limit);
    let mut connection = Connection { stream, end, method: method.to_owned() };
    connection.send(method, headers, body)?;
    connection.receive()
}

struct Connection {
    stream: UnixStream,
    end: Instant,
    method: String,
}

impl Connection {
    fn send(&mut self, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<(), Stop> {
        self.stream.write_all(PREFACE)?;
        // SETTINGS_INITIAL_WINDOW_SIZE, and the same for the connection.
        let wide = 0x4000_0000_u32.to_be_bytes();
        self.frame(SETTINGS, 0, 0, &[&[0, 4], wide.as_slice()].concat())?;
        self.frame(WINDOW_UPDATE, 0, 0, &wide)?;
        let mut encoder = Encoder::default();
        let mut block = Vec::new();
        let usual = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        for (name, value) in usual.iter().chain(headers) {
            let field = (name.as_bytes().to_vec(), value.as_bytes().to_vec(), 0);
            encoder.encode(field, &mut block).map_err(|error| format!("{name}: {error:?}"))?;
        }
        self.frame(HEADERS, END_HEADERS, 1, &block)?;
        let length = u32::try_from(body.len())?;
        let message = [&[0], length.to_be_bytes().as_slice(), body].concat();
        if message.len() > WINDOW {
            return Err(Stop::Fail(format!("{method}: {} bytes to send", message.len())));
        }
        let last = message.len().div_ceil(FRAME) - 1;
        for (number, part) in message.chunks(FRAME).enumerate() {
            self.frame(DATA, if number == last { END } else { 0 }, 1, part)?;
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), Stop> {
        let length = u32::try_from(payload.len())?.to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        Ok(self.stream.write_all(&[head.as_slice(), payload].concat())?)
    }

    /// Reads frames until the trailers.
    fn receive(&mut self) -> Result<Reply, Stop> {
        let mut decoder = Decoder::default();
        let (mut data, mut block, mut fields) = (Vec::new(), Vec::new(), Vec::new());
        let mut ends = false;
        loop {
            let (kind, flags, payload) = self.next()?;
            match kind {
                DATA => data.extend_from_slice(&payload),
                HEADERS | CONTINUATION => {
                    ends |= kind == HEADERS && flags & END != 0;
                    block.extend_from_slice(&payload);
                    if flags & END_HEADERS != 0 {
                        decoder
                            .decode(&mut block, &mut fields)
                            .map_err(|error| format!("{}: headers: {error:?}", self.method))?;
                        if ends {
                            return reply(&fields, &data);
                        }
                    }
                }
                SETTINGS if flags & END == 0 => self.frame(SETTINGS, END, 0, &[])?,
                PING if flags & END == 0 => self.frame(PING, END, 0, &payload)?,
                RESET | GOAWAY => {
                    let text = String::from_utf8_lossy(&payload).into_owned();
                    return Err(Stop::Fail(format!("{}: ended by {text:?}", self.method)));
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(u8, u8, Vec<u8>), Stop> {
        let mut head = [0; 9];
        self.read(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length)?];
        self.read(&mut payload)?;
        Ok((head[3], head[4], payload))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), Stop> {
        let left = self.end.saturating_duration_since(Instant::now());
        self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let method = &self.method;
        self.stream
            .read_exact(buffer)
            .map_err(|error| Stop::Fail(format!("{method}: no reply: {error}")))
    }
}

/// Makes a reply of all headers and the data, whose first five bytes are gRPC's frame.
fn reply(fields: &[(Vec<u8>, Vec<u8>, u8)], data: &[u8]) -> Result<Reply, Stop> {
    let field = |name: &str| {
        let found = fields.iter().find(|(key, _, _)| key == name.as_bytes());
        found.map(|(_, value, _)| String::from_utf8_lossy(value).into_owned())
    };
    let status = field("grpc-status").ok_or_else(|| format!("no grpc-status in {fields:?}"))?;
    let message = unescape(&field("grpc-message").unwrap_or_default());
    Ok(Reply { status: status.parse()?, message, body: data.get(5..).unwrap_or_default().into() })
}

/// Undoes the percent encoding of `grpc-message`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (byte, left) = match code {
            Some(code) if byte == b'%' => (code, &after[2..]),
            _ => (byte, after),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
