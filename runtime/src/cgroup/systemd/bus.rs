//! A conversation with systemd: a few calls and the wait for a job, all before one deadline.
//!
//! rustbus writes and reads the messages; the socket is ours, for its connections read without a
//! deadline while they log in, know no socket but those of two buses and hand descriptors to
//! children. As root we use systemd's own socket, where no broker has to run.

use std::env;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustbus::message_builder::{MarshalledMessage, MarshalledMessageBody, MessageBuilder};
use rustbus::wire::errors::MarshalError;
use rustbus::wire::unmarshal::traits::Variant;
use rustbus::wire::unmarshal::{
    HEADER_LEN, unmarshal_dynamic_header, unmarshal_header, unmarshal_next_message,
};
use rustbus::wire::{ObjectPath, marshal};
use rustbus::{MessageType, wire::errors::UnmarshalError};

use super::value::Properties;
use crate::cgroup::freezer::pause;
use crate::error::{Error, Result};

const NAME: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const ERROR: &str = "org.freedesktop.DBus.Error.";
/// What a broker answers for a systemd that is away.
const GONE: [&str; 4] = ["NoReply", "Disconnected", "NameHasNoOwner", "ServiceUnknown"];
/// Where the system's manager itself listens.
const SYSTEM: &str = "/run/systemd/private";
/// As in runc, for a job; a conversation is mostly that.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than systemd ever says.
const LONGEST: usize = 1 << 20;

/// An error that systemd has answered with.
#[derive(Debug)]
pub(super) struct Refused {
    name: String,
    words: String,
}

impl Refused {
    pub(super) fn is_unit_exists(&self) -> bool {
        self.name.ends_with(".UnitExists")
    }

    fn is_no_unit(&self) -> bool {
        self.name.ends_with(".NoSuchUnit")
    }

    pub(super) fn error(self, doing: impl std::fmt::Display) -> Error {
        Error::Failed(format!("{doing}: systemd: {} ({})", self.words, self.name))
    }
}

