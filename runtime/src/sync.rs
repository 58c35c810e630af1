//! What `create` and `init` say to each other, over one `SOCK_SEQPACKET` pair.
//!
//! The init is a clone of the creator, so it already has the plan; what is left to say is who may
//! go on when, and what went wrong. A message is one tag byte and a body.
//!
//! ```text
//! parent (create, exec)                       child (init)
//!                                             join the cgroup
//!   write id maps
//!   Mapped ─────────────────────────────────▶ become root      (only with a new user namespace)
//!   Sources + fds ──────────────────────────▶                  (only then: see rootfs::Moment)
//!                                             unshare the cgroup namespace, mount
//!   run prestart, createRuntime hooks ◀────── Mounted          (only if there are such hooks)
//!   Hooked ─────────────────────────────────▶ createContainer hooks, pivot, mask, limits
//!   fetch it, send it to the agent ◀───────── Listener         (only with SCMP_ACT_NOTIFY)
//!   keep it ◀──────────────────────────────── Log              (warnings, before Ready)
//!   journal, pid file ◀────────────────────── Ready
//!   Released ───────────────────────────────▶ wait at the gate (init) or execute (exec)
//! ```
//! At any time `Failed` ends the conversation, and so does the end of file: a child whose parent
//! died exits, a parent whose child died says so. The child's end closes at `execve`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Doing, Error, Result};
use crate::log;
use crate::sys::socket;

/// Longest message, in bytes; longer texts are cut.
pub(crate) const MAX: usize = 32 * 1024;

/// From the parent to the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Go {
    /// The id maps are written.
    Mapped = b'p',
    /// The hooks of the runtime's namespaces have run.
    Hooked = b'h',
    /// The journal knows everything: the parent may leave.
    Released = b'r',
}

/// From the child to the parent.
#[derive(Debug)]
pub enum Report {
    /// All mounts stand, the root is not yet entered.
    Mounted,
    /// The seccomp filter's listener: its number in the child. Told by write(2) alone, because the
    /// filter may make everything else wait for the agent, who has no listener yet; the parent
    /// fetches it with pidfd_getfd(2).
    Listener(RawFd),
    /// A line that the child kept back for the log.
    Log(log::Line),
    /// Everything is done that can be done before the user's program.
    Ready,
    /// What went wrong, whole.
    Failed(String),
    /// The child closed its end: it executed the user's program, or died.
    Gone,
}

impl Report {
    /// The message of a report.
    pub(crate) fn written(&self) -> Vec<u8> {
        let (tag, body) = match self {
            Self::Mounted => (b'm', String::new()),
            Self::Listener(number) => (b'l', number.to_string()),
            Self::Log(line) => {
                let whole = serde_json::to_string(line).unwrap_or_default();
                // Half of a line would not be understood, and end the conversation. A letter may
                // be six in JSON.
                let cut = || serde_json::to_string(&line.cut(MAX / 8)).unwrap_or_default();
                (b'w', if whole.len() > MAX { cut() } else { whole })
            }
            Self::Ready => (b'y', String::new()),
            Self::Failed(text) => (b'f', text.clone()),
            Self::Gone => return Vec::new(),
        };
        let mut message = vec![tag];
        message.extend(body.bytes().take(MAX));
        message
    }

    /// Reads a message; an empty one is the end of file.
    pub(crate) fn read(message: &[u8]) -> Result<Self> {
        let Some((tag, body)) = message.split_first() else { return Ok(Self::Gone) };
        let text = || String::from_utf8_lossy(body).into_owned();
        Ok(match *tag {
            b'm' => Self::Mounted,
            b'l' => Self::Listener(text().parse().unwrap_or(-1)),
            b'w' => Self::Log(serde_json::from_slice(body).map_err(|error| {
                Error::Failed(format!("listen to the init: log lines: {error}"))
            })?),
            b'y' => Self::Ready,
            b'f' => Self::Failed(text()),
            other => {
                return Err(Error::Failed(format!("listen to the init: message {other:#x}")));
            }
        })
    }
}

/// The parent's end.
#[derive(Debug)]
pub struct ToInit(OwnedFd);

/// The child's end.
#[derive(Debug)]
pub struct ToParent(OwnedFd);

/// A connected pair of ends.
///
/// # Errors
/// When no socket can be made.
pub fn pair() -> Result<(ToInit, ToParent)> {
    let (ours, theirs) = socket::pair().doing(|| "make a socket pair".to_owned())?;
    Ok((ToInit(ours), ToParent(theirs)))
}

impl AsFd for ToParent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ToInit {
    /// Passes descriptors that were opened after the clone, in as many messages as they need.
    ///
    /// # Errors
    /// `EPIPE` when the child died.
    pub fn send_fds(&self, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let doing = || "pass descriptors to the init".to_owned();
        let count = u32::try_from(fds.len()).unwrap_or(u32::MAX).to_ne_bytes();
        socket::send(&self.0, &count, &[]).doing(doing)?;
        for chunk in fds.chunks(socket::MAX_FDS) {
            socket::send(&self.0, b"d", chunk).doing(doing)?;
        }
        Ok(())
    }

    /// Lets the child go on.
    ///
    /// # Errors
    /// `EPIPE` when it died; what it said before is still to be received.
    pub fn go(&self, go: Go) -> Result<()> {
        socket::send(&self.0, &[go as u8], &[]).doing(|| "tell the init to go on".to_owned())
    }

