use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use containerd_shim_protos::api::{Empty, ForwardRequest};
use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_sync::{Events, create_events};
use containerd_shim_protos::ttrpc;
use protobuf::Message;

use super::*;
use crate::transport::call::encode_reply;
use crate::transport::frame::{self, Decoder};

/// The independent server: it notes what it gets.
#[derive(Default)]
struct Containerd {
    seen: Mutex<Vec<Envelope>>,
    /// Held by a test to keep the answers back.
    gate: Mutex<()>,
    /// Codes to answer with first.
    errors: Mutex<Vec<ttrpc::Code>>,
    namespaces: Mutex<Vec<Vec<String>>>,
}

impl Events for Containerd {
    fn forward(&self, context: &ttrpc::TtrpcContext, got: ForwardRequest) -> ttrpc::Result<Empty> {
        let namespace = context.metadata.get("containerd-namespace-ttrpc").cloned();
        self.namespaces.lock().unwrap().push(namespace.unwrap_or_default());
        self.seen.lock().unwrap().push(got.envelope.unwrap());
        let _open = self.gate.lock().unwrap();
        match self.errors.lock().unwrap().pop() {
            Some(code) => Err(ttrpc::Error::RpcStatus(ttrpc::get_status(code, "not now"))),
            None => Ok(Empty::new()),
        }
    }
}

struct Setup {
    _dir: tempfile::TempDir,
    path: PathBuf,
    poller: Poller,
    publisher: Publisher,
    containerd: Arc<Containerd>,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let poller = Poller::new().unwrap();
    let address = format!("unix://{}", path.display());
    let publisher = Publisher::new(&address, "ns", &poller, Token(5));
    Setup { _dir: dir, path, poller, publisher, containerd: Arc::default() }
}

impl Setup {
    fn serve(&self) -> ttrpc::Server {
        let service: Arc<dyn Events + Send + Sync> = self.containerd.clone();
        let mut server = ttrpc::Server::new()
            .bind(&format!("unix://{}", self.path.display()))
            .unwrap()
            .register_service(create_events(service));
        server.start().unwrap();
        server
    }

    fn stop(&self, server: ttrpc::Server) {
        server.shutdown();
        // It never closes its listening descriptor, which a containerd that ends does.
        fs::remove_file(&self.path).unwrap();
    }

    fn exit(&mut self, number: usize) {
        self.publisher.publish(&exit(number));
    }

    /// One round of the loop.
    fn round(&mut self, longest: Duration) {
        let until = Instant::now() + longest;
        let deadline = self.publisher.deadline().map_or(until, |at| at.min(until));
        if !self.poller.wait(Some(deadline)).unwrap().is_empty() {
            self.publisher.turn();
        }
        self.publisher.tick(Instant::now());
    }

    fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !done(self) {
            assert!(Instant::now() < end, "{}", self.publisher.describe());
            self.round(Duration::from_millis(50));
        }
    }

    fn run_until_sent(&mut self) {
        self.run_until(|setup| setup.publisher.pending() == 0);
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Envelope>> {
        self.containerd.seen.lock().unwrap()
    }

    /// The numbers of the exits that the server saw, in its order.
    fn exits(&self) -> Vec<u32> {
        let seen = self.seen();
        seen.iter().map(|got| TaskExit::parse_from_bytes(&got.event.value).unwrap().pid).collect()
    }
}

fn exit(number: usize) -> Event {
    let pid = number.try_into().unwrap();
    Event::Exit(TaskExit { container_id: "c".to_owned(), pid, ..Default::default() })
}

/// A server by hand: the next request on the connection, as its stream.
fn request(stream: &mut UnixStream) -> u32 {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut decoder = Decoder::default();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        if let Some(Incoming::Frame(header, _)) = decoder.next(&mut &byte[..]) {
            assert_eq!((header.kind, header.flags), (frame::REQUEST, 0));
            return header.stream;
        }
    }
}

fn acknowledge(stream: &mut UnixStream, number: u32) {
    stream.write_all(&encode_reply(number, &Ok(Vec::new()))).unwrap();
}

