use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{StateRequest, StateResponse};
use containerd_shim_protos::shim_sync::TaskClient;
use containerd_shim_protos::ttrpc;
use nix::sys::socket::{setsockopt, sockopt::SndBuf};
use protobuf::Message;

use super::*;
use crate::transport::call::parse_reply;
use crate::transport::frame::{DATA, Decoder, HEADER, MAX_PAYLOAD, NO_DATA, REQUEST, RESPONSE};

const TOKEN: Token = Token(9);

fn pair() -> (Poller, Connection, Peer) {
    pair_with_buffer(None)
}

fn pair_with_buffer(size: Option<usize>) -> (Poller, Connection, Peer) {
    let poller = Poller::new().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    if let Some(size) = size {
        setsockopt(&ours, SndBuf, &size).unwrap();
    }
    theirs.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let connection = Connection::new(ours.into(), &poller, TOKEN).unwrap();
    (poller, connection, Peer { socket: theirs, decoder: Decoder::default(), rest: Vec::new() })
}

/// Whether the loop would be told of something within `time`.
fn told(poller: &Poller, time: Duration) -> bool {
    !poller.wait(Some(Instant::now() + time)).unwrap().is_empty()
}

/// What the loop does, until `enough`.
fn serve(poller: &Poller, connection: &mut Connection, mut enough: impl FnMut(Call) -> bool) {
    loop {
        assert!(told(poller, Duration::from_secs(20)), "nothing came");
        for call in connection.turn().unwrap() {
            if enough(call) {
                return;
            }
        }
    }
}

struct Peer {
    socket: UnixStream,
    decoder: Decoder,
    rest: Vec<u8>,
}

impl Peer {
    fn send(&mut self, frame: &[u8]) {
        self.socket.write_all(frame).unwrap();
    }

    fn call(&mut self, stream: u32) {
        self.send(&request(stream).encode());
    }

    /// The next frame, which is a response: its stream and what it says.
    fn answer(&mut self) -> (u32, Result<Vec<u8>, Status>) {
        loop {
            let mut input = &self.rest[..];
            let incoming = self.decoder.next(&mut input);
            self.rest = input.to_vec();
            if let Some(Incoming::Frame(header, payload)) = incoming {
                assert_eq!((header.kind, header.flags), (RESPONSE, 0));
                return (header.stream, parse_reply(&payload));
            }
            let mut bytes = [0; 65536];
            let count = self.socket.read(&mut bytes).expect("no answer");
            assert_ne!(count, 0, "end of file");
            self.rest.extend_from_slice(&bytes[..count]);
        }
    }

    fn refusal(&mut self) -> (u32, Code) {
        let (stream, reply) = self.answer();
        (stream, reply.unwrap_err().code)
    }
}

fn request(stream: u32) -> Call {
    Call {
        stream,
        service: "service".to_owned(),
        method: "method".to_owned(),
        payload: b"payload".to_vec(),
        timeout: None,
        metadata: Vec::new(),
    }
}

/// Any frame.
fn raw(stream: u32, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame::encode(stream, kind, |out| out.extend_from_slice(payload));
    frame[9] = flags;
    frame
}

#[test]
fn calls_are_answered_in_any_order() {
    let (poller, mut connection, mut peer) = pair();
    assert!(!told(&poller, Duration::ZERO));
    peer.call(1);
    peer.call(3);
    assert!(told(&poller, Duration::ZERO));
    assert_eq!(connection.turn(), Ok(vec![request(1), request(3)]));
    assert_eq!(connection.in_progress(), 2);
    connection.reply(3, Ok(b"three".to_vec()));
    connection.reply(1, Err(Status::new(Code::NotFound, "one")));
    assert_eq!(peer.answer(), (3, Ok(b"three".to_vec())));
    assert_eq!(peer.answer(), (1, Err(Status::new(Code::NotFound, "one"))));
    assert_eq!(connection.in_progress(), 0);
    assert!(!told(&poller, Duration::ZERO));
}

#[test]
fn a_call_is_answered_once() {
    let (_poller, mut connection, mut peer) = pair();
    peer.call(1);
    connection.turn().unwrap();
    connection.reply(1, Ok(b"first".to_vec()));
    connection.reply(1, Ok(b"second".to_vec()));
    connection.reply(5, Ok(b"never asked".to_vec()));
    peer.call(3);
    connection.turn().unwrap();
    connection.reply(3, Ok(Vec::new()));
    assert_eq!(peer.answer(), (1, Ok(b"first".to_vec())));
    assert_eq!(peer.answer(), (3, Ok(Vec::new())));
}

