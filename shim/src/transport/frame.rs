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

    /// What is allocated.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.payload.capacity()
    }
}

/// Up to `most` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (part, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    part
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    /// All frames in `bytes`, fed in pieces of the given lengths.
    fn decode(bytes: &[u8], cuts: &[usize]) -> (Vec<Incoming>, Decoder) {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        let mut rest = bytes;
        let mut cuts = cuts.iter().copied().chain(std::iter::repeat(usize::MAX));
        while !rest.is_empty() {
            let mut piece = take(&mut rest, cuts.next().unwrap());
            while let Some(frame) = decoder.next(&mut piece) {
                frames.push(frame);
            }
            assert!(piece.is_empty());
        }
        (frames, decoder)
    }

    #[test]
    fn a_frame_is_these_bytes() {
        let frame = encode(0x0102_0305, DATA, |out| out.extend_from_slice(b"ab"));
        assert_eq!(frame, [0, 0, 0, 2, 1, 2, 3, 5, 3, 0, b'a', b'b']);
        assert_eq!(encode(1, RESPONSE, |_| ()), [0, 0, 0, 0, 0, 0, 0, 1, 2, 0]);
    }

    #[test]
    fn flags_and_future_kinds_come_through() {
        let (frames, _) = decode(&[0, 0, 0, 1, 0, 0, 0, 9, 77, NO_DATA, 5], &[]);
        let header = Header { length: 1, stream: 9, kind: 77, flags: NO_DATA };
        assert_eq!(frames, [Incoming::Frame(header, vec![5])]);
    }

    #[test]
    fn the_longest_payload_passes_and_one_byte_more_is_thrown_away() {
        let longest = encode(1, REQUEST, |out| out.resize(HEADER + MAX_PAYLOAD, 7));
        let mut bytes = longest.clone();
        bytes.extend(encode(3, REQUEST, |out| out.resize(HEADER + MAX_PAYLOAD + 1, 7)));
        bytes.extend(encode(5, REQUEST, |out| out.push(7)));
        let (frames, decoder) = decode(&bytes, &[]);
        let header = |length: usize, stream| Header {
            length: length.try_into().unwrap(),
            stream,
            kind: REQUEST,
            flags: 0,
        };
        let [Incoming::Frame(first, payload), second, third] = &frames[..] else {
            panic!("{} frames", frames.len());
        };
        assert_eq!((*first, &payload[..]), (header(MAX_PAYLOAD, 1), &longest[HEADER..]));
        assert_eq!(*second, Incoming::Oversized(header(MAX_PAYLOAD + 1, 3)));
        assert_eq!(*third, Incoming::Frame(header(1, 5), vec![7]));
        assert_eq!(decoder.payload.capacity(), 0, "nothing is kept between frames");
    }

    #[test]
    fn no_memory_is_taken_for_a_length_that_is_only_claimed() {
        let mut claimed = encode(1, REQUEST, |out| out.extend_from_slice(b"abc"));
        claimed[1] = 0x40;
        let (frames, decoder) = decode(&claimed, &[]);
        assert!(frames.is_empty());
        assert!(decoder.payload.capacity() < 64);
        claimed[0] = 0xff;
        let (frames, decoder) = decode(&claimed, &[]);
        assert!(frames.is_empty());
        assert_eq!(decoder.payload.capacity(), 0, "what is too long is not held at all");
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_however_they_are_split(
            sent in prop::collection::vec(
                (any::<u32>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)),
                0..12,
            ),
            cuts in prop::collection::vec(0usize..30, 0..80),
        ) {
            let mut bytes = Vec::new();
            for (stream, kind, payload) in &sent {
                bytes.extend(encode(*stream, *kind, |out| out.extend_from_slice(payload)));
            }
            let (frames, decoder) = decode(&bytes, &cuts);
            prop_assert_eq!(decoder.seen, 0);
            prop_assert_eq!(frames.len(), sent.len());
            for (frame, (stream, kind, payload)) in frames.iter().zip(&sent) {
                let length = payload.len().try_into().unwrap();
                let header = Header { length, stream: *stream, kind: *kind, flags: 0 };
                prop_assert_eq!(frame, &Incoming::Frame(header, payload.clone()));
            }
        }

        #[test]
        fn any_bytes_decode_the_same_however_they_are_split(
            // Mostly small lengths, or nothing would ever be a frame.
            bytes in prop::collection::vec(prop::sample::select(vec![0u8, 0, 0, 0, 1, 2, 9, 255]), 0..400),
            cuts in prop::collection::vec(0usize..20, 0..80),
        ) {
            let (frames, decoder) = decode(&bytes, &cuts);
            prop_assert_eq!(&frames, &decode(&bytes, &[]).0);
            prop_assert!(decoder.payload.len() <= bytes.len());
        }
    }
}
