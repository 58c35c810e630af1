//! Stopping and continuing everything in the group.
//!
//! v2 tells when it is done and wakes a poll. v1 has no such event, and a group in which processes
//! keep being born may stay FREEZING: the request is repeated until a deadline. A group that could
//! not be frozen is thawed again: half frozen is the one state nobody expects.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::dir::{Dir, Step, walk};
use super::{Cgroup, Group};
use crate::error::{Doing, Error, Result};

/// How long freezing may take: processes in an uninterruptible wait can't be frozen.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a change of a v2 group may go unnoticed when the kernel doesn't tell of it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Cgroup {
    /// Who freezes: v1's controller where there is one, as managers look there.
    fn freezer(&self) -> Option<&Group> {
        self.v1("freezer").or_else(|| self.v2())
    }

    /// Stops every process in the group and its sub-groups, and waits until they are.
    ///
    /// # Errors
    /// No freezer; not done in ten seconds (then nothing is frozen).
    pub fn freeze(&self) -> Result<()> {
        let group = self.freezer().ok_or_else(|| {
            Error::Unsupported(
                "cannot toggle freezer: cgroups not configured for container".to_owned(),
            )
        })?;
        let dir = group.dir()?;
        let frozen = if group.is_v2() { freeze_v2(dir) } else { freeze_v1(dir) };
        let Err(error) = frozen else { return Ok(()) };
        match set(group, dir, false) {
            Ok(()) => Err(error),
            Err(thaw) => Err(Error::Failed(format!("{error}; it may still be frozen: {thaw}"))),
        }
    }

    /// Lets the group continue. Sub-groups that the container froze by itself stay frozen.
    ///
    /// # Errors
    /// The errno of asking for it; a group that is gone is thawed.
    pub fn thaw(&self) -> Result<()> {
        let Some(group) = self.freezer() else { return Ok(()) };
        match group.find()? {
            Some(dir) => set(group, dir, false),
            None => Ok(()),
        }
    }

    /// Whether the group itself was asked to freeze: the container is paused. A frozen parent does
    /// not count.
    ///
    /// # Errors
    /// The errno of reading it, except for its absence.
    pub fn is_frozen(&self) -> Result<bool> {
        let Some(group) = self.freezer() else { return Ok(false) };
        let Some(dir) = group.find()? else { return Ok(false) };
        let file = if group.is_v2() { "cgroup.freeze" } else { "freezer.self_freezing" };
        match dir.try_read(file) {
            Ok(text) => Ok(text.trim_end() == "1"),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            Err(errno) => Err(errno).doing(|| format!("read {:?}", dir.path().join(file))),
        }
    }

    /// Thaws the group and every sub-group in every hierarchy that freezes: in a frozen v1 group
    /// even a kill waits.
    ///
    /// # Errors
    /// The first errno; the other groups have been thawed all the same.
    pub(super) fn thaw_tree(&self) -> Result<()> {
        let Some(group) = self.v1("freezer") else { return self.thaw() };
        let Some(top) = group.find()? else { return Ok(()) };
        let mut first = Ok(());
        walk(top, |step| {
            if let Step::Enter(dir) = step
                && let Err(error) = set(group, dir, false)
                && first.is_ok()
            {
                first = Err(error);
            }
            Ok(())
        })?;
        first
    }
}

fn set(group: &Group, dir: &Dir, freeze: bool) -> Result<()> {
    let (file, value) = match (group.is_v2(), freeze) {
        (true, true) => ("cgroup.freeze", "1"),
        (true, false) => ("cgroup.freeze", "0"),
        (false, true) => ("freezer.state", "FROZEN"),
        (false, false) => ("freezer.state", "THAWED"),
    };
    match dir.try_write(file, value) {
        // Gone, or a kernel without the v2 freezer (before 5.2): nothing is frozen.
        Err(Errno::ENOENT | Errno::ENODEV) if !freeze => Ok(()),
        other => other.doing(|| format!("write {value:?} to {:?}", dir.path().join(file))),
    }
}

fn freeze_v1(dir: &Dir) -> Result<()> {
    let end = Instant::now() + DEADLINE;
    for round in 1_u32.. {
        dir.write("freezer.state", "FROZEN")?;
        let state = dir.read("freezer.state")?;
        match state.trim_end() {
            "FROZEN" => return Ok(()),
            "FREEZING" if Instant::now() < end => {}
            "FREEZING" => break,
            // A kill thaws what it finds frozen.
            _ => return Err(thawed(dir)),
        }
        // Letting newborn processes through now and then helps a group in which many are born.
        if round % 50 == 0 {
            dir.write("freezer.state", "THAWED")?;
        }
        // v1 has no event to wait for.
        pause(Duration::from_millis(if round < 10 { 0 } else { 1 }))?;
    }
    Err(Error::Failed(format!("unable to freeze {:?}", dir.path())))
}

fn freeze_v2(dir: &Dir) -> Result<()> {
    let end = Instant::now() + DEADLINE;
    dir.write("cgroup.freeze", "1")?;
    while !wait_event(dir, "frozen 1", end.min(Instant::now() + LOOK_AGAIN))? {
        // A kill thaws what it finds frozen, and then no event comes.
        if dir.try_read("cgroup.freeze").is_ok_and(|text| text.trim_end() == "0") {
            return Err(thawed(dir));
        }
        if Instant::now() >= end {
            return Err(Error::Failed(format!("unable to freeze {:?}", dir.path())));
        }
    }
    Ok(())
}

fn thawed(dir: &Dir) -> Error {
    Error::Failed(format!("{:?} was thawed meanwhile", dir.path()))
}

/// Waits until a v2 group's cgroup.events has `line`; false at the deadline. A group that is gone
/// has every line.
///
/// The kernel tells of a second change within 10 ms when these are over (cgroup_file_notify), and
/// never if the group has been removed by then: so it is looked at again now and then.
pub(super) fn wait_event(dir: &Dir, line: &str, end: Instant) -> Result<bool> {
    let doing = || format!("watch {:?}", dir.path().join("cgroup.events"));
    let events = match dir.file("cgroup.events", OFlag::O_RDONLY) {
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(true),
        other => other.doing(doing)?,
    };
    loop {
        let mut text = [0; 256];
        match nix::sys::uio::pread(&events, &mut text, 0) {
            Err(Errno::ENODEV) => return Ok(true),
            Ok(n) if text[..n].split(|b| *b == b'\n').any(|l| l == line.as_bytes()) => {
                return Ok(true);
            }
            other => drop(other.doing(doing)?),
        }
        let told = wait_for(&events, PollFlags::POLLPRI, end.min(Instant::now() + LOOK_AGAIN))?;
        if !told && Instant::now() >= end {
            return Ok(false);
        }
    }
}

/// Polls until `events` or the deadline; whether something happened.
pub(super) fn wait_for(fd: &OwnedFd, events: PollFlags, end: Instant) -> Result<bool> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // Rounded up, or the last millisecond would be spent spinning.
        let timeout =
            PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), events)], timeout) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            other => return other.map(|n| n > 0).doing(|| "poll".to_owned()),
        }
    }
}

/// A pause where the kernel has no event to wait for.
pub(super) fn pause(time: Duration) -> Result<()> {
    match poll(&mut [], PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno).doing(|| "poll".to_owned()),
    }
}