#[test]
fn a_request_that_comes_byte_by_byte_is_one_call() {
    let (_poller, mut connection, mut peer) = pair();
    let frame = request(1).encode();
    for byte in &frame[..frame.len() - 1] {
        peer.send(&[*byte]);
        assert_eq!(connection.turn(), Ok(Vec::new()));
    }
    peer.send(&frame[frame.len() - 1..]);
    assert_eq!(connection.turn(), Ok(vec![request(1)]));
}

#[test]
fn who_breaks_the_protocol_is_told_and_served_on() {
    let (_poller, mut connection, mut peer) = pair();
    let mut refused = |frame: &[u8]| {
        peer.send(frame);
        assert_eq!(connection.turn(), Ok(Vec::new()));
        peer.refusal()
    };
    assert_eq!(refused(&request(2).encode()), (2, Code::InvalidArgument));
    assert_eq!(refused(&request(0).encode()), (0, Code::InvalidArgument));
    assert_eq!(refused(&raw(4, DATA, 0, b"x")), (4, Code::InvalidArgument));
    assert_eq!(refused(&raw(1, DATA, 0, b"x")), (1, Code::InvalidArgument), "not begun");
    assert_eq!(refused(&raw(1, REQUEST, 0, b"\x0a\x05s")), (1, Code::InvalidArgument));
    assert_eq!(refused(&request(1).encode()), (1, Code::InvalidArgument), "used up");
    peer.call(7);
    assert_eq!(connection.turn(), Ok(vec![request(7)]));
    let mut refused = |frame: &[u8]| {
        peer.send(frame);
        assert_eq!(connection.turn(), Ok(Vec::new()));
        peer.refusal()
    };
    assert_eq!(refused(&request(5).encode()), (5, Code::InvalidArgument), "not above the last");
    connection.reply(7, Ok(Vec::new()));
    assert_eq!(peer.answer(), (7, Ok(Vec::new())));
    peer.send(&raw(7, DATA, 0, b"x"));
    assert_eq!(connection.turn(), Ok(Vec::new()));
    assert_eq!(peer.refusal(), (7, Code::InvalidArgument), "no longer active");
    peer.call(9);
    assert_eq!(connection.turn(), Ok(vec![request(9)]));
}

#[test]
fn frames_of_the_future_and_responses_are_ignored() {
    let (_poller, mut connection, mut peer) = pair();
    peer.send(&raw(1, 4, 0, b"future"));
    peer.send(&raw(1, RESPONSE, 0, b""));
    peer.send(&raw(1, 0, 255, b""));
    peer.call(1);
    assert_eq!(connection.turn(), Ok(vec![request(1)]));
    connection.reply(1, Ok(Vec::new()));
    assert_eq!(peer.answer(), (1, Ok(Vec::new())));
}

#[test]
fn data_for_a_call_in_progress_is_refused_and_is_its_answer() {
    let (_poller, mut connection, mut peer) = pair();
    peer.call(1);
    peer.call(3);
    // That it sends no more is nothing to complain about.
    peer.send(&raw(1, DATA, NO_DATA | 1, b""));
    assert_eq!(connection.turn(), Ok(vec![request(1), request(3)]));
    peer.send(&raw(3, DATA, 0, b"x"));
    assert_eq!(connection.turn(), Ok(Vec::new()));
    connection.reply(3, Ok(b"too late".to_vec()));
    connection.reply(1, Ok(b"one".to_vec()));
    assert_eq!(peer.refusal(), (3, Code::InvalidArgument));
    assert_eq!(peer.answer(), (1, Ok(b"one".to_vec())));
}

#[test]
fn a_payload_over_the_limit_is_refused_and_the_next_call_served() {
    let (poller, mut connection, mut peer) = pair();
    let sender = thread::spawn(move || {
        peer.send(&raw(1, REQUEST, 0, &vec![0xff; MAX_PAYLOAD + 1]));
        peer.call(3);
        peer
    });
    serve(&poller, &mut connection, |call| call == request(3));
    let mut peer = sender.join().unwrap();
    let (stream, refusal) = peer.answer();
    let refusal = refusal.unwrap_err();
    assert_eq!((stream, refusal.code), (1, Code::ResourceExhausted));
    assert_eq!(refusal.message, "message length 4194305 exceed maximum message size of 4194304");
}