#[test]
fn the_request_is_that_of_the_generated_code() {
    let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5);
    let value = exit(7).encode().unwrap();
    let mut theirs = ForwardRequest::new();
    let envelope = theirs.envelope.mut_or_insert_default();
    envelope.namespace = "ns".to_owned();
    envelope.topic = "/tasks/exit".to_owned();
    let timestamp = envelope.timestamp.mut_or_insert_default();
    (timestamp.seconds, timestamp.nanos) = (1_700_000_000, 5);
    let event = envelope.event.mut_or_insert_default();
    event.type_url = "containerd.events.TaskExit".to_owned();
    event.value.clone_from(&value);
    let ours = forward_request("ns", "/tasks/exit", "containerd.events.TaskExit", &value, at);
    assert_eq!(ours, theirs.write_to_bytes().unwrap());
}

#[test]
fn a_thousand_events_arrive_once_and_in_order() {
    let mut setup = setup();
    let server = setup.serve();
    for number in 0..1000 {
        setup.exit(number);
    }
    assert!(setup.publisher.pending() > 900, "publishing waits for nothing");
    setup.run_until_sent();
    assert_eq!(setup.exits(), (0..1000).collect::<Vec<u32>>());
    assert_eq!(setup.publisher.repeats(), 0);
    assert_eq!(setup.publisher.waiting.capacity(), 0, "nothing is held when nothing waits");
    {
        let seen = setup.seen();
        assert_eq!(seen[0].namespace, "ns");
        assert_eq!(seen[0].topic, "/tasks/exit");
        assert_eq!(seen[0].event.type_url, "containerd.events.TaskExit");
        let age = SystemTime::now().duration_since(seen[0].timestamp.clone().unwrap().into());
        assert!(age.unwrap() < Duration::from_secs(60));
    }
    assert!(setup.containerd.namespaces.lock().unwrap().iter().all(|got| *got == ["ns"]));
    server.shutdown();
}

#[test]
fn every_kind_has_its_topic_and_its_message() {
    let mut setup = setup();
    let server = setup.serve();
    let kinds = [
        (Event::Create(Default::default()), "create", "TaskCreate"),
        (Event::Start(Default::default()), "start", "TaskStart"),
        (Event::Exit(Default::default()), "exit", "TaskExit"),
        (Event::Delete(Default::default()), "delete", "TaskDelete"),
        (Event::ExecAdded(Default::default()), "exec-added", "TaskExecAdded"),
        (Event::ExecStarted(Default::default()), "exec-started", "TaskExecStarted"),
        (Event::Paused(Default::default()), "paused", "TaskPaused"),
        (Event::Resumed(Default::default()), "resumed", "TaskResumed"),
        (
            Event::Oom(TaskOOM { container_id: "c".to_owned(), ..Default::default() }),
            "oom",
            "TaskOOM",
        ),
    ];
    for (event, _, _) in &kinds {
        setup.publisher.publish(event);
    }
    setup.run_until_sent();
    {
        let seen = setup.seen();
        for (got, (event, topic, name)) in seen.iter().zip(&kinds) {
            assert_eq!(got.topic, format!("/tasks/{topic}"));
            assert_eq!(got.event.type_url, format!("containerd.events.{name}"));
            assert_eq!(got.event.value, event.encode().unwrap());
        }
        assert_eq!(seen.len(), kinds.len());
    }
    server.shutdown();
}

#[test]
fn a_slow_containerd_gets_no_second_copy() {
    let mut setup = setup();
    let listener = UnixListener::bind(&setup.path).unwrap();
    setup.exit(0);
    setup.exit(1);
    let (mut stream, _) = listener.accept().unwrap();
    for _ in 0..20 {
        setup.round(Duration::from_millis(20));
        assert_eq!(setup.publisher.deadline(), None, "no time limit runs while it is connected");
    }
    assert!(setup.publisher.describe().contains("2 waiting, connected, the first in flight for "));
    for number in [1, 3] {
        assert_eq!(request(&mut stream), number);
        stream.set_nonblocking(true).unwrap();
        assert!(stream.read(&mut [0]).is_err(), "one in flight");
        stream.set_nonblocking(false).unwrap();
        acknowledge(&mut stream, number);
        setup.round(Duration::from_secs(20));
    }
    assert_eq!(setup.publisher.pending(), 0);
    assert_eq!(setup.publisher.repeats(), 0);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "one connection");
}