    /// The child's next report, waiting for it.
    ///
    /// # Errors
    /// When the socket fails or the message is not one of ours.
    pub fn next(&self) -> Result<Report> {
        let mut buffer = vec![0; MAX + 1];
        let (length, _) = match socket::receive(&self.0, &mut buffer) {
            // It ended without having read all that we said. That is told once, and before what it
            // had to say itself: not to look again would take its failure for success.
            Err(Errno::ECONNRESET) => socket::receive(&self.0, &mut buffer),
            other => other,
        }
        .doing(|| "listen to the init".to_owned())?;
        Report::read(buffer.get(..length).unwrap_or_default())
    }

    /// Why the child failed, if it did and has said so by now. Does not wait.
    pub fn last_words(&self) -> Option<Error> {
        loop {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            if !poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
                return None;
            }
            match self.next() {
                Ok(Report::Failed(why)) => return Some(Error::Failed(why)),
                Ok(Report::Gone) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

impl ToParent {
    /// Reports to the parent.
    ///
    /// # Errors
    /// `EPIPE` when it died.
    pub fn report(&self, report: &Report) -> Result<()> {
        if matches!(report, Report::Gone) {
            return Ok(());
        }
        let message = report.written();
        // write(2), which a filter that is loaded by now is least likely to refuse.
        nix::unistd::write(&self.0, &message).map(drop).doing(|| "report to the runtime".to_owned())
    }

    /// Receives what [`ToInit::send_fds`] sends.
    ///
    /// # Errors
    /// When the parent died.
    pub fn receive_fds(&self) -> Result<Vec<OwnedFd>> {
        let doing = || "receive descriptors from the runtime".to_owned();
        let mut buffer = [0; 8];
        let (length, _) = socket::receive(&self.0, &mut buffer).doing(doing)?;
        let count = buffer
            .get(..length)
            .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
            .map(|bytes| u32::from_ne_bytes(bytes) as usize)
            .ok_or_else(|| Error::Failed(format!("{}: the runtime is gone", doing())))?;
        let mut all = Vec::new();
        while all.len() < count {
            let (_, fds) = socket::receive(&self.0, &mut buffer).doing(doing)?;
            if fds.is_empty() {
                return Err(Error::Failed(format!("{}: {} of {count} came", doing(), all.len())));
            }
            all.extend(fds);
        }
        Ok(all)
    }

    /// Waits until the parent lets us go on.
    ///
    /// # Errors
    /// When the parent died or says something else.
    pub fn wait(&self, go: Go) -> Result<()> {
        let mut buffer = [0; 8];
        let length = loop {
            match nix::unistd::read(&self.0, &mut buffer) {
                Err(Errno::EINTR) => {}
                other => break other.doing(|| "listen to the runtime".to_owned())?,
            }
        };
        match buffer.get(..length) {
            Some([tag]) if *tag == go as u8 => Ok(()),
            Some([]) | None => Err(Error::Failed("the runtime is gone".to_owned())),
            Some(other) => {
                Err(Error::Failed(format!("expected {go:?} of the runtime, got {other:?}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_arrive_whole_and_in_order() {
        let (parent, child) = pair().unwrap();
        child.report(&Report::Failed("w".repeat(MAX + 5))).unwrap();
        child.report(&Report::Failed("mount proc: no".to_owned())).unwrap();
        drop(child);
        assert!(matches!(parent.next().unwrap(), Report::Failed(text) if text.len() == MAX));
        assert!(matches!(parent.next().unwrap(), Report::Failed(text) if text == "mount proc: no"));
        assert!(matches!(parent.next().unwrap(), Report::Gone));
    }

    #[test]
    fn a_log_line_that_is_too_long_arrives_cut_and_does_not_end_the_conversation() {
        let (parent, child) = pair().unwrap();
        let level = crate::cli::LogLevel::Warning;
        let line = log::Line::now(level, "\u{1}\"é".repeat(MAX));
        child.report(&Report::Log(line.clone())).unwrap();
        let Report::Log(cut) = parent.next().unwrap() else { panic!("no line") };
        assert!(line.message().starts_with(cut.message()) && cut.message().len() > MAX / 10);
    }

    #[test]
    fn last_words_are_found_behind_other_reports_and_not_waited_for() {
        let (parent, child) = pair().unwrap();
        assert!(parent.last_words().is_none());
        child.report(&Report::Mounted).unwrap();
        child.report(&Report::Failed("no".to_owned())).unwrap();
        drop(child);
        assert!(parent.go(Go::Mapped).is_err());
        assert_eq!(parent.last_words().unwrap().to_string(), "no");
        assert!(parent.last_words().is_none());
    }

    #[test]
    fn the_words_of_a_child_that_did_not_listen_are_heard() {
        let (parent, child) = pair().unwrap();
        parent.go(Go::Released).unwrap();
        child.report(&Report::Failed("no".to_owned())).unwrap();
        drop(child);
        assert!(matches!(parent.next().unwrap(), Report::Failed(text) if text == "no"));
        assert!(matches!(parent.next().unwrap(), Report::Gone));
    }

    #[test]
    fn a_child_whose_parent_died_does_not_go_on() {
        let (parent, child) = pair().unwrap();
        parent.go(Go::Mapped).unwrap();
        drop(parent);
        child.wait(Go::Mapped).unwrap();
        assert!(child.wait(Go::Hooked).is_err());
    }
}
