//! What is in the frames: a call, and the answer to it.
//!
//! The messages are ttrpc's `Request` and `Response` (request.proto) and google.rpc's `Status`.
//! What is read from a peer goes through the generated parser; what we write is a few fields, put
//! down directly in [`Fields`], which can't fail.

use std::fmt;
use std::time::Duration;

use containerd_shim_protos::ttrpc::proto;
use protobuf::Message;

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
        let request = proto::Request::parse_from_bytes(payload).map_err(|error| {
            Status::new(Code::InvalidArgument, format!("unmarshal request error: {error}"))
        })?;
        let timeout = match request.timeout_nano {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos.try_into().unwrap_or(0))),
        };
        Ok(Self {
            stream,
            service: request.service,
            method: request.method,
            payload: request.payload,
            timeout,
            metadata: request.metadata.into_iter().map(|pair| (pair.key, pair.value)).collect(),
        })
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
    let response = proto::Response::parse_from_bytes(payload).map_err(|error| {
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
