//! The loop: one thread, which waits for everything at once and for nothing in particular.
//!
//! Each descriptor belongs to one thing with a token: the listener, a connection, a worker, a
//! process (its pidfd), its streams, a container's OOM watch, containerd's event service. The loop
//! gives each its turn and its deadline; what the calls mean is in [`crate::service`].
//!
//! Two orders matter. Within one turn, the messages of workers are heard before their end, and
//! before any child is reaped: so whatever a worker has started is known before it can end. And
//! orphans (children of a container without a pid namespace of its own, and of hooks) are reaped
//! only after every worker that has ended was heard: a process of which one tells is its child, and
//! ours no sooner than the worker's end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use corten::error::{Doing, Result};
use corten::sys::wait;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, waitpid};

use crate::bootstrap::daemon::Ready;
use crate::bootstrap::socket::path_of_listener;
use crate::container::{Container, Reply};
use crate::events::Publisher;
use crate::io::Logger;
use crate::poll::{Interest, Poller, Token, Watched};
use crate::service::Job;
use crate::transport::{Connection, Listener, Status};
use crate::worker::{Failure, Worker};

/// What the shim was started with. Its working directory is the first container's bundle.
#[derive(Debug)]
pub struct Config {
    /// containerd's namespace.
    pub namespace: String,
    /// Where containerd receives events; empty for nowhere.
    pub ttrpc_address: String,
    /// The listening socket.
    pub listener: OwnedFd,
}

/// How long undelivered events and unread answers may hold up the end.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long a shim without containers waits for one, or for a Shutdown.
const LINGER: Duration = Duration::from_secs(10);
/// The same, once its bundle is gone: whoever was answered last may have a question more.
const HURRY: Duration = Duration::from_secs(1);

/// Whose a token is: the upper byte says what, the rest which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A signal.
    Signals,
    /// The listening socket.
    Listener,
    /// containerd's event service.
    Publisher,
    /// A connection, by its number.
    Client(u64),
    /// A worker, by its number.
    Worker(u64),
    /// The end of a process, by its number.
    Process(u64),
    /// The streams of a process, by its number.
    Io(u64),
    /// The OOM watch of a container, by its init's number.
    Oom(u64),
}

impl Source {
    /// As a token.
    pub fn token(self) -> Token {
        let (kind, number) = match self {
            Self::Signals => (0, 0),
            Self::Publisher => (1, 0),
            Self::Worker(number) => (2, number),
            Self::Process(number) => (3, number),
            Self::Io(number) => (4, number),
            Self::Oom(number) => (5, number),
            Self::Listener => (6, 0),
            Self::Client(number) => (7, number),
        };
        Token(kind << 56 | number)
    }

    fn of(token: Token) -> Self {
        let number = token.0 & (u64::MAX >> 8);
        match token.0 >> 56 {
            0 => Self::Signals,
            1 => Self::Publisher,
            2 => Self::Worker(number),
            3 => Self::Process(number),
            4 => Self::Io(number),
            5 => Self::Oom(number),
            6 => Self::Listener,
            _ => Self::Client(number),
        }
    }
}

/// Who a child is, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Worker(u64),
    Process(u64),
    Nobody,
}

/// What is to happen at a certain time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// A worker has had its time.
    Worker(u64),
    /// The execs of an ended init have had their time to end.
    LastWords(u64),
    /// The bundles are to be looked at.
    Bundles,
    /// Nobody needs us.
    Lonely,
}

/// A worker and what it is for.
#[derive(Debug)]
pub struct Working {
    /// The process.
    pub worker: Worker,
    /// Whose container, and what to do at the end; none when the end was already told.
    pub job: Option<Job>,
    /// Why it was killed, when its time was over.
    pub gave_up: Option<Failure>,
}

/// The shim.
#[derive(Debug)]
pub struct Shim {
    /// containerd's namespace.
    pub namespace: String,
    /// The path of the socket that it listens on.
    socket: PathBuf,
    /// All descriptors.
    pub poller: Poller,
    /// Its containers by id.
    pub containers: BTreeMap<String, Container>,
    /// Container and exec id of each process by number.
    pub names: BTreeMap<u64, (String, String)>,
    /// Its workers by number.
    pub workers: BTreeMap<u64, Working>,
    /// Events on their way.
    pub publisher: Publisher,
    /// Loggers that have outlived their processes' streams.
    pub loggers: Vec<Logger>,
    /// Processes that have ended before they became our children.
    pub strangers: BTreeSet<u64>,
    /// When it is to leave at the latest; set once it was asked to.
    pub leaving: Option<Instant>,
    /// It had no container yet, nor lost all who may be about to create one.
    pub awaits_first: bool,
    clients: BTreeMap<u64, Connection>,
    /// None once it leaves: whoever comes then needs another shim.
    listener: Option<Listener>,
    signals: Watched<SignalFd>,
    alarms: BTreeSet<(Instant, Alarm)>,
    last_number: u64,
}

