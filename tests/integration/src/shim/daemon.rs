//! The daemon's events service for very bad days.
//!
//! [`super::events`] is the `ttrpc` crate's server, which shows that the shim speaks what others
//! speak. This one is a few blocking threads on bytes: when it stops, every connection is cut and
//! nothing of it is left, however often that happens.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::ttrpc::Request;
use nix::sys::socket::{Shutdown, shutdown};

use super::events::Event;
use super::raw::{RESPONSE, frame};
use crate::managers::{Stop, Verdict};

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Takes it and answers.
    Answers,
    /// Takes it and keeps the answer until the mood changes.
    Stalls,
    /// Takes it and cuts the connection, so many times.
    Cuts(u32),
    /// Cuts the connection without having looked at it, so many times.
    Drops(u32),
}

#[derive(Debug)]
struct Book {
    mood: Mood,
    events: Vec<Event>,
    connections: Vec<Arc<UnixStream>>,
    open: bool,
}

#[derive(Debug)]
struct Desk {
    book: Mutex<Book>,
    news: Condvar,
}

/// The service.
#[derive(Debug)]
pub struct Daemon {
    path: PathBuf,
    desk: Arc<Desk>,
    listening: Option<(Arc<UnixListener>, JoinHandle<()>)>,
}

impl Daemon {
    /// Listens at `path`.
    pub fn new(path: &Path) -> Result<Self, Stop> {
        let (events, connections) = (Vec::new(), Vec::new());
        let book = Book { mood: Mood::Answers, events, connections, open: true };
        let desk = Arc::new(Desk { book: Mutex::new(book), news: Condvar::new() });
        let mut daemon = Self { path: path.to_owned(), desk, listening: None };
        daemon.start()?;
        Ok(daemon)
    }

    /// Listens again.
    pub fn start(&mut self) -> Verdict {
        let listener = Arc::new(UnixListener::bind(&self.path)?);
        self.desk.book().open = true;
        let (desk, shared) = (Arc::clone(&self.desk), Arc::clone(&listener));
        let thread = std::thread::spawn(move || {
            for stream in shared.incoming() {
                let Ok(stream) = stream.map(Arc::new) else { return };
                let mut book = desk.book();
                if !book.open {
                    return;
                }
                book.connections.retain(|stream| Arc::strong_count(stream) > 1);
                book.connections.push(Arc::clone(&stream));
                let desk = Arc::clone(&desk);
                std::thread::spawn(move || desk.serve(&stream));
            }
        });
        self.listening = Some((listener, thread));
        Ok(())
    }

    /// Stops listening, cuts every connection and removes the socket.
    pub fn stop(&mut self) -> Verdict {
        let Some((listener, thread)) = self.listening.take() else { return Ok(()) };
        self.desk.book().open = false;
        std::fs::remove_file(&self.path)?;
        shutdown(listener.as_raw_fd(), Shutdown::Both)?;
        thread.join().map_err(|_| "the listening thread panicked")?;
        for stream in self.desk.book().connections.drain(..) {
            // Its client may be gone.
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
        self.set(Mood::Answers);
        Ok(())
    }

    /// Changes what it does.
    pub fn set(&self, mood: Mood) {
        self.desk.book().mood = mood;
        self.desk.news.notify_all();
    }

    /// Everything that was taken so far.
    pub fn all(&self) -> Vec<Event> {
        self.desk.book().events.clone()
    }

    /// How many different events with this topic were taken: a repeated one counts once.
    pub fn count(&self, topic: &str) -> usize {
        let book = self.desk.book();
        let those = book.events.iter().filter(|event| event.topic == topic);
        those.map(Event::line).collect::<HashSet<String>>().len()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A socket that stays is found by whoever looks for leaks.
        self.stop().ok();
    }
}

impl Desk {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a connection until it ends or is cut.
    fn serve(&self, stream: &UnixStream) {
        while let Ok((number, event)) = request(stream) {
            if self.take(stream, number, event).is_err() {
                break;
            }
        }
        // The other side may have been quicker.
        stream.shutdown(std::net::Shutdown::Both).ok();
    }

    fn take(&self, mut stream: &UnixStream, number: u32, event: Event) -> std::io::Result<()> {
        let cut = || Err(std::io::ErrorKind::ConnectionAborted.into());
        let mut book = self.book();
        if let Mood::Drops(left) = book.mood {
            book.mood = if left > 1 { Mood::Drops(left - 1) } else { Mood::Answers };
            return cut();
        }
        let place = book.events.len();
        book.events.push(event);
        if let Mood::Cuts(left) = book.mood {
            book.mood = if left > 1 { Mood::Cuts(left - 1) } else { Mood::Answers };
            return cut();
        }
        while book.mood == Mood::Stalls && book.open {
            book = self.news.wait(book).unwrap_or_else(PoisonError::into_inner);
        }
        stream.write_all(&frame(number, RESPONSE, 0, &[]))?;
        book.events[place].answered = true;
        Ok(())
    }
}

/// The next request: its stream and its event.
fn request(mut stream: &UnixStream) -> Result<(u32, Event), Stop> {
    let mut header = [0; 10];
    stream.read_exact(&mut header)?;
    let [a, b, c, d, number @ .., _, _] = header;
    let mut body = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
    stream.read_exact(&mut body)?;
    let request = Request::parse_from_bytes(&body)?;
    let envelope = ForwardRequest::parse_from_bytes(&request.payload)?.envelope.unwrap_or_default();
    let event = Event {
        at: Instant::now(),
        namespace: envelope.namespace,
        topic: envelope.topic,
        stamp: envelope.timestamp.unwrap_or_default(),
        body: envelope.event.unwrap_or_default(),
        answered: false,
    };
    Ok((u32::from_be_bytes(number), event))
}
