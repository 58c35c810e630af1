//! The daemon's events service, as it is on a good day and on bad ones.
//!
//! It is the `ttrpc` crate's own server. It can be stopped and started again, keep requests
//! without an answer, or cut the connection in the middle of one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::empty::Empty;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_sync::{Events as Service, create_events};
use containerd_shim_protos::ttrpc::{self, Server, TtrpcContext};
use nix::sys::socket::{Shutdown, shutdown};

use super::task::PATIENCE;
use crate::driver::patience;
use crate::managers::{Stop, Verdict};

/// What the service does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Records it and answers.
    Answers,
    /// Records it and keeps the answer until the mood changes.
    Stalls,
    /// Records it and cuts the connection, this many times; answers after that.
    Cuts(u32),
}

/// One recorded event.
#[derive(Debug, Clone)]
pub struct Event {
    /// When the request came.
    pub at: Instant,
    /// Its namespace.
    pub namespace: String,
    /// Its topic.
    pub topic: String,
    /// The publisher's time stamp.
    pub stamp: Timestamp,
    /// The event itself.
    pub body: Any,
    /// Whether the answer was sent: a publisher may repeat one that was not answered.
    pub answered: bool,
}

impl Event {
    /// Its content as a message of the type that the topic promises.
    pub fn decode<M: Message>(&self) -> Result<M, Stop> {
        Ok(M::parse_from_bytes(&self.body.value)?)
    }

    /// The event in words: `exit CONTAINER PROCESS STATUS` and the like.
    pub fn line(&self) -> String {
        self.words().unwrap_or_else(|_| format!("malformed {}", self.topic))
    }

    fn words(&self) -> Result<String, Stop> {
        let verb = self.topic.strip_prefix("/tasks/").unwrap_or(&self.topic);
        let rest = match verb {
            "create" => self.decode::<TaskCreate>()?.container_id,
            "start" => self.decode::<TaskStart>()?.container_id,
            "delete" => self.decode::<TaskDelete>()?.container_id,
            "oom" => self.decode::<TaskOOM>()?.container_id,
            "paused" => self.decode::<TaskPaused>()?.container_id,
            "resumed" => self.decode::<TaskResumed>()?.container_id,
            "exec-added" => {
                let added = self.decode::<TaskExecAdded>()?;
                format!("{} {}", added.container_id, added.exec_id)
            }
            "exec-started" => {
                let started = self.decode::<TaskExecStarted>()?;
                format!("{} {}", started.container_id, started.exec_id)
            }
            "exit" => {
                let exit = self.decode::<TaskExit>()?;
                format!("{} {} {}", exit.container_id, exit.id, exit.exit_status)
            }
            _ => String::new(),
        };
        Ok(format!("{verb} {rest}"))
    }
}

#[derive(Debug)]
struct Book {
    mood: Mood,
    events: Vec<Event>,
}

#[derive(Debug, Clone)]
struct Clerk {
    book: Arc<Mutex<Book>>,
    news: Arc<Condvar>,
}

