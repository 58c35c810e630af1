//! The log: runc's text and JSON lines, by a small subscriber of our own.
//!
//! podman reads the whole log of a failed command as one JSON value, so a failure must leave exactly
//! one line: warnings are kept back and written when the command has succeeded ([`flush`]), unless
//! `--debug` asks for all at once. The error goes to the log and, if that is a file, to standard
//! error too, because conmon and go-runc read it there ([`error`]).
//!
//! A process made by clone has a copy of what is kept back: it forgets that first ([`take`]), and
//! what it then keeps travels to its parent, who puts it in ([`put`]). Lines are for programs and
//! terminals alike, so control characters are escaped: container authors write part of them.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

use crate::cli::{Globals, LogFormat, LogLevel};
use crate::error::{Doing, Error, Result};
use crate::time;

/// The target of events that say what may take long from now on: of the debug level here, and what
/// the shim's workers tell the shim.
pub const PROGRESS: &str = "progress";

/// Where lines go and how; set once by [`init`].
static LOG: OnceLock<Log> = OnceLock::new();

/// Lines kept back until the command has succeeded.
static KEPT: Mutex<Vec<Line>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Log {
    file: Option<File>,
    format: LogFormat,
    level: LogLevel,
    debug: bool,
}

/// One line of the log before it has a form.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Line {
    level: LogLevel,
    message: String,
    moment: SystemTime,
    fields: Vec<(String, String)>,
}

/// Opens the log that the global options ask for and makes it the process's own.
///
/// # Errors
/// [`Error::Sys`] if the file of `--log` cannot be opened.
pub fn init(globals: &Globals) -> Result<()> {
    let open = |path| {
        File::options()
            .append(true)
            .create(true)
            .mode(0o644)
            .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(path)
            .doing(|| format!("open log file {path:?}"))
    };
    let log = Log {
        file: globals.log.as_ref().map(open).transpose()?,
        format: globals.log_format,
        level: globals.log_level,
        debug: globals.debug,
    };
    if LOG.set(log).is_err() || tracing::subscriber::set_global_default(Kept).is_err() {
        return Err(Error::Failed("the log was opened twice".to_owned()));
    }
    Ok(())
}

/// Writes what was kept back: the command has succeeded.
pub fn flush() {
    for line in take() {
        write(&line);
    }
}

/// Takes what was kept back out of this process's memory, to drop it or to send it elsewhere.
pub fn take() -> Vec<Line> {
    std::mem::take(&mut *kept())
}

/// Keeps lines that another process has taken, or writes them with `--debug`.
pub fn put(lines: Vec<Line>) {
    for line in lines {
        keep(line);
    }
}

/// Says why the command failed: one line in the log and one on standard error, which may be the
/// same.
pub fn error(error: &Error) {
    drop(take());
    let message = error.to_string();
    let line = Line::now(LogLevel::Error, message);
    write(&line);
    if LOG.get().is_some_and(|log| log.file.is_some()) {
        to_stderr(&format!("{}\n", plain(&line.message)));
    }
}

fn kept() -> MutexGuard<'static, Vec<Line>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(line: Line) {
    if LOG.get().is_some_and(|log| log.debug) {
        write(&line);
    } else {
        kept().push(line);
    }
}

fn write(line: &Line) {
    let format = LOG.get().map_or(LogFormat::Text, |log| log.format);
    let text = match format {
        LogFormat::Text => line.text(),
        LogFormat::Json => line.json(),
    };
    match LOG.get().and_then(|log| log.file.as_ref()) {
        // A log that cannot be written must not turn a container that runs into a failure.
        Some(mut file) => {
            if file.write_all(text.as_bytes()).is_err() {
                to_stderr(&text);
            }
        }
        None => to_stderr(&text),
    }
}

/// Nobody is left to tell if standard error is gone too.
fn to_stderr(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).unwrap_or_default();
}

impl Line {
    /// A line about this moment.
    pub fn now(level: LogLevel, message: String) -> Self {
        Self { level, message, moment: SystemTime::now(), fields: Vec::new() }
    }

    /// What an event says, and with `place` where in the code it is.
    pub fn of(event: &Event<'_>, place: bool) -> Self {
        let metadata = event.metadata();
        let mut line = Self::now(LogLevel::of(*metadata.level()), String::new());
        event.record(&mut line);
        if place {
            let file = metadata.file().unwrap_or_default();
            let place = format!("{file}:{}", metadata.line().unwrap_or_default());
            line.fields.push(("file".to_owned(), place));
        }
        line
    }

