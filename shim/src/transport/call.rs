//! What is in the frames: a call, and the answer to it.
//!
//! The messages are ttrpc's `Request` and `Response` (request.proto) and google.rpc's `Status`.
//! What is read from a peer goes through the generated parser; what we write is a few fields, put
//! down directly in [`Fields`], which can't fail.

use std::fmt;
use std::time::Duration;

use containerd_shim_protos::ttrpc::proto;
use protobuf::{CodedInputStream, Message, UnknownFields, rt};

use crate::transport::frame;

/// gRPC's status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// Not an error.
    Ok = 0,
    /// The caller gave up.
    Canceled = 1,
    /// Anything that has no code of its own.
    Unknown = 2,
    /// The request can't be right, whatever the state.
    InvalidArgument = 3,
    /// It took longer than the caller wanted to wait.
    DeadlineExceeded = 4,
    /// No such thing.
    NotFound = 5,
    /// The id is taken.
    AlreadyExists = 6,
    /// Not for this caller.
    PermissionDenied = 7,
    /// A limit is reached.
    ResourceExhausted = 8,
    /// The state does not allow it.
    FailedPrecondition = 9,
    /// It met with another call.
    Aborted = 10,
    /// Beyond the end.
    OutOfRange = 11,
    /// No such service or method.
    Unimplemented = 12,
    /// An invariant is broken.
    Internal = 13,
    /// Not now; try again.
    Unavailable = 14,
    /// Data is lost or corrupted.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

impl Code {
    /// The code of a number on the wire; `Unknown` for a number that has none.
    pub fn from_wire(number: i32) -> Self {
        const ALL: [Code; 17] = [
            Code::Ok,
            Code::Canceled,
            Code::Unknown,
            Code::InvalidArgument,
            Code::DeadlineExceeded,
            Code::NotFound,
            Code::AlreadyExists,
            Code::PermissionDenied,
            Code::ResourceExhausted,
            Code::FailedPrecondition,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unimplemented,
            Code::Internal,
            Code::Unavailable,
            Code::DataLoss,
            Code::Unauthenticated,
        ];
        usize::try_from(number).ok().and_then(|at| ALL.get(at)).copied().unwrap_or(Self::Unknown)
    }
}

/// Why a call failed, for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What containerd decides by.
    pub code: Code,
    /// What a person reads.
    pub message: String,
}

impl Status {
    /// `code` with its words.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

/// The most pairs of metadata that are kept: containerd sends a handful, and nothing here reads them.
const MAX_METADATA: usize = 64;

/// One call of a client. It is answered once, on its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Where the answer goes: [`super::Connection::reply`].
    pub stream: u32,
    /// `containerd.task.v3.Task`.
    pub service: String,
    /// `Create`.
    pub method: String,
    /// The method's own message.
    pub payload: Vec<u8>,
    /// How long the caller will wait from now on; zero if its time is over already.
    pub timeout: Option<Duration>,
    /// What came beside: `containerd-namespace-ttrpc` and the like.
    pub metadata: Vec<(String, String)>,
}

impl Call {
    /// Reads a request frame's payload.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no `Request`.
    pub fn parse(stream: u32, payload: &[u8]) -> Result<Self, Status> {
        Self::read(stream, payload).map_err(|error| {
            Status::new(Code::InvalidArgument, format!("unmarshal request error: {error}"))
        })
    }

    /// Field by field: the generated code takes 70 bytes for an empty pair of two, and more for a
    /// field that it does not know.
    fn read(stream: u32, payload: &[u8]) -> protobuf::Result<Self> {
        let mut call = Self {
            stream,
            service: String::new(),
            method: String::new(),
            payload: Vec::new(),
            timeout: None,
            metadata: Vec::new(),
        };
        check_lengths(payload)?;
        let mut fields = CodedInputStream::from_bytes(payload);
        while let Some(tag) = fields.read_raw_tag_or_eof()? {
            match tag {
                0x0a => call.service = fields.read_string()?,
                0x12 => call.method = fields.read_string()?,
                0x1a => call.payload = fields.read_bytes()?,
                0x20 => {
                    call.timeout = match fields.read_int64()? {
                        0 => None,
                        nanos => Some(Duration::from_nanos(nanos.try_into().unwrap_or(0))),
                    }
                }
                0x2a => {
                    let pair = pair(&fields.read_bytes()?)?;
                    if call.metadata.len() < MAX_METADATA {
                        call.metadata.push(pair);
                    }
                }
                tag => skip(tag, &mut fields)?,
            }
        }
        Ok(call)
    }

    /// The request frame of this call, for a client.
    pub fn encode(&self) -> Vec<u8> {
        frame::encode(self.stream, frame::REQUEST, |out| {
            let mut request = Fields(out);
            request.bytes(1, self.service.as_bytes());
            request.bytes(2, self.method.as_bytes());
            request.bytes(3, &self.payload);
            request.number(4, self.timeout.map_or(0, |left| left.as_nanos() as u64));
            for (key, value) in &self.metadata {
                request.message(5, |pair| {
                    pair.bytes(1, key.as_bytes());
                    pair.bytes(2, value.as_bytes());
                });
            }
        })
    }
}

