//! A ttrpc frame: ten bytes of header, and up to 4 MiB of payload.
//!
//! A longer payload is thrown away as it comes in, never held, and the frame is told as oversized
//! once all of it has passed; the stream of frames stays in step. Memory is taken as bytes arrive,
//! not for the length that a header claims.

/// Bytes of a header: length (4), stream (4), both big-endian, kind, flags.
pub const HEADER: usize = 10;

/// The longest payload.
pub const MAX_PAYLOAD: usize = 4 << 20;

/// A client's first frame on a stream.
pub const REQUEST: u8 = 1;
/// A server's last frame on a stream.
pub const RESPONSE: u8 = 2;
/// What streaming methods exchange in between.
pub const DATA: u8 = 3;

/// Flag of a data frame that carries nothing but its flags.
pub const NO_DATA: u8 = 4;

/// What a frame says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload that follow.
    pub length: u32,
    /// The call that it belongs to; odd ones are begun by clients.
    pub stream: u32,
    /// [`REQUEST`], [`RESPONSE`], [`DATA`], or something of the future.
    pub kind: u8,
    /// Their meaning depends on the kind.
    pub flags: u8,
}

impl Header {
    fn parse(bytes: [u8; HEADER]) -> Self {
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, flags] = bytes;
        Self {
            length: u32::from_be_bytes([l0, l1, l2, l3]),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            kind,
            flags,
        }
    }

    fn oversized(self) -> bool {
        self.length as usize > MAX_PAYLOAD
    }
}

/// A whole frame for the wire, with no flags, its payload written by `fill`.
///
/// The caller keeps to [`MAX_PAYLOAD`].
pub fn encode(stream: u32, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    fill(&mut frame);
    let length = u32::try_from(frame.len() - HEADER).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame[4..8].copy_from_slice(&stream.to_be_bytes());
    frame[8] = kind;
    frame
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A frame with its payload.
    Frame(Header, Vec<u8>),
    /// A frame with too long a payload, which is gone.
    Oversized(Header),
}

/// Cuts a stream of bytes into frames, however the bytes are split.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER],
    /// Bytes of the frame seen so far, header included.
    seen: usize,
    payload: Vec<u8>,
}

impl Decoder {
    /// Takes bytes off the front of `input` until a frame is complete or the input is empty.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Incoming> {
        if self.seen < HEADER {
            let part = take(input, HEADER - self.seen);
            self.header[self.seen..self.seen + part.len()].copy_from_slice(part);
            self.seen += part.len();
            if self.seen < HEADER {
                return None;
            }
        }
        let header = Header::parse(self.header);
        let whole = HEADER + header.length as usize;
        let part = take(input, whole - self.seen);
        self.seen += part.len();
        if !header.oversized() {
            self.payload.extend_from_slice(part);
        }
        if self.seen < whole {
            return None;
        }
        self.seen = 0;
        let payload = std::mem::take(&mut self.payload);
        Some(if header.oversized() {
            Incoming::Oversized(header)
        } else {
            Incoming::Frame(header, payload)
        })
    }
}

/// Up to `most` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (part, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    part
}