/// Asks the system's manager or the user's on a new connection; again, for half a minute, when it goes
/// away in the middle (`daemon-reexec`). What is asked twice must do no harm.
pub(super) fn ask<T>(user: bool, mut what: impl FnMut(&mut Bus) -> Result<T>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    let mut wait = Duration::from_millis(20);
    loop {
        match Bus::connect(user).and_then(|mut bus| what(&mut bus)) {
            Err(error) if error.errno() == Some(Errno::ECONNRESET) && Instant::now() < end => {
                tracing::debug!("once more in {wait:?}: {error}");
                pause(wait)?;
                wait = (wait * 2).min(Duration::from_secs(1));
            }
            other => return other,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    end: Instant,
    /// Signals that came while an answer was awaited.
    signals: Vec<MarshalledMessage>,
}

impl Bus {
    /// Connects to the system's manager or to the user's.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when systemd is not running.
    fn connect(user: bool) -> Result<Self> {
        booted()?;
        let mut why = String::new();
        for (path, direct) in sockets(user) {
            match UnixStream::connect(&path) {
                Ok(stream) => {
                    return Self::greet(stream, direct).doing_bus(|| format!("log in at {path:?}"));
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    return Err(Trouble::HungUp).doing_bus(|| format!("connect to {path:?}"));
                }
                Err(error) => why = format!("{why}; {}: {error}", path.display()),
            }
        }
        let who = if user { "user's systemd" } else { "systemd" };
        Err(Error::Unsupported(format!("the systemd cgroup driver: no {who} to talk to{why}")))
    }

    fn greet(stream: UnixStream, direct: bool) -> Result<Self, Trouble> {
        let mut bus =
            Self { stream, serial: 0, end: Instant::now() + PATIENCE, signals: Vec::new() };
        // Who we are the socket tells, also from within a user namespace. BEGIN goes along, as sd-bus
        // does it: systemd may read a message that follows a later BEGIN too closely together with
        // it, and then lets it lie until there is more to read.
        bus.write(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let mut lines = Vec::new();
        while lines.iter().filter(|byte| **byte == b'\n').count() < 2 {
            let mut byte = [0];
            bus.read(&mut byte)?;
            lines.push(byte[0]);
            if lines.starts_with(b"REJECTED") || lines.starts_with(b"ERROR") || lines.len() > 1000 {
                return Err(Trouble::Other("not let in".to_owned()));
            }
        }
        if !direct {
            let broker = "org.freedesktop.DBus";
            let hello = bus.call((broker, "/org/freedesktop/DBus", broker, "Hello"), |_| Ok(()))?;
            hello.map_err(|refused| Trouble::Other(refused.words))?;
            // The owner of a job is told of its end in any case; of a job that was there, subscribers.
            let told = bus.call((NAME, OBJECT, MANAGER, "Subscribe"), |_| Ok(()))?;
            told.map_err(|refused| Trouble::Other(refused.words))?;
            let rule = format!("type='signal',interface='{MANAGER}',member='JobRemoved'");
            let matched = bus
                .call((broker, "/org/freedesktop/DBus", broker, "AddMatch"), |body| {
                    body.push_param(rule.as_str())
                })?;
            matched.map_err(|refused| Trouble::Other(refused.words))?;
        }
        Ok(bus)
    }

    /// Starts a transient unit and waits until it is.
    pub(super) fn start(&mut self, unit: &str, wanted: &Properties) -> Result<Result<(), Refused>> {
        let doing = || format!("start unit {unit}");
        let answer = self.call((NAME, OBJECT, MANAGER, "StartTransientUnit"), |body| {
            body.push_param(unit)?;
            body.push_param("replace")?;
            body.push_param(wanted.as_slice())?;
            body.push_param(Vec::<(String, Properties)>::new())
        });
        let job = match answer.doing_bus(doing)? {
            Ok(answer) => object(&answer).doing_bus(doing)?,
            Err(refused) => return Ok(Err(refused)),
        };
        match self.wait(&job).doing_bus(doing)?.as_str() {
            "done" => Ok(Ok(())),
            other => {
                Err(Error::Failed(format!("start unit {unit}: systemd's job ended as {other}")))
            }
        }
    }

    /// Stops a unit, waits until it is, and forgets that it failed. None is no error.
    pub(super) fn stop(&mut self, unit: &str) -> Result<()> {
        let doing = || format!("stop unit {unit}");
        let answer = self.call((NAME, OBJECT, MANAGER, "StopUnit"), |body| {
            body.push_param(unit)?;
            body.push_param("replace")
        });
        match answer.doing_bus(doing)? {
            Ok(answer) => {
                let job = object(&answer).doing_bus(doing)?;
                self.wait(&job).doing_bus(doing)?;
            }
            Err(refused) if refused.is_no_unit() => return Ok(()),
            Err(refused) => return Err(refused.error(doing())),
        }
        let reset =
            self.call((NAME, OBJECT, MANAGER, "ResetFailedUnit"), |body| body.push_param(unit));
        match reset.doing_bus(doing)? {
            Err(refused) if !refused.is_no_unit() => Err(refused.error(doing())),
            _ => Ok(()),
        }
    }

    /// Sets properties until the unit ends.
    pub(super) fn set(&mut self, unit: &str, wanted: &Properties) -> Result<Result<(), Refused>> {
        let answer = self.call((NAME, OBJECT, MANAGER, "SetUnitProperties"), |body| {
            body.push_param(unit)?;
            body.push_param(true)?;
            body.push_param(wanted.as_slice())
        });
        Ok(answer.doing_bus(|| format!("set properties of {unit}"))?.map(drop))
    }

    /// Moves the process that has connected into the group `below` that of a unit.
    pub(super) fn attach_caller(&mut self, unit: &str, below: &Path) -> Result<()> {
        let doing = || format!("move a process into unit {unit}");
        let below = Path::new("/").join(below);
        let answer = self.call((NAME, OBJECT, MANAGER, "AttachProcessesToUnit"), |body| {
            body.push_param(unit)?;
            body.push_param(&*below.to_string_lossy())?;
            // 0 is the caller, whose pid in systemd's pid namespace we may not know.
            body.push_param([0_u32].as_slice())
        });
        answer.doing_bus(doing)?.map(drop).map_err(|refused| refused.error(doing()))
    }

    /// A text property of the manager.
    pub(super) fn manager(&mut self, property: &str) -> Result<String> {
        let doing = || format!("ask systemd for {property}");
        let answer = self.get(OBJECT, MANAGER, property).doing_bus(doing)?;
        answer.map_err(|refused| refused.error(doing()))
    }

    /// 252 of `252.39-1~deb12u1`.
    pub(super) fn version(&mut self) -> Result<u32> {
        let text = self.manager("Version")?;
        let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end]
            .parse()
            .map_err(|_| Error::Failed(format!("systemd's version {text:?} is none")))
    }

    /// `active`, `failed`, `inactive` (also of a unit that is not there) ...
    pub(super) fn active_state(&mut self, unit: &str) -> Result<String> {
        let doing = || format!("look for unit {unit}");
        let found = self.call((NAME, OBJECT, MANAGER, "GetUnit"), |body| body.push_param(unit));
        let path = match found.doing_bus(doing)? {
            Ok(answer) => object(&answer).doing_bus(doing)?,
            Err(refused) if refused.is_no_unit() => return Ok("inactive".to_owned()),
            Err(refused) => return Err(refused.error(doing())),
        };
        let state = self.get(&path, UNIT, "ActiveState").doing_bus(doing)?;
        Ok(state.unwrap_or_else(|_| "inactive".to_owned()))
    }

    fn get(&mut self, path: &str, interface: &str, property: &str) -> Answer<String> {
        let answer = self.call((NAME, path, PROPERTIES, "Get"), |body| {
            body.push_param(interface)?;
            body.push_param(property)
        })?;
        match answer {
            Ok(answer) => {
                let variant: Variant<'_, '_> = answer.body.parser().get()?;
                Ok(Ok(variant.get::<String>()?))
            }
            Err(refused) => Ok(Err(refused)),
        }
    }

    fn call(
        &mut self,
        (to, path, interface, member): (&str, &str, &str, &str),
        fill: impl FnOnce(&mut MarshalledMessageBody) -> Result<(), MarshalError>,
    ) -> Answer<MarshalledMessage> {
        let mut message =
            MessageBuilder::new().call(member).with_interface(interface).on(path).at(to).build();
        fill(&mut message.body)?;
        self.serial += 1;
        let serial = self.serial;
        let mut bytes = Vec::with_capacity(512);
        marshal::marshal(&message, serial, &mut bytes)?;
        bytes.extend_from_slice(message.get_buf());
        self.write(&bytes)?;
        loop {
            let message = self.next()?;
            if message.typ == MessageType::Signal {
                self.signals.push(message);
            } else if message.dynheader.response_serial == Some(serial) {
                if message.typ != MessageType::Error {
                    return Ok(Ok(message));
                }
                let words = message.body.parser().get::<String>().unwrap_or_default();
                let name = message.dynheader.error_name.unwrap_or_default();
                if GONE.iter().any(|gone| name.strip_prefix(ERROR) == Some(gone)) {
                    return Err(Trouble::HungUp);
                }
                return Ok(Err(Refused { name, words }));
            }
        }
    }

    /// Waits for the end of a job, which may have come already.
    fn wait(&mut self, job: &str) -> Result<String, Trouble> {
        let mut early = std::mem::take(&mut self.signals).into_iter();
        loop {
            let message = match early.next() {
                Some(message) => message,
                None => self.next()?,
            };
            if message.dynheader.member.as_deref() != Some("JobRemoved") {
                continue;
            }
            let (_, ended, _, result): (u32, ObjectPath<String>, String, String) =
                message.body.parser().get4()?;
            if ended.as_ref() == job {
                return Ok(result);
            }
        }
    }

    fn next(&mut self) -> Result<MarshalledMessage, Trouble> {
        let mut bytes = vec![0; HEADER_LEN + 4];
        self.read(&mut bytes)?;
        let (_, header) = unmarshal_header(&bytes, 0)?;
        let fields = &bytes[HEADER_LEN..];
        let fields = <[u8; 4]>::try_from(fields).unwrap_or_default();
        let fields = match header.byteorder {
            rustbus::ByteOrder::LittleEndian => u32::from_le_bytes(fields),
            rustbus::ByteOrder::BigEndian => u32::from_be_bytes(fields),
        } as usize;
        let body = header.body_len as usize;
        if fields > LONGEST || body > LONGEST {
            return Err(Trouble::Other("a message is too long".to_owned()));
        }
        let length = (HEADER_LEN + 4 + fields).next_multiple_of(8) + body;
        bytes.resize(length, 0);
        self.read(&mut bytes[HEADER_LEN + 4..])?;
        let (used, fields) = unmarshal_dynamic_header(&header, &bytes, HEADER_LEN)?;
        let (_, message) = unmarshal_next_message(&header, fields, &bytes, HEADER_LEN + used)?;
        Ok(message)
    }

    fn left(&self) -> Result<Duration, Trouble> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Trouble::Late) } else { Ok(left) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        Ok(self.stream.write_all(bytes)?)
    }

    fn read(&mut self, mut into: &mut [u8]) -> Result<(), Trouble> {
        while !into.is_empty() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(into) {
                Ok(0) => return Err(Trouble::HungUp),
                Ok(count) => into = &mut into[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// sd_booted(3).
pub(super) fn booted() -> Result<()> {
    if Path::new("/run/systemd/system").exists() {
        return Ok(());
    }
    Err(Error::Unsupported("the systemd cgroup driver: systemd is not running".to_owned()))
}

/// Whether the system's manager runs as the root that we are.
pub(super) fn system_is_ours() -> bool {
    std::fs::metadata(SYSTEM).is_ok_and(|socket| socket.uid() == 0)
}

/// Where a manager may listen, and whether it does so itself.
fn sockets(user: bool) -> Vec<(PathBuf, bool)> {
    if !user {
        return vec![(SYSTEM.into(), true), ("/run/dbus/system_bus_socket".into(), false)];
    }
    let mut found = Vec::new();
    if let Some(run) = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        found.push((run.join("systemd/private"), true));
        found.push((run.join("bus"), false));
    }
    let address = env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    if let Some(path) = address.strip_prefix("unix:path=") {
        found.push((path.split([',', ';']).next().unwrap_or_default().into(), false));
    }
    found
}

fn object(answer: &MarshalledMessage) -> Result<String, Trouble> {
    Ok(answer.body.parser().get::<ObjectPath<String>>()?.as_ref().to_owned())
}

type Answer<T> = Result<Result<T, Refused>, Trouble>;

/// The conversation itself has gone wrong.
#[derive(Debug)]
enum Trouble {
    Late,
    /// systemd went away: `daemon-reexec`.
    HungUp,
    Other(String),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Late,
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Self::HungUp,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<MarshalError> for Trouble {
    fn from(error: MarshalError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<UnmarshalError> for Trouble {
    fn from(error: UnmarshalError) -> Self {
        Self::Other(error.to_string())
    }
}

trait DoingBus<T> {
    fn doing_bus(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> DoingBus<T> for Result<T, Trouble> {
    fn doing_bus(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|trouble| {
            let doing = format!("{}: talk to systemd", doing());
            match trouble {
                Trouble::Late => {
                    Error::Failed(format!("{doing}: no answer within {} s", PATIENCE.as_secs()))
                }
                Trouble::HungUp => Error::sys(doing, Errno::ECONNRESET),
                Trouble::Other(why) => Error::Failed(format!("{doing}: {why}")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Bus, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let end = Instant::now() + Duration::from_millis(50);
        (Bus { stream: ours, serial: 0, end, signals: Vec::new() }, theirs)
    }

    #[test]
    fn a_systemd_that_says_nothing_is_not_waited_for_forever() {
        let (mut bus, _silent) = pair();
        let error = bus.manager("Version").unwrap_err().to_string();
        assert!(error.contains("no answer"), "{error}");
    }

    #[test]
    fn a_systemd_that_goes_away_is_known_by_the_errno() {
        let (mut bus, gone) = pair();
        drop(gone);
        assert_eq!(bus.manager("Version").unwrap_err().errno(), Some(Errno::ECONNRESET));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for garbage in [[0; 64], [b'l'; 64], [0xff; 64]] {
            let (mut bus, mut other) = pair();
            other.write_all(&garbage).unwrap();
            let _words = bus.manager("Version").unwrap_err();
        }
    }
}