impl Clerk {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Clerk {
    fn forward(&self, context: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let envelope = request.envelope.unwrap_or_default();
        let mut book = self.book();
        let number = book.events.len();
        let stalled = book.mood == Mood::Stalls;
        book.events.push(Event {
            at: Instant::now(),
            namespace: envelope.namespace,
            topic: envelope.topic,
            stamp: envelope.timestamp.unwrap_or_default(),
            body: envelope.event.unwrap_or_default(),
            answered: false,
        });
        self.news.notify_all();
        if let Mood::Cuts(left) = book.mood {
            book.mood = if left > 1 { Mood::Cuts(left - 1) } else { Mood::Answers };
            drop(book);
            shutdown(context.fd, Shutdown::Both).ok();
            return Ok(Empty::new());
        }
        while stalled && book.mood == Mood::Stalls {
            book = self.news.wait(book).unwrap_or_else(PoisonError::into_inner);
        }
        book.events[number].answered = true;
        Ok(Empty::new())
    }
}

/// The events server of a test.
pub struct Events {
    path: PathBuf,
    clerk: Clerk,
    server: Mutex<Option<Server>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Events {
    /// Starts to listen at `path`.
    pub fn listen(path: &Path) -> Result<Self, Stop> {
        let book = Arc::new(Mutex::new(Book { mood: Mood::Answers, events: Vec::new() }));
        let clerk = Clerk { book, news: Arc::default() };
        let events = Self { path: path.to_owned(), clerk, server: Mutex::new(None) };
        events.start()?;
        Ok(events)
    }

    /// Where it listens, as `TTRPC_ADDRESS` says it.
    pub fn address(&self) -> &str {
        self.path.to_str().expect("a UTF-8 path")
    }

    /// Listens again after [`Events::stop`].
    pub fn start(&self) -> Verdict {
        let mut server = Server::new()
            .bind(&format!("unix://{}", self.path.display()))?
            .register_service(create_events(Arc::new(self.clerk.clone())));
        server.start()?;
        *self.server.lock()? = Some(server);
        Ok(())
    }

    /// Stops listening, cuts all connections and removes the socket: the daemon is gone.
    pub fn stop(&self) -> Verdict {
        self.recover();
        if let Some(server) = self.server.lock()?.take() {
            server.shutdown();
            std::fs::remove_file(&self.path)?;
        }
        Ok(())
    }

    /// Takes requests from now on but does not answer them, as a daemon under SIGSTOP.
    pub fn stall(&self) {
        self.clerk.book().mood = Mood::Stalls;
    }

    /// Cuts the connection in the next `times` requests, without an answer.
    pub fn cut(&self, times: u32) {
        self.clerk.book().mood = Mood::Cuts(times);
    }

    /// Answers again, also what was kept.
    pub fn recover(&self) {
        self.clerk.book().mood = Mood::Answers;
        self.clerk.news.notify_all();
    }

    /// Everything that has come so far.
    pub fn all(&self) -> Vec<Event> {
        self.clerk.book().events.clone()
    }

    /// Everything that has come so far, in words.
    pub fn lines(&self) -> Vec<String> {
        self.all().iter().map(Event::line).collect()
    }

    /// The first event with these words; waits for it.
    pub fn find(&self, words: &str) -> Result<Event, Stop> {
        let found = |events: &[Event]| events.iter().find(|event| event.line() == words).cloned();
        self.until(words, found)
    }

    /// Waits for the end of a process: its exit event, whatever the status.
    pub fn exit(&self, container: &str, process: &str) -> Result<TaskExit, Stop> {
        let words = format!("exit {container} {process} ");
        let found = |events: &[Event]| {
            events.iter().find(|event| event.line().starts_with(&words)).cloned()
        };
        self.until(&words, found)?.decode()
    }

    /// Waits until there are `count` events.
    pub fn count(&self, count: usize) -> Verdict {
        self.until(&format!("{count} events"), |events| (events.len() >= count).then_some(()))
    }

    /// Waits until these are all the events, in this order, and no other comes for a moment.
    pub fn exactly(&self, wanted: &[String]) -> Verdict {
        self.count(wanted.len())?;
        std::thread::sleep(Duration::from_millis(50));
        crate::managers::same("events", &self.lines(), wanted)
    }

    fn until<T>(
        &self,
        what: &str,
        mut found: impl FnMut(&[Event]) -> Option<T>,
    ) -> Result<T, Stop> {
        let end = Instant::now() + patience(PATIENCE);
        let mut book = self.clerk.book();
        loop {
            if let Some(found) = found(&book.events) {
                return Ok(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let seen: Vec<_> = book.events.iter().map(Event::line).collect();
                return Err(Stop::Fail(format!(
                    "no event {what:?} within {PATIENCE:?}: {seen:#?}"
                )));
            }
            let waited = self.clerk.news.wait_timeout(book, left);
            book = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // The test's verdict stands already; a socket that stays is found by the leak check.
        self.stop().ok();
    }
}
