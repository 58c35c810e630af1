//! The shim's own log: logrus text lines to the FIFO `log` in the bundle, which containerd copies
//! into its own log.
//!
//! Promise: logging never blocks. The FIFO is opened for both directions, so that opening does not
//! wait for containerd, a containerd that restarts is no broken pipe, and it finds what was written
//! meanwhile; a line that does not fit is lost and counted, and the count is the first thing that is
//! said when there is room again. A line is written whole or not at all (`PIPE_BUF`).
//!
//! The FIFO becomes standard error: whatever writes there, our own last words included, is seen in
//! containerd's log. A worker keeps its lines instead ([`keep`]), with those of the runtime's
//! library and of the container's init; they travel in its report, and the loop writes them
//! ([`forward`]).

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use corten::cli::LogLevel;
use corten::error::{Doing, Error, Result};
use corten::log::{self, Line};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stderr, write};
use tracing::{Event, Metadata, Subscriber, span};

/// The FIFO in the bundle, which containerd makes.
const FIFO: &str = "log";
/// The longest line that a pipe takes whole.
const LINE_MAX: usize = libc::PIPE_BUF;
/// What ends a line that was cut.
const CUT: &str = "…\"\n";

/// The least that is logged; set once, when the log is opened.
static LEVEL: OnceLock<LogLevel> = OnceLock::new();
/// Whether this process keeps its lines.
static KEEPS: AtomicBool = AtomicBool::new(false);
/// Who listens to what this process is doing.
static PROGRESS: OnceLock<Box<dyn Fn(String) + Send + Sync>> = OnceLock::new();
/// Where lines go.
static SINK: Sink = Sink { lost: AtomicU64::new(0) };

/// The daemon's log: the FIFO in the bundle, which is the working directory. Without one (nobody
/// reads) standard error stays what it is.
///
/// # Errors
/// When the FIFO can't be opened, or a log was opened before.
pub fn to_fifo(level: LogLevel) -> Result<()> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match open(Path::new(FIFO), flags | OFlag::O_APPEND | OFlag::O_NOCTTY, Mode::empty()) {
        Err(Errno::ENOENT) => {}
        other => {
            let fifo = other.doing(|| "open the bundle's log".to_owned())?;
            dup2_stderr(fifo).doing(|| "make the log standard error".to_owned())?;
        }
    }
    install(level)
}

/// The log of `delete`: what goes wrong, to standard error, which containerd logs as warnings.
///
/// # Errors
/// When a log was opened before.
pub fn to_stderr() -> Result<()> {
    install(LogLevel::Warning)
}

/// From now on this process keeps its lines for a report: it is a worker. What it had kept for
/// others, as a copy of its parent, is not its own. `level` is for a worker that was executed anew.
///
/// # Errors
/// None that a correct program could see.
pub fn keep(level: LogLevel) -> Result<()> {
    KEEPS.store(true, Ordering::Relaxed);
    drop(log::take());
    if LEVEL.get().is_some() { Ok(()) } else { install(level) }
}

/// Has `listener` told what this process says it is doing ([`log::PROGRESS`]).
pub fn tell_progress(listener: impl Fn(String) + Send + Sync + 'static) {
    // Once in a worker's life; a second listener would hear nothing.
    let _first = PROGRESS.set(Box::new(listener));
}

/// What a worker has kept, for its report.
pub fn take() -> Vec<Line> {
    log::take()
}

/// Writes what a worker had kept, as far as it is asked for.
pub fn forward(lines: Vec<Line>) {
    for line in lines.iter().filter(|line| line.level() <= level()) {
        SINK.write(std::io::stderr().as_fd(), line);
    }
}

/// The least that is logged, for a worker that is executed anew.
pub fn level() -> LogLevel {
    LEVEL.get().copied().unwrap_or(LogLevel::Info)
}

/// Why the program fails: to the log if there is one, else as Go's shims print it.
pub fn failure(error: &Error) {
    if LEVEL.get().is_some() {
        forward(vec![Line::now(LogLevel::Error, error.to_string())]);
    } else {
        eprintln!("containerd-shim-corten-v2: {error}");
    }
}

/// A bug in one line that says where, without a backtrace.
pub fn bug(info: &std::panic::PanicHookInfo<'_>) -> String {
    let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line()));
    let what = info.payload_as_str().unwrap_or("a panic");
    format!("internal error{}: {what}", place.unwrap_or_default())
}