#[test]
fn what_was_received_but_not_acknowledged_is_sent_again_and_counted() {
    let mut setup = setup();
    let listener = UnixListener::bind(&setup.path).unwrap();
    setup.exit(0);
    setup.exit(1);
    let (mut first, _) = listener.accept().unwrap();
    request(&mut first);
    drop(first);
    setup.run_until(|setup| setup.publisher.link.is_none());
    assert_eq!(setup.publisher.pending(), 2);
    assert_eq!(setup.publisher.repeats(), 0, "not yet");
    assert!(setup.publisher.describe().contains("not connected, trying again in 0."));
    setup.run_until(|setup| setup.publisher.link.is_some());
    assert_eq!(setup.publisher.repeats(), 1);
    let (mut second, _) = listener.accept().unwrap();
    for number in [1, 3] {
        assert_eq!(request(&mut second), number);
        acknowledge(&mut second, number);
        setup.round(Duration::from_secs(20));
    }
    assert_eq!(setup.publisher.pending(), 0);
    assert_eq!(setup.publisher.repeats(), 1);
}

#[test]
fn what_did_not_go_out_whole_is_no_repeat() {
    let mut setup = setup();
    let listener = UnixListener::bind(&setup.path).unwrap();
    let long = vec![0; 1 << 20];
    setup.publisher.push("/tasks/create", "containerd.events.TaskCreate", &long, SystemTime::now());
    let (first, _) = listener.accept().unwrap();
    setup.round(Duration::from_millis(1));
    drop(first);
    setup.run_until(|setup| setup.publisher.link.is_none());
    setup.run_until(|setup| setup.publisher.link.is_some());
    assert_eq!(setup.publisher.repeats(), 0);
}

#[test]
fn a_restart_loses_nothing() {
    let mut setup = setup();
    // What a containerd that was killed leaves: connections are refused.
    drop(UnixListener::bind(&setup.path).unwrap());
    setup.exit(0);
    setup.run_until(|setup| setup.publisher.pause > FIRST_PAUSE * 2);
    fs::remove_file(&setup.path).unwrap();
    let server = setup.serve();
    setup.exit(1);
    setup.run_until_sent();
    assert_eq!(setup.publisher.pause, FIRST_PAUSE, "the next outage begins with the first pause");
    setup.stop(server);
    setup.run_until(|setup| setup.publisher.link.is_none());
    assert_eq!(setup.publisher.deadline(), None, "nothing to tell, nothing to try");
    assert_eq!(setup.publisher.pause, FIRST_PAUSE, "nor is it an outage");
    setup.exit(2);
    setup.exit(3);
    setup.run_until(|setup| setup.publisher.pause > FIRST_PAUSE * 2);
    let server = setup.serve();
    setup.run_until_sent();
    assert_eq!(setup.exits(), [0, 1, 2, 3]);
    assert_eq!(setup.publisher.repeats(), 0);
    server.shutdown();
}

#[test]
fn restarts_under_load_keep_the_order() {
    let mut setup = setup();
    let mut next = 0;
    for _ in 0..5 {
        let server = setup.serve();
        for _ in 0..100 {
            setup.exit(next);
            next += 1;
        }
        let goal = setup.seen().len() + 30;
        setup.run_until(|setup| setup.seen().len() > goal);
        setup.stop(server);
    }
    let server = setup.serve();
    setup.run_until_sent();
    let repeats = usize::try_from(setup.publisher.repeats()).unwrap();
    let mut exits = setup.exits();
    let before = exits.len();
    assert!(exits.is_sorted(), "a repeat follows what it repeats");
    exits.dedup();
    assert_eq!(exits, (0..u32::try_from(next).unwrap()).collect::<Vec<u32>>());
    assert!(before - exits.len() <= repeats, "every second copy is counted");
    assert!(repeats <= 5);
    server.shutdown();
}

#[test]
fn the_pauses_double_up_to_two_seconds() {
    let mut setup = setup();
    setup.exit(0);
    let mut pauses = Vec::new();
    let mut last = setup.publisher.deadline().unwrap();
    for _ in 0..7 {
        setup.publisher.tick(last - Duration::from_millis(1));
        assert_eq!(setup.publisher.deadline(), Some(last), "not before its time");
        setup.publisher.tick(last);
        let next = setup.publisher.deadline().unwrap();
        pauses.push((next - last).as_millis());
        last = next;
    }
    assert_eq!(pauses, [200, 400, 800, 1600, 2000, 2000, 2000]);
}