/// Serves until the shim is not needed any more, and tells `ready` when it begins to.
///
/// # Errors
/// When it can't begin. Nothing that happens later is one.
pub fn run(config: Config, ready: &mut Ready) -> Result<()> {
    let mut shim = Shim::new(config)?;
    ready.yes()?;
    tracing::info!("serving on {}", shim.socket.display());
    while !shim.is_done() {
        shim.turn()?;
    }
    tracing::info!("left");
    Ok(())
}

/// The signals that are told through a descriptor, blocked otherwise.
fn signals() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1] {
        set.add(signal);
    }
    let mut blocked = set;
    // A terminal that hangs up is not ours.
    blocked.add(Signal::SIGHUP);
    blocked.thread_set_mask().doing(|| "block signals".to_owned())?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .doing(|| "signalfd".to_owned())
}

impl Shim {
    fn new(config: Config) -> Result<Self> {
        let socket = path_of_listener(&config.listener)?;
        prctl::set_child_subreaper(true).doing(|| "prctl PR_SET_CHILD_SUBREAPER".to_owned())?;
        corten::sys::process::ignore_broken_pipes();
        let poller = Poller::new()?;
        let signals = poller.watch(signals()?, Source::Signals.token(), Interest::Read)?;
        let listener = Listener::new(config.listener, &poller, Source::Listener.token())?;
        let publisher = Publisher::new(
            &config.ttrpc_address,
            &config.namespace,
            &poller,
            Source::Publisher.token(),
        );
        let mut shim = Self {
            namespace: config.namespace,
            socket,
            poller,
            containers: BTreeMap::new(),
            names: BTreeMap::new(),
            workers: BTreeMap::new(),
            publisher,
            loggers: Vec::new(),
            strangers: BTreeSet::new(),
            leaving: None,
            awaits_first: true,
            clients: BTreeMap::new(),
            listener: Some(listener),
            signals,
            alarms: BTreeSet::new(),
            last_number: 0,
        };
        shim.set_alarm(Alarm::Lonely, LINGER);
        Ok(shim)
    }

    /// A number that nothing else has or had.
    pub fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Has `alarm` go off after `delay`.
    pub fn set_alarm(&mut self, alarm: Alarm, delay: Duration) {
        self.alarms.insert((Instant::now() + delay, alarm));
    }

    /// Whether `alarm` is to go off.
    pub fn has_alarm(&self, alarm: Alarm) -> bool {
        self.alarms.iter().any(|(_, set)| *set == alarm)
    }

    /// Has it never go off.
    pub fn clear_alarm(&mut self, alarm: Alarm) {
        self.alarms.retain(|(_, set)| *set != alarm);
    }

    /// Waits for something and gives everything that is ready its turn.
    fn turn(&mut self) -> Result<()> {
        let deadlines = [
            self.alarms.first().map(|(at, _)| *at),
            self.publisher.deadline(),
            self.listener.as_ref().and_then(Listener::deadline),
            self.leaving,
            self.next_io_deadline(),
        ];
        let mut ready: Vec<Source> = self
            .poller
            .wait(deadlines.into_iter().flatten().min())?
            .into_iter()
            .map(Source::of)
            .collect();
        // Workers first, signals last: see above.
        ready.sort_by_key(|source| match source {
            Source::Worker(_) => 0,
            Source::Signals => 2,
            _ => 1,
        });
        for source in ready {
            self.serve(source);
        }
        self.pass_time();
        Ok(())
    }

    fn serve(&mut self, source: Source) {
        match source {
            Source::Listener => self.greet(),
            Source::Client(number) => self.listen(number),
            Source::Worker(number) => self.hear(number),
            Source::Process(number) => self.process_ended(number),
            Source::Io(number) => self.move_io(number),
            Source::Oom(number) => self.tell_oom(number),
            Source::Publisher => self.publisher.turn(),
            Source::Signals => self.heed_signals(),
        }
    }

    fn pass_time(&mut self) {
        let now = Instant::now();
        self.publisher.tick(now);
        if let Some(listener) = &mut self.listener {
            listener.tick(now);
        }
        self.tick_io(now);
        while let Some((at, alarm)) = self.alarms.first().copied().filter(|(at, _)| *at <= now) {
            self.alarms.remove(&(at, alarm));
            match alarm {
                Alarm::Worker(number) => self.give_up(number),
                Alarm::LastWords(number) => self.tell_init_exit(number),
                Alarm::Bundles => self.look_after_bundles(),
                Alarm::Lonely => self.leave_if_lonely(),
            }
        }
    }