/// Whether the lengths of a message's fields are there. The generated code takes up to 10 MB for a
/// length that is only claimed; within a field it knows how much there is.
///
/// # Errors
/// When one is not.
pub fn check_lengths(message: &[u8]) -> protobuf::Result<()> {
    let mut fields = CodedInputStream::from_bytes(message);
    while let Some(tag) = fields.read_raw_tag_or_eof()? {
        if tag & 7 == 2 {
            let length = fields.read_raw_varint32()?;
            fields.skip_raw_bytes(length)?;
        } else {
            skip(tag, &mut fields)?;
        }
    }
    Ok(())
}

/// Skips a field as the generated code does, which takes groups that `skip_field_for_tag` refuses.
///
/// # Errors
/// When it is no field.
pub fn skip(tag: u32, fields: &mut CodedInputStream<'_>) -> protobuf::Result<()> {
    rt::read_unknown_or_skip_group(tag, fields, &mut UnknownFields::new())
}

/// A `KeyValue`.
fn pair(bytes: &[u8]) -> protobuf::Result<(String, String)> {
    let (mut key, mut value) = (String::new(), String::new());
    check_lengths(bytes)?;
    let mut fields = CodedInputStream::from_bytes(bytes);
    while let Some(tag) = fields.read_raw_tag_or_eof()? {
        match tag {
            0x0a => key = fields.read_string()?,
            0x12 => value = fields.read_string()?,
            tag => skip(tag, &mut fields)?,
        }
    }
    Ok((key, value))
}

/// The response frame that answers a call. What is too long to send is an error instead.
pub fn encode_reply(stream: u32, reply: &Result<Vec<u8>, Status>) -> Vec<u8> {
    let frame = frame::encode(stream, frame::RESPONSE, |out| {
        let mut response = Fields(out);
        match reply {
            Ok(payload) => response.bytes(2, payload),
            Err(status) => response.message(1, |fields| {
                fields.number(1, status.code as u64);
                fields.bytes(2, status.message.as_bytes());
            }),
        }
    });
    match frame.len() - frame::HEADER {
        0..=frame::MAX_PAYLOAD => frame,
        length => encode_reply(stream, &Err(oversized(length))),
    }
}

/// Reads a response frame's payload, for a client.
///
/// # Errors
/// What the server answered; `Internal` for what is no `Response`.
pub fn parse_reply(payload: &[u8]) -> Result<Vec<u8>, Status> {
    let response = check_lengths(payload).and_then(|()| proto::Response::parse_from_bytes(payload));
    let response = response.map_err(|error| {
        Status::new(Code::Internal, format!("unmarshal response error: {error}"))
    })?;
    match response.status.into_option() {
        Some(status) if status.code.value() != 0 => {
            Err(Status::new(Code::from_wire(status.code.value()), status.message))
        }
        _ => Ok(response.payload),
    }
}

/// What a message over the limit is answered with.
pub fn oversized(length: usize) -> Status {
    let max = frame::MAX_PAYLOAD;
    let message = format!("message length {length} exceed maximum message size of {max}");
    Status::new(Code::ResourceExhausted, message)
}

/// Writes a protobuf message field by field. As proto3 has it, empty values are left out.
#[derive(Debug)]
pub struct Fields<'a>(pub &'a mut Vec<u8>);