#[test]
fn an_error_of_the_moment_is_tried_again_and_another_is_not() {
    let mut setup = setup();
    let server = setup.serve();
    *setup.containerd.errors.lock().unwrap() =
        vec![ttrpc::Code::INVALID_ARGUMENT, ttrpc::Code::UNAVAILABLE];
    // 0: unavailable, then invalid and dropped; 1: taken.
    setup.exit(0);
    setup.exit(1);
    setup.run_until_sent();
    assert_eq!(setup.exits(), [0, 0, 1]);
    assert_eq!(setup.publisher.repeats(), 0, "it was not taken the first time");
    assert!(setup.publisher.describe().ends_with("0 repeated, 1 lost"));
    server.shutdown();
}

#[test]
fn answers_to_something_else_are_ignored() {
    let mut setup = setup();
    let listener = UnixListener::bind(&setup.path).unwrap();
    setup.exit(0);
    let (mut stream, _) = listener.accept().unwrap();
    let number = request(&mut stream);
    acknowledge(&mut stream, number + 2);
    setup.round(Duration::from_secs(20));
    assert_eq!(setup.publisher.pending(), 1);
    acknowledge(&mut stream, number);
    setup.round(Duration::from_secs(20));
    assert_eq!(setup.publisher.pending(), 0);
    acknowledge(&mut stream, number);
    setup.round(Duration::from_secs(20));
    setup.exit(1);
    assert_eq!(setup.publisher.pending(), 1, "the second answer was to nothing");
}

#[test]
fn stream_numbers_that_run_out_begin_again_on_a_new_connection() {
    let mut setup = setup();
    let listener = UnixListener::bind(&setup.path).unwrap();
    setup.exit(0);
    let (mut first, _) = listener.accept().unwrap();
    let number = request(&mut first);
    setup.publisher.link.as_mut().unwrap().next_stream = Some(u32::MAX);
    acknowledge(&mut first, number);
    setup.round(Duration::from_secs(20));
    setup.exit(1);
    assert_eq!(request(&mut first), u32::MAX);
    setup.exit(2);
    assert!(setup.publisher.link.is_some(), "the last one is still waited for");
    acknowledge(&mut first, u32::MAX);
    setup.round(Duration::from_secs(20));
    let (mut second, _) = listener.accept().unwrap();
    assert_eq!(request(&mut second), 1);
    acknowledge(&mut second, 1);
    setup.round(Duration::from_secs(20));
    assert_eq!((setup.publisher.pending(), setup.publisher.repeats()), (0, 0));
}

#[test]
fn a_repeat_that_is_refused_for_the_moment_counts_once() {
    let mut setup = setup();
    let listener = UnixListener::bind(&setup.path).unwrap();
    setup.exit(0);
    let (mut first, _) = listener.accept().unwrap();
    request(&mut first);
    drop(first);
    setup.run_until(|setup| setup.publisher.repeats() == 1);
    let (mut second, _) = listener.accept().unwrap();
    let number = request(&mut second);
    let busy = Err(Status::new(Code::Unavailable, "busy"));
    second.write_all(&encode_reply(number, &busy)).unwrap();
    setup.run_until(|setup| setup.publisher.deadline().is_some());
    setup.run_until(|setup| setup.publisher.deadline().is_none());
    let number = request(&mut second);
    acknowledge(&mut second, number);
    setup.run_until_sent();
    assert_eq!(setup.publisher.repeats(), 1);
}

#[test]
fn exits_are_what_is_kept_when_containerd_stays_away() {
    let mut setup = setup();
    for number in 0..MAX_WAITING {
        if number % 2 == 0 {
            setup.exit(number);
        } else {
            setup.publisher.publish(&Event::Oom(TaskOOM::new()));
        }
    }
    for number in 0..MAX_WAITING / 2 {
        setup.exit(MAX_WAITING + number);
    }
    let publisher = &setup.publisher;
    assert_eq!(publisher.pending(), MAX_WAITING);
    assert!(publisher.waiting.iter().all(|event| event.topic == EXIT_TOPIC));
    assert!(publisher.describe().ends_with(&format!("{} lost", MAX_WAITING / 2)));
}

#[test]
fn without_an_address_events_are_dropped() {
    let poller = Poller::new().unwrap();
    for address in ["", "unix://", &format!("unix:///{}", "x".repeat(200))] {
        let mut publisher = Publisher::new(address, "ns", &poller, Token(1));
        publisher.publish(&exit(1));
        assert_eq!(publisher.pending(), 0);
        assert_eq!(publisher.deadline(), None);
        assert!(publisher.describe().contains("no address"));
    }
}