#[test]
fn a_turn_reads_a_share_and_the_loop_is_told_of_the_rest() {
    let (poller, mut connection, mut peer) = pair();
    let mut flood = Vec::new();
    for stream in (1..4000).step_by(2) {
        flood.extend(request(stream).encode());
    }
    peer.send(&flood);
    let first = connection.turn().unwrap().len();
    assert!((1..=(64 << 10) / request(1).encode().len()).contains(&first), "{first}");
    let mut got = first;
    while told(&poller, Duration::ZERO) {
        got += connection.turn().unwrap().len();
    }
    assert_eq!(got, 2000);
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from() {
    let (poller, mut connection, mut peer) = pair();
    let mut asked: Vec<u32> = Vec::new();
    let mut most = 0;
    for stream in (1..401).step_by(2) {
        peer.call(stream);
    }
    while told(&poller, Duration::ZERO) {
        for call in connection.turn().unwrap() {
            asked.push(call.stream);
            connection.reply(call.stream, Ok(vec![1; 100 << 10]));
        }
        most = most.max(connection.queued());
    }
    assert!(connection.queued() > MAX_QUEUED);
    // One turn's calls come before it is known that their answers are too much.
    assert_eq!(connection.in_progress(), 0);
    let before = asked.len();
    peer.call(401);
    assert!(!told(&poller, Duration::ZERO), "the loop is not woken for what it will not read");
    assert_eq!(connection.turn(), Ok(Vec::new()));
    assert_eq!(asked.len(), before);

    let reader = thread::spawn(move || {
        let answers: Vec<u32> = (0..201).map(|_| peer.answer().0).collect();
        (peer, answers)
    });
    serve(&poller, &mut connection, |call| {
        asked.push(call.stream);
        call.stream == 401
    });
    connection.reply(401, Ok(Vec::new()));
    while connection.queued() > 0 {
        assert!(told(&poller, Duration::from_secs(20)));
        connection.turn().unwrap();
    }
    let (_peer, answers) = reader.join().unwrap();
    assert_eq!(answers, asked);
    assert!(!told(&poller, Duration::ZERO), "with all sent, the loop rests");
}

#[test]
fn answers_that_do_not_fit_go_when_there_is_room() {
    let (poller, mut connection, mut peer) = pair_with_buffer(Some(4096));
    peer.call(1);
    connection.turn().unwrap();
    let long: Vec<u8> = (0..MAX_PAYLOAD - 100).map(|at| at as u8).collect();
    connection.reply(1, Ok(long.clone()));
    assert!(connection.queued() > 0);
    // The peer lives on: its end would be found in the turn that sends the last bytes.
    let reader = thread::spawn(move || (peer.answer(), peer));
    while connection.queued() > 0 {
        assert!(told(&poller, Duration::from_secs(20)));
        connection.turn().unwrap();
    }
    assert!(reader.join().unwrap().0 == (1, Ok(long)));
}

#[test]
fn too_many_calls_in_progress_are_refused_and_served_again_after() {
    let (poller, mut connection, mut peer) = pair();
    let mut stream = 1;
    while connection.in_progress() < MAX_CALLS {
        peer.call(stream);
        stream += 2;
        connection.turn().unwrap();
    }
    peer.call(stream);
    assert_eq!(connection.turn(), Ok(Vec::new()));
    assert_eq!(peer.refusal(), (stream, Code::ResourceExhausted));
    connection.reply(1, Ok(Vec::new()));
    assert_eq!(peer.answer(), (1, Ok(Vec::new())));
    peer.call(stream + 2);
    assert_eq!(connection.turn(), Ok(vec![request(stream + 2)]));
    assert!(!told(&poller, Duration::ZERO));
}

#[test]
fn the_last_calls_come_before_the_end() {
    let (poller, mut connection, mut peer) = pair();
    peer.call(1);
    peer.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(connection.turn(), Ok(vec![request(1)]));
    // A peer that closed only its own half still hears what is said at once.
    connection.reply(1, Ok(b"bye".to_vec()));
    assert!(told(&poller, Duration::ZERO));
    assert_eq!(connection.turn(), Err(Closed(None)));
    assert_eq!(peer.answer(), (1, Ok(b"bye".to_vec())));
    // And the end, whoever else still holds a copy of the descriptor.
    assert_eq!(peer.socket.read(&mut [0]).unwrap(), 0);
}

/// A request whose frame is exactly what one read takes, so that the same turn sees what follows.
fn one_read(stream: u32) -> Call {
    let mut call = request(stream);
    while call.encode().len() < 4096 {
        call.payload.push(0);
    }
    assert_eq!(call.encode().len(), 4096);
    call
}

#[test]
fn calls_are_not_lost_to_the_end_in_the_same_turn() {
    let (_poller, mut connection, mut peer) = pair();
    peer.send(&one_read(1).encode());
    drop(peer);
    assert_eq!(connection.turn(), Ok(vec![one_read(1)]));
    assert_eq!(connection.turn(), Err(Closed(None)));

    // A peer that left an answer unread leaves an error, not an end.
    let (_poller, mut connection, mut peer) = pair();
    peer.call(1);
    connection.turn().unwrap();
    connection.reply(1, Ok(Vec::new()));
    peer.send(&one_read(3).encode());
    drop(peer);
    assert_eq!(connection.turn(), Ok(vec![one_read(3)]));
    assert!(connection.turn().is_err());
}

#[test]
fn a_peer_that_is_gone_is_told_to_the_loop() {
    let (poller, mut connection, mut peer) = pair();
    peer.call(1);
    connection.turn().unwrap();
    drop(peer);
    connection.reply(1, Ok(Vec::new()));
    assert!(told(&poller, Duration::ZERO));
    assert!(connection.turn().is_err());

    // One that only will not listen any more is no different.
    let (poller, mut connection, mut peer) = pair();
    peer.call(1);
    connection.turn().unwrap();
    peer.socket.shutdown(Shutdown::Read).unwrap();
    connection.reply(1, Ok(Vec::new()));
    assert!(told(&poller, Duration::ZERO));
    assert_eq!(connection.turn(), Err(Closed(Some(Errno::EPIPE))));
}

#[test]
fn a_frame_cut_off_by_the_end_is_no_call() {
    let (_poller, mut connection, mut peer) = pair();
    let frame = request(1).encode();
    peer.send(&frame[..HEADER + 3]);
    drop(peer);
    while let Ok(calls) = connection.turn() {
        assert!(calls.is_empty());
    }
}

#[test]
fn an_idle_connection_is_small() {
    let (_poller, mut connection, mut peer) = pair();
    let mut long = request(1);
    long.payload = vec![0; 100 << 10];
    peer.send(&long.encode());
    while connection.in_progress() == 0 {
        connection.turn().unwrap();
    }
    peer.call(3);
    connection.turn().unwrap();
    for stream in [1, 3] {
        connection.reply(stream, Ok(vec![0; 10 << 10]));
    }
    assert_eq!(connection.active.capacity(), 0);
    assert_eq!(connection.channel.held(), 0);
    assert!(size_of::<Connection>() <= 200, "{}", size_of::<Connection>());
}

#[test]
fn the_independent_client_is_served() {
    let (poller, mut connection, peer) = pair();
    let client = ttrpc::Client::new(peer.socket.into_raw_fd()).unwrap();
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let task = TaskClient::new(client.clone());
            thread::spawn(move || {
                for turn in 0..50 {
                    let id = format!("{number}-{turn}-{}", "x".repeat(turn * 400));
                    let request = StateRequest { id: id.clone(), ..Default::default() };
                    let mut context = ttrpc::context::with_timeout(20_000_000_000);
                    context.add("namespace".to_owned(), "ns".to_owned());
                    let reply = task.state(context, &request);
                    if turn == 7 {
                        let Err(ttrpc::Error::RpcStatus(status)) = reply else { panic!() };
                        assert_eq!(status.code(), ttrpc::Code::NOT_FOUND);
                        assert_eq!(status.message(), id);
                    } else {
                        assert_eq!(reply.unwrap().bundle, id);
                    }
                }
            })
        })
        .collect();
    let mut left = 8 * 50;
    let mut held: Vec<Call> = Vec::new();
    let mut answer = |connection: &mut Connection, call: Call| {
        assert_eq!((&call.service[..], &call.method[..]), ("containerd.task.v3.Task", "State"));
        assert_eq!(call.timeout, Some(Duration::from_secs(20)));
        assert_eq!(call.metadata, [("namespace".to_owned(), "ns".to_owned())]);
        let id = StateRequest::parse_from_bytes(&call.payload).unwrap().id;
        let reply = if id.contains("-7-") {
            Err(Status::new(Code::NotFound, id))
        } else {
            let state = StateResponse { bundle: id, ..Default::default() };
            Ok(state.write_to_bytes().unwrap())
        };
        connection.reply(call.stream, reply);
        left -= 1;
        left == 0
    };
    'all: loop {
        let calls = if told(&poller, Duration::from_millis(20)) {
            connection.turn().unwrap()
        } else {
            Vec::new()
        };
        // Later calls are answered first.
        let quiet = calls.is_empty();
        held.extend(calls);
        while held.len() > 4 || (quiet && !held.is_empty()) {
            if answer(&mut connection, held.pop().unwrap()) {
                break 'all;
            }
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
}