impl Fields<'_> {
    /// A varint: integers, enums, booleans.
    pub fn number(&mut self, field: u8, value: u64) {
        if value != 0 {
            self.0.push(field << 3);
            self.varint(value);
        }
    }

    /// Bytes or a string.
    pub fn bytes(&mut self, field: u8, value: &[u8]) {
        if !value.is_empty() {
            self.0.push(field << 3 | 2);
            self.varint(value.len() as u64);
            self.0.extend_from_slice(value);
        }
    }

    /// A message, which is there even if it is empty.
    pub fn message(&mut self, field: u8, fill: impl FnOnce(&mut Fields<'_>)) {
        let mut inner = Vec::new();
        fill(&mut Fields(&mut inner));
        self.0.push(field << 3 | 2);
        self.varint(inner.len() as u64);
        self.0.append(&mut inner);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::frame::{Decoder, Incoming};

    fn payload(frame: &[u8]) -> Vec<u8> {
        match Decoder::default().next(&mut &frame[..]) {
            Some(Incoming::Frame(_, payload)) => payload,
            other => panic!("{other:?}"),
        }
    }

    fn call() -> Call {
        Call {
            stream: 7,
            service: "containerd.task.v3.Task".to_owned(),
            method: "State".to_owned(),
            payload: vec![0xa5; 300],
            timeout: Some(Duration::from_secs(5)),
            metadata: vec![("k".to_owned(), "v".to_owned()), ("e".to_owned(), String::new())],
        }
    }

    #[test]
    fn a_request_is_these_bytes() {
        let small = Call {
            stream: 1,
            service: "s".to_owned(),
            method: "m".to_owned(),
            payload: b"p".to_vec(),
            timeout: None,
            metadata: Vec::new(),
        };
        let bytes = b"\0\0\0\x09\0\0\0\x01\x01\0\x0a\x01s\x12\x01m\x1a\x01p";
        assert_eq!(small.encode(), bytes);
        assert_eq!(Call::parse(1, &bytes[10..]), Ok(small));
    }

    #[test]
    fn requests_are_those_of_the_generated_code() {
        let mut theirs = proto::Request::new();
        theirs.service = call().service;
        theirs.method = call().method;
        theirs.payload = call().payload;
        theirs.timeout_nano = 5_000_000_000;
        for (key, value) in call().metadata {
            theirs.metadata.push(proto::KeyValue { key, value, ..Default::default() });
        }
        assert_eq!(payload(&call().encode()), theirs.write_to_bytes().unwrap());
        assert_eq!(Call::parse(7, &theirs.write_to_bytes().unwrap()), Ok(call()));
    }

    #[test]
    fn a_deadline_that_is_past_is_no_time_left() {
        let mut late = proto::Request::new();
        late.timeout_nano = -1;
        let parsed = Call::parse(1, &late.write_to_bytes().unwrap()).unwrap();
        assert_eq!(parsed.timeout, Some(Duration::ZERO));
        assert_eq!(Call::parse(1, &[]).unwrap().timeout, None);
    }

    #[test]
    fn what_is_no_request_is_an_invalid_argument() {
        // A field that ends too early; a service that is not UTF-8; a number that never ends.
        for bytes in [
            &b"\x0a\x05s"[..],
            b"\x0a\x01\xff",
            b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let status = Call::parse(1, bytes).unwrap_err();
            assert_eq!(status.code, Code::InvalidArgument, "{status}");
        }
    }

    #[test]
    fn replies_are_these_bytes() {
        assert_eq!(encode_reply(3, &Ok(Vec::new())), *b"\0\0\0\0\0\0\0\x03\x02\0");
        assert_eq!(encode_reply(3, &Ok(b"p".to_vec())), *b"\0\0\0\x03\0\0\0\x03\x02\0\x12\x01p");
        let missing = Err(Status::new(Code::NotFound, "x"));
        assert_eq!(
            encode_reply(3, &missing),
            *b"\0\0\0\x07\0\0\0\x03\x02\0\x0a\x05\x08\x05\x12\x01x"
        );
    }

    #[test]
    fn replies_are_those_of_the_generated_code() {
        let mut theirs = proto::Response::new();
        let status = theirs.status.mut_or_insert_default();
        status.code = proto::Code::FAILED_PRECONDITION.into();
        status.message = "cannot delete a running process".repeat(9);
        let reply = Err(Status::new(Code::FailedPrecondition, status.message.clone()));
        assert_eq!(payload(&encode_reply(1, &reply)), theirs.write_to_bytes().unwrap());
        assert_eq!(parse_reply(&theirs.write_to_bytes().unwrap()), reply);

        let mut theirs = proto::Response::new();
        theirs.payload = vec![1; 5000];
        assert_eq!(payload(&encode_reply(1, &Ok(vec![1; 5000]))), theirs.write_to_bytes().unwrap());
        assert_eq!(parse_reply(&theirs.write_to_bytes().unwrap()), Ok(vec![1; 5000]));
    }

    #[test]
    fn codes_are_the_ones_of_the_generated_code() {
        for number in 0..=16 {
            let code = Code::from_wire(number);
            assert_eq!(code as i32, number);
            let theirs = <proto::Code as protobuf::Enum>::from_i32(number).unwrap();
            assert_eq!(
                format!("{theirs:?}").replace('_', "").replace("LL", "L"),
                format!("{code:?}").to_uppercase()
            );
        }
        assert_eq!(Code::from_wire(17), Code::Unknown);
        assert_eq!(Code::from_wire(-1), Code::Unknown);
    }

    #[test]
    fn a_reply_that_is_too_long_is_an_error_instead() {
        // A payload in a response has a tag and four bytes of length before it.
        let longest = encode_reply(1, &Ok(vec![0; frame::MAX_PAYLOAD - 5]));
        assert_eq!(longest.len(), frame::HEADER + frame::MAX_PAYLOAD);
        let longer = encode_reply(1, &Ok(vec![0; frame::MAX_PAYLOAD - 4]));
        let status = parse_reply(&payload(&longer)).unwrap_err();
        assert_eq!(status.code, Code::ResourceExhausted);
        assert_eq!(status.message, "message length 4194305 exceed maximum message size of 4194304");
    }
}