    fn greet(&mut self) {
        let Some(listener) = &mut self.listener else { return };
        for socket in listener.turn() {
            let number = self.number();
            match Connection::new(socket, &self.poller, Source::Client(number).token()) {
                Ok(connection) => {
                    self.clients.insert(number, connection);
                }
                Err(error) => tracing::warn!("serve a connection: {error}"),
            }
        }
    }

    fn listen(&mut self, number: u64) {
        let Some(connection) = self.clients.get_mut(&number) else { return };
        match connection.turn() {
            Ok(calls) => {
                for call in calls {
                    self.dispatch(number, call);
                }
            }
            Err(_) => {
                self.clients.remove(&number);
                self.forget_client(number);
                if self.clients.is_empty() && std::mem::take(&mut self.awaits_first) {
                    self.maybe_lonely();
                }
            }
        }
    }

    /// Answers a call, if somebody waits for it and is still there.
    pub fn answer(
        &mut self,
        reply: impl Into<Option<Reply>>,
        answer: std::result::Result<Vec<u8>, Status>,
    ) {
        if let Some(reply) = reply.into()
            && let Some(connection) = self.clients.get_mut(&reply.client)
        {
            connection.reply(reply.stream, answer);
        }
    }

    fn heed_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.get().read_signal() {
            match Signal::try_from(signal.ssi_signo.cast_signed()) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => self.end_everything(),
                Ok(Signal::SIGUSR1) => self.dump(),
                _ => {}
            }
        }
        self.reap_orphans();
    }

    /// Reaps children that nobody knows, and that are no news of a worker.
    pub fn reap_orphans(&mut self) {
        let mut last = None;
        while let Ok(Some(pid)) = wait::any_ended() {
            if last.replace(pid) == Some(pid) {
                // It was not to be reaped; its own turn will come.
                return;
            }
            if self.known_by_pid(pid.as_raw()) == Known::Nobody {
                // Were it a worker's child, that worker would have ended before it became ours.
                let numbers: Vec<u64> = self.workers.keys().copied().collect();
                numbers.into_iter().for_each(|number| self.hear(number));
            }
            match self.known_by_pid(pid.as_raw()) {
                Known::Worker(number) => self.hear(number),
                Known::Process(number) => self.process_ended(number),
                Known::Nobody => {
                    // It has ended, so this can't fail or wait.
                    let _reaped = waitpid(pid, Some(WaitPidFlag::WNOHANG));
                }
            }
        }
    }

    /// The connections by number.
    pub fn clients(&self) -> impl Iterator<Item = (&u64, &Connection)> {
        self.clients.iter()
    }

    /// What is to happen when.
    pub fn alarms(&self) -> impl Iterator<Item = &(Instant, Alarm)> {
        self.alarms.iter()
    }

    fn known_by_pid(&self, pid: i32) -> Known {
        let worker = self.workers.iter().find(|(_, working)| working.worker.pid().as_raw() == pid);
        if let Some((number, _)) = worker {
            return Known::Worker(*number);
        }
        let mut processes = self.containers.values().flat_map(Container::processes);
        let process = processes.find(|(_, it)| it.pid == pid && it.pidfd.is_some());
        process.map_or(Known::Nobody, |(_, process)| Known::Process(process.number))
    }

    /// Leaves soon: as soon as everything is told, at the latest after [`FAREWELL`]. Who is connected
    /// is served until then; the next `start` finds nobody here and makes a new shim.
    pub fn leave(&mut self) {
        if self.leaving.is_some() {
            return;
        }
        self.leaving = Some(Instant::now() + FAREWELL);
        // Those who were told our address.
        self.greet();
        match std::fs::remove_file(&self.socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!("remove {}: {error}", self.socket.display());
            }
            _ => {}
        }
        self.listener = None;
    }

    /// Starts to wait for a reason to stay.
    pub fn maybe_lonely(&mut self) {
        if self.containers.is_empty() {
            self.clear_alarm(Alarm::Lonely);
            self.set_alarm(Alarm::Lonely, if is_wanted() { LINGER } else { HURRY });
        }
    }

    fn leave_if_lonely(&mut self) {
        if !self.containers.is_empty() {
            return;
        }
        // Whoever had us started is connected from then on, and its create may be on its way. Later
        // that means nothing: a containerd that restarts connects to every shim it finds.
        let awaited = self.awaits_first && !self.clients.is_empty() && is_wanted();
        if awaited || !self.workers.is_empty() {
            return self.maybe_lonely();
        }
        tracing::info!("no container is left, and nobody has asked for one: leaving");
        self.leave();
    }

    fn is_done(&self) -> bool {
        let told = self.publisher.pending() == 0
            && self.workers.is_empty()
            && self.loggers.is_empty()
            && self.clients.values().all(|connection| connection.queued() == 0);
        self.leaving.is_some_and(|at| told || at <= Instant::now())
    }
}

/// Without the bundle that we were started in, nobody will ask for its container either.
fn is_wanted() -> bool {
    std::env::current_dir().is_ok()
}