    /// The beginning of it, in so many bytes.
    pub fn cut(&self, most: usize) -> Self {
        let message = self.message[..self.message.floor_char_boundary(most)].to_owned();
        Self { level: self.level, message, moment: self.moment, fields: Vec::new() }
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How much it matters.
    pub fn level(&self) -> LogLevel {
        self.level
    }

    /// `time="…" level=warning msg="…" key=value`, with values in Go's quotes where logrus sets
    /// them.
    pub fn text(&self) -> String {
        let moment = time::rfc3339_nano(self.moment);
        let message = quoted(&self.message);
        let mut text = format!("time=\"{moment}\" level={} msg={message}", self.level.name());
        for (key, value) in &self.fields {
            text.push(' ');
            text.push_str(&plain(key));
            text.push('=');
            text.push_str(&quoted(value));
        }
        text.push('\n');
        text
    }

    /// `{"level":"warning","msg":"…","time":"…"}`.
    fn json(&self) -> String {
        let mut line = serde_json::Map::new();
        for (key, value) in &self.fields {
            line.insert(key.clone(), value.as_str().into());
        }
        line.insert("level".to_owned(), self.level.name().into());
        line.insert("msg".to_owned(), self.message.as_str().into());
        line.insert("time".to_owned(), time::rfc3339_nano(self.moment).into());
        format!("{}\n", serde_json::Value::Object(line))
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a String fails only if the value's own Debug does.
        if write!(text, "{value:?}").is_err() {
            text.push('?');
        }
        match field.name() {
            "message" => self.message = text,
            name => self.fields.push((name.to_owned(), text)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl LogLevel {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// What a level of tracing is here.
    pub fn of(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warning,
            tracing::Level::INFO => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// A value of a text line: bare if logrus leaves it so.
fn quoted(value: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/@^+".contains(&byte);
    if !value.is_empty() && value.bytes().all(bare) {
        return value.to_owned();
    }
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for letter in value.chars() {
        match letter {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            letter => push_plain(&mut text, letter),
        }
    }
    text.push('"');
    text
}

/// One line, whatever a container's author put into a name.
fn plain(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    message.chars().for_each(|letter| push_plain(&mut text, letter));
    text
}

fn push_plain(text: &mut String, letter: char) {
    match letter {
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        letter if letter.is_control() => text.extend(letter.escape_unicode()),
        letter => text.push(letter),
    }
}

/// The subscriber: events at or above the level become lines; spans are not used.
struct Kept;

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        LOG.get().is_some_and(|log| LogLevel::of(*metadata.level()) <= log.level)
    }

    fn event(&self, event: &Event<'_>) {
        keep(Line::of(event, LOG.get().is_some_and(|log| log.debug)));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn line(message: &str, place: Option<&str>) -> Line {
        Line {
            level: LogLevel::Error,
            message: message.to_owned(),
            moment: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            fields: place.map(|place| ("file".to_owned(), place.to_owned())).into_iter().collect(),
        }
    }

    #[test]
    fn a_text_line_is_what_logrus_prints() {
        assert_eq!(
            line("open \"/x\": no\nway", None).text(),
            "time=\"2023-11-14T22:13:20Z\" level=error msg=\"open \\\"/x\\\": no\\nway\"\n"
        );
        assert_eq!(line("ok", None).text(), "time=\"2023-11-14T22:13:20Z\" level=error msg=ok\n");
        assert!(line("", Some("a.rs:1")).text().ends_with(" msg=\"\" file=\"a.rs:1\"\n"));
    }

    #[test]
    fn a_json_line_has_the_three_fields_that_callers_read() {
        assert_eq!(
            line("a \"b\"\n\u{1b}[0m", None).json(),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\\n\\u001b[0m\",\"time\":\"2023-11-14T22:13:20Z\"}\n"
        );
        assert!(line("a", Some("x.rs:3")).json().starts_with("{\"file\":\"x.rs:3\",\"level\":"));
    }

    #[test]
    fn a_message_for_a_terminal_is_one_line_without_controls() {
        assert_eq!(plain("a\nb\u{1b}]0;x\u{7}\t\u{9b}é"), "a\\nb\\u{1b}]0;x\\u{7}\\t\\u{9b}é");
    }

    #[test]
    fn levels_that_matter_more_come_first() {
        assert!(LogLevel::Error < LogLevel::Warning && LogLevel::Info < LogLevel::Debug);
    }
}
