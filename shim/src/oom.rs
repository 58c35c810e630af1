//! Learning that the kernel has killed a process of a container for want of memory.
//!
//! The truth is one counter, `oom_kill`: in memory.events on v2, where it includes the groups
//! below, and in memory.oom_control on v1, where a kill is counted only in the victim's own group
//! (so one in a sub-group that the container has made is not seen). A TaskOOM is due when it has
//! increased, and at no other time. The rest is about when to look:
//!
//! - v2: the kernel counts, then makes the file ready with `EPOLLERR`, until it is read again. So
//!   the file itself is watched. An inotify instance, which containerd uses, would tell the same
//!   later, and a user has 128 of them for all containers.
//! - v1: an eventfd that is registered in cgroup.event_control fires *before* the kernel chooses
//!   its victim, also for a process that is not ours when a group above is out of memory, and when
//!   the group is removed. So what it says is only "look now, and look again in a while".
//! - An exit: its cause may not have been told yet (v2 tells every 10 ms only, v1 nothing of a kill
//!   for want of memory in the whole machine). So [`Watch::look`] comes first of all that is done
//!   about an exit: systemd takes a scope away as soon as its last process has ended.
//!
//! A group that is removed reads as `ENODEV`; it is not watched from then on, because it would be
//! ready forever. The one who removes it before we could look is systemd, on a busy machine. What it
//! counted is then still in the group above, whose counter includes what is below and what was: an
//! increase there since we looked last is ours or a neighbour's. So it is told only if the container's
//! end looks like it, see [`Watch::looks_killed`].

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use corten::cgroup::dir::Dir;
use corten::cgroup::stats::reader::value_of;
use corten::cgroup::{Cgroup, Record, Version};
use corten::error::{Doing, Error, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::uio::pread;

use crate::poll::{Interest, Poller, Token, Watched};

/// The first look after the v1 eventfd; each further one waits twice as long.
const FIRST_LOOK: Duration = Duration::from_millis(1);
/// So the last look comes after two seconds.
const LOOKS: u32 = 11;

/// The watch on a container's memory group.
#[derive(Debug)]
pub struct Watch {
    counter: Counter,
    /// What the counter said last.
    seen: u64,
    /// Found, but not told yet.
    due: u64,
    /// Of a group that systemd may remove.
    above: Option<Above>,
    /// The group was removed, and so many kills were counted above since its last count was read.
    unclaimed: u64,
}

/// The counter of the group above ours.
#[derive(Debug)]
struct Above {
    file: OwnedFd,
    key: &'static str,
    seen: u64,
}

#[derive(Debug)]
enum Counter {
    /// v2: the file is what is watched.
    Events { file: Watched<OwnedFd>, key: &'static str },
    /// v1.
    Control { file: OwnedFd, notice: Option<Notice> },
    /// The group was removed.
    Gone,
}

impl Watch {
    /// Starts to watch the group of a record. `token` may come at any time from then on, and
    /// [`Watch::turn`] answers it. `None` without a memory controller or a group.
    ///
    /// # Errors
    /// The errno of opening the files or of registering.
    pub fn new(record: &Record, poller: &Poller, token: Token) -> Result<Option<Self>> {
        let cgroup = Cgroup::open(record);
        let Some(dir) = cgroup.dir_of("memory")? else { return Ok(None) };
        if cgroup.version() == Version::V2 {
            let is_unit = record.unit.is_some();
            return Self::of_file(dir, is_unit, "memory.events", "oom_kill", poller, token);
        }
        let Some(file) = open(dir, "memory.oom_control")? else { return Ok(None) };
        let notice = Notice::new(dir, &file, poller, token)?;
        Self::from(Counter::Control { file, notice }, None).map(Some)
    }

    fn of_file(
        dir: &Dir,
        is_unit: bool,
        name: &str,
        key: &'static str,
        poller: &Poller,
        token: Token,
    ) -> Result<Option<Self>> {
        let Some(file) = open(dir, name)? else { return Ok(None) };
        let file = poller.watch(file, token, Interest::Nothing)?;
        let above = if is_unit { Above::open(dir, name, key)? } else { None };
        Self::from(Counter::Events { file, key }, above).map(Some)
    }

    fn from(counter: Counter, above: Option<Above>) -> Result<Self> {
        let mut watch = Self { counter, seen: 0, due: 0, above, unclaimed: 0 };
        watch.check()?;
        Ok(watch)
    }

    /// The container's first process has ended as the kernel's victims do, and nobody has asked for
    /// that. If a kill was counted above when the group had gone, it was ours.
    pub fn looks_killed(&mut self) {
        self.due += std::mem::take(&mut self.unclaimed).min(1);
    }

    /// Something was ready, or a process has ended.
    ///
    /// # Errors
    /// The errno of reading the counter.
    pub fn look(&mut self) -> Result<()> {
        self.due += self.increase()?;
        Ok(())
    }

    /// How much the counter has increased since this was last asked.
    ///
    /// # Errors
    /// The errno of reading it.
    pub fn turn(&mut self) -> Result<u64> {
        self.look()?;
        Ok(std::mem::take(&mut self.due))
    }

    fn increase(&mut self) -> Result<u64> {
        if let Counter::Control { notice: Some(notice), .. } = &mut self.counter {
            notice.take()?;
        }
        let increase = self.check()?;
        if let Counter::Control { notice: Some(notice), .. } = &mut self.counter {
            notice.found(increase)?;
        }
        Ok(increase)
    }

    /// The same, when nothing was ready: before an exit is published. ([`Watch::turn`] will do as
    /// well.) 0 when the group has gone.
    ///
    /// # Errors
    /// The errno of reading the counter.
    pub fn check(&mut self) -> Result<u64> {
        // Before ours: what is counted in between is then an increase of ours and not one above.
        let above = self.above.as_ref().map(Above::read).transpose()?;
        let now = match &self.counter {
            Counter::Events { file, key } => read(file, key),
            Counter::Control { file, .. } => read(file, "oom_kill"),
            Counter::Gone => return Ok(0),
        };
        match now {
            Ok(now) => {
                let increase = now.saturating_sub(self.seen);
                self.seen = now;
                if let (Some(above), Some(now)) = (&mut self.above, above) {
                    above.seen = now.max(above.seen + increase);
                }
                Ok(increase)
            }
            // What can't be read can't be made unready either.
            Err(errno) => {
                self.counter = Counter::Gone;
                // Once more: all of ours has been counted by now.
                if let Some(above) = self.above.take() {
                    self.unclaimed = above.read()?.saturating_sub(above.seen);
                }
                if errno == Errno::ENODEV { Ok(0) } else { Err(errno).doing(reading) }
            }
        }
    }
}

impl Above {
    /// `None` below the root group, which has no such file.
    fn open(dir: &Dir, name: &str, key: &'static str) -> Result<Option<Self>> {
        let Some(parent) = dir.path().parent() else { return Ok(None) };
        let parent = Dir::open(parent).doing(|| format!("open {parent:?}"))?;
        Ok(open(&parent, name)?.map(|file| Self { file, key, seen: 0 }))
    }

    /// 0 when it was removed too.
    fn read(&self) -> Result<u64> {
        match read(&self.file, self.key) {
            Err(Errno::ENODEV) => Ok(0),
            read => read.doing(reading),
        }
    }
}

/// v1's eventfd, and the timer for looking again.
#[derive(Debug)]
struct Notice {
    event: Watched<EventFd>,
    again: Option<Watched<TimerFd>>,
    /// Told, but not found in the counter yet.
    expected: u64,
    looks: u32,
    poller: Poller,
    token: Token,
}

impl Notice {
    /// `None` where the kernel has none (PREEMPT_RT): then only [`Watch::check`] finds something.
    fn new(dir: &Dir, control: &OwnedFd, poller: &Poller, token: Token) -> Result<Option<Self>> {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .doing(|| "eventfd".to_owned())?;
        let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
        match dir.try_write("cgroup.event_control", &line) {
            Ok(()) => {}
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => return Ok(None),
            Err(errno) => {
                let path = dir.path().join("cgroup.event_control");
                return Err(Error::sys(format!("write {line:?} to {path:?}"), errno));
            }
        }
        let event = poller.watch(event, token, Interest::Read)?;
        let poller = poller.clone();
        Ok(Some(Self { event, again: None, expected: 0, looks: 0, poller, token }))
    }

    /// Takes what was told, so that the descriptors are not ready any more.
    fn take(&mut self) -> Result<()> {
        match self.event.get().read() {
            Ok(times) => {
                self.expected += times;
                self.looks = 0;
                self.again = None;
            }
            Err(Errno::EAGAIN) => {}
            Err(errno) => return Err(errno).doing(|| "read an eventfd".to_owned()),
        }
        // One that has not expired stays: exits make us look more often, not for a shorter time.
        if self.again.as_ref().is_some_and(|timer| timer.get().wait() != Err(Errno::EAGAIN)) {
            self.again = None;
        }
        Ok(())
    }

    /// Looks again later, unless all that was told has been found.
    fn found(&mut self, increase: u64) -> Result<()> {
        self.expected = self.expected.saturating_sub(increase);
        if self.expected == 0 {
            self.again = None;
        } else if self.again.is_none() && self.looks == LOOKS {
            self.expected = 0;
        } else if self.again.is_none() {
            let timer = TimerFd::new(
                ClockId::CLOCK_MONOTONIC,
                TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
            );
            let timer = timer.doing(|| "timerfd_create".to_owned())?;
            let at = Expiration::OneShot(TimeSpec::from_duration(FIRST_LOOK * (1 << self.looks)));
            timer.set(at, TimerSetTimeFlags::empty()).doing(|| "timerfd_settime".to_owned())?;
            self.again = Some(self.poller.watch(timer, self.token, Interest::Read)?);
            self.looks += 1;
        }
        Ok(())
    }
}

fn open(dir: &Dir, file: &str) -> Result<Option<OwnedFd>> {
    match dir.file(file, OFlag::O_RDONLY) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(errno).doing(|| format!("open {:?}", dir.path().join(file))),
    }
}

fn reading() -> String {
    "read the count of oom kills".to_owned()
}

/// From its beginning, so that the kernel makes it anew. A few short lines.
fn read(file: impl AsFd, key: &str) -> Result<u64, Errno> {
    let mut bytes = [0; 512];
    let len = pread(file, &mut bytes, 0)?;
    let text = std::str::from_utf8(&bytes[..len]).map_err(|_| Errno::EILSEQ)?;
    Ok(value_of(text, key).unwrap_or(0))
}

#[cfg(test)]
mod tests;
