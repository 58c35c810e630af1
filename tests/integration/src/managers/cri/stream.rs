//! Streams of `Exec`, `Attach` and `PortForward`, as a WebSocket carries them.
//!
//! containerd's streaming server speaks SPDY and WebSocket; of the latter a client needs one
//! handshake and masked frames. A binary message is one byte, the channel, and its data: 0 is
//! standard input, 1 and 2 output, 3 the result as JSON, 4 the size of the terminal. The end of an
//! input cannot be told in this protocol but by leaving.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::driver::patience;
use crate::managers::{Stop, Verdict};

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);

/// An open connection and what has come over it.
#[derive(Debug)]
pub struct Stream {
    connection: TcpStream,
    channels: [Vec<u8>; 5],
    ended: bool,
}

impl Stream {
    /// Connects to a URL that `Exec`, `Attach` or `PortForward` has answered.
    pub fn open(url: &str) -> Result<Self, Stop> {
        let address = url.strip_prefix("http://").ok_or_else(|| format!("what is {url}?"))?;
        let (host, path) = address.split_once('/').ok_or_else(|| format!("no path in {url}"))?;
        let mut connection = TcpStream::connect(host)?;
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(patience(LIMIT)))?;
        // The key is any 16 bytes in base64; nothing between us caches.
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        );
        connection.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            connection.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if !head.starts_with("HTTP/1.1 101") {
            return Err(Stop::Fail(format!("{url}: {head}")));
        }
        Ok(Self { connection, channels: Default::default(), ended: false })
    }

    /// Writes to a channel.
    pub fn write(&mut self, channel: u8, data: &[u8]) -> Verdict {
        self.frame(BINARY, &[&[channel], data].concat())
    }

    /// Writes to standard input.
    pub fn send(&mut self, text: &str) -> Verdict {
        self.write(0, text.as_bytes())
    }

    /// Sets the size of the terminal.
    pub fn resize(&mut self, rows: u16, columns: u16) -> Verdict {
        self.write(4, format!("{{\"Width\":{columns},\"Height\":{rows}}}").as_bytes())
    }

    /// What has come on a channel so far, without carriage returns.
    pub fn text(&self, channel: usize) -> String {
        String::from_utf8_lossy(&self.channels[channel]).replace('\r', "")
    }

    /// Waits until a channel has brought `part`.
    pub fn expect(&mut self, channel: usize, part: &str) -> Verdict {
        let end = Instant::now() + patience(LIMIT);
        while !self.text(channel).contains(part) {
            if self.ended || Instant::now() > end {
                let all: Vec<String> = (0..5).map(|number| self.text(number)).collect();
                return Err(Stop::Fail(format!("no {part:?} on channel {channel}: {all:?}")));
            }
            self.receive()?;
        }
        Ok(())
    }

    /// Waits for the end: the exit code in the result.
    pub fn finish(mut self) -> Result<(i64, Self), Stop> {
        let end = Instant::now() + patience(LIMIT);
        while !self.ended && self.channels[3].is_empty() && Instant::now() < end {
            self.receive()?;
        }
        let result = self.text(3);
        let status: Value = serde_json::from_str(&result)
            .map_err(|error| Stop::Fail(format!("result {result:?}: {error}")))?;
        if status["status"] == "Success" {
            return Ok((0, self));
        }
        let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
        let code = causes.iter().find(|cause| cause["reason"] == "ExitCode");
        let code = code.and_then(|cause| cause["message"].as_str()?.parse().ok());
        Ok((code.ok_or_else(|| format!("no exit code in {result}"))?, self))
    }

    /// Waits until the server closes the connection.
    pub fn until_closed(&mut self) -> Verdict {
        while !self.ended {
            self.receive()?;
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) -> Verdict {
        // A mask of zeros is a mask: the payload stays as it is.
        let mut frame = vec![0x80 | kind];
        match u8::try_from(payload.len()) {
            Ok(length @ ..126) => frame.push(0x80 | length),
            _ => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&u16::try_from(payload.len())?.to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        Ok(self.connection.write_all(&frame)?)
    }

    /// Reads one frame into its channel.
    fn receive(&mut self) -> Verdict {
        let mut head = [0; 2];
        if let Err(error) = self.connection.read_exact(&mut head) {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                self.ended = true;
                return Ok(());
            }
            return Err(Stop::Fail(format!("nothing came: {error}; so far {self:?}")));
        }
        let length = match head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(self.take()?)),
            127 => u64::from_be_bytes(self.take()?),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length)?];
        self.connection.read_exact(&mut payload)?;
        match head[0] & 0xf {
            CLOSE => self.ended = true,
            PING => self.frame(PONG, &payload)?,
            _ => {
                if let Some((&channel, data)) = payload.split_first()
                    && let Some(kept) = self.channels.get_mut(usize::from(channel))
                {
                    kept.extend_from_slice(data);
                }
            }
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        self.connection.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