fn install(level: LogLevel) -> Result<()> {
    if LEVEL.set(level).is_err() || tracing::subscriber::set_global_default(Lines).is_err() {
        return Err(Error::Failed("the log was opened twice".to_owned()));
    }
    Ok(())
}

/// Writes lines, and counts those that it could not.
struct Sink {
    lost: AtomicU64,
}

impl Sink {
    /// What was lost is said in the same write as the line: when there is room for both.
    fn write(&self, to: BorrowedFd<'_>, line: &Line) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let mut text = if lost == 0 { String::new() } else { lost_line(lost) };
        let room = LINE_MAX - text.len();
        let mut last = line.text();
        if last.len() > room {
            last.truncate(last.floor_char_boundary(room - CUT.len()));
            last.push_str(CUT);
        }
        text.push_str(&last);
        if !put(to, text.as_bytes()) {
            self.lost.store(lost + 1, Ordering::Relaxed);
        }
    }
}

fn lost_line(lost: u64) -> String {
    let text = format!("{lost} lines of the shim's log were lost: nobody read them");
    Line::now(LogLevel::Warning, text).text()
}

/// Whether the bytes were written.
fn put(to: BorrowedFd<'_>, bytes: &[u8]) -> bool {
    loop {
        match write(to, bytes) {
            Err(Errno::EINTR) => {}
            other => return other.is_ok(),
        }
    }
}

/// The subscriber: events at or above the level become lines; spans are not used.
struct Lines;

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        LogLevel::of(*metadata.level()) <= level() || metadata.target() == log::PROGRESS
    }

    fn event(&self, event: &Event<'_>) {
        let line = Line::of(event, level() == LogLevel::Debug);
        if event.metadata().target() == log::PROGRESS {
            if let Some(listener) = PROGRESS.get() {
                listener(line.message().to_owned());
            }
            if level() < LogLevel::Debug {
                return;
            }
        }
        if KEEPS.load(Ordering::Relaxed) {
            log::put(vec![line]);
        } else {
            SINK.write(std::io::stderr().as_fd(), &line);
        }
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
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use nix::unistd::pipe2;

    use super::*;

    fn line(text: &str) -> Line {
        Line::now(LogLevel::Info, text.to_owned())
    }

    fn read(from: &OwnedFd) -> String {
        let mut text = vec![0; 1 << 17];
        let length = File::from(from.try_clone().unwrap()).read(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_full_log_never_blocks_and_says_later_what_it_lost() {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let sink = Sink { lost: AtomicU64::new(0) };
        let mut written = 0;
        while sink.lost.load(Ordering::Relaxed) == 0 {
            sink.write(writer.as_fd(), &line(&"x".repeat(1000)));
            written += 1;
        }
        for _ in 0..4 {
            sink.write(writer.as_fd(), &line(&"y".repeat(1000)));
        }
        let before = read(&reader);
        assert_eq!(before.lines().count(), written - 1);
        assert!(!before.contains('y'));
        sink.write(writer.as_fd(), &line("z"));
        let after = read(&reader);
        let lines: Vec<&str> = after.lines().collect();
        assert!(lines[0].contains("level=warning msg=\"5 lines of the shim's log were lost"));
        assert!(lines[1].ends_with("level=info msg=z"), "{after}");
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_line_is_written_whole_however_long_it_is() {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let sink = Sink { lost: AtomicU64::new(0) };
        sink.write(writer.as_fd(), &line(&"ä b".repeat(LINE_MAX)));
        let text = read(&reader);
        assert!(text.len() <= LINE_MAX && text.len() > LINE_MAX - 8, "{}", text.len());
        assert!(text.ends_with("…\"\n"), "{text}");
    }

    #[test]
    fn events_become_logrus_lines() {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK).unwrap();
        struct To(OwnedFd);
        impl Subscriber for To {
            fn enabled(&self, _: &Metadata<'_>) -> bool {
                true
            }
            fn event(&self, event: &Event<'_>) {
                SINK.write(self.0.as_fd(), &Line::of(event, false));
            }
            fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
                span::Id::from_u64(1)
            }
            fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
            fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
            fn enter(&self, _: &span::Id) {}
            fn exit(&self, _: &span::Id) {}
        }
        tracing::subscriber::with_default(To(writer), || {
            tracing::info!(id = "a b", pid = 7, "task {} exited", 1);
        });
        let text = read(&reader);
        let (time, rest) = text.split_once(" level=").unwrap();
        assert!(time.starts_with("time=\"20") && time.ends_with("Z\""), "{text}");
        assert_eq!(rest, "info msg=\"task 1 exited\" id=\"a b\" pid=7\n");
    }
}
