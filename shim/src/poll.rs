//! epoll(7), level-triggered: which descriptors the loop waits for, and whose they are.
//!
//! A forked worker holds copies of all descriptors for a moment, and a descriptor leaves an epoll
//! set only when its last copy is closed. So [`Watched`] takes it out before closing it; otherwise
//! the loop would be told of something that it no longer has. And whoever asks the kernel whether
//! anybody else has the other end of a pipe must know of that moment: [`Copied`].

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use corten::error::{Doing, Result};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What the loop gets back when a descriptor is ready: chosen by the loop, opaque to all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What to wait for. Errors and hang-ups are always told, but when it is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Out of the set: not even errors and hang-ups, which would be told over and over.
    Off,
    /// Errors and hang-ups only.
    Nothing,
    /// Something to read, or to accept; a pidfd's process has ended.
    Read,
    /// Room to write.
    Write,
    /// Either.
    Both,
    /// Either, told once each time something happens (edge-triggered): for a descriptor that may
    /// stay hung up for long and come back.
    Change,
}

impl Interest {
    fn flags(self) -> EpollFlags {
        match self {
            Self::Off | Self::Nothing => EpollFlags::empty(),
            Self::Read => EpollFlags::EPOLLIN,
            Self::Write => EpollFlags::EPOLLOUT,
            Self::Both => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            Self::Change => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET,
        }
    }
}

/// How long a forked process has copies of our descriptors at most, on however busy a machine.
const CLOSING: Duration = Duration::from_secs(1);

/// The set of descriptors waited for. Clones are the same set.
#[derive(Debug, Clone)]
pub struct Poller(Rc<Set>);

#[derive(Debug)]
struct Set {
    epoll: Epoll,
    /// Forked processes that may have copies of all descriptors.
    copies: Cell<usize>,
    /// When the last of them was forked.
    copied: Cell<Option<Instant>>,
}

/// A process is being forked: until this is dropped, when it is known to have closed what it does not
/// need, [`Watched::is_copied`] says so.
#[derive(Debug)]
pub struct Copied(Poller);

impl Drop for Copied {
    fn drop(&mut self) {
        let set = &self.0.0;
        set.copies.set(set.copies.get() - 1);
    }
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn new() -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        let epoll = epoll.doing(|| "epoll_create1".to_owned())?;
        Ok(Self(Rc::new(Set { epoll, copies: Cell::new(0), copied: Cell::new(None) })))
    }

    /// Said before a fork.
    pub fn copied(&self) -> Copied {
        self.0.copies.set(self.0.copies.get() + 1);
        self.0.copied.set(Some(Instant::now()));
        Copied(self.clone())
    }

    /// Waits for `fd` until the answer is dropped.
    ///
    /// # Errors
    /// `EPERM` for regular files and directories, which are always ready; `ENOSPC`
    /// (`/proc/sys/fs/epoll/max_user_watches`).
    pub fn watch<F: AsFd>(&self, fd: F, token: Token, interest: Interest) -> Result<Watched<F>> {
        let mut watched = Watched { fd, token, interest: Interest::Off, poller: self.clone() };
        watched.want(interest)?;
        Ok(watched)
    }

    /// Waits until something is ready or `deadline` is past, and says whose it is. A token comes
    /// once, whatever number of its descriptors is ready.
    ///
    /// # Errors
    /// None that a correct program could see.
    pub fn wait(&self, deadline: Option<Instant>) -> Result<Vec<Token>> {
        let mut events = [EpollEvent::empty(); 64];
        let timeout = deadline.map_or(EpollTimeout::NONE, |at| {
            // Rounded up: a wait that ends before the deadline would be a busy one.
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
            EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
        });
        let count = match self.0.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            other => other.doing(|| "epoll_wait".to_owned())?,
        };
        let mut tokens: Vec<Token> =
            events[..count].iter().map(|event| Token(event.data())).collect();
        tokens.sort_unstable();
        tokens.dedup();
        Ok(tokens)
    }
}

/// A descriptor in the set.
#[derive(Debug)]
pub struct Watched<F: AsFd> {
    fd: F,
    token: Token,
    interest: Interest,
    poller: Poller,
}

impl<F: AsFd> Watched<F> {
    /// Changes what is waited for.
    ///
    /// # Errors
    /// `ENOMEM`; `ENOSPC` when it was off.
    pub fn want(&mut self, interest: Interest) -> Result<()> {
        let (set, mut event) =
            (&self.poller.0.epoll, EpollEvent::new(interest.flags(), self.token.0));
        match (self.interest, interest) {
            (before, now) if before == now => {}
            (Interest::Off, _) => set.add(&self.fd, event).doing(|| "epoll_ctl add".to_owned())?,
            (_, Interest::Off) => set.delete(&self.fd).doing(|| "epoll_ctl del".to_owned())?,
            _ => set.modify(&self.fd, &mut event).doing(|| "epoll_ctl mod".to_owned())?,
        }
        self.interest = interest;
        Ok(())
    }

    /// Whether a process may have a copy of it that was forked a moment ago and has not been heard of.
    pub fn is_copied(&self, now: Instant) -> bool {
        let set = &self.poller.0;
        let recent = set.copied.get().is_some_and(|at| now.saturating_duration_since(at) < CLOSING);
        recent && set.copies.get() > 0
    }

    /// What is being waited for.
    pub fn get(&self) -> &F {
        &self.fd
    }
}

impl<F: AsFd> AsFd for Watched<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<F: AsFd> Drop for Watched<F> {
    fn drop(&mut self) {
        if self.interest != Interest::Off {
            // It is in the set, so this can't fail.
            let _in_the_set = self.poller.0.epoll.delete(&self.fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_dropped_descriptor_is_out_of_the_set_even_if_a_copy_lives() {
        let poller = Poller::new().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let copy = theirs.try_clone().unwrap();
        let watched = poller.watch(theirs, Token(7), Interest::Read).unwrap();
        ours.write_all(b"x").unwrap();
        assert_eq!(poller.wait(None).unwrap(), [Token(7)]);
        drop(watched);
        assert!(poller.wait(Some(Instant::now())).unwrap().is_empty());
        drop(copy);
    }

    #[test]
    fn a_copy_is_one_until_it_is_heard_of_or_old() {
        let poller = Poller::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let watched = poller.watch(ours, Token(7), Interest::Off).unwrap();
        let now = Instant::now();
        assert!(!watched.is_copied(now));
        let (first, second) = (poller.copied(), poller.copied());
        drop(first);
        assert!(watched.is_copied(now) && !watched.is_copied(now + 2 * CLOSING));
        drop(second);
        assert!(!watched.is_copied(now));
    }

    #[test]
    fn interest_can_change() {
        let poller = Poller::new().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut watched = poller.watch(theirs, Token(1), Interest::Nothing).unwrap();
        ours.write_all(b"x").unwrap();
        assert!(poller.wait(Some(Instant::now())).unwrap().is_empty());
        watched.want(Interest::Both).unwrap();
        assert_eq!(poller.wait(None).unwrap(), [Token(1)]);
        watched.get().read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn a_hang_up_is_told_once_per_change_and_never_when_off() {
        let poller = Poller::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let told = || !poller.wait(Some(Instant::now())).unwrap().is_empty();
        let mut watched = poller.watch(ours, Token(1), Interest::Change).unwrap();
        assert!(told() && !told());
        watched.want(Interest::Nothing).unwrap();
        assert!(told() && told());
        watched.want(Interest::Off).unwrap();
        assert!(!told());
        watched.want(Interest::Read).unwrap();
        assert!(told());
    }
}
